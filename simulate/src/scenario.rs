//! What is simulated: devices, jobs, and how long each kernel takes on each kind of device.

use crate::dice::{Dice, Noise, Use};
use crate::rate::{Ns, Rate};
use raftwerk_proto::v1::{
    Capacity, CostRecord, Device, IndexRange, JobSpec, KernelKind, KernelRef, StageInput, StageOutput, StageSpec, stage_input,
};
use std::collections::BTreeSet;

pub const SECOND: f64 = 1e9;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub groups: Vec<Group>,
    pub kernels: Vec<Kernel>,
    pub jobs: Vec<Job>,
    /// Tasks that wait for others; empty when `jobs` are what is simulated.
    pub graph: Vec<GraphTask>,
    /// What happens to devices, at times.
    pub troubles: Vec<Trouble>,
    pub delays: Delays,
    /// Of the time of each task, in percent: the same on whichever device it runs.
    pub noise: f64,
    pub seed: u64,
    /// What the cluster knows of costs before the first job; empty: it starts cold.
    pub costs: Vec<CostRecord>,
}

/// What stands for the log, the network and the leader's clock.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// From the proposal of an entry to its being applied.
    pub commit: Ns,
    /// One way between scheduler and worker.
    pub network: Ns,
    /// From the death of a worker to its being declared lost: the grace that a broken connection has.
    pub detect: Ns,
    /// How often a worker tells what is done of a lease that runs.
    pub report: Ns,
    /// How often the leader plans although nothing has happened.
    pub tick: Ns,
}

impl Default for Delays {
    fn default() -> Delays {
        // Of a cluster in one room with disks that flush in a millisecond; detect, report and tick are those of the real one.
        let ms = 1_000_000;
        Delays { commit: 2 * ms, network: ms / 5, detect: 1_000 * ms, report: 100 * ms, tick: 50 * ms }
    }
}

/// Devices that are the same.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub count: u64,
    /// "cpu", "discrete", "integrated" or "software".
    pub class: String,
    pub model: String,
    pub parallelism: u32,
    pub memory_bytes: u64,
    /// Fixed cost of one lease on the device.
    pub launch: Ns,
    /// Extra time of a lease in percent of it: half-normal, so that it only ever slows.
    pub jitter: f64,
    /// Bytes per second that input reaches the device at; 0: no input takes time.
    pub bandwidth: f64,
    /// Per lease, before its first byte.
    pub latency: Ns,
    /// Mean times to failure and to repair; 0: it does not fail by itself.
    pub mtbf: Ns,
    pub repair: Ns,
    /// Nanoseconds of one unit on one thread, by kernel; `None` where the kernel has no twin.
    pub unit_ns: Vec<Option<f64>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    pub name: String,
    pub reduces: bool,
}

/// Units of a task: between two numbers, evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Units {
    pub low: f64,
    pub high: f64,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    pub arrives: Ns,
    pub stages: Vec<Stage>,
    pub policy: String,
}

#[derive(Clone, Debug)]
pub struct Stage {
    pub kernel: usize,
    pub tasks: u64,
    pub units: Units,
    /// Of one task.
    pub input_bytes: f64,
    pub class: String,
    pub max_lease_tasks: u64,
}

#[derive(Clone, Debug)]
pub struct GraphTask {
    pub name: String,
    pub kernel: usize,
    /// Places of the tasks that come before it.
    pub after: Vec<u32>,
}

/// Something that happens to a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    pub group: usize,
    /// Which of the group; all of them when not given.
    pub device: Option<u64>,
    pub from: Ns,
    pub until: Ns,
    /// Of its speed that is left; 0: it dies.
    pub rate: f64,
}

/// Failures drawn for one device, at the most: a mean time to failure of a second over a day is a mistake.
const MAX_FAILURES: u64 = 1_000;

impl Scenario {
    pub fn dice(&self) -> Dice {
        Dice::new(self.seed)
    }

