//! `random`: each range goes to a device drawn among those with room.

use super::draw::Draws;
use super::even::Even;
use super::{Candidate, Policy, StageRound};

pub struct Random;

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        let (even, mut draws) = (Even::of(stage), Draws::of(stage));
        let mut with_room: Vec<Candidate> = stage.candidates.iter().filter(|c| stage.has_room(c)).copied().collect();
        while !stage.is_over() && !with_room.is_empty() {
            let place = draws.next(with_room.len());
            let share = even.share(stage);
            if stage.offer(&with_room[place], share) == 0 || !stage.has_room(&with_room[place]) {
                with_room.swap_remove(place);
            }
        }
    }
}
