//! What a task has read, and with what it made the task's counters.

use super::part_file::Written;
use super::stage::Fault;
use crate::counters::Numbers;
use raftwerk_formats::{FormatError, Noted, Notes};
use raftwerk_kernels::TaskOutput;
use raftwerk_proto::v1::{BadRecord, FailureClass};
use std::sync::Arc;

/// How many bad records a message names beside the last one.
const NAMED: usize = 3;

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

    /// What the task has failed by, with the records that are to blame. To try again, or without this task, would be in vain where more of them are bad
    /// than the whole job may leave out.
    pub(super) fn fault(&self, task: u64, path: &str, fault: Fault) -> Fault {
        let noted = self.noted();
        if fault.class != FailureClass::Input {
            return fault;
        }
        let (class, message) = match noted.too_many {
            true => (FailureClass::Fatal, too_many(&noted, &fault.message)),
            false => (fault.class, fault.message),
        };
        let bad_records = noted.first.into_iter().map(|bad| record(task, path, bad)).collect();
        Fault { class, message, bad_records, ..fault }
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
        let bad = noted.first.into_iter().map(|bad| record(task, path, bad)).collect();
        ([records_in, records_out, self.bytes, bytes_out, noted.bad], bad)
    }
}

fn record(task: u64, path: &str, bad: raftwerk_formats::BadRecord) -> BadRecord {
    BadRecord {
        task,
        path: path.to_owned(),
        offset: bad.offset,
        line: bad.line.unwrap_or(0),
        record: bad.record.unwrap_or(0),
        reason: bad.reason,
        data: bad.shown.into(),
        bytes: bad.bytes,
        stage: String::new(),
    }
}

/// `last` is what was said of the one that was too many.
fn too_many(noted: &Noted, last: &str) -> String {
    let place = |bad: &raftwerk_formats::BadRecord| {
        let place = match (bad.line, bad.record) {
            (Some(line), _) => format!("line {line}, byte {}", bad.offset),
            (None, Some(row)) if row == bad.offset + 1 => format!("row {row}"),
            (None, _) => format!("byte {}", bad.offset),
        };
        format!("{place}: {}", bad.reason)
    };
    let first: Vec<String> = noted.first.iter().take(NAMED.min(noted.bad as usize)).map(place).collect();
    format!(
        "more records cannot be read than the {} that bad_records allows; the first of this task: {}; the last: {last}",
        noted.bad,
        first.join("; ")
    )
}

/// A file of fixed-size records ends in the middle of one.
pub(super) fn leave_out_tail(notes: &Notes, file: &[u8], start: usize, record_bytes: usize) -> Result<(), Fault> {
    let error = FormatError::CutRecord { at: start as u64, bytes: (file.len() - start) as u64, record: record_bytes as u64 };
    notes.leave_out(file, start..file.len(), error).map_err(|error| Fault::new(FailureClass::Input, error.to_string()))
}
