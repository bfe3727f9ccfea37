//! One entry between the state before it and the state after it, and why leases may end by it.

use super::Verdict;
use raftwerk_core::gang::size;
use raftwerk_core::stage::TaskState;
use raftwerk_core::{JobId, LeaseId, Phase, State, TaskRange, WorkerId};
use raftwerk_proto::v1::{Command, FailureClass, command::Command as Do};
use std::collections::BTreeSet;

/// One entry, and the states around it.
pub(super) struct Entry<'a> {
    pub(super) index: u64,
    pub(super) before: &'a State,
    pub(super) after: &'a State,
    pub(super) commands: &'a [Command],
}

impl Entry<'_> {
    pub(super) fn reports(&self) -> impl Iterator<Item = (u64, &raftwerk_proto::v1::Report)> {
        self.commands
            .iter()
            .filter_map(|c| match &c.command {
                Some(Do::ReportResults(r)) => Some(r.reports.iter().map(|report| (r.worker, report))),
                _ => None,
            })
            .flatten()
    }

    /// The live lease under which this entry reports a result of the task.
    pub(super) fn reporter(&self, job: JobId, stage: u32, task: u64) -> Option<LeaseId> {
        self.reports().find_map(|(worker, report)| {
            let id = LeaseId::from(report.lease?);
            let lease = self.before.leases.get(&id)?;
            let holds = lease.worker.0 == worker && (lease.job, lease.stage) == (job, stage);
            let says = report.results.iter().any(|r| r.first_task <= task && task - r.first_task < r.task_count);
            (holds && says && lease.tasks.first <= task && task < lease.tasks.end).then_some(id)
        })
    }

    /// All that the lease still held has another's result now.
    fn is_beaten(&self, id: LeaseId, lease: &raftwerk_core::Lease) -> bool {
        let stage = |state: &State| state.jobs.get(&lease.job).and_then(|j| j.stages.get(lease.stage as usize)).cloned();
        let (Some(before), Some(after)) = (stage(self.before), stage(self.after)) else { return false };
        let settled = |range: TaskRange| after.all(range, |s| !s.is_held_by(id) && !matches!(s, TaskState::Ready | TaskState::Waiting(_)));
        before.held_by(lease.tasks, id).into_iter().all(|(range, _)| settled(range))
    }

    /// Whether the shuffle data of a worker may be given up by this entry: the worker is gone, or its data could not be fetched.
    pub(super) fn gives_up(&self, worker: WorkerId) -> bool {
        let lost = |state: &State| state.workers.get(&worker).is_none_or(|record| record.lost);
        let gone = self.commands.iter().any(|c| match &c.command {
            Some(Do::LoseWorker(lose)) => lose.worker == worker.0,
            Some(Do::RegisterWorker(register)) => register.worker == worker.0,
            Some(Do::RemakeParts(_) | Do::NewEpoch(_)) => lost(self.after),
            _ => false,
        });
        gone || self.reports().any(|(_, r)| r.failures.iter().any(|f| f.class() == FailureClass::Source && f.source_worker == worker.0))
    }

    /// Whether this entry records that `place` has taken a copy of the tasks' data from another worker that holds it.
    pub(super) fn copies_again(&self, (job, stage): (JobId, u32), tasks: TaskRange, holders: &[WorkerId], place: WorkerId) -> bool {
        self.commands.iter().any(|c| {
            let Some(Do::RecordCopies(record)) = &c.command else { return false };
            let Some(copied) = &record.copied else { return false };
            let covers =
                |t: &raftwerk_proto::v1::TaskPiece| t.first_task <= tasks.first && tasks.end <= t.first_task.saturating_add(t.task_count);
            (copied.job, copied.stage, copied.copy_worker) == (job.0, stage, place.0)
                && holders.contains(&WorkerId(record.worker))
                && copied.tasks.iter().any(covers)
        })
    }

    pub(super) fn reports_failure(&self, id: LeaseId) -> bool {
        self.reports().any(|(_, r)| r.lease.map(LeaseId::from) == Some(id) && !r.failures.is_empty())
    }
}

/// A stage that begins on several devices at once gets its first leases, in each round, on all of them by one entry.
pub(super) fn gangs_begin_on_all_their_devices(entry: &Entry<'_>) -> Verdict {
    for (id, job) in &entry.after.jobs {
        for (index, (spec, stage)) in job.spec.stages.iter().zip(&job.stages).enumerate().filter(|(_, (spec, _))| spec.gang.is_some()) {
            let had_begun = entry.before.jobs.get(id).is_some_and(|before| before.stages[index].has_begun());
            // A job that ends in the same entry has no leases any more.
            if had_begun || !stage.has_begun() || job.phase.ended_at().is_some() {
                continue;
            }
            let of_stage = entry.after.leases.values().filter(|lease| lease.job == *id && lease.stage as usize == index);
            let devices: BTreeSet<(WorkerId, u32)> = of_stage.map(|lease| (lease.worker, lease.device)).collect();
            if devices.len() != size(spec, Some(stage.tasks().len())) {
                return Err(("gangs_begin_on_all_their_devices", format!("job {id} stage {index} begins on {devices:?}, {:?}", spec.gang)));
            }
        }
    }
    Ok(())
}

pub(super) fn leases_end_only_for_a_reason(entry: &Entry<'_>) -> Verdict {
    for (id, lease) in entry.before.leases.iter().filter(|(id, _)| !entry.after.leases.contains_key(id)) {
        let final_report = entry.reports().any(|(_, r)| r.final_report && r.lease.map(LeaseId::from) == Some(*id));
        let job_over = entry.after.jobs.get(&lease.job).is_none_or(|j| j.phase != Phase::Running);
        let command = entry.commands.iter().any(|c| match &c.command {
            Some(Do::EndLeases(end)) => end.leases.iter().any(|l| LeaseId::from(*l) == *id),
            Some(Do::LoseWorker(lose)) => lose.worker == lease.worker.0 && lose.session == lease.session.0,
            Some(Do::RegisterWorker(register)) => register.worker == lease.worker.0,
            Some(Do::NewEpoch(_)) => true,
            _ => false,
        });
        // Another lease has brought home what both held.
        let beaten = entry.is_beaten(*id, lease);
        if !(final_report || job_over || command || beaten || entry.ends_a_round(lease.job)) {
            return Err(("leases_end_only_for_a_reason", format!("lease {id} of worker {} is gone", lease.worker)));
        }
    }
    Ok(())
}
