//! The same range for everybody: what policies give that do not look at how fast a device is.

use super::StageRound;

/// As many tasks as the average device does in one lease, so that these policies write about as many log entries as the others; fewer toward
/// the end of the stage, where an even share of half of what is left would be fewer.
pub(super) struct Even {
    by_time: u64,
    devices: u64,
}

impl Even {
    pub(super) fn of(stage: &StageRound<'_>) -> Even {
        let devices = (stage.candidates.len() as u64).max(1);
        let all: u128 = stage.candidates.iter().map(|c| u128::from(stage.tasks_by_time(c))).sum();
        Even { by_time: u64::try_from(all / u128::from(devices)).unwrap_or(u64::MAX), devices }
    }

    pub(super) fn share(&self, stage: &StageRound<'_>) -> u64 {
        self.by_time.min(stage.left().div_ceil(2 * self.devices)).max(1)
    }
}
