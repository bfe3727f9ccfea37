//! Jobs that start after others.
//!
//! ```text
//!   waiting --(the last of the others is done)--> running
//!      +--(one of them fails or is cancelled)--> failed, with that as its cause; unless it is to start however they end
//! ```
//! What a job waits for is in the state from its submit on, as numbers. The entry that ends a job starts those that waited for it alone.

use super::failure::shortened;
use super::{Entry, Event, Outcome};
use crate::ids::JobId;
use crate::job::{Job, Phase};
use crate::spec::{SpecError, refuse};
use crate::state::State;
use raftwerk_proto::v1::JobSpec;
use std::collections::BTreeSet;

pub const MAX_JOBS: usize = 100;
/// Of jobs that are waited for.
const NAMED: usize = 8;

pub(crate) fn check(spec: &JobSpec) -> Result<(), SpecError> {
    match &spec.after {
        Some(after) if after.jobs.is_empty() || after.jobs.len() > MAX_JOBS => {
            refuse(format!("after names {} jobs; 1 to {MAX_JOBS} are possible", after.jobs.len()))
        }
        _ => Ok(()),
    }
}

/// In words for people.
pub(crate) fn waits(job: &Job) -> String {
    let mut named: Vec<String> = job.waiting_for.iter().take(NAMED).map(|other| other.to_string()).collect();
    if job.waiting_for.len() > NAMED {
        named.push(format!("{} more", job.waiting_for.len() - NAMED));
    }
    format!("it starts after job{} {}", if job.waiting_for.len() == 1 { "" } else { "s" }, named.join(", "))
}

impl State {
    /// Jobs that have not ended and after which a new one is to start; the spec then names all of them by their numbers. An error is the outcome of
    /// the submission.
    pub(crate) fn resolve_after(&self, spec: &mut JobSpec) -> Result<BTreeSet<JobId>, Outcome> {
        let mut waiting_for = BTreeSet::new();
        let namespace = spec.namespace.clone();
        let Some(after) = &mut spec.after else { return Ok(waiting_for) };
        for given in &mut after.jobs {
            // A number is a job's, though a key could look the same.
            let id = match given.parse::<u64>() {
                Ok(number) => JobId(number),
                Err(_) => match self.idempotency.get(&(namespace.clone(), given.clone())) {
                    Some(submission) => submission.job,
                    None => {
                        return Err(Outcome::NotFound(format!(
                            "after: no job of namespace '{namespace}' has the idempotency key '{given}', or it is forgotten; take it out, or use a job's number"
                        )));
                    }
                },
            };
            match self.jobs.get(&id).map(|job| &job.phase) {
                Some(Phase::Running | Phase::Publishing) => {
                    waiting_for.insert(id);
                }
                Some(Phase::Done { .. }) => {}
                Some(Phase::Failed { .. } | Phase::Cancelled { .. }) if after.any => {}
                Some(phase) => {
                    return Err(Outcome::Precondition(format!(
                        "after: job {id} {}, so this one would never start; submit that one again first, or say after_any (--after-any)",
                        end_of(phase)
                    )));
                }
                None if self.has_had(id) => {
                    let text = format!("after: job {id} is forgotten, and nobody knows how it ended; take it out if it was done");
                    return Err(Outcome::NotFound(text));
                }
                None => return Err(Outcome::NotFound(format!("after: there is no job {id}"))),
            }
            *given = id.to_string();
        }
        Ok(waiting_for)
    }

    /// Jobs that waited for this one, which has ended, start or fail; and so on with those that end by it.
    pub(crate) fn tell_followers(&mut self, ended: JobId, entry: &mut Entry) {
        // Not by recursion: a chain may have as many jobs as there are.
        let mut to_tell = vec![ended];
        while let Some(id) = to_tell.pop() {
            let Some(phase) = self.jobs.get(&id).map(|job| job.phase.clone()) else { continue };
            let has_it = |follower: &JobId| self.jobs.get(follower).is_some_and(|job| job.waiting_for.contains(&id));
            let followers: Vec<JobId> = self.waiting.iter().copied().filter(has_it).collect();
            for follower in followers {
                let now = self.now;
                let Some(job) = self.jobs.get_mut(&follower) else { continue };
                job.waiting_for.remove(&id);
                let any = job.spec.after.as_ref().is_some_and(|after| after.any);
                if !any && !matches!(phase, Phase::Done { .. }) {
                    job.phase = Phase::Failed { at: now, cause: format!("it was to start after job {id}, which {}", end_of(&phase)) };
                } else if job.waiting_for.is_empty() {
                    // Its turn is counted from here on.
                    job.served_at = now;
                    job.advance(now);
                } else {
                    continue;
                }
                let phase = job.phase.clone();
                self.waiting.remove(&follower);
                match phase {
                    Phase::Running => {}
                    Phase::Publishing => entry.applied.events.push(Event::PublishDecided { job: follower }),
                    Phase::Done { .. } | Phase::Failed { .. } | Phase::Cancelled { .. } => {
                        self.settle_ended(follower, entry);
                        to_tell.push(follower);
                    }
                }
            }
        }
    }
}

fn end_of(phase: &Phase) -> String {
    match phase {
        // Causes of causes must not grow with the chain.
        Phase::Failed { cause, .. } => format!("failed: {}", shortened(cause)),
        Phase::Cancelled { .. } => "was cancelled".to_owned(),
        Phase::Done { .. } => "is done".to_owned(),
        Phase::Running | Phase::Publishing => "has not ended".to_owned(),
    }
}
