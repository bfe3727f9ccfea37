//! Merges the sorted runs of a partition into one file.
//!
//! Shapes    per task one run, see `sorted_run` -> the records or lines of all, sorted, as they were read. Part 0, 1, .. joined are the whole input,
//!           sorted. Records go into files `.bin`, lines into `.txt`
//! Limits    memory: a MiB beside the partition, which is mapped; where there is no file to write to, the partition once more
//! Agreement exact: equal keys stand in the order of the input, because runs come in the order of their tasks; no GPU twin
//! Errors    damaged shuffle data; runs that were sorted in another way than they are to be merged
//! Source    see `sorted_run`

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gather;
use crate::params::Resolved;
use crate::preview;
use crate::sorted_run::{KEY_BYTES, KEY_OFFSET, Merge, ORDER, Order};

pub struct MergeRuns;

static DESCRIPTOR: Descriptor = Descriptor {
    params: &[gather::RECORD, KEY_OFFSET, KEY_BYTES, ORDER],
    ..gather::descriptor("merge_runs", "Merges sorted runs of records or lines into one file", &["records"], &["plain"])
};

/// Written at once.
const PIECE_BYTES: usize = 1 << 20;

impl Kernel for MergeRuns {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        Ok(Box::new(PreparedMerge { order: Order::new(&params, params.u64("record") as u32)? }))
    }
}

struct PreparedMerge {
    order: Order,
}

impl PreparedMerge {
    fn merge(&self, task: &Task<'_>, part: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let mut merge = Merge::new(self.order, blocks.iter().map(|block| block.bytes))?;
        let mut piece = Vec::with_capacity(PIECE_BYTES.min(merge.bytes()));
        let mut rows = 0;
        let mut preview = Vec::new();
        while let Some(item) = merge.next_item()? {
            if piece.len() + item.len() > PIECE_BYTES && !piece.is_empty() {
                part.write(&piece)?;
                piece.clear();
            }
            piece.extend_from_slice(item);
            if preview.len() < PREVIEW_ROWS {
                // By falling weight parts show their rows in the order of the whole output.
                let weight = u64::MAX - (task.number << 8 | preview.len() as u64);
                preview.push(PreviewRow { cells: vec![self.cell(item)], weight });
            }
            rows += 1;
        }
        part.write(&piece)?;
        let (extension, column) = if self.order.record > 0 { ("bin", "key") } else { ("txt", "line") };
        let part = Part { extension, bytes: Vec::new(), rows, columns: vec![column.into()], preview };
        Ok(TaskOutput { tallies: vec![rows], blocks: Vec::new(), part: Some(part), records: Records { read: rows, made: 0 } })
    }

    fn cell(&self, item: &[u8]) -> String {
        if self.order.record == 0 {
            return preview::line(item);
        }
        preview::record(self.order.key(item))
    }
}

impl Prepared for PreparedMerge {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let mut bytes = Vec::new();
        let mut output = self.merge(task, &mut bytes)?;
        output.part.iter_mut().for_each(|part| part.bytes = std::mem::take(&mut bytes));
        Ok(output)
    }

    /// The part goes out while it is made.
    fn memory(&self, _input_bytes: u64) -> u64 {
        TASK_BYTES
    }

    fn run_streamed(&self, task: &Task<'_>, part: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        self.merge(task, part)
    }
}
