//! The jobs of a simulation. Parameters of the kernel tell the simulated executor how long a task takes and which tasks fail at first.

use super::stages;
use raftwerk_proto::OUTPUT_ON_WORKERS;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{
    DeviceMatch, Gang, IndexRange, JobSpec, KernelKind, KernelRef, Label, OnSetAside, OutputSpec, Param, Rounds, StageInput, StageSpec,
};
use raftwerk_scheduler::raft::sim::Dice;

/// What a job looks like.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub tasks: u64,
    /// 0: one stage, no output.
    pub partitions: u32,
    pub task_ms: u64,
    /// Every so-manieth task fails ..
    pub fail_every: u64,
    /// .. this often; more often than a task may fail means that the job fails.
    pub fail_times: u64,
    /// They do not fail: their executor dies.
    pub kills: bool,
    /// The rest of the job goes on without tasks that were set aside.
    pub goes_on: bool,
    /// The shuffle data lies at two workers.
    pub copies: bool,
    /// Copies of the result, which stays on workers; 0: all workers share its place.
    pub on_workers: u32,
    pub max_lease_tasks: u64,
    /// Each stage begins on so many devices at once.
    pub gang: u32,
    /// Workers with an even number are preferred.
    pub picky: bool,
    /// Its stages run so often at most; 0: once.
    pub rounds: u32,
    /// The parts of its reduce stage are read by another map stage, and joined in so many partitions with what a third one makes; 0: they are the output.
    pub joins: u32,
    /// The round of which the reduce kernel says that a further one would change nothing; 0: none.
    pub converges: u32,
}

/// A job, when it is submitted, how long after the acknowledgement it is cancelled, and what becomes of its result.
pub struct Planned {
    pub at_ms: u64,
    pub shape: Shape,
    pub cancel_after_ms: Option<u64>,
    /// So long after its end its result, which stays on workers, is dropped.
    pub drop_after_ms: Option<u64>,
}

/// Place of the job with the long tasks.
pub const LONG_TASKS: usize = 5;

/// One job of each kind, and some more, over `span_ms`; with `quiet`, long tasks that nobody else is there to talk over.
pub fn plan(dice: &mut Dice, span_ms: u64, quiet: bool) -> Vec<Planned> {
    let extra = if quiet { 0 } else { dice.below(4) };
    let mut jobs = Vec::new();
    for n in 0..10 + extra {
        let kind = match n {
            0..9 => n,
            9 => 10,
            _ => dice.below(10),
        };
        let at_ms = if n < 10 { 500 + n * span_ms / 11 + dice.below(2_000) } else { 1_000 + dice.below(span_ms) };
        let lease = [0, 0, 1, 4, 16][dice.below(5) as usize];
        let shape = match kind {
            // One long stage.
            0 => Shape {
                tasks: 250 + dice.below(250),
                partitions: 0,
                task_ms: 20 + dice.below(80),
                fail_every: 0,
                fail_times: 0,
                max_lease_tasks: lease,
                picky: true,
                ..Shape::default()
            },
            // Map and reduce with an output.
            1 => Shape {
                tasks: 60 + dice.below(90),
                partitions: 3 + dice.below(9) as u32,
                task_ms: 40 + dice.below(250),
                copies: dice.below(2) == 0,
                max_lease_tasks: lease,
                gang: 2,
                ..Shape::default()
            },
            // Tasks that fail once or twice.
            2 => Shape {
                tasks: 40 + dice.below(60),
                partitions: dice.below(2) as u32 * 4,
                task_ms: 20 + dice.below(150),
                fail_every: 7,
                fail_times: 1 + dice.below(2),
                max_lease_tasks: lease,
                ..Shape::default()
            },
            // A task that never succeeds.
            3 => Shape {
                tasks: 30 + dice.below(20),
                partitions: 0,
                task_ms: 15,
                fail_every: 25,
                fail_times: 1_000,
                max_lease_tasks: lease,
                ..Shape::default()
            },
            // A task that kills every executor.
            4 => Shape {
                tasks: 25 + dice.below(20),
                task_ms: 30,
                fail_every: 20,
                fail_times: 1_000,
                kills: true,
                goes_on: dice.below(2) == 0,
                max_lease_tasks: lease,
                ..Shape::default()
            },
            // Few tasks that take longer than a lease time: whoever is cut off is in the middle of one.
            5 if quiet => Shape { tasks: 3 + dice.below(3), task_ms: 20_000 + dice.below(5_000), max_lease_tasks: 1, ..Shape::default() },
            5 => Shape { tasks: 5 + dice.below(5), task_ms: 6_000 + dice.below(9_000), max_lease_tasks: 1, ..Shape::default() },
            // Map and reduce with a second copy of the shuffle data.
            6 => Shape {
                tasks: 40 + dice.below(60),
                partitions: 3 + dice.below(6) as u32,
                task_ms: 40 + dice.below(250),
                copies: true,
                max_lease_tasks: lease,
                ..Shape::default()
            },
            // Map and reduce with a result that stays on workers.
            7 => Shape {
                tasks: 30 + dice.below(50),
                partitions: 3 + dice.below(6) as u32,
                task_ms: 40 + dice.below(200),
                copies: dice.below(2) == 0,
                on_workers: 1 + dice.below(2) as u32,
                max_lease_tasks: lease,
                ..Shape::default()
            },
            // Several rounds over the same input.
            8 => Shape {
                tasks: 15 + dice.below(30),
                partitions: 1,
                task_ms: 20 + dice.below(120),
                copies: dice.below(2) == 0,
                on_workers: dice.below(2) as u32,
                max_lease_tasks: lease,
                gang: 2 * dice.below(2) as u32,
                rounds: 2 + dice.below(5) as u32,
                converges: dice.below(4) as u32,
                ..Shape::default()
            },
            // Several stages, so that what is lost late has to be made again from the beginning.
            10 => Shape {
                tasks: 15 + dice.below(25),
                partitions: 3 + dice.below(5) as u32,
                joins: 2 + dice.below(4) as u32,
                task_ms: 60 + dice.below(300),
                copies: dice.below(3) == 0,
                on_workers: dice.below(2) as u32,
                max_lease_tasks: lease,
                ..Shape::default()
            },
            // Cancelled in the middle.
            _ => Shape { tasks: 300, partitions: 4, task_ms: 60, fail_every: 0, fail_times: 0, max_lease_tasks: lease, ..Shape::default() },
        };
        let cancel_after_ms = (kind == 9).then(|| 200 + dice.below(4_000));
        let drop_after_ms = (shape.on_workers > 0 && dice.below(2) == 0).then(|| dice.below(40_000));
        jobs.push(Planned { at_ms, shape, cancel_after_ms, drop_after_ms });
    }
    jobs
}

