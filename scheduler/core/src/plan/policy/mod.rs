//! How the ready tasks of one stage are shared out among the devices that may run them. One policy, one file.
//!
//! A policy decides who gets how much. What may run where, when a device has enough, and what is held back or leased a second time is the
//! same for all of them, so that they can be compared.

mod consistent_hash;
mod draw;
mod even;
mod least_loaded;
mod model;
mod random;
mod round_robin;
mod share;
mod two_choices;
mod weighted;

pub use consistent_hash::ConsistentHash;
pub use least_loaded::LeastLoaded;
pub use model::Model;
pub use random::Random;
pub use round_robin::RoundRobin;
pub use two_choices::TwoChoices;
pub use weighted::Weighted;

use super::ready::Ready;
use super::slot::{Slot, Slots};
use super::{LEASE_NS, MAX_PLACEMENTS, QUEUE_NS};
use crate::cost::Estimate;
use crate::homes::{Device, Homes};
use crate::ids::{JobId, TaskRange};
use crate::interval_map::IntervalMap;
use crate::memory::Need;
use raftwerk_proto::v1::{Capacity, Placement, StageSpec, placement};

/// Shares out the ready tasks of one stage.
///
/// A pure function of the round: no clock, no random source, no memory from round to round. Whatever it leaves is offered again in the next.
pub trait Policy: Sync {
    /// As users write it.
    fn name(&self) -> &'static str;

    fn place(&self, stage: &mut StageRound<'_>);

    /// Whether it goes by what work costs. Jobs that are placed by it exchange devices by what they cost there (`plan/trade`), and of one
    /// namespace the shortest goes first (`plan/shortest`).
    fn goes_by_cost(&self) -> bool {
        false
    }
}

/// All policies; the first is the default.
pub fn policies() -> &'static [&'static dyn Policy] {
    &[&Model, &RoundRobin, &Random, &TwoChoices, &Weighted, &LeastLoaded, &ConsistentHash]
}

/// The policy of this name.
pub fn policy(name: &str) -> Option<&'static dyn Policy> {
    policies().iter().copied().find(|p| p.name() == name)
}

/// A device that may run the stage.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub(super) place: usize,
    /// Expected nanoseconds of one task on one thread of the device; [`LEASE_NS`] before anything is known.
    pub task_ns: u64,
    /// Whether `task_ns` was learnt, not assumed.
    pub known: bool,
    /// The whole of what is known of its costs.
    pub estimate: Option<Estimate>,
    /// What it is taken to cost until it has shown something, where others have.
    pub lent: Option<Estimate>,
    /// Tasks of the stage that it has already, if it has not shown anything of it.
    pub tasks_out: u64,
    /// Beginning a lease costs something here: a GPU's launch.
    pub pays_for_launch: bool,
    /// It should have ended what it has by far.
    pub is_overdue: bool,
    /// Longest lease since it ran out of memory; `u64::MAX` if it did not.
    pub(super) most: u64,
    /// What a lease takes of its memory, as far as that depends on its length.
    pub(super) need: Need,
}

/// What a policy sees of a stage, and its way to place tasks.
pub struct StageRound<'r> {
    pub(super) job: placement::Job,
    /// `None` for a job that the same entry submits.
    pub job_id: Option<JobId>,
    /// The job's number, also of one that the same entry submits: for what must differ from job to job, and nothing else.
    pub number: u64,
    /// Index in the job.
    pub stage: u32,
    /// All of the stage, and leases of it granted so far.
    pub tasks: u64,
    pub leases_so_far: u64,
    pub(super) spec: &'r StageSpec,
    /// Who has read which input before.
    pub(super) homes: &'r Homes,
    /// The stage has run before in this very job: the round is not the first one.
    pub(super) runs_again: bool,
    /// What one lease holds of a device.
    pub amount: Capacity,
    /// Longest range of tasks in one lease.
    pub longest: u64,
    /// Devices that may run the stage, in the order of (worker, device).
    pub candidates: Vec<Candidate>,
    pub(super) ready: Ready<'r>,
    pub(super) slots: &'r mut Slots,
    pub(super) placements: &'r mut Vec<Placement>,
    /// Device time that may still be placed: others are to have some as well.
    pub(super) budget_ns: u64,
}

