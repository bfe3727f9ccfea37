//! Lines to rows.

use super::layout::{Layout, ragged};
use super::scan::Scan;
use crate::batches::RowSource;
use crate::columns::{self, Wanted};
use crate::error::{FormatError, Place};
use crate::rows::{Rows, Stop, Text};
use crate::table::CsvOptions;
use std::borrow::Cow;
use std::ops::Range;

pub(crate) struct Reader {
    options: CsvOptions,
    columns: usize,
    /// Where the next row begins, and where the split ends.
    at: usize,
    end: usize,
    scan: Scan,
    /// Of column `c` of the file: `order[first[c]..first[c + 1]]` are the wanted columns that it is.
    order: Vec<usize>,
    first: Vec<usize>,
}

impl Reader {
    pub(crate) fn new(file: &[u8], range: Range<usize>, options: &CsvOptions, wanted: &[Wanted]) -> Result<Reader, FormatError> {
        let (names, start) = match Layout::read(file, options)? {
            Some(Layout { names, start }) => (names, start.max(range.start)),
            None => (Vec::new(), range.end),
        };
        let mut placed = Vec::with_capacity(wanted.len());
        for (builder, wanted) in wanted.iter().enumerate() {
            // A file without a row lacks no column.
            placed.push((if names.is_empty() { 0 } else { columns::find(&names, &wanted.name)? }, builder));
        }
        placed.sort_unstable();
        let first = (0..=names.len()).map(|column| placed.partition_point(|(of, _)| *of < column)).collect();
        let end = range.end;
        Ok(Reader {
            at: start.min(end),
            end,
            scan: Scan::new(file, options.separator, start.min(end), end),
            order: placed.into_iter().map(|(_, builder)| builder).collect(),
            first,
            options: options.clone(),
            columns: names.len(),
        })
    }

    /// The row has more cells than there are columns: how many.
    fn too_long(&self, file: &[u8], begin: usize) -> FormatError {
        let (mut at, mut found) = (begin, 0);
        while let Ok(Cell { end, .. }) = cell(file, at, self.end, &self.options) {
            found += 1;
            if end >= self.end || file[end] == b'\n' {
                break;
            }
            at = end + 1;
        }
        ragged(begin, found, self.columns)
    }
}

impl RowSource for Reader {
    fn at(&self) -> usize {
        self.at
    }

    fn end(&self) -> usize {
        self.end
    }

    fn again(&mut self, file: &[u8]) {
        self.scan.jump(file, self.at);
    }

    /// Behind its last cell, if its cells have ends. A cell that goes on behind its quotes ends its row with the line; the row of quotes that nobody
    /// closes is its first line.
    fn skip(&mut self, file: &[u8]) {
        let line_end = |from: usize| memchr::memchr(b'\n', &file[from..self.end]).map_or(self.end, |found| from + found);
        let mut at = self.at;
        let end = loop {
            match cell(file, at, self.end, &self.options) {
                Ok(Cell { end, .. }) if end < self.end && file[end] != b'\n' => at = end + 1,
                Ok(Cell { end, .. }) => break end,
                Err(FormatError::AfterQuotes { .. }) => break line_end(closing_quote(file, at, self.end)),
                Err(_) => break line_end(self.at),
            }
        };
        self.at = (end + 1).min(self.end);
        self.scan.jump(file, self.at);
    }

