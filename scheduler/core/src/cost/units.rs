//! How much there is in a task: integers of an index range, bytes of a split or of a partition.

use crate::ids::TaskRange;
use crate::split::index_of;
use raftwerk_proto::v1::{StageSpec, stage_input::Source};

/// Units of a whole stage, where its input says so: an index range or files. A partition's bytes are known when it has been read.
pub fn of_stage(spec: &StageSpec) -> Option<u64> {
    match spec.inputs.first()?.source.as_ref()? {
        Source::Range(range) => Some(range.count),
        Source::Files(files) => Some(files.listing.iter().map(|f| f.bytes.saturating_sub(f.data_offset)).fold(0, u64::saturating_add)),
        Source::Stage(_) => None,
    }
}

/// Units of some tasks of an index range; `None` where only who has read the input can say.
pub fn of_tasks(spec: &StageSpec, tasks: TaskRange) -> Option<u64> {
    let Source::Range(range) = spec.inputs.first()?.source.as_ref()? else { return None };
    let count = range.tasks.min(range.count);
    let tasks = tasks.intersect(TaskRange { first: 0, end: count });
    if tasks.is_empty() {
        return Some(0);
    }
    let (first, _) = index_of(range, tasks.first);
    let (last, length) = index_of(range, tasks.end - 1);
    Some((last - first).saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{IndexRange, StageInput};

    #[test]
    fn tasks_of_a_range_have_all_of_its_integers() {
        for (start, count, tasks) in [(0, 1000, 7), (5, 7, 7), (0, 3, 10), (u64::MAX - 100, 100, 3)] {
            let source = Some(Source::Range(IndexRange { start, count, tasks }));
            let spec = StageSpec { inputs: vec![StageInput { name: "i".into(), source }], ..StageSpec::default() };
            let all = tasks.min(count);
            let of = |first, end| of_tasks(&spec, TaskRange { first, end }).expect("a range");
            assert_eq!(of(0, all), count);
            assert_eq!((0..all).map(|t| of(t, t + 1)).sum::<u64>(), count);
            assert_eq!(of(0, u64::MAX), count, "whatever is asked for");
            assert_eq!(of_stage(&spec), Some(count));
        }
    }
}
