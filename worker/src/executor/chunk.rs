//! What a range of tasks made, collected cheaply: tallies in columns, blocks and parts in one write per group.
use super::{
    lease::{Lease, stopped_failure},
    stage::{Fault, Stage},
};
use crate::lease::OUTPUT_FILE;
use raftwerk_kernels::TaskOutput;
use raftwerk_proto::v1::{BlockIndex, BlockRange, FailureClass, OutputPart, PreviewRow, RoundEnd, TallyValues, TaskFailure, TaskResults};
use std::os::unix::fs::FileExt;

/// Finished tasks, ready for the lease.
#[derive(Default)]
pub(super) struct Done {
    pub(super) tasks: u64,
    pub(super) results: Vec<TaskResults>,
    pub(super) failures: Vec<TaskFailure>,
    pub(super) blocks: Vec<BlockIndex>,
    pub(super) parts: Vec<OutputPart>,
    pub(super) part_ranges: Vec<BlockRange>,
    pub(super) busy_ns: u64,
    pub(super) input_bytes: u64,
    pub(super) round_end: Option<RoundEnd>,
}

impl Done {
    pub(super) fn failed(&mut self, first_task: u64, task_count: u64, fault: Fault) {
        self.tasks += task_count;
        if let Some(last) = self.failures.last_mut()
            && last.first_task + last.task_count == first_task
            && last.class == i32::from(fault.class)
            && last.message == fault.message
        {
            last.task_count += task_count;
            return;
        }
        let Fault { class, message } = fault;
        self.failures.push(TaskFailure { first_task, task_count, class: class.into(), message, source_worker: 0 });
    }

    pub(super) fn stopped(&mut self, first_task: u64, task_count: u64) {
        self.tasks += task_count;
        self.failures.push(stopped_failure(first_task, task_count));
    }

    fn succeeded(&mut self, task: u64, tallies: &[u64]) {
        self.tasks += 1;
        if let Some(last) = self.results.last_mut()
            && last.first_task + last.task_count == task
        {
            last.task_count += 1;
            for (column, &value) in last.tallies.iter_mut().zip(tallies) {
                column.values.push(value);
            }
            return;
        }
        let tallies = tallies.iter().map(|&value| TallyValues { values: vec![value] }).collect();
        self.results.push(TaskResults { first_task: task, task_count: 1, tallies });
    }
}

/// Collects one chunk. Outputs wait in memory until they are worth a write; their tasks count as done only behind it.
pub(super) struct Collector<'a> {
    lease: &'a Lease,
    stage: &'a Stage,
    pub(super) done: Done,
    unwritten: Vec<(u64, TaskOutput)>,
    unwritten_bytes: usize,
}

/// Memory that one thread keeps for outputs before it writes them.
const WRITE_BYTES: usize = 8 << 20;

impl<'a> Collector<'a> {
    pub(super) fn new(lease: &'a Lease) -> Self {
        Self { lease, stage: &lease.stage, done: Done::default(), unwritten: Vec::new(), unwritten_bytes: 0 }
    }

    pub(super) fn add(&mut self, task: u64, output: TaskOutput) {
        if output.tallies.len() != self.stage.tallies || (self.stage.partitions > 0 && output.blocks.len() != self.stage.partitions) {
            let (tallies, blocks) = (output.tallies.len(), output.blocks.len());
            let message = format!(
                "the kernel returned {tallies} tallies and {blocks} blocks where its descriptor promises {} and {}",
                self.stage.tallies, self.stage.partitions
            );
            return self.done.failed(task, 1, Fault::new(FailureClass::Task, message));
        }
        if self.stage.ends.is_some() && self.done.round_end.is_none() {
            // What a GPU twin would have to say as well; no kernel ends rounds on a GPU.
            return self.done.failed(task, 1, Fault::new(FailureClass::Fatal, "the kernel did not say how the round ended"));
        }
        if self.stage.partitions == 0 && output.part.is_none() {
            return self.done.succeeded(task, &output.tallies);
        }
        self.unwritten_bytes += output.blocks.iter().map(Vec::len).sum::<usize>() + output.part.as_ref().map_or(0, |part| part.bytes.len());
        self.unwritten.push((task, output));
        if self.unwritten_bytes >= WRITE_BYTES {
            self.write();
        }
    }

