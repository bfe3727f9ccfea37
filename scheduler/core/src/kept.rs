//! Results that stay on workers: who keeps which part, and for how long.
//!
//! A part is flushed in the data directory of the worker that made it before its task is accepted; copies follow once all parts are there.
//! Unlike shuffle data it outlives the process: a worker that comes back keeps what it kept. A lost one counts as without it, and one that has said
//! that a part is missing there or damaged. Both stay on record until another one takes their place: what is gone may be found again.

use crate::apply::{KEPT_LOSSES, Outcome};
use crate::ids::{JobId, WorkerId};
use crate::job::{Job, Phase};
use crate::state::State;
use raftwerk_proto::OUTPUT_ON_WORKERS;
use raftwerk_proto::v1::{DropResult, JobSpec, LoseKept, OutputPart, RecordKept};

/// Whether the job's result stays on workers.
pub fn on_workers(spec: &JobSpec) -> bool {
    spec.output.as_ref().is_some_and(|output| output.url == OUTPUT_ON_WORKERS)
}

/// How many workers are to keep each part.
pub fn copies(spec: &JobSpec) -> usize {
    spec.output.as_ref().map_or(0, |output| output.copies.max(1) as usize)
}

/// The workers that keep a part, as recorded; nobody when it was dropped.
pub fn keepers(part: &OutputPart) -> impl Iterator<Item = WorkerId> + '_ {
    std::iter::once(part.worker).chain(part.copy_workers.iter().copied()).filter(|worker| *worker != 0).map(WorkerId)
}

fn set_keepers(part: &mut OutputPart, keepers: &[WorkerId]) {
    part.worker = keepers.first().map_or(0, |worker| worker.0);
    part.copy_workers = keepers.iter().skip(1).map(|worker| worker.0).collect();
    part.gone_at.retain(|gone| keepers.iter().any(|keeper| keeper.0 == *gone));
}

impl Job {
    /// Whether there are parts on workers that somebody may want to read.
    pub fn has_kept_result(&self) -> bool {
        on_workers(&self.spec) && matches!(self.phase, Phase::Done { .. }) && self.parts.values().any(|part| part.worker != 0)
    }
}

impl State {
    /// Whether the worker is registered and not lost.
    pub fn is_there(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|record| !record.lost)
    }

    /// The part's keepers that are there and, as far as is known, have it.
    pub fn holders<'a>(&'a self, part: &'a OutputPart) -> impl Iterator<Item = WorkerId> + 'a {
        keepers(part).filter(|worker| self.is_there(*worker) && !part.gone_at.contains(&worker.0))
    }

    /// Why the job's result could not be kept as it asks for.
    pub fn too_few_keepers(&self, spec: &JobSpec) -> Option<String> {
        let there = self.workers.values().filter(|record| !record.lost).count();
        let wanted = copies(spec);
        (on_workers(spec) && there < wanted).then(|| {
            format!("the job wants each part of its result on {wanted} workers ([output] copies), and the cluster has {there}; start more workers, or ask for fewer copies")
        })
    }

    /// Whether some part of the job has no keeper that is there.
    pub(crate) fn misses_a_part(&self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id).filter(|job| on_workers(&job.spec)) else { return false };
        !job.parts.values().all(|part| self.holders(part).next().is_some())
    }

    /// A worker has a copy. It counts when it is of the part as it was accepted, when the worker is there, and when there are fewer than asked
    /// for: it then takes the place of a keeper that is lost or has it no more, or one that was free.
    pub(crate) fn record_kept(&mut self, record: &RecordKept) -> Outcome {
        let worker = WorkerId(record.worker);
        let there = |worker: WorkerId| self.workers.get(&worker).is_some_and(|record| !record.lost);
        let Some(job) = self.jobs.get_mut(&JobId(record.job)) else { return Outcome::Done };
        if !on_workers(&job.spec) || !matches!(job.phase, Phase::Publishing | Phase::Done { .. }) || !there(worker) {
            return Outcome::Done;
        }
        let copies = copies(&job.spec);
        for name in &record.parts {
            let Some(part) = job.parts.get_mut(&name.partition).filter(|p| p.worker != 0 && p.staged_name == name.staged_name) else {
                continue;
            };
            let gone = part.gone_at.clone();
            let holds = |keeper: &WorkerId| there(*keeper) && !gone.contains(&keeper.0);
            let mut all: Vec<WorkerId> = keepers(part).collect();
            if all.iter().any(|keeper| *keeper == worker && holds(keeper)) || all.iter().filter(|keeper| holds(keeper)).count() >= copies {
                continue;
            }
            // It may be one that did not have it for a while.
            part.gone_at.retain(|gone| *gone != worker.0);
            if all.contains(&worker) {
                continue;
            }
            all.push(worker);
            while all.len() > copies
                && let Some(lost) = all.iter().position(|keeper| *keeper != worker && !holds(keeper))
            {
                all.remove(lost);
            }
            set_keepers(part, &all);
        }
        Outcome::Done
    }

    /// A keeper says that parts are missing there or damaged. What it is not recorded for says nothing.
    pub(crate) fn lose_kept(&mut self, lose: &LoseKept, format: u32) -> Outcome {
        if format < KEPT_LOSSES {
            return Outcome::Refused(format!("keepers are taken off by entries of format {KEPT_LOSSES} and later"));
        }
        let worker = WorkerId(lose.worker);
        let Some(job) = self.jobs.get_mut(&JobId(lose.job)).filter(|job| on_workers(&job.spec)) else { return Outcome::Done };
        for name in &lose.parts {
            let Some(part) = job.parts.get_mut(&name.partition).filter(|part| part.staged_name == name.staged_name) else { continue };
            if keepers(part).any(|keeper| keeper == worker) && !part.gone_at.contains(&worker.0) {
                part.gone_at.push(worker.0);
            }
        }
        Outcome::Done
    }

    /// A user's word: the workers may delete what they keep of the job's result.
    pub(crate) fn drop_result(&mut self, drop: &DropResult) -> Outcome {
        let id = JobId(drop.job);
        match self.jobs.get_mut(&id) {
            None => Outcome::Refused(format!("there is no job {id}")),
            Some(job) if job.is_active() => Outcome::Refused(format!("job {id} has not ended; cancel it, or wait for its end")),
            Some(job) if job.spec.output.is_none() => Outcome::Refused(format!("job {id} has no output that could be dropped")),
            Some(job) if !on_workers(&job.spec) => {
                Outcome::Refused(format!("the result of job {id} does not lie on workers; remove its directory instead"))
            }
            Some(job) => {
                job.parts.values_mut().for_each(|part| set_keepers(part, &[]));
                Outcome::Done
            }
        }
    }
}
