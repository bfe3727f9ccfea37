//! Failed tasks: whose fault it was decides who is charged, what waits, and who is avoided from now on.
//!
//! | class | charged to the task | tried again | who is avoided |
//! |---|---|---|---|
//! | task | yes | after a pause that doubles | nobody |
//! | input, or parameters | yes | never: the task is set aside | nobody |
//! | executor died | yes, and under suspicion | after a pause, alone, elsewhere | the worker, for this task; a strike against the device |
//! | device | no | at once | the device, for this job; a strike against it |
//! | out of memory | no | at once, in leases half as long; elsewhere when one task alone is too much | then the device's class, for this stage |
//! | worker | no | at once | the worker, for this job; a strike against it |
//! | source | no | after a pause | the source's data, after three failures |
//! | full | no | after a pause | nobody: planning hears from the worker when it has room |
//! | stopped | no | at once | nobody |
//! | fatal | - | never: the job fails | - |
//!
//! Entries of format 1 knew no pauses, suspicions, strikes and no setting aside: under them a job failed when attempts were used up.

use super::report::{Consequence, SOURCE_FAILURES_UNTIL_LOST};
use super::{Entry, Event, LEARNING, OWN_RULES, REASONS};
use crate::failures;
use crate::ids::{LeaseId, TaskRange, Timestamp, WorkerId};
use crate::job::Job;
use crate::lease::Lease;
use crate::stage::TaskState;
use crate::state::State;
use crate::trouble::{DEATHS_UNTIL_SET_ASIDE, Evidence, MAX_SET_ASIDE, RETRY_MS, retry_at};
use crate::worker::Worker;
use raftwerk_proto::v1::{FailureClass, OnSetAside, TaskFailure};
use std::collections::BTreeSet;

/// Longest message kept as evidence.
const MESSAGE_BYTES: usize = 1024;

/// Who failed by its own fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Culprit {
    Worker,
    Device,
}

pub(super) fn shortened(message: &str) -> String {
    let end = (0..=MESSAGE_BYTES.min(message.len())).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
    message[..end].to_string()
}

/// Takes the failed tasks that the lease holds from it and says what else follows.
pub(super) fn fail(
    job: &mut Job,
    lease: &Lease,
    record: Option<&Worker>,
    id: LeaseId,
    failure: &TaskFailure,
    now: Timestamp,
    entry: &mut Entry,
) -> Consequence {
    let Some(range) = TaskRange::new(failure.first_task, failure.task_count) else { return Consequence::None };
    let class = match failure.class() {
        // Builds of before do not know them, and take them for no class at all.
        FailureClass::OutOfMemory | FailureClass::Input if entry.format < LEARNING => FailureClass::Unspecified,
        class => class,
    };
    let with_rules = entry.format >= OWN_RULES;
    let charged = matches!(class, FailureClass::Task | FailureClass::Input | FailureClass::Executor | FailureClass::Unspecified);
    let limit = job.max_attempts();
    let stage = &mut job.stages[lease.stage as usize];
    let held = stage.held_by(range.intersect(lease.tasks), id);
    let Some(first) = held.first().map(|(r, _)| r.first) else { return Consequence::None };
    // Neither says anything about the task or the worker.
    let no_fault = matches!(class, FailureClass::Stopped | FailureClass::Full);
    if !no_fault && entry.format >= REASONS {
        let tasks = TaskRange { first, end: held.last().map_or(first, |(r, _)| r.end) };
        let worker_name = record.map_or("", |worker| worker.hello.name.as_str());
        let (worker, device, reason) = (lease.worker, lease.device, failure.message.as_str());
        failures::keep(&mut stage.failures, &failures::Attempt { tasks, worker, worker_name, device, reason, at: now });
    }
    if !no_fault {
        entry.applied.events.push(Event::TaskFailed { job: job.id, stage: lease.stage, task: first, message: failure.message.clone() });
    }
    let mut hopeless: Vec<Evidence> = Vec::new();
    for (part, state) in held {
        if !no_fault {
            stage.failed_attempts = stage.failed_attempts.saturating_add(part.count());
        }
        if !charged {
            stage.release(part, id);
            if with_rules && matches!(class, FailureClass::Source | FailureClass::Full) && state.rival_of(id).is_none() {
                stage.set(part, TaskState::Waiting(Timestamp(now.0.saturating_add(RETRY_MS))));
            }
            continue;
        }
        stage.charge(part);
        if with_rules && class == FailureClass::Executor {
            stage.suspicions.add(part, lease.worker);
        }
        stage.release(part, id);
        if state.rival_of(id).is_some() {
            // The other lease may still bring it home.
            continue;
        }
        let charges: Vec<(TaskRange, u32)> = stage.attempts.overlapping(part).collect();
        for (piece, attempts) in charges {
            let mut pieces: Vec<(TaskRange, BTreeSet<WorkerId>)> =
                stage.suspicions.overlapping(piece).map(|(r, w)| (r, w.clone())).collect();
            pieces.extend(stage.suspicions.clean(piece).into_iter().map(|r| (r, BTreeSet::new())));
            pieces.sort_by_key(|(r, _)| r.first);
            for (tasks, workers) in pieces {
                // Of several that died together only one is to blame: they part before anything is said about one.
                let kills = tasks.count() == 1 && workers.len() >= DEATHS_UNTIL_SET_ASIDE;
                if attempts >= limit || kills || class == FailureClass::Input {
                    hopeless.push(Evidence { tasks, attempts, workers, message: shortened(&failure.message), at: now });
                } else if with_rules {
                    stage.set(tasks, TaskState::Waiting(retry_at(now, attempts)));
                }
            }
        }
    }
    let stage_name = &job.spec.stages[lease.stage as usize].name;
    match class {
        FailureClass::Fatal => Consequence::FailJob(format!("stage '{stage_name}' task {first}: {}", failure.message)),
        FailureClass::Worker => {
            let fresh = job.excluded.insert(lease.worker);
            if with_rules && fresh { Consequence::Strike(Culprit::Worker, failure.message.clone()) } else { Consequence::None }
        }
        FailureClass::Device => {
            let fresh = job.excluded_devices.insert((lease.worker, lease.device));
            if with_rules && fresh { Consequence::Strike(Culprit::Device, failure.message.clone()) } else { Consequence::None }
        }
        FailureClass::OutOfMemory => {
            let device_class = record.and_then(|worker| worker.device(lease.device)).map(|device| device.class.as_str());
            if !crate::memory::ran_out(job, lease, device_class) {
                return Consequence::None;
            }
            let fresh = job.excluded_devices.insert((lease.worker, lease.device));
            if fresh { Consequence::Strike(Culprit::Device, failure.message.clone()) } else { Consequence::None }
        }
        FailureClass::Source => {
            let source = WorkerId(failure.source_worker);
            let failures = job.source_failures.entry(source).or_default();
            *failures = failures.saturating_add(1);
            if *failures >= SOURCE_FAILURES_UNTIL_LOST { Consequence::LoseSource(source) } else { Consequence::None }
        }
        _ => {
            let died = with_rules && class == FailureClass::Executor;
            match set_aside(job, lease.stage, hopeless, class, entry) {
                Some(cause) => Consequence::FailJob(cause),
                None if died => Consequence::Strike(Culprit::Device, failure.message.clone()),
                None => Consequence::None,
            }
        }
    }
}

