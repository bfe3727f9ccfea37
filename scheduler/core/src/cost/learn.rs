//! From reports to samples. A lease that reports several times is one sample, taken with its last report.

use super::gauge::Gauge;
use super::{Key, Sample, kernel_name, model_of, of_tasks, size_class};
use crate::ids::TaskRange;
use crate::lease::Lease;
use crate::state::State;
use raftwerk_proto::v1::{FailureClass, Report, StageSpec};

/// What the reports of a live lease have said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Device time, fetching input included.
    pub ns: u64,
    pub units: u64,
    pub tasks: u64,
    /// Something failed, or another lease was first: the time is not that of the tasks.
    pub mixed: bool,
}

impl Spent {
    /// Adds a report of which these tasks were accepted, out of so many offered.
    pub(crate) fn add(&mut self, spec: &StageSpec, report: &Report, accepted: &[TaskRange], offered: u64) {
        let tasks = accepted.iter().map(|range| range.count()).fold(0, u64::saturating_add);
        // What was stopped did not run, so it took no time either.
        let no_time = |class| matches!(class, FailureClass::Stopped | FailureClass::Full);
        self.mixed |= tasks != offered || report.failures.iter().any(|failure| !no_time(failure.class()));
        let counted: Option<u64> =
            accepted.iter().map(|range| of_tasks(spec, *range)).try_fold(0u64, |sum, n| Some(sum.saturating_add(n?)));
        self.units = self.units.saturating_add(counted.unwrap_or(report.input_bytes));
        self.tasks = self.tasks.saturating_add(tasks);
        self.ns = self.ns.saturating_add(report.busy_ns).saturating_add(report.transfer_ns);
    }
}

impl State {
    /// A lease has made its last report.
    pub(crate) fn learn(&mut self, lease: &Lease) {
        let Spent { ns, units, tasks, mixed } = lease.spent;
        if mixed || tasks == 0 || units == 0 {
            return;
        }
        let Some(spec) = self.jobs.get(&lease.job).and_then(|job| job.spec.stages.get(lease.stage as usize)) else { return };
        let (Some(kernel), Some(worker)) = (&spec.kernel, self.workers.get(&lease.worker)) else { return };
        let Some(model) = worker.device(lease.device).map(|device| model_of(device).to_owned()) else { return };
        let key = Key { kernel: kernel_name(kernel), footprint: spec.footprint.clone(), class: size_class(units / tasks), model };
        let gauge = Gauge::around(&self.workers, &key.model, (lease.worker, lease.device));
        let Some(entry) = self.costs.entry(key) else { return };
        let Some(worker) = self.workers.get_mut(&lease.worker) else { return };
        let speed = worker.speeds.entry(lease.device).or_default();
        // Nothing took no time at all.
        let observed = ns.max(1);
        let line = entry.line.at(units);
        let predicted = speed.of(line);
        let judged = entry.can_judge(lease.worker.0, lease.device);
        if judged {
            speed.learn(observed, line);
        }
        let ordinary = gauge.of_model(observed, *speed).max(1);
        entry.taught_by(lease.worker.0, lease.device);
        entry.learn(Sample { units, ns: ordinary }, observed, predicted, self.applied_index);
        if judged && gauge.is_alone() {
            // The line goes where the device is. What both say together stays, or it would be slow twice.
            speed.rebase(line, entry.line.at(units));
        }
    }
}