impl<'r> StageRound<'r> {
    /// Ready tasks not placed yet.
    pub fn left(&self) -> u64 {
        self.ready.left()
    }

    /// The device with what it holds and has been given in this round.
    pub fn slot(&self, candidate: &Candidate) -> &Slot {
        &self.slots[candidate.place]
    }

    /// Whether nothing more can be placed in this round, by whomever.
    pub fn is_over(&self) -> bool {
        self.ready.left() == 0 || self.budget_ns == 0 || self.is_full()
    }

    /// Whether the round has as many placements as one entry takes.
    pub fn is_full(&self) -> bool {
        self.placements.len() >= MAX_PLACEMENTS
    }

    pub fn has_room(&self, candidate: &Candidate) -> bool {
        self.slot(candidate).queued_ns < QUEUE_NS && self.fits(candidate)
    }

    /// Tasks that the device does in [`LEASE_NS`], as far as is known.
    pub fn tasks_by_time(&self, candidate: &Candidate) -> u64 {
        (LEASE_NS.saturating_mul(self.slot(candidate).parallelism) / candidate.task_ns.max(1)).max(1)
    }

    /// Whether the device could hold one more lease, however short, its queue aside.
    pub fn fits(&self, candidate: &Candidate) -> bool {
        self.most(candidate) > 0
    }

    /// The longest lease that its memory, what is known of it, and the spec allow.
    fn most(&self, candidate: &Candidate) -> u64 {
        let slot = self.slot(candidate);
        candidate.need.tasks_within(&self.amount, &slot.capacity, &slot.used).min(candidate.most).min(self.longest)
    }

    /// Leases the first ready tasks to the device, `at_most` so many; how many it took. 0 when the round is over or the device has no room.
    pub fn offer(&mut self, candidate: &Candidate, at_most: u64) -> u64 {
        if self.is_over() || !self.has_room(candidate) {
            return 0;
        }
        let slot = self.slot(candidate);
        let (device, at_most) = ((slot.worker, slot.device), at_most.min(self.most(candidate)));
        let Some(tasks) = self.ready.take_for(device, at_most) else { return 0 };
        self.push(candidate, tasks);
        tasks.count()
    }

    /// Takes the next ready range out of the round, for a policy that leases ranges of its own choice.
    pub fn next_ready(&mut self) -> Option<TaskRange> {
        self.ready.take_range()
    }

    /// Leases these tasks, which [`StageRound::next_ready`] gave, to the device; whether it had room.
    pub fn lease(&mut self, candidate: &Candidate, tasks: TaskRange) -> bool {
        let fits = !self.is_full() && self.has_room(candidate);
        if fits {
            self.push(candidate, tasks);
        }
        fits
    }

    fn push(&mut self, candidate: &Candidate, tasks: TaskRange) {
        let amount = candidate.need.amount(&self.amount, tasks.count());
        let cost_ns = match candidate.estimate.or(candidate.lent) {
            Some(estimate) => estimate.of_tasks(tasks.count()),
            None => candidate.task_ns.saturating_mul(tasks.count()),
        };
        let slot = &mut self.slots[candidate.place];
        self.budget_ns = self.budget_ns.saturating_sub(cost_ns / slot.parallelism);
        self.placements.push(slot.take(self.job, self.stage, tasks, &amount, cost_ns));
    }

    /// Who ran which task of the same input before, as far as that is known.
    pub(super) fn home(&self) -> Option<&'r IntervalMap<Device>> {
        if self.homes.is_empty() { None } else { self.homes.of(self.input(), self.tasks) }
    }

    /// From now on [`StageRound::offer`] gives a device first what it ran in the round before, if the stage has run before.
    pub(super) fn go_home(&mut self) {
        if let Some(home) = self.home().filter(|_| self.runs_again) {
            let there = self.candidates.iter().map(|c| (self.slot(c).worker, self.slot(c).device)).collect();
            self.ready.go_home(home, &there);
        }
    }

    /// A number for what the stage reads: equal for two jobs that read the same.
    pub fn input(&self) -> u64 {
        crate::split::input_number(self.spec, self.job_id)
    }
}
