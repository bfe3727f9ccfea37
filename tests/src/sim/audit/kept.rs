//! What the record says of results that stay on workers.

use super::entry::Entry;
use super::{Audit, Verdict};
use raftwerk_core::{JobId, Phase, State, WorkerId, kept};

impl Audit {
    /// A worker has the part, flushed, with this checksum.
    pub(in super::super) fn has_part(&mut self, worker: u64, job: u64, staged_name: &str, crc32c: u32) {
        let known = self.latest.as_ref().and_then(|state| state.jobs.get(&JobId(job)));
        let part = known.into_iter().flat_map(|job| job.parts.values()).find(|part| part.staged_name == staged_name);
        if part.is_some_and(|part| part.crc32c != crc32c) {
            self.violate("copies_are_as_the_part_was_made", format!("worker {worker} takes another part for {staged_name} of job {job}"));
        }
        self.had_parts.insert((worker, job, staged_name.to_owned()));
    }

    /// A worker has deleted these parts, because a leader said that nobody needs them.
    pub(in super::super) fn deletes(&mut self, worker: u64, job: u64, names: &[String]) {
        for name in names {
            self.had_parts.remove(&(worker, job, name.clone()));
            if self.names_keeper(worker, JobId(job), name) {
                let what = format!("worker {worker} deletes part {name} of job {job}, which is recorded as kept there");
                self.violate("what_is_recorded_as_kept_is_not_deleted", what);
            }
        }
    }

    /// A client was told that the worker keeps the part, which has nothing of it and has not lost it either.
    pub(in super::super) fn has_nothing_of(&mut self, worker: u64, job: JobId, name: &str) {
        // What the client was told may be old news.
        if self.names_keeper(worker, job, name) {
            let what = format!("a client is sent to worker {worker} for part {name} of job {job}, which has never come there");
            self.violate("what_is_recorded_as_kept_is_there", what);
        }
    }

    fn names_keeper(&self, worker: u64, job: JobId, name: &str) -> bool {
        let job = self.latest.as_ref().and_then(|state| state.jobs.get(&job));
        let mut parts = job.into_iter().flat_map(|job| job.parts.values());
        parts.any(|part| part.staged_name == name && kept::keepers(part).any(|keeper| keeper == WorkerId(worker)))
    }

    /// A client asks to drop the result; from now on it may be gone.
    pub(in super::super) fn asks_to_drop(&mut self, job: JobId) {
        self.may_be_dropped.insert(job);
    }

    pub(in super::super) fn may_be_dropped(&self, job: JobId) -> bool {
        self.may_be_dropped.contains(&job)
    }

    pub(in super::super) fn drop_acknowledged(&mut self, job: JobId) {
        self.counters.results_dropped += u64::from(self.dropped.insert(job));
        if let Some(state) = self.latest()
            && let Err((name, what)) = self.dropped_results_stay_dropped(&state)
        {
            self.violate(name, what);
        }
    }

    /// Of a result that somebody was told is dropped nobody is recorded as keeper any more.
    pub(super) fn dropped_results_stay_dropped(&self, state: &State) -> Verdict {
        for id in &self.dropped {
            let parts = || state.jobs.get(id).into_iter().flat_map(|job| job.parts.values());
            if let Some(keeper) = parts().find_map(|part| kept::keepers(part).next()) {
                return Err(("dropped_results_stay_dropped", format!("worker {keeper} keeps of job {id}, whose result was dropped")));
            }
        }
        Ok(())
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
                // So is what a keeper has said in it that it has no more.
                let known_gone = |keeper: &WorkerId| {
                    let was = earlier.and_then(|job| job.parts.get(&part.partition));
                    was.is_some_and(|was| was.staged_name == part.staged_name && was.gone_at.contains(&keeper.0))
                };
                if done && !kept::keepers(part).any(|keeper| there(keeper) && !known_gone(&keeper)) {
                    return Err(("a_result_is_there_when_its_job_is_done", format!("nobody has part {} of job {id}", part.staged_name)));
                }
            }
        }
        Ok(())
    }
}
