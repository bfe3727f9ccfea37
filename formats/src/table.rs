//! What is to be read: a file in memory, its format, and the range of one split.

use crate::batch::Batch;
use crate::batches::BatchesOf;
use crate::columnar::Columnar;
use crate::columns::{self, Wanted};
use crate::csv;
use crate::error::FormatError;
use crate::filter::Filter;
use crate::jsonl;
use crate::notes::Notes;
use crate::rows::Rows;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// How the bytes of a file are a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Csv(CsvOptions),
    /// A JSON object on every line. A column is named by the keys that lead to it, with points between.
    Jsonl,
    /// A file of groups of rows, column by column.
    Columnar(Columnar),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    pub separator: u8,
    /// The first row of every file names its columns.
    pub header: bool,
    /// Cells in quotes may hold line ends. A file is then one split, for a line end may be inside or outside of quotes.
    pub quoted_newlines: bool,
    /// Names of the columns of files without a header, instead of "1", "2", ..
    pub names: Vec<String>,
}

impl Default for CsvOptions {
    fn default() -> CsvOptions {
        CsvOptions { separator: b',', header: true, quoted_newlines: true, names: Vec::new() }
    }
}

/// Bytes at the start of a file in which its first row ends; whoever lists files reads so many.
pub const HEAD_BYTES: usize = 1 << 20;

impl Format {
    /// Whether a split is a range of whole lines. If not, it is a whole file.
    pub fn splits_at_lines(&self) -> bool {
        match self {
            Format::Csv(options) => !options.quoted_newlines,
            // A line end in a string is written \n.
            Format::Jsonl => true,
            Format::Columnar(_) => false,
        }
    }

    /// What kind of groups a file of this format has, of which splits have whole ones.
    pub fn columnar(&self) -> Option<Columnar> {
        match self {
            Format::Columnar(kind) => Some(*kind),
            Format::Csv(_) | Format::Jsonl => None,
        }
    }

    /// Whether rows may lack columns that others have, so that one file need not have all of them.
    pub fn rows_differ(&self) -> bool {
        matches!(self, Format::Jsonl)
    }

    /// Looks for the wanted columns in the first [`HEAD_BYTES`] of a file (all of it, if it is shorter). A file without a row has no columns and
    /// lacks none. A file of columns says at its end which it has ([`Columnar::footer`]).
    pub fn check_columns<'a>(&self, head: &[u8], wanted: impl IntoIterator<Item = &'a str>) -> Result<(), FormatError> {
        let names = match self {
            Format::Csv(options) => csv::Layout::read(head, options)?.map(|layout| layout.names),
            Format::Jsonl => jsonl::names(head),
            Format::Columnar(_) => None,
        };
        let Some(names) = names else { return Ok(()) };
        wanted.into_iter().try_for_each(|name| columns::find(&names, name).map(drop))
    }
}

/// One split of a table. Cheap to clone.
#[derive(Clone)]
pub struct Table {
    format: Arc<Format>,
    filter: Option<Arc<Filter>>,
    notes: Option<Arc<Notes>>,
    file: Bytes,
    part: Part,
}

#[derive(Clone, Debug)]
enum Part {
    Bytes(Range<usize>),
    /// Some groups of all those that there are.
    Groups {
        groups: Range<u64>,
        counted: u64,
    },
}

/// Batches in the order of the rows. Nothing comes after an error.
pub type Batches = Box<dyn Iterator<Item = Result<Batch, FormatError>> + Send>;

impl Table {
    /// `file` is the whole file, and `range` what of it the split has: whole lines, or the whole file ([`Format::splits_at_lines`]).
    pub fn new(format: Arc<Format>, file: Bytes, range: Range<usize>) -> Table {
        let end = range.end.min(file.len());
        let range = range.start.min(end)..end;
        Table { format, filter: None, notes: None, file, part: Part::Bytes(range) }
    }

    /// Of a file of columns: some of the `counted` groups that it had when it was listed.
    pub fn of_groups(format: Arc<Format>, file: Bytes, groups: Range<u64>, counted: u64) -> Table {
        let end = groups.end.min(counted);
        let groups = groups.start.min(end)..end;
        Table { format, filter: None, notes: None, file, part: Part::Groups { groups, counted } }
    }

    /// Just the rows for which it holds.
    pub fn filtered(self, filter: Option<Arc<Filter>>) -> Table {
        Table { filter, ..self }
    }

    /// Notes what is read, and leaves out bad records as far as the notes allow.
    pub fn noted(self, notes: Arc<Notes>) -> Table {
        Table { notes: Some(notes), ..self }
    }

    /// Bytes of the split, as far as that can be told.
    pub fn bytes(&self) -> u64 {
        match &self.part {
            Part::Bytes(range) => range.len() as u64,
            Part::Groups { groups, counted } => {
                let share = u128::from(groups.end - groups.start) * self.file.len() as u128 / u128::from(*counted).max(1);
                share as u64
            }
        }
    }

    /// The rows that begin in the split, of each just the wanted columns, in their order.
    pub fn read(&self, wanted: &[Wanted]) -> Result<Batches, FormatError> {
        let Some(filter) = self.filter.clone() else { return self.read_all(wanted) };
        let mut with_filter = wanted.to_vec();
        let places = filter.place(&mut with_filter);
        let columns = wanted.len();
        let batches = self.read_all(&with_filter)?;
        Ok(Box::new(batches.filter_map(move |batch| match batch {
            Ok(batch) => {
                let rows = filter.rows(&batch, &places);
                (!rows.is_empty()).then(|| Ok(batch.take(&rows, columns)))
            }
            Err(error) => Some(Err(error)),
        })))
    }

    fn read_all(&self, wanted: &[Wanted]) -> Result<Batches, FormatError> {
        let Some(notes) = self.notes.clone() else { return self.read_rows(wanted) };
        notes.begin();
        Ok(Box::new(self.read_rows(wanted)?.inspect(move |batch| {
            if let Ok(batch) = batch {
                notes.read(batch.rows as u64);
            }
        })))
    }

    fn read_rows(&self, wanted: &[Wanted]) -> Result<Batches, FormatError> {
        let file = self.file.clone();
        let (range, groups, counted) = match &self.part {
            Part::Bytes(range) => (range.clone(), 0..0, 0),
            Part::Groups { groups, counted } => (0..0, groups.clone(), *counted),
        };
        let rows = || Rows::new(file.clone(), wanted);
        let notes = self.notes.clone();
        Ok(match self.format.as_ref() {
            Format::Csv(options) => Box::new(BatchesOf::new(rows(), csv::Reader::new(&file, range, options, wanted)?, notes)),
            Format::Jsonl => Box::new(BatchesOf::new(rows(), jsonl::Reader::new(&file, range, wanted), notes)),
            Format::Columnar(kind) => return kind.read(file, groups, counted, wanted, self.filter.as_deref(), notes),
        })
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("format", &self.format).field("part", &self.part).finish_non_exhaustive()
    }
}
