//! Comma-separated values: RFC 4180, with any separator of one byte and lines that end in `\n` or `\r\n`.
//!
//! - A cell in quotes may hold separators, doubled quotes and, if the options say so, line ends. A quote elsewhere in a cell is a letter.
//! - An empty line is no row. A byte order mark at the start of the file is passed over. The last line may lack its end.
//! - Every row has as many cells as the first one.
//!
//! How it is quick: one bit for each byte of the file says "separator or line end", 64 bytes at a time, so that cells which nobody wants cost
//! next to nothing; a cell in quotes is looked at by itself.

mod layout;
mod reader;
mod scan;
#[cfg(test)]
mod tests;

pub(crate) use layout::Layout;
pub(crate) use reader::Reader;
