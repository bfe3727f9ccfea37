//! Results: accepted task by task from the lease that holds the task, fenced otherwise.

use super::{Entry, Event, Outcome};
use crate::ids::{LeaseId, TaskRange, WorkerId};
use crate::job::Job;
use crate::lease::Lease;
use crate::stage::TaskState;
use crate::state::State;
use crate::worker::Worker;
use raftwerk_proto::v1::{DeviceShare, FailureClass, Report, ReportResults, TaskFailure, TaskResults};
use std::collections::BTreeMap;

/// Failed fetches from one worker after which its shuffle data counts as lost for the job.
const SOURCE_FAILURES_UNTIL_LOST: u32 = 3;

/// What a failure asks for beyond its own stage.
enum Consequence {
    None,
    FailJob(String),
    /// The worker's shuffle data cannot be read.
    LoseSource(WorkerId),
}

impl State {
    pub(super) fn report_results(&mut self, reports: ReportResults, entry: &mut Entry) -> Outcome {
        for report in reports.reports {
            self.report(WorkerId(reports.worker), report, entry);
        }
        Outcome::Reported
    }

    fn report(&mut self, worker: WorkerId, report: Report, entry: &mut Entry) {
        let Some(id) = report.lease.map(LeaseId::from) else { return };
        let offered: u64 = report.results.iter().map(|r| r.task_count).fold(0, u64::saturating_add);
        // Only the holder may report, and only while the lease lives.
        let Some(lease) = self.leases.get(&id).filter(|l| l.worker == worker).cloned() else {
            if let Some(stage) = self.jobs.get_mut(&crate::JobId(report.job)).and_then(|j| j.stages.get_mut(report.stage as usize)) {
                stage.fenced = stage.fenced.saturating_add(offered);
            }
            return;
        };
        let record = self.workers.get(&worker);
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        let mut accepted = 0;
        for results in &report.results {
            accepted += accept(job, &lease, id, results);
        }
        job.stages[lease.stage as usize].fenced += offered.saturating_sub(accepted);
        credit(job, &lease, record, accepted, &report);
        let is_last = lease.stage as usize + 1 == job.stages.len() && job.spec.output.is_some();
        if is_last {
            let holder = TaskState::Accepted { worker: WorkerId(0), generation: lease.generation };
            for mut part in report.parts {
                // A part counts only if its task was accepted from this very lease just now.
                let task = u64::from(part.partition);
                let offered_here = report.results.iter().any(|r| task >= r.first_task && task - r.first_task < r.task_count);
                if offered_here
                    && lease.tasks.first <= task
                    && task < lease.tasks.end
                    && job.stages[lease.stage as usize].state_of(task) == Some(holder)
                {
                    part.worker = worker.0;
                    job.parts.entry(part.partition).or_insert(part);
                }
            }
        }
        let mut consequences = Vec::new();
        for failure in &report.failures {
            consequences.push(fail(job, &lease, id, failure, entry));
        }
        let job_id = lease.job;
        if report.final_report {
            self.remove_lease(id);
        }
        for consequence in consequences {
            match consequence {
                Consequence::None => {}
                Consequence::FailJob(cause) => self.fail_job(job_id, cause, entry),
                Consequence::LoseSource(source) => self.invalidate(job_id, source, entry),
            }
        }
        self.fail_when_everybody_is_excluded(job_id, entry);
        self.advance_job(job_id, entry);
    }

    /// A job that no present worker can work on any more fails with the reasons, instead of waiting for ever.
    fn fail_when_everybody_is_excluded(&mut self, id: crate::JobId, entry: &mut Entry) {
        let Some(job) = self.jobs.get(&id).filter(|j| j.is_active() && !(j.excluded.is_empty() && j.excluded_devices.is_empty())) else {
            return;
        };
        let Some(stage) = job.stages.iter().position(|s| s.open && s.ready() > 0) else { return };
        let candidates = crate::matching::candidates(self, &job.spec.stages[stage]);
        let left = candidates.iter().any(|(w, d)| !job.excluded.contains(w) && !job.excluded_devices.contains(&(*w, *d)));
        if !left {
            let last = entry.applied.events.iter().rev().find_map(|e| match e {
                Event::TaskFailed { job, message, .. } if *job == id => Some(message.clone()),
                _ => None,
            });
            self.fail_job(id, format!("no worker is left that can run it; the last one said: {}", last.unwrap_or_default()), entry);
        }
    }
}

