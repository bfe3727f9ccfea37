//! One stage of a job: its tasks as intervals, its tallies, its attempts.
//!
//! ```text
//!            grant                   result of the holder
//!   ready ----------> leased ---------------------------------> accepted
//!     ^                 |                                           |
//!     +-----------------+  lease ended, failure                     |
//!     +-------------------------------------------------------------+  its shuffle data was lost: new generation
//! ```

use crate::ids::{LeaseId, TaskRange, WorkerId};
use crate::interval_map::IntervalMap;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    Ready,
    Leased(LeaseId),
    /// `worker` holds the task's shuffle data; worker 0 when nothing is kept on a worker.
    Accepted {
        worker: WorkerId,
        generation: u32,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    tasks: IntervalMap<TaskState>,
    /// First tasks of the ready intervals, so that planning does not walk the whole map.
    ready_starts: BTreeSet<u64>,
    ready: u64,
    leased: u64,
    accepted: u64,
    /// Which making of this stage's output this is; grows when accepted shuffle data is lost.
    pub generation: u32,
    /// Its inputs are complete, so its tasks may be leased.
    pub open: bool,
    /// Attempts charged to a task.
    pub attempts: BTreeMap<u64, u32>,
    /// Exact sums over accepted tasks, in the order of the kernel's tallies.
    pub tallies: Vec<u128>,
    /// Tasks counted in `tallies` although they run again, because only their shuffle data was lost. Task to one past the last.
    pub counted: IntervalMap<bool>,
    pub failed_attempts: u64,
    pub leases: u64,
    pub fenced: u64,
}

impl Stage {
    pub fn new(tasks: u64, tallies: usize) -> Self {
        Stage::from_parts(IntervalMap::new(tasks, TaskState::Ready), tallies)
    }

    /// A stage with the given task states and everything else at its beginning.
    pub fn from_parts(tasks: IntervalMap<TaskState>, tallies: usize) -> Self {
        let mut stage = Stage {
            counted: IntervalMap::new(tasks.len(), false),
            ready_starts: BTreeSet::new(),
            ready: 0,
            leased: 0,
            accepted: 0,
            generation: 1,
            open: false,
            attempts: BTreeMap::new(),
            tallies: vec![0; tallies],
            failed_attempts: 0,
            leases: 0,
            fenced: 0,
            tasks,
        };
        for (range, state) in stage.tasks.iter() {
            match state {
                TaskState::Ready => {
                    stage.ready += range.count();
                    stage.ready_starts.insert(range.first);
                }
                TaskState::Leased(_) => stage.leased += range.count(),
                TaskState::Accepted { .. } => stage.accepted += range.count(),
            }
        }
        stage
    }

    pub fn tasks(&self) -> &IntervalMap<TaskState> {
        &self.tasks
    }

    pub fn ready(&self) -> u64 {
        self.ready
    }

    pub fn leased(&self) -> u64 {
        self.leased
    }

    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    pub fn is_complete(&self) -> bool {
        self.accepted == self.tasks.len()
    }

    /// Ready intervals in task order.
    pub fn ready_intervals(&self) -> impl Iterator<Item = TaskRange> + '_ {
        let len = self.tasks.len();
        self.ready_starts
            .iter()
            .filter_map(move |&first| self.tasks.overlapping(TaskRange { first, end: len }).next().map(|(range, _)| range))
    }

    pub fn state_of(&self, task: u64) -> Option<TaskState> {
        self.tasks.overlapping(TaskRange { first: task, end: task.checked_add(1)? }).next().map(|(_, state)| state)
    }

    /// Whether every task of the range is ready.
    pub fn all_ready(&self, range: TaskRange) -> bool {
        !range.is_empty() && range.end <= self.tasks.len() && self.tasks.overlapping(range).all(|(_, s)| s == TaskState::Ready)
    }

    /// The parts of `range` that are in exactly this state.
    pub fn parts_in(&self, range: TaskRange, state: TaskState) -> Vec<TaskRange> {
        self.tasks.overlapping(range).filter(|(_, s)| *s == state).map(|(r, _)| r).collect()
    }

    /// Moves a range to a state and keeps counts and the ready index true.
    pub fn set(&mut self, range: TaskRange, state: TaskState) {
        if range.is_empty() || range.end > self.tasks.len() {
            return;
        }
        for (part, old) in self.tasks.overlapping(range) {
            match old {
                TaskState::Ready => self.ready -= part.count(),
                TaskState::Leased(_) => self.leased -= part.count(),
                TaskState::Accepted { .. } => self.accepted -= part.count(),
            }
        }
        match state {
            TaskState::Ready => self.ready += range.count(),
            TaskState::Leased(_) => self.leased += range.count(),
            TaskState::Accepted { .. } => self.accepted += range.count(),
        }
        let touched: Vec<u64> = self.ready_starts.range(range.first..=range.end).copied().collect();
        for start in touched {
            self.ready_starts.remove(&start);
        }
        self.tasks.set(range, state);
        // Re-index the neighbourhood: the interval that ends at or covers the range's start, those inside, and the one after.
        let from = range.first.saturating_sub(1);
        let until = (range.end + 1).min(self.tasks.len());
        let around: Vec<(TaskRange, TaskState)> = self.tasks.overlapping(TaskRange { first: from, end: until }).collect();
        for (part, part_state) in around {
            // The first part may be the cut tail of an interval that is indexed already.
            if part_state == TaskState::Ready && (part.first == 0 || self.state_of(part.first - 1) != Some(TaskState::Ready)) {
                self.ready_starts.insert(part.first);
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
        fn counts_and_ready_index_stay_true(len in 1u64..30, moves in prop::collection::vec((0u64..30, 1u64..10, 0u8..4), 0..60)) {
            let mut stage = Stage::new(len, 0);
            for (first, count, to) in moves {
                let range = TaskRange { first: first.min(len), end: (first + count).min(len) };
                let state = match to { 0 | 1 => TaskState::Ready, 2 => lease(u64::from(to)), _ => TaskState::Accepted { worker: WorkerId(1), generation: 1 } };
                stage.set(range, state);
                prop_assert_eq!(stage.ready() + stage.leased() + stage.accepted(), len);
                let by_walk: Vec<TaskRange> = stage.tasks().iter().filter(|(_, s)| *s == TaskState::Ready).map(|(r, _)| r).collect();
                let by_index: Vec<TaskRange> = stage.ready_intervals().collect();
                prop_assert_eq!(by_index, by_walk.clone());
                prop_assert_eq!(stage.ready(), by_walk.iter().map(|r| r.count()).sum::<u64>());
            }
        }
    }
}
