//! From what an executor says to what the log stores: checked against the lease, and cut to a bounded size.
use crate::counters;
use crate::ranges::TaskRanges;
use prost::Message;
use raftwerk_proto::v1::{BadRecord, FailureClass, LeaseProgress, OutputPart, RoundEnd, TallyValues, TaskFailure, TaskResults};
use std::collections::BTreeMap;

/// Bytes of one report at most, by a bound that is cheap to compute. Half of what an entry of the log may have.
pub(super) const REPORT_BYTES: usize = 512 << 10;
/// A tally value is a varint.
const VALUE_BYTES: usize = 10;
/// A failure's text goes into the log; more than this belongs into the attempt's log.
const MESSAGE_BYTES: usize = 2 << 10;
/// What is shown of a bad record.
const RECORD_BYTES: usize = 256;
/// Bad records of one task that are told; the scheduler keeps no more of a stage.
const BAD_RECORDS: usize = 100;

/// A report without its address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Body {
    pub(super) results: Vec<TaskResults>,
    pub(super) failures: Vec<TaskFailure>,
    pub(super) parts: Vec<OutputPart>,
    pub(super) final_report: bool,
    pub(super) busy_ns: u64,
    pub(super) input_bytes: u64,
    pub(super) transfer_ns: u64,
    /// Who keeps a second copy of the shuffle data, and the incarnation that confirmed it.
    pub(super) copy: (u64, u64),
    /// Beside the result of the task that ends a round.
    pub(super) round_end: Option<RoundEnd>,
    /// Of the tasks in `results`, and of those in `failures` that failed by them.
    pub(super) bad_records: Vec<BadRecord>,
}

/// Takes the reported tasks out of `remaining`; what is not in there (reported twice, or not of this lease) is dropped, because an
/// executor runs users' code and is not trusted. A final message is completed: tasks it says nothing about were not run.
pub(super) fn bodies(progress: LeaseProgress, remaining: &mut TaskRanges, stopped: bool) -> Vec<Body> {
    let parts = progress.parts.into_iter().map(|part| (u64::from(part.partition), part)).collect();
    let bad_records = by_task(progress.bad_records);
    let mut cutter = Cutter { parts, bad_records, round_end: progress.round_end, ..Cutter::default() };
    for results in progress.results {
        let counted = results.counters.as_ref().is_none_or(|counters| counters.are_of(results.task_count));
        if counted && results.tallies.iter().all(|tally| tally.values.len() as u64 == results.task_count) {
            for (first, count) in remaining.take(results.first_task, results.task_count) {
                cutter.results(&results, first, count);
            }
        }
    }
    for failure in progress.failures {
        for (first_task, task_count) in remaining.take(failure.first_task, failure.task_count) {
            let mut message = failure.message.clone();
            shorten(&mut message);
            cutter.failure(TaskFailure { first_task, task_count, message, ..failure });
        }
    }
    if progress.final_report {
        let (class, message) = if stopped {
            (FailureClass::Stopped, "stopped before it ran")
        } else {
            (FailureClass::Worker, "the executor did not report it")
        };
        for (first_task, task_count) in std::mem::take(remaining).iter() {
            cutter.failure(TaskFailure { first_task, task_count, class: class.into(), message: message.into(), source_worker: 0 });
        }
    }
    let mut bodies = cutter.finish();
    bodies.iter_mut().for_each(|body| body.copy = (progress.copy_worker, progress.copy_incarnation));
    if bodies.is_empty() && !progress.final_report && progress.busy_ns == 0 {
        return bodies;
    }
    if bodies.is_empty() {
        bodies.push(Body::default());
    }
    bodies[0].busy_ns = progress.busy_ns;
    bodies[0].input_bytes = progress.input_bytes;
    bodies[0].transfer_ns = progress.transfer_ns;
    if let Some(last) = bodies.last_mut() {
        last.final_report = progress.final_report;
    }
    bodies
}

/// Bounded, because an executor is not trusted.
fn by_task(records: Vec<BadRecord>) -> BTreeMap<u64, Vec<BadRecord>> {
    let mut all: BTreeMap<u64, Vec<BadRecord>> = BTreeMap::new();
    for mut record in records {
        let of_task = all.entry(record.task).or_default();
        if of_task.len() < BAD_RECORDS {
            shorten(&mut record.reason);
            record.data.truncate(RECORD_BYTES);
            of_task.push(record);
        }
    }
    all
}

