//! One stage of a job: its tasks as intervals, its tallies, its attempts.
//!
//! ```text
//!            grant          second grant                first result of a holder
//!   ready ----------> leased <----------> raced --------------------------------> accepted
//!     ^                 |    one lease of the two ended                               |
//!     |                 |                                                             |
//!     +--(at its time)  |  failure                                                    |
//!     |        waiting <+------> set aside                                            |
//!     +-----------------+  lease ended, failure that is not the task's                |
//!     +-------------------------------------------------------------------------------+  its shuffle data was lost: new generation
//! ```

use crate::counters::BadRecords;
use crate::ids::{LeaseId, TaskRange, Timestamp, WorkerId};
use crate::interval_map::IntervalMap;
use crate::state::State;
use crate::trouble::{Evidence, Suspicions};
use raftwerk_proto::v1::{FailedAttempts, StageCounters};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    Ready,
    /// Ready at this time, after a failure.
    Waiting(Timestamp),
    Leased(LeaseId),
    /// Two live leases on different workers; the second is the speculative one.
    Raced {
        first: LeaseId,
        second: LeaseId,
    },
    /// `worker` holds the task's shuffle data; worker 0 when nothing is kept on a worker.
    Accepted {
        worker: WorkerId,
        /// Who else holds it; worker 0 for nobody.
        copy: WorkerId,
        generation: u32,
    },
    /// Not tried again; [`Stage::evidence`] says why.
    SetAside,
}

impl TaskState {
    pub fn is_held_by(self, id: LeaseId) -> bool {
        match self {
            TaskState::Leased(holder) => holder == id,
            TaskState::Raced { first, second } => first == id || second == id,
            _ => false,
        }
    }

    /// The lease that runs the task beside `id`.
    pub fn rival_of(self, id: LeaseId) -> Option<LeaseId> {
        match self {
            TaskState::Raced { first, second } if first == id => Some(second),
            TaskState::Raced { first, second } if second == id => Some(first),
            _ => None,
        }
    }

    /// May be leased, now or later.
    fn is_free(self) -> bool {
        matches!(self, TaskState::Ready | TaskState::Waiting(_))
    }

    /// May be leased now.
    pub fn is_free_at(self, now: Timestamp) -> bool {
        match self {
            TaskState::Ready => true,
            TaskState::Waiting(until) => until <= now,
            _ => false,
        }
    }
}

/// Tasks in each kind of state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub ready: u64,
    pub waiting: u64,
    /// Held by one lease or by two.
    pub leased: u64,
    pub accepted: u64,
    pub set_aside: u64,
}

impl Counts {
    fn of(&mut self, state: TaskState) -> &mut u64 {
        match state {
            TaskState::Ready => &mut self.ready,
            TaskState::Waiting(_) => &mut self.waiting,
            TaskState::Leased(_) | TaskState::Raced { .. } => &mut self.leased,
            TaskState::Accepted { .. } => &mut self.accepted,
            TaskState::SetAside => &mut self.set_aside,
        }
    }

    /// By a walk over all intervals.
    pub fn walked(tasks: &IntervalMap<TaskState>) -> Counts {
        let mut counts = Counts::default();
        tasks.iter().for_each(|(range, state)| *counts.of(state) += range.count());
        counts
    }

    pub fn sum(self) -> u64 {
        self.ready + self.waiting + self.leased + self.accepted + self.set_aside
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    tasks: IntervalMap<TaskState>,
    /// First tasks of the ready and waiting intervals, so that planning does not walk the whole map.
    free_starts: BTreeSet<u64>,
    counts: Counts,
    /// Which making of this stage's output this is; grows when accepted shuffle data is lost.
    pub generation: u32,
    /// Its inputs are complete, so its tasks may be leased.
    pub open: bool,
    /// Attempts charged to a task.
    pub attempts: IntervalMap<u32>,
    /// Tasks whose executor died under them.
    pub suspicions: Suspicions,
    /// Why tasks were set aside, by their first task.
    pub evidence: BTreeMap<u64, Evidence>,
    /// Exact sums over accepted tasks, in the order of the kernel's tallies.
    pub tallies: Vec<u128>,
    /// What accepted tasks have read and made.
    pub counters: StageCounters,
    /// The first records of the input that could not be read.
    pub bad_records: BadRecords,
    /// Tasks counted in `tallies` and `counters` although they run again, because only their shuffle data was lost. Task to one past the last.
    pub counted: IntervalMap<bool>,
    pub failed_attempts: u64,
    /// The newest of them, by their reasons; the newest last.
    pub failures: Vec<FailedAttempts>,
    pub leases: u64,
    /// Of these, those of rounds that have ended.
    pub earlier_leases: u64,
    pub fenced: u64,
    /// Tasks leased a second time, and how many of them the second lease brought home.
    pub speculated: u64,
    pub speculative_wins: u64,
    /// Longest leases of devices that ran out of memory.
    pub memory_limits: BTreeMap<(WorkerId, u32), u64>,
    /// Classes of devices on which one task alone does not fit into memory.
    pub avoided: BTreeSet<String>,
}

impl Stage {
    pub fn new(tasks: u64, tallies: usize) -> Self {
        Stage::from_parts(IntervalMap::new(tasks, TaskState::Ready), tallies)
    }

