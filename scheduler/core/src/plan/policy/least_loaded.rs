//! `least-loaded`: each range goes to the device with the fewest tasks in its queue per task that it runs at once.

use super::even::Even;
use super::{Policy, StageRound};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub struct LeastLoaded;

/// So that a queue of a few tasks on many threads is not 0.
const FINE: u64 = 1024;

impl Policy for LeastLoaded {
    fn name(&self) -> &'static str {
        "least-loaded"
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        let even = Even::of(stage);
        let load = |stage: &StageRound<'_>, place: usize| {
            let slot = stage.slot(&stage.candidates[place]);
            Reverse((slot.used.tasks.saturating_mul(FINE) / slot.parallelism.max(1), place))
        };
        let with_room = (0..stage.candidates.len()).filter(|place| stage.has_room(&stage.candidates[*place]));
        let mut queue: BinaryHeap<Reverse<(u64, usize)>> = with_room.map(|place| load(stage, place)).collect();
        while !stage.is_over() {
            let Some(Reverse((_, place))) = queue.pop() else { return };
            let (candidate, share) = (stage.candidates[place], even.share(stage));
            if stage.offer(&candidate, share) > 0 && stage.has_room(&candidate) {
                queue.push(load(stage, place));
            }
        }
    }
}
