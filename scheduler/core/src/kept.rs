//! Results that stay on workers: who keeps which part, and for how long.
//!
//! A part is flushed in the data directory of the worker that made it before its task is accepted; copies follow once all parts are there.
//! Unlike shuffle data it outlives the process: a worker that comes back keeps what it kept, and only a lost one counts as without it.

use crate::apply::Outcome;
use crate::ids::{JobId, WorkerId};
use crate::job::{Job, Phase};
use crate::state::State;
use raftwerk_proto::OUTPUT_ON_WORKERS;
use raftwerk_proto::v1::{DropResult, JobSpec, OutputPart, RecordKept};

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
        !job.parts.values().all(|part| keepers(part).any(|worker| self.is_there(worker)))
    }

    /// A worker has a copy. It counts when it is of the part as it was accepted, when the worker is there, and when there are fewer than asked
    /// for: it then takes the place of a lost keeper, or one that was free.
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
            let mut all: Vec<WorkerId> = keepers(part).collect();
            if all.contains(&worker) || all.iter().filter(|keeper| there(**keeper)).count() >= copies {
                continue;
            }
            all.push(worker);
            while all.len() > copies
                && let Some(lost) = all.iter().position(|keeper| !there(*keeper))
            {
                all.remove(lost);
            }
            set_keepers(part, &all);
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