    /// A stage with the given task states and everything else at its beginning.
    pub fn from_parts(tasks: IntervalMap<TaskState>, tallies: usize) -> Self {
        let mut stage = Stage {
            counted: IntervalMap::new(tasks.len(), false),
            free_starts: BTreeSet::new(),
            counts: Counts::walked(&tasks),
            generation: 1,
            open: false,
            attempts: IntervalMap::new(tasks.len(), 0),
            suspicions: Suspicions::default(),
            evidence: BTreeMap::new(),
            tallies: vec![0; tallies],
            counters: StageCounters::default(),
            bad_records: BadRecords::new(),
            failed_attempts: 0,
            failures: Vec::new(),
            leases: 0,
            earlier_leases: 0,
            fenced: 0,
            speculated: 0,
            speculative_wins: 0,
            memory_limits: BTreeMap::new(),
            avoided: BTreeSet::new(),
            tasks,
        };
        stage.free_starts = stage.tasks.iter().filter(|(_, s)| s.is_free()).map(|(r, _)| r.first).collect();
        stage
    }

    pub fn tasks(&self) -> &IntervalMap<TaskState> {
        &self.tasks
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Tasks that may be leased now or later.
    pub fn free(&self) -> u64 {
        self.counts.ready + self.counts.waiting
    }

    pub fn ready(&self) -> u64 {
        self.counts.ready
    }

    pub fn leased(&self) -> u64 {
        self.counts.leased
    }

    pub fn accepted(&self) -> u64 {
        self.counts.accepted
    }

    pub fn set_aside(&self) -> u64 {
        self.counts.set_aside
    }

    /// Whether anything was leased of it yet, in the round under way if it has rounds.
    pub fn has_begun(&self) -> bool {
        self.leases > self.earlier_leases
    }

    /// Every task has its result or was set aside.
    pub fn is_complete(&self) -> bool {
        self.counts.accepted + self.counts.set_aside == self.tasks.len()
    }

    /// Intervals that may be leased now, in task order.
    pub fn free_intervals(&self, now: Timestamp) -> impl Iterator<Item = TaskRange> + '_ {
        let len = self.tasks.len();
        self.free_starts
            .iter()
            .filter_map(move |&first| self.tasks.overlapping(TaskRange { first, end: len }).next())
            .filter(move |(_, state)| state.is_free_at(now))
            .map(|(range, _)| range)
    }

    pub fn state_of(&self, task: u64) -> Option<TaskState> {
        self.tasks.overlapping(TaskRange { first: task, end: task.checked_add(1)? }).next().map(|(_, state)| state)
    }

    /// Whether every task of the range exists and its state passes.
    pub fn all(&self, range: TaskRange, passes: impl Fn(TaskState) -> bool) -> bool {
        !range.is_empty() && range.end <= self.tasks.len() && self.tasks.overlapping(range).all(|(_, s)| passes(s))
    }

    /// The parts of `range` that this lease holds, alone or with another.
    pub fn held_by(&self, range: TaskRange, id: LeaseId) -> Vec<(TaskRange, TaskState)> {
        self.tasks.overlapping(range).filter(|(_, s)| s.is_held_by(id)).collect()
    }

    /// Takes what it still holds of `range` from a lease: another lease that runs it too goes on, else it is free again.
    pub fn release(&mut self, range: TaskRange, id: LeaseId) {
        for (part, state) in self.held_by(range, id) {
            self.set(part, state.rival_of(id).map_or(TaskState::Ready, TaskState::Leased));
        }
    }

