//! The input of a task as memory: descriptors mapped once per message, ranges aligned per task. Blocks that lie among others in files of this worker's
//! own are read instead where memory is limited: the system maps more than was asked for, up to 2 MiB around it.
use super::{
    align,
    lease::Output,
    reading::{Reading, leave_out_tail},
    stage::{Fault, InputKind},
    unpack,
};
use crate::arrays::element_bytes;
use crate::table;
use bytes::Bytes;
use memmap2::{Advice, Mmap};
use raftwerk_formats::{Compression, Notes, Table, line_of};
use raftwerk_kernels::{Block, Input};
use raftwerk_proto::is_store_url;
use raftwerk_proto::v1::{BlockRange, ExecutorInput, FailureClass};
use rayon::prelude::*;
use std::{
    collections::HashSet,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{Arc, Mutex, PoisonError},
};

/// Blocks of a partition that one thread checks by itself.
const CHECKED_APART: u64 = 4 << 20;
/// What is mapped at most where a byte is read: all of a large page of the page cache.
const LARGE_PAGE: u64 = 2 << 20;
/// Of a mapped file that is given back at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// A file of one lease; the descriptor is closed as soon as it is mapped.
pub(super) enum Mapped {
    Empty,
    Bytes(Bytes),
    /// Its blocks are read, by the task that has them ([`Inputs::gather`]).
    Blocks(File),
    Failed(String),
    /// Empty, for what a compressed file holds; the task of that file takes it.
    Scratch(Mutex<Option<File>>),
}

/// All of a file in memory.
pub(super) fn map_whole(file: &File, advice: Advice) -> io::Result<Bytes> {
    // SAFETY: nobody may write the file while it is mapped. The agent checked size and version, and a job's input must not change
    // while it runs; a file cut short all the same raises SIGBUS, which ends this process alone and is reported as such.
    let map = unsafe { Mmap::map(file) }?;
    // Advice only: a file system that does not know it still reads correctly.
    let _ = map.advise(advice);
    Ok(Bytes::from_owner(map))
}

impl Mapped {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        // Each task reads its split once.
        Self::with(descriptor, Advice::Sequential)
    }

    pub(super) fn with(descriptor: OwnedFd, advice: Advice) -> Self {
        let file = File::from(descriptor);
        let length = match file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return Self::Failed(error.to_string()),
        };
        if length == 0 {
            return Self::Empty; // a mapping of no bytes is an error of the system call
        }
        map_whole(&file, advice).map_or_else(|error| Self::Failed(error.to_string()), Self::Bytes)
    }

    /// The files of one message; those that are named as scratch are kept as files, and where memory is limited those of blocks that lie among others.
    pub(super) fn all(descriptors: Vec<OwnedFd>, tasks: &[ExecutorInput], limited: bool) -> Vec<Self> {
        let scratch: HashSet<u32> = tasks.iter().filter_map(|task| task.scratch).map(|scratch| scratch.descriptor).collect();
        let among_others = tasks.iter().flat_map(|task| &task.blocks).filter(|block| limited && block.unchecked);
        let read: HashSet<u32> = among_others.map(|block| block.descriptor).collect();
        let mapped = (0..).zip(descriptors).map(|(index, descriptor)| {
            if scratch.contains(&index) {
                Self::Scratch(Mutex::new(Some(File::from(descriptor))))
            } else if read.contains(&index) {
                Self::Blocks(File::from(descriptor))
            } else {
                let mapped = Self::new(descriptor);
                if let (true, Self::Bytes(bytes)) = (limited, &mapped) {
                    in_small_pages(bytes);
                }
                mapped
            }
        });
        mapped.collect()
    }

    pub(super) fn bytes(&self) -> Result<&[u8], String> {
        match self {
            Self::Empty | Self::Scratch(_) | Self::Blocks(_) => Ok(&[]),
            Self::Bytes(bytes) => Ok(bytes),
            Self::Failed(reason) => Err(format!("cannot map the input: {reason}")),
        }
    }
}

