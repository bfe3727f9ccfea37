//! What a task has read, and with what it made the task's counters.

use super::part_file::Written;
use super::stage::Fault;
use crate::counters::Numbers;
use raftwerk_formats::{FormatError, Noted, Notes};
use raftwerk_kernels::TaskOutput;
use raftwerk_proto::v1::{BadRecord, FailureClass};
use std::sync::Arc;

/// Of one task, as far as it is known beside its kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) bytes: u64,
    /// Where the length of a record is known without a look at it.
    pub(super) records: Option<u64>,
    /// Of a table, or of a file that ends in the middle of a record.
    pub(super) notes: Option<Arc<Notes>>,
}

impl Reading {
    pub(super) fn of_bytes(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    fn noted(&self) -> Noted {
        self.notes.as_ref().map(|notes| notes.so_far()).unwrap_or_default()
    }

    /// More records are bad than the whole job may leave out: to try again, or without this task, would be in vain.
    pub(super) fn fault(&self, fault: Fault) -> Fault {
        let noted = self.noted();
        if !noted.too_many {
            return fault;
        }
        let first = noted.first.first().map_or_else(String::new, |bad| format!("; the first of this task is {}", place(bad)));
        let message =
            format!("more records cannot be read than the {} that bad_records allows{first}. The last: {}", noted.bad, fault.message);
        Fault::new(FailureClass::Fatal, message)
    }

    /// What the task counts, and the bad records that it left out.
    pub(super) fn conclude(&self, task: u64, path: &str, output: &TaskOutput, written: Option<Written>) -> (Numbers, Vec<BadRecord>) {
        let noted = self.noted();
        let records_in = match (self.records, &self.notes) {
            (Some(records), _) => records,
            (None, Some(_)) => noted.records,
            (None, None) => output.records.read,
        };
        let (records_out, part_bytes) = match &output.part {
            Some(part) => (part.rows, written.map_or(part.bytes.len() as u64, |written| written.bytes)),
            None => (output.records.made, 0),
        };
        let bytes_out = part_bytes + output.blocks.iter().map(|block| block.len() as u64).sum::<u64>();
        let bad = noted.first.into_iter().map(|bad| BadRecord {
            task,
            path: path.to_owned(),
            offset: bad.offset,
            line: bad.line.unwrap_or(0),
            reason: bad.reason,
            data: bad.shown.into(),
            bytes: bad.bytes,
            stage: String::new(),
        });
        ([records_in, records_out, self.bytes, bytes_out, noted.bad], bad.collect())
    }
}

fn place(bad: &raftwerk_formats::BadRecord) -> String {
    let line = bad.line.map_or_else(String::new, |line| format!("line {line}, "));
    format!("at {line}byte {}: {}", bad.offset, bad.reason)
}

/// A file of fixed-size records ends in the middle of one.
pub(super) fn leave_out_tail(notes: &Notes, file: &[u8], start: usize, record_bytes: usize) -> Result<(), Fault> {
    let error = FormatError::CutRecord { at: start as u64, bytes: (file.len() - start) as u64, record: record_bytes as u64 };
    notes.leave_out(file, start..file.len(), error).map_err(|error| Fault::new(FailureClass::Record, error.to_string()))
}
