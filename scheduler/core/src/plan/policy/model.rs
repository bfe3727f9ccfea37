//! `model`: each device gets a range by what it is expected to take, so that all devices end together.
//!
//! What is left of the stage is shared out by predicted speed and by how long each device is still busy (`share`); a lease is half of a
//! device's share, as long as that is not too much at once (factoring: Hummel, Schonberg, Flynn: Factoring, Communications of the ACM 35,
//! 1992; after guided self-scheduling: Polychronopoulos and Kuck, 1987). So ranges shrink toward the end and a wrong prediction is put
//! right by the next lease. A device of which nothing is known explores with one small lease.

use super::share::{Runner, shares};
use super::{Candidate, Policy, StageRound};
use crate::plan::LEASE_NS;

/// The launch may be at most this much of a lease on a GPU, in percent, unless the stage has no more.
const LAUNCH_PERCENT: u64 = 10;
/// For a launch that takes so long a lease may be longer, up to so many times.
const LONGEST: u64 = 4;

pub struct Model;

impl Policy for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        let mut candidates = stage.candidates.clone();
        // The least busy device chooses first, so that a short stage lands where it starts at once.
        candidates.sort_by_key(|c| {
            let slot = stage.slot(c);
            (slot.queued_ns, slot.worker, slot.device)
        });
        let (known, unknown): (Vec<Candidate>, Vec<Candidate>) = candidates.into_iter().partition(|c| c.estimate.is_some());
        // One that cannot take a lease, or that has not done in time what it was given, is not waited for.
        let mut able: Vec<Candidate> = known.into_iter().filter(|c| stage.fits(c)).collect();
        if able.iter().any(|c| !c.is_overdue) {
            able.retain(|c| !c.is_overdue);
        }
        explore(stage, &unknown, able.iter().all(|c| c.is_overdue));
        let runners: Vec<Runner> = able.iter().filter_map(|c| runner(stage, c)).collect();
        let mut due = shares(&runners, stage.left());
        let mut progress = true;
        while progress && !stage.is_over() {
            progress = false;
            for ((candidate, runner), due) in able.iter().zip(&runners).zip(&mut due) {
                let tasks = lease_tasks(stage, candidate, runner, *due);
                let took = if tasks == 0 { 0 } else { stage.offer(candidate, tasks) };
                *due -= took.min(*due);
                progress |= took > 0;
            }
        }
    }
}

fn runner(stage: &StageRound<'_>, candidate: &Candidate) -> Option<Runner> {
    let slot = stage.slot(candidate);
    Some(Runner { estimate: candidate.estimate?, lanes: slot.parallelism, busy_ns: slot.busy_ns })
}

/// One small lease for each device that has none of the stage: a task for each of its threads, and no more than its part if all were equal.
fn explore(stage: &mut StageRound<'_>, unknown: &[Candidate], alone: bool) {
    let lanes: u64 = unknown.iter().map(|c| stage.slot(c).parallelism).fold(0, u64::saturating_add);
    let left = stage.left();
    for candidate in unknown.iter().filter(|c| c.tasks_out == 0) {
        let own = stage.slot(candidate).parallelism;
        if !alone && left <= own.saturating_mul(2) {
            // The end of a stage is no place to find out that somebody is slow.
            continue;
        }
        let part = u128::from(left) * u128::from(own) / u128::from(lanes.max(1));
        // While nothing is known of anybody, a short stage is best spread over all.
        let part = if alone { u64::try_from(part).unwrap_or(u64::MAX).max(1) } else { own };
        stage.offer(candidate, own.min(part));
    }
}

/// How long the next lease is that takes the device nearer to its due; 0 for none.
fn lease_tasks(stage: &StageRound<'_>, candidate: &Candidate, runner: &Runner, due: u64) -> u64 {
    if due == 0 {
        return 0;
    }
    let estimate = &runner.estimate;
    let within = |ns: u64| estimate.tasks_within(ns.saturating_mul(runner.lanes));
    let tasks = due.div_ceil(2).min(within(LEASE_NS));
    if !candidate.pays_for_launch {
        return tasks;
    }
    let paying = estimate.tasks_that_pay(LAUNCH_PERCENT).min(within(LONGEST * LEASE_NS));
    if tasks >= paying {
        return tasks;
    }
    // A little more than its due if that pays, or all the rest: others would not be done earlier with the difference.
    let whole = paying.min(stage.left());
    if due >= whole / 2 { whole } else { 0 }
}