impl Mapped {
    /// The same for who keeps it: columns of a table point into the file.
    fn shared(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Empty | Self::Failed(_) | Self::Scratch(_) | Self::Blocks(_) => Bytes::new(),
        }
    }
}

/// The inputs that came with one message, one per task from `first_task` on.
#[derive(Default)]
pub(super) struct Inputs {
    pub(super) first_task: u64,
    pub(super) files: Vec<Mapped>,
    pub(super) tasks: Vec<ExecutorInput>,
    /// For the part of the one task that came with this message.
    pub(super) output: Option<Output>,
}

impl Inputs {
    /// What the task's file holds, if it is a compressed one.
    pub(super) fn unpack(&self, task: u64) -> Result<Option<Bytes>, Fault> {
        let input = task.checked_sub(self.first_task).and_then(|index| self.tasks.get(index as usize));
        let Some((input, listed)) = input.and_then(|input| Some((input, input.file.as_ref().filter(|file| !file.compression.is_empty())?)))
        else {
            return Ok(None);
        };
        let unknown =
            || Fault::new(FailureClass::Worker, format!("this worker's build does not know compression `{}`", listed.compression));
        let with = Compression::named(&listed.compression).ok_or_else(unknown)?;
        let missing = || Fault::new(FailureClass::Worker, "the agent sent no file for what a compressed input holds");
        let (Some(packed), Some(limits)) = (self.files.get(input.descriptor as usize), input.scratch) else { return Err(missing()) };
        let Some(Mapped::Scratch(scratch)) = self.files.get(limits.descriptor as usize) else { return Err(missing()) };
        let scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(missing)?;
        let packed = packed.bytes().map_err(|reason| Fault::new(FailureClass::Worker, reason))?;
        unpack::unpack(&listed.path, with, packed, scratch, limits).map(Some)
    }

    /// The task's blocks that are to be read, behind each other in their order. None where all are mapped.
    pub(super) fn gather(&self, task: u64) -> Result<Option<Bytes>, Fault> {
        let input = task.checked_sub(self.first_task).and_then(|index| self.tasks.get(index as usize));
        let blocks = input.into_iter().flat_map(|input| &input.blocks);
        let read: Vec<(&File, &BlockRange)> = blocks.filter_map(|block| Some((self.file_of_blocks(block)?, block))).collect();
        if read.is_empty() {
            return Ok(None);
        }
        let mut bytes = vec![0; read.iter().map(|(_, block)| block.bytes as usize).sum()];
        let mut rest = bytes.as_mut_slice();
        for (file, block) in read {
            let (here, behind) = rest.split_at_mut(block.bytes as usize);
            let failed =
                |error: io::Error| Fault::new(FailureClass::Source, format!("cannot read the block of task {}: {error}", block.task));
            file.read_exact_at(here, block.offset).map_err(failed)?;
            rest = behind;
        }
        Ok(Some(bytes.into()))
    }

    fn file_of_blocks(&self, block: &BlockRange) -> Option<&File> {
        match self.files.get(block.descriptor as usize) {
            Some(Mapped::Blocks(file)) => Some(file),
            _ => None,
        }
    }

