//! Counters as columns of numbers, for whoever goes through all of them. The order is that of the fields.

use crate::v1::{StageCounters, TaskCounters};

/// What they are called in JSON.
pub const COUNTER_NAMES: [&str; 5] = ["records_in", "records_out", "bytes_in", "bytes_out", "bad_records"];

impl TaskCounters {
    pub fn columns(&self) -> [&Vec<u64>; 5] {
        let Self { records_in, records_out, bytes_in, bytes_out, bad_records } = self;
        [records_in, records_out, bytes_in, bytes_out, bad_records]
    }

    pub fn columns_mut(&mut self) -> [&mut Vec<u64>; 5] {
        let Self { records_in, records_out, bytes_in, bytes_out, bad_records } = self;
        [records_in, records_out, bytes_in, bytes_out, bad_records]
    }

    /// Whether they can be of so many tasks.
    pub fn are_of(&self, tasks: u64) -> bool {
        self.columns().iter().all(|column| column.len() <= 1 || column.len() as u64 == tasks)
    }
}

impl StageCounters {
    pub fn numbers(&self) -> [u64; 5] {
        let Self { records_in, records_out, bytes_in, bytes_out, bad_records } = self;
        [*records_in, *records_out, *bytes_in, *bytes_out, *bad_records]
    }

    pub fn numbers_mut(&mut self) -> [&mut u64; 5] {
        let Self { records_in, records_out, bytes_in, bytes_out, bad_records } = self;
        [records_in, records_out, bytes_in, bytes_out, bad_records]
    }
}
