//! In which order an agent that has no leader asks the schedulers it knows.

use std::collections::VecDeque;

/// Goes through all addresses in turns. Within a turn each is asked once, the leader that was left last: it is the least likely to lead, and yet it
/// may be the only one that ever answers (it was started again, or only the connection broke).
#[derive(Debug, Default)]
pub struct Rotation {
    /// Where the next turn begins, so that one address does not get all first calls.
    begin: usize,
    turn: VecDeque<String>,
}

impl Rotation {
    /// The address to ask now; `None` only when there are none.
    pub fn next(&mut self, addresses: &[String], left: Option<&str>) -> Option<String> {
        self.turn.retain(|address| addresses.contains(address));
        if self.turn.is_empty() {
            self.turn.extend(addresses.iter().cloned());
            self.turn.rotate_left(self.begin % addresses.len().max(1));
            self.begin = self.begin.wrapping_add(1);
        }
        let other = self.turn.iter().position(|address| Some(address.as_str()) != left);
        self.turn.remove(other.unwrap_or(0))
    }

    /// Whom to ask beside `first` when it does not answer soon: the rest of this turn, then everybody else.
    pub fn others(&self, addresses: &[String], left: Option<&str>, first: &str) -> Vec<String> {
        let (later, others): (Vec<&String>, Vec<&String>) = self.turn.iter().partition(|address| Some(address.as_str()) == left);
        let mut order: Vec<String> = Vec::new();
        for address in others.into_iter().chain(later).chain(addresses) {
            if address != first && addresses.contains(address) && !order.contains(address) {
                order.push(address.clone());
            }
        }
        order
    }

    /// These were asked out of turn, and need not be asked again in it.
    pub fn asked(&mut self, addresses: &[String]) {
        self.turn.retain(|address| !addresses.contains(address));
    }

    /// A leader has welcomed this agent: when it is lost, all addresses are worth asking again.
    pub fn found(&mut self) {
        self.turn.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn turn(rotation: &mut Rotation, known: &[String], left: Option<&str>) -> Vec<String> {
        known.iter().map(|_| rotation.next(known, left).expect("an address")).collect()
    }

    #[test]
    fn every_address_is_asked_in_every_turn_and_the_leader_that_was_left_last() {
        for known in [addresses(&["a"]), addresses(&["a", "b"]), addresses(&["a", "b", "c"]), addresses(&["a", "b", "c", "d", "e"])] {
            for left in &known {
                let mut rotation = Rotation::default();
                for _ in 0..7 {
                    let asked = turn(&mut rotation, &known, Some(left));
                    assert_eq!(asked.last(), Some(left), "{asked:?}");
                    let mut sorted = asked.clone();
                    sorted.sort();
                    assert_eq!(sorted, known, "{asked:?}");
                }
            }
        }
    }

    #[test]
    fn a_found_leader_ends_the_turn_so_that_no_address_waits_for_the_one_after() {
        let known = addresses(&["a", "b", "c"]);
        let mut rotation = Rotation::default();
        assert_eq!(rotation.next(&known, None).as_deref(), Some("a"));
        assert_eq!(rotation.next(&known, None).as_deref(), Some("b"));
        rotation.found();
        assert_eq!(turn(&mut rotation, &known, Some("b")), ["c", "a", "b"]);
    }

    #[test]
    fn addresses_that_are_known_no_longer_are_not_asked_and_new_ones_are() {
        let mut rotation = Rotation::default();
        assert_eq!(rotation.next(&addresses(&["a", "b", "c"]), None).as_deref(), Some("a"));
        let now = addresses(&["c", "d"]);
        let asked: Vec<_> = (0..3).filter_map(|_| rotation.next(&now, Some("c"))).collect();
        assert_eq!(asked, ["c", "d", "c"]);
        assert_eq!(rotation.next(&[], None), None);
    }

    #[test]
    fn everybody_else_stands_by_and_who_was_asked_is_not_asked_again_in_the_turn() {
        let known = addresses(&["a", "b", "c"]);
        let mut rotation = Rotation::default();
        assert_eq!(rotation.next(&known, Some("b")).as_deref(), Some("a"));
        assert_eq!(rotation.others(&known, Some("b"), "a"), ["c", "b"]);
        rotation.asked(&addresses(&["c"]));
        assert_eq!(rotation.next(&known, Some("b")).as_deref(), Some("b"));
        assert_eq!(rotation.others(&known, Some("b"), "b"), ["a", "c"], "the last one of a turn has others beside it too");
        assert_eq!(rotation.others(&known, None, "elsewhere"), ["a", "b", "c"]);
    }

    #[test]
    fn turns_begin_at_different_addresses() {
        let (known, mut rotation) = (addresses(&["a", "b", "c"]), Rotation::default());
        let firsts: Vec<_> = (0..3).map(|_| turn(&mut rotation, &known, None)[0].clone()).collect();
        assert_eq!(firsts, ["a", "b", "c"]);
    }
}
