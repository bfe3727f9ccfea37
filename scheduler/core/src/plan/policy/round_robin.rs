//! `round-robin`: every device in its turn gets the same range; one without room is passed over.

use super::even::Even;
use super::{Policy, StageRound};

pub struct RoundRobin;

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        let (even, devices) = (Even::of(stage), stage.candidates.len() as u64);
        // Leases of the stage so far tell whose turn it is: no memory from round to round is needed. Jobs one after the other begin one
        // device further each, so that short ones do not all go to the first.
        let mut turn = stage.number.wrapping_add(stage.leases_so_far);
        let mut passed = 0;
        while !stage.is_over() && passed < devices {
            let Some(candidate) = stage.candidates.get((turn % devices) as usize).copied() else { return };
            let share = even.share(stage);
            passed = if stage.offer(&candidate, share) > 0 { 0 } else { passed + 1 };
            turn += 1;
        }
    }
}
