//! JSON lines: an object on every line (jsonlines.org).
//!
//! - A column is named by a key, or by the keys that lead to it with points between: `user.name`. A key that has points itself is found too.
//! - What is null, or not there, is an empty cell. Of a column of text, a string gives its letters, anything else its JSON as it stands.
//!   Of a column of numbers, a string is read like a CSV cell.
//! - Of two equal keys in an object the last one counts. An empty line is no row.
//!
//! What nobody wants is passed over: its brackets must match, and no more is asked of it.

mod cursor;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use reader::{Reader, names};
