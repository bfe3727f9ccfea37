//! What a round knows of costs, looked up once per stage: thousands of devices ask for the same few.

use super::{LEASE_NS, Slot};
use crate::cost::{Estimate, StageCosts};
use crate::ids::{JobId, WorkerId};
use crate::job::Job;
use crate::memory::Need;
use crate::state::State;
use crate::worker::{StageUse, Worker};
use raftwerk_proto::v1::{Device, StageSpec};
use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) struct RoundCosts<'a> {
    state: &'a State,
    stages: BTreeMap<(JobId, u32), Rc<StageCosts<'a>>>,
}

impl<'a> RoundCosts<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        RoundCosts { state, stages: BTreeMap::new() }
    }

    pub(super) fn of(&mut self, job: &'a Job, stage: u32) -> Option<Rc<StageCosts<'a>>> {
        let spec = job.spec.stages.get(stage as usize)?;
        let state = self.state;
        let known = self.stages.entry((job.id, stage));
        Some(known.or_insert_with(|| Rc::new(StageCosts::new(&state.costs, &state.workers, Some(job), stage, spec))).clone())
    }

    /// Of a job that is not in the state yet.
    pub(super) fn of_new(&self, stage: u32, spec: &StageSpec) -> Rc<StageCosts<'a>> {
        Rc::new(StageCosts::new(&self.state.costs, &self.state.workers, None, stage, spec))
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
    pub(super) fn left_of(
        &mut self,
        id: WorkerId,
        worker: &Worker,
        device: &Device,
        (job, stage): (JobId, u32),
        used: &StageUse,
    ) -> (u64, u64) {
        let state = self.state;
        let costs = state.jobs.get(&job).and_then(|job| self.of(job, stage));
        let left = used.tasks.saturating_sub(used.done);
        match costs.and_then(|costs| costs.own_or_lent(id, worker, device)) {
            Some(estimate) => {
                let begun = estimate.fixed_ns.saturating_mul(used.leases.saturating_sub(1));
                (estimate.of_tasks(used.tasks).saturating_add(begun), estimate.of_tasks(left).saturating_add(begun))
            }
            None => (used.tasks.saturating_mul(LEASE_NS), left.saturating_mul(LEASE_NS)),
        }
    }
}
