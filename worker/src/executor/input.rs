//! The input of a task as memory: descriptors mapped once per message, ranges aligned per task.
use super::{
    align,
    lease::Output,
    stage::{Fault, InputKind},
};
use crate::arrays::element_bytes;
use bytes::Bytes;
use memmap2::{Advice, Mmap};
use raftwerk_formats::Table;
use raftwerk_kernels::{Block, Input};
use raftwerk_proto::v1::{BlockRange, ExecutorInput, FailureClass};
use std::{fs::File, os::fd::OwnedFd};

/// A file of one lease; the descriptor is closed as soon as it is mapped.
pub(super) enum Mapped {
    Empty,
    Bytes(Bytes),
    Failed(String),
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
        // SAFETY: nobody may write the file while it is mapped. The agent checked size and version, and a job's input must not change
        // while it runs; a file cut short all the same raises SIGBUS, which ends this process alone and is reported as such.
        match unsafe { Mmap::map(&file) } {
            Ok(map) => {
                // Advice only: a file system that does not know it still reads correctly.
                let _ = map.advise(advice);
                Self::Bytes(Bytes::from_owner(map))
            }
            Err(error) => Self::Failed(error.to_string()),
        }
    }

    pub(super) fn bytes(&self) -> Result<&[u8], String> {
        match self {
            Self::Empty => Ok(&[]),
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
            Self::Empty | Self::Failed(_) => Bytes::new(),
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
    /// The task's input and its length in bytes.
    pub(super) fn of(&self, kind: &InputKind, task: u64) -> Result<(Input<'_>, u64), Fault> {
        if let InputKind::Index { start, count, tasks } = *kind {
            let (start, count) = InputKind::index_range(start, count, tasks, task);
            return Ok((Input::Index { start, count }, 0));
        }
        let missing = || Fault::new(FailureClass::Worker, "the agent sent no input for this task");
        let input = self.tasks.get((task - self.first_task) as usize).ok_or_else(missing)?;
        if matches!(kind, InputKind::Blocks | InputKind::Joined | InputKind::Part) {
            let of = |side: u32| -> Result<Vec<Block<'_>>, Fault> {
                input.blocks.iter().filter(|block| block.input == side).map(|block| self.block(block)).collect()
            };
            let read = match kind {
                InputKind::Joined => Input::Joined { left: of(0)?, right: of(1)? },
                InputKind::Part => Input::Text(of(0)?.first().map_or(&[][..], |block| block.bytes)),
                _ => Input::Blocks(of(0)?),
            };
            return Ok((read, input.blocks.iter().map(|block| block.bytes).sum()));
        }
        let file = self.files.get(input.descriptor as usize);
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
                let length = elements.len() as u64;
                match kind {
                    InputKind::Rows => {
                        let columns = record as usize / element_bytes(&file.dtype).ok_or_else(missing)?;
                        Ok((Input::Rows { dtype: &file.dtype, columns, bytes: elements }, length))
                    }
                    _ => Ok((Input::Elements { dtype: &file.dtype, bytes: elements }, length)),
                }
            }
            InputKind::Records => {
                let file = input.file.as_ref().ok_or_else(missing)?;
                let range = align::records(bytes.len() as u64, file.data_offset, file.record_bytes.into(), input.offset, input.bytes);
                let records = bytes.get(range).ok_or_else(missing)?;
                Ok((Input::Records { record_bytes: file.record_bytes.max(1) as usize, bytes: records }, records.len() as u64))
            }
            InputKind::File => Ok((Input::File(bytes), bytes.len() as u64)),
            InputKind::PlacedText => {
                let path = &input.file.as_ref().ok_or_else(missing)?.path;
                let lines = align::lines(bytes, input.offset, input.bytes);
                let length = lines.len() as u64;
                Ok((Input::PlacedText { path, offset: lines.start as u64, bytes: &bytes[lines] }, length))
            }
            InputKind::Table(format) => {
                let range = if format.splits_at_lines() { align::lines(bytes, input.offset, input.bytes) } else { 0..bytes.len() };
                let table = Table::new(format.clone(), file.ok_or_else(missing)?.shared(), range);
                let length = table.bytes();
                Ok((Input::Table(table), length))
            }
            _ => {
                let text = &bytes[align::lines(bytes, input.offset, input.bytes)];
                Ok((Input::Text(text), text.len() as u64))
            }
        }
    }

    /// A block of an earlier stage. One that comes from where it was written is looked at here for the first time.
    fn block(&self, block: &BlockRange) -> Result<Block<'_>, Fault> {
        let missing = || Fault::new(FailureClass::Worker, "the agent sent no input for this task");
        let file = self.files.get(block.descriptor as usize).ok_or_else(missing)?;
        let bytes = file.bytes().map_err(|reason| Fault::new(FailureClass::Worker, reason))?;
        let bytes = slice(bytes, block.offset, block.bytes).ok_or_else(missing)?;
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

    /// "in /data/a.txt at byte 4096", for messages about bad input.
    pub(super) fn place(&self, task: u64) -> Option<String> {
        let input = self.tasks.get(task.checked_sub(self.first_task)? as usize)?;
        let file = input.file.as_ref().filter(|file| !file.path.is_empty())?;
        Some(format!("in {} from byte {}", file.path, input.offset))
    }
}

fn slice(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(length)?).ok()?)
}
