//! `model`: each device gets a range by what it is expected to take, so that all devices end together.
//!
//! What is left of the stage is shared out by predicted speed and by how long each device is still busy (`share`); a lease is half of a
//! device's share, as long as that is not too much at once (factoring: Hummel, Schonberg, Flynn: Factoring, Communications of the ACM 35,
//! 1992; after guided self-scheduling: Polychronopoulos and Kuck, 1987). So ranges shrink toward the end and a wrong prediction is put
//! right by the next lease. A device of which nothing is known explores with one small lease. As soon as others have shown what the stage costs
//! it has a share as if it were like them, which is kept for it: equal devices then share the stage from its first ranges on, whichever reports
//! first. Of that share it gets one short lease until it has shown something itself. A stage too short to explore with leaves devices
//! unknown; so now and then one of its tasks is ventured on one of them.
//!
//! How much a device gets is said before it is said what: in a further round of a job each device is given first what it ran in the round before,
//! which may lie in its memory still.

use super::share::{Runner, shares};
use super::{Candidate, Policy, StageRound};
use crate::cost::{Estimate, Source};
use crate::plan::LEASE_NS;
use crate::ring::place_of;

/// The launch may be at most this much of a lease on a GPU, in percent, unless the stage has no more.
const LAUNCH_PERCENT: u64 = 10;
/// For a launch that takes so long a lease may be longer, up to so many times.
const LONGEST: u64 = 4;
/// The first lease of a device that others of its model speak for: a tenth of an ordinary one, so that little is lost if it is not like them.
const FIRST_NS: u64 = LEASE_NS / 10;

/// Of so many short stages one ventures a task on a device that nothing is known of. What it shows is lent to others of its model and counts
/// for the next stages, so that this ends with the first report; a device that never reports costs no more than this.
const VENTURE: u64 = 8;

pub struct Model;

impl Policy for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn goes_by_cost(&self) -> bool {
        true
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        stage.go_home();
        let candidates = std::mem::take(&mut stage.candidates);
        // One that cannot take a lease, or that has not done in time what it was given, is not waited for.
        let mut able: Vec<&Candidate> = candidates.iter().filter(|c| expected(c).is_some() && stage.fits(c)).collect();
        let alone = able.iter().all(|c| c.is_overdue);
        if !alone {
            able.retain(|c| !c.is_overdue);
        }
        explore(stage, &candidates, alone);
        if !alone {
            venture(stage, &candidates);
        }
        // All that take part have a share; what follows is about those that can take something now.
        let runners: Vec<Runner> = able.iter().filter_map(|c| runner(stage, c)).collect();
        let due = shares(&runners, stage.left());
        let shared = able.iter().zip(&runners).zip(due).filter(|((c, _), due)| *due > 0 && stage.has_room(c));
        let mut takers: Vec<(&Candidate, Runner, u64)> = shared.map(|((c, runner), due)| (*c, *runner, due)).collect();
        // The least busy device chooses first, so that a short stage lands where it starts at once.
        takers.sort_by_key(|(c, ..)| {
            let slot = stage.slot(c);
            (slot.queued_ns, slot.worker, slot.device)
        });
        let mut progress = true;
        while progress && !stage.is_over() {
            progress = false;
            for (candidate, runner, due) in &mut takers {
                let tasks = match candidate.estimate {
                    Some(_) => lease_tasks(stage, candidate, runner, *due),
                    None => first_tasks(candidate, runner, *due),
                };
                let took = if tasks == 0 { 0 } else { stage.offer(candidate, tasks) };
                // The rest of what is lent is kept until the device has shown something.
                *due = if candidate.estimate.is_some() { *due - took.min(*due) } else { 0 };
                progress |= took > 0;
            }
        }
    }
}

/// Its own estimate, or what others speak for.
fn expected(candidate: &Candidate) -> Option<Estimate> {
    candidate.estimate.or(candidate.lent)
}

fn runner(stage: &StageRound<'_>, candidate: &Candidate) -> Option<Runner> {
    let slot = stage.slot(candidate);
    Some(Runner { estimate: expected(candidate)?, lanes: slot.parallelism, busy_ns: slot.busy_ns })
}

/// One small lease for each device that has none of the stage: a task for each of its threads, and no more than its part if all were equal.
fn explore(stage: &mut StageRound<'_>, candidates: &[Candidate], alone: bool) {
    let mut unknown: Vec<&Candidate> = candidates.iter().filter(|c| expected(c).is_none()).collect();
    unknown.sort_by_key(|c| {
        let slot = stage.slot(c);
        (slot.queued_ns, slot.worker, slot.device)
    });
    let lanes: u64 = unknown.iter().map(|c| stage.slot(c).parallelism).fold(0, u64::saturating_add);
    let left = stage.left();
    for candidate in unknown.into_iter().filter(|c| c.tasks_out == 0) {
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

/// A task of a stage that begins and is short, on one idle device that neither itself nor others of its model speak for. If the device is slow, a
/// second lease of the task ends the stage. Which stages: by the numbers of their jobs, so that no memory is needed.
fn venture(stage: &mut StageRound<'_>, candidates: &[Candidate]) {
    let draw = |what: u64| place_of(&[stage.number, u64::from(stage.stage), what]);
    if stage.leases_so_far > 0 || !draw(0).is_multiple_of(VENTURE) {
        return;
    }
    let unknown = |c: &&Candidate| {
        let slot = stage.slot(c);
        let is_silent = c.estimate.is_none() && c.lent.is_none_or(|lent| lent.source == Source::Class);
        let is_idle = slot.used.leases == 0 && !slot.is_overdue && c.tasks_out == 0;
        is_silent && is_idle && stage.left() <= slot.parallelism.saturating_mul(2)
    };
    let unknown: Vec<&Candidate> = candidates.iter().filter(unknown).collect();
    if let Some(candidate) = (draw(1) % (unknown.len() as u64).max(1)).try_into().ok().and_then(|place: usize| unknown.get(place)) {
        stage.offer(candidate, 1);
    }
}

/// The only lease, until it has shown something, of a device that others speak for.
fn first_tasks(candidate: &Candidate, runner: &Runner, due: u64) -> u64 {
    if candidate.tasks_out > 0 || due == 0 {
        return 0;
    }
    let by_time = match runner.estimate.source {
        Source::Peers => runner.estimate.tasks_within(FIRST_NS.saturating_mul(runner.lanes)),
        // Others of its class may be anything: a task for each thread.
        _ => 1,
    };
    by_time.max(runner.lanes).min(due.div_ceil(2).max(runner.lanes)).min(due)
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
