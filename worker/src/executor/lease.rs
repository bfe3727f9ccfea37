//! A lease inside the executor: what is still to do, and what was done and not yet told.
use super::{
    Shared,
    chunk::Done,
    input::Inputs,
    input::Mapped,
    queue::{Dropped, Segment},
    stage::Stage,
};
use crate::lease::LeaseKey;
use raftwerk_proto::v1::{ExecutorInput, FailureClass, LeaseProgress, RunLease, TaskFailure, TaskResults};
use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub(super) struct Lease {
    pub(super) key: LeaseKey,
    pub(super) stage: Arc<Stage>,
    pub(super) output: Option<Output>,
    pub(super) stopped: AtomicBool,
    state: Mutex<State>,
}

/// The lease's output file: threads reserve a range and fill it with one write.
pub(super) struct Output {
    pub(super) file: File,
    end: AtomicU64,
}

impl Output {
    fn new(descriptor: OwnedFd) -> Self {
        Self { file: File::from(descriptor), end: AtomicU64::new(0) }
    }

    pub(super) fn reserve(&self, bytes: u64) -> u64 {
        self.end.fetch_add(bytes, Ordering::Relaxed)
    }
}

#[derive(Default)]
struct State {
    /// Tasks that arrived and have neither result nor failure.
    outstanding: u64,
    /// More messages of this lease will come.
    more: bool,
    ended: bool,
    pending: LeaseProgress,
    pending_values: usize,
    /// Whether the writer knows that there is something to tell.
    announced: bool,
}

/// How soon the writer must tell it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    AlreadyKnown,
    Soon,
    Now,
}

/// Values kept before they are told early, so that a lease of millions of tasks keeps little.
const PENDING_VALUES_MAX: usize = 64 << 10;

