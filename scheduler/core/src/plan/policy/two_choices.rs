//! `two-choices`: of two devices drawn among those with room, the one with fewer tasks in its queue gets the range (Mitzenmacher, 2001).

use super::draw::Draws;
use super::even::Even;
use super::{Candidate, Policy, StageRound};

pub struct TwoChoices;

impl Policy for TwoChoices {
    fn name(&self) -> &'static str {
        "two-choices"
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        let (even, mut draws) = (Even::of(stage), Draws::of(stage));
        let mut with_room: Vec<Candidate> = stage.candidates.iter().filter(|c| stage.has_room(c)).copied().collect();
        while !stage.is_over() && !with_room.is_empty() {
            let (one, other) = (draws.next(with_room.len()), draws.next(with_room.len()));
            let queued = |place: usize| stage.slot(&with_room[place]).used.tasks;
            let place = if queued(other) < queued(one) { other } else { one };
            let share = even.share(stage);
            if stage.offer(&with_room[place], share) == 0 || !stage.has_room(&with_room[place]) {
                with_room.swap_remove(place);
            }
        }
    }
}
