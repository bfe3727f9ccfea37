//! What is held against tasks, and against workers and their devices.
//!
//! An executor that dies takes every task with it that it was running, and only one of them is to blame. So all of them come under
//! **suspicion**: they are tried again alone, in ever smaller ranges and elsewhere, until the one that kills is left over. A task whose
//! executor died on [`DEATHS_UNTIL_SET_ASIDE`] different workers, or whose attempts are used up, is **set aside**.
//!
//! The other way round, a worker or device that fails again and again while others do the same work is **quarantined** for a time.

use crate::ids::{TaskRange, Timestamp, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// Three machines in a row are no coincidence. With fewer workers at hand the limit of attempts decides.
pub const DEATHS_UNTIL_SET_ASIDE: usize = 3;
/// A job that loses more tasks than this has another trouble than its tasks; it fails. Bounds the evidence in the state too.
pub const MAX_SET_ASIDE: u64 = 1000;
/// Into so many leases a range of suspects is cut, so that one device's batch of thousands is down to one task after a few attempts.
pub const SUSPECTS_CUT: u64 = 64;
/// First pause of a failed task; doubled with every further charge up to [`RETRY_MAX_MS`]. Short, because most failures that go away by
/// themselves (memory, a file just being written) do so soon, and four attempts should not make a person wait.
pub const RETRY_MS: u64 = 100;
pub const RETRY_MAX_MS: u64 = 10_000;
/// Failures of its own fault in a row, without one accepted result in between, that put a worker or device into quarantine.
pub const STRIKES: u32 = 3;
/// First quarantine; doubled every time up to [`QUARANTINE_MAX_MS`]. Long against a retry, short against a night.
pub const QUARANTINE_MS: u64 = 30_000;
pub const QUARANTINE_MAX_MS: u64 = 3_600_000;

/// The pause after the `charged`th charge, or the length of the `charged`th quarantine.
fn doubled(base: u64, charged: u32, most: u64) -> u64 {
    base.saturating_mul(1 << charged.saturating_sub(1).min(20)).min(most)
}

/// When a task may be tried again that has been charged so often.
pub fn retry_at(now: Timestamp, charged: u32) -> Timestamp {
    Timestamp(now.0.saturating_add(doubled(RETRY_MS, charged, RETRY_MAX_MS)))
}

/// Ranges of tasks whose executor died under them, with the workers where it happened. Disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspicions {
    /// First task -> (one past the last, workers).
    ranges: BTreeMap<u64, (u64, BTreeSet<WorkerId>)>,
}

impl Suspicions {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (TaskRange, &BTreeSet<WorkerId>)> + '_ {
        self.ranges.iter().map(|(&first, (end, workers))| (TaskRange { first, end: *end }, workers))
    }

    /// Suspicions that overlap `range`, cut to it.
    pub fn overlapping(&self, range: TaskRange) -> impl Iterator<Item = (TaskRange, &BTreeSet<WorkerId>)> + '_ {
        let from = self.ranges.range(..=range.first).next_back().map_or(range.first, |(&first, _)| first);
        self.ranges
            .range(from..range.end.max(from))
            .map(move |(&first, (end, workers))| (TaskRange { first, end: *end }.intersect(range), workers))
            .filter(|(cut, _)| !cut.is_empty())
    }

    /// The parts of `range` under no suspicion.
    pub fn clean(&self, range: TaskRange) -> Vec<TaskRange> {
        let mut clean = Vec::new();
        let mut first = range.first;
        for (suspect, _) in self.overlapping(range) {
            clean.push(TaskRange { first, end: suspect.first });
            first = suspect.end;
        }
        clean.push(TaskRange { first, end: range.end });
        clean.retain(|r| !r.is_empty());
        clean
    }

    /// An executor died on `worker` while it ran these tasks.
    pub fn add(&mut self, range: TaskRange, worker: WorkerId) {
        if range.is_empty() {
            return;
        }
        let known: Vec<(TaskRange, BTreeSet<WorkerId>)> = self.overlapping(range).map(|(r, w)| (r, w.clone())).collect();
        let fresh = self.clean(range);
        self.clear(range);
        for (part, mut workers) in known {
            workers.insert(worker);
            self.ranges.insert(part.first, (part.end, workers));
        }
        for part in fresh {
            self.ranges.insert(part.first, (part.end, BTreeSet::from([worker])));
        }
    }

    /// These tasks are done with.
    pub fn clear(&mut self, range: TaskRange) {
        let touched: Vec<u64> = self.overlapping(range).map(|(cut, _)| cut.first).collect();
        for task in touched {
            let Some((&first, _)) = self.ranges.range(..=task).next_back() else { continue };
            let Some((end, workers)) = self.ranges.remove(&first) else { continue };
            if first < range.first {
                self.ranges.insert(first, (range.first, workers.clone()));
            }
            if range.end < end {
                self.ranges.insert(range.end, (end, workers));
            }
        }
    }

    /// Rebuilds; `None` when ranges overlap, are out of order or empty.
    pub(crate) fn from_parts(len: u64, parts: impl IntoIterator<Item = (TaskRange, BTreeSet<WorkerId>)>) -> Option<Self> {
        let mut ranges = BTreeMap::new();
        let mut next = 0;
        for (range, workers) in parts {
            if range.first < next || range.is_empty() || range.end > len {
                return None;
            }
            next = range.end;
            ranges.insert(range.first, (range.end, workers));
        }
        Some(Suspicions { ranges })
    }
}

