//! Ready tasks of one stage during the round: taken from the front, never crossing a gap.

use super::at_home::AtHome;
use crate::homes::Device;
use crate::ids::{TaskRange, Timestamp};
use crate::interval_map::IntervalMap;
use crate::stage::{Stage, TaskState};
use raftwerk_planted::{self as planted, Bug};
use std::collections::BTreeSet;

pub struct Ready<'a> {
    intervals: Box<dyn Iterator<Item = TaskRange> + 'a>,
    front: TaskRange,
    left: u64,
    /// Instead of the intervals: by who ran the tasks before.
    at_home: Option<AtHome>,
}

impl<'a> Ready<'a> {
    /// Tasks that may be leased at `now`, are under no suspicion, and are not among `placed`, ready ones in the order of the tasks.
    pub(super) fn of(stage: &'a Stage, now: Timestamp, placed: &[TaskRange]) -> Self {
        if planted::on(Bug::DoubleGrant) {
            // Whoever checks placements would refuse these; that check is off too.
            let out = || stage.tasks().iter().filter(|(_, s)| matches!(s, TaskState::Ready | TaskState::Leased(_))).map(|(range, _)| range);
            let left = out().map(TaskRange::count).sum();
            return Ready { intervals: Box::new(out()), front: TaskRange { first: 0, end: 0 }, left, at_home: None };
        }
        let clean = || stage.free_intervals(now).flat_map(|range| stage.suspicions.clean(range));
        let plain = stage.suspicions.is_empty() && stage.counts().waiting == 0;
        let left = if plain { stage.ready() } else { clean().map(TaskRange::count).sum() };
        let front = TaskRange { first: 0, end: 0 };
        if placed.is_empty() {
            return Ready { intervals: Box::new(clean()), front, left, at_home: None };
        }
        // What is placed already may be out of them for another reason: a suspect is placed alone, a late task is leased.
        let free = |range: &TaskRange| stage.tasks().overlapping(*range).filter(|(_, state)| state.is_free_at(now));
        let taken = |range: &TaskRange| free(range).flat_map(|(part, _)| stage.suspicions.clean(part)).map(TaskRange::count).sum::<u64>();
        let left = left.saturating_sub(placed.iter().map(taken).sum());
        let placed = placed.to_vec();
        Ready { intervals: Box::new(clean().flat_map(move |range| without(range, &placed))), front, left, at_home: None }
    }

    /// From now on each device is given first what it ran before.
    pub(super) fn go_home(&mut self, home: &IntervalMap<Device>, there: &BTreeSet<Device>) {
        if self.at_home.is_none() {
            let left = self.left;
            let ready = std::iter::from_fn(|| self.take_range());
            self.at_home = Some(AtHome::sort(ready, home, there));
            self.left = left;
        }
    }

    /// Tasks for this device, in one piece, `at_most` so many.
    pub(super) fn take_for(&mut self, device: Device, at_most: u64) -> Option<TaskRange> {
        let Some(at_home) = &mut self.at_home else { return self.take(at_most) };
        let tasks = at_home.take(device, at_most.max(1))?;
        self.left = self.left.saturating_sub(tasks.count());
        Some(tasks)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaseId, WorkerId};

    fn range(first: u64, end: u64) -> TaskRange {
        TaskRange { first, end }
    }

    /// A suspect had been placed alone in the same round, so it was counted twice: one task less was left than there were, and taking the last one
    /// counted below nothing.
    #[test]
    fn as_many_are_left_as_can_be_taken_whatever_was_placed() {
        let mut stage = Stage::new(10, 0);
        stage.suspicions.add(range(3, 4), WorkerId(7));
        stage.set(range(8, 9), TaskState::Leased(LeaseId { epoch: 0, index: 1, position: 0 }));
        for placed in [vec![], vec![range(3, 4)], vec![range(8, 9)], vec![range(3, 4), range(0, 2), range(8, 9)], vec![range(2, 6)]] {
            let mut ready = Ready::of(&stage, Timestamp(0), &placed);
            let left = ready.left();
            let taken: u64 = std::iter::from_fn(|| ready.take_range()).map(TaskRange::count).sum();
            assert_eq!((left, ready.left()), (taken, 0), "{placed:?}");
        }
    }
}
