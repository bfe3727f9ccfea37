//! A planning round: reads a view, proposes placements. A plan takes effect when it comes back as a command.
//!
//! Jobs are served in the order of submission. A device is given leases until it has [`QUEUE_NS`] of work, in ranges of about
//! [`LEASE_NS`], so that it never waits for the scheduler and never holds much that another could do. Toward the end of a stage
//! ranges shrink (guided self-scheduling: Polychronopoulos and Kuck, 1987), so that all devices finish together.
//!
//! Tasks under suspicion of killing their executor get a device to themselves (`isolate`); what is late at the end of a stage is leased
//! a second time (`speculate`).

mod isolate;
mod speculate;

use crate::ids::{JobId, Session, TaskRange, Timestamp, WorkerId};
use crate::job::{Job, Phase};
use crate::matching::candidates;
use crate::spec::lease_amount;
use crate::stage::{Stage, TaskState};
use crate::state::State;
use crate::worker::DeviceUse;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{Capacity, JobSpec, Placement, StageSpec, placement};
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
}

/// Expected nanoseconds of one task on one thread of the device, learnt from the job's accepted reports; `None` before the first.
fn task_ns(job: &Job, stage: u32, worker: WorkerId, device: u32) -> Option<u64> {
    let share = job.shares.get(&(stage, worker, device))?;
    (share.tasks > 0).then(|| (share.busy_ns / share.tasks).max(1))
}

/// A device during the round.
struct Slot {
    worker: WorkerId,
    session: Session,
    device: u32,
    parallelism: u64,
    capacity: Capacity,
    used: DeviceUse,
    queued_ns: u64,
    /// A task under suspicion runs here alone, or will as soon as the device is idle.
    reserved: bool,
}

impl Slot {
    fn open(view: &View<'_>, worker: WorkerId, device: u32) -> Option<Self> {
        let session = *view.present.get(&worker).filter(|_| !view.suspects.contains(&worker))?;
        let record = view.state.workers.get(&worker).filter(|w| w.session == session)?;
        let found = record.device(device).filter(|_| record.takes_work(device, view.now))?;
        let parallelism = u64::from(found.parallelism.max(1));
        let mut queued_ns = 0u64;
        for (&(_, _, job, stage), &tasks) in
            view.state.stage_uses().range((worker, device, JobId(0), 0)..=(worker, device, JobId(u64::MAX), u32::MAX))
        {
            let each = view.state.jobs.get(&job).and_then(|j| task_ns(j, stage, worker, device)).unwrap_or(LEASE_NS);
            queued_ns = queued_ns.saturating_add(tasks.saturating_mul(each) / parallelism);
        }
        Some(Slot {
            worker,
            session,
            device,
            parallelism,
            capacity: found.capacity.unwrap_or_default(),
            used: view.state.uses().get(&(worker, device)).copied().unwrap_or_default(),
            queued_ns,
            reserved: false,
        })
    }

    /// Takes these tasks, of which each costs `each` nanoseconds.
    fn take(&mut self, job: placement::Job, stage: u32, tasks: TaskRange, amount: &Capacity, each: u64) -> Placement {
        self.used.add(tasks.count(), amount);
        self.queued_ns = self.queued_ns.saturating_add(tasks.count().saturating_mul(each) / self.parallelism);
        Placement {
            job: Some(job),
            stage,
            first_task: tasks.first,
            task_count: tasks.count(),
            worker: self.worker.0,
            session: self.session.0,
            device: self.device,
            speculative: false,
            expected_ms: (self.queued_ns / 1_000_000).max(1),
        }
    }
}

/// Ready tasks of one stage during the round: taken from the front, never crossing a gap.
struct Ready<'a> {
    intervals: Box<dyn Iterator<Item = TaskRange> + 'a>,
    front: TaskRange,
    left: u64,
}

impl<'a> Ready<'a> {
    /// Tasks that may be leased at `now` and are under no suspicion.
    fn of(stage: &'a Stage, now: Timestamp) -> Self {
        if planted::on(Bug::DoubleGrant) {
            // Whoever checks placements would refuse these; that check is off too.
            let out = || stage.tasks().iter().filter(|(_, s)| matches!(s, TaskState::Ready | TaskState::Leased(_))).map(|(range, _)| range);
            return Ready { intervals: Box::new(out()), front: TaskRange { first: 0, end: 0 }, left: out().map(TaskRange::count).sum() };
        }
        let clean = || stage.free_intervals(now).flat_map(|range| stage.suspicions.clean(range));
        let plain = stage.suspicions.is_empty() && stage.counts().waiting == 0;
        let left = if plain { stage.ready() } else { clean().map(TaskRange::count).sum() };
        Ready { intervals: Box::new(clean()), front: TaskRange { first: 0, end: 0 }, left }
    }

