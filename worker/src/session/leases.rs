//! The leases of a session: from the grant to the one final report.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftwerk_proto::OUTPUT_ON_WORKERS;
use raftwerk_proto::v1::{FailureClass, Grants, LeaseId, LeaseProgress, Load, StageInfo, TaskFailure};

use super::{AgentSession, Effect, StopReason, report};
use crate::{lease::LeaseKey, ranges::TaskRanges};

#[derive(Debug)]
pub(super) struct HeldLease {
    pub(super) job: u64,
    pub(super) stage: u32,
    pub(super) generation: u32,
    pub(super) device: u32,
    /// Tasks without a result or failure so far.
    pub(super) remaining: TaskRanges,
    pub(super) stopping_since_ms: Option<u64>,
}

impl AgentSession {
    pub(super) fn on_grants(&mut self, grants: Grants, effects: &mut Vec<Effect>) {
        for stage in grants.stages {
            let round = |stage: &StageInfo| stage.round.as_ref().map_or(0, |round| round.number);
            let (number, key) = (round(&stage), (stage.job, stage.stage));
            if self.stages.get(&key).is_some_and(|known| round(known) < number) {
                let (name, before) = (stage.spec.as_ref().map(|spec| spec.name.clone()), stage.round.as_ref().map(|r| r.first_generation));
                let (stage, before) = (name.unwrap_or_default(), before.unwrap_or_default());
                effects.push(Effect::FreeRounds { job: key.0, stage, before });
            }
            self.stages.insert(key, Arc::new(stage));
        }
        for grant in grants.grants {
            let Some(key) = grant.lease.map(LeaseKey::from) else {
                return self.close("protocol error: a grant without a lease id", effects);
            };
            if self.leases.contains_key(&key) || self.outbox.has_final(key) {
                continue;
            }
            let Some(stage) = self.stages.get(&(grant.job, grant.stage)).cloned() else {
                return self.close("protocol error: a grant of a stage that was not described", effects);
            };
            let held = HeldLease {
                job: grant.job,
                stage: grant.stage,
                generation: grant.generation,
                device: grant.device,
                remaining: TaskRanges::new(grant.first_task, grant.task_count),
                stopping_since_ms: None,
            };
            self.leases.insert(key, held);
            if stays_here(&stage) {
                // From its first part on, which may be on disk before anything is reported of it.
                self.kept_jobs.insert(grant.job);
            }
            if self.hello.devices.iter().any(|device| device.index == grant.device) {
                effects.push(Effect::StartLease { grant, stage });
            } else {
                let message = format!("device {} is not offered by this worker any more", grant.device);
                self.fail_lease(key, &[], FailureClass::Worker, &message, effects);
            }
        }
    }

    pub(super) fn on_release(&mut self, now_ms: u64, job: u64, effects: &mut Vec<Effect>) {
        let of_job: Vec<LeaseKey> = self.leases.iter().filter(|(_, held)| held.job == job).map(|(&key, _)| key).collect();
        for key in of_job {
            self.stop_lease(now_ms, key, StopReason::JobEnded, effects);
        }
        self.stages.retain(|&(of, _), _| of != job);
        effects.push(Effect::ReleaseJob(job));
    }

    /// A device runs as many leases at once as it has parallelism, in the order they came; the others wait behind them.
    pub(super) fn current_load(&self) -> Load {
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        for lease in self.leases.values() {
            *held.entry(lease.device).or_default() += 1;
        }
        let places = |device: u32| self.hello.devices.iter().find(|d| d.index == device).map_or(1, |d| d.parallelism.max(1));
        let running: u32 = held.iter().map(|(&device, &leases)| leases.min(places(device))).sum();
        Load { leases_running: running, leases_queued: held.values().sum::<u32>() - running, ..self.load.clone() }
    }

    pub(super) fn on_progress(&mut self, batch: Vec<LeaseProgress>, effects: &mut Vec<Effect>) {
        let mut reports = Vec::new();
        for progress in batch {
            let Some(key) = progress.lease.map(LeaseKey::from) else { continue };
            // A lease that has ended here already (its executor was lost) has had its final report.
            let Some(held) = self.leases.get_mut(&key) else { continue };
            let ended = progress.final_report;
            let bodies = report::bodies(progress, &mut held.remaining, held.stopping_since_ms.is_some());
            for body in bodies {
                reports.push(self.outbox.add(key, held.job, held.stage, held.generation, body));
            }
            if ended {
                self.leases.remove(&key);
            }
        }
        self.send_reports(reports, effects);
    }

    pub(super) fn on_executor_lost(
        &mut self,
        device: u32,
        message: &str,
        running: &[(LeaseId, u64, u64)],
        class: FailureClass,
        effects: &mut Vec<Effect>,
    ) {
        let lost: Vec<LeaseKey> = self.leases.iter().filter(|(_, held)| held.device == device).map(|(&key, _)| key).collect();
        for key in lost {
            let tasks: Vec<(u64, u64)> =
                running.iter().filter(|(lease, ..)| LeaseKey::from(*lease) == key).map(|&(_, first, count)| (first, count)).collect();
            self.fail_lease(key, &tasks, class, message, effects);
        }
    }

    /// Ends a lease from this side. With `tasks`, those fail with `class` and the rest was stopped; without, everything fails with it,
    /// unless an executor died of it: tasks that had not started did nothing to it.
    pub(super) fn fail_lease(
        &mut self,
        key: LeaseKey,
        tasks: &[(u64, u64)],
        class: FailureClass,
        message: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut held) = self.leases.remove(&key) else { return };
        let ran = matches!(class, FailureClass::Executor | FailureClass::OutOfMemory);
        let rest = if tasks.is_empty() && !ran { class } else { FailureClass::Stopped };
        let failure = |first_task, task_count, class: FailureClass| TaskFailure {
            first_task,
            task_count,
            class: class.into(),
            message: message.to_owned(),
            source_worker: 0,
        };
        let mut failures: Vec<TaskFailure> = tasks.iter().map(|&(first, count)| failure(first, count, class)).collect();
        failures.extend(held.remaining.iter().map(|(first, count)| failure(first, count, rest)));
        // Overlaps are harmless: each task leaves `remaining` with the first failure that names it.
        let progress = LeaseProgress { failures, final_report: true, ..Default::default() };
        let bodies = report::bodies(progress, &mut held.remaining, true);
        let reports = bodies.into_iter().map(|body| self.outbox.add(key, held.job, held.stage, held.generation, body)).collect();
        self.send_reports(reports, effects);
    }

    pub(super) fn stop_lease(&mut self, now_ms: u64, key: LeaseKey, reason: StopReason, effects: &mut Vec<Effect>) {
        if let Some(held) = self.leases.get_mut(&key)
            && held.stopping_since_ms.is_none()
        {
            held.stopping_since_ms = Some(now_ms);
            effects.push(Effect::StopLease { lease: key.into(), device: held.device, reason });
        }
    }
}

/// Whether the stage's parts stay on the workers that make them.
fn stays_here(stage: &StageInfo) -> bool {
    stage.output.as_ref().is_some_and(|output| output.url == OUTPUT_ON_WORKERS)
}
