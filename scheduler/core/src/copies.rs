//! Second copies of shuffle data: who keeps one, and what is left when a holder is gone.

use crate::apply::Outcome;
use crate::ids::{JobId, TaskRange, WorkerId};
use crate::job::Job;
use crate::stage::TaskState;
use crate::state::State;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{RecordCopies, Report, ShuffleCopies};
use std::collections::BTreeMap;

/// Workers named to an agent for one copy: the first that takes it is enough.
pub const COPY_CANDIDATES: usize = 3;

/// What the loss of one holder means for a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Tasks whose only place it was: they run again.
    pub lost: u64,
    /// Tasks that have one place left.
    pub kept: u64,
}

impl Job {
    /// Whether the stage's shuffle data is to lie at two workers.
    pub fn wants_copies(&self, stage: usize) -> bool {
        self.keeps_shuffle(stage) && self.spec.stages[stage].shuffle_replicas >= 2
    }

    /// Gives up the accepted shuffle data that `worker` held. Tasks with a copy elsewhere stay accepted and are read there; the others run
    /// again under a new generation, their tallies stay counted.
    ///
    /// Of a job of more than two stages the loss of data that nobody needs now is noted too, see `Job::make_again`.
    pub fn invalidate(&mut self, worker: WorkerId) -> Given {
        let mut given = Given::default();
        if self.is_beyond_two() {
            given.kept = self.take_from(worker);
            given.lost = self.make_again();
            return given;
        }
        for index in 0..self.stages.len() {
            if !self.shuffle_needed(index) {
                continue;
            }
            let stage = &mut self.stages[index];
            let held: Vec<(TaskRange, TaskState)> = stage
                .tasks()
                .iter()
                .filter(|(_, s)| matches!(s, TaskState::Accepted { worker: w, copy, .. } if *w == worker || *copy == worker))
                .collect();
            let mut made_again = false;
            for (range, state) in held {
                let TaskState::Accepted { worker: original, copy, generation } = state else { continue };
                let left = if original == worker { copy } else { original };
                if left == WorkerId(0) {
                    if planted::on(Bug::LoseGeneration) {
                        continue;
                    }
                    given.lost += range.count();
                    made_again = true;
                    stage.counted.set(range, true);
                    stage.set(range, TaskState::Ready);
                } else {
                    given.kept += range.count();
                    stage.set(range, TaskState::Accepted { worker: left, copy: WorkerId(0), generation });
                }
            }
            if made_again {
                stage.generation = stage.generation.saturating_add(1);
            }
        }
        given
    }

    /// Takes the worker off all that it held, needed or not; how many tasks that are needed have another place. What has none is noted as held by
    /// worker 0.
    fn take_from(&mut self, worker: WorkerId) -> u64 {
        let mut kept = 0;
        if planted::on(Bug::LoseGeneration) {
            return kept;
        }
        for index in 0..self.stages.len() {
            if !self.keeps_shuffle(index) {
                continue;
            }
            let is_needed = self.shuffle_needed(index);
            let stage = &mut self.stages[index];
            let held = |state: TaskState| matches!(state, TaskState::Accepted { worker: w, copy, .. } if w == worker || copy == worker);
            let held: Vec<(TaskRange, TaskState)> = stage.tasks().iter().filter(|(_, state)| held(*state)).collect();
            for (range, state) in held {
                let TaskState::Accepted { worker: original, copy, generation } = state else { continue };
                let left = if original == worker { copy } else { original };
                kept += if is_needed && left != WorkerId(0) { range.count() } else { 0 };
                stage.set(range, TaskState::Accepted { worker: left, copy: WorkerId(0), generation });
            }
        }
        kept
    }

