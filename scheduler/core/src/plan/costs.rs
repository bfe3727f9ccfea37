//! What a round knows of costs, looked up once per stage and kind of device: thousands of devices ask for the same few.

use super::kinds::Kinds;
use super::{LEASE_NS, Slot};
use crate::cost::{Estimate, Lines, StageCosts};
use crate::ids::{JobId, WorkerId};
use crate::job::Job;
use crate::memory::Need;
use crate::state::State;
use crate::worker::StageUse;
use raftwerk_proto::v1::{Device, StageSpec};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;

pub(super) struct RoundCosts<'a> {
    state: &'a State,
    stages: BTreeMap<(JobId, u32), Rc<KindCosts<'a>>>,
    /// The stage asked for last: devices one after the other mostly hold the same one.
    last: Option<((JobId, u32), Rc<KindCosts<'a>>)>,
}

/// A device as costs see it.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub worker: WorkerId,
    /// On its worker.
    pub device: u32,
    pub kind: usize,
    /// Of its kind's ordinary time; see [`crate::cost::Speed`].
    pub speed_permille: u64,
}

/// Costs of a stage, with what was found for kinds of devices so far.
pub(super) struct KindCosts<'a> {
    costs: StageCosts<'a>,
    lines: RefCell<Vec<Option<Lines>>>,
    lent: RefCell<Vec<Option<Option<Estimate>>>>,
}

impl<'a> Deref for KindCosts<'a> {
    type Target = StageCosts<'a>;

    fn deref(&self) -> &StageCosts<'a> {
        &self.costs
    }
}

impl<'a> KindCosts<'a> {
    fn new(costs: StageCosts<'a>) -> Self {
        KindCosts { costs, lines: RefCell::default(), lent: RefCell::default() }
    }

    /// The same as [`StageCosts::of`].
    pub(super) fn at(&self, at: At, kinds: &Kinds<'a>) -> Option<Estimate> {
        let lines = once(&self.lines, at.kind, || self.costs.lines(kinds.device(at.kind)));
        self.costs.by_lines(&lines, at.worker, at.device, at.speed_permille)
    }

    /// The same as [`StageCosts::lent`].
    pub(super) fn lent_to(&self, kind: usize, kinds: &Kinds<'a>) -> Option<Estimate> {
        once(&self.lent, kind, || self.costs.lent(kinds.device(kind)))
    }

    /// The best that there is for a queue's length: its own, or what is lent.
    pub(super) fn own_or_lent(&self, at: At, kinds: &Kinds<'a>) -> Option<Estimate> {
        self.at(at, kinds).or_else(|| self.lent_to(at.kind, kinds))
    }
}

/// What was found for the kind before, or is found now.
fn once<T: Copy>(found: &RefCell<Vec<Option<T>>>, kind: usize, find: impl FnOnce() -> T) -> T {
    let mut found = found.borrow_mut();
    if found.len() <= kind {
        found.resize(kind + 1, None);
    }
    *found[kind].get_or_insert_with(find)
}

impl<'a> RoundCosts<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        RoundCosts { state, stages: BTreeMap::new(), last: None }
    }

    pub(super) fn of(&mut self, job: &'a Job, stage: u32) -> Option<Rc<KindCosts<'a>>> {
        let spec = job.spec.stages.get(stage as usize)?;
        let state = self.state;
        let known = self.stages.entry((job.id, stage));
        let new = || Rc::new(KindCosts::new(StageCosts::new(&state.costs, &state.workers, Some(job), stage, spec)));
        Some(known.or_insert_with(new).clone())
    }

    /// Of a job that is not in the state yet.
    pub(super) fn of_new(&self, stage: u32, spec: &StageSpec) -> Rc<KindCosts<'a>> {
        Rc::new(KindCosts::new(StageCosts::new(&self.state.costs, &self.state.workers, None, stage, spec)))
    }

    /// Device time of so many tasks there, if anything is known of it.
    pub(super) fn tasks_on(&mut self, slot: &Slot, job: &'a Job, stage: u32, tasks: u64) -> Option<u64> {
        self.estimate_on(slot, job, stage).map(|estimate| estimate.of_tasks(tasks))
    }

    pub(super) fn estimate_on(&mut self, slot: &Slot, job: &'a Job, stage: u32) -> Option<Estimate> {
        let worker = self.state.workers.get(&slot.worker)?;
        self.of(job, stage)?.of(slot.worker, worker, worker.device(slot.device)?)
    }

    /// What of a lease of the stage depends on its length.
    pub(super) fn need_on(&mut self, slot: &Slot, job: &'a Job, stage: u32) -> Need {
        let units = self.of(job, stage).and_then(|costs| costs.units_per_task()).unwrap_or(0);
        let device = self.state.workers.get(&slot.worker).and_then(|w| w.device(slot.device));
        device.zip(job.spec.stages.get(stage as usize)).map_or(Need::default(), |(device, spec)| Need::of(spec, device, units))
    }

    /// Device time of what a device has of a stage: `(all of it, what was not reported yet)`.
    pub(super) fn left_of(&mut self, at: At, kinds: &Kinds<'a>, (job, stage): (JobId, u32), used: &StageUse) -> (u64, u64) {
        if self.last.as_ref().is_none_or(|(known, _)| *known != (job, stage)) {
            let costs = self.state.jobs.get(&job).and_then(|job| self.of(job, stage));
            self.last = costs.map(|costs| ((job, stage), costs));
        }
        let left = used.tasks.saturating_sub(used.done);
        match self.last.as_ref().and_then(|(_, costs)| costs.own_or_lent(at, kinds)) {
            Some(estimate) => {
                let begun = estimate.fixed_ns.saturating_mul(used.leases.saturating_sub(1));
                (estimate.of_tasks(used.tasks).saturating_add(begun), estimate.of_tasks(left).saturating_add(begun))
            }
            None => (used.tasks.saturating_mul(LEASE_NS), left.saturating_mul(LEASE_NS)),
        }
    }
}

/// What of a lease of the stage depends on its length, on each kind of device.
pub(super) fn needs(spec: &StageSpec, kinds: &Kinds<'_>, units_per_task: u64) -> Vec<Need> {
    let of = |device: &Device| Need::of(spec, device, units_per_task);
    (0..kinds.len()).map(|kind| of(kinds.device(kind))).collect()
}
