//! A pattern that is looked for line by line, in a search over many lines at once.
//!
//! The expression is rewritten so that no match can hold a newline: classes lose it, literals that have one match nothing, and the ends of the text
//! become ends of a line. Every match then lies within one line, and a line matches by itself exactly when a match in the whole text begins in it.
//! (The same idea as in ripgrep's `grep-regex`.)

use regex_automata::Input;
use regex_automata::meta::{Cache, Regex};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

/// Of one compiled expression, so that a short pattern cannot ask for gigabytes.
const MEMORY_BYTES: usize = 16 << 20;

pub(super) struct Pattern {
    regex: Regex,
}

impl Pattern {
    /// An error is a text for whoever wrote the pattern.
    pub(super) fn new(pattern: &str, literally: bool, ignore_case: bool) -> Result<Pattern, String> {
        let escaped;
        let text = match literally {
            true => {
                escaped = regex_syntax::escape(pattern);
                &escaped
            }
            false => pattern,
        };
        let mut parser = ParserBuilder::new().multi_line(true).utf8(false).case_insensitive(ignore_case).build();
        let parsed = parser.parse(text).map_err(|error| error.to_string())?;
        let regex = Regex::builder()
            .configure(Regex::config().utf8_empty(false).nfa_size_limit(Some(MEMORY_BYTES)))
            .build_from_hir(&within_a_line(parsed))
            .map_err(|error| match error.size_limit() {
                Some(_) => "it needs too much memory; use smaller repetitions".to_owned(),
                None => error.to_string(),
            })?;
        Ok(Pattern { regex })
    }

    /// With space of its own: threads that share one would take turns for each line.
    pub(super) fn searcher(&self) -> Searcher<'_> {
        Searcher { regex: &self.regex, cache: self.regex.create_cache() }
    }
}

pub(super) struct Searcher<'p> {
    regex: &'p Regex,
    cache: Cache,
}

impl Searcher<'_> {
    /// The first line at or behind `from`, the start of a line, that holds a match: where it starts and where it ends, its newline not included.
    pub(super) fn next_line(&mut self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        // The end of some match is enough, and quicker to find than which one.
        let found = self.regex.search_half_with(&mut self.cache, &Input::new(text).range(from..).earliest(true))?;
        let at = found.offset();
        let start = memchr::memrchr(b'\n', &text[from..at]).map_or(from, |newline| from + newline + 1);
        // Behind the last newline there is no further line.
        (start < text.len()).then(|| (start, memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |newline| at + newline)))
    }
}

fn within_a_line(hir: Hir) -> Hir {
    let all = |parts: Vec<Hir>| parts.into_iter().map(within_a_line).collect::<Vec<_>>();
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => Hir::fail(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(Class::Unicode(mut class)) => {
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(mut class)) => {
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Hir::class(Class::Bytes(class))
        }
        HirKind::Look(Look::Start) => Hir::look(Look::StartLF),
        HirKind::Look(Look::End) => Hir::look(Look::EndLF),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition { sub: Box::new(within_a_line(*repetition.sub)), ..repetition }),
        // Nobody asks for groups.
        HirKind::Capture(capture) => within_a_line(*capture.sub),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
    }
}
