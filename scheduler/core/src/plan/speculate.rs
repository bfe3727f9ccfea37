//! Leasing late tasks a second time, so that one slow worker does not hold a job.
//!
//! When a stage has nothing left to lease, an idle device may take tasks that another worker holds, if that worker is suspect (not heard of
//! for a while) or the lease has taken more than [`LATE_FACTOR`] times what it should. The first accepted result of a task wins. After a change
//! of leader nobody is late before there was time to report what was done without one.
//!
//! Copies that turn out to be needless cost at most a tenth of the stage's tasks (and at least one task, or a short stage would be held
//! for ever): every copy is counted against the budget until it has won.

use super::{LEASE_NS, MAX_PLACEMENTS, Round, View, task_ns};
use crate::ids::{JobId, TaskRange, WorkerId};
use crate::job::Job;
use crate::lease::Lease;
use crate::spec::lease_amount;
use crate::stage::{Stage, TaskState};
use raftwerk_proto::v1::{Placement, placement};
use std::collections::BTreeMap;

/// A lease is late after this many times its expected time: twice is beyond what load and unlike tasks do to an honest estimate.
const LATE_FACTOR: u64 = 2;
/// And this much on top, so that leases of milliseconds are not judged by a hiccup.
const LATE_SLACK_MS: u64 = 500;
/// One in so many tasks of a stage may be copied in vain.
const BUDGET: u64 = 10;
/// Accepted tasks before a mean is believed; a short stage has fewer.
const SAMPLES: u64 = 10;

/// Tasks that may still be leased a second time.
fn budget(stage: &Stage) -> u64 {
    let spent = stage.speculated.saturating_sub(stage.speculative_wins);
    (stage.tasks().len() / BUDGET).max(1).saturating_sub(spent)
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
    for (&(_, _, job, stage), &tasks) in view.state.stage_uses().range(from..=until) {
        let each = mean(job, stage).unwrap_or(own.max(LEASE_NS));
        ns = ns.saturating_add(tasks.saturating_mul(each) / parallelism);
    }
    Some((ns / 1_000_000).max(lease.expected_ms))
}

fn is_late<'a>(view: &View<'a>, means: &mut Means<'a>, lease: &Lease) -> bool {
    if view.suspects.contains(&lease.worker) {
        return true;
    }
    // The time without a leader is not the worker's; nor is what it did meanwhile known yet.
    if view.returning.contains(&lease.worker) {
        return false;
    }
    let elapsed = view.now.0.saturating_sub(lease.granted_at.0);
    // Cheap first: this is asked for every lease of a stage.
    elapsed > LATE_SLACK_MS
        && expected_ms(view, means, lease)
            .is_some_and(|expected| elapsed > expected.saturating_mul(LATE_FACTOR).saturating_add(LATE_SLACK_MS))
}

impl Round<'_> {
    pub(super) fn speculate(&mut self, job: &Job, stage_index: u32) {
        let stage = &job.stages[stage_index as usize];
        let mut budget = budget(stage);
        if stage.leased() == 0 || budget == 0 {
            return;
        }
        let mut late: Vec<(bool, TaskRange, WorkerId)> = Vec::new();
        for (range, state) in stage.tasks().iter() {
            let TaskState::Leased(id) = state else { continue };
            let Some(lease) = self.view.state.leases.get(&id).filter(|l| is_late(self.view, &mut self.means, l)) else { continue };
            let suspect = self.view.suspects.contains(&lease.worker);
            // A task that may kill its executor does so on one device at a time.
            late.extend(stage.suspicions.clean(range).into_iter().map(|clean| (!suspect, clean, lease.worker)));
        }
        if late.is_empty() {
            return;
        }
        let spec = &job.spec.stages[stage_index as usize];
        let mut idle = self.devices(spec, Some(job));
        idle.retain(|place| self.slots[*place].used.leases == 0);
        // Those nobody hears of first.
        late.sort_by_key(|(heard, range, _)| (*heard, range.first));
        let amount = lease_amount(spec);
        let longest = if spec.max_lease_tasks == 0 { u64::MAX } else { spec.max_lease_tasks };
        for (_, mut range, holder) in late {
            while !range.is_empty() && budget > 0 && self.placements.len() < MAX_PLACEMENTS {
                let Some(at) = idle.iter().position(|place| self.slots[*place].worker != holder) else { break };
                let slot = &mut self.slots[idle.remove(at)];
                if !slot.used.fits(&slot.capacity, &amount) {
                    continue;
                }
                let own = task_ns(job, stage_index, slot.worker, slot.device).or_else(|| mean_ns(job, stage_index, ""));
                let each = own.unwrap_or(LEASE_NS);
                let by_time = (LEASE_NS.saturating_mul(slot.parallelism) / each).max(1);
                let count = range.count().min(by_time).min(longest).min(budget);
                // From the end: the holder works from the front, and the two should meet, not follow each other.
                let tasks = TaskRange { first: range.end - count, end: range.end };
                range.end = tasks.first;
                budget -= count;
                let second = slot.take(placement::Job::Id(job.id.0), stage_index, tasks, &amount, each);
                self.placements.push(Placement { speculative: true, ..second });
            }
        }
    }
}
