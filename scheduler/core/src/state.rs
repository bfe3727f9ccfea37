//! What every replica holds.

use crate::apply::{COPIES_GIVEN_BACK, UNMARKED_FORMAT};
use crate::cost::{CostModel, Spent};
use crate::gang::Gangs;
use crate::homes::Homes;
use crate::ids::{JobId, LeaseId, Timestamp, WorkerId};
use crate::job::Job;
use crate::lease::{Held, Lease};
use crate::namespace::Namespace;
use crate::stage::TaskState;
use crate::worker::{DeviceUses, StageUses, Worker};
use std::collections::{BTreeMap, BTreeSet};

/// Idempotency keys are a namespace's own.
pub type IdempotencyKey = (String, String);

#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    pub job: JobId,
    pub payload_sha256: Vec<u8>,
    /// When its job ended; set once the job itself has been forgotten, 0 until then.
    pub ended_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub cluster: String,
    /// Forced recoveries so far; part of every lease id.
    pub epoch: u32,
    pub applied_index: u64,
    /// Cluster time of the last entry.
    pub now: Timestamp,
    pub jobs: BTreeMap<JobId, Job>,
    pub workers: BTreeMap<WorkerId, Worker>,
    pub leases: BTreeMap<LeaseId, Lease>,
    pub idempotency: BTreeMap<IdempotencyKey, Submission>,
    /// Replicas that were taken out. Their ids are never let in again.
    pub removed_replicas: BTreeSet<u64>,
    /// Newest format among the entries so far, [`UNMARKED_FORMAT`] at the least. A replica that reads less than
    /// this has no place in the cluster any more.
    pub log_format: u32,
    pub namespaces: BTreeMap<String, Namespace>,
    /// What leases have cost; empty below format 4.
    pub costs: CostModel,
    /// Devices held for stages that begin on several at once; empty below format 4.
    pub(crate) gangs: Gangs,
    /// Who has read which input lately; empty below format 4.
    pub(crate) homes: Homes,
    pub(crate) next_job: u64,
    pub(crate) next_id: u64,
    /// Derived: what live leases hold.
    pub(crate) uses: DeviceUses,
    /// Derived: tasks out on each device, by stage.
    pub(crate) stage_uses: StageUses,
    /// Derived: jobs that have not ended.
    pub(crate) active: BTreeSet<JobId>,
    /// Derived: jobs that wait for others to end.
    pub(crate) waiting: BTreeSet<JobId>,
    /// Derived: live leases by worker. Thousands of workers that come back at once are each asked about theirs.
    pub(crate) holders: BTreeMap<(WorkerId, LeaseId), Held>,
}

impl State {
    pub fn new(cluster: &str) -> State {
        State {
            cluster: cluster.to_string(),
            epoch: 0,
            applied_index: 0,
            now: Timestamp(0),
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            leases: BTreeMap::new(),
            idempotency: BTreeMap::new(),
            removed_replicas: BTreeSet::new(),
            log_format: UNMARKED_FORMAT,
            namespaces: BTreeMap::new(),
            costs: CostModel::default(),
            gangs: Gangs::new(),
            homes: Homes::default(),
            next_job: 1,
            // 1 is the replica that bootstraps; everybody else is minted.
            next_id: 2,
            uses: DeviceUses::new(),
            stage_uses: StageUses::new(),
            active: BTreeSet::new(),
            waiting: BTreeSet::new(),
            holders: BTreeMap::new(),
        }
    }

    /// Live leases of a worker, oldest first.
    pub fn leases_of(&self, worker: WorkerId) -> impl Iterator<Item = (LeaseId, &Lease)> + '_ {
        let first = LeaseId { epoch: 0, index: 0, position: 0 };
        let own = self.holders.range((worker, first)..).take_while(move |((holder, _), _)| *holder == worker);
        own.filter_map(move |((_, id), _)| self.leases.get(id).filter(|lease| lease.worker == worker).map(|lease| (*id, lease)))
    }

    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    pub fn uses(&self) -> &DeviceUses {
        &self.uses
    }

    pub fn stage_uses(&self) -> &StageUses {
        &self.stage_uses
    }

    /// Jobs that have not ended, oldest first.
    pub fn active_jobs(&self) -> impl Iterator<Item = &Job> + '_ {
        self.active.iter().filter_map(|id| self.jobs.get(id))
    }

    /// Whether a job of this number was ever submitted, kept or not.
    pub fn has_had(&self, job: JobId) -> bool {
        (1..self.next_job).contains(&job.0)
    }

    pub fn active_count(&self) -> usize {
        self.active.len()
    }

    /// Recomputes what is derived; for a state read from a snapshot.
    pub(crate) fn derive(&mut self) {
        self.uses.clear();
        self.stage_uses.clear();
        self.holders.clear();
        let leases = std::mem::take(&mut self.leases);
        for (id, lease) in leases {
            self.insert_lease(id, lease);
        }
        self.active = self.jobs.values().filter(|j| j.is_active()).map(|j| j.id).collect();
        self.waiting = self.jobs.values().filter(|j| !j.waiting_for.is_empty()).map(|j| j.id).collect();
    }

    pub(crate) fn insert_lease(&mut self, id: LeaseId, lease: Lease) {
        let used = self.stage_uses.entry((lease.worker, lease.device, lease.job, lease.stage)).or_default();
        used.leases += 1;
        used.tasks = used.tasks.saturating_add(lease.tasks.count());
        used.done = used.done.saturating_add(lease.spent.tasks);
        self.uses.entry((lease.worker, lease.device)).or_default().add(lease.tasks.count(), &lease.amount);
        self.holders.insert((lease.worker, id), lease.held());
        self.leases.insert(id, lease);
    }

    /// A lease that goes on has reported.
    pub(crate) fn note_spent(&mut self, id: LeaseId, spent: Spent) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if let Some(used) = self.stage_uses.get_mut(&(lease.worker, lease.device, lease.job, lease.stage)) {
            used.done = used.done.saturating_sub(lease.spent.tasks).saturating_add(spent.tasks);
        }
        lease.spent = spent;
    }

    /// Ends a lease: tasks that it alone still holds are ready again.
    pub(crate) fn remove_lease(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.holders.remove(&(lease.worker, id));
        if let Some(used) = self.uses.get_mut(&(lease.worker, lease.device)) {
            used.remove(lease.tasks.count(), &lease.amount);
            if used.leases == 0 {
                self.uses.remove(&(lease.worker, lease.device));
            }
        }
        let key = (lease.worker, lease.device, lease.job, lease.stage);
        if let Some(used) = self.stage_uses.get_mut(&key) {
            used.leases = used.leases.saturating_sub(1);
            used.tasks = used.tasks.saturating_sub(lease.tasks.count());
            used.done = used.done.saturating_sub(lease.spent.tasks);
            if used.leases == 0 {
                self.stage_uses.remove(&key);
            }
        }
        if let Some(stage) = self.jobs.get_mut(&lease.job).and_then(|j| j.stages.get_mut(lease.stage as usize)) {
            if lease.speculative && self.log_format >= COPIES_GIVEN_BACK {
                // A copy that ends undecided, with its worker say, was not in vain by the plan's fault: the budget gets it back.
                let held = stage.held_by(lease.tasks, id);
                let undecided: u64 = held.iter().filter(|(_, s)| matches!(s, TaskState::Raced { .. })).map(|(part, _)| part.count()).sum();
                stage.speculated = stage.speculated.saturating_sub(undecided);
            }
            stage.release(lease.tasks, id);
        }
        Some(lease)
    }
}
