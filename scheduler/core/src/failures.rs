//! Why attempts of a stage's tasks have failed lately: for the person who looks at a job that goes on, or went on, all the same.
//!
//! Tasks that are given up have their evidence ([`crate::trouble`]); a task that is tried again and succeeds leaves nothing but this. Whoever fails over and
//! over says the same each time, so that equal words of one device are one line that counts.

use crate::ids::{TaskRange, Timestamp, WorkerId};
use raftwerk_proto::v1::FailedAttempts;

/// Lines that are kept of each stage, the newest ones: enough to see what is wrong, and little enough for replicated state.
pub const FAILURES_KEPT: usize = 8;
/// Longest reason. The last words of an executor come first.
pub const REASON_BYTES: usize = 512;

/// An attempt at these tasks failed on a device.
pub(crate) struct Attempt<'a> {
    pub tasks: TaskRange,
    pub worker: WorkerId,
    pub worker_name: &'a str,
    pub device: u32,
    pub reason: &'a str,
    pub at: Timestamp,
}

/// Keeps the attempt as the newest one.
pub(crate) fn keep(kept: &mut Vec<FailedAttempts>, attempt: &Attempt<'_>) {
    let reason = cut(attempt.reason);
    let is_same = |line: &FailedAttempts| line.worker == attempt.worker.0 && line.device == attempt.device && line.reason == reason;
    let before = kept.iter().position(is_same).map_or(0, |place| kept.remove(place).times);
    if kept.len() == FAILURES_KEPT {
        kept.remove(0);
    }
    kept.push(FailedAttempts {
        stage: String::new(),
        first_task: attempt.tasks.first,
        task_count: attempt.tasks.count(),
        worker: attempt.worker.0,
        worker_name: attempt.worker_name.to_owned(),
        device: attempt.device,
        reason: reason.to_owned(),
        times: before.saturating_add(1),
        at_ms: attempt.at.0,
    });
}

fn cut(reason: &str) -> &str {
    let end = (0..=REASON_BYTES.min(reason.len())).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(first: u64, worker: u64, reason: &str) -> Attempt<'_> {
        let tasks = TaskRange { first, end: first + 2 };
        Attempt { tasks, worker: WorkerId(worker), worker_name: "box", device: 0, reason, at: Timestamp(first) }
    }

    #[test]
    fn equal_reasons_of_one_device_are_counted_and_the_newest_stay() {
        let mut kept = Vec::new();
        for round in 0..3 {
            keep(&mut kept, &attempt(round, 1, "boom"));
            keep(&mut kept, &attempt(round, 2, "boom"));
        }
        let lines: Vec<_> = kept.iter().map(|line| (line.worker, line.times, line.first_task, line.task_count, line.at_ms)).collect();
        assert_eq!(lines, [(1, 3, 2, 2, 2), (2, 3, 2, 2, 2)]);
        let others: Vec<String> = (0..FAILURES_KEPT).map(|number| format!("other {number}")).collect();
        others.iter().for_each(|reason| keep(&mut kept, &attempt(9, 1, reason)));
        assert_eq!(kept.iter().map(|line| &line.reason).collect::<Vec<_>>(), others.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut kept = Vec::new();
        keep(&mut kept, &attempt(0, 1, &"ä".repeat(400)));
        keep(&mut kept, &attempt(0, 1, &"ä".repeat(500)));
        assert_eq!((kept.len(), kept[0].reason.len(), kept[0].times), (1, REASON_BYTES, 2));
        keep(&mut kept, &attempt(0, 1, &format!("a{}", "ä".repeat(400))));
        assert_eq!(kept[1].reason.len(), REASON_BYTES - 1);
    }
}
