//! Input of tasks that stays on the device for further rounds of their job.
//!
//! Each round goes through the same tasks, mostly in the same order. Were the input that was used longest ago to make room, a job with more
//! input than room would throw away just what it needs next, and find nothing ever. So room is made by what was used neither in this round
//! nor in the one before: its tasks have gone to another device.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Gpu;

/// A quarter of the device's memory, for all jobs together; the rest is for what they compute.
pub(super) const SHARE: u64 = 4;

/// What one job keeps, by the numbers of its tasks.
pub(crate) struct KeptInput<T> {
    entries: BTreeMap<u64, Entry<T>>,
    round: u64,
    /// Of the device: what all jobs keep.
    all: Option<Arc<AtomicU64>>,
}

struct Entry<T> {
    input: Arc<T>,
    bytes: u64,
    /// Round of its last use.
    used: u64,
}

impl<T> Default for KeptInput<T> {
    fn default() -> Self {
        KeptInput { entries: BTreeMap::new(), round: 0, all: None }
    }
}

impl<T> KeptInput<T> {
    pub(crate) fn next_round(&mut self) {
        self.round += 1;
    }

    pub(crate) fn get(&mut self, task: u64) -> Option<Arc<T>> {
        let entry = self.entries.get_mut(&task)?;
        entry.used = self.round;
        Some(entry.input.clone())
    }

    /// Keeps the input of a task where there is room, or where there is some once older input has gone.
    pub(crate) fn put(&mut self, gpu: &Gpu, task: u64, input: Arc<T>, bytes: u64) {
        self.remove(task);
        let all = self.all.get_or_insert_with(|| gpu.kept.clone()).clone();
        let limit = gpu.kept_limit.load(Ordering::Relaxed);
        while all.load(Ordering::Relaxed).saturating_add(bytes) > limit {
            let old = self.entries.iter().filter(|(_, entry)| entry.used + 1 < self.round).min_by_key(|(_, entry)| entry.used);
            let Some(task) = old.map(|(task, _)| *task) else { return };
            self.remove(task);
        }
        all.fetch_add(bytes, Ordering::Relaxed);
        self.entries.insert(task, Entry { input, bytes, used: self.round });
    }

    pub(crate) fn clear(&mut self) {
        while let Some(task) = self.entries.keys().next().copied() {
            self.remove(task);
        }
    }

    fn remove(&mut self, task: u64) {
        if let (Some(entry), Some(all)) = (self.entries.remove(&task), &self.all) {
            all.fetch_sub(entry.bytes, Ordering::Relaxed);
        }
    }
}

impl<T> Drop for KeptInput<T> {
    fn drop(&mut self) {
        self.clear();
    }
}
