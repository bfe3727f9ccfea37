//! Does nothing, provably: every task returns one number that only its own range gives.
//!
//! Shapes    index range [start, start + count) -> tallies value = start + (start + 1) + .. ; with ranges of one index, n tasks sum to
//!           n(n - 1) / 2, so a task that ran twice or never shows in the sum
//! Limits    the sum of one task's range fits in u64
//! Agreement exact; no GPU twin, since there is nothing to compute
//! Errors    a range whose sum exceeds u64; the task that `fail_task` or `crash_task` names (to see how a failing job looks)
//! Source    -

use std::time::Duration;

use crate::api::*;
use crate::output;
use crate::params::Resolved;

#[cfg(test)]
mod tests;

pub struct Noop;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "noop",
    version: 1,
    kind: Kind::Map,
    summary: "Returns the sum of each task's index range; for measuring and trying out scheduling",
    accepts: Accepts::Index,
    params: &[
        ParamSpec {
            name: "sleep_us",
            kind: ParamType::U64 { min: 0, max: 60_000_000 },
            default: Some("0"),
            doc: "microseconds that each task sleeps",
        },
        ParamSpec {
            name: "print",
            kind: ParamType::Choice(&["no", "yes"]),
            default: Some("no"),
            doc: "print \"task N at index I\" to the job's log",
        },
        ParamSpec {
            name: "crash_task",
            kind: ParamType::Text,
            default: Some(""),
            doc: "number of a task that ends its executor; empty: none",
        },
        ParamSpec { name: "fail_task", kind: ParamType::Text, default: Some(""), doc: "number of a task that fails; empty: none" },
    ],
    tallies: &["value"],
    shuffles: false,
    formats: &[],
    reduces_with: &[],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for Noop {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let task = |name: &str| match params.text(name) {
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| {
                KernelError::Param(format!("kernel 'noop': parameter '{name}' must be empty or the number of a task, not '{number}'"))
            }),
        };
        let (fail_task, crash_task) = (task("fail_task")?, task("crash_task")?);
        let sleep = Duration::from_micros(params.u64("sleep_us"));
        Ok(Box::new(PreparedNoop { sleep, print: params.text("print") == "yes", fail_task, crash_task }))
    }
}

struct PreparedNoop {
    sleep: Duration,
    print: bool,
    fail_task: Option<u64>,
    crash_task: Option<u64>,
}

impl Prepared for PreparedNoop {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Index { start, count } = task.input else {
            return Err(KernelError::Input("noop reads an index range".into()));
        };
        if !self.sleep.is_zero() {
            std::thread::sleep(self.sleep);
        }
        if self.print {
            output::print(&format!("task {} at index {start}", task.number));
        }
        if self.crash_task == Some(task.number) {
            output::print(&format!("task {} ends its executor because parameter 'crash_task' names it", task.number));
            std::process::abort();
        }
        if self.fail_task == Some(task.number) {
            return Err(KernelError::Failed(format!("task {} fails because parameter 'fail_task' names it", task.number)));
        }
        let value = range_sum(start, count)
            .ok_or_else(|| KernelError::Input(format!("the sum of the {count} integers from {start} exceeds 64 bits")))?;
        Ok(TaskOutput { tallies: vec![value], ..TaskOutput::default() })
    }
}

fn range_sum(start: u64, count: u64) -> Option<u64> {
    let (start, count) = (u128::from(start), u128::from(count));
    let sum = start.checked_mul(count)?.checked_add(count * count.saturating_sub(1) / 2)?;
    u64::try_from(sum).ok()
}
