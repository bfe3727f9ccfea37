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

pub(super) struct Writer {
    /// Room for the numbers at the front, which are known at the end, then the lines.
    block: Vec<u8>,
    head: usize,
    /// Newlines since the last line that was found.
    gap: u64,
    newlines: u64,
    lines: u64,
}

/// A varint of full length, so that its room can be left free before it is known.
const PADDED_BYTES: usize = 10;
/// Offset, bytes, newlines, lines.
const NUMBERS: usize = 4;

fn padded(number: u64) -> [u8; PADDED_BYTES] {
    std::array::from_fn(|at| (number >> (7 * at)) as u8 & 0x7f | if at + 1 < PADDED_BYTES { 0x80 } else { 0 })
}

impl Writer {
    pub(super) fn new(path: &str) -> Writer {
        let mut block = Vec::new();
        push_varint(&mut block, path.len() as u64);
        block.extend_from_slice(path.as_bytes());
        let head = block.len();
        block.resize(head + NUMBERS * PADDED_BYTES, 0);
        Writer { block, head, gap: 0, newlines: 0, lines: 0 }
    }

    /// Lines that are not wanted.
    pub(super) fn skip(&mut self, newlines: u64) {
        self.gap += newlines;
        self.newlines += newlines;
    }

    pub(super) fn line(&mut self, line: &[u8], newline: bool) {
        // The length of most lines is a byte, and so is the gap.
        self.block.reserve(line.len() + 2 * PADDED_BYTES);
        push_varint(&mut self.block, std::mem::take(&mut self.gap));
        push_varint(&mut self.block, line.len() as u64);
        self.block.extend_from_slice(line);
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

    pub(super) fn finish(mut self, offset: u64, bytes: u64) -> Vec<u8> {
        let numbers = [offset, bytes, self.newlines, self.lines].map(padded);
        self.block[self.head..self.head + NUMBERS * PADDED_BYTES].copy_from_slice(numbers.as_flattened());
        self.block
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
    KernelError::Failed("shuffle block of found lines is damaged".into())
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

    /// The lines that come next, so many that they take about so many bytes; at least one. Nothing at the end.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Option<Lines<'a>>, KernelError> {
        if self.lines == 0 {
            return if self.rest.is_empty() { Ok(None) } else { Err(damaged()) };
        }
        let (all, before) = (self.rest, self.lines);
        let mut passed = Some(0u64);
        while self.lines > 0 && all.len() - self.rest.len() < bytes {
            let gap = number(&mut self.rest)?;
            text(&mut self.rest)?;
            passed = passed.and_then(|passed| passed.checked_add(gap)?.checked_add(1));
            self.lines -= 1;
        }
        let (body, _) = all.split_at(all.len() - self.rest.len());
        Ok(Some(Lines { rest: body, count: before - self.lines, passed }))
    }
}

/// Some of the lines that were found in a split.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
    pub(crate) count: u64,
    /// Newlines from the end of the line found before to the end of the last one here; nothing if no number can say it.
    pub(crate) passed: Option<u64>,
}

impl<'a> Lines<'a> {
    /// Of the lines that are left, with their lengths and gaps.
    pub(crate) fn bytes(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Lines<'a> {
    /// The newlines between the line and the one found before, and the line.
    type Item = (u64, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(u64, &'a [u8])> {
        if self.rest.is_empty() {
            return None;
        }
        let gap = take_varint(&mut self.rest)?;
        let length = take_varint(&mut self.rest)?;
        let (line, behind) = self.rest.split_at_checked(length as usize)?;
        self.rest = behind;
        Some((gap, line))
    }
}
