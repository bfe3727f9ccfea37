//! Reading, whichever of the two kinds it is.

use super::rows::RowNumbers;
use super::{Asked, Columnar, Footer, cells, cells::Told, ipc};
use crate::batch::Batch;
use crate::columns::{self, Wanted};
use crate::error::FormatError;
use crate::notes::Notes;
use crate::table::Batches;
use arrow_array::RecordBatch;
use arrow_schema::Schema;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

pub(super) fn footer(kind: Columnar, file: &File) -> Result<Footer, FormatError> {
    let (groups, schema) = guard(kind.what(), || match kind {
        #[cfg(feature = "parquet")]
        Columnar::Parquet => super::parquet::footer(file),
        #[cfg(not(feature = "parquet"))]
        Columnar::Parquet => Err(kind.lacking()),
        Columnar::Arrow => ipc::footer(file),
    })?;
    let fields = schema.fields().iter();
    let unreadable = fields.clone().filter(|field| !cells::is_text(field.data_type()));
    Ok(Footer {
        groups,
        unreadable: unreadable.map(|field| (field.name().clone(), field.data_type().to_string())).collect(),
        names: fields.map(|field| field.name().clone()).collect(),
    })
}

pub(super) fn read(kind: Columnar, file: Bytes, asked: &Asked<'_>) -> Result<Batches, FormatError> {
    match kind {
        #[cfg(feature = "parquet")]
        Columnar::Parquet => Ok(Box::new(guard(kind.what(), || super::parquet::read(file, asked))?)),
        #[cfg(not(feature = "parquet"))]
        Columnar::Parquet => Err(kind.lacking()),
        Columnar::Arrow => Ok(Box::new(guard(kind.what(), || ipc::read(file, asked))?)),
    }
}

/// Where the wanted columns are among those of the file, and all of these once, in the file's order.
pub(super) fn places(schema: &Schema, wanted: &[Wanted]) -> Result<(Vec<usize>, Vec<usize>), FormatError> {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut columns = Vec::new();
    for one in wanted {
        columns.push(columns::find(&names, &one.name)?);
    }
    let mut read = columns.clone();
    read.sort_unstable();
    read.dedup();
    let places = columns.iter().map(|column| read.partition_point(|before| before < column)).collect();
    Ok((places, read))
}

/// Other people's batches to ours. Nothing comes after an error.
pub(super) struct Converted<I> {
    pub(super) what: &'static str,
    pub(super) batches: I,
    pub(super) wanted: Vec<Wanted>,
    pub(super) places: Vec<usize>,
    pub(super) numbers: RowNumbers,
    pub(super) notes: Option<Arc<Notes>>,
    /// Rows that were read before the next batch.
    pub(super) before: u64,
    pub(super) ready: VecDeque<Batch>,
    pub(super) failed: bool,
}

impl<I: Iterator<Item = Result<RecordBatch, FormatError>>> Iterator for Converted<I> {
    type Item = Result<Batch, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.failed {
            let (batches, ready, before) = (&mut self.batches, &mut self.ready, &mut self.before);
            let more = guard(self.what, || {
                let Some(batch) = batches.next().transpose()? else { return Ok(false) };
                let rows = Told { numbers: &self.numbers, before: *before, notes: self.notes.as_deref() };
                cells::convert(&batch, &self.wanted, &self.places, &rows, ready)?;
                *before += batch.num_rows() as u64;
                Ok(true)
            });
            match more {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

/// Calls a reader of others. Where it panics, the file is to blame: its parts contradict each other.
pub(super) fn guard<T>(what: &'static str, read: impl FnOnce() -> Result<T, FormatError>) -> Result<T, FormatError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| payload.downcast_ref::<String>().cloned());
        Err(FormatError::Broken { what, message: text.unwrap_or_else(|| "its parts contradict each other".into()) })
    })
}
