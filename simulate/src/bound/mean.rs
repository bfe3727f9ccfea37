//! What no schedule can beat on average: a lower bound of the mean time from a job's arrival to its end.
//!
//! Two bounds, the higher of which counts. **Alone**: no job ends earlier than it would with all devices for itself. **One machine**: let every
//! kind of work be as fast on each group as the kind that the group suits best. Then all devices together are one machine, a job may have any part of
//! it, and of all ways to share one machine the one that always serves whoever has least left (shortest remaining processing time; Schrage, 1968)
//! has the least mean. What is made faster can only end earlier, so that this is a bound for the devices as they are; where all kinds of work have
//! the same proportions it loses nothing.

use super::{Fleet, Kind};
use crate::rate::Ns;
use crate::scenario::Scenario;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// In seconds; nothing where devices change their speed in the middle, or a job can run nowhere.
pub(super) fn mean_completion(scenario: &Scenario, fleet: &Fleet, work: &[Vec<(Kind, f64)>]) -> Option<f64> {
    if work.is_empty() || !fleet.is_constant() {
        return None;
    }
    // Machine time per nanosecond.
    let threads = fleet.capacity(scenario, 0, 1);
    let alone: f64 = work.iter().map(|stages| stages.iter().map(|(kind, longest)| kind.alone(&threads).max(*longest)).sum::<f64>()).sum();
    let jobs = scenario.jobs.iter().zip(work).map(|(job, stages)| (job.arrives, stages));
    let best = best_shape(work.iter().flatten().map(|(kind, _)| kind), threads.len());
    let one: u128 = least_left_first(jobs.map(|(arrives, stages)| {
        let takes = stages.iter().map(|(kind, _)| Kind { unit_ns: kind.by_shape(&best), units: kind.units }.alone(&threads)).sum::<f64>();
        // Rounded down, and infinity to the largest number: it stays a bound.
        (arrives, takes as Ns)
    }));
    let total = alone.max(one as f64);
    total.is_finite().then(|| total / work.len() as f64 / 1e9)
}

impl Kind {
    /// Until it is done on all these threads.
    fn alone(&self, threads: &[f64]) -> f64 {
        if self.units == 0.0 {
            return 0.0;
        }
        self.units / self.unit_ns.iter().zip(threads).filter_map(|(ns, threads)| ns.map(|ns| threads / ns)).sum::<f64>()
    }

    fn least(&self) -> f64 {
        self.unit_ns.iter().flatten().copied().fold(f64::INFINITY, f64::min)
    }

    fn by_shape(&self, shape: &[f64]) -> Vec<Option<f64>> {
        shape.iter().map(|part| Some(part * self.least())).collect()
    }
}

/// How much longer each group takes than the fastest one, for the kind of work that it suits best.
fn best_shape<'a>(kinds: impl Iterator<Item = &'a Kind>, groups: usize) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; groups];
    for kind in kinds.filter(|kind| kind.units > 0.0) {
        let least = kind.least();
        for (best, ns) in best.iter_mut().zip(&kind.unit_ns) {
            *best = ns.map_or(*best, |ns| best.min(ns / least));
        }
    }
    best
}

/// The sum of all times from arrival to end on one machine that always serves the job with the least left.
fn least_left_first(jobs: impl Iterator<Item = (Ns, Ns)>) -> u128 {
    let mut jobs: Vec<(Ns, Ns)> = jobs.collect();
    jobs.sort_unstable();
    let mut jobs = jobs.into_iter().peekable();
    // What is left, and when it arrived.
    let mut present: BinaryHeap<Reverse<(Ns, Ns)>> = BinaryHeap::new();
    let (mut now, mut total): (Ns, u128) = (0, 0);
    loop {
        let Some(Reverse((left, arrived))) = present.pop() else {
            let Some((arrives, takes)) = jobs.next() else { return total };
            now = now.max(arrives);
            present.push(Reverse((takes, arrives)));
            continue;
        };
        let until = now.saturating_add(left);
        match jobs.next_if(|(arrives, _)| *arrives < until) {
            Some((arrives, takes)) => {
                let served = arrives.saturating_sub(now);
                now = now.max(arrives);
                present.push(Reverse((left - served, arrived)));
                present.push(Reverse((takes, arrives)));
            }
            None => {
                now = until;
                total += u128::from(until - arrived);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_goes_first_and_interrupts_a_longer_one() {
        // By itself; two at once: 3 and 3 + 10; a short one that comes in the middle of a long one; a gap.
        assert_eq!(least_left_first([(5, 7)].into_iter()), 7);
        assert_eq!(least_left_first([(0, 10), (0, 3)].into_iter()), 3 + 13);
        assert_eq!(least_left_first([(0, 10), (4, 3)].into_iter()), 3 + 13);
        assert_eq!(least_left_first([(0, 10), (4, 8)].into_iter()), 10 + 14);
        assert_eq!(least_left_first([(100, 1), (0, 10)].into_iter()), 11);
        assert_eq!(least_left_first([(0, 0), (0, Ns::MAX)].into_iter()), u128::from(Ns::MAX));
    }

    #[test]
    fn no_order_of_two_jobs_is_better() {
        // Against every order without interruption, with arrivals up to when the first one ends.
        for (a, b, arrives) in (1..12u64).flat_map(|a| (1..12).flat_map(move |b| (0..a).map(move |r| (a, b, r)))) {
            let first_come = a + (a - arrives) + b;
            let waited = (arrives + b) + (arrives + b + a - arrives);
            let least = least_left_first([(0, a), (arrives, b)].into_iter());
            assert!(least <= u128::from(first_come).min(u128::from(waited)), "{a} {b} {arrives}: {least}");
        }
    }
}
