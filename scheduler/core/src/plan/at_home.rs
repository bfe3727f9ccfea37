//! Ready tasks by the device that ran them last. Each device gets its own first, then those of nobody who is there, and then of what another has left,
//! from the one that has most: who runs how much is decided elsewhere, and nobody waits to go home.

use crate::homes::{Device, NOBODY};
use crate::ids::TaskRange;
use crate::interval_map::IntervalMap;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct AtHome {
    own: BTreeMap<Device, Vec<TaskRange>>,
    nobodys: Vec<TaskRange>,
}

impl AtHome {
    /// `there`: devices that may run the stage.
    pub(super) fn sort(ready: impl Iterator<Item = TaskRange>, home: &IntervalMap<Device>, there: &BTreeSet<Device>) -> AtHome {
        let mut sorted = AtHome::default();
        for range in ready {
            for (piece, device) in home.overlapping(range) {
                if device != NOBODY && there.contains(&device) {
                    sorted.own.entry(device).or_default().push(piece);
                } else {
                    sorted.nobodys.push(piece);
                }
            }
        }
        sorted
    }

    /// Tasks for the device, in one piece: `at_most` so many.
    pub(super) fn take(&mut self, device: Device, at_most: u64) -> Option<TaskRange> {
        if let Some(tasks) = self.own.get_mut(&device).and_then(|own| cut(own, at_most, false)) {
            return Some(tasks);
        }
        if let Some(tasks) = cut(&mut self.nobodys, at_most, false) {
            return Some(tasks);
        }
        let left = |pieces: &Vec<TaskRange>| pieces.iter().map(|piece| piece.count()).sum::<u64>();
        // From the end, so that its owner goes on at the front.
        let most = self.own.values_mut().max_by_key(|pieces| left(pieces))?;
        cut(most, at_most, true)
    }
}

/// From the first piece that is long enough, or else the longest: small pieces are left for the end of the stage, where leases are small.
fn cut(pieces: &mut Vec<TaskRange>, at_most: u64, from_end: bool) -> Option<TaskRange> {
    let fits = pieces.iter().position(|piece| piece.count() >= at_most);
    let place = fits.or_else(|| (0..pieces.len()).max_by_key(|place| (pieces[*place].count(), usize::MAX - place)))?;
    let piece = &mut pieces[place];
    let count = piece.count().min(at_most);
    let tasks = if from_end {
        piece.end -= count;
        TaskRange { first: piece.end, end: piece.end + count }
    } else {
        piece.first += count;
        TaskRange { first: piece.first - count, end: piece.first }
    };
    if piece.is_empty() {
        pieces.remove(place);
    }
    Some(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WorkerId;
    use proptest::prelude::*;

    fn device(number: u64) -> Device {
        (WorkerId(number), 0)
    }

    fn range(first: u64, end: u64) -> TaskRange {
        TaskRange { first, end }
    }

    #[test]
    fn own_tasks_come_first_then_nobodys_then_those_of_whoever_has_most_left() {
        let mut home = IntervalMap::new(40, NOBODY);
        home.set(range(0, 10), device(1));
        home.set(range(10, 25), device(2));
        home.set(range(25, 30), device(3));
        let there = [1, 2, 4].map(device).into();
        let mut ready = AtHome::sort([range(0, 40)].into_iter(), &home, &there);
        assert_eq!(ready.take(device(1), 4), Some(range(0, 4)));
        assert_eq!(ready.take(device(4), 9), Some(range(30, 39)), "device 3 is not there, and ten are nobody's");
        assert_eq!(ready.take(device(4), 9), Some(range(25, 30)));
        assert_eq!(ready.take(device(4), 9), Some(range(39, 40)));
        assert_eq!(ready.take(device(4), 9), Some(range(16, 25)));
        assert_eq!(ready.take(device(2), 9), Some(range(10, 16)));
        assert_eq!(ready.take(device(2), 9), Some(range(4, 10)));
        assert_eq!(ready.take(device(2), 9), None);
    }

    proptest! {
        #[test]
        fn every_ready_task_is_taken_once(
            homes in prop::collection::vec((0u64..50, 1u64..12, 0u64..5), 0..20),
            gaps in prop::collection::vec((0u64..50, 1u64..4), 0..6),
            takes in prop::collection::vec((1u64..6, 1u64..15), 0..80),
        ) {
            let mut home = IntervalMap::new(64, NOBODY);
            homes.iter().for_each(|(first, count, worker)| home.set(range(*first, first + count), device(*worker)));
            let mut ready = IntervalMap::new(64, true);
            gaps.iter().for_each(|(first, count)| ready.set(range(*first, first + count), false));
            let mut left: Vec<bool> = ready.iter().flat_map(|(r, is)| (r.first..r.end).map(move |_| is)).collect();
            let there = [1, 2, 3].map(device).into();
            let mut sorted = AtHome::sort(ready.iter().filter(|(_, is)| *is).map(|(r, _)| r), &home, &there);
            for (worker, at_most) in takes {
                match sorted.take(device(worker), at_most) {
                    Some(tasks) => {
                        prop_assert!(!tasks.is_empty() && tasks.count() <= at_most);
                        for task in tasks.first..tasks.end {
                            prop_assert!(std::mem::take(&mut left[task as usize]), "task {task} was not there");
                        }
                    }
                    None => prop_assert!(left.iter().all(|is| !is)),
                }
            }
        }
    }
}
