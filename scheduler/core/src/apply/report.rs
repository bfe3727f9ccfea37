//! Results: accepted task by task from the lease that holds the task, fenced otherwise.

use super::failure::{Culprit, fail};
use super::{COUNTING, Entry, Event, LEARNING, OWN_RULES, Outcome, SHARES, rounds};
use crate::counters;
use crate::homes;
use crate::ids::{LeaseId, TaskRange, WorkerId};
use crate::job::Job;
use crate::lease::Lease;
use crate::spans;
use crate::stage::TaskState;
use crate::state::State;
use crate::worker::Worker;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{DeviceShare, Report, ReportResults, TaskResults};
use std::collections::BTreeSet;

/// Failed fetches from one worker after which its shuffle data counts as lost for the job.
pub(super) const SOURCE_FAILURES_UNTIL_LOST: u32 = 3;

/// What a failure asks for beyond its own stage.
pub(super) enum Consequence {
    None,
    FailJob(String),
    /// The worker's shuffle data cannot be read.
    LoseSource(WorkerId),
    /// It was the fault of the lease's worker or device.
    Strike(Culprit, String),
}

impl State {
    pub(super) fn report_results(&mut self, reports: ReportResults, entry: &mut Entry) -> Outcome {
        for report in reports.reports {
            self.report(WorkerId(reports.worker), report, entry);
        }
        Outcome::Reported
    }

    fn report(&mut self, worker: WorkerId, mut report: Report, entry: &mut Entry) {
        let Some(id) = report.lease.map(LeaseId::from) else { return };
        let offered: u64 = report.results.iter().map(|r| r.task_count).fold(0, u64::saturating_add);
        // Only the holder may report, and only while the lease lives.
        if planted::on(Bug::AcceptFenced) && !self.leases.contains_key(&id) {
            return self.accept_without_lease(worker, &report, entry);
        }
        let Some(lease) = self.leases.get(&id).filter(|l| l.worker == worker).cloned() else {
            if let Some(stage) = self.jobs.get_mut(&crate::JobId(report.job)).and_then(|j| j.stages.get_mut(report.stage as usize)) {
                stage.fenced = stage.fenced.saturating_add(offered);
            }
            return;
        };
        let record = self.workers.get(&worker);
        let copy = self.copy_holder(worker, &report);
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        let mut accepted = Accepted::default();
        for results in &report.results {
            accept(job, &lease, id, copy, results, entry.format, &mut accepted);
        }
        let stage = &mut job.stages[lease.stage as usize];
        stage.fenced = stage.fenced.saturating_add(offered.saturating_sub(accepted.tasks));
        if entry.format >= COUNTING {
            let is_new = |task: u64| accepted.counted.iter().any(|range| range.first <= task && task < range.end);
            let failed = counters::failed_by_input(stage, id, lease.tasks, &report.failures);
            let is_told = |task: u64| is_new(task) || failed.iter().any(|range| range.first <= task && task < range.end);
            let records = std::mem::take(&mut report.bad_records);
            records.into_iter().filter(|record| is_told(record.task)).for_each(|record| counters::keep(&mut stage.bad_records, record));
        }
        credit(job, &lease, record, &accepted, &report);
        if entry.format >= SHARES {
            let device = record.and_then(|w| w.device(lease.device));
            let device_ns = report.busy_ns / device.map_or(1, |d| u64::from(d.parallelism.max(1)));
            job.served_ns = job.served_ns.saturating_add(device_ns);
            self.namespaces.entry(job.spec.namespace.clone()).or_default().charge(device.map_or("", |d| d.class.as_str()), device_ns);
        }
        if entry.format >= LEARNING
            && let Some(input) = homes::worth(job, lease.stage)
        {
            let tasks = job.stages[lease.stage as usize].tasks().len();
            self.homes.record(input, tasks, (worker, lease.device), &accepted.ranges, entry.index);
        }
        let mut spent = lease.spent;
        if entry.format >= LEARNING {
            spent.add(&job.spec.stages[lease.stage as usize], &report, &accepted.ranges, offered);
        }
        let is_last = lease.stage as usize + 1 == job.stages.len() && job.spec.output.is_some();
        if is_last {
            for mut part in report.parts {
                // A part counts only if its task was accepted from this very report.
                let task = u64::from(part.partition);
                if accepted.ranges.iter().any(|r| r.first <= task && task < r.end) {
                    part.worker = worker.0;
                    part.copy_workers.clear();
                    part.gone_at.clear();
                    job.parts.insert(part.partition, part);
                }
            }
        }
        if accepted.tasks > 0 {
            let tasks = std::mem::take(&mut accepted.ranges);
            entry.applied.events.push(Event::Accepted { lease: id, job: lease.job, stage: lease.stage, tasks });
        }
        let mut consequences = Vec::new();
        let round = rounds::decide(job, &lease, accepted.tasks, report.round_end.take(), self.now, entry);
        let next_round = round.unwrap_or_else(|cause| {
            consequences.push(Consequence::FailJob(cause));
            None
        });
        if entry.format >= COUNTING {
            let index = lease.stage as usize;
            consequences.extend(counters::too_many(&job.spec.stages[index], &job.stages[index]).map(Consequence::FailJob));
        }
        for failure in &report.failures {
            consequences.push(fail(job, &lease, record, id, failure, self.now, entry));
        }
        let job_id = lease.job;
        if report.final_report {
            self.remove_lease(id);
            if entry.format >= LEARNING {
                self.learn(&Lease { spent, ..lease.clone() });
            }
        } else {
            self.note_spent(id, spent);
        }
        // Told to stop once nothing of it is left to win; one that lost a part goes on with the rest.
        for rival in accepted.rivals {
            self.end_if_it_holds_nothing(rival, entry);
        }
        if accepted.tasks > 0 && entry.format >= OWN_RULES {
            self.in_order(worker, lease.device);
        }
        for consequence in consequences {
            match consequence {
                Consequence::None => {}
                Consequence::FailJob(cause) => self.fail_job(job_id, cause, entry),
                Consequence::LoseSource(source) => self.invalidate(job_id, source, entry),
                Consequence::Strike(culprit, message) => self.strike(worker, lease.device, culprit, &message, entry),
            }
        }
        if let Some(state) = next_round {
            self.begin_round(job_id, state, entry);
        }
        self.fail_when_everybody_is_excluded(job_id, entry);
        self.advance_job(job_id, entry);
        self.fail_gang_without_devices(job_id, entry);
    }

