//! Names of columns: which one is meant, and which ones there are.

use crate::error::FormatError;

/// What the cells of a column are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Bytes, as they are; they need not be UTF-8.
    Text,
    Number,
}

/// A column that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub kind: Kind,
}

impl Wanted {
    pub fn text(name: &str) -> Wanted {
        Wanted { name: name.to_owned(), kind: Kind::Text }
    }

    pub fn number(name: &str) -> Wanted {
        Wanted { name: name.to_owned(), kind: Kind::Number }
    }
}

/// How many names a message lists.
const LISTED: usize = 40;

/// The place of the column with this name.
pub(crate) fn find(names: &[String], name: &str) -> Result<usize, FormatError> {
    let mut found = names.iter().enumerate().filter(|(_, known)| *known == name).map(|(at, _)| at);
    match (found.next(), found.count()) {
        (Some(at), 0) => Ok(at),
        (Some(_), more) => Err(FormatError::AmbiguousColumn { name: name.to_owned(), times: more + 1 }),
        (None, _) => {
            let nearest = names.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
            let hint = match nearest {
                // A third of the letters wrong is a typing error; more is another word.
                Some((distance, known)) if distance <= known.chars().count().div_ceil(3) => format!("did you mean '{known}'? "),
                _ => String::new(),
            };
            let more = names.len().saturating_sub(LISTED);
            let mut known = names.iter().take(LISTED).map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
            if more > 0 {
                known += &format!(" and {more} more");
            }
            Err(FormatError::UnknownColumn { name: name.to_owned(), hint, known })
        }
    }
}