    fn take(&mut self, at_most: u64) -> Option<TaskRange> {
        if self.front.is_empty() {
            self.front = self.intervals.next()?;
        }
        let count = self.front.count().min(at_most.max(1));
        let taken = TaskRange { first: self.front.first, end: self.front.first + count };
        self.front.first += count;
        self.left -= count;
        Some(taken)
    }
}

/// Proposes placements for ready tasks. Reads only.
pub fn plan(view: &View<'_>) -> Vec<Placement> {
    let mut round =
        Round { view, isolated: isolate::isolated(view), slots: BTreeMap::new(), placements: Vec::new(), means: BTreeMap::new() };
    let mut looked_at = 0;
    for job in view.state.active_jobs().filter(|j| j.phase == Phase::Running) {
        for (index, stage) in job.stages.iter().enumerate().filter(|(_, s)| s.open) {
            let job_ref = placement::Job::Id(job.id.0);
            if stage.free() > 0 {
                looked_at += 1;
                round.isolate(job, index as u32);
                let ready = Ready::of(stage, view.now);
                if ready.left > 0 {
                    round.place(&job_ref, index as u32, &job.spec.stages[index], Some(job), ready);
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
            round.place(&job_ref, index as u32, &spec.stages[index], None, Ready::of(stage, view.now));
        }
    }
    round.placements
}

struct Round<'a> {
    view: &'a View<'a>,
    /// Devices that run a task under suspicion now.
    isolated: BTreeSet<(WorkerId, u32)>,
    slots: BTreeMap<(WorkerId, u32), Option<Slot>>,
    placements: Vec<Placement>,
    means: speculate::Means<'a>,
}

impl Round<'_> {
    /// Devices that may run the stage now: (worker, device).
    fn devices(&mut self, spec: &StageSpec, job: Option<&Job>) -> Vec<(WorkerId, u32)> {
        let mut devices = Vec::new();
        for (worker, device) in candidates(self.view.state, spec) {
            if job.is_some_and(|j| j.excluded.contains(&worker) || j.excluded_devices.contains(&(worker, device))) {
                continue;
            }
            if spec.partitions > 0 && self.view.full.contains(&worker) {
                continue;
            }
            let (view, isolated) = (self.view, &self.isolated);
            let slot = self.slots.entry((worker, device)).or_insert_with(|| {
                let slot = Slot::open(view, worker, device)?;
                Some(Slot { reserved: isolated.contains(&(worker, device)), ..slot })
            });
            if slot.as_ref().is_some_and(|s| !s.reserved) {
                devices.push((worker, device));
            }
        }
        devices
    }

    fn place(&mut self, job_ref: &placement::Job, stage: u32, spec: &StageSpec, job: Option<&Job>, mut ready: Ready<'_>) {
        let amount = lease_amount(spec);
        let mut devices: Vec<(WorkerId, u32, u64)> = Vec::new();
        for (worker, device) in self.devices(spec, job) {
            let each = job.and_then(|j| task_ns(j, stage, worker, device)).unwrap_or(LEASE_NS);
            devices.push((worker, device, each));
        }
        // Tasks per second of each device and of all together, to share out what is left in proportion.
        let speed = |each: u64, parallelism: u64| (parallelism.saturating_mul(1_000_000_000_000) / each.max(1)).max(1);
        let mut total_speed: u128 = 0;
        for (worker, device, each) in &devices {
            if let Some(Some(slot)) = self.slots.get(&(*worker, *device)) {
                total_speed += u128::from(speed(*each, slot.parallelism));
            }
        }
        let longest = if spec.max_lease_tasks == 0 { u64::MAX } else { spec.max_lease_tasks };
        // The least busy device chooses first, so that a short stage lands where it starts at once.
        devices.sort_by_key(|(w, d, _)| (self.slots.get(&(*w, *d)).and_then(|s| s.as_ref()).map_or(u64::MAX, |s| s.queued_ns), *w, *d));
        let mut progress = true;
        while ready.left > 0 && progress {
            progress = false;
            for (worker, device, each) in &devices {
                let Some(Some(slot)) = self.slots.get_mut(&(*worker, *device)) else { continue };
                if ready.left == 0 || self.placements.len() >= MAX_PLACEMENTS {
                    return;
                }
                if slot.queued_ns >= QUEUE_NS || !slot.used.fits(&slot.capacity, &amount) {
                    continue;
                }
                let by_time = (LEASE_NS.saturating_mul(slot.parallelism) / each).max(1);
                let share = u128::from(ready.left) * u128::from(speed(*each, slot.parallelism)) / (2 * total_speed.max(1));
                let guided = u64::try_from(share).unwrap_or(u64::MAX).max(1);
                let Some(tasks) = ready.take(by_time.min(guided).min(longest)) else { return };
                progress = true;
                self.placements.push(slot.take(*job_ref, stage, tasks, &amount, *each));
            }
        }
    }
}
