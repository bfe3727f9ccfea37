//! Ready tasks of one stage during the round: taken from the front, never crossing a gap.

use crate::ids::{TaskRange, Timestamp};
use crate::stage::{Stage, TaskState};
use raftwerk_planted::{self as planted, Bug};

pub struct Ready<'a> {
    intervals: Box<dyn Iterator<Item = TaskRange> + 'a>,
    front: TaskRange,
    left: u64,
}

impl<'a> Ready<'a> {
    /// Tasks that may be leased at `now`, are under no suspicion, and are not among `placed`, ready ones in the order of the tasks.
    pub(super) fn of(stage: &'a Stage, now: Timestamp, placed: &[TaskRange]) -> Self {
        if planted::on(Bug::DoubleGrant) {
            // Whoever checks placements would refuse these; that check is off too.
            let out = || stage.tasks().iter().filter(|(_, s)| matches!(s, TaskState::Ready | TaskState::Leased(_))).map(|(range, _)| range);
            return Ready { intervals: Box::new(out()), front: TaskRange { first: 0, end: 0 }, left: out().map(TaskRange::count).sum() };
        }
        let clean = || stage.free_intervals(now).flat_map(|range| stage.suspicions.clean(range));
        let plain = stage.suspicions.is_empty() && stage.counts().waiting == 0;
        let left = if plain { stage.ready() } else { clean().map(TaskRange::count).sum() };
        let front = TaskRange { first: 0, end: 0 };
        if placed.is_empty() {
            return Ready { intervals: Box::new(clean()), front, left };
        }
        let left = left.saturating_sub(placed.iter().map(|range| range.count()).sum());
        let placed = placed.to_vec();
        Ready { intervals: Box::new(clean().flat_map(move |range| without(range, &placed))), front, left }
    }

    /// Tasks not taken yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The range that the next tasks come from.
    pub fn front(&mut self) -> Option<TaskRange> {
        if self.front.is_empty() {
            self.front = self.intervals.next()?;
        }
        Some(self.front)
    }

    /// The first tasks, `at_most` so many; fewer where the range ends.
    pub(super) fn take(&mut self, at_most: u64) -> Option<TaskRange> {
        let front = self.front()?;
        let count = front.count().min(at_most.max(1));
        self.front.first += count;
        self.left -= count;
        Some(TaskRange { first: front.first, end: front.first + count })
    }

    /// The whole range that the next tasks come from.
    pub(super) fn take_range(&mut self) -> Option<TaskRange> {
        let range = self.front()?;
        self.front.first = range.end;
        self.left -= range.count();
        Some(range)
    }
}

/// The parts of a range outside of all of `placed`.
fn without(range: TaskRange, placed: &[TaskRange]) -> Vec<TaskRange> {
    let mut parts = Vec::new();
    let mut first = range.first;
    for gap in placed.iter().filter(|gap| gap.first < range.end && range.first < gap.end) {
        if first < gap.first {
            parts.push(TaskRange { first, end: gap.first });
        }
        first = first.max(gap.end);
    }
    if first < range.end {
        parts.push(TaskRange { first, end: range.end });
    }
    parts
}
