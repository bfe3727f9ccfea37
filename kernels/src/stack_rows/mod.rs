//! Puts the rows that map tasks made into one NumPy array, in the order of the tasks.
//!
//! Shapes    rows of f4 from each map task -> an `.npy` array of f4, shape (rows, columns), or (rows,) for plain numbers. Part p holds
//!           the p-th slice of the tasks, so that the parts one after the other are the whole array
//! Limits    memory: a part is made whole
//! Agreement exact; no GPU twin: it copies bytes
//! Errors    rows of different length; a task twice; damaged shuffle data
//! Source    -

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::counted;
use crate::gather;
use crate::key;
use crate::npy;
use crate::run::{Reader, push_record, push_varint, take_varint};
use crate::side::push_f4;

pub struct StackRows;

static DESCRIPTOR: Descriptor =
    gather::descriptor("stack_rows", "Puts rows into one NumPy array, in the order of the map tasks", &["rows"], &["npy"]);

impl Kernel for StackRows {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        Ok(Box::new(PreparedStackRows))
    }
}

/// Where the rows of map tasks go: slices of the tasks, so that parts are in row order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slices {
    tasks: u64,
    partitions: u32,
}

impl Slices {
    pub(crate) fn new(stage: &StageContext) -> Slices {
        Slices { tasks: stage.tasks.max(1), partitions: stage.partitions.max(1) }
    }

    fn of(self, task: u64) -> usize {
        let task = u128::from(task.min(self.tasks - 1));
        (task * u128::from(self.partitions) / u128::from(self.tasks)) as usize
    }

    /// The blocks of one map task. `columns` is 0 for plain numbers. The first task tells every partition how
    /// long a row is, or one without tasks could not say what its empty array is of.
    pub(crate) fn blocks(self, task: u64, columns: u64, rows: &[f32]) -> Vec<Vec<u8>> {
        let mut head = Vec::with_capacity(10);
        push_varint(&mut head, columns);
        let key = key::of_u64(task);
        let own = self.of(task);
        let block = |partition: usize| {
            let mut block = Vec::new();
            match partition == own {
                true => {
                    // The record in its place at once: of the rows of large matrices every copy shows.
                    block.reserve_exact(4 * rows.len() + 40);
                    push_varint(&mut block, key.len() as u64);
                    block.extend_from_slice(&key);
                    push_varint(&mut block, (head.len() + 4 * rows.len()) as u64);
                    block.extend_from_slice(&head);
                    push_f4(&mut block, rows);
                }
                false if task == 0 => push_record(&mut block, &key, &head),
                false => {}
            }
            block
        };
        (0..self.partitions as usize).map(block).collect()
    }
}

struct PreparedStackRows;

impl Prepared for PreparedStackRows {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let gathered = gather(blocks)?;
        let row = gathered.columns.max(1);
        let rows = gathered.elements / row;
        let shape = if gathered.columns == 0 { format!("({rows},)") } else { format!("({rows}, {})", gathered.columns) };
        let mut bytes = npy::header("<f4", &shape);
        bytes.reserve_exact(4 * gathered.elements as usize);
        gathered.values.iter().for_each(|value| bytes.extend_from_slice(value));
        let cells = vec![shape, gather::sized(bytes.len())];
        let part = Part {
            extension: "npy",
            rows,
            columns: vec!["shape".into(), "size".into()],
            preview: vec![PreviewRow { cells, weight: rows }],
            bytes,
        };
        Ok(TaskOutput { tallies: vec![rows], blocks: Vec::new(), part: Some(part), records: Records { read: rows, made: 0 } })
    }
}

#[derive(Default)]
struct Gathered<'a> {
    columns: u64,
    elements: u64,
    values: Vec<&'a [u8]>,
}

fn gather<'a>(blocks: &[Block<'a>]) -> Result<Gathered<'a>, KernelError> {
    let damaged = |text: String| KernelError::Failed(format!("shuffle block is damaged: {text}"));
    let mut gathered = Gathered::default();
    let mut last: Option<u64> = None;
    for record in blocks.iter().flat_map(|block| Reader::new(block.bytes)) {
        let record = record?;
        let task = key::to_u64(record.key).ok_or_else(|| damaged(format!("a task's number has 8 bytes, not {}", record.key.len())))?;
        if last.is_some_and(|last| last >= task) {
            return Err(damaged(format!("the rows of task {task} come after those of task {}", last.unwrap_or_default())));
        }
        let mut value = record.value;
        let columns = take_varint(&mut value).ok_or_else(|| damaged(format!("the rows of task {task} do not say how long they are")))?;
        if last.is_some() && columns != gathered.columns {
            let before = gathered.columns;
            return Err(KernelError::Input(format!(
                "the rows of task {task} have {} and those before them {before}",
                counted(columns, "element")
            )));
        }
        if !(value.len() as u64).is_multiple_of(columns.max(1).saturating_mul(4)) {
            return Err(damaged(format!(
                "{} bytes of task {task} are no whole number of rows of {}",
                value.len(),
                counted(columns, "element")
            )));
        }
        last = Some(task);
        gathered.columns = columns;
        gathered.elements += value.len() as u64 / 4;
        gathered.values.push(value);
    }
    Ok(gathered)
}