    /// Of a job of more than two stages: what is needed and nobody has runs again under a new generation. The last stages come first, because one
    /// that makes some of its output again needs its own input again, which may have been lost long ago, when nobody needed it. How many tasks
    /// that are.
    pub(crate) fn make_again(&mut self) -> u64 {
        let mut tasks = 0;
        if !self.is_beyond_two() {
            return tasks;
        }
        for index in (0..self.stages.len()).rev() {
            if !self.shuffle_needed(index) {
                continue;
            }
            let stage = &mut self.stages[index];
            let is_gone = |state: TaskState| matches!(state, TaskState::Accepted { worker: WorkerId(0), copy: WorkerId(0), .. });
            let gone: Vec<TaskRange> = stage.tasks().iter().filter(|(_, state)| is_gone(*state)).map(|(range, _)| range).collect();
            for range in &gone {
                tasks += range.count();
                stage.counted.set(*range, true);
                stage.set(*range, TaskState::Ready);
            }
            if !gone.is_empty() {
                stage.generation = stage.generation.saturating_add(1);
            }
        }
        tasks
    }

    /// Accepted tasks of the stage whose shuffle data lies at one worker only, by that worker and its generation.
    pub fn lone_copies(&self, stage: usize) -> BTreeMap<(WorkerId, u32), Vec<TaskRange>> {
        let mut lone: BTreeMap<(WorkerId, u32), Vec<TaskRange>> = BTreeMap::new();
        if self.wants_copies(stage) && self.shuffle_needed(stage) {
            for (range, state) in self.stages[stage].tasks().iter() {
                if let TaskState::Accepted { worker, copy: WorkerId(0), generation } = state {
                    lone.entry((worker, generation)).or_default().push(range);
                }
            }
        }
        lone
    }

    /// What users are told about copies, per stage that asks for them.
    pub(crate) fn shuffle_copies(&self) -> Vec<ShuffleCopies> {
        let asking = (0..self.stages.len()).filter(|&index| self.wants_copies(index));
        asking
            .map(|index| {
                let mut copies = ShuffleCopies { stage: self.spec.stages[index].name.clone(), ..ShuffleCopies::default() };
                for (range, state) in self.stages[index].tasks().iter() {
                    match state {
                        // Lost, and not needed since.
                        TaskState::Accepted { worker: WorkerId(0), .. } => {}
                        TaskState::Accepted { copy: WorkerId(0), .. } => copies.one_place += range.count(),
                        TaskState::Accepted { .. } => copies.two_places += range.count(),
                        _ => {}
                    }
                }
                copies
            })
            .collect()
    }
}

impl State {
    /// A second copy was made again. It counts for tasks that are still held by that process alone, when the other process is there.
    pub(crate) fn record_copies(&mut self, record: &RecordCopies) -> Outcome {
        let Some(copied) = &record.copied else { return Outcome::Done };
        let (holder, copy) = (WorkerId(record.worker), WorkerId(copied.copy_worker));
        let holds = self.workers.get(&holder).is_some_and(|w| !w.lost && w.session.0 == record.session);
        let takes = self.workers.get(&copy).is_some_and(|w| !w.lost && w.hello.incarnation == copied.copy_incarnation);
        let Some(job) = self.jobs.get_mut(&JobId(copied.job)).filter(|job| job.is_active() && holds && takes && holder != copy) else {
            return Outcome::Done;
        };
        let index = copied.stage as usize;
        if !job.wants_copies(index) || copy == WorkerId(0) {
            return Outcome::Done;
        }
        let alone = TaskState::Accepted { worker: holder, copy: WorkerId(0), generation: copied.generation };
        let stage = &mut job.stages[index];
        for piece in &copied.tasks {
            let Some(range) = TaskRange::new(piece.first_task, piece.task_count).filter(|range| range.end <= stage.tasks().len()) else {
                continue;
            };
            let held: Vec<TaskRange> =
                stage.tasks().overlapping(range).filter(|(_, state)| *state == alone).map(|(part, _)| part).collect();
            for part in held {
                stage.set(part, TaskState::Accepted { worker: holder, copy, generation: copied.generation });
            }
        }
        Outcome::Done
    }

    /// Who keeps a second copy of what this report brings; nobody when the process that confirmed it is not the registered one any more:
    /// its successor starts with nothing.
    pub(crate) fn copy_holder(&self, reporter: WorkerId, report: &Report) -> WorkerId {
        let copy = WorkerId(report.copy_worker);
        let there = copy != reporter
            && self.workers.get(&copy).is_some_and(|record| !record.lost && record.hello.incarnation == report.copy_incarnation);
        if there { copy } else { WorkerId(0) }
    }
}