/// Sets tasks aside; the cause when the job fails by it.
fn set_aside(job: &mut Job, stage_index: u32, hopeless: Vec<Evidence>, class: FailureClass, entry: &mut Entry) -> Option<String> {
    let first = hopeless.first()?.clone();
    let name = job.spec.stages[stage_index as usize].name.clone();
    let cause = if class == FailureClass::Input {
        format!("stage '{name}' task {}: {}", first.tasks.first, first.message)
    } else if first.attempts < job.max_attempts() {
        let workers: Vec<String> = first.workers.iter().map(|w| w.to_string()).collect();
        format!(
            "stage '{name}' task {} killed its executor on workers {}, the last time with: {}",
            first.tasks.first,
            workers.join(", "),
            first.message
        )
    } else {
        format!("stage '{name}' task {} failed {} times, the last time with: {}", first.tasks.first, first.attempts, first.message)
    };
    if entry.format < OWN_RULES {
        return Some(cause);
    }
    let stage = &mut job.stages[stage_index as usize];
    let mut room = MAX_SET_ASIDE.saturating_sub(stage.set_aside());
    let mut over = false;
    for evidence in hopeless {
        if evidence.tasks.count() > room {
            over = true;
            break;
        }
        room -= evidence.tasks.count();
        entry.applied.events.push(Event::SetAside {
            job: job.id,
            stage: stage_index,
            task: evidence.tasks.first,
            message: evidence.message.clone(),
        });
        stage.set_tasks_aside(evidence);
    }
    if job.spec.on_set_aside() == OnSetAside::Fail {
        Some(cause)
    } else if over {
        Some(format!("more than {MAX_SET_ASIDE} tasks would be set aside; {cause}"))
    } else if stage.set_aside() == stage.tasks().len() {
        Some(format!("every task was set aside; {cause}"))
    } else {
        None
    }
}

impl State {
    /// Counts a failure against a worker or device, and quarantines it when they become too many.
    pub(super) fn strike(&mut self, worker: WorkerId, device: u32, culprit: Culprit, message: &str, entry: &mut Entry) {
        let now = self.now;
        // Without anybody else, a quarantine would only stop the work; the job's own limits still hold.
        let others = self.workers.iter().any(|(id, w)| *id != worker && !w.lost && !w.standing.is_quarantined(now));
        let Some(record) = self.workers.get_mut(&worker) else { return };
        let (standing, of_device) = match culprit {
            Culprit::Worker => (&mut record.standing, None),
            Culprit::Device => (record.device_standing.entry(device).or_default(), Some(device)),
        };
        if standing.strike(now, others, &shortened(message)) {
            let (until, reason) = (standing.until, standing.reason.clone());
            entry.applied.events.push(Event::Quarantined { worker, device: of_device, until, reason });
        }
    }

    /// An accepted result: whatever was held against them is forgotten, unless they are in quarantine, where old leases end.
    pub(super) fn in_order(&mut self, worker: WorkerId, device: u32) {
        let now = self.now;
        let Some(record) = self.workers.get_mut(&worker) else { return };
        if !record.standing.is_quarantined(now) && record.standing != Default::default() {
            record.standing = Default::default();
        }
        if record.device_standing.get(&device).is_some_and(|s| !s.is_quarantined(now)) {
            record.device_standing.remove(&device);
        }
    }
}