    fn end_if_it_holds_nothing(&mut self, id: LeaseId, entry: &mut Entry) {
        let Some(lease) = self.leases.get(&id) else { return };
        let stage = self.jobs.get(&lease.job).and_then(|j| j.stages.get(lease.stage as usize));
        if stage.is_none_or(|s| s.held_by(lease.tasks, id).is_empty()) {
            self.end_lease(id, entry);
        }
    }

    /// [`Bug::AcceptFenced`]: takes what is not accepted yet from whoever brings it.
    fn accept_without_lease(&mut self, worker: WorkerId, report: &Report, entry: &mut Entry) {
        let id = crate::JobId(report.job);
        let Some(job) = self.jobs.get_mut(&id).filter(|j| j.phase == crate::Phase::Running) else { return };
        let Some(stage) = job.stages.get_mut(report.stage as usize) else { return };
        for results in &report.results {
            let Some(range) = TaskRange::new(results.first_task, results.task_count) else { continue };
            for task in range.first..range.end.min(stage.tasks().len()) {
                let one = TaskRange { first: task, end: task + 1 };
                if !matches!(stage.state_of(task), Some(TaskState::Ready | TaskState::Waiting(_) | TaskState::Leased(_))) {
                    continue;
                }
                for (sum, values) in stage.tallies.iter_mut().zip(&results.tallies) {
                    *sum += u128::from(values.values.get((task - range.first) as usize).copied().unwrap_or_default());
                }
                let generation = stage.generation;
                stage.set(one, TaskState::Accepted { worker, copy: WorkerId(0), generation });
            }
        }
        self.advance_job(id, entry);
    }

