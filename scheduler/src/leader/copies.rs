//! Where an agent is asked to copy shuffle data to. The choice is the ring's; what came of it is recorded with the accepted tasks.

use raftwerk_core::copies::COPY_CANDIDATES;
use raftwerk_core::ring::Ring;
use raftwerk_core::{Job, JobId, Lease, LeaseId, State, WorkerId};
use raftwerk_proto::v1::CopyTarget;

#[derive(Default)]
pub(super) struct Copies {
    /// Of the members it was last asked for; they change rarely, leases come by the thousand.
    ring: Ring,
}

impl Copies {
    /// Where the lease's shuffle data may be copied to, best first; empty when the job does not ask for it or nobody else is registered.
    /// Members are the workers that are not declared lost: one that is only being waited for after a change of leader still counts, and
    /// the agent takes the next when it does not answer.
    pub(super) fn targets(&mut self, state: &State, job: &Job, id: LeaseId, lease: &Lease) -> Vec<CopyTarget> {
        if !job.wants_copies(lease.stage as usize) {
            return Vec::new();
        }
        self.refresh(state);
        let chosen = self.ring.copies(lease.job, lease.stage, id, lease.worker, COPY_CANDIDATES);
        addressed(state, &chosen)
    }

    /// The same for tasks whose data lies with this worker alone.
    pub(super) fn targets_of_lone(&mut self, state: &State, job: JobId, stage: u32, holder: WorkerId, first_task: u64) -> Vec<CopyTarget> {
        self.refresh(state);
        let chosen = self.ring.owners(&[job.0, u64::from(stage), holder.0, first_task], holder, COPY_CANDIDATES);
        addressed(state, &chosen)
    }

    fn refresh(&mut self, state: &State) {
        let members: Vec<WorkerId> = state.workers.iter().filter(|(_, w)| !w.lost).map(|(id, _)| *id).collect();
        if self.ring.members() != members {
            self.ring = Ring::new(members);
        }
    }
}

fn addressed(state: &State, workers: &[WorkerId]) -> Vec<CopyTarget> {
    let address = |worker: &WorkerId| state.workers.get(worker).map(|w| w.hello.data_address.clone()).unwrap_or_default();
    workers.iter().map(|worker| CopyTarget { worker: worker.0, address: address(worker) }).collect()
}
