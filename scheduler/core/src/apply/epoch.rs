//! A new epoch: the log goes on from a state that may lack entries which were acknowledged before.

use super::{Entry, Outcome};
use crate::ids::{LeaseId, WorkerId};
use crate::state::State;
use raftwerk_proto::v1::NewEpoch;

/// Numbers left out, because the lost end of the log may have given them away.
const NUMBERS_LEFT_OUT: u64 = 1000;

impl State {
    /// Ends every lease: its holder may have been told otherwise by an entry that is lost. New leases bear the new epoch, so that no report
    /// under an old one is ever accepted.
    pub(super) fn new_epoch(&mut self, new: NewEpoch, entry: &mut Entry) -> Outcome {
        self.epoch += 1;
        self.removed_replicas.extend(new.removed_replicas);
        self.next_job += NUMBERS_LEFT_OUT;
        self.next_id += NUMBERS_LEFT_OUT;
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in leases {
            self.end_lease(id, entry);
        }
        if new.forget_workers {
            let workers: Vec<(WorkerId, _)> = self.workers.iter().map(|(id, w)| (*id, w.session)).collect();
            for (worker, session) in workers {
                self.lose_worker(worker, session, entry);
            }
        }
        Outcome::Done
    }
}
