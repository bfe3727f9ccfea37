//! Arrow IPC files, by the `arrow-ipc` crate. (Streams have nothing at their end that says where their batches are, and are refused.)

use super::Asked;
use super::read::{Converted, places};
use super::whole::Whole;
use crate::error::FormatError;
use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, FileReaderBuilder};
use arrow_schema::Schema;
use bytes::Bytes;
use std::fs::File;
use std::io::{BufReader, Cursor};

const WHAT: &str = "Arrow IPC";

fn broken(error: impl std::fmt::Display) -> FormatError {
    FormatError::Broken { what: WHAT, message: error.to_string() }
}

/// Number of record batches, and the columns.
pub(super) fn footer(file: &File) -> Result<(u32, Schema), FormatError> {
    let reader = FileReader::try_new(BufReader::new(file), None).map_err(broken)?;
    let groups = u32::try_from(reader.num_batches()).map_err(broken)?;
    Ok((groups, reader.schema().as_ref().clone()))
}

/// Every batch, with all columns.
pub(super) fn whole(file: Bytes) -> Result<Whole, FormatError> {
    let reader = FileReader::try_new(Cursor::new(file), None).map_err(broken)?;
    Ok((reader.schema(), Box::new(reader.map(|batch| batch.map_err(broken)))))
}

pub(super) fn read(
    file: Bytes,
    asked: &Asked<'_>,
) -> Result<Converted<impl Iterator<Item = Result<RecordBatch, FormatError>> + Send + use<>>, FormatError> {
    let schema = FileReader::try_new(Cursor::new(file.clone()), None).map_err(broken)?.schema();
    let (places, columns) = places(&schema, asked.wanted)?;
    let mut reader = FileReaderBuilder::new().with_projection(columns).build(Cursor::new(file)).map_err(broken)?;
    if reader.num_batches() as u64 != asked.counted {
        return Err(FormatError::Broken { what: WHAT, message: "it has other record batches than when it was listed".into() });
    }
    let (from, until) = (asked.groups.start as usize, asked.groups.end as usize);
    if from < until {
        reader.set_index(from).map_err(broken)?;
    }
    Ok(Converted {
        what: WHAT,
        batches: reader.take(until - from).map(|batch| batch.map_err(broken)),
        wanted: asked.wanted.to_vec(),
        places,
        // Batches before these would have to be read for their number of rows; rows are counted from the split's first.
        before: 0,
        ready: Default::default(),
        failed: false,
    })
}
