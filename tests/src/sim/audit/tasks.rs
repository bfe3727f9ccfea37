//! What may become of a task by one entry.

use super::entry::Entry;
use super::{Audit, Verdict};
use crate::sim::stages::expected;
use raftwerk_core::stage::TaskState;
use raftwerk_core::{JobId, LeaseId, TaskRange, WorkerId};

impl Audit {
    /// A task becomes accepted only by a result that its executor computed under a lease that was live, and once in a generation; it
    /// leaves that state only with a new generation. A task is leased only when it was ready or its lease ended in the same entry.
    pub(super) fn each_task_is_accepted_once_by_a_live_lease(&mut self, entry: &Entry<'_>) -> Verdict {
        for (id, job) in &entry.after.jobs {
            let earlier = entry.before.jobs.get(id);
            if earlier.is_some_and(|j| j.phase.ended_at().is_some()) {
                continue;
            }
            for (number, stage) in job.stages.iter().enumerate() {
                let old_stage = earlier.map(|j| &j.stages[number]);
                if old_stage.is_some_and(|old| old.tasks() == stage.tasks()) {
                    continue;
                }
                for (range, new) in stage.tasks().iter() {
                    let whole = vec![(range, TaskState::Ready)];
                    let olds = old_stage.map_or(whole, |s| s.tasks().overlapping(range).collect());
                    for (part, old) in olds.into_iter().filter(|(_, old)| *old != new) {
                        let grown = old_stage.is_some_and(|s| s.generation < stage.generation);
                        self.task_moves_along_the_diagram(entry, (*id, number as u32), part, old, new, grown)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn task_moves_along_the_diagram(
        &mut self,
        entry: &Entry<'_>,
        (job, stage): (JobId, u32),
        tasks: TaskRange,
        old: TaskState,
        new: TaskState,
        new_generation: bool,
    ) -> Verdict {
        const NAME: &str = "tasks_move_along_the_diagram";
        let wrong = |name, why: &str| Err((name, format!("job {job} stage {stage} tasks {tasks:?}: {old:?} -> {new:?}: {why}")));
        // A place of its shuffle data is given up with the worker that was it, or with the round, and only then.
        let ends_round = entry.ends_a_round(job);
        if let Some(place) = places(old).filter(|_| !ends_round).find(|place| !places(new).any(|p| p == *place) && !entry.gives_up(*place))
        {
            return wrong("shuffle_data_is_given_up_with_its_worker", &format!("worker {place} keeps its place"));
        }
        if let (TaskState::Accepted { generation: was, .. }, TaskState::Accepted { generation: is, .. }) = (old, new)
            && was == is
        {
            let holders: Vec<WorkerId> = places(old).collect();
            let explained = |place: &WorkerId| holders.contains(place) || entry.copies_again((job, stage), tasks, &holders, *place);
            let fresh = places(new).find(|place| !explained(place));
            return fresh.map_or(Ok(()), |place| wrong(NAME, &format!("worker {place} holds its data out of nowhere")));
        }
        if matches!(old, TaskState::Accepted { .. }) && !new_generation {
            return wrong(NAME, "an accepted result is gone within its generation");
        }
        match new {
            TaskState::Accepted { generation, .. } => {
                for task in tasks.first..tasks.end {
                    let Some(by) = entry.reporter(job, stage, task) else {
                        return wrong("accepted_results_come_from_live_leases", "no live lease reported it");
                    };
                    let Some(content) = self.computed.get(&(by, task)).copied() else {
                        return wrong("accepted_results_were_computed", &format!("task {task} was never computed under lease {by}"));
                    };
                    if let Some(job) = entry.before.jobs.get(&job) {
                        if expected(job, stage as usize, task) != content {
                            return wrong(
                                "accepted_results_come_from_all_that_the_task_reads",
                                &format!("task {task} has read something else"),
                            );
                        }
                        self.counters.results_of_joins += u64::from(job.inputs_of(stage as usize).len() > 1);
                    }
                    self.nothing_of_an_earlier_round_counts(entry, job, by)?;
                    if !self.accepted.insert((job, stage, generation, task)) {
                        return wrong("each_task_is_accepted_once", &format!("task {task} was accepted in generation {generation} before"));
                    }
                    self.counters.accepted_tasks += 1;
                }
            }
            // The other one of two leases has ended or failed.
            TaskState::Leased(id) if old.is_held_by(id) => {}
            TaskState::Raced { first, second } => {
                let worker = |id: &LeaseId| entry.after.leases.get(id).map(|l| l.worker);
                if worker(&first).is_none() || worker(&second).is_none() || worker(&first) == worker(&second) {
                    return wrong("two_holders_are_on_two_workers", "they are not");
                }
                if second.index != entry.index || !entry.after.leases.get(&second).is_some_and(|l| l.speculative) {
                    return wrong(NAME, "the second lease is not a new speculative one");
                }
            }
            TaskState::SetAside => {}
            TaskState::Leased(id) => {
                if id.index != entry.index {
                    return wrong(NAME, "a lease from an earlier entry takes it");
                }
                if let TaskState::Leased(other) = old
                    && entry.after.leases.contains_key(&other)
                    && !entry.reports_failure(other)
                {
                    return wrong("a_task_has_one_holder", &format!("lease {other} still holds it"));
                }
            }
            TaskState::Ready | TaskState::Waiting(_) => {
                if let TaskState::Leased(id) = old
                    && entry.after.leases.contains_key(&id)
                    && !entry.reports_failure(id)
                {
                    return wrong(NAME, "its lease lives and reported no failure");
                }
            }
        }
        Ok(())
    }
}

/// Workers where the shuffle data of an accepted task lies.
fn places(state: TaskState) -> impl Iterator<Item = WorkerId> {
    let (worker, copy) = match state {
        TaskState::Accepted { worker, copy, .. } => (worker, copy),
        _ => (WorkerId(0), WorkerId(0)),
    };
    [worker, copy].into_iter().filter(|w| *w != WorkerId(0))
}
