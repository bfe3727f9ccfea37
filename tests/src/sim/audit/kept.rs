//! What the record says of results that stay on workers.

use super::entry::Entry;
use super::{Audit, Verdict};
use raftwerk_core::{Phase, WorkerId, kept};

impl Audit {
    /// A worker has the part, flushed.
    pub(in super::super) fn has_part(&mut self, worker: u64, job: u64, staged_name: &str) {
        self.had_parts.insert((worker, job, staged_name.to_owned()));
    }

    /// A worker becomes the keeper of a part only when it has it, and a job is done only while every part has a keeper that is there.
    pub(super) fn keepers_have_their_parts(&self, entry: &Entry<'_>) -> Verdict {
        for (id, job) in entry.after.jobs.iter().filter(|(_, job)| kept::on_workers(&job.spec)) {
            let earlier = entry.before.jobs.get(id);
            let done = matches!(job.phase, Phase::Done { .. }) && earlier.is_none_or(|j| !matches!(j.phase, Phase::Done { .. }));
            if !done && earlier.is_some_and(|j| j.parts == job.parts) {
                continue;
            }
            for part in job.parts.values() {
                let had = |WorkerId(worker): &WorkerId| self.had_parts.contains(&(*worker, id.0, part.staged_name.clone()));
                if let Some(keeper) = kept::keepers(part).find(|keeper| !had(keeper)) {
                    return Err(("keepers_have_their_parts", format!("worker {keeper} never had part {} of job {id}", part.staged_name)));
                }
                // Lost in the entry itself is lost after the decision: before it, the decision is refused.
                let there = |keeper: WorkerId| entry.before.is_there(keeper) || entry.after.is_there(keeper);
                if done && !kept::keepers(part).any(there) {
                    return Err(("a_result_is_there_when_its_job_is_done", format!("nobody has part {} of job {id}", part.staged_name)));
                }
            }
        }
        Ok(())
    }
}
