//! Forgetting: what keeps the state bounded, and for how long it must be kept all the same.

use super::{Entry, Event, Outcome, RETENTION_MS};
use crate::ids::{JobId, Timestamp, WorkerId};
use crate::state::State;
use raftwerk_proto::v1::Forget;

impl State {
    /// Forgets what the leader named, as far as it may be: a job that ended, and an idempotency key whose job was forgotten, are kept for a day;
    /// of workers only lost ones go. An old leader's list does no harm.
    pub(super) fn forget(&mut self, forget: Forget, entry: &mut Entry) -> Outcome {
        for id in forget.jobs.into_iter().map(JobId) {
            let Some(at) = self.jobs.get(&id).and_then(|j| j.phase.ended_at()).filter(|at| is_old(self.now, *at)) else { continue };
            let Some(job) = self.jobs.remove(&id) else { continue };
            if job.has_kept_result() {
                entry.applied.events.push(Event::ResultDropped { job: id });
            }
            if let Some(submission) = self.idempotency.get_mut(&(job.spec.namespace, job.idempotency_key)).filter(|s| s.job == id) {
                submission.ended_at = at;
            }
        }
        for id in forget.workers.into_iter().map(WorkerId) {
            if self.workers.get(&id).is_some_and(|w| w.lost) {
                self.workers.remove(&id);
            }
        }
        let now = self.now;
        self.idempotency.retain(|_, s| s.ended_at == Timestamp(0) || !is_old(now, s.ended_at));
        Outcome::Done
    }
}

/// Whether what ended then need not be kept any more.
pub fn is_old(now: Timestamp, ended: Timestamp) -> bool {
    now.0.saturating_sub(ended.0) >= RETENTION_MS
}
