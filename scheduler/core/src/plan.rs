//! A planning round: reads a view, proposes placements. A plan takes effect when it comes back as a command.
//!
//! Jobs are served in the order of submission. A device is given leases until it has [`QUEUE_NS`] of work, in ranges of about
//! [`LEASE_NS`], so that it never waits for the scheduler and never holds much that another could do. Who gets how much of a stage is
//! decided by a [`policy`].
//!
//! Tasks under suspicion of killing their executor get a device to themselves (`isolate`); what is late at the end of a stage is leased
//! a second time (`speculate`).

mod isolate;
pub mod policy;
mod ready;
mod slot;
mod speculate;

pub use ready::Ready;
pub use slot::Slot;

use crate::ids::{JobId, Session, Timestamp, WorkerId};
use crate::job::{Job, Phase};
use crate::matching::candidates;
use crate::spec::lease_amount;
use crate::state::State;
use policy::{Candidate, Policy, StageRound};
use raftwerk_proto::v1::{JobSpec, Placement, StageSpec, placement};
use slot::Slots;
use std::collections::{BTreeMap, BTreeSet};

/// Work in one lease: long enough that a round trip is noise, short enough that losing one hurts little.
pub const LEASE_NS: u64 = 300_000_000;
/// Work out on a device: the lease it runs and the next one, so that the next starts without asking.
pub const QUEUE_NS: u64 = 2 * LEASE_NS;
/// Placements of one round; keeps an entry far below 1 MiB.
pub const MAX_PLACEMENTS: usize = 4096;
/// Jobs looked at in one round; those behind wait for these anyway.
const MAX_JOBS: usize = 256;

/// What a planner reads: the applied state, who is present, and jobs that will exist when the plan is applied.
pub struct View<'a> {
    pub state: &'a State,
    /// Workers with an open session.
    pub present: &'a BTreeMap<WorkerId, Session>,
    /// Workers not heard of for a while: they get no new work, and what they hold may be leased a second time.
    pub suspects: &'a BTreeSet<WorkerId>,
    /// Workers that a new leader still waits for, or that came to it a moment ago: what they finished without a leader may be on its way.
    pub returning: &'a BTreeSet<WorkerId>,
    /// Workers without room for more shuffle data: they get no tasks that would leave some.
    pub full: &'a BTreeSet<WorkerId>,
    /// Cluster time that the entry made of this plan will be stamped with: decides which pauses are over.
    pub now: Timestamp,
    /// Jobs submitted by the same entry, with the position of their command.
    pub submitted: &'a [(u32, &'a JobSpec)],
    /// Of the cluster.
    pub policy: &'static dyn Policy,
}

/// Expected nanoseconds of one task on one thread of the device, learnt from the job's accepted reports; `None` before the first.
fn task_ns(job: &Job, stage: u32, worker: WorkerId, device: u32) -> Option<u64> {
    let share = job.shares.get(&(stage, worker, device))?;
    (share.tasks > 0).then(|| (share.busy_ns / share.tasks).max(1))
}

/// Proposes placements for ready tasks. Reads only.
pub fn plan(view: &View<'_>) -> Vec<Placement> {
    let mut round =
        Round { view, isolated: isolate::isolated(view), slots: Slots::default(), placements: Vec::new(), means: BTreeMap::new() };
    let mut looked_at = 0;
    for job in view.state.active_jobs().filter(|j| j.phase == Phase::Running) {
        for (index, stage) in job.stages.iter().enumerate().filter(|(_, s)| s.open) {
            let job_ref = placement::Job::Id(job.id.0);
            if stage.free() > 0 {
                looked_at += 1;
                round.isolate(job, index as u32);
                let ready = Ready::of(stage, view.now);
                if ready.left() > 0 {
                    round.place(&job_ref, policy_of(view, &job.spec), index as u32, &job.spec.stages[index], Some(job), ready);
                    continue;
                }
            }
            round.speculate(job, index as u32);
        }
        if looked_at >= MAX_JOBS || round.placements.len() >= MAX_PLACEMENTS {
            break;
        }
    }
    for (position, spec) in view.submitted {
        let fresh = Job::new(JobId(0), (*spec).clone(), String::new(), view.state.now);
        for (index, stage) in fresh.stages.iter().enumerate().filter(|(_, s)| s.open && s.free() > 0) {
            let job_ref = placement::Job::SubmittedAt(*position);
            round.place(&job_ref, policy_of(view, spec), index as u32, &spec.stages[index], None, Ready::of(stage, view.now));
        }
    }
    round.placements
}

/// The job's own, or the cluster's. A name that this build does not know was accepted by one that does.
fn policy_of(view: &View<'_>, spec: &JobSpec) -> &'static dyn Policy {
    if spec.policy.is_empty() { view.policy } else { policy::policy(&spec.policy).unwrap_or(view.policy) }
}

struct Round<'a> {
    view: &'a View<'a>,
    /// Devices that run a task under suspicion now.
    isolated: BTreeSet<(WorkerId, u32)>,
    slots: Slots,
    placements: Vec<Placement>,
    means: speculate::Means<'a>,
}

impl<'a> Round<'a> {
    /// Places of the devices that may run the stage now, in the order of (worker, device).
    fn devices(&mut self, spec: &StageSpec, job: Option<&Job>) -> Vec<usize> {
        let mut devices = Vec::new();
        for (worker, device) in candidates(self.view.state, spec) {
            if job.is_some_and(|j| j.excluded.contains(&worker) || j.excluded_devices.contains(&(worker, device))) {
                continue;
            }
            if spec.partitions > 0 && self.view.full.contains(&worker) {
                continue;
            }
            let isolated = &self.isolated;
            let found = self.slots.find(self.view, worker, device, || isolated.contains(&(worker, device)));
            devices.extend(found.filter(|place| !self.slots[*place].reserved));
        }
        devices
    }

    fn place(
        &mut self,
        job_ref: &placement::Job,
        policy: &'static dyn Policy,
        stage: u32,
        spec: &StageSpec,
        job: Option<&Job>,
        ready: Ready<'_>,
    ) {
        let devices = self.devices(spec, job);
        let so_far = job.and_then(|j| j.stages.get(stage as usize));
        let slots = &self.slots;
        let candidate = |place: usize| {
            let learnt = job.and_then(|j| task_ns(j, stage, slots[place].worker, slots[place].device));
            Candidate { place, task_ns: learnt.unwrap_or(LEASE_NS), known: learnt.is_some() }
        };
        let candidates = devices.into_iter().map(candidate).collect();
        policy.place(&mut StageRound {
            job: *job_ref,
            job_id: job.map(|j| j.id),
            stage,
            tasks: so_far.map_or(ready.left(), |s| s.tasks().len()),
            leases_so_far: so_far.map_or(0, |s| s.leases),
            spec,
            amount: lease_amount(spec),
            longest: if spec.max_lease_tasks == 0 { u64::MAX } else { spec.max_lease_tasks },
            candidates,
            ready,
            slots: &mut self.slots,
            placements: &mut self.placements,
        });
    }
}
