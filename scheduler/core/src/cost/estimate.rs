//! What a lease is expected to cost on a device, from the best that is known.

use super::entry::{Entry, Key};
use super::lent::Lent;
use super::{CostModel, ORDINARY, kernel_name, model_of, of_stage, size_class};
use crate::ids::WorkerId;
use crate::job::Job;
use crate::worker::Worker;
use raftwerk_proto::v1::{Device, StageSpec};
use std::cell::OnceCell;
use std::collections::BTreeMap;

const FS_PER_NS: u128 = 1_000_000;

/// Where an estimate comes from, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Enough leases of this kernel, footprint and size on this model.
    Model,
    /// What the device has done of this very stage.
    Job,
    /// The same kernel on the same model with other parameters or tasks of another size.
    Kin,
    /// Others of its model, or a few leases of it: provisional.
    Peers,
    /// Others of its class: provisional.
    Class,
}

/// Of one stage on one device, in device time: of one thread, on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Of each lease, however long.
    pub fixed_ns: u64,
    /// Of each task; femtoseconds.
    pub task_fs: u128,
    pub spread_permille: u64,
    pub source: Source,
}

impl Estimate {
    pub fn of_tasks(&self, tasks: u64) -> u64 {
        let variable = part(self.task_fs, tasks, FS_PER_NS as u64);
        u64::try_from(variable.saturating_add(u128::from(self.fixed_ns))).unwrap_or(u64::MAX)
    }

    /// One more task.
    pub fn task_ns(&self) -> u64 {
        u64::try_from(self.task_fs / FS_PER_NS).unwrap_or(u64::MAX).max(1)
    }

    /// The most tasks that take no longer than this; at least one.
    pub fn tasks_within(&self, ns: u64) -> u64 {
        let rest = u128::from(ns.saturating_sub(self.fixed_ns)) * FS_PER_NS;
        u64::try_from(rest / self.task_fs.max(1)).unwrap_or(u64::MAX).max(1)
    }

    /// So many tasks that the fixed part is at most `percent` of the whole.
    pub fn tasks_that_pay(&self, percent: u64) -> u64 {
        let worth = u128::from(self.fixed_ns) * u128::from(100 - percent.clamp(1, 99)) / u128::from(percent.clamp(1, 99));
        let tasks = worth.saturating_mul(FS_PER_NS).div_ceil(self.task_fs.max(1));
        u64::try_from(tasks).unwrap_or(u64::MAX).max(1)
    }

    /// The same for one that takes at least this for a task.
    pub fn at_least(self, task_ns: u64) -> Estimate {
        Estimate { task_fs: self.task_fs.max(u128::from(task_ns) * FS_PER_NS), ..self }
    }

    fn scaled(self, permille: u64) -> Estimate {
        if permille == ORDINARY {
            return self;
        }
        let fixed = part(u128::from(self.fixed_ns), permille, ORDINARY);
        let task_fs = part(self.task_fs, permille, ORDINARY).max(1);
        Estimate { fixed_ns: u64::try_from(fixed).unwrap_or(u64::MAX), task_fs, ..self }
    }
}

/// `value * times / of`. A round asks for tens of thousands of these, and nearly all of them fit 64 bits, where dividing takes a tenth of the time.
fn part(value: u128, times: u64, of: u64) -> u128 {
    match u64::try_from(value).ok().and_then(|value| value.checked_mul(times)) {
        Some(product) => u128::from(product / of),
        None => value.saturating_mul(u128::from(times)) / u128::from(of),
    }
}

/// Of a stage on an ordinary device of one model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    own: Option<Estimate>,
    kin: Option<Estimate>,
}

/// What is known of one stage, by model of device; made once for many devices.
pub struct StageCosts<'a> {
    workers: &'a BTreeMap<WorkerId, Worker>,
    job: Option<&'a Job>,
    stage: u32,
    units_per_task: Option<u64>,
    /// Believed entries of the stage's own key.
    own: BTreeMap<&'a str, &'a Entry>,
    /// Entries of the stage's own key that are not believed yet.
    few: BTreeMap<&'a str, &'a Entry>,
    /// Of other footprints and classes, the nearest one of each model.
    kin: BTreeMap<&'a str, &'a Entry>,
    /// How many times as much this stage costs as its kin, as far as the job has shown on any device.
    kin_permille: u64,
    /// Made when the first device asks that has nothing of its own.
    lent: OnceCell<Lent<'a>>,
}

impl<'a> StageCosts<'a> {
    pub fn new(costs: &'a CostModel, workers: &'a BTreeMap<WorkerId, Worker>, job: Option<&'a Job>, stage: u32, spec: &StageSpec) -> Self {
        let units_per_task = units_per_task(job, stage, spec);
        let mut found = StageCosts {
            workers,
            job,
            stage,
            units_per_task,
            own: BTreeMap::new(),
            few: BTreeMap::new(),
            kin: BTreeMap::new(),
            kin_permille: ORDINARY,
            lent: OnceCell::new(),
        };
        let (Some(units), Some(kernel), false) = (units_per_task, &spec.kernel, costs.is_empty()) else { return found };
        let class = size_class(units);
        let distance = |key: &Key| (key.footprint != spec.footprint, key.class.abs_diff(class));
        let mut nearest: BTreeMap<&str, (bool, u32)> = BTreeMap::new();
        for (key, entry) in costs.of_kernel(&kernel_name(kernel)) {
            let model = key.model.as_str();
            if !entry.is_believed() {
                if distance(key) == (false, 0) {
                    found.few.insert(model, entry);
                }
            } else if distance(key) == (false, 0) {
                found.own.insert(model, entry);
            } else if nearest.get(model).is_none_or(|known| distance(key) < *known) {
                nearest.insert(model, distance(key));
                found.kin.insert(model, entry);
            }
        }
        if !found.kin.is_empty() {
            found.kin_permille = found.against_kin(workers).unwrap_or(ORDINARY);
        }
        found
    }

