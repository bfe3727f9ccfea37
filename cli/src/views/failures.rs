//! Why attempts of a job's tasks have failed lately. Most of such a job goes on, and a person wants to know on which machine something is wrong.

use raftwerk_proto::v1::FailedAttempts;
use serde_json::{Value, json};

use super::names::Names;
use crate::calendar::utc;
use crate::table::{Table, printable};
use crate::units::{counted, group_digits};

/// The newest first.
pub fn table(failures: &[FailedAttempts]) -> Table {
    let names = Names::of(failures.iter().map(|failed| (failed.worker, failed.worker_name.as_str())));
    let mut newest: Vec<&FailedAttempts> = failures.iter().collect();
    newest.sort_by_key(|failed| std::cmp::Reverse(failed.at_ms));
    let mut table = Table::new(["failed attempts of", ">times", "worker", ">device", "last", "reason"]);
    for failed in newest {
        table.row([
            tasks(failed).into(),
            group_digits(failed.times).into(),
            names.get(failed.worker).into(),
            failed.device.to_string().into(),
            utc(failed.at_ms).into(),
            reason(failed).into(),
        ]);
    }
    table
}

/// In one line of words.
pub fn line(failed: &FailedAttempts) -> String {
    let times = if failed.times > 1 { format!(" ({})", counted(failed.times, "time")) } else { String::new() };
    let (worker, name, device) = (failed.worker, printable(&failed.worker_name), failed.device);
    format!("{} on worker {worker} ({name}) device {device}{times}: {}", printable(&tasks(failed)), reason(failed))
}

fn tasks(failed: &FailedAttempts) -> String {
    match failed.task_count {
        0 | 1 => format!("{} task {}", failed.stage, failed.first_task),
        count => format!("{} tasks {}-{}", failed.stage, failed.first_task, failed.first_task.saturating_add(count - 1)),
    }
}

/// A table has one line for it.
fn reason(failed: &FailedAttempts) -> String {
    printable(&failed.reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / "))
}

pub fn to_json(failed: &FailedAttempts) -> Value {
    json!({
        "stage": failed.stage, "first_task": failed.first_task, "task_count": failed.task_count, "times": failed.times,
        "worker": failed.worker, "worker_name": failed.worker_name, "device": failed.device, "reason": failed.reason, "at_ms": failed.at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(first_task: u64, task_count: u64, times: u64) -> FailedAttempts {
        FailedAttempts {
            stage: "map".into(),
            first_task,
            task_count,
            worker: 7,
            worker_name: "box".into(),
            device: 1,
            reason: "the executor died (signal 9)\n  last words \u{1b}[2J\n".into(),
            times,
            at_ms: first_task,
        }
    }

    #[test]
    fn a_line_says_what_failed_where_and_how_often_and_sends_nothing_to_the_terminal() {
        assert_eq!(line(&failed(3, 1, 1)), "map task 3 on worker 7 (box) device 1: the executor died (signal 9) / last words \\u{1b}[2J");
        assert!(line(&failed(3, 4, 12)).starts_with("map tasks 3-6 on worker 7 (box) device 1 (12 times): "));
    }

    #[test]
    fn the_newest_stands_first() {
        let table = table(&[failed(3, 1, 1), failed(8, 2, 5)]).render(false);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("map tasks 8-9") && lines[2].starts_with("map task 3 "), "{table}");
    }
}
