//! Lines to rows.

use super::cursor::{Cursor, Kind, Value, Wrong, unescape};
use crate::batches::RowSource;
use crate::columns::Wanted;
use crate::error::{FormatError, Place};
use crate::rows::{Rows, Stop, Text};
use std::ops::Range;

pub(crate) struct Reader {
    /// Names of the wanted columns.
    names: Vec<Vec<u8>>,
    at: usize,
    end: usize,
    /// Of the row under way: the value of each wanted column.
    values: Vec<Option<Value>>,
}

impl Reader {
    pub(crate) fn new(file: &[u8], range: Range<usize>, wanted: &[Wanted]) -> Reader {
        let start = if range.start == 0 && file.starts_with(b"\xef\xbb\xbf") { 3 } else { range.start };
        Reader {
            names: wanted.iter().map(|wanted| wanted.name.clone().into_bytes()).collect(),
            at: start.min(range.end),
            end: range.end,
            values: vec![None; wanted.len()],
        }
    }

    fn push(&self, file: &[u8], rows: &mut Rows, row: usize, wanted: usize) -> Result<(), Stop> {
        let Some(Value { kind, start, end }) = self.values[wanted] else {
            rows.push_missing(wanted);
            return Ok(());
        };
        let (start, end) = (row + start, row + end);
        match kind {
            Kind::Null => rows.push_missing(wanted),
            Kind::String { escaped: true } => {
                let text = unescape(&file[start..end]).map_err(|message| FormatError::Json { place: Place::at(start), message })?;
                rows.push(file, row, wanted, &Text::Own(start, text.into_owned()))?;
            }
            Kind::String { escaped: false } | Kind::Other => rows.push(file, row, wanted, &Text::Plain(start, end))?,
        }
        Ok(())
    }
}

/// Finds the wanted columns whose names begin with `path` in the object at the cursor.
fn find(cursor: &mut Cursor<'_>, path: &[u8], names: &[Vec<u8>], values: &mut [Option<Value>], depth: usize) -> Result<(), Wrong> {
    cursor.object(|cursor, key| {
        let mut inside = false;
        let mut here = false;
        for name in names {
            let rest = name.strip_prefix(path).and_then(|rest| rest.strip_prefix(key));
            here |= rest.is_some_and(<[u8]>::is_empty);
            inside |= rest.is_some_and(|rest| rest.first() == Some(&b'.'));
        }
        let begin = cursor.at;
        if inside && depth < 64 && cursor.peek() == Some(b'{') {
            let longer = [path, key, b"."].concat();
            find(cursor, &longer, names, values, depth + 1)?;
            if !here {
                return Ok(());
            }
            cursor.at = begin;
        }
        let value = cursor.value(depth)?;
        if here {
            for (name, place) in names.iter().zip(values.iter_mut()) {
                if name.strip_prefix(path) == Some(key) {
                    *place = Some(value);
                }
            }
        }
        Ok(())
    })
}

impl RowSource for Reader {
    fn at(&self) -> usize {
        self.at
    }

    fn end(&self) -> usize {
        self.end
    }

    fn skip(&mut self, file: &[u8]) {
        let end = memchr::memchr(b'\n', &file[self.at..self.end]).map_or(self.end, |found| self.at + found);
        self.at = (end + 1).min(self.end);
    }

    fn row(&mut self, file: &[u8], rows: &mut Rows) -> Result<bool, Stop> {
        let begin = self.at;
        let end = memchr::memchr(b'\n', &file[begin..self.end]).map_or(self.end, |found| begin + found);
        let mut cursor = Cursor::new(&file[begin..end]);
        let counts = cursor.peek().is_some();
        if counts {
            self.values.fill(None);
            let names = &self.names;
            let values = &mut self.values;
            let read = find(&mut cursor, b"", names, values, 0);
            let read = read.and_then(|()| if cursor.peek().is_none() { Ok(()) } else { Err("something follows the object") });
            read.map_err(|message| FormatError::Json { place: Place::at(begin + cursor.at), message })?;
            for wanted in 0..self.values.len() {
                self.push(file, rows, begin, wanted)?;
            }
        }
        self.at = (end + 1).min(self.end);
        Ok(counts)
    }
}

/// Names of columns in the whole lines at the start of a file, those of objects within objects too; `None` if there is no line that is an object.
pub(crate) fn names(head: &[u8]) -> Option<Vec<String>> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let mut names = std::collections::BTreeSet::new();
    let mut rows = 0;
    for line in head.split(|byte| *byte == b'\n') {
        let mut cursor = Cursor::new(line);
        // A line that is no object is a matter for the task that reads it; the last one may be cut off.
        if cursor.peek() == Some(b'{') && collect(&mut cursor, b"", &mut names, 0).is_ok() {
            rows += 1;
        }
    }
    (rows > 0).then(|| names.into_iter().collect())
}

fn collect(cursor: &mut Cursor<'_>, path: &[u8], names: &mut std::collections::BTreeSet<String>, depth: usize) -> Result<(), Wrong> {
    cursor.object(|cursor, key| {
        let name = [path, key].concat();
        names.insert(String::from_utf8_lossy(&name).into_owned());
        let begin = cursor.at;
        if depth < 16 && cursor.peek() == Some(b'{') {
            collect(cursor, &[&name[..], b"."].concat(), names, depth + 1)?;
            cursor.at = begin;
        }
        cursor.value(depth).map(drop)
    })
}