/// The job that is submitted when faults have stopped.
pub fn last(dice: &mut Dice) -> Shape {
    let (copies, on_workers) = (dice.below(2) == 0, dice.below(3) as u32);
    Shape { tasks: 20 + dice.below(20), partitions: 4, task_ms: 50, copies, on_workers, ..Shape::default() }
}

fn kernel(name: &str, kind: KernelKind, tallies: &[&str]) -> Option<KernelRef> {
    Some(KernelRef {
        name: name.into(),
        version: 1,
        kind: kind.into(),
        tallies: tallies.iter().map(|t| t.to_string()).collect(),
        ..KernelRef::default()
    })
}

impl Shape {
    pub fn spec(&self) -> JobSpec {
        let param = |name: &str, value: u64| Param { name: name.into(), value: value.to_string() };
        let range = IndexRange { start: 0, count: self.tasks, tasks: self.tasks };
        let gang = (self.gang > 0).then_some(Gang { devices: self.gang, hold_ms: 20_000 });
        let even = Label { key: "even".into(), value: "yes".into() };
        let prefer = self.picky.then(|| DeviceMatch { labels: vec![even], ..DeviceMatch::default() });
        let map = StageSpec {
            gang,
            prefer,
            name: "map".into(),
            kernel: kernel("number", KernelKind::Map, &["value"]),
            params: vec![
                param("fail_every", self.fail_every),
                param("fail_times", self.fail_times),
                param("kills", u64::from(self.kills)),
                param("ms", self.task_ms),
            ],
            inputs: vec![StageInput { name: "input".into(), source: Some(Source::Range(range)) }],
            partitions: self.partitions,
            shuffle_replicas: if self.copies { 2 } else { 0 },
            max_lease_tasks: self.max_lease_tasks,
            ..StageSpec::default()
        };
        let mut spec = JobSpec { name: "simulated".into(), namespace: "default".into(), stages: vec![map], ..JobSpec::default() };
        spec.rounds = (self.rounds > 0).then_some(Rounds { max: self.rounds, all: false });
        if self.goes_on {
            spec.set_on_set_aside(OnSetAside::Continue);
        }
        if self.partitions > 0 {
            spec.stages.push(StageSpec {
                gang,
                name: "reduce".into(),
                kernel: kernel("gather", KernelKind::Reduce, &[]),
                params: vec![param("ms", self.task_ms * 4), param("converges", u64::from(self.converges))],
                inputs: stages::reading(&["map"]),
                ..StageSpec::default()
            });
            if self.joins > 0 {
                stages::join(&mut spec, self.joins);
            }
            let url = if self.on_workers > 0 { OUTPUT_ON_WORKERS.into() } else { "file:///out".into() };
            spec.output = Some(OutputSpec { url, format: "csv".into(), copies: self.on_workers, ..OutputSpec::default() });
        }
        spec
    }
}