    pub fn units_per_task(&self) -> Option<u64> {
        self.units_per_task
    }

    /// On this device; nothing while nothing is known.
    pub fn of(&self, id: WorkerId, worker: &Worker, device: &Device) -> Option<Estimate> {
        let speed = worker.speeds.get(&device.index).map_or(ORDINARY, |speed| speed.permille);
        self.by_lines(&self.lines(device), id, device.index, speed)
    }

    /// What is known of devices of this one's model.
    pub(crate) fn lines(&self, device: &Device) -> Lines {
        let own = self.own.get(model_of(device)).and_then(|entry| self.line(entry, Source::Model));
        let kin = self.kin.get(model_of(device)).and_then(|entry| self.line(entry, Source::Kin));
        Lines { own, kin: kin.map(|kin| kin.scaled(self.kin_permille)) }
    }

    /// The same as [`StageCosts::of`] for a device whose model's lines and speed are at hand.
    pub(crate) fn by_lines(&self, lines: &Lines, id: WorkerId, index: u32, speed_permille: u64) -> Option<Estimate> {
        let own = lines.own.map(|own| own.scaled(speed_permille));
        own.or_else(|| self.of_share(id, index)).or_else(|| Some(lines.kin?.scaled(speed_permille)))
    }

    /// What a device is taken to cost of which [`StageCosts::of`] knows nothing: as much as others of its model, or as the few leases of its
    /// model say, or as much as others of its class.
    pub fn lent(&self, device: &Device) -> Option<Estimate> {
        let lent = self.lent.get_or_init(|| Lent::of(self));
        let few = || self.line(self.few.get(model_of(device))?, Source::Peers);
        lent.of_model(device).or_else(few).or_else(|| lent.of_class(device))
    }

    pub(super) fn workers(&self) -> &'a BTreeMap<WorkerId, Worker> {
        self.workers
    }

    /// No device has an estimate.
    pub(super) fn knows_nothing(&self) -> bool {
        let shown =
            |job: &Job| job.shares.range((self.stage, WorkerId(0), 0)..).next().is_some_and(|((stage, ..), _)| *stage == self.stage);
        self.own.is_empty() && self.kin.is_empty() && !self.job.is_some_and(shown)
    }

    /// What the model's line says of a device of this speed, if it is believed.
    pub fn of_model(&self, device: &Device, speed_permille: u64) -> Option<Estimate> {
        let entry = self.own.get(model_of(device))?;
        Some(self.line(entry, Source::Model)?.scaled(speed_permille))
    }

    fn line(&self, entry: &Entry, source: Source) -> Option<Estimate> {
        let task_fs = u128::from(entry.line.per_unit_fs) * u128::from(self.units_per_task?);
        Some(Estimate { fixed_ns: entry.line.fixed_ns, task_fs: task_fs.max(1), spread_permille: entry.spread_permille, source })
    }

    fn of_share(&self, worker: WorkerId, device: u32) -> Option<Estimate> {
        let share = self.job?.shares.get(&(self.stage, worker, device)).filter(|share| share.tasks > 0)?;
        let task_fs = (u128::from(share.busy_ns) * FS_PER_NS / u128::from(share.tasks)).max(FS_PER_NS);
        Some(Estimate { fixed_ns: 0, task_fs, spread_permille: ORDINARY / 4, source: Source::Job })
    }

    /// The absolute cost changes with the parameters, the relation between two devices much less. So the first device that has shown what
    /// this stage costs sets the scale for all others.
    fn against_kin(&self, workers: &BTreeMap<WorkerId, Worker>) -> Option<u64> {
        let shares = self.job?.shares.range((self.stage, WorkerId(0), 0)..=(self.stage, WorkerId(u64::MAX), u32::MAX));
        shares.map(|(key, _)| key).find_map(|&(_, id, index)| {
            let worker = workers.get(&id)?;
            let device = worker.device(index)?;
            let shown = self.of_share(id, index)?;
            let speed = worker.speeds.get(&index).map_or(ORDINARY, |speed| speed.permille);
            let kin = self.line(self.kin.get(model_of(device))?, Source::Kin)?.scaled(speed);
            let ratio = shown.task_fs.saturating_mul(u128::from(ORDINARY)) / kin.task_fs.max(1);
            Some(u64::try_from(ratio).unwrap_or(u64::MAX).clamp(1, 1_000_000_000))
        })
    }
}

/// Units of a task of the stage, on average. Of one that reads partitions: of those read so far.
pub(crate) fn units_per_task(job: Option<&Job>, stage: u32, spec: &StageSpec) -> Option<u64> {
    let mean = |units: u64, tasks: u64| (tasks > 0 && units > 0).then(|| (units / tasks).max(1));
    match job {
        Some(job) => {
            let tasks = job.stages.get(stage as usize)?.tasks().len();
            if let Some(units) = job.units.get(stage as usize).copied().flatten() {
                return mean(units, tasks);
            }
            let shares = job.shares.range((stage, WorkerId(0), 0)..=(stage, WorkerId(u64::MAX), u32::MAX));
            let (units, tasks) = shares.fold((0u64, 0u64), |(u, t), (_, s)| (u.saturating_add(s.input_bytes), t.saturating_add(s.tasks)));
            mean(units, tasks)
        }
        None => mean(of_stage(spec)?, crate::split::tasks_of(spec)?),
    }
}