    /// The task's input, and what is known of it beside what the kernel finds. `unpacked` is what a compressed file holds, or what was gathered of
    /// blocks; so many bad records may be left out.
    pub(super) fn of<'a>(
        &'a self,
        kind: &InputKind,
        bad_records: u64,
        task: u64,
        unpacked: Option<&'a Bytes>,
    ) -> Result<(Input<'a>, Reading), Fault> {
        if let InputKind::Index { start, count, tasks } = *kind {
            let (start, count) = InputKind::index_range(start, count, tasks, task);
            return Ok((Input::Index { start, count }, Reading { records: Some(count), ..Reading::default() }));
        }
        // Bytes on disk.
        let plain = |read: Input<'a>, bytes: u64| Ok((read, Reading::of_bytes(bytes)));
        let table = |table: Table, bytes: u64| {
            let notes = Notes::allowing(bad_records);
            let notes = Arc::new(if self.has_holes(task) && unpacked.is_none() { notes.of_part() } else { notes });
            Ok((Input::Table(table.noted(notes.clone())), Reading { bytes, records: None, notes: Some(notes) }))
        };
        let missing = || Fault::new(FailureClass::Worker, "the agent sent no input for this task");
        let input = self.tasks.get((task - self.first_task) as usize).ok_or_else(missing)?;
        if matches!(kind, InputKind::Blocks | InputKind::Joined | InputKind::Part) {
            let mut gathered: &[u8] = unpacked.map(|gathered| &gathered[..]).unwrap_or_default();
            let mut places: Vec<(&BlockRange, Option<&[u8]>)> = Vec::with_capacity(input.blocks.len());
            for block in &input.blocks {
                let read = self.file_of_blocks(block).map(|_| gathered.split_at_checked(block.bytes as usize).unwrap_or_default());
                gathered = read.map_or(gathered, |(_, behind)| behind);
                places.push((block, read.map(|(bytes, _)| bytes)));
            }
            let of = |side: u32| -> Result<Vec<Block<'a>>, Fault> {
                let blocks: Vec<_> = places.iter().filter(|(block, _)| block.input == side).copied().collect();
                if blocks.iter().filter(|(block, _)| block.unchecked).map(|(block, _)| block.bytes).sum::<u64>() < CHECKED_APART {
                    return blocks.into_iter().map(|(block, read)| self.block(block, read)).collect();
                }
                // Reading them for the first time takes longer than merging some of them; whoever is idle helps.
                let checked: Vec<_> = blocks.into_par_iter().map(|(block, read)| self.block(block, read)).collect();
                checked.into_iter().collect()
            };
            let read = match kind {
                InputKind::Joined => Input::Joined { left: of(0)?, right: of(1)? },
                InputKind::Part => Input::Text(of(0)?.first().map_or(&[][..], |block| block.bytes)),
                _ => Input::Blocks(of(0)?),
            };
            return plain(read, input.blocks.iter().map(|block| block.bytes).sum());
        }
        let file = self.files.get(input.descriptor as usize);
        if let Some(unpacked) = unpacked {
            let path = input.file.as_ref().map_or("", |file| &file.path);
            return match kind {
                InputKind::PlacedText => plain(Input::PlacedText { path, offset: 0, bytes: unpacked }, input.bytes),
                InputKind::Table(format, filter) => {
                    let whole = Table::new(format.clone(), unpacked.clone(), 0..unpacked.len());
                    table(whole.filtered(filter.clone()), input.bytes)
                }
                InputKind::Text => plain(Input::Text(unpacked), input.bytes),
                _ => Err(Fault::new(FailureClass::Fatal, format!("{path}: a compressed file must hold text or a table"))),
            };
        }
        if input.file.as_ref().is_some_and(|file| !file.compression.is_empty()) {
            return Err(Fault::new(FailureClass::Fatal, "this device reads no compressed files"));
        }
        let bytes = match file {
            Some(file) => file.bytes().map_err(|reason| Fault::new(FailureClass::Worker, reason))?,
            None => return Err(missing()),
        };
        match kind {
            InputKind::Elements | InputKind::Rows => {
                let file = input.file.as_ref().ok_or_else(missing)?;
                let record = u64::from(file.record_bytes);
                let range = align::records(bytes.len() as u64, file.data_offset, record, input.offset, input.bytes);
                let elements = bytes.get(range).ok_or_else(missing)?;
                let bytes = elements.len() as u64;
                let reading = Reading { bytes, records: Some(bytes / record.max(1)), notes: None };
                match kind {
                    InputKind::Rows => {
                        let columns = record as usize / element_bytes(&file.dtype).ok_or_else(missing)?;
                        Ok((Input::Rows { dtype: &file.dtype, columns, bytes: elements }, reading))
                    }
                    _ => Ok((Input::Elements { dtype: &file.dtype, bytes: elements }, reading)),
                }
            }
            InputKind::Records => {
                let file = input.file.as_ref().ok_or_else(missing)?;
                let range = align::records(bytes.len() as u64, file.data_offset, file.record_bytes.into(), input.offset, input.bytes);
                let record_bytes = file.record_bytes.max(1) as usize;
                let records = bytes.get(range.clone()).ok_or_else(missing)?;
                let mut reading = Reading::of_bytes(records.len() as u64);
                reading.records = Some((records.len() / record_bytes) as u64);
                // What is left behind the last whole record is one that cannot be read; like any other it is of the split in which it starts.
                let (left, split) = (bytes.len() - range.end, input.offset..input.offset.saturating_add(input.bytes));
                if (1..record_bytes).contains(&left) && split.contains(&(range.end as u64)) {
                    let notes = Arc::new(Notes::allowing(bad_records));
                    leave_out_tail(&notes, bytes, range.end, record_bytes)?;
                    reading.notes = Some(notes);
                }
                Ok((Input::Records { record_bytes, bytes: records }, reading))
            }
            InputKind::File => Ok((Input::File(bytes), Reading { bytes: bytes.len() as u64, records: Some(1), notes: None })),
            InputKind::PlacedText => {
                let path = &input.file.as_ref().ok_or_else(missing)?.path;
                let lines = align::lines(bytes, input.offset, input.bytes);
                let length = lines.len() as u64;
                plain(Input::PlacedText { path, offset: lines.start as u64, bytes: &bytes[lines] }, length)
            }
            InputKind::Table(format, filter) if format.columnar().is_some() => {
                let listed = input.file.as_ref().ok_or_else(missing)?;
                let groups = table::groups(listed, input.offset, input.bytes);
                let of_groups = Table::of_groups(format.clone(), file.ok_or_else(missing)?.shared(), groups, listed.groups.into());
                table(of_groups.filtered(filter.clone()), input.bytes)
            }
            InputKind::Table(format, filter) => {
                let range = if format.splits_at_lines() { align::lines(bytes, input.offset, input.bytes) } else { 0..bytes.len() };
                let of_range = Table::new(format.clone(), file.ok_or_else(missing)?.shared(), range);
                let length = of_range.bytes();
                table(of_range.filtered(filter.clone()), length)
            }
            _ => {
                let text = &bytes[align::lines(bytes, input.offset, input.bytes)];
                plain(Input::Text(text), text.len() as u64)
            }
        }
    }

    /// A task has read its input. The pages of it go: until then they count as this process's, and many tasks read one large file, which is unmapped
    /// behind the last of them alone. Whoever reads there once more finds what was there.
    pub(super) fn done_with(&self, task: u64) {
        let input = task.checked_sub(self.first_task).and_then(|index| self.tasks.get(index as usize));
        let Some(input) = input.filter(|input| input.blocks.is_empty()) else { return };
        let Some(Mapped::Bytes(bytes)) = self.files.get(input.descriptor as usize) else { return };
        let end = input.offset.saturating_add(input.bytes).min(bytes.len() as u64);
        let (from, until) = match input.bytes >= WINDOW_BYTES {
            // With all that the system has mapped around it. A neighbour that is being read there gets it once more.
            true => (input.offset / LARGE_PAGE * LARGE_PAGE, end.div_ceil(LARGE_PAGE).saturating_mul(LARGE_PAGE).min(bytes.len() as u64)),
            // Whole windows, each by the task in which it ends.
            false if end == bytes.len() as u64 => (input.offset / WINDOW_BYTES * WINDOW_BYTES, end),
            false => (input.offset / WINDOW_BYTES * WINDOW_BYTES, end / WINDOW_BYTES * WINDOW_BYTES),
        };
        if from < until
            && let Some(range) = slice(bytes, from, until - from)
        {
            give_back(range);
        }
    }

    /// A block of an earlier stage. One that comes from where it was written is looked at here for the first time.
    fn block<'a>(&'a self, block: &BlockRange, read: Option<&'a [u8]>) -> Result<Block<'a>, Fault> {
        let missing = || Fault::new(FailureClass::Worker, "the agent sent no input for this task");
        let bytes = match read {
            Some(bytes) => bytes,
            None => {
                let file = self.files.get(block.descriptor as usize).ok_or_else(missing)?;
                let bytes = file.bytes().map_err(|reason| Fault::new(FailureClass::Worker, reason))?;
                slice(bytes, block.offset, block.bytes).ok_or_else(missing)?
            }
        };
        if block.unchecked {
            let found = crc32c::crc32c(bytes);
            if found != block.crc32c {
                let (task, expected) = (block.task, block.crc32c);
                let message = format!("the block of task {task} is damaged: its checksum is {found:08x}, not {expected:08x}");
                return Err(Fault::new(FailureClass::Source, message));
            }
        }
        Ok(Block { task: block.task, bytes })
    }

    /// Of an object just what the task reads is here, at its place.
    fn has_holes(&self, task: u64) -> bool {
        is_store_url(self.path(task))
    }

    /// The file that a task reads; empty where it reads none.
    pub(super) fn path(&self, task: u64) -> &str {
        let input = task.checked_sub(self.first_task).and_then(|index| self.tasks.get(index as usize));
        input.and_then(|input| input.file.as_ref()).map_or("", |file| &file.path)
    }

    /// Where bad input is, for messages: "in /data/a.txt from byte 4096", which is where the split begins, or, of a line that starts `at` bytes behind the
    /// start of the task's text, "in /data/a.txt at line 98, byte 4207". `unpacked` is what a compressed file holds.
    pub(super) fn place(&self, task: u64, at: Option<u64>, unpacked: Option<&Bytes>) -> Option<String> {
        let input = self.tasks.get(task.checked_sub(self.first_task)? as usize)?;
        let file = input.file.as_ref().filter(|file| !file.path.is_empty())?;
        let path = &file.path;
        if let Some(at) = at {
            let (text, start) = match (unpacked, self.files.get(input.descriptor as usize)?.bytes().ok()?) {
                (Some(unpacked), _) => (&unpacked[..], 0),
                (None, bytes) => (bytes, align::lines(bytes, input.offset, input.bytes).start as u64),
            };
            let byte = start + at;
            // Of an object just the split is here, so that no lines were counted before it.
            let line = line_of(text, byte).filter(|_| !is_store_url(path)).map_or_else(String::new, |line| format!("line {line}, "));
            return Some(format!("in {path} at {line}byte {byte}"));
        }
        let is_whole = input.offset <= file.data_offset && input.offset.saturating_add(input.bytes) >= file.bytes;
        Some(if is_whole { format!("in {path}") } else { format!("in {path} from byte {}", input.offset) })
    }
}

/// Takes the pages out of this process; the range begins at the start of one.
fn give_back(range: &[u8]) {
    use rustix::mm::{Advice, madvise};
    // SAFETY: the range lies within a mapping of a file that nobody writes to, so whoever reads there gets the same bytes again, from the file.
    // Where the kernel has no use for the advice, nothing has changed.
    let _ = unsafe { madvise(range.as_ptr().cast_mut().cast(), range.len(), Advice::LinuxDontNeed) };
}

/// Where a byte is read, little around it is mapped: since Linux 6.12, which before maps a large page of the page cache whole all the same.
fn in_small_pages(mapping: &[u8]) {
    use rustix::mm::{Advice, madvise};
    // SAFETY: advice about how a mapping of a file is mapped changes nothing that is read there.
    let _ = unsafe { madvise(mapping.as_ptr().cast_mut().cast(), mapping.len(), Advice::LinuxNoHugepage) };
}

fn slice(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(length)?).ok()?)
}
