//! Submit, cancel, publish, fail.

use super::{Entry, Event, LEARNING, OWN_RULES, Outcome, RETAINED_JOBS, RETENTION_MS, SHARES};
use crate::ids::{JobId, Timestamp};
use crate::job::{Job, Phase};
use crate::state::{State, Submission};
use crate::{spec, spec_format};
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::SubmitJob;

impl State {
    pub(super) fn submit_job(&mut self, submit: SubmitJob, entry: &mut Entry) -> Outcome {
        let Some(mut spec) = submit.spec else { return Outcome::Refused("the submission has no job spec".into()) };
        if entry.format < LEARNING {
            // Builds of before drop these in silence, and all have to hold the same.
            spec::forget_derived(&mut spec);
        }
        if let Err(reason) = spec::check(&spec) {
            return Outcome::Refused(reason.0);
        }
        if let Err(reason) = spec_format::check(&spec, entry.format) {
            return Outcome::Refused(reason.0);
        }
        if entry.format >= OWN_RULES
            && let Err(reason) = spec::check_names(&spec)
        {
            return Outcome::Refused(reason.0);
        }
        if entry.format >= LEARNING
            && let Err(reason) = spec::check_footprints(&spec)
        {
            return Outcome::Refused(reason.0);
        }
        let key = (spec.namespace.clone(), submit.idempotency_key.clone());
        // Without a key nothing was stored under one.
        if let Some(earlier) = self.idempotency.get(&key) {
            return if earlier.payload_sha256 == submit.payload_sha256 {
                Outcome::Submitted { job: earlier.job, existing: true }
            } else {
                Outcome::IdempotencyConflict { job: earlier.job }
            };
        }
        if entry.format >= SHARES
            && let Some(reason) = self.namespace_is_full(&spec.namespace)
        {
            return Outcome::Full(reason);
        }
        let waiting_for = match self.resolve_after(&mut spec) {
            Ok(waiting_for) => waiting_for,
            Err(outcome) => return outcome,
        };
        self.forget_old_jobs(entry);
        let id = JobId(self.next_job);
        self.next_job += 1;
        if !key.1.is_empty() && !planted::on(Bug::ForgetKey) {
            self.idempotency.insert(key, Submission { job: id, payload_sha256: submit.payload_sha256.to_vec(), ended_at: Timestamp(0) });
        }
        let mut job = Job::new(id, spec, submit.idempotency_key, self.now);
        if !waiting_for.is_empty() {
            job.waiting_for = waiting_for;
            self.waiting.insert(id);
        }
        // One that waits for nothing moves on at once.
        job.advance(self.now);
        let phase = job.phase.clone();
        self.jobs.insert(id, job);
        self.active.insert(id);
        if entry.format >= SHARES {
            self.begin_to_share(id);
        }
        match phase {
            // Empty input: a valid, empty result.
            Phase::Publishing => entry.applied.events.push(Event::PublishDecided { job: id }),
            Phase::Done { .. } => self.job_ended(id, entry),
            _ => {}
        }
        Outcome::Submitted { job: id, existing: false }
    }

    pub(super) fn cancel_job(&mut self, id: JobId, entry: &mut Entry) -> Outcome {
        match self.jobs.get(&id).map(|j| j.phase.clone()) {
            None => Outcome::Refused(format!("there is no job {id}")),
            Some(Phase::Running) => {
                let at = self.now;
                self.end_job(id, Phase::Cancelled { at }, entry);
                Outcome::Cancelled { job: id }
            }
            Some(Phase::Publishing) => Outcome::Refused(format!("job {id} is being published and can no longer be cancelled")),
            // Cancelling twice, or after the end, changes nothing.
            Some(_) => Outcome::Cancelled { job: id },
        }
    }

    pub(super) fn finish_publish(&mut self, id: JobId, error: &str, entry: &mut Entry) -> Outcome {
        if error.is_empty() && self.misses_a_part(id) {
            // The last keeper of a part was lost while this was on its way: the part is made again.
            return Outcome::Done;
        }
        if self.jobs.get(&id).is_some_and(|j| j.phase == Phase::Publishing) {
            let at = self.now;
            let phase = if error.is_empty() { Phase::Done { at } } else { Phase::Failed { at, cause: format!("publishing: {error}") } };
            self.end_job(id, phase, entry);
        }
        Outcome::Done
    }

    pub(super) fn fail_job_command(&mut self, id: JobId, cause: String, entry: &mut Entry) -> Outcome {
        self.fail_job(id, cause, entry);
        Outcome::Done
    }

    pub(super) fn fail_job(&mut self, id: JobId, cause: String, entry: &mut Entry) {
        let at = self.now;
        self.end_job(id, Phase::Failed { at, cause }, entry);
    }

    /// Keeps memory bounded: the oldest ended jobs go, with their idempotency keys, once they are a day old and there are many.
    fn forget_old_jobs(&mut self, entry: &mut Entry) {
        while self.jobs.len() >= RETAINED_JOBS {
            let Some(Timestamp(limit)) = self.now.0.checked_sub(RETENTION_MS).map(Timestamp) else { return };
            let Some(id) = self.jobs.values().find(|j| j.phase.ended_at().is_some_and(|at| at.0 < limit)).map(|j| j.id) else { return };
            if let Some(job) = self.jobs.remove(&id) {
                if job.has_kept_result() {
                    entry.applied.events.push(Event::ResultDropped { job: id });
                }
                self.idempotency.remove(&(job.spec.namespace, job.idempotency_key));
            }
        }
    }
}
