//! Which device ran which tasks. Kept for bounded kernels only, whose bytes depend on it within their bound.

use crate::ids::{TaskRange, WorkerId};
use crate::job::Job;
use raftwerk_proto::v1::{DeviceShare, TaskSpan};

/// Spans that one device's share keeps; a device that is leased single tasks out of the middle of a stage could have a million.
pub const MOST_SPANS: usize = 1000;

/// These tasks of the stage were accepted from this device, whose share exists. They were another's if they had to run again.
pub(crate) fn record(job: &mut Job, (stage, worker, device): (u32, WorkerId, u32), ranges: &[TaskRange]) {
    let index = stage as usize;
    if !job.spec.stages[index].kernel.as_ref().is_some_and(|kernel| kernel.bounded) {
        return;
    }
    if job.stages[index].generation > 0 {
        let of_stage = (stage, WorkerId(0), 0)..=(stage, WorkerId(u64::MAX), u32::MAX);
        for (_, share) in job.shares.range_mut(of_stage) {
            ranges.iter().for_each(|range| take_out(&mut share.spans, *range));
        }
    }
    if let Some(share) = job.shares.get_mut(&(stage, worker, device)) {
        ranges.iter().for_each(|range| add(share, *range));
    }
}

fn end(span: &TaskSpan) -> u64 {
    span.first_task.saturating_add(span.task_count)
}

fn span(first: u64, end: u64) -> TaskSpan {
    TaskSpan { first_task: first, task_count: end - first }
}

/// Adds a range that the share does not have, and joins it with its neighbours.
fn add(share: &mut DeviceShare, range: TaskRange) {
    let spans = &mut share.spans;
    let at = spans.partition_point(|span| span.first_task < range.first);
    let after = spans.get(at).is_some_and(|next| next.first_task == range.end);
    let before = at.checked_sub(1).filter(|before| end(&spans[*before]) == range.first);
    match (before, after) {
        (Some(before), true) => {
            spans[before].task_count += range.count() + spans[at].task_count;
            spans.remove(at);
        }
        (Some(before), false) => spans[before].task_count += range.count(),
        (None, true) => spans[at] = span(range.first, end(&spans[at])),
        (None, false) if spans.len() < MOST_SPANS => spans.insert(at, span(range.first, range.end)),
        (None, false) => share.spans_dropped = share.spans_dropped.saturating_add(range.count()),
    }
}

fn take_out(spans: &mut Vec<TaskSpan>, range: TaskRange) {
    if !spans.iter().any(|span| span.first_task < range.end && range.first < end(span)) {
        return;
    }
    let cut = |old: TaskSpan| {
        let left = (old.first_task < range.first).then(|| span(old.first_task, end(&old).min(range.first)));
        let right = (end(&old) > range.end).then(|| span(old.first_task.max(range.end), end(&old)));
        left.into_iter().chain(right)
    };
    *spans = std::mem::take(spans).into_iter().flat_map(cut).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spans_are_the_set_of_tasks_in_as_few_pieces_as_can_be(steps in prop::collection::vec((0u64..60, 1u64..12, any::<bool>()), 0..60)) {
            let mut share = DeviceShare::default();
            let mut model = [false; 80];
            for (first, count, adds) in steps {
                let range = TaskRange { first, end: first + count };
                let taken = (first..range.end).any(|task| model[task as usize]);
                if adds && !taken {
                    add(&mut share, range);
                } else {
                    take_out(&mut share.spans, range);
                }
                (first..range.end).for_each(|task| model[task as usize] = adds && !taken);
                let mut expected: Vec<TaskSpan> = Vec::new();
                for task in (0..80u64).filter(|task| model[*task as usize]) {
                    match expected.last_mut() {
                        Some(last) if end(last) == task => last.task_count += 1,
                        _ => expected.push(span(task, task + 1)),
                    }
                }
                prop_assert_eq!(&share.spans, &expected);
            }
        }
    }

    #[test]
    fn a_share_in_more_pieces_than_are_kept_says_how_many_tasks_are_missing() {
        let mut share = DeviceShare::default();
        for task in 0..MOST_SPANS as u64 + 3 {
            add(&mut share, TaskRange { first: 2 * task, end: 2 * task + 1 });
        }
        assert_eq!((share.spans.len(), share.spans_dropped), (MOST_SPANS, 3));
    }
}
