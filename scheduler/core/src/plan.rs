//! A planning round: reads a view, proposes placements. A plan takes effect when it comes back as a command.
//!
//! Jobs are served by priority and by what they and their namespaces have had (`order`), or, of one namespace, the shortest first (`shortest`). A device is given leases until it has [`QUEUE_NS`] of work, in ranges of about
//! [`LEASE_NS`], so that it never waits for the scheduler and never holds much that another could do. Who gets how much of a stage is
//! decided by a [`policy`].
//!
//! A stage that prefers some devices is offered to these first, and to the others when none of them has room ([`PREFER_MS`]). One that begins
//! as a gang gets its devices all together (`gang`).
//!
//! Tasks under suspicion of killing their executor get a device to themselves (`isolate`); what is late at the end of a stage is leased
//! a second time (`speculate`).

mod at_home;
mod costs;
mod gang;
mod isolate;
mod kinds;
mod lent;
mod order;
pub mod policy;
mod ready;
mod shortest;
mod slot;
mod speculate;
mod trade;

pub use ready::Ready;
pub use slot::Slot;

use crate::gang::waits;
use crate::graph::is_beyond_two;
use crate::ids::{JobId, Session, TaskRange, Timestamp, WorkerId};
use crate::job::Job;
use crate::spec::lease_amount;
use crate::state::State;
use costs::RoundCosts;
use kinds::Kinds;
use order::{Claim, Order, Tenant};
use policy::{Candidate, Policy, StageRound};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::{JobSpec, Placement, StageSpec, placement};
use slot::Slots;
use std::collections::{BTreeMap, BTreeSet};
use trade::Trade;

/// Work in one lease: long enough that a round trip is noise, short enough that losing one hurts little.
pub const LEASE_NS: u64 = 300_000_000;
/// Work out on a device: the lease it runs and the next one, so that the next starts without asking.
pub const QUEUE_NS: u64 = 2 * LEASE_NS;
/// Placements of one round; keeps an entry far below 1 MiB.
pub const MAX_PLACEMENTS: usize = 4096;
/// A device that a stage does not prefer gets tasks of it when no preferred one has room, or when the job was given nothing for so long although
/// one had (it learns how fast the device is, say): nothing idles longer for a preference.
pub const PREFER_MS: u64 = 2_000;
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

/// What a planning round proposes for the next entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// To be granted one by one, whatever becomes of the others.
    pub placements: Vec<Placement>,
    /// Steps toward the start of gangs; they come after the placements.
    pub gangs: Vec<Command>,
}

/// Proposes placements for ready tasks. Reads only.
pub fn plan<'a>(view: &'a View<'a>) -> Vec<Placement> {
    propose(view).placements
}

/// The same with what gangs need. Reads only.
pub fn propose<'a>(view: &'a View<'a>) -> Proposal {
    let mut costs = RoundCosts::new(view.state);
    let Order { mut claims, tenants } = order::order(view, &mut costs);
    let mut round = Round {
        view,
        isolated: isolate::isolated(view),
        slots: Slots::default(),
        kinds: None,
        placements: Vec::new(),
        means: BTreeMap::new(),
        tenants,
        tenant: 0,
        looked_at: 0,
        costs,
        gangs: gang::Gangs::new(view),
        unmatched: Vec::new(),
    };
    for level in claims.chunk_by_mut(|a, b| a.priority == b.priority) {
        if let Some(trade) = round.trade(level) {
            round.serve_own(level, &trade);
        } else if level.len() > 1 {
            round.shortest_first(level);
            level.iter().filter(|claim| claim.permille > 0).for_each(|claim| round.serve_share(claim));
        }
        // What is left when everybody has had a share goes to whoever comes first; late tasks come after everybody's ready ones.
        level.iter().for_each(|claim| round.serve(claim, level.len() == 1));
        level.iter().for_each(|claim| round.serve_late(claim));
    }
    for (position, spec) in view.submitted {
        let fresh = Job::new(JobId(0), (*spec).clone(), String::new(), view.state.now);
        round.tenant = round.tenants.len();
        let newcomer = order::newcomer(view, &mut round.costs, &spec.namespace);
        round.tenants.push(newcomer);
        for (index, stage) in fresh.stages.iter().enumerate().filter(|(_, s)| s.open && s.free() > 0) {
            if waits(&spec.stages[index], stage) {
                // Its devices are held when it is there.
                continue;
            }
            let job_ref = placement::Job::SubmittedAt(*position);
            round.place(&job_ref, spec, index as u32, None, Ready::of(stage, view.now, &[]), None, None);
        }
    }
    Proposal { placements: round.placements, gangs: round.gangs.commands }
}

