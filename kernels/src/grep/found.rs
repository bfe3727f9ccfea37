//! What one split had: the lines that were found, each with the number of newlines before it.
//!
//! ```text
//! path length, path, offset of the split's first line, its bytes, its newlines, lines found, then for each of them:
//!     newlines between the end of the line found before and this one, length, the line without its newline
//! ```
//! All numbers are varints. A split without lines writes nothing. The lengths of all splits of a file follow each other without a gap, which is how
//! the reader knows that it has seen every newline before a line.

use crate::api::KernelError;
use crate::run::{push_varint, take_varint};

#[derive(Default)]
pub(super) struct Writer {
    body: Vec<u8>,
    /// Newlines since the last line that was found.
    gap: u64,
    newlines: u64,
    lines: u64,
}

impl Writer {
    /// Lines that are not wanted.
    pub(super) fn skip(&mut self, newlines: u64) {
        self.gap += newlines;
        self.newlines += newlines;
    }

    pub(super) fn line(&mut self, line: &[u8], newline: bool) {
        push_varint(&mut self.body, std::mem::take(&mut self.gap));
        push_varint(&mut self.body, line.len() as u64);
        self.body.extend_from_slice(line);
        self.newlines += u64::from(newline);
        self.lines += 1;
    }

    /// Each of these lines.
    pub(super) fn all(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let newline = memchr::memchr(b'\n', text);
            let end = newline.unwrap_or(text.len());
            self.line(&text[..end], newline.is_some());
            text = &text[newline.map_or(end, |end| end + 1)..];
        }
    }

    pub(super) fn newlines(&self) -> u64 {
        self.newlines
    }

    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    pub(super) fn finish(self, path: &str, offset: u64, bytes: u64) -> Vec<u8> {
        let mut block = Vec::with_capacity(path.len() + 60 + self.body.len());
        push_varint(&mut block, path.len() as u64);
        block.extend_from_slice(path.as_bytes());
        for number in [offset, bytes, self.newlines, self.lines] {
            push_varint(&mut block, number);
        }
        block.extend_from_slice(&self.body);
        block
    }
}

/// The block of one split.
pub(crate) struct Found<'a> {
    pub(crate) path: &'a str,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) newlines: u64,
    lines: u64,
    rest: &'a [u8],
}

fn damaged() -> KernelError {
    KernelError::Input("shuffle block of found lines is damaged".into())
}

fn number(rest: &mut &[u8]) -> Result<u64, KernelError> {
    take_varint(rest).ok_or_else(damaged)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], KernelError> {
    let length = usize::try_from(number(rest)?).map_err(|_| damaged())?;
    let (text, behind) = rest.split_at_checked(length).ok_or_else(damaged)?;
    *rest = behind;
    Ok(text)
}

impl<'a> Found<'a> {
    pub(crate) fn read(mut block: &'a [u8]) -> Result<Found<'a>, KernelError> {
        let rest = &mut block;
        let path = std::str::from_utf8(text(rest)?).map_err(|_| damaged())?;
        let [offset, bytes, newlines, lines] = [number(rest)?, number(rest)?, number(rest)?, number(rest)?];
        Ok(Found { path, offset, bytes, newlines, lines, rest: block })
    }

    /// The next line that was found, and the newlines between it and the one before.
    pub(crate) fn next_line(&mut self) -> Result<Option<(u64, &'a [u8])>, KernelError> {
        let Some(left) = self.lines.checked_sub(1) else {
            return if self.rest.is_empty() { Ok(None) } else { Err(damaged()) };
        };
        self.lines = left;
        let gap = number(&mut self.rest)?;
        Ok(Some((gap, text(&mut self.rest)?)))
    }
}
