//! From the words of a job to comparisons.

use super::{Constancy, Constant, Op, Term};
use crate::number;

/// A job that compares more means something else.
const MAX_TERMS: usize = 100;

const LIKE: &str = "a filter is like: amount >= 10 and city = 'Oslo'";

pub(super) fn terms(text: &str) -> Result<Vec<Term>, String> {
    let mut words = Words { rest: text };
    let mut terms = Vec::new();
    loop {
        terms.push(term(&mut words)?);
        if terms.len() > MAX_TERMS {
            return Err(format!("it compares more than {MAX_TERMS} times"));
        }
        match words.next()? {
            None => return Ok(terms),
            Some(Word::Bare(word)) if word.eq_ignore_ascii_case("and") => {}
            Some(other) => return Err(format!("\"and\" was expected, and {} stands there; {LIKE}", other.shown())),
        }
    }
}

fn term(words: &mut Words<'_>) -> Result<Term, String> {
    let column = match words.next()? {
        Some(Word::Bare(name)) => name.to_owned(),
        Some(Word::Name(name)) => name,
        Some(other) => return Err(format!("a column was expected, and {} stands there; {LIKE}", other.shown())),
        None => return Err(format!("a column was expected at the end; {LIKE}")),
    };
    let op = match words.next()? {
        Some(Word::Sign(sign)) => op(sign).ok_or_else(|| format!("{sign} is unknown; there are =, !=, <, <=, > and >="))?,
        Some(other) => {
            return Err(format!("behind column '{column}' a comparison was expected, and {} stands there; {LIKE}", other.shown()));
        }
        None => return Err(format!("behind column '{column}' a comparison was expected; {LIKE}")),
    };
    let constant = match words.next()? {
        Some(Word::Text(text)) => Constant::Text(text.into_bytes()),
        Some(Word::Bare(word)) => {
            let no_number = || format!("{word} is neither a number nor a text; write '{word}' for the text");
            let number = number::parse(word.as_bytes()).ok_or_else(no_number)?;
            Constant::Number(Constancy::new(number, word.parse().map_err(|_| no_number())?))
        }
        Some(other) => {
            return Err(format!(
                "column '{column}' is compared with {}; {LIKE} (text in single quotes, columns in double ones)",
                other.shown()
            ));
        }
        None => return Err(format!("column '{column}' is compared with nothing; {LIKE}")),
    };
    Ok(Term { column, op, constant })
}

fn op(sign: &str) -> Option<Op> {
    Some(match sign {
        "=" | "==" => Op::Equal,
        "!=" | "<>" => Op::Unequal,
        "<" => Op::Less,
        "<=" => Op::AtMost,
        ">" => Op::Greater,
        ">=" => Op::AtLeast,
        _ => return None,
    })
}

enum Word<'a> {
    Bare(&'a str),
    /// In double quotes.
    Name(String),
    /// In single quotes.
    Text(String),
    Sign(&'a str),
}

impl Word<'_> {
    fn shown(&self) -> String {
        match self {
            Word::Bare(word) | Word::Sign(word) => (*word).to_owned(),
            Word::Name(name) => format!("\"{name}\""),
            Word::Text(text) => format!("'{text}'"),
        }
    }
}

struct Words<'a> {
    rest: &'a str,
}

const SIGNS: [char; 4] = ['=', '<', '>', '!'];

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<Option<Word<'a>>, String> {
        self.rest = self.rest.trim_start();
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        if matches!(first, '"' | '\'') {
            let word = self.quoted(first)?;
            return Ok(Some(if first == '"' { Word::Name(word) } else { Word::Text(word) }));
        }
        let sign = SIGNS.contains(&first);
        let of_word = |char: char| SIGNS.contains(&char) == sign && !char.is_whitespace() && !matches!(char, '"' | '\'');
        let end = self.rest.find(|char| !of_word(char)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(Some(if sign { Word::Sign(word) } else { Word::Bare(word) }))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut word = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, char)) = chars.next() {
            if char != quote {
                word.push(char);
            } else if chars.next_if(|(_, next)| *next == quote).is_some() {
                word.push(quote);
            } else {
                self.rest = &self.rest[at + 1..];
                return Ok(word);
            }
        }
        Err(format!("the quotes of {} are not closed", self.rest))
    }
}
