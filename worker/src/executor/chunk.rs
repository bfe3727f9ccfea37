//! What a range of tasks made, collected cheaply: tallies in columns, blocks and parts in one write per group.
use super::{
    input::Inputs,
    lease::{Lease, Output, stopped_failure},
    part_file::Written,
    reading::Reading,
    stage::{Fault, Stage},
};
use crate::counters::{self, Numbers};
use crate::lease::OUTPUT_FILE;
use raftwerk_kernels::{Part, TaskOutput};
use raftwerk_proto::v1::{
    BadRecord, BlockIndex, BlockRange, FailureClass, OutputPart, PreviewRow, RoundEnd, TallyValues, TaskFailure, TaskResults,
};
use std::{
    fs::File,
    io::{self, IoSlice},
};

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
    pub(super) bad_records: Vec<BadRecord>,
}

/// What the scheduler sums up of a task, and the first records that it left out.
struct Summed {
    task: u64,
    tallies: Vec<u64>,
    numbers: Numbers,
    bad_records: Vec<BadRecord>,
}

impl Done {
    pub(super) fn failed(&mut self, first_task: u64, task_count: u64, fault: Fault) {
        self.tasks += task_count;
        self.bad_records.extend(fault.bad_records);
        if let Some(last) = self.failures.last_mut()
            && last.first_task + last.task_count == first_task
            && last.class == i32::from(fault.class)
            && last.message == fault.message
        {
            last.task_count += task_count;
            return;
        }
        let Fault { class, message, .. } = fault;
        self.failures.push(TaskFailure { first_task, task_count, class: class.into(), message, source_worker: 0 });
    }

    pub(super) fn stopped(&mut self, first_task: u64, task_count: u64) {
        self.tasks += task_count;
        self.failures.push(stopped_failure(first_task, task_count));
    }

    fn succeeded(&mut self, summed: Summed) {
        let Summed { task, tallies, numbers, bad_records } = summed;
        self.tasks += 1;
        self.bad_records.extend(bad_records);
        if let Some(last) = self.results.last_mut()
            && last.first_task + last.task_count == task
        {
            counters::push(&mut last.counters, last.task_count, numbers);
            last.task_count += 1;
            for (column, value) in last.tallies.iter_mut().zip(tallies) {
                column.values.push(value);
            }
            return;
        }
        let tallies = tallies.into_iter().map(|value| TallyValues { values: vec![value] }).collect();
        let mut counted = None;
        counters::push(&mut counted, 0, numbers);
        self.results.push(TaskResults { first_task: task, task_count: 1, tallies, counters: counted });
    }
}

/// What each of so many threads keeps of outputs, where tasks may take so much memory together.
pub(super) fn write_bytes(memory: u64, threads: usize) -> usize {
    (memory / WRITE_SHARE / threads.max(1) as u64).clamp(WRITE_LEAST, WRITE_BYTES as u64) as usize
}

/// Collects one chunk. Outputs wait in memory until they are worth a write; their tasks count as done only behind it.
pub(super) struct Collector<'a> {
    /// That of the message, if it has one of its own, or else the lease's.
    output: Option<&'a Output>,
    stage: &'a Stage,
    inputs: &'a Inputs,
    pub(super) done: Done,
    unwritten: Vec<(Summed, TaskOutput)>,
    unwritten_bytes: usize,
    /// Of them so much at most.
    write_bytes: usize,
}

/// Memory that one thread keeps for outputs before it writes them, which takes as much again.
const WRITE_BYTES: usize = 8 << 20;
/// The same where memory is limited: of what tasks may take together all threads have a quarter for outputs and writes, if that is worth a write.
const WRITE_SHARE: u64 = 8;
const WRITE_LEAST: u64 = 64 << 10;
/// A task with so much output is written by itself, ..
const LARGE_OUTPUT_BYTES: usize = 1 << 20;
/// .. as it lies if its blocks are about this long; shorter ones are put together first, unless they alone are all that a thread may keep.
const LARGE_BLOCK_BYTES: usize = 4 << 10;
/// Pieces that one system call takes.
const PIECES_AT_ONCE: usize = 1024;

impl<'a> Collector<'a> {
    pub(super) fn new(lease: &'a Lease, inputs: &'a Inputs, write_bytes: usize) -> Self {
        let output = inputs.output.as_ref().or(lease.output.as_ref());
        Self { output, stage: &lease.stage, inputs, done: Done::default(), unwritten: Vec::new(), unwritten_bytes: 0, write_bytes }
    }

    /// `written`: its part is in the message's own output file already.
    pub(super) fn add(&mut self, task: u64, mut output: TaskOutput, written: Option<Written>, reading: &Reading) {
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
        let (numbers, bad_records) = reading.conclude(task, self.inputs.path(task), &output, written);
        let summed = Summed { task, tallies: std::mem::take(&mut output.tallies), numbers, bad_records };
        if self.stage.partitions == 0 && output.part.is_none() {
            return self.done.succeeded(summed);
        }
        if let (Some(written), Some(part)) = (written, &output.part) {
            self.done.part_ranges.push(BlockRange { task, bytes: written.bytes, ..BlockRange::default() });
            self.done.parts.push(described(task, part, written));
            return self.done.succeeded(summed);
        }
        let bytes = output.blocks.iter().map(Vec::len).sum::<usize>() + output.part.as_ref().map_or(0, |part| part.bytes.len());
        let is_large = bytes >= LARGE_OUTPUT_BYTES && bytes / output.blocks.len().max(1) >= LARGE_BLOCK_BYTES;
        if output.part.is_none() && (is_large || bytes >= self.write_bytes) {
            return self.write_large(summed, &output);
        }
        self.unwritten_bytes += bytes;
        self.unwritten.push((summed, output));
        if self.unwritten_bytes >= self.write_bytes {
            self.write();
        }
    }

