//! Puts together what was drawn from the splits, in the order of the input.
//!
//! Shapes    records of `sample` -> the items as they were read: records into files `.bin`, lines into `.txt` (the input's last line gets its newline)
//! Limits    with a count: one partition, memory for the items drawn; without: a MiB beside the partition, which is mapped
//! Agreement exact; no GPU twin: it copies bytes
//! Errors    more than one partition with a count; a damaged run
//! Source    see `sample`

use crate::api::*;
use crate::gather;
use crate::params::Resolved;
use crate::pieces::{self, Pieces};
use crate::preview;
use crate::run::Merge;
use crate::sample::COUNT;

pub struct MergeSample;

static DESCRIPTOR: Descriptor = Descriptor {
    params: &[COUNT, gather::RECORD],
    ..gather::descriptor("merge_sample", "Writes the lines or records that were drawn, in the order of the input", &["drawn"], &["plain"])
};

impl Kernel for MergeSample {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let count = params.u64("count") as usize;
        if count > 0 && stage.tasks > 1 {
            return Err(KernelError::Param(format!(
                "kernel 'merge_sample' draws {count} from all, not from each of {} partitions: set partitions = 1, or count = 0 with a share",
                stage.tasks
            )));
        }
        Ok(Box::new(PreparedMerge { count, lines: params.u64("record") == 0 }))
    }
}

struct PreparedMerge {
    count: usize,
    lines: bool,
}

impl Prepared for PreparedMerge {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        pieces::whole(|part| self.run_streamed(task, part))
    }

    fn memory(&self, input_bytes: u64) -> u64 {
        if self.count == 0 { TASK_BYTES } else { 3 * input_bytes + TASK_BYTES }
    }

    fn run_streamed(&self, task: &Task<'_>, part: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        let mut merge = Merge::new(gather::blocks(&DESCRIPTOR, task)?.iter().map(|block| block.bytes))?;
        let mut out = Sampled { pieces: Pieces::new(part), lines: self.lines, rows: 0, preview: Vec::new() };
        if self.count == 0 {
            while let Some(record) = merge.next_record()? {
                out.item(record.value)?;
            }
        } else {
            let mut drawn = Vec::new();
            while drawn.len() < self.count
                && let Some(record) = merge.next_record()?
            {
                // Behind the random number stands the place in the input.
                let place = record.key.get(8..).ok_or_else(|| KernelError::Failed("shuffle block is damaged: it is no sample".into()))?;
                drawn.push((place, record.value));
            }
            drawn.sort_unstable();
            drawn.into_iter().try_for_each(|(_, item)| out.item(item))?;
        }
        // Also those that were not drawn: the task was given them.
        let read = merge.count()?;
        let Sampled { pieces, rows, preview, .. } = out;
        pieces.finish()?;
        let (extension, column) = if self.lines { ("txt", "line") } else { ("bin", "record") };
        let part = Part { extension, rows, columns: vec![column.into()], preview, ..Part::default() };
        Ok(TaskOutput { tallies: vec![rows], blocks: Vec::new(), part: Some(part), records: Records { read, made: 0 } })
    }
}

struct Sampled<'a> {
    pieces: Pieces<'a>,
    lines: bool,
    rows: u64,
    preview: Vec<PreviewRow>,
}

impl Sampled<'_> {
    fn item(&mut self, item: &[u8]) -> Result<(), KernelError> {
        self.pieces.bytes.extend_from_slice(item);
        if self.lines && !item.ends_with(b"\n") {
            self.pieces.bytes.push(b'\n');
        }
        if self.preview.len() < PREVIEW_ROWS {
            let text = if self.lines { preview::line(item) } else { preview::record(item) };
            self.preview.push(PreviewRow { cells: vec![text], weight: 0 });
        }
        self.rows += 1;
        self.pieces.row_ends()
    }
}
