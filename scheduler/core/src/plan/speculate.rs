//! Leasing late tasks a second time, so that one slow worker does not hold a job.
//!
//! When a stage has nothing left to lease, an idle device may take tasks that another worker holds, if that worker is suspect (not heard of
//! for a while) or the lease is late: where its cost was predicted, by more than such predictions are off ([`LATE_SPREADS`]); otherwise when
//! it has taken more than [`LATE_FACTOR`] times what the stage's other tasks did. The device that should be done first is taken, of whatever
//! class, if that is before the holder goes on at its present pace (compare Zaharia, Konwinski, Joseph, Katz, Stoica: Improving MapReduce
//! performance in heterogeneous environments, OSDI 2008). The first accepted result of a task wins. After a change of leader nobody is late
//! before there was time to report what was done without one.
//!
//! Copies that turn out to be needless cost at most a tenth of the stage's tasks (and at least one task, or a short stage would be held
//! for ever): every copy is counted against the budget until it has won.

use super::costs::RoundCosts;
use super::{LEASE_NS, MAX_PLACEMENTS, Round, View};
use crate::cost::ORDINARY;
use crate::ids::{JobId, TaskRange, WorkerId};
use crate::job::Job;
use crate::lease::{Held, Lease};
use crate::spec::lease_amount;
use crate::stage::{Stage, TaskState};
use raftwerk_proto::v1::{Placement, placement};
use std::collections::BTreeMap;

/// A lease is late after this many times its expected time: twice is beyond what load and unlike tasks do to an honest estimate.
const LATE_FACTOR: u64 = 2;
/// And this much on top, so that leases of milliseconds are not judged by a hiccup.
const LATE_SLACK_MS: u64 = 500;
/// A predicted lease is late by so many times the mean error of such predictions, but not by less or more than these, in permille.
const LATE_SPREADS: u64 = 3;
const LATE_PERMILLE: (u64, u64) = (250, 1000);
const PREDICTED_SLACK_MS: u64 = 250;
/// One in so many tasks of a stage may be copied in vain.
const BUDGET: u64 = 10;
/// Accepted tasks before a mean is believed; a short stage has fewer.
const SAMPLES: u64 = 10;

/// Tasks that may still be leased a second time.
fn budget(job: &Job, stage: &Stage) -> u64 {
    let spent = stage.speculated.saturating_sub(stage.speculative_wins);
    // Each round of a job has its own.
    let rounds = job.rounds.as_ref().map_or(1, |rounds| u64::from(rounds.current(&job.spec)));
    (stage.tasks().len() / BUDGET).max(1).saturating_mul(rounds).saturating_sub(spent)
}

/// Mean nanoseconds of a task of the stage on one thread of a device of this class, or of any when none of the class has told yet.
/// The mean of all, not the device's own: a device that became slow would excuse itself.
fn mean_ns(job: &Job, stage: u32, class: &str) -> Option<u64> {
    let needed = SAMPLES.min(job.stages.get(stage as usize)?.tasks().len() / 4).max(1);
    let mean = |same_class: bool| {
        let shares = job.shares.iter().filter(|((of, ..), share)| *of == stage && (!same_class || share.class == class));
        let (tasks, busy) = shares.fold((0u64, 0u64), |(t, b), (_, s)| (t.saturating_add(s.tasks), b.saturating_add(s.busy_ns)));
        (tasks >= needed).then(|| (busy / tasks).max(1))
    };
    mean(true).or_else(|| mean(false))
}

/// Means of this round, by job, stage and class: thousands of leases ask for the same few.
pub(super) type Means<'a> = BTreeMap<(JobId, u32, &'a str), Option<u64>>;