    pub(super) fn finish(mut self) -> Done {
        self.write();
        self.done
    }

    fn write(&mut self) {
        let outputs = std::mem::take(&mut self.unwritten);
        if outputs.is_empty() {
            return;
        }
        let mut group =
            Group { bytes: Vec::with_capacity(self.unwritten_bytes), blocks: Vec::new(), parts: Vec::new(), ranges: Vec::new() };
        self.unwritten_bytes = 0;
        // Partition by partition, so that whoever fetches one reads long runs.
        for partition in 0..self.stage.partitions {
            for (task, output) in &outputs {
                group.block(*task, partition as u32, &output.blocks[partition]);
            }
        }
        let has_output = self.lease.output.is_some();
        let mut tallies = Vec::with_capacity(outputs.len());
        for (task, output) in outputs {
            match output.part {
                // For a stage that reads it: the one block of the partition that the task itself is.
                Some(part) if self.stage.makes_blocks => group.block(task, task as u32, &part.bytes),
                Some(part) => group.part(task, part, has_output),
                None => {}
            }
            tallies.push((task, output.tallies));
        }
        match self.store(&mut group) {
            Ok(()) => {
                self.done.blocks.append(&mut group.blocks);
                self.done.parts.append(&mut group.parts);
                self.done.part_ranges.append(&mut group.ranges);
                for (task, tallies) in tallies {
                    self.done.succeeded(task, &tallies);
                }
            }
            Err(fault) => tallies.iter().for_each(|(task, _)| self.done.failed(*task, 1, fault.clone())),
        }
    }

    fn store(&self, group: &mut Group) -> Result<(), Fault> {
        if group.bytes.is_empty() {
            return Ok(());
        }
        let missing = || Fault::new(FailureClass::Worker, "the agent sent no output file for a lease that writes");
        let output = self.lease.output.as_ref().ok_or_else(missing)?;
        let base = output.reserve(group.bytes.len() as u64);
        // A full disk is this worker's trouble, not the task's.
        let failed = |error| Fault::new(FailureClass::Worker, format!("cannot write {OUTPUT_FILE}: {error}"));
        output.file.write_all_at(&group.bytes, base).map_err(failed)?;
        group.blocks.iter_mut().for_each(|block| block.offset += base);
        group.ranges.iter_mut().for_each(|range| range.offset += base);
        Ok(())
    }
}

/// Outputs of several tasks, laid out for one write; offsets count from its start.
struct Group {
    bytes: Vec<u8>,
    blocks: Vec<BlockIndex>,
    parts: Vec<OutputPart>,
    ranges: Vec<BlockRange>,
}

impl Group {
    fn block(&mut self, task: u64, partition: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            let offset = self.bytes.len() as u64;
            self.blocks.push(BlockIndex { task, partition, offset, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(bytes) });
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn part(&mut self, task: u64, part: raftwerk_kernels::Part, has_output: bool) {
        let bytes = part.bytes.len() as u64;
        if has_output {
            self.ranges.push(BlockRange { task, offset: self.bytes.len() as u64, bytes, input: 0 });
            self.bytes.extend_from_slice(&part.bytes);
        }
        self.parts.push(OutputPart {
            partition: task as u32,
            name: format!("part-{task:05}.{}", part.extension),
            bytes,
            rows: part.rows,
            crc32c: crc32c::crc32c(&part.bytes),
            preview: part
                .preview
                .into_iter()
                .map(|row| PreviewRow { cells: row.cells.into_iter().map(shorten).collect(), weight: row.weight })
                .collect(),
            columns: part.columns.into_iter().map(shorten).collect(),
            // Who prepares it, and under which name until it is published, is the agent's to say.
            ..OutputPart::default()
        });
    }
}

/// A cell or a heading of a preview is for a person's eyes and travels in the report and the log; a key of megabytes stays in the part.
fn shorten(mut cell: String) -> String {
    const LONGEST: usize = 256;
    if cell.len() > LONGEST {
        let cut = (0..=LONGEST).rev().find(|at| cell.is_char_boundary(*at)).unwrap_or(0);
        cell.truncate(cut);
        cell.push('…');
    }
    cell
}
