//! Finds the rows of a table with the largest numbers in one column.
//!
//! Shapes    rows of a table -> at most k records of (rank, cells), best first, for `merge_top`; tallies rows, values.
//!           `of` is the column of numbers, `columns` are those of the result (none: `of` alone), as they stand in the table
//! Limits    k at most 100,000; memory: the k rows, for each task that runs at the same time
//! Agreement exact; no GPU twin. Numbers of at most 18 digits are compared exactly, others as the nearest f64. Rows with equal numbers come in the
//!           order of the input: by split, then by place in it
//! Errors    a row with too few or too many cells; a cell of `of` that is neither empty nor a number; a column that the table lacks.
//!           A row whose cell is empty has no number and is passed over
//! Source    a bounded heap: Knuth, The Art of Computer Programming 3, section 5.2.3

#[cfg(test)]
mod tests;

use std::collections::BinaryHeap;

use crate::api::*;
use crate::group_by::column_names;
use crate::params::Resolved;
use crate::run::{push_record, push_varint};
use raftwerk_formats::{Array, Batch, Column, MAX_SCALE, Wanted};

pub struct TopK;

/// Of both kernels: the reduce kernel must read the same, so it inherits what the map kernel got.
pub(crate) const PARAMS: [ParamSpec; 4] = [
    ParamSpec { name: "of", kind: ParamType::Text, default: Some(""), doc: "column of numbers by which rows are chosen" },
    ParamSpec { name: "k", kind: ParamType::U64 { min: 1, max: 100_000 }, default: Some("10"), doc: "how many rows" },
    ParamSpec {
        name: "columns",
        kind: ParamType::Text,
        default: Some(""),
        doc: "columns of the result, with commas between; none: the column of numbers",
    },
    ParamSpec { name: "order", kind: ParamType::Choice(&["largest", "smallest"]), default: Some("largest"), doc: "which rows come first" },
];

static DESCRIPTOR: Descriptor = Descriptor {
    name: "top_k",
    version: 1,
    kind: Kind::Map,
    summary: "The rows of tables with the largest (or smallest) numbers in a column",
    accepts: Accepts::Table,
    params: &PARAMS,
    tallies: &["rows", "values"],
    shuffles: true,
    formats: &[],
    reduces_with: &["merge_top"],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

/// What both kernels are asked.
pub(crate) struct Asked {
    pub(crate) k: usize,
    pub(crate) columns: Vec<String>,
    of: String,
    largest: bool,
}

impl Asked {
    pub(crate) fn new(descriptor: &Descriptor, params: &Params) -> Result<Asked, KernelError> {
        let params = Resolved::new(descriptor, params)?;
        let names = |parameter| {
            column_names(params.text(parameter))
                .map_err(|message| KernelError::Param(format!("kernel '{}': parameter '{parameter}': {message}", descriptor.name)))
        };
        let Ok([of]) = <[String; 1]>::try_from(names("of")?) else {
            return Err(KernelError::Param(format!("kernel '{}': parameter 'of' must name one column of numbers", descriptor.name)));
        };
        let mut columns = names("columns")?;
        if columns.is_empty() {
            columns.push(of.clone());
        }
        Ok(Asked { k: params.u64("k") as usize, columns, of, largest: params.text("order") == "largest" })
    }
}

impl Kernel for TopK {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let asked = Asked::new(&DESCRIPTOR, &stage.params)?;
        let columns = std::iter::once(Wanted::number(&asked.of)).chain(asked.columns.iter().map(|name| Wanted::text(name))).collect();
        Ok(Box::new(PreparedTop { asked, columns, partitions: stage.partitions.max(1) }))
    }
}

struct PreparedTop {
    asked: Asked,
    columns: Vec<Wanted>,
    partitions: u32,
}

impl Prepared for PreparedTop {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Table(table) = &task.input else {
            return Err(KernelError::Input("top_k reads tables".into()));
        };
        let mut best = Best { k: self.asked.k, largest: self.asked.largest, rows: 0, values: 0, heap: BinaryHeap::new() };
        for batch in table.read(&self.columns).map_err(KernelError::of_table)? {
            best.add(&batch.map_err(KernelError::of_table)?)?;
        }
        let tallies = vec![best.rows, best.values];
        let records = Records { read: best.rows, made: best.heap.len() as u64 };
        // One table has all of them, so there is one partition; `merge_top` refuses more.
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        best.push(task.number, &mut blocks[0]);
        Ok(TaskOutput { tallies, blocks, part: None, records })
    }

    fn columns(&self) -> &[Wanted] {
        &self.columns
    }
}

/// A place in the order of all rows: less is better. The number as f64, then exactly in units of 10^-18 if it is a decimal; both so that they
/// compare as unsigned integers.
type Rank = (u64, u128);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    rank: Rank,
    number: u64,
    cells: Vec<Vec<u8>>,
}

struct Best {
    k: usize,
    largest: bool,
    rows: u64,
    values: u64,
    /// The worst on top.
    heap: BinaryHeap<Row>,
}

impl Best {
    fn add(&mut self, batch: &Batch) -> Result<(), KernelError> {
        let wrong = || KernelError::Input("the table gives a column of a kind that was not asked for".into());
        let (numbers, texts) = batch.columns.split_first().ok_or_else(wrong)?;
        match numbers {
            Column::Text(_) => return Err(wrong()),
            Column::Decimal(array) => {
                let power = 10i128.pow(u32::from(MAX_SCALE).saturating_sub(array.scale() as u32));
                self.rows(texts, (0..array.len()).map(|row| array.is_valid(row).then(|| decimal(i128::from(array.value(row)) * power))));
            }
            Column::Wide(array) => self.rows(texts, array.iter().map(|value| value.map(decimal))),
            Column::Float(array) => self.rows(texts, array.iter().map(|value| value.map(|value| (ordered(value), 0)))),
        }
        Ok(())
    }

    fn rows(&mut self, texts: &[Column], ranks: impl Iterator<Item = Option<Rank>>) {
        for (row, rank) in ranks.enumerate() {
            let number = self.rows;
            self.rows += 1;
            let Some((float, exact)) = rank else { continue };
            self.values += 1;
            let rank = if self.largest { (!float, !exact) } else { (float, exact) };
            // Of equal numbers the first to come stays.
            if self.heap.len() == self.k && self.heap.peek().is_some_and(|worst| rank >= worst.rank) {
                continue;
            }
            let cells = texts.iter().map(|column| match column {
                Column::Text(array) => array.value(row).to_vec(),
                _ => Vec::new(),
            });
            if self.heap.len() == self.k {
                self.heap.pop();
            }
            self.heap.push(Row { rank, number, cells: cells.collect() });
        }
    }

    fn push(self, task: u64, block: &mut Vec<u8>) {
        let mut value = Vec::new();
        for Row { rank, number, cells } in self.heap.into_sorted_vec() {
            let key = [&rank.0.to_be_bytes()[..], &rank.1.to_be_bytes(), &task.to_be_bytes(), &number.to_be_bytes()].concat();
            value.clear();
            for cell in cells {
                push_varint(&mut value, cell.len() as u64);
                value.extend(cell);
            }
            push_record(block, &key, &value);
        }
    }
}

/// In units of 10^-18. The quotient is rounded, but never out of order.
fn decimal(exact: i128) -> Rank {
    (ordered(exact as f64 / 1e18), (exact as u128) ^ 1 << 127)
}

/// Bits that compare as the numbers do; minus zero is zero.
fn ordered(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}