impl Lease {
    pub(super) fn new(key: LeaseKey, stage: Arc<Stage>, output: Option<Output>) -> Lease {
        Lease { key, stage, output, stopped: AtomicBool::new(false), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No kernel runs under this lock, so a poisoned one would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a chunk made; tells whether the lease has ended with it.
    pub(super) fn deliver(&self, done: Done) -> (Urgency, bool) {
        let mut state = self.state();
        state.outstanding -= done.tasks;
        state.pending_values += done.tasks as usize * self.stage.tallies.max(1);
        let pending = &mut state.pending;
        for results in done.results {
            append(&mut pending.results, results);
        }
        for failure in done.failures {
            append_failure(&mut pending.failures, failure);
        }
        pending.blocks.extend(done.blocks);
        pending.parts.extend(done.parts);
        pending.part_ranges.extend(done.part_ranges);
        pending.busy_ns += done.busy_ns;
        pending.input_bytes += done.input_bytes;
        pending.bad_records.extend(done.bad_records);
        pending.round_end = done.round_end.or(pending.round_end.take());
        self.announce(&mut state)
    }

    fn announce(&self, state: &mut State) -> (Urgency, bool) {
        let ends = state.outstanding == 0 && !state.more && !state.ended;
        if ends {
            state.ended = true;
            state.pending.final_report = true;
        }
        let urgency = match (std::mem::replace(&mut state.announced, true), ends || state.pending_values >= PENDING_VALUES_MAX) {
            (_, true) => Urgency::Now,
            (false, false) => Urgency::Soon,
            (true, false) => Urgency::AlreadyKnown,
        };
        (urgency, ends)
    }

    /// What is to be told now.
    pub(super) fn take_pending(&self) -> LeaseProgress {
        let mut state = self.state();
        state.announced = false;
        state.pending_values = 0;
        LeaseProgress { lease: Some(self.key.into()), ..std::mem::take(&mut state.pending) }
    }
}

/// Chunks mostly come in order; joining neighbours keeps the message small.
fn append(all: &mut Vec<TaskResults>, results: TaskResults) {
    if let Some(last) = all.last_mut()
        && last.first_task + last.task_count == results.first_task
        && last.tallies.len() == results.tallies.len()
    {
        crate::counters::append(&mut last.counters, last.task_count, results.counters, results.task_count);
        last.task_count += results.task_count;
        for (column, more) in last.tallies.iter_mut().zip(results.tallies) {
            column.values.extend(more.values);
        }
    } else {
        all.push(results);
    }
}

fn append_failure(all: &mut Vec<TaskFailure>, failure: TaskFailure) {
    match all.last_mut() {
        Some(last)
            if last.first_task + last.task_count == failure.first_task
                && last.class == failure.class
                && last.message == failure.message =>
        {
            last.task_count += failure.task_count;
        }
        _ => all.push(failure),
    }
}

impl Shared {
    /// Starts a lease, or adds to one whose first message came earlier.
    pub(super) fn enqueue(&self, run: RunLease, mut descriptors: Vec<OwnedFd>, stage: &Arc<Stage>) -> Result<(), String> {
        let key: LeaseKey = run.lease.ok_or("RunLease without a lease")?.into();
        let output = if run.has_output { Some(descriptors.pop().ok_or("RunLease without its output file")?) } else { None };
        let output = output.map(Output::new);
        let (own, output) = if run.own_output { (output, None) } else { (None, output) };
        let lease = self.queue.lease_or_insert(key, || Arc::new(Lease::new(key, stage.clone(), output)));
        let (urgency, ended) = {
            let mut state = lease.state();
            state.outstanding += run.task_count;
            state.more = run.more && !lease.stopped.load(Ordering::Relaxed);
            if run.task_count > 0 { (Urgency::AlreadyKnown, false) } else { lease.announce(&mut state) }
        };
        if run.task_count > 0 {
            let files = Mapped::all(descriptors, &run.inputs, self.limited);
            let inputs = Inputs { first_task: run.first_task, files, tasks: run.inputs, output: own };
            let memory = memory(&lease.stage, &inputs);
            self.queue.push(Segment {
                lease,
                inputs: Arc::new(inputs),
                next: run.first_task,
                end: run.first_task + run.task_count,
                memory,
            });
        } else {
            self.told(&lease, urgency, ended);
        }
        Ok(())
    }

    /// Drops what has not started; what runs ends with its task. A lease that is not known has ended already.
    pub(super) fn stop(&self, key: LeaseKey) {
        let Some(Dropped { lease, ranges }) = self.queue.stop(key) else { return };
        lease.state().more = false;
        let mut done = Done::default();
        for (first_task, end) in ranges {
            done.stopped(first_task, end - first_task);
        }
        self.deliver(&lease, done);
    }

    pub(super) fn deliver(&self, lease: &Arc<Lease>, done: Done) {
        let (urgency, ended) = lease.deliver(done);
        self.told(lease, urgency, ended);
    }

    fn told(&self, lease: &Arc<Lease>, urgency: Urgency, ended: bool) {
        if ended {
            self.queue.forget(lease.key);
        }
        self.writer.announce(lease, urgency);
    }
}

/// What the system maps beyond both ends of a split, about: it maps large pages of the page cache whole.
const MAPPED_AROUND: u64 = 1 << 20;

/// Of the task that takes most, with its input, which is mapped. What a compressed file holds is counted when it is known.
fn memory(stage: &Stage, inputs: &Inputs) -> u64 {
    let task = |task: &ExecutorInput| {
        let input = task.bytes.max(task.blocks.iter().map(|block| block.bytes).sum());
        let around = if task.bytes > 0 && task.blocks.is_empty() { MAPPED_AROUND } else { 0 };
        input.saturating_add(around).saturating_add(stage.prepared.as_ref().map_or(0, |prepared| prepared.memory(input)))
    };
    inputs.tasks.iter().map(task).max().unwrap_or(0)
}

pub(super) fn stopped_failure(first_task: u64, task_count: u64) -> TaskFailure {
    TaskFailure { first_task, task_count, class: FailureClass::Stopped.into(), message: "stopped before it ran".into(), source_worker: 0 }
}