    /// Spans of a device's life that are not at full speed.
    pub fn spans(&self, group: usize, device: u64) -> Vec<(Ns, Ns, f64)> {
        let of_it = |t: &&Trouble| t.group == group && t.device.is_none_or(|d| d == device);
        let mut spans: Vec<(Ns, Ns, f64)> = self.troubles.iter().filter(of_it).map(|t| (t.from, t.until, t.rate)).collect();
        let kind = &self.groups[group];
        if kind.mtbf > 0 {
            let dice = self.dice().of(Use::Failure, ((group as u64) << 40) | device);
            let mut at = 0;
            for number in 0..MAX_FAILURES {
                let lives = (kind.mtbf as f64 * dice.exponential(number)) as Ns;
                let from: Ns = lives.saturating_add(at);
                if kind.repair == 0 {
                    spans.push((from, Ns::MAX, 0.0));
                    break;
                }
                at = from.saturating_add(kind.repair);
                spans.push((from, at, 0.0));
            }
        }
        spans
    }

    pub fn rate(&self, group: usize, device: u64) -> Rate {
        Rate::of_spans(&self.spans(group, device))
    }

    pub fn devices(&self) -> u64 {
        self.groups.iter().map(|g| g.count).sum()
    }

    /// How many of the costs are of a kernel and a model of device that are simulated.
    pub fn costs_that_fit(&self) -> usize {
        let kernel = |name: &str| self.kernels.iter().any(|kernel| name.strip_prefix(kernel.name.as_str()) == Some("@1"));
        let model = |name: &str| self.groups.iter().any(|group| group.model == name);
        self.costs.iter().filter(|cost| kernel(&cost.kernel) && model(&cost.model)).count()
    }

    /// Units of the tasks of a stage, for any device.
    pub fn weights(&self, job: usize, stage: usize) -> Weights {
        self.weights_of(self.jobs[job].stages[stage].units, ((job as u64) << 8) | stage as u64)
    }

    /// The same for the tasks of the graph, by their places.
    pub fn graph_weights(&self) -> Weights {
        self.weights_of(Units { low: 1.0, high: 1.0 }, u64::MAX)
    }

    fn weights_of(&self, units: Units, which: u64) -> Weights {
        let dice = self.dice();
        Weights {
            noise: Noise::of_percent(self.noise),
            noise_dice: dice.of(Use::Noise, which),
            units_dice: dice.of(Use::Units, which),
            units,
        }
    }

    /// Places of the graph's tasks, each after those it waits for. Reading has refused circles.
    pub fn order(&self) -> Vec<usize> {
        let mut missing: Vec<usize> = self.graph.iter().map(|t| t.after.len()).collect();
        let mut followers = vec![Vec::new(); self.graph.len()];
        for (place, task) in self.graph.iter().enumerate() {
            task.after.iter().for_each(|before| followers[*before as usize].push(place));
        }
        let mut order: Vec<usize> = (0..self.graph.len()).filter(|place| missing[*place] == 0).collect();
        let mut next = 0;
        while let Some(&place) = order.get(next) {
            next += 1;
            for &follower in &followers[place] {
                missing[follower] -= 1;
                if missing[follower] == 0 {
                    order.push(follower);
                }
            }
        }
        order
    }

    /// Whether the group is of the class and has a twin of the kernel.
    pub fn may_run(&self, stage: &Stage, group: &Group) -> bool {
        fits(&stage.class, stage.kernel, group)
    }

    /// Nanoseconds of a unit on each group to which the core gives tasks of this kernel and class: on software adapters only when these are asked
    /// for or nothing else fits, as `matching::candidates` has it. Where all else may be gone for a while they count, so that a bound stays one.
    pub fn given(&self, class: &str, kernel: usize) -> Vec<Option<f64>> {
        let fit: Vec<bool> = self.groups.iter().map(|group| fits(class, kernel, group)).collect();
        let is_software = |place: usize| self.groups[place].class == "software";
        let hardware = (0..fit.len()).any(|place| fit[place] && !is_software(place) && self.stays(place));
        let is_given = |place: usize| fit[place] && !(hardware && is_software(place));
        (0..fit.len()).map(|place| self.groups[place].unit_ns[kernel].filter(|_| is_given(place))).collect()
    }

