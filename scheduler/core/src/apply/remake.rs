//! Decided parts that are lost for good: the decision is taken back, and only what is lost is made again.

use super::{Entry, Event, Outcome};
use crate::ids::{JobId, TaskRange, WorkerId};
use crate::job::Phase;
use crate::stage::TaskState;
use crate::state::State;
use raftwerk_proto::v1::{LostPart, RemakeParts};
use std::collections::BTreeSet;

impl State {
    /// The decision says that every part is prepared. When the publisher finds that one is not, nobody has seen the output yet, so the
    /// decision can be taken back: its task runs again under a new generation, charged, and the last part accepted decides anew. A
    /// verdict on a part that has been made again since changes nothing.
    pub(super) fn remake_parts(&mut self, remake: &RemakeParts, entry: &mut Entry) -> Outcome {
        let id = JobId(remake.job);
        let Some(job) = self.jobs.get_mut(&id).filter(|j| j.phase == Phase::Publishing) else { return Outcome::Done };
        let names_it = |lost: &&LostPart| job.parts.get(&lost.partition).is_some_and(|part| part.staged_name == lost.staged_name);
        let lost: Vec<&LostPart> = remake.parts.iter().filter(names_it).collect();
        let limit = job.max_attempts();
        let Some(stage) = job.stages.last_mut().filter(|_| !lost.is_empty()) else { return Outcome::Done };
        stage.generation = stage.generation.saturating_add(1);
        let (mut parts, mut exhausted) = (0, None);
        for part in lost {
            let task = u64::from(part.partition);
            // Named twice in one verdict, it is still one part.
            if job.parts.remove(&part.partition).is_none() || task >= stage.tasks().len() {
                continue;
            }
            let range = TaskRange { first: task, end: task + 1 };
            stage.counted.set(range, true);
            stage.set(range, TaskState::Ready);
            stage.failed_attempts = stage.failed_attempts.saturating_add(1);
            stage.charge(range);
            let charged = stage.attempts.overlapping(range).next().map_or(0, |(_, charged)| charged);
            if charged >= limit {
                exhausted = Some(format!("publishing: part {task} was lost {charged} times before it could be published: {}", part.reason));
            }
            parts += 1;
        }
        job.phase = Phase::Running;
        entry.applied.events.push(Event::PartsLost { job: id, parts });
        if let Some(job) = self.jobs.get_mut(&id) {
            job.make_again();
        }
        // While a job of two stages was publishing nobody needed its shuffle data, so the loss of a holder was not written down.
        let job = &self.jobs[&id];
        let mut holders = BTreeSet::new();
        for index in 0..job.stages.len() {
            if job.shuffle_needed(index) {
                for (_, state) in job.stages[index].tasks().iter() {
                    if let TaskState::Accepted { worker, copy, .. } = state {
                        holders.extend([worker, copy]);
                    }
                }
            }
        }
        holders.remove(&WorkerId(0));
        for worker in holders {
            if self.workers.get(&worker).is_none_or(|record| record.lost) {
                self.invalidate(id, worker, entry);
            }
        }
        match exhausted {
            Some(cause) => self.fail_job(id, cause, entry),
            None => self.advance_job(id, entry),
        }
        Outcome::Done
    }
}
