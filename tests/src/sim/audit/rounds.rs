//! Jobs with rounds: each round is decided once, by its own reduce task, and nothing of an earlier one counts.

use super::entry::Entry;
use super::{Audit, Verdict};
use crate::sim::rounds::left_after;
use raftwerk_core::{Job, JobId, LeaseId, State};
use raftwerk_proto::v1::RoundInfo;

/// The round under way, or the last one; 0 of a job without rounds.
fn round_of(job: &Job) -> u32 {
    job.rounds.as_ref().map_or(0, |rounds| rounds.current(&job.spec))
}

fn ended(state: &State, job: JobId) -> usize {
    state.jobs.get(&job).and_then(|job| job.rounds.as_ref()).map_or(0, |rounds| rounds.ended.len())
}

impl Entry<'_> {
    /// Whether the entry ends a round of the job, and so everything of it.
    pub(super) fn ends_a_round(&self, job: JobId) -> bool {
        ended(self.after, job) > ended(self.before, job)
    }
}

impl Audit {
    /// A round ends by one report of a live lease of its reduce task, granted in that very round, and never again. What it left is what its kernel
    /// computed from what the round before had left.
    pub(super) fn rounds_are_decided_once(&mut self, entry: &Entry<'_>) -> Verdict {
        const NAME: &str = "rounds_are_decided_once";
        for (id, lease) in entry.after.leases.iter().filter(|(id, _)| !entry.before.leases.contains_key(id)) {
            if let Some(job) = entry.after.jobs.get(&lease.job).filter(|job| job.rounds.is_some()) {
                self.granted_in.insert(*id, round_of(job));
            }
        }
        for (id, job) in &entry.after.jobs {
            let Some(rounds) = &job.rounds else { continue };
            let (was, is) = (ended(entry.before, *id), rounds.ended.len());
            if was == is {
                continue;
            }
            let round = is as u32;
            if is != was + 1 || !self.decided.insert((*id, round)) {
                return Err((NAME, format!("job {id}: {was} rounds had ended, then {is}")));
            }
            if self.decider(entry, *id, round).is_none() {
                return Err((NAME, format!("job {id}: no reduce task of round {round} has brought its end")));
            }
            self.counters.rounds_ended += 1;
            let begins = !rounds.is_over(&job.spec) && job.phase.ended_at().is_none();
            if begins && rounds.state != left_after(id.0, round) {
                let found = String::from_utf8_lossy(&rounds.state).into_owned();
                return Err(("a_round_begins_with_what_the_one_before_has_left", format!("job {id} round {}: '{found}'", round + 1)));
            }
        }
        self.count_late_of_rounds(entry);
        Ok(())
    }

    /// The live lease of the reduce task whose report says how this round ended.
    fn decider(&self, entry: &Entry<'_>, job: JobId, round: u32) -> Option<LeaseId> {
        let last = entry.before.jobs.get(&job)?.stages.len() as u32 - 1;
        let says = |report: &raftwerk_proto::v1::Report| report.round_end.as_ref().is_some_and(|end| end.round == round);
        entry.reports().filter(|(_, report)| says(report)).find_map(|(worker, report)| {
            let id = LeaseId::from(report.lease?);
            let lease = entry.before.leases.get(&id)?;
            let is_its = lease.worker.0 == worker && lease.job == job && lease.stage == last;
            (is_its && self.granted_in.get(&id) == Some(&round)).then_some(id)
        })
    }

    /// A result counts in the round in which its lease was granted.
    pub(super) fn nothing_of_an_earlier_round_counts(&self, entry: &Entry<'_>, job: JobId, by: LeaseId) -> Verdict {
        let Some(of) = entry.after.jobs.get(&job).filter(|job| job.rounds.is_some()) else { return Ok(()) };
        let (granted, counts) = (self.granted_in.get(&by).copied().unwrap_or_default(), round_of(of));
        if granted != counts {
            let what = format!("job {job}: lease {by} of round {granted} has a result accepted in round {counts}");
            return Err(("nothing_of_an_earlier_round_counts", what));
        }
        Ok(())
    }

    /// Results that came after the round of their lease had ended, and so for nothing.
    fn count_late_of_rounds(&mut self, entry: &Entry<'_>) {
        let late = |(_, report): &(u64, &raftwerk_proto::v1::Report)| {
            let id = LeaseId::from(report.lease.unwrap_or_default());
            let now = entry.before.jobs.get(&JobId(report.job)).map_or(0, round_of);
            let is_old = self.granted_in.get(&id).is_some_and(|granted| *granted < now);
            is_old && !report.results.is_empty() && !entry.before.leases.contains_key(&id)
        };
        self.counters.late_of_rounds += entry.reports().filter(late).count() as u64;
    }

    /// An executor begins a lease with this description of the round.
    pub(in super::super) fn starts_in_round(&mut self, lease: LeaseId, job: u64, info: Option<&RoundInfo>) {
        const NAME: &str = "a_task_knows_the_round_of_its_lease";
        let Some(granted) = self.granted_in.get(&lease).copied() else {
            if let Some(info) = info {
                self.violate(NAME, format!("lease {lease} of job {job}, which has no rounds, is told of round {}", info.number));
            }
            return;
        };
        let told = info.map_or(0, |info| info.number);
        let found = info.map(|info| info.state.to_vec()).unwrap_or_default();
        if told != granted || found != left_after(job, granted - 1) {
            let found = String::from_utf8_lossy(&found).into_owned();
            self.violate(NAME, format!("lease {lease} of job {job} round {granted} is told of round {told} and '{found}'"));
        }
    }
}
