//! What the tasks of a stage have read and made: exact sums over accepted tasks, and the first records that could not be read.
//!
//! A task is counted when it is accepted for the first time, from the report that is accepted ([`Stage::counted`], as with tallies): what ran twice,
//! lost a race or had to be made again because its shuffle data was lost counts once.

use crate::ids::{LeaseId, TaskRange};
use crate::stage::Stage;
use raftwerk_proto::v1::{BadRecord, FailureClass, StageCounters, StageSpec, TaskCounters, TaskFailure, stage_input::Source};
use std::collections::BTreeMap;

/// Records that are kept of each stage, the first ones of its input: enough to see what is wrong, and little enough for replicated state.
pub const BAD_RECORDS_KEPT: usize = 100;
/// How many of them a job that fails for them names.
const NAMED: usize = 3;

/// Bad records by task, and by their place in its input.
pub type BadRecords = BTreeMap<(u64, u64), BadRecord>;

/// Adds what was `told` of the tasks of `of` for those in `part`, which lies within it.
pub(crate) fn add(sums: &mut StageCounters, told: &TaskCounters, of: TaskRange, part: TaskRange) {
    let (from, until) = ((part.first - of.first) as usize, (part.end - of.first) as usize);
    for (sum, column) in sums.numbers_mut().into_iter().zip(told.columns()) {
        let more = match column.as_slice() {
            [] => 0,
            [same] => same.saturating_mul(part.count()),
            each => each.get(from..until).unwrap_or_default().iter().fold(0, |sum: u64, value| sum.saturating_add(*value)),
        };
        *sum = sum.saturating_add(more);
    }
}

/// Keeps a record if it is among the first ones. Which ones these are does not depend on the order in which tasks are accepted.
pub(crate) fn keep(kept: &mut BadRecords, record: BadRecord) {
    kept.insert((record.task, record.offset), record);
    if kept.len() > BAD_RECORDS_KEPT {
        kept.pop_last();
    }
}

/// Tasks of the lease that have failed for good by what they read: their bad records are kept too, because the job may fail by them.
pub(crate) fn failed_by_input(stage: &Stage, lease: LeaseId, tasks: TaskRange, failures: &[TaskFailure]) -> Vec<TaskRange> {
    let for_good = failures.iter().filter(|failure| matches!(failure.class(), FailureClass::Fatal | FailureClass::Input));
    let ranges = for_good.filter_map(|failure| TaskRange::new(failure.first_task, failure.task_count));
    ranges.flat_map(|range| stage.held_by(range.intersect(tasks), lease).into_iter().map(|(held, _)| held)).collect()
}

/// How many records of its input a stage may leave out.
pub fn bad_records_allowed(spec: &StageSpec) -> u64 {
    match spec.inputs.first().and_then(|input| input.source.as_ref()) {
        Some(Source::Files(files)) => files.bad_records,
        _ => 0,
    }
}

/// Why the job cannot go on: more records were left out than it allows.
pub(crate) fn too_many(spec: &StageSpec, stage: &Stage) -> Option<String> {
    let (found, allowed) = (stage.counters.bad_records, bad_records_allowed(spec));
    if found <= allowed {
        return None;
    }
    let place = |record: &BadRecord| match (record.line, record.record) {
        (0, 0) => format!("{} byte {}", record.path, record.offset),
        // Rows of files of columns are told by those before them; records of one byte, which would look alike, are never bad.
        (0, number) if number == record.offset.saturating_add(1) => format!("{} row {number}", record.path),
        (0, number) => format!("{} record {number} (byte {})", record.path, record.offset),
        (line, _) => format!("{} line {line} (byte {})", record.path, record.offset),
    };
    let named = stage.bad_records.values().take(NAMED).map(|record| format!("{}: {}", place(record), record.reason));
    let first = named.collect::<Vec<_>>().join("; ");
    Some(format!(
        "{found} records of the input of stage '{}' cannot be read so far, and bad_records = {allowed} allows no more; the first: {first}",
        spec.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_nothing_or_one_number_for_all_or_one_for_each() {
        let told = TaskCounters { records_in: vec![5], bytes_in: vec![1, 2, 3, 4], ..TaskCounters::default() };
        let of = TaskRange { first: 10, end: 14 };
        let mut sums = StageCounters::default();
        add(&mut sums, &told, of, TaskRange { first: 11, end: 13 });
        assert_eq!(sums, StageCounters { records_in: 10, bytes_in: 5, ..StageCounters::default() });
        add(&mut sums, &TaskCounters { records_in: vec![u64::MAX], ..told }, of, of);
        assert_eq!((sums.records_in, sums.bytes_in), (u64::MAX, 15), "what nobody can have read does not overflow");
    }

    #[test]
    fn the_first_bad_records_are_kept_whatever_order_they_come_in() {
        let record = |task, offset| BadRecord { task, offset, ..BadRecord::default() };
        let all: Vec<BadRecord> = (0..150).map(|n| record(n / 10, n % 10 * 7)).collect();
        let (mut forward, mut backward) = (BadRecords::new(), BadRecords::new());
        all.iter().for_each(|record| keep(&mut forward, record.clone()));
        all.iter().rev().for_each(|record| keep(&mut backward, record.clone()));
        assert_eq!(forward, backward);
        assert!(forward.values().eq(&all[..BAD_RECORDS_KEPT]));
    }
}
