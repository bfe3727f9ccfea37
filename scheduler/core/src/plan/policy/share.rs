//! How many of a stage's tasks each device should do, so that all end together.

use crate::cost::Estimate;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One device that takes part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runner {
    pub(super) estimate: Estimate,
    /// Tasks that make progress at once.
    pub(super) lanes: u64,
    /// Until it has done what it was given before.
    pub(super) busy_ns: u64,
}

/// Whole tasks are dealt out one by one up to this many; more than these are a liquid.
const DEALT: u64 = 4096;
/// With so many tasks for each runner one more or less is nothing.
const MANY: u64 = 64;
/// Speeds are tasks in 2^40 ns.
const SPEED_BITS: u32 = 40;
/// Above any sensible time, and low enough for sums over all devices there can be.
const MAX_NS: u64 = 1 << 47;
const FS_PER_NS: u128 = 1_000_000;

/// Tasks for each of the runners, in their order; the sum is `tasks` when there is a runner at all.
pub(super) fn shares(runners: &[Runner], tasks: u64) -> Vec<u64> {
    // Few tasks are not divisible: the next one goes to whoever would be done with it first, which may well be busy now.
    let mut counts = vec![0; runners.len()];
    let mut left = tasks;
    if tasks > DEALT {
        left -= pour(runners, &mut counts, tasks);
        if tasks / MANY > runners.len() as u64 {
            // What rounding left is less than one for each, where each has many.
            left -= spread(&mut counts, left);
        }
    }
    // What is left of more than these is of absurd runners.
    let few = left.min(DEALT);
    deal(runners, &mut counts, few);
    if let Some(first) = counts.first_mut() {
        *first += left - few;
    }
    counts
}

/// One more for those that have some, as long as there is any; how many that were.
fn spread(counts: &mut [u64], tasks: u64) -> u64 {
    let takers = counts.iter_mut().filter(|count| **count > 0).take(usize::try_from(tasks).unwrap_or(usize::MAX));
    takers.map(|count| *count += 1).count() as u64
}

fn lanes(runner: &Runner) -> u64 {
    runner.lanes.max(1)
}

/// When it would be done with so many tasks.
fn done_at(runner: &Runner, tasks: u64) -> u64 {
    let own = runner.estimate.task_ns().saturating_mul(tasks.div_ceil(lanes(runner)));
    runner.busy_ns.saturating_add(runner.estimate.fixed_ns / lanes(runner)).saturating_add(own)
}

/// Deals out `tasks` more.
fn deal(runners: &[Runner], counts: &mut [u64], tasks: u64) {
    let first = runners.iter().zip(&*counts).enumerate().map(|(n, (r, count))| Reverse((done_at(r, count + 1), n)));
    let mut next: BinaryHeap<Reverse<(u64, usize)>> = first.collect();
    for _ in 0..tasks {
        let Some(Reverse((_, n))) = next.pop() else { return };
        counts[n] += 1;
        next.push(Reverse((done_at(&runners[n], counts[n] + 1), n)));
    }
}

