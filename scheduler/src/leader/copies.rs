//! Where an agent is asked to copy shuffle data to. The choice is the ring's; what came of it is recorded with the accepted tasks.

use raftwerk_core::copies::COPY_CANDIDATES;
use raftwerk_core::ring::Ring;
use raftwerk_core::{Job, JobId, Lease, LeaseId, State, WorkerId};
use raftwerk_proto::v1::CopyTarget;
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct Copies {
    /// Of the members it was last asked for; they change rarely, leases come by the thousand.
    ring: Ring,
}

impl Copies {
    /// Where the lease's shuffle data may be copied to, best first; empty when the job does not ask for it or nobody else is registered.
    /// Members are the workers that are not declared lost: one that is only being waited for after a change of leader still counts, and
    /// the agent takes the next when it does not answer. Those in `full` have said that they have no room; one that had none only just now
    /// refuses by itself.
    pub(super) fn targets(&mut self, state: &State, full: &BTreeSet<WorkerId>, job: &Job, id: LeaseId, lease: &Lease) -> Vec<CopyTarget> {
        if !job.wants_copies(lease.stage as usize) {
            return Vec::new();
        }
        self.refresh(state);
        let chosen = self.ring.copies(lease.job, lease.stage, id, lease.worker, COPY_CANDIDATES + full.len());
        addressed(state, &with_room(chosen, full))
    }

    /// The same for tasks whose data lies with this worker alone.
    pub(super) fn targets_of_lone(
        &mut self,
        state: &State,
        full: &BTreeSet<WorkerId>,
        job: JobId,
        stage: u32,
        holder: WorkerId,
        first_task: u64,
    ) -> Vec<CopyTarget> {
        self.refresh(state);
        let chosen = self.ring.owners(&[job.0, u64::from(stage), holder.0, first_task], holder, COPY_CANDIDATES + full.len());
        addressed(state, &with_room(chosen, full))
    }

    fn refresh(&mut self, state: &State) {
        let members: Vec<WorkerId> = state.workers.iter().filter(|(_, w)| !w.lost).map(|(id, _)| *id).collect();
        if self.ring.members() != members {
            self.ring = Ring::new(members);
        }
    }
}

/// Left out only now, and not of the ring: who is full changes often, and the places of the others must not.
fn with_room(mut chosen: Vec<WorkerId>, full: &BTreeSet<WorkerId>) -> Vec<WorkerId> {
    chosen.retain(|worker| !full.contains(worker));
    chosen.truncate(COPY_CANDIDATES);
    chosen
}

fn addressed(state: &State, workers: &[WorkerId]) -> Vec<CopyTarget> {
    let address = |worker: &WorkerId| state.workers.get(worker).map(|w| w.hello.data_address.clone()).unwrap_or_default();
    workers.iter().map(|worker| CopyTarget { worker: worker.0, address: address(worker) }).collect()
}
