//! Numbers that look random and are the same on every replica: a hash of the job, the stage and the lease in it.

use super::StageRound;
use crate::ring::place_of;

pub(super) struct Draws {
    words: [u64; 3],
    number: u64,
}

impl Draws {
    pub(super) fn of(stage: &StageRound<'_>) -> Draws {
        Draws { words: [stage.number, u64::from(stage.stage), stage.leases_so_far], number: 0 }
    }

    /// One of `0 .. below`.
    pub(super) fn next(&mut self, below: usize) -> usize {
        self.number += 1;
        let [job, stage, lease] = self.words;
        let drawn = place_of(&[job, stage, lease, self.number]);
        ((u128::from(drawn) * below as u128) >> 64) as usize
    }
}