/// The common end is where the runners together have done it all: those that are busy beyond it take no part. How many tasks it gave away.
fn pour(runners: &[Runner], counts: &mut [u64], tasks: u64) -> u64 {
    let begins = |r: &Runner| r.busy_ns.saturating_add(r.estimate.fixed_ns / lanes(r)).min(MAX_NS);
    let speed =
        |r: &Runner| ((u128::from(lanes(r)) * FS_PER_NS) << SPEED_BITS).div_ceil(r.estimate.task_fs.max(1)).clamp(1, u128::from(u64::MAX));
    let all: Vec<(u64, u64)> = runners.iter().map(|r| (begins(r), u64::try_from(speed(r)).unwrap_or(u64::MAX))).collect();
    let work = u128::from(tasks) << SPEED_BITS;
    // Whoever begins after the end of all leaves, which makes the end earlier, until nobody does: a few passes.
    let (mut end, mut taking) = (u128::from(MAX_NS) + 1, usize::MAX);
    loop {
        let (mut speeds, mut delayed, mut number) = (0u128, 0u128, 0);
        for (begin, speed) in all.iter().filter(|(begin, _)| u128::from(*begin) < end) {
            speeds = speeds.saturating_add(u128::from(*speed));
            delayed = delayed.saturating_add(u128::from(*speed) * u128::from(*begin));
            number += 1;
        }
        if number == taking || number == 0 {
            break;
        }
        (end, taking) = (end.min(work.saturating_add(delayed) / speeds.max(1)), number);
    }
    let mut given = 0;
    for ((begin, speed), count) in all.iter().zip(counts) {
        let part = u128::from(*speed).saturating_mul(end.saturating_sub(u128::from(*begin))) >> SPEED_BITS;
        *count = u64::try_from(part).unwrap_or(u64::MAX).min(tasks - given);
        given += *count;
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Source;
    use proptest::prelude::*;

    fn runner(task_ns: u64, fixed_ns: u64, lanes: u64, busy_ns: u64) -> Runner {
        let estimate = Estimate { fixed_ns, task_fs: u128::from(task_ns) * FS_PER_NS, spread_permille: 0, source: Source::Model };
        Runner { estimate, lanes, busy_ns }
    }

    #[test]
    fn twenty_to_one_is_shared_twenty_to_one() {
        let runners = [runner(1_000, 0, 1, 0), runner(20_000, 0, 1, 0)];
        assert_eq!(shares(&runners, 21_000), [20_000, 1_000]);
        assert_eq!(shares(&runners, 21), [20, 1]);
        assert_eq!(shares(&runners, 1), [1, 0]);
    }

    #[test]
    fn the_last_task_waits_for_the_fast_device_if_that_is_quicker() {
        let busy = [runner(1_000, 0, 1, 5_000), runner(20_000, 0, 1, 0)];
        assert_eq!(shares(&busy, 1), [1, 0]);
        let long_busy = [runner(1_000, 0, 1, 50_000), runner(20_000, 0, 1, 0)];
        assert_eq!(shares(&long_busy, 1), [0, 1]);
    }

    #[test]
    fn a_device_that_is_busy_beyond_the_end_takes_no_part() {
        let runners = [runner(1_000, 0, 1, 0), runner(1_000, 0, 1, 100_000_000_000)];
        assert_eq!(shares(&runners, 10_000), [10_000, 0]);
    }

    #[test]
    fn threads_share_a_device_and_launches_take_their_time() {
        let counts = shares(&[runner(1_000, 0, 4, 0), runner(1_000, 0, 1, 0)], 10_000);
        assert!(counts[0].abs_diff(8_000) <= 1, "{counts:?}");
        let counts = shares(&[runner(1_000, 5_000_000, 1, 0), runner(1_000, 0, 1, 0)], 10_000);
        assert!(counts[0].abs_diff(2_500) <= 1, "{counts:?}");
    }

    proptest! {
        #[test]
        fn every_task_is_given_away_once_and_all_end_together(
            all in prop::collection::vec((1u64..1_000_000, 0u64..1_000_000, 1u64..9, 0u64..1_000_000_000), 1..20),
            tasks in 0u64..1_000_000,
        ) {
            let runners: Vec<Runner> = all.iter().map(|(t, f, l, b)| runner(*t, *f, *l, *b)).collect();
            let counts = shares(&runners, tasks);
            prop_assert_eq!(counts.iter().sum::<u64>(), tasks);
            // Nobody ends later than somebody else would have with one task more.
            let last = runners.iter().zip(&counts).filter(|(_, n)| **n > 0).map(|(r, n)| done_at(r, *n)).max().unwrap_or(0);
            let slack = runners.iter().map(|r| 2 * r.estimate.task_ns()).max().unwrap_or(0) + 1_000_000;
            for (r, n) in runners.iter().zip(&counts) {
                prop_assert!(done_at(r, n + 1) + slack >= last, "{runners:?} {counts:?}");
            }
        }

        #[test]
        fn absurd_runners_do_no_harm(
            all in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u128>(), any::<u64>()), 0..20),
            tasks in prop_oneof![0u64..5000, Just(1_000_000_000_000), any::<u64>()],
        ) {
            let runners: Vec<Runner> = all
                .into_iter()
                .map(|(lanes, busy_ns, task_fs, fixed_ns)| {
                    Runner { estimate: Estimate { fixed_ns, task_fs, spread_permille: 0, source: Source::Kin }, lanes, busy_ns }
                })
                .collect();
            let counts = shares(&runners, tasks);
            prop_assert!(runners.is_empty() || counts.iter().map(|n| u128::from(*n)).sum::<u128>() == u128::from(tasks));
        }
    }
}
