//! `weighted`: ranges in proportion to a weight that a device has by its class and by how many tasks it runs at once, whatever it shows.

use super::even::Even;
use super::{Policy, StageRound};

pub struct Weighted;

impl Policy for Weighted {
    fn name(&self) -> &'static str {
        "weighted"
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        let even = Even::of(stage);
        let mut candidates = stage.candidates.clone();
        let all: u64 = candidates.iter().map(|c| stage.slot(c).weight).fold(0, u64::saturating_add);
        let mean = (all / (candidates.len() as u64).max(1)).max(1);
        candidates.sort_by_key(|c| {
            let slot = stage.slot(c);
            // In queue against what it is taken to be able to do.
            (u128::from(slot.used.tasks) * u128::from(mean) * 1024 / u128::from(slot.weight.max(1)), slot.worker, slot.device)
        });
        let mut progress = true;
        while progress && !stage.is_over() {
            progress = false;
            for candidate in &candidates {
                let share = even.share(stage).saturating_mul(stage.slot(candidate).weight) / mean;
                progress |= stage.offer(candidate, share.max(1)) > 0;
            }
        }
    }
}