fn shorten(message: &mut String) {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push_str(" ..");
    }
}

#[derive(Default)]
struct Cutter {
    bodies: Vec<Body>,
    current: Body,
    bytes: usize,
    /// Parts by task; a part travels with the result of its task.
    parts: BTreeMap<u64, OutputPart>,
    /// Likewise.
    bad_records: BTreeMap<u64, Vec<BadRecord>>,
    /// Travels with the first result: there is one task that ends a round.
    round_end: Option<RoundEnd>,
}

impl Cutter {
    fn room_for(&mut self, bytes: usize) {
        if self.bytes > 0 && self.bytes + bytes > REPORT_BYTES {
            self.bodies.push(std::mem::take(&mut self.current));
            self.bytes = 0;
        }
        self.bytes += bytes;
    }

    fn results(&mut self, results: &TaskResults, first: u64, count: u64) {
        let columns = results.tallies.len() + results.counters.as_ref().map_or(0, counters::long_columns);
        let per_task = columns * VALUE_BYTES;
        let (mut at, end) = (first, first + count);
        while at < end {
            let with_part = self.parts.range(at..end).next().map(|(&task, _)| task);
            let with_bad = self.bad_records.range(at..end).next().map(|(&task, _)| task);
            let n = match with_part.into_iter().chain(with_bad).min() {
                Some(task) if task == at => 1,
                Some(task) => task - at,
                None => end - at,
            };
            let fits = ((REPORT_BYTES / 2) / per_task.max(1)).max(1) as u64;
            let n = if per_task == 0 { n } else { n.min(fits) };
            let part = if n == 1 { self.parts.remove(&at) } else { None };
            let bad_records = if n == 1 { self.bad_records.remove(&at).unwrap_or_default() } else { Vec::new() };
            let round_end = self.round_end.take();
            // Beside the numbers of all tasks alike.
            let bytes = 64
                + per_task * n as usize
                + bad_records.iter().map(|record| record.encoded_len() + 4).sum::<usize>()
                + part.as_ref().map_or(0, Message::encoded_len)
                + round_end.as_ref().map_or(0, Message::encoded_len);
            if bytes > REPORT_BYTES {
                self.failure(too_long(at, bytes));
                at += n;
                continue;
            }
            self.room_for(bytes);
            self.current.parts.extend(part);
            self.current.bad_records.extend(bad_records);
            self.current.round_end = round_end.or(self.current.round_end.take());
            self.current.results.push(slice(results, at, n));
            at += n;
        }
    }

    fn failure(&mut self, failure: TaskFailure) {
        let end = failure.first_task.saturating_add(failure.task_count);
        let blamed: Vec<u64> = self.bad_records.range(failure.first_task..end).map(|(&task, _)| task).collect();
        let mut bytes = 64 + failure.message.len();
        let mut bad_records = Vec::new();
        // The failure itself must be told; of many long records the first ones do.
        for record in blamed.into_iter().filter_map(|task| self.bad_records.remove(&task)).flatten() {
            let more = record.encoded_len() + 4;
            if bytes + more > REPORT_BYTES {
                break;
            }
            bytes += more;
            bad_records.push(record);
        }
        self.room_for(bytes);
        self.current.failures.push(failure);
        self.current.bad_records.extend(bad_records);
    }

    fn finish(mut self) -> Vec<Body> {
        if self.bytes > 0 {
            self.bodies.push(self.current);
        }
        self.bodies
    }
}

/// What no report can carry would be sent, and refused, for ever; every device makes the same again.
fn too_long(task: u64, bytes: usize) -> TaskFailure {
    let message = format!(
        "the result of task {task} takes up to {bytes} bytes of a report, which holds {REPORT_BYTES}: too many tallies, or too long a preview"
    );
    TaskFailure { first_task: task, task_count: 1, class: FailureClass::Fatal.into(), message, source_worker: 0 }
}

fn slice(results: &TaskResults, first_task: u64, task_count: u64) -> TaskResults {
    let from = (first_task - results.first_task) as usize;
    let to = from + task_count as usize;
    let tallies = results.tallies.iter().map(|tally| TallyValues { values: tally.values[from..to].to_vec() }).collect();
    let counters = results.counters.as_ref().map(|counters| counters::slice(counters, from, to));
    TaskResults { first_task, task_count, tallies, counters }
}
