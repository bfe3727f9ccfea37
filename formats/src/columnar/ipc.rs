//! Arrow IPC files, by the `arrow-ipc` crate. (Streams have nothing at their end that says where their batches are, and are refused.)

use super::Asked;
use super::read::{Converted, places};
use super::rows::RowNumbers;
use super::whole::Whole;
use crate::error::FormatError;
use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, FileReaderBuilder, read_footer_length};
use arrow_ipc::{Block, root_as_footer, root_as_message};
use arrow_schema::Schema;
use bytes::Bytes;
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::ops::Range;
use std::os::unix::fs::FileExt;

const WHAT: &str = "Arrow IPC";
/// The footer's length and the word that ends every file.
const TAIL_BYTES: usize = 10;

fn broken(error: impl std::fmt::Display) -> FormatError {
    FormatError::Broken { what: WHAT, message: error.to_string() }
}

/// Number of record batches, and the columns.
pub(super) fn footer(file: &File) -> Result<(u32, Schema), FormatError> {
    let reader = FileReader::try_new(BufReader::new(file), None).map_err(broken)?;
    let groups = u32::try_from(reader.num_batches()).map_err(broken)?;
    Ok((groups, reader.schema().as_ref().clone()))
}

/// Dictionaries, which stand for no batch, and some batches, whole: where in one its columns lie says the batch itself.
pub(super) fn where_lies(file: &File, batches: Range<u64>) -> Result<Vec<Range<u64>>, FormatError> {
    let length = file.metadata().map_err(broken)?.len();
    let mut tail = [0; TAIL_BYTES];
    let at = length.checked_sub(tail.len() as u64).ok_or_else(|| broken("it is too short"))?;
    file.read_exact_at(&mut tail, at).map_err(broken)?;
    let footer = u64::try_from(read_footer_length(tail).map_err(broken)?).map_err(broken)?;
    let from = at.checked_sub(footer).ok_or_else(|| broken("its end is said to be longer than the file"))?;
    let mut bytes = vec![0; usize::try_from(footer).map_err(broken)?];
    file.read_exact_at(&mut bytes, from).map_err(broken)?;
    let footer = root_as_footer(&bytes).map_err(broken)?;
    let place = |block: &Block| {
        let number = |number: i64| u64::try_from(number).map_err(|_| broken("its end has a negative place"));
        let start = number(block.offset())?;
        Ok(start..start.saturating_add(number(block.metaDataLength().into())?).saturating_add(number(block.bodyLength())?))
    };
    let dictionaries = footer.dictionaries().into_iter().flatten();
    let all = footer.recordBatches().ok_or_else(|| broken("its end names no record batches"))?;
    let chosen = all.iter().skip(batches.start as usize).take((batches.end - batches.start) as usize);
    dictionaries.chain(chosen).map(place).collect()
}

/// How many rows the batches before this one have, as the head of each says; nothing where one of these is not there (of an object a task has its own
/// batches alone).
pub(super) fn rows_before(file: &[u8], batch: u64) -> Option<u64> {
    let (rest, tail) = file.split_at_checked(file.len().checked_sub(TAIL_BYTES)?)?;
    let length = read_footer_length(tail.try_into().ok()?).ok()?;
    let footer = root_as_footer(rest.get(rest.len().checked_sub(length)?..)?).ok()?;
    let blocks = footer.recordBatches()?;
    let mut rows = 0u64;
    for block in blocks.iter().take(usize::try_from(batch).ok()?) {
        let start = usize::try_from(block.offset()).ok()?;
        let head = file.get(start..start.checked_add(usize::try_from(block.metaDataLength()).ok()?)?)?;
        // A word that begins every message since format 0.15, and its length.
        let message = head.strip_prefix(&[0xff; 4]).unwrap_or(head).get(4..)?;
        let length = root_as_message(message).ok()?.header_as_record_batch()?.length();
        rows = rows.checked_add(u64::try_from(length).ok()?)?;
    }
    Some(rows)
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
    let whole = file.clone();
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
        numbers: RowNumbers::from_batch(whole, asked.groups.start),
        notes: asked.notes.clone(),
        before: 0,
        ready: Default::default(),
        failed: false,
    })
}
