//! The end of a round: decided by the report of its reduce task, once.

use super::{Entry, Event};
use crate::ids::{JobId, Timestamp};
use crate::job::{Job, Phase};
use crate::lease::Lease;
use crate::rounds;
use crate::state::State;
use prost::bytes::Bytes;
use raftwerk_proto::v1::RoundEnd;

/// Writes down how the round ended when this report brought its reduce task home; what the next round begins with, if there is one. A report that
/// does not say how the round ended is the fault of the kernel, and would be the same again: the cause of the job's failure.
pub(super) fn decide(
    job: &mut Job,
    lease: &Lease,
    accepted: u64,
    end: Option<RoundEnd>,
    now: Timestamp,
    entry: &mut Entry,
) -> Result<Option<Bytes>, String> {
    let is_reduce = lease.stage as usize + 1 == job.stages.len();
    let Some(rounds) = job.rounds.as_mut().filter(|_| is_reduce && accepted > 0) else { return Ok(None) };
    // A decided part that was lost is made again; the round ended when it was made first.
    if rounds.is_over(&job.spec) {
        return Ok(None);
    }
    let round = rounds.current(&job.spec);
    let end = rounds::sound(end, round).map_err(|reason| format!("round {round}: {reason}"))?;
    let state = rounds.end(end, now);
    let last = rounds.is_over(&job.spec);
    entry.applied.events.push(Event::RoundEnded { job: job.id, round, last });
    Ok((!last).then_some(state))
}

impl State {
    /// All tasks of the job are ready again. Leases of the round that has ended end with it, so that nothing late can count.
    pub(super) fn begin_round(&mut self, id: JobId, state: Bytes, entry: &mut Entry) {
        if self.jobs.get(&id).is_none_or(|job| job.phase != Phase::Running) {
            return;
        }
        self.end_leases_of(id, entry);
        let now = self.now;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.stages.iter_mut().for_each(|stage| stage.begin_again());
            job.source_failures.clear();
            job.parts.clear();
            if let Some(rounds) = &mut job.rounds {
                rounds.begin(&state, &job.stages, now);
            }
        }
    }
}