    /// A job that no present worker can work on any more fails with the reasons, instead of waiting for ever.
    fn fail_when_everybody_is_excluded(&mut self, id: crate::JobId, entry: &mut Entry) {
        let Some(job) = self.jobs.get(&id).filter(|j| j.is_active()) else { return };
        if job.excluded.is_empty() && job.excluded_devices.is_empty() && job.stages.iter().all(|s| s.avoided.is_empty()) {
            return;
        }
        let is_left = |stage: usize| {
            crate::matching::candidates(self, &job.spec.stages[stage]).iter().any(|(w, d)| {
                !job.excluded.contains(w) && !job.excluded_devices.contains(&(*w, *d)) && !job.stages[stage].avoids(self, *w, *d)
            })
        };
        let mut waiting = (0..job.stages.len()).filter(|stage| job.stages[*stage].open && job.stages[*stage].free() > 0);
        if waiting.any(|stage| !is_left(stage)) {
            let last = entry.applied.events.iter().rev().find_map(|e| match e {
                Event::TaskFailed { job, message, .. } if *job == id => Some(message.clone()),
                _ => None,
            });
            self.fail_job(id, format!("no worker is left that can run it; the last one said: {}", last.unwrap_or_default()), entry);
        }
    }
}

/// What one report brought home.
#[derive(Default)]
struct Accepted {
    tasks: u64,
    ranges: Vec<TaskRange>,
    /// Of these, what had not been counted before.
    counted: Vec<TaskRange>,
    /// Leases that ran some of the same tasks.
    rivals: BTreeSet<LeaseId>,
}

/// Accepts the tasks of one range that this lease still holds; adds their tallies and counters.
fn accept(job: &mut Job, lease: &Lease, id: LeaseId, copy: WorkerId, results: &TaskResults, format: u32, accepted: &mut Accepted) {
    let Some(range) = TaskRange::new(results.first_task, results.task_count) else { return };
    let keeps = job.keeps_shuffle(lease.stage as usize);
    let stage = &mut job.stages[lease.stage as usize];
    let (holder, copy) = if keeps { (lease.worker, copy) } else { (WorkerId(0), WorkerId(0)) };
    let complete =
        results.tallies.len() == stage.tallies.len() && results.tallies.iter().all(|t| t.values.len() as u64 == results.task_count);
    let told = results.counters.as_ref().filter(|_| format >= COUNTING);
    if !complete || told.is_some_and(|told| !told.are_of(results.task_count)) {
        return;
    }
    for (held, state) in stage.held_by(range.intersect(lease.tasks), id) {
        accepted.tasks += held.count();
        accepted.ranges.push(held);
        if let Some(rival) = state.rival_of(id) {
            accepted.rivals.insert(rival);
            if lease.speculative {
                stage.speculative_wins += held.count();
            }
        }
        for (counted_part, counted) in stage.counted.overlapping(held).collect::<Vec<_>>() {
            if counted {
                continue;
            }
            let from = (counted_part.first - range.first) as usize;
            let until = (counted_part.end - range.first) as usize;
            for (sum, values) in stage.tallies.iter_mut().zip(&results.tallies) {
                *sum += values.values[from..until].iter().map(|&v| u128::from(v)).sum::<u128>();
            }
            if let Some(told) = told {
                counters::add(&mut stage.counters, told, range, counted_part);
            }
            accepted.counted.push(counted_part);
        }
        stage.counted.set(held, false);
        stage.suspicions.clear(held);
        stage.set(held, TaskState::Accepted { worker: holder, copy, generation: lease.generation });
    }
}

fn credit(job: &mut Job, lease: &Lease, worker: Option<&Worker>, accepted: &Accepted, report: &Report) {
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
    share.tasks = share.tasks.saturating_add(accepted.tasks);
    share.busy_ns = share.busy_ns.saturating_add(report.busy_ns);
    share.input_bytes = share.input_bytes.saturating_add(report.input_bytes);
    spans::record(job, (lease.stage, lease.worker, lease.device), &accepted.ranges);
}