/// Why tasks were set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub tasks: TaskRange,
    pub attempts: u32,
    /// Workers on which their executor died.
    pub workers: BTreeSet<WorkerId>,
    pub message: String,
    pub at: Timestamp,
}

/// What is held against a worker or a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Failures of its own fault since its last accepted result.
    pub strikes: u32,
    /// Quarantines since it was last in order.
    pub times: u32,
    /// End of the latest quarantine; 0 when there was none.
    pub until: Timestamp,
    pub reason: String,
}

impl Standing {
    pub fn is_quarantined(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// One more failure; tells whether it is quarantined by it.
    pub(crate) fn strike(&mut self, now: Timestamp, may_quarantine: bool, reason: &str) -> bool {
        if self.is_quarantined(now) {
            // Leases from before: they tell nothing new.
            return false;
        }
        self.strikes = self.strikes.saturating_add(1);
        self.reason = reason.to_string();
        if self.strikes < STRIKES || !may_quarantine {
            return false;
        }
        self.times = self.times.saturating_add(1);
        self.until = Timestamp(now.0.saturating_add(doubled(QUARANTINE_MS, self.times, QUARANTINE_MAX_MS)));
        // When it ends it is on probation: one more failure and it is back, for twice as long.
        self.strikes = STRIKES - 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn suspicions_behave_like_a_set_of_workers_per_task(steps in prop::collection::vec((0u64..30, 1u64..10, 0u64..4), 0..40)) {
            let mut suspicions = Suspicions::default();
            let mut model = vec![BTreeSet::new(); 40];
            for (first, count, worker) in steps {
                let range = TaskRange { first, end: first + count };
                if worker == 0 {
                    suspicions.clear(range);
                    model[first as usize..range.end as usize].fill(BTreeSet::new());
                } else {
                    suspicions.add(range, WorkerId(worker));
                    model[first as usize..range.end as usize].iter_mut().for_each(|w| { w.insert(WorkerId(worker)); });
                }
                for (task, workers) in model.iter().enumerate() {
                    let task = task as u64;
                    let one = TaskRange { first: task, end: task + 1 };
                    let found = suspicions.overlapping(one).next().map(|(_, w)| w.clone()).unwrap_or_default();
                    prop_assert_eq!(&found, workers, "task {}", task);
                    prop_assert_eq!(suspicions.clean(one).is_empty(), !workers.is_empty());
                }
                let again = Suspicions::from_parts(40, suspicions.iter().map(|(r, w)| (r, w.clone())));
                prop_assert_eq!(again.as_ref(), Some(&suspicions));
            }
        }
    }

    #[test]
    fn a_quarantine_grows_and_ends_in_probation() {
        let mut standing = Standing::default();
        let at = |ms| Timestamp(ms);
        assert!(!standing.strike(at(0), true, "a") && !standing.strike(at(0), true, "b"));
        assert!(standing.strike(at(0), true, "disk full"));
        assert!(standing.is_quarantined(at(29_999)) && !standing.is_quarantined(at(30_000)));
        assert!(!standing.strike(at(1_000), true, "an old lease"));
        assert!(standing.strike(at(30_000), true, "disk full"), "one more is enough");
        assert!(standing.is_quarantined(at(89_999)) && !standing.is_quarantined(at(90_000)));
    }

    #[test]
    fn the_last_worker_is_never_quarantined() {
        let mut standing = Standing::default();
        assert!((0..10).all(|_| !standing.strike(Timestamp(5), false, "x")));
    }
}