    pub(super) fn finish(mut self) -> Done {
        self.write();
        self.done
    }

    /// Blocks go out as they are, without being copied together.
    fn write_large(&mut self, summed: Summed, output: &TaskOutput) {
        let task = summed.task;
        let mut group = Group::default();
        for (partition, block) in output.blocks.iter().enumerate() {
            group.index(task, partition as u32, block);
        }
        let blocks: Vec<&[u8]> = output.blocks.iter().map(Vec::as_slice).collect();
        match self.store(&mut group, &blocks) {
            Ok(()) => {
                self.done.blocks.append(&mut group.blocks);
                self.done.succeeded(summed);
            }
            Err(fault) => self.done.failed(task, 1, fault),
        }
    }

    fn write(&mut self) {
        let outputs = std::mem::take(&mut self.unwritten);
        if outputs.is_empty() {
            return;
        }
        let mut bytes = Vec::with_capacity(self.unwritten_bytes);
        let mut group = Group::default();
        self.unwritten_bytes = 0;
        // Partition by partition, so that whoever fetches one reads long runs.
        for partition in 0..self.stage.partitions {
            for (Summed { task, .. }, output) in &outputs {
                group.index(*task, partition as u32, &output.blocks[partition]);
                bytes.extend_from_slice(&output.blocks[partition]);
            }
        }
        let has_output = self.output.is_some();
        let mut all = Vec::with_capacity(outputs.len());
        for (summed, output) in outputs {
            let task = summed.task;
            match output.part {
                // For a stage that reads it: the one block of the partition that the task itself is.
                Some(part) if self.stage.makes_blocks => {
                    group.index(task, task as u32, &part.bytes);
                    bytes.extend_from_slice(&part.bytes);
                }
                Some(part) => {
                    group.part(task, &part, has_output);
                    if has_output {
                        bytes.extend_from_slice(&part.bytes);
                    }
                }
                None => {}
            }
            all.push(summed);
        }
        match self.store(&mut group, &[&bytes]) {
            Ok(()) => {
                self.done.blocks.append(&mut group.blocks);
                self.done.parts.append(&mut group.parts);
                self.done.part_ranges.append(&mut group.ranges);
                all.into_iter().for_each(|summed| self.done.succeeded(summed));
            }
            Err(fault) => all.iter().for_each(|summed| self.done.failed(summed.task, 1, fault.clone())),
        }
    }

    /// Writes what the group describes, which lies in these pieces.
    fn store(&self, group: &mut Group, pieces: &[&[u8]]) -> Result<(), Fault> {
        if group.bytes == 0 {
            return Ok(());
        }
        let missing = || Fault::new(FailureClass::Worker, "the agent sent no output file for a lease that writes");
        let output = self.output.ok_or_else(missing)?;
        let base = output.reserve(group.bytes);
        // A full disk is this worker's trouble, not the task's.
        let failed = |error| Fault::new(FailureClass::Worker, format!("cannot write {OUTPUT_FILE}: {error}"));
        let mut at = base;
        for group in pieces.chunks(PIECES_AT_ONCE) {
            at = write_all(&output.file, group, at).map_err(failed)?;
        }
        group.blocks.iter_mut().for_each(|block| block.offset += base);
        group.ranges.iter_mut().for_each(|range| range.offset += base);
        Ok(())
    }
}

/// Writes pieces behind each other from `at` on; where they end.
fn write_all(file: &File, pieces: &[&[u8]], mut at: u64) -> io::Result<u64> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = slices.as_mut_slice();
    // Empty ones alone would look like a file that takes nothing.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(at)
}

/// Outputs of tasks, laid out one behind the other; offsets count from the start of the first.
#[derive(Default)]
struct Group {
    bytes: u64,
    blocks: Vec<BlockIndex>,
    parts: Vec<OutputPart>,
    ranges: Vec<BlockRange>,
}

impl Group {
    fn index(&mut self, task: u64, partition: u32, block: &[u8]) {
        if !block.is_empty() {
            let (offset, bytes) = (self.bytes, block.len() as u64);
            self.blocks.push(BlockIndex { task, partition, offset, bytes, crc32c: crc32c::crc32c(block) });
            self.bytes += bytes;
        }
    }

    fn part(&mut self, task: u64, part: &Part, has_output: bool) {
        let written = Written { bytes: part.bytes.len() as u64, crc32c: crc32c::crc32c(&part.bytes) };
        if has_output {
            self.ranges.push(BlockRange { task, offset: self.bytes, bytes: written.bytes, ..BlockRange::default() });
            self.bytes += written.bytes;
        }
        self.parts.push(described(task, part, written));
    }
}

fn described(task: u64, part: &Part, written: Written) -> OutputPart {
    let shown =
        |row: &raftwerk_kernels::PreviewRow| PreviewRow { cells: row.cells.iter().map(|cell| shorten(cell)).collect(), weight: row.weight };
    OutputPart {
        partition: task as u32,
        name: format!("part-{task:05}.{}", part.extension),
        bytes: written.bytes,
        rows: part.rows,
        crc32c: written.crc32c,
        preview: part.preview.iter().map(shown).collect(),
        columns: part.columns.iter().map(|column| shorten(column)).collect(),
        // Who prepares it, and under which name until it is published, is the agent's to say.
        ..OutputPart::default()
    }
}

/// A cell or a heading of a preview is for a person's eyes and travels in the report and the log; a key of megabytes stays in the part.
fn shorten(cell: &str) -> String {
    const LONGEST: usize = 256;
    if cell.len() <= LONGEST {
        return cell.to_owned();
    }
    let cut = (0..=LONGEST).rev().find(|at| cell.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &cell[..cut])
}