/// What all the work out on the lease's device should take, in milliseconds.
fn expected_ms<'a>(view: &View<'a>, means: &mut Means<'a>, lease: &Lease) -> Option<u64> {
    let device = view.state.workers.get(&lease.worker)?.device(lease.device)?;
    let parallelism = u64::from(device.parallelism.max(1));
    let mut mean = |id: JobId, stage: u32| {
        let known = means.entry((id, stage, device.class.as_str()));
        *known.or_insert_with(|| view.state.jobs.get(&id).and_then(|job| mean_ns(job, stage, &device.class)))
    };
    let own = mean(lease.job, lease.stage)?;
    let from = (lease.worker, lease.device, JobId(0), 0);
    let until = (lease.worker, lease.device, JobId(u64::MAX), u32::MAX);
    let mut ns = 0u64;
    for (&(_, _, job, stage), used) in view.state.stage_uses().range(from..=until) {
        let each = mean(job, stage).unwrap_or(own.max(LEASE_NS));
        ns = ns.saturating_add(used.tasks.saturating_mul(each) / parallelism);
    }
    Some((ns / 1_000_000).max(lease.expected_ms))
}

/// By when a lease is late whose cost was predicted, in milliseconds from its grant. What its model needs, not what the device has needed
/// lately: one that became slow would excuse itself. What was known of it at the grant counts.
fn late_by_prediction<'a>(view: &'a View<'a>, costs: &mut RoundCosts<'a>, lease: &Lease) -> Option<u64> {
    let worker = view.state.workers.get(&lease.worker)?;
    let device = worker.device(lease.device)?;
    let (mut ns, mut spread) = (0u64, 0);
    for (_, held) in view.state.leases_of(lease.worker).filter(|(_, held)| held.device == lease.device) {
        let estimate = costs.of(view.state.jobs.get(&held.job)?, held.stage)?.of_model(device, ORDINARY)?;
        ns = ns.saturating_add(estimate.of_tasks(held.tasks.count()) / u64::from(device.parallelism.max(1)));
        spread = spread.max(estimate.spread_permille);
    }
    let expected = (ns / 1_000_000).max(lease.expected_ms);
    let margin = spread.saturating_mul(LATE_SPREADS).clamp(LATE_PERMILLE.0, LATE_PERMILLE.1);
    let late = u128::from(expected) * u128::from(1000 + margin) / 1000;
    Some(u64::try_from(late).unwrap_or(u64::MAX).saturating_add(PREDICTED_SLACK_MS))
}

/// Whether a lease should long have ended, by the plan that granted it. Its device is not counted on meanwhile.
pub(super) fn is_overdue(view: &View<'_>, worker: WorkerId, lease: &Held) -> bool {
    let elapsed = view.now.0.saturating_sub(lease.granted_at.0);
    let late = lease.expected_ms.saturating_mul(LATE_FACTOR).saturating_add(LATE_SLACK_MS);
    lease.expected_ms > 0 && elapsed > late && !view.returning.contains(&worker)
}

/// How long the holder still needs at the pace it has shown: as long again when it has shown nothing.
fn left_ms(view: &View<'_>, lease: &Lease) -> u64 {
    let elapsed = view.now.0.saturating_sub(lease.granted_at.0);
    let (all, done) = (lease.tasks.count(), lease.spent.tasks);
    if done == 0 {
        return elapsed;
    }
    u64::try_from(u128::from(elapsed) * u128::from(all.saturating_sub(done)) / u128::from(done)).unwrap_or(u64::MAX)
}

fn is_late<'a>(view: &'a View<'a>, means: &mut Means<'a>, costs: &mut RoundCosts<'a>, lease: &Lease) -> bool {
    if view.suspects.contains(&lease.worker) {
        return true;
    }
    // The time without a leader is not the worker's; nor is what it did meanwhile known yet.
    if view.returning.contains(&lease.worker) {
        return false;
    }
    let elapsed = view.now.0.saturating_sub(lease.granted_at.0);
    // Cheap first: this is asked for every lease of a stage.
    if elapsed <= PREDICTED_SLACK_MS {
        return false;
    }
    if let Some(late) = late_by_prediction(view, costs, lease) {
        return elapsed > late;
    }
    elapsed > LATE_SLACK_MS
        && expected_ms(view, means, lease)
            .is_some_and(|expected| elapsed > expected.saturating_mul(LATE_FACTOR).saturating_add(LATE_SLACK_MS))
}