/// The job's own, or the cluster's. A name that this build does not know was accepted by one that does.
fn policy_of(view: &View<'_>, spec: &JobSpec) -> &'static dyn Policy {
    if spec.policy.is_empty() { view.policy } else { policy::policy(&spec.policy).unwrap_or(view.policy) }
}

/// Whether the job's stages have run before: its round is not the first one.
fn runs_again(job: &Job) -> bool {
    job.rounds.as_ref().is_some_and(|rounds| !rounds.ended.is_empty())
}

/// What this round has placed of a stage, in the order of the tasks.
fn placed(placements: &[Placement], job: JobId, stage: u32) -> Vec<TaskRange> {
    let of_stage = |p: &&Placement| p.stage == stage && p.job == Some(placement::Job::Id(job.0));
    let mut placed: Vec<TaskRange> =
        placements.iter().filter(of_stage).filter_map(|p| TaskRange::new(p.first_task, p.task_count)).collect();
    placed.sort_by_key(|range| range.first);
    placed
}

struct Round<'a> {
    view: &'a View<'a>,
    /// Devices that run a task under suspicion now.
    isolated: BTreeSet<(WorkerId, u32)>,
    /// Devices that take work; none before a stage asks for them.
    slots: Slots,
    /// Of all devices there are; found with the slots.
    kinds: Option<Kinds<'a>>,
    placements: Vec<Placement>,
    means: speculate::Means<'a>,
    /// Namespaces with something to run, and whose turn it is.
    tenants: Vec<Tenant<'a>>,
    tenant: usize,
    /// Stages that something was placed of, or could have been.
    looked_at: usize,
    costs: RoundCosts<'a>,
    gangs: gang::Gangs,
    /// Stages for which no device is there: others that want the same need not be looked at.
    unmatched: Vec<&'a StageSpec>,
}

/// Kinds of stages without a device that are remembered in one round.
const MAX_UNMATCHED: usize = 64;

/// Whether the same devices may run both.
fn want_the_same(a: &StageSpec, b: &StageSpec) -> bool {
    let same = a.kernel == b.kernel && a.device == b.device && a.require == b.require && a.memory == b.memory;
    same && is_beyond_two(a) == is_beyond_two(b)
}

impl<'a> Round<'a> {
    fn is_over(&self) -> bool {
        self.looked_at >= MAX_JOBS || self.placements.len() >= MAX_PLACEMENTS
    }

    /// Ready tasks of the job, until it has its share of what was free.
    fn serve_share(&mut self, claim: &Claim<'a>) {
        self.serve_ready(claim, true, Some(claim.permille), None);
    }