    #[inline(always)]
    fn row(&mut self, file: &[u8], rows: &mut Rows) -> Result<bool, Stop> {
        let (begin, columns) = (self.at, self.columns);
        let mut start = begin;
        let mut column = 0;
        loop {
            let (cell, end);
            if file.get(start) == Some(&b'"') && start < self.end {
                let quoted = quoted(file, start, self.end, &self.options)?;
                end = quoted.end;
                self.scan.jump(file, (end + 1).min(self.end));
                cell = quoted.text;
            } else {
                end = self.scan.next(file).unwrap_or(self.end);
                cell = Text::Plain(start, end);
            }
            let last = end >= self.end || file[end] == b'\n';
            let mut cell = cell;
            if last && let Text::Plain(from, to) = &mut cell {
                if *to > *from && *to == end && file[*to - 1] == b'\r' {
                    *to -= 1;
                }
                if column == 0 && *from == *to && *from == begin {
                    self.at = (end + 1).min(self.end);
                    return Ok(false);
                }
            }
            if column >= columns {
                return Err(self.too_long(file, begin).into());
            }
            for index in self.first[column]..self.first[column + 1] {
                rows.push(file, begin, self.order[index], &cell)?;
            }
            column += 1;
            if last {
                if column != columns {
                    return Err(ragged(begin, column, columns).into());
                }
                self.at = (end + 1).min(self.end);
                return Ok(true);
            }
            start = end + 1;
        }
    }
}

struct Quoted {
    text: Text,
    /// Where the separator or line end behind the cell is, or the end of the split.
    end: usize,
}

/// A cell that begins with a quote at `start`.
#[inline(never)]
fn quoted(file: &[u8], start: usize, end: usize, options: &CsvOptions) -> Result<Quoted, FormatError> {
    let unclosed = |in_line| FormatError::Unclosed { place: Place::at(start), in_line };
    let mut own: Option<Vec<u8>> = None;
    let mut from = start + 1;
    loop {
        let found = memchr::memchr(b'"', &file[from..end]).map(|found| from + found);
        if !options.quoted_newlines && memchr::memchr(b'\n', &file[from..found.unwrap_or(end)]).is_some() {
            return Err(unclosed(true));
        }
        let quote = found.ok_or_else(|| unclosed(!options.quoted_newlines))?;
        if file[..end].get(quote + 1) == Some(&b'"') {
            own.get_or_insert_default().extend_from_slice(&file[from..=quote]);
            from = quote + 2;
            continue;
        }
        let text = match own {
            Some(mut own) => {
                own.extend_from_slice(&file[from..quote]);
                Text::Own(start, own)
            }
            None => Text::Plain(from, quote),
        };
        return match file[quote + 1..end] {
            [] => Ok(Quoted { text, end }),
            [next, ..] if next == options.separator || next == b'\n' => Ok(Quoted { text, end: quote + 1 }),
            [b'\r', b'\n', ..] => Ok(Quoted { text, end: quote + 2 }),
            [b'\r'] => Ok(Quoted { text, end }),
            _ => Err(FormatError::AfterQuotes { place: Place::at(start) }),
        };
    }
}

/// Of the cell that begins with a quote at `start`; the end where there is none.
fn closing_quote(file: &[u8], start: usize, end: usize) -> usize {
    let mut from = start + 1;
    while let Some(found) = memchr::memchr(b'"', &file[from.min(end)..end]) {
        let quote = from + found;
        if file[..end].get(quote + 1) != Some(&b'"') {
            return quote;
        }
        from = quote + 2;
    }
    end
}

/// A cell by itself, for first rows and for messages.
pub(super) struct Cell<'a> {
    pub(super) text: Cow<'a, [u8]>,
    pub(super) end: usize,
}

pub(super) fn cell<'a>(file: &'a [u8], start: usize, end: usize, options: &CsvOptions) -> Result<Cell<'a>, FormatError> {
    if start < end && file[start] == b'"' {
        let Quoted { text, end } = quoted(file, start, end, options)?;
        let text = match text {
            Text::Plain(from, to) => Cow::Borrowed(&file[from..to]),
            Text::Own(_, own) => Cow::Owned(own),
        };
        return Ok(Cell { text, end });
    }
    let found = memchr::memchr2(options.separator, b'\n', &file[start..end]).map_or(end, |found| start + found);
    let at_line_end = found >= end || file[found] == b'\n';
    let to = if at_line_end && found > start && file[found - 1] == b'\r' { found - 1 } else { found };
    Ok(Cell { text: Cow::Borrowed(&file[start..to]), end: found })
}