impl<'a> Round<'a> {
    pub(super) fn speculate(&mut self, job: &'a Job, stage_index: u32) {
        let stage = &job.stages[stage_index as usize];
        let mut budget = budget(job, stage);
        if stage.leased() == 0 || budget == 0 {
            return;
        }
        let mut late: Vec<(bool, TaskRange, WorkerId, u64)> = Vec::new();
        for (range, state) in stage.tasks().iter() {
            let TaskState::Leased(id) = state else { continue };
            let Some(lease) = self.view.state.leases.get(&id).filter(|l| is_late(self.view, &mut self.means, &mut self.costs, l)) else {
                continue;
            };
            let suspect = self.view.suspects.contains(&lease.worker);
            // A task that may kill its executor does so on one device at a time.
            let left = if suspect { u64::MAX } else { left_ms(self.view, lease) };
            late.extend(stage.suspicions.clean(range).into_iter().map(|clean| (!suspect, clean, lease.worker, left)));
        }
        if late.is_empty() {
            return;
        }
        let spec = &job.spec.stages[stage_index as usize];
        let mut idle = self.devices(spec, Some(job), stage_index);
        idle.retain(|place| self.slots[*place].used.leases == 0);
        // Those nobody hears of first.
        late.sort_by_key(|(heard, range, ..)| (*heard, range.first));
        let amount = lease_amount(spec);
        let longest = if spec.max_lease_tasks == 0 { u64::MAX } else { spec.max_lease_tasks };
        for (_, mut range, holder, left_ms) in late {
            while !range.is_empty() && budget > 0 && self.placements.len() < MAX_PLACEMENTS {
                let Some((at, count)) = self.quickest(&idle, holder, left_ms, job, stage_index, range.count().min(longest).min(budget))
                else {
                    break;
                };
                let place = idle.remove(at);
                let slot = &mut self.slots[place];
                let need = self.costs.need_on(slot, job, stage_index);
                let cost_ns = self.costs.tasks_on(slot, job, stage_index, count);
                let cost_ns = cost_ns.or_else(|| mean_ns(job, stage_index, "").map(|each| each.saturating_mul(count)));
                // From the end: the holder works from the front, and the two should meet, not follow each other.
                let tasks = TaskRange { first: range.end - count, end: range.end };
                range.end = tasks.first;
                budget -= count;
                let amount = need.amount(&amount, count);
                let cost_ns = cost_ns.unwrap_or(count.saturating_mul(LEASE_NS));
                let second = slot.take(placement::Job::Id(job.id.0), stage_index, tasks, &amount, cost_ns);
                self.placements.push(Placement { speculative: true, ..second });
            }
        }
    }

    /// Which of the idle devices takes a second lease, and how many tasks: the one that should be done first, if that is before the holder.
    /// Those of which nothing is known come last.
    fn quickest(&mut self, idle: &[usize], holder: WorkerId, left_ms: u64, job: &'a Job, stage: u32, tasks: u64) -> Option<(usize, u64)> {
        let base = lease_amount(&job.spec.stages[stage as usize]);
        let mut best: Option<(u64, usize, u64)> = None;
        for (at, place) in idle.iter().enumerate() {
            let slot = &self.slots[*place];
            let limit = job.stages[stage as usize].memory_limits.get(&(slot.worker, slot.device)).copied().unwrap_or(u64::MAX);
            let most = self.costs.need_on(slot, job, stage).tasks_within(&base, &slot.capacity, &slot.used).min(limit);
            if slot.worker == holder || most == 0 {
                continue;
            }
            let estimate = self.costs.estimate_on(slot, job, stage);
            let by_time = match estimate {
                Some(estimate) => estimate.tasks_within(LEASE_NS.saturating_mul(slot.parallelism)),
                None => (LEASE_NS.saturating_mul(slot.parallelism) / mean_ns(job, stage, "").unwrap_or(LEASE_NS)).max(1),
            };
            let count = tasks.min(by_time).min(most);
            let rank = match estimate {
                // Compared by what the whole would take.
                Some(estimate) => {
                    let own_ms = estimate.of_tasks(tasks) / slot.parallelism / 1_000_000;
                    if own_ms >= left_ms {
                        continue;
                    }
                    own_ms
                }
                None => u64::MAX,
            };
            if best.is_none_or(|(known, ..)| rank < known) {
                best = Some((rank, at, count));
            }
        }
        best.map(|(_, at, count)| (at, count))
    }
}
