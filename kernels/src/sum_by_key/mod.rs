//! Adds the counts of equal keys and writes one table, sorted by key.
//!
//! Shapes    runs of (key, count), in task order -> a CSV file with a heading, or an `.npy` array of u64:
//!           a one-dimensional array `values[key]` when the stage has one partition, else an array of shape (n, 2) of (key, count)
//! Limits    counts and their sums are u64; a dense array ends at key 2^24 - 1 (128 MiB); memory: CSV goes out while it
//!           is made, an array is made whole
//! Agreement exact; no GPU twin. Addition of u64 has identity 0 and is associative, and a sum beyond 64 bits is an error whatever the
//!           order, so the order cannot change the result
//! Errors    a damaged run; a sum beyond 64 bits; `npy` with text keys; a dense array that would be too long
//! Source    merging: Knuth, The Art of Computer Programming 3, section 5.4.1; CSV: RFC 4180, with \n line ends

mod csv;
mod npy;
#[cfg(test)]
mod tests;
mod top;

use std::cmp::Ordering;

use crate::api::*;
use crate::key;
use crate::params::Resolved;
use crate::pieces;
use crate::run::{Merge, count_value};

pub struct SumByKey;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "sum_by_key",
    version: 1,
    kind: Kind::Reduce,
    summary: "Adds the counts of equal keys; one table sorted by key",
    accepts: Accepts::Shuffle,
    params: &[
        ParamSpec { name: "key_name", kind: ParamType::Text, default: Some("key"), doc: "heading of the keys' column" },
        ParamSpec { name: "value_name", kind: ParamType::Text, default: Some("value"), doc: "heading of the sums' column" },
        ParamSpec {
            name: "key_type",
            kind: ParamType::Choice(&["text", "u64"]),
            default: Some("text"),
            doc: "what the map kernel's keys are; map kernels set it",
        },
    ],
    tallies: &["keys"],
    shuffles: false,
    formats: &["csv", "npy"],
    reduces_with: &[],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for SumByKey {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn costless_params(&self) -> &'static [&'static str] {
        &["key_name", "value_name"]
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let key_type = if params.text("key_type") == "u64" { KeyType::U64 } else { KeyType::Text };
        let format = match (stage.format.as_str(), key_type) {
            ("csv" | "", _) => Format::Csv,
            ("npy", KeyType::U64) if stage.tasks <= 1 => Format::NpyDense,
            ("npy", KeyType::U64) => Format::NpyPairs,
            ("npy", KeyType::Text) => {
                return Err(KernelError::Param(
                    "kernel 'sum_by_key': format 'npy' holds numbers only and these keys are text; use 'csv'".into(),
                ));
            }
            (other, _) => return Err(KernelError::Param(format!("kernel 'sum_by_key' writes csv or npy, not '{other}'"))),
        };
        let columns = [params.text("key_name").to_owned(), params.text("value_name").to_owned()];
        Ok(Box::new(PreparedSum { columns, key_type, format }))
    }

    /// By key, as `top::Top` does: number keys as numbers, text keys by their bytes.
    fn compare_preview(&self, params: &Params, a: &[String], b: &[String]) -> Ordering {
        let number = |cells: &[String]| cells.first().and_then(|cell| cell.parse::<u64>().ok());
        match (number(a), number(b)) {
            (Some(x), Some(y)) if params.get("key_type").is_some_and(|kind| kind == "u64") => x.cmp(&y),
            _ => a.cmp(b),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyType {
    Text,
    U64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    NpyDense,
    NpyPairs,
}

struct PreparedSum {
    columns: [String; 2],
    key_type: KeyType,
    format: Format,
}

impl Prepared for PreparedSum {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        pieces::whole(|part| self.run_streamed(task, part))
    }

    fn memory(&self, input_bytes: u64) -> u64 {
        if self.format == Format::Csv { TASK_BYTES } else { 3 * input_bytes + TASK_BYTES }
    }

    fn run_streamed(&self, task: &Task<'_>, part: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        let Input::Blocks(blocks) = &task.input else {
            return Err(KernelError::Input("sum_by_key reads shuffle blocks".into()));
        };
        let mut top = top::Top::default();
        let mut rows = 0;
        let mut row = |key: &[u8], sum: u64| {
            rows += 1;
            top.offer(key, sum);
        };
        let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
        match self.format {
            Format::Csv => self.csv(&mut merge, part, &mut row)?,
            Format::NpyDense => part.write(&npy::dense(&mut merge, &mut row)?)?,
            Format::NpyPairs => part.write(&npy::pairs(&mut merge, &mut row)?)?,
        }
        let extension = if self.format == Format::Csv { "csv" } else { "npy" };
        let preview = top.rows(|key| self.preview_key(key));
        let part = Part { extension, rows, columns: self.columns.to_vec(), preview, ..Part::default() };
        Ok(TaskOutput { tallies: vec![rows], blocks: Vec::new(), part: Some(part), records: Records { read: merge.taken(), made: 0 } })
    }
}

impl PreparedSum {
    fn csv(&self, merge: &mut Merge<'_>, part: &mut dyn PartWriter, row: &mut impl FnMut(&[u8], u64)) -> Result<(), KernelError> {
        let mut table = csv::Table::new(&self.columns, part);
        sums(merge, |key, sum| {
            row(key, sum);
            match self.key_type {
                KeyType::Text => table.text_row(key, sum),
                KeyType::U64 => table.number_row(number(key)?, sum),
            }
        })?;
        table.finish()
    }

    fn preview_key(&self, bytes: &[u8]) -> String {
        match (self.key_type, key::to_u64(bytes)) {
            (KeyType::U64, Some(number)) => number.to_string(),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// Calls `row(key, sum)` for each key, in rising order.
fn sums<'a>(merge: &mut Merge<'a>, mut row: impl FnMut(&'a [u8], u64) -> Result<(), KernelError>) -> Result<(), KernelError> {
    let mut current: Option<(&[u8], u64)> = None;
    while let Some(record) = merge.next_record()? {
        let count = count_value(record.value)?;
        current = match current {
            Some((key, sum)) if key == record.key => {
                let sum = sum.checked_add(count);
                Some((
                    key,
                    sum.ok_or_else(|| KernelError::Input(format!("the sum of key '{}' exceeds 64 bits", String::from_utf8_lossy(key))))?,
                ))
            }
            before => {
                if let Some((key, sum)) = before {
                    row(key, sum)?;
                }
                Some((record.key, count))
            }
        };
    }
    match current {
        Some((key, sum)) => row(key, sum),
        None => Ok(()),
    }
}

fn number(bytes: &[u8]) -> Result<u64, KernelError> {
    key::to_u64(bytes).ok_or_else(|| {
        KernelError::Input(format!(
            "a key of {} bytes is not a number, which has 8: set key_type to what the map kernel writes",
            bytes.len()
        ))
    })
}