/// Accepts the tasks of one range that this lease still holds; adds their tallies. Returns how many.
fn accept(job: &mut Job, lease: &Lease, id: LeaseId, results: &TaskResults) -> u64 {
    let Some(range) = TaskRange::new(results.first_task, results.task_count) else { return 0 };
    let keeps = job.keeps_shuffle(lease.stage as usize);
    let stage = &mut job.stages[lease.stage as usize];
    let holder = if keeps { lease.worker } else { WorkerId(0) };
    let complete =
        results.tallies.len() == stage.tallies.len() && results.tallies.iter().all(|t| t.values.len() as u64 == results.task_count);
    if !complete {
        return 0;
    }
    let mut accepted = 0;
    for held in stage.parts_in(range.intersect(lease.tasks), TaskState::Leased(id)) {
        accepted += held.count();
        for (counted_part, counted) in stage.counted.overlapping(held).collect::<Vec<_>>() {
            if counted {
                continue;
            }
            let from = (counted_part.first - range.first) as usize;
            let until = (counted_part.end - range.first) as usize;
            for (sum, values) in stage.tallies.iter_mut().zip(&results.tallies) {
                *sum += values.values[from..until].iter().map(|&v| u128::from(v)).sum::<u128>();
            }
        }
        stage.counted.set(held, false);
        stage.set(held, TaskState::Accepted { worker: holder, generation: lease.generation });
    }
    accepted
}

fn credit(job: &mut Job, lease: &Lease, worker: Option<&Worker>, accepted: u64, report: &Report) {
    let spec = &job.spec;
    let share = job.shares.entry((lease.stage, lease.worker, lease.device)).or_insert_with(|| {
        let device = worker.and_then(|w| w.device(lease.device));
        DeviceShare {
            worker: lease.worker.0,
            worker_name: worker.map(|w| w.hello.name.clone()).unwrap_or_default(),
            device: lease.device,
            device_name: device.map(|d| d.name.clone()).unwrap_or_default(),
            class: device.map(|d| d.class.clone()).unwrap_or_default(),
            stage: spec.stages[lease.stage as usize].name.clone(),
            ..DeviceShare::default()
        }
    });
    share.tasks += accepted;
    share.busy_ns = share.busy_ns.saturating_add(report.busy_ns);
    share.input_bytes = share.input_bytes.saturating_add(report.input_bytes);
}

/// Returns the failed tasks that the lease holds to ready, charged or not by the class of the error.
fn fail(job: &mut Job, lease: &Lease, id: LeaseId, failure: &TaskFailure, entry: &mut Entry) -> Consequence {
    let Some(range) = TaskRange::new(failure.first_task, failure.task_count) else { return Consequence::None };
    let class = failure.class();
    let limit = job.max_attempts();
    let stage = &mut job.stages[lease.stage as usize];
    let held = stage.parts_in(range.intersect(lease.tasks), TaskState::Leased(id));
    let Some(first) = held.first().map(|r| r.first) else { return Consequence::None };
    let mut exhausted = None;
    let mut charges: BTreeMap<u64, u32> = BTreeMap::new();
    for part in held {
        if matches!(class, FailureClass::Task | FailureClass::Executor | FailureClass::Unspecified) {
            for task in part.first..part.end {
                let charged = stage.attempts.entry(task).or_default();
                *charged += 1;
                charges.insert(task, *charged);
                if *charged >= limit && exhausted.is_none() {
                    exhausted = Some(task);
                }
            }
        }
        if class != FailureClass::Stopped {
            stage.failed_attempts += part.count();
        }
        stage.set(part, TaskState::Ready);
    }
    if class != FailureClass::Stopped {
        entry.applied.events.push(Event::TaskFailed { job: job.id, stage: lease.stage, task: first, message: failure.message.clone() });
    }
    let stage_name = &job.spec.stages[lease.stage as usize].name;
    match class {
        FailureClass::Fatal => Consequence::FailJob(format!("stage '{stage_name}' task {first}: {}", failure.message)),
        FailureClass::Worker => {
            job.excluded.insert(lease.worker);
            Consequence::None
        }
        FailureClass::Device => {
            job.excluded_devices.insert((lease.worker, lease.device));
            Consequence::None
        }
        FailureClass::Source => {
            let source = WorkerId(failure.source_worker);
            let failures = job.source_failures.entry(source).or_default();
            *failures += 1;
            if *failures >= SOURCE_FAILURES_UNTIL_LOST { Consequence::LoseSource(source) } else { Consequence::None }
        }
        _ => match exhausted {
            Some(task) => Consequence::FailJob(format!(
                "stage '{stage_name}' task {task} failed {} times, the last time with: {}",
                charges.get(&task).copied().unwrap_or_default(),
                failure.message
            )),
            None => Consequence::None,
        },
    }
}
