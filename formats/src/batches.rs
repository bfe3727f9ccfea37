//! The loop that makes batches of rows, whatever the format: a batch ends when it is full, and where a row does not go with it.

use crate::batch::{BATCH_ROWS, Batch};
use crate::error::FormatError;
use crate::notes::Notes;
use crate::rows::{Rows, Stop};
use std::sync::Arc;

/// Reads the rows of one format, one after the other.
pub(crate) trait RowSource {
    /// Where the next row begins, and where the split ends.
    fn at(&self) -> usize;
    fn end(&self) -> usize;

    /// Gives the cells of the next row to `rows` and goes behind it; tells whether it was one, and no empty line. After [`Stop::Cut`] it is where it was.
    fn row(&mut self, file: &[u8], rows: &mut Rows) -> Result<bool, Stop>;

    /// The row where it is will be read a second time.
    fn again(&mut self, _file: &[u8]) {}

    /// Goes behind the row where it is, which cannot be read; by one byte at least.
    fn skip(&mut self, file: &[u8]);
}

/// Batches of the rows of a source. Nothing comes after an error.
pub(crate) struct BatchesOf<S> {
    rows: Rows,
    source: S,
    /// Whoever is told of rows that cannot be read; without, the first of them is an error.
    notes: Option<Arc<Notes>>,
    failed: bool,
}

impl<S: RowSource> BatchesOf<S> {
    pub(crate) fn new(rows: Rows, source: S, notes: Option<Arc<Notes>>) -> BatchesOf<S> {
        BatchesOf { rows, source, notes, failed: false }
    }

    fn batch(&mut self) -> Result<Option<Batch>, FormatError> {
        let file = self.rows.file.clone();
        let (rows, source) = (&mut self.rows, &mut self.source);
        rows.begin(source.at());
        while rows.count < BATCH_ROWS && source.at() < source.end() && rows.reaches(source.at()) {
            match source.row(&file, rows) {
                Ok(counts) => rows.count += usize::from(counts),
                Err(Stop::Cut) => {
                    source.again(&file);
                    if rows.count > 0 {
                        break;
                    }
                    // Empty lines took the room; a row by itself is never cut.
                    rows.begin(source.at());
                }
                Err(Stop::Wrong(error)) => {
                    let Some(notes) = &self.notes else { return Err(error.with_line(&file)) };
                    let begin = source.at();
                    source.skip(&file);
                    notes.leave_out(&file, begin..source.at(), error)?;
                    if rows.count > 0 {
                        rows.take_back();
                    } else {
                        rows.begin(source.at());
                    }
                }
            }
        }
        Ok(rows.finish(source.end()))
    }
}

impl<S: RowSource> Iterator for BatchesOf<S> {
    type Item = Result<Batch, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = self.batch().transpose();
        self.failed = matches!(batch, Some(Err(_)));
        batch
    }
}
