//! `model`: each device gets a range in proportion to its measured speed, shrinking toward the end of the stage (guided self-scheduling:
//! Polychronopoulos and Kuck, 1987), so that all devices finish together.

use super::{Policy, StageRound};

pub struct Model;

impl Policy for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        // Tasks per second of each device and of all together, to share out what is left in proportion.
        let speed = |each: u64, parallelism: u64| (parallelism.saturating_mul(1_000_000_000_000) / each.max(1)).max(1);
        let mut candidates = stage.candidates.clone();
        let total: u128 = candidates.iter().map(|c| u128::from(speed(c.task_ns, stage.slot(c).parallelism))).sum();
        // The least busy device chooses first, so that a short stage lands where it starts at once.
        candidates.sort_by_key(|c| {
            let slot = stage.slot(c);
            (slot.queued_ns, slot.worker, slot.device)
        });
        let mut progress = true;
        while progress && !stage.is_over() {
            progress = false;
            for candidate in &candidates {
                let share = u128::from(stage.left()) * u128::from(speed(candidate.task_ns, stage.slot(candidate).parallelism));
                let guided = u64::try_from(share / (2 * total.max(1))).unwrap_or(u64::MAX).max(1);
                progress |= stage.offer(candidate, stage.tasks_by_time(candidate).min(guided)) > 0;
            }
        }
    }
}
