//! Grants leases. A plan was made on an earlier state, so every placement is checked again: a stale one is normal and skipped.

use super::{Entry, OWN_RULES, Outcome, SHARES};
use crate::cost::{Spent, units_per_task};
use crate::gang;
use crate::ids::{JobId, LeaseId, Session, TaskRange, WorkerId};
use crate::job::Phase;
use crate::lease::Lease;
use crate::matching::device_fits;
use crate::memory::Need;
use crate::spec::lease_amount;
use crate::stage::TaskState;
use crate::state::State;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{GrantLeases, Placement, placement};
use std::collections::BTreeSet;

impl State {
    pub(super) fn grant_leases(&mut self, grant: GrantLeases, entry: &mut Entry) -> Outcome {
        let mut leases = Vec::with_capacity(grant.placements.len());
        let mut stale = 0;
        for placement in grant.placements {
            match self.lease_for(&placement, false, entry) {
                Some(lease) => leases.push(self.enter_lease(lease, entry)),
                None => stale += 1,
            }
        }
        if entry.format >= SHARES {
            self.bound_credit_of(&leases);
        }
        Outcome::Granted { leases, stale }
    }

    fn bound_credit_of(&mut self, leases: &[LeaseId]) {
        let jobs: BTreeSet<JobId> = leases.iter().filter_map(|id| self.leases.get(id)).map(|lease| lease.job).collect();
        let names = jobs.iter().filter_map(|job| self.jobs.get(job)).map(|job| job.spec.namespace.clone()).collect();
        self.bound_credit(&names);
    }

    /// The lease that the placement asks for, if it may be granted now; `starts_gang`: as one of those with which a stage begins.
    pub(super) fn lease_for(&self, placement: &Placement, starts_gang: bool, entry: &Entry) -> Option<Lease> {
        let job_id = match placement.job.as_ref()? {
            placement::Job::Id(id) => JobId(*id),
            placement::Job::SubmittedAt(position) => entry.jobs_by_command.get(*position as usize).copied().flatten()?,
        };
        let (worker_id, session) = (WorkerId(placement.worker), Session(placement.session));
        let tasks = TaskRange::new(placement.first_task, placement.task_count)?;

        let worker = self.workers.get(&worker_id).filter(|w| !w.lost && w.session == session)?;
        let device = worker.device(placement.device)?;
        let job = self.jobs.get(&job_id).filter(|j| j.phase == Phase::Running)?;
        let spec = job.spec.stages.get(placement.stage as usize)?;
        let stage = job.stages.get(placement.stage as usize)?;
        let speculative = placement.speculative && entry.format >= OWN_RULES;
        let grantable = stage.all(tasks, |state| match state {
            // A copy is of no use beside the original: both would go with the same machine.
            TaskState::Leased(holder) if speculative => self.leases.get(&holder).is_some_and(|l| l.worker != worker_id),
            state => !speculative && state.is_free_at(self.now),
        });
        let excluded = job.excluded.contains(&worker_id) || job.excluded_devices.contains(&(worker_id, placement.device));
        let held_back = !starts_gang && (gang::waits(spec, stage) || self.holder_of((worker_id, placement.device)).is_some());
        if excluded
            || held_back
            || stage.avoids(self, worker_id, placement.device)
            || !stage.open
            || !(grantable || planted::on(Bug::DoubleGrant))
            || !device_fits(spec, worker, device)
            || !worker.takes_work(placement.device, self.now)
        {
            return None;
        }
        let units = if spec.memory.is_some() { units_per_task(Some(job), placement.stage, spec).unwrap_or(0) } else { 0 };
        let amount = Need::of(spec, device, units).amount(&lease_amount(spec), tasks.count());
        let used = self.uses.get(&(worker_id, placement.device)).copied().unwrap_or_default();
        if !used.fits(&device.capacity.unwrap_or_default(), &amount) {
            return None;
        }

        Some(Lease {
            job: job_id,
            stage: placement.stage,
            generation: stage.generation,
            tasks,
            worker: worker_id,
            session,
            device: placement.device,
            granted_at: self.now,
            amount,
            speculative,
            expected_ms: if entry.format >= OWN_RULES { placement.expected_ms } else { 0 },
            spent: Spent::default(),
        })
    }

    /// Grants a lease that was found to be possible in the present state.
    pub(super) fn enter_lease(&mut self, lease: Lease, entry: &mut Entry) -> LeaseId {
        let id = LeaseId { epoch: self.epoch, index: entry.index, position: entry.next_lease };
        if !planted::on(Bug::ReuseLeaseId) {
            entry.next_lease += 1;
        }
        if let Some(stage) = self.jobs.get_mut(&lease.job).and_then(|j| j.stages.get_mut(lease.stage as usize)) {
            let before: Vec<(TaskRange, TaskState)> = stage.tasks().overlapping(lease.tasks).collect();
            for (part, state) in before {
                match state {
                    TaskState::Leased(first) => stage.set(part, TaskState::Raced { first, second: id }),
                    _ => stage.set(part, TaskState::Leased(id)),
                }
            }
            stage.leases += 1;
            if lease.speculative {
                stage.speculated = stage.speculated.saturating_add(lease.tasks.count());
            }
        }
        if entry.format >= SHARES
            && let Some(job) = self.jobs.get_mut(&lease.job)
        {
            job.served_at = self.now;
        }
        self.insert_lease(id, lease);
        id
    }
}
