//! The flight recorder of an executor: which tasks it is running this instant, in memory that outlives it.
//!
//! An executor that dies cannot say what killed it, and only the tasks that were running may be charged. So each of its threads keeps
//! a slot in a shared memory file up to date (one store per task), and the agent reads the slots after the death.
//!
//! ```text
//! slot (64 bytes, one per thread): | count: u64 | epoch << 32 | position | log index | first task | unused ..
//! ```
//! `count` is 0 while the thread is idle. It is written last on start, so a slot is never half true.
use crate::lease::LeaseKey;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

const SLOT_BYTES: usize = 64;
const WORDS: usize = SLOT_BYTES / 8;

pub struct Recorder {
    map: MmapRaw,
    slots: usize,
}

impl Recorder {
    /// A new recorder and the descriptor that the executor inherits.
    pub fn create(slots: usize) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd_create("raftwerk-recorder", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, (slots.max(1) * SLOT_BYTES) as u64)?;
        let file = File::from(fd);
        let recorder = Self::open(&file)?;
        Ok((recorder, file.into()))
    }

    pub fn open(file: &File) -> io::Result<Self> {
        let bytes = file.metadata()?.len() as usize;
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        Ok(Self { map, slots: bytes / SLOT_BYTES })
    }

    pub fn slots(&self) -> usize {
        self.slots
    }

    pub fn slot(&self, index: usize) -> Slot<'_> {
        assert!(index < self.slots, "slot {index} of {}", self.slots);
        // SAFETY: the map is at least `slots * SLOT_BYTES` long and page aligned, lives as long as the borrow, and every access to it,
        // in both processes, is atomic.
        let words = unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU64>().add(index * WORDS), WORDS) };
        Slot { words }
    }

    /// What was running, as (lease, first task, count). Exact once the executor is dead.
    pub fn running(&self) -> Vec<(LeaseKey, u64, u64)> {
        (0..self.slots).filter_map(|index| self.slot(index).read()).collect()
    }
}

#[derive(Clone, Copy)]
pub struct Slot<'a> {
    words: &'a [AtomicU64],
}

impl Slot<'_> {
    pub fn start(&self, lease: LeaseKey, first: u64, count: u64) {
        self.words[0].store(0, Ordering::Release);
        self.words[1].store(u64::from(lease.epoch) << 32 | u64::from(lease.position), Ordering::Relaxed);
        self.words[2].store(lease.index, Ordering::Relaxed);
        self.words[3].store(first, Ordering::Relaxed);
        self.words[0].store(count, Ordering::Release);
    }

    /// The next task of the lease that [`Slot::start`] named.
    pub fn task(&self, task: u64) {
        self.words[3].store(task, Ordering::Release);
    }

    pub fn idle(&self) {
        self.words[0].store(0, Ordering::Release);
    }

    fn read(&self) -> Option<(LeaseKey, u64, u64)> {
        let count = self.words[0].load(Ordering::Acquire);
        let place = self.words[1].load(Ordering::Relaxed);
        let lease = LeaseKey { epoch: (place >> 32) as u32, index: self.words[2].load(Ordering::Relaxed), position: place as u32 };
        (count > 0).then(|| (lease, self.words[3].load(Ordering::Acquire), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side_reads_what_is_running() {
        let (agent, fd) = Recorder::create(2).unwrap();
        let executor = Recorder::open(&File::from(fd)).unwrap();
        let lease = LeaseKey { epoch: 1, index: 1 << 40, position: 9 };
        executor.slot(1).start(lease, 5, 1);
        executor.slot(1).task(6);
        assert_eq!(agent.running(), [(lease, 6, 1)]);
        executor.slot(1).idle();
        assert_eq!(agent.running(), []);
    }
}