    /// Whether no device of this one's class is to be tried: its memory does not suffice.
    pub fn avoids(&self, state: &State, worker: WorkerId, device: u32) -> bool {
        let class = || state.workers.get(&worker).and_then(|w| w.device(device)).map(|d| &d.class);
        !self.avoided.is_empty() && class().is_some_and(|class| self.avoided.contains(class))
    }

    /// Charges one attempt to every task of the range.
    pub fn charge(&mut self, range: TaskRange) {
        let before: Vec<(TaskRange, u32)> = self.attempts.overlapping(range).collect();
        for (part, charged) in before {
            self.attempts.set(part, charged.saturating_add(1));
        }
    }

    /// Sets tasks aside; the evidence names them.
    pub fn set_tasks_aside(&mut self, evidence: Evidence) {
        self.set(evidence.tasks, TaskState::SetAside);
        self.suspicions.clear(evidence.tasks);
        self.evidence.insert(evidence.tasks.first, evidence);
    }

    /// All of it once more, for another round: whatever was made counts no more. What devices have shown stays known.
    pub(crate) fn begin_again(&mut self) {
        let all = TaskRange { first: 0, end: self.tasks.len() };
        self.set(all, TaskState::Ready);
        self.generation = self.generation.saturating_add(1);
        self.open = false;
        self.earlier_leases = self.leases;
        self.attempts = IntervalMap::new(self.tasks.len(), 0);
        self.counted = IntervalMap::new(self.tasks.len(), false);
        self.suspicions = Suspicions::default();
        self.evidence.clear();
        self.tallies.iter_mut().for_each(|sum| *sum = 0);
        self.counters = StageCounters::default();
        self.bad_records.clear();
    }

    /// Moves a range to a state and keeps counts and the ready index true.
    pub fn set(&mut self, range: TaskRange, state: TaskState) {
        if range.is_empty() || range.end > self.tasks.len() {
            return;
        }
        let mut counts = self.counts;
        for (part, old) in self.tasks.overlapping(range) {
            *counts.of(old) -= part.count();
        }
        *counts.of(state) += range.count();
        self.counts = counts;
        let touched: Vec<u64> = self.free_starts.range(range.first..=range.end).copied().collect();
        for start in touched {
            self.free_starts.remove(&start);
        }
        self.tasks.set(range, state);
        // Re-index the neighbourhood: the interval that ends at or covers the range's start, those inside, and the one after.
        let from = range.first.saturating_sub(1);
        let until = (range.end + 1).min(self.tasks.len());
        let around: Vec<(TaskRange, TaskState)> = self.tasks.overlapping(TaskRange { first: from, end: until }).collect();
        for (part, part_state) in around {
            // The first part may be the cut tail of an interval that is indexed already.
            if part_state.is_free() && (part.first == 0 || self.state_of(part.first - 1) != Some(part_state)) {
                self.free_starts.insert(part.first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lease(n: u64) -> TaskState {
        TaskState::Leased(LeaseId { epoch: 0, index: n, position: 0 })
    }

    proptest! {
        #[test]
        fn counts_and_free_index_stay_true(len in 1u64..30, moves in prop::collection::vec((0u64..30, 1u64..10, 0u8..7), 0..60)) {
            let mut stage = Stage::new(len, 0);
            for (first, count, to) in moves {
                let range = TaskRange { first: first.min(len), end: (first + count).min(len) };
                let state = match to {
                    0 | 1 => TaskState::Ready,
                    2 => lease(u64::from(to)),
                    3 | 4 => TaskState::Waiting(Timestamp(u64::from(to))),
                    5 => TaskState::SetAside,
                    _ => TaskState::Accepted { worker: WorkerId(1), copy: WorkerId(0), generation: 1 },
                };
                stage.set(range, state);
                prop_assert_eq!(stage.counts(), Counts::walked(stage.tasks()));
                prop_assert_eq!(stage.counts().sum(), len);
                for now in [0, 3, 4] {
                    let by_walk: Vec<TaskRange> = stage.tasks().iter().filter(|(_, s)| s.is_free_at(Timestamp(now))).map(|(r, _)| r).collect();
                    let by_index: Vec<TaskRange> = stage.free_intervals(Timestamp(now)).collect();
                    prop_assert_eq!(by_index, by_walk);
                }
            }
        }
    }
}
