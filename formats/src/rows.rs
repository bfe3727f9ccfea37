//! From the cells of a row to the builders of the wanted columns, whatever the format.

use crate::batch::Batch;
use crate::builders::{Builder, NumberBuilder, OtherKind, REACH_BYTES, TextBuilder};
use crate::columns::{Kind, Wanted};
use crate::error::{FormatError, Place};
use crate::number::{self, short};
use bytes::Bytes;

/// The batch under way.
pub(crate) struct Rows {
    pub(crate) file: Bytes,
    wanted: Vec<Wanted>,
    builders: Vec<Builder>,
    /// Whole rows so far, and where in the file the first of them begins.
    pub(crate) count: usize,
    base: usize,
}

/// What a cell holds: a range of the file, or, from this place on, what had to be written anew.
pub(crate) enum Text {
    Plain(usize, usize),
    Own(usize, Vec<u8>),
}

/// Why a row is not in the batch.
pub(crate) enum Stop {
    /// It belongs to the next one.
    Cut,
    Wrong(FormatError),
}

impl From<OtherKind> for Stop {
    fn from(_: OtherKind) -> Stop {
        Stop::Cut
    }
}

impl From<FormatError> for Stop {
    fn from(error: FormatError) -> Stop {
        Stop::Wrong(error)
    }
}

impl Rows {
    pub(crate) fn new(file: Bytes, wanted: &[Wanted]) -> Rows {
        let builder = |wanted: &Wanted| match wanted.kind {
            Kind::Text => Builder::Text(TextBuilder::default()),
            Kind::Number => Builder::Number(NumberBuilder::default()),
        };
        Rows { file, wanted: wanted.to_vec(), builders: wanted.iter().map(builder).collect(), count: 0, base: 0 }
    }

    /// Starts a batch with the row at `at`.
    pub(crate) fn begin(&mut self, at: usize) {
        self.base = at;
        self.count = 0;
        self.builders.iter_mut().for_each(|builder| builder.truncate(0));
    }

    /// Forgets the cells of a row that is not whole.
    pub(crate) fn take_back(&mut self) {
        let rows = self.count;
        self.builders.iter_mut().for_each(|builder| builder.truncate(rows));
    }

    /// Whether another row that begins at `at` is sure to be within reach, if it is not of extreme length.
    pub(crate) fn reaches(&self, at: usize) -> bool {
        self.count == 0 || at - self.base < REACH_BYTES / 2
    }

    /// The whole rows so far; `end` is where the split ends.
    pub(crate) fn finish(&mut self, end: usize) -> Option<Batch> {
        let (rows, base) = (self.count, self.base);
        if rows == 0 {
            return None;
        }
        let reach = base..end.min(base + REACH_BYTES);
        let file = self.file.clone();
        let columns = self.builders.iter_mut().map(|builder| {
            builder.truncate(rows);
            builder.finish(&file, reach.clone())
        });
        Some(Batch { rows, columns: columns.collect() })
    }

    /// Gives a cell of the row that begins at `row` to a wanted column.
    #[inline(always)]
    pub(crate) fn push(&mut self, file: &[u8], row: usize, wanted: usize, cell: &Text) -> Result<(), Stop> {
        match (&mut self.builders[wanted], cell) {
            (Builder::Text(text), Text::Plain(start, end)) => {
                if end - self.base > REACH_BYTES {
                    return Err(if row > self.base { Stop::Cut } else { too_large(*start, end - start).into() });
                }
                text.push(file, self.base, *start, *end);
            }
            (Builder::Text(text), Text::Own(start, bytes)) => {
                if text.own_bytes() + bytes.len() > REACH_BYTES {
                    return Err(if text.own_bytes() > 0 { Stop::Cut } else { too_large(*start, bytes.len()).into() });
                }
                text.push_own(bytes);
            }
            (Builder::Number(number), Text::Plain(start, end)) => {
                let length = end - start;
                if length == 0 {
                    number.push_empty();
                    return Ok(());
                }
                let negative = file[*start] == b'-';
                let from = start + usize::from(negative);
                let digits = end - from;
                if let Some(chunk) = file.get(from..).and_then(|rest| rest.first_chunk::<8>())
                    && (1..=8).contains(&digits)
                    && let Some((mantissa, scale)) = short(u64::from_le_bytes(*chunk), digits)
                {
                    let mantissa = mantissa as i64;
                    number.push_decimal(if negative { -mantissa } else { mantissa }, scale)?;
                    return Ok(());
                }
                self.push_slowly(wanted, *start, &file[*start..*end])?;
            }
            (Builder::Number(_), Text::Own(start, bytes)) => self.push_slowly(wanted, *start, bytes)?,
        }
        Ok(())
    }

    /// A cell that is not there.
    pub(crate) fn push_missing(&mut self, wanted: usize) {
        match &mut self.builders[wanted] {
            Builder::Text(text) => text.push_own(b""),
            Builder::Number(number) => number.push_empty(),
        }
    }

    #[inline(never)]
    fn push_slowly(&mut self, wanted: usize, start: usize, cell: &[u8]) -> Result<(), Stop> {
        let Builder::Number(number) = &mut self.builders[wanted] else { return Ok(()) };
        if cell.trim_ascii().is_empty() {
            number.push_empty();
            return Ok(());
        }
        match number::parse(cell) {
            Some(value) => Ok(number.push(value)?),
            None => {
                let shown = String::from_utf8_lossy(&cell[..cell.len().min(40)]).into_owned();
                let text = if cell.len() > 40 { format!("{shown}..") } else { shown };
                Err(FormatError::NotANumber { place: Place::at(start), column: self.wanted[wanted].name.clone(), text }.into())
            }
        }
    }
}

fn too_large(start: usize, bytes: usize) -> FormatError {
    FormatError::Large { place: Place::at(start), bytes }
}