    /// Whether one device of the group never dies.
    fn stays(&self, group: usize) -> bool {
        let dying = || self.troubles.iter().filter(|trouble| trouble.group == group && trouble.rate == 0.0);
        let numbers: BTreeSet<u64> = dying().filter_map(|trouble| trouble.device).collect();
        let kind = &self.groups[group];
        kind.mtbf == 0 && dying().all(|trouble| trouble.device.is_some()) && (numbers.len() as u64) < kind.count
    }
}

fn fits(class: &str, kernel: usize, group: &Group) -> bool {
    let is_of_class = match class {
        "any" => true,
        "gpu" => group.class != "cpu",
        class => class == group.class,
    };
    is_of_class && group.unit_ns[kernel].is_some()
}

/// Units of each task of a stage, noise included.
#[derive(Clone, Copy)]
pub struct Weights {
    noise: Noise,
    noise_dice: Dice,
    units_dice: Dice,
    units: Units,
}

impl Weights {
    pub fn units(&self, task: u64) -> f64 {
        let span = self.units.high - self.units.low;
        let units = if span == 0.0 { self.units.low } else { self.units.low + span * self.units_dice.uniform(task) };
        units * self.noise.factor(self.noise_dice, task)
    }
}

impl Group {
    /// As a worker would register it.
    pub fn device(&self, kernels: &[Kernel]) -> Device {
        let can = kernels.iter().zip(&self.unit_ns).filter(|(_, ns)| ns.is_some());
        Device {
            class: self.class.clone(),
            name: self.model.clone(),
            vendor: "simulated".into(),
            backend: "simulated".into(),
            // Slots as real workers offer them.
            capacity: Some(Capacity { milli_cpu: u64::from(self.parallelism) * 1000, memory_bytes: self.memory_bytes, slots: 256 }),
            kernels: can.map(|(kernel, _)| format!("{}@1", kernel.name)).collect(),
            parallelism: self.parallelism,
            ..Device::default()
        }
    }
}

impl Job {
    /// As a user would submit it.
    pub fn spec(&self, kernels: &[Kernel]) -> JobSpec {
        let mut stages: Vec<StageSpec> = Vec::with_capacity(self.stages.len());
        for (index, stage) in self.stages.iter().enumerate() {
            let kernel = &kernels[stage.kernel];
            let source = match index.checked_sub(1) {
                None => {
                    // Elements of the input, so that a task has its units of them.
                    let each = ((stage.units.low + stage.units.high) / 2.0).round().max(1.0) as u64;
                    stage_input::Source::Range(IndexRange { start: 0, count: stage.tasks.saturating_mul(each), tasks: stage.tasks })
                }
                Some(before) => stage_input::Source::Stage(StageOutput { stage: stage_name(before).into() }),
            };
            stages.push(StageSpec {
                name: stage_name(index).into(),
                kernel: Some(KernelRef {
                    name: kernel.name.clone(),
                    version: 1,
                    kind: if index == 0 { KernelKind::Map } else { KernelKind::Reduce }.into(),
                    tallies: vec![TALLY.into()],
                    bounded: false,
                }),
                inputs: vec![StageInput { name: "input".into(), source: Some(source) }],
                partitions: self.stages.get(index + 1).map_or(0, |next| next.tasks as u32),
                device: Some(raftwerk_proto::v1::DeviceRequest {
                    class: stage.class.clone(),
                    amount: Some(Capacity { slots: 1, ..Capacity::default() }),
                }),
                max_lease_tasks: stage.max_lease_tasks,
                ..StageSpec::default()
            });
        }
        JobSpec { name: self.name.clone(), namespace: "default".into(), stages, policy: self.policy.clone(), ..JobSpec::default() }
    }
}

/// The number of each accepted task is added up: the sum tells whether every task was accepted once.
pub const TALLY: &str = "task numbers";

fn stage_name(index: usize) -> &'static str {
    if index == 0 { "map" } else { "reduce" }
}
