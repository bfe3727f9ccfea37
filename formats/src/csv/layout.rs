//! The first row of a file: how many columns there are, what they are called, and where the data begins.

use super::reader::{Cell, cell};
use crate::error::{FormatError, Place};
use crate::table::{CsvOptions, HEAD_BYTES};

#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) names: Vec<String>,
    /// Where the first row of data begins.
    pub(crate) start: usize,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Layout {
    /// `None` if the file has no row at all.
    pub(crate) fn read(file: &[u8], options: &CsvOptions) -> Result<Option<Layout>, FormatError> {
        let head = &file[..file.len().min(HEAD_BYTES)];
        let mut start = if head.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        loop {
            match &head[start..] {
                [b'\n', ..] => start += 1,
                [b'\r', b'\n', ..] => start += 2,
                [] => return Ok(None),
                _ => break,
            }
        }
        let mut cells = Vec::new();
        let mut at = start;
        let end = loop {
            // A head that was cut off looks like an unfinished row.
            let Cell { text, end } = cell(head, at, head.len(), options).map_err(|error| match error {
                FormatError::Unclosed { .. } if head.len() == HEAD_BYTES => FormatError::Head(HEAD_BYTES),
                other => other.with_line(head),
            })?;
            cells.push(String::from_utf8_lossy(&text).into_owned());
            at = end + 1;
            if end >= head.len() {
                if head.len() == HEAD_BYTES {
                    return Err(FormatError::Head(HEAD_BYTES));
                }
                break end;
            }
            if head[end] == b'\n' {
                break at;
            }
        };
        if options.header {
            return Ok(Some(Layout { names: cells, start: end }));
        }
        let names = match options.names.len() {
            0 => (1..=cells.len()).map(|number| number.to_string()).collect(),
            given if given == cells.len() => options.names.clone(),
            given => return Err(FormatError::Names { found: cells.len(), given }),
        };
        Ok(Some(Layout { names, start }))
    }
}

/// For messages of a row that is wrong.
pub(super) fn ragged(at: usize, found: usize, expected: usize) -> FormatError {
    FormatError::Ragged { place: Place::at(at), found, expected }
}