    /// Ready tasks on the devices that are the job's after an exchange: a share for each of those that have them in common, then the rest.
    fn serve_own(&mut self, level: &[Claim<'a>], trade: &Trade) {
        for first in [true, false] {
            for ((claim, kind), permille) in level.iter().zip(&trade.kinds).zip(&trade.permille) {
                self.serve_ready(claim, first, first.then_some(*permille), kind.map(|kind| (trade, kind)));
            }
        }
    }

    /// Whatever is ready of it still.
    fn serve(&mut self, claim: &Claim<'a>, first: bool) {
        self.serve_ready(claim, first, None, None);
    }

    /// `own`: only on devices that are its kind's.
    fn serve_ready(&mut self, claim: &Claim<'a>, first: bool, permille: Option<u64>, own: Option<(&Trade, usize)>) {
        self.tenant = claim.namespace;
        for (index, stage) in claim.job.stages.iter().enumerate().filter(|(_, s)| s.open && s.free() > 0) {
            if self.is_over() {
                return;
            }
            let spec = &claim.job.spec.stages[index];
            if self.is_unmatched(spec) {
                continue;
            }
            let index = index as u32;
            let looked_at = self.looked_at + usize::from(first);
            if waits(spec, stage) {
                self.serve_gang(claim.job, index);
                self.looked_at = if self.is_unmatched(spec) { self.looked_at } else { looked_at };
                continue;
            }
            let ready = if first {
                self.isolate(claim.job, index);
                Ready::of(stage, self.view.now, &[])
            } else {
                Ready::of(stage, self.view.now, &placed(&self.placements, claim.job.id, index))
            };
            if ready.left() > 0 {
                let job_ref = placement::Job::Id(claim.job.id.0);
                self.place(&job_ref, &claim.job.spec, index, Some(claim.job), ready, permille, own);
            }
            self.looked_at = if self.is_unmatched(spec) { self.looked_at } else { looked_at };
        }
    }

    /// Whether no device may run the stage, as far as was seen: jobs that wait for one must not stand in the way of those behind them.
    fn is_unmatched(&self, spec: &StageSpec) -> bool {
        self.unmatched.iter().any(|other| want_the_same(other, spec))
    }

    /// A second lease for what is late, of stages with nothing left to lease.
    fn serve_late(&mut self, claim: &Claim<'a>) {
        self.tenant = claim.namespace;
        for (index, stage) in claim.job.stages.iter().enumerate().filter(|(_, s)| s.open) {
            if !self.is_over() && (stage.free() == 0 || Ready::of(stage, self.view.now, &[]).left() == 0) {
                self.speculate(claim.job, index as u32);
            }
        }
    }

    /// Finds the devices that take work, once in the round.
    fn look_at_devices(&mut self) {
        if self.kinds.is_none() {
            let (slots, kinds) = Slots::of(self.view, &mut self.costs, &self.isolated);
            self.slots = slots;
            self.kinds = Some(kinds);
        }
    }

    /// Places of the devices that may run the stage now, in the order of (worker, device).
    fn devices(&mut self, spec: &'a StageSpec, job: Option<&Job>, stage: u32) -> Vec<usize> {
        self.look_at_devices();
        let mut fit = self.kinds.as_ref().map(|kinds| kinds.that_fit(spec)).unwrap_or_default();
        if !fit.contains(&true) && self.unmatched.len() < MAX_UNMATCHED && !self.is_unmatched(spec) {
            self.unmatched.push(spec);
        }
        if let Some((avoided, kinds)) = job.map(|j| &j.stages[stage as usize].avoided).zip(self.kinds.as_ref()) {
            // The memory of these does not suffice for a task.
            fit.iter_mut().enumerate().for_each(|(kind, fits)| *fits &= !avoided.contains(&kinds.device(kind).class));
        }
        let may_run = |slot: &Slot| {
            let key = (slot.worker, slot.device);
            let excluded = job.is_some_and(|j| j.excluded.contains(&slot.worker) || j.excluded_devices.contains(&key));
            let full = spec.partitions > 0 && self.view.full.contains(&slot.worker);
            let barred = slot.reserved || excluded || full;
            fit[slot.kind] && !barred && self.gangs.leave(key, job.map(|j| (j.id, stage)))
        };
        let mut devices: Vec<usize> = self.slots.iter().filter(|(_, slot)| may_run(slot)).map(|(place, _)| place).collect();
        if let Some(more) = self.tenants[self.tenant].devices_left() {
            // Those that work for the namespace already, and as many others as it may have, the least busy ones.
            let tenant = &self.tenants[self.tenant];
            let key = |place: usize| (self.slots[place].worker, self.slots[place].device);
            let mut others: Vec<usize> = devices.iter().copied().filter(|place| !tenant.devices.contains(&key(*place))).collect();
            let is_held = |place: usize| self.gangs.held.contains_key(&key(place));
            others.sort_by_key(|place| (!is_held(*place), !self.is_preferred(spec, key(*place)), self.slots[*place].queued_ns, *place));
            others.truncate(more);
            devices.retain(|place| tenant.devices.contains(&key(*place)) || others.contains(place));
        }
        devices
    }

    /// The number of the job; of one that the entry submits, the one that it gets unless a job before it in the entry is refused.
    fn job_number(&self, job_ref: &placement::Job, job: Option<&Job>) -> u64 {
        let before = || self.view.submitted.iter().take_while(|(position, _)| *job_ref != placement::Job::SubmittedAt(*position)).count();
        job.map_or_else(|| self.view.state.next_job.saturating_add(before() as u64), |job| job.id.0)
    }

    /// `permille`: of the room that the round found, as much as it may take; `None`: all. `own`: only on devices that are its kind's.
    #[expect(clippy::too_many_arguments, reason = "what a stage is and what it may take, each from another hand")]
    fn place(
        &mut self,
        job_ref: &placement::Job,
        of: &'a JobSpec,
        stage: u32,
        job: Option<&'a Job>,
        ready: Ready<'_>,
        permille: Option<u64>,
        own: Option<(&Trade, usize)>,
    ) {
        let (policy, spec) = (policy_of(self.view, of), &of.stages[stage as usize]);
        let mut devices = self.devices(spec, job, stage);
        if let Some((trade, kind)) = own {
            devices.retain(|place| trade.owns(kind, *place));
        }
        let room: u128 = devices.iter().map(|place| u128::from(self.slots[*place].room_ns)).sum();
        let budget_ns = permille.map_or(u64::MAX, |share| u64::try_from(room * u128::from(share) / 1000).unwrap_or(u64::MAX).max(1));
        let before = self.placements.len();
        let so_far = job.and_then(|j| j.stages.get(stage as usize));
        let number = self.job_number(job_ref, job);
        let (view, state, slots) = (self.view, self.view.state, &self.slots);
        let costs = job.and_then(|j| self.costs.of(j, stage)).unwrap_or_else(|| self.costs.of_new(stage, spec));
        let none = Kinds::default();
        let kinds = self.kinds.as_ref().unwrap_or(&none);
        let needs = costs::needs(spec, kinds, costs.units_per_task().unwrap_or(0));
        let limits = job.map(|j| &j.stages[stage as usize].memory_limits);
        let candidate = |place: usize| {
            let slot = &slots[place];
            let estimate = costs.at(slot.at(), kinds);
            let (mut tasks_out, mut lent) = (0, None);
            if estimate.is_none() {
                let used = job.and_then(|j| state.stage_uses().get(&(slot.worker, slot.device, j.id, stage)));
                tasks_out = used.map_or(0, |used| used.tasks);
                lent = costs.lent_to(slot.kind, kinds).map(|lent| lent::estimate(view, lent, slot, job.zip(Some(stage)), tasks_out));
            }
            let limit = limits.and_then(|limits| limits.get(&(slot.worker, slot.device)).copied());
            Candidate {
                place,
                task_ns: estimate.map_or(LEASE_NS, |e| e.task_ns()),
                known: estimate.is_some(),
                estimate,
                lent,
                tasks_out,
                pays_for_launch: kinds.device(slot.kind).class != "cpu",
                is_overdue: slot.is_overdue,
                most: limit.unwrap_or(u64::MAX),
                need: needs[slot.kind],
            }
        };
        let all = devices.into_iter().map(candidate);
        let preferred = spec.prefer.as_ref().map(|prefer| kinds.preferred(prefer));
        let (mut candidates, mut others): (Vec<Candidate>, Vec<Candidate>) = match preferred {
            Some(preferred) => all.partition(|c| preferred[slots[c.place].kind]),
            None => (all.collect(), Vec::new()),
        };
        if candidates.is_empty() {
            std::mem::swap(&mut candidates, &mut others);
        }
        let mut round = StageRound {
            job: *job_ref,
            job_id: job.map(|j| j.id),
            number,
            stage,
            tasks: so_far.map_or(ready.left(), |s| s.tasks().len()),
            leases_so_far: so_far.map_or(0, |s| s.leases),
            spec,
            homes: &state.homes,
            runs_again: job.is_some_and(runs_again),
            amount: lease_amount(spec),
            longest: if spec.max_lease_tasks == 0 { u64::MAX } else { spec.max_lease_tasks },
            candidates,
            ready,
            slots: &mut self.slots,
            placements: &mut self.placements,
            budget_ns,
        };
        // A policy may use up its candidates.
        let first = if others.is_empty() { Vec::new() } else { round.candidates.clone() };
        policy.place(&mut round);
        let waited = job.map_or(0, |j| self.view.now.0.saturating_sub(j.served_at.max(j.submitted_at).0));
        if !others.is_empty() && (waited >= PREFER_MS || first.iter().all(|c| !round.has_room(c))) {
            // A policy may have looked at tasks that it did not lease.
            if let Some((job, so_far)) = job.zip(so_far) {
                round.ready = Ready::of(so_far, self.view.now, &placed(round.placements, job.id, stage));
            }
            round.candidates = others;
            policy.place(&mut round);
        }
        drop(round);
        let used = self.placements[before..].iter().map(|p| (WorkerId(p.worker), p.device));
        self.tenants[self.tenant].begin_on(used);
    }
}
