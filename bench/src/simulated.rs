//! Ten thousand worker sessions without network: the leader loop that ships, fed with encoded messages, on a clock that jumps. What the loop itself
//! costs per heartbeat, per tick and per session that comes back, and how much memory it takes.

use crate::sample::{cpu_seconds, resident};
use prost::Message;
use raftwerk_core::{State, WorkerId};
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{
    Capacity, Device, Heartbeat, Hello, Load, SchedulerMessage, WorkerMessage, scheduler_message::Message as Down,
    worker_message::Message as Up,
};
use raftwerk_proto::v1::{IndexRange, JobSpec, KernelKind, KernelRef, StageInput, StageSpec};
use raftwerk_scheduler::leader::{ConnId, Effect, Input, Leader, RequestId, Timing};
use std::sync::Arc;

const HEARTBEAT_MS: u64 = 500;
const TICK_MS: u64 = 50;
/// Inputs that the edge takes in before it proposes.
const BURST: usize = 1024;

struct Host {
    now: u64,
    state: State,
    index: u64,
    leader: Leader,
    welcomed: u64,
    acknowledged: u64,
    entries: u64,
    largest: usize,
    /// CPU seconds of the longest burst: for so long the thread that Raft runs on too hears of nothing else.
    longest: f64,
    /// Where messages are encoded, as the network would have them.
    wire: Vec<u8>,
}

impl Host {
    fn new() -> Host {
        let state = State::new("bench");
        let leader = Leader::new(Timing::default(), &state, 0).with_schedulers(schedulers());
        Host { now: 0, state, index: 0, leader, welcomed: 0, acknowledged: 0, entries: 0, largest: 0, longest: 0.0, wire: Vec::new() }
    }

    fn next_leader(&mut self) {
        self.leader = Leader::new(Timing::default(), &self.state, self.now).with_schedulers(schedulers());
        (self.welcomed, self.acknowledged, self.entries, self.largest, self.longest) = (0, 0, 0, 0, 0.0);
    }

    /// A burst, as the edge takes it in; what it proposes is committed at once.
    fn take(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let begun = thread_cpu();
        for input in inputs {
            let effects = self.leader.handle(self.now, &self.state, input);
            self.perform(effects);
        }
        while let Some(body) = self.leader.flush(&self.state, 1_700_000_000_000 + self.now) {
            self.index += 1;
            self.entries += 1;
            self.largest = self.largest.max(body.encoded_len());
            let applied = self.state.apply(self.index, body).expect("what the leader proposes can be applied");
            let effects = self.leader.handle(self.now, &self.state, Input::Applied(Arc::new(applied)));
            self.perform(effects);
        }
        self.longest = self.longest.max(thread_cpu() - begun);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { message, .. } => {
                    match &message {
                        Down::Welcome(_) => self.welcomed += 1,
                        Down::HeartbeatAck(_) => self.acknowledged += 1,
                        Down::Refused(refused) => panic!("refused: {}", refused.reason),
                        _ => {}
                    }
                    self.wire.clear();
                    SchedulerMessage { message: Some(message) }.encode(&mut self.wire).expect("a buffer grows");
                }
                Effect::Close { conn } => panic!("session {} was closed", conn.0),
                Effect::Answer { .. } => {}
            }
        }
    }

    /// All sessions say hello, as fast as the loop takes them.
    fn all_connect(&mut self, count: u64, generation: u64, incarnation: u64) {
        let hellos: Vec<Vec<u8>> = (0..count).map(|n| encoded(Up::Hello(hello(n, incarnation)))).collect();
        let mut burst = Vec::with_capacity(BURST);
        for (n, bytes) in hellos.iter().enumerate() {
            let n = n as u64;
            let Up::Hello(hello) = decoded(bytes) else { unreachable!("it was one") };
            burst.push(Input::WorkerConnected { conn: ConnId(generation * count + n), worker: WorkerId(n + 1), hello });
            if burst.len() == BURST || n + 1 == count {
                self.take(burst.drain(..));
            }
        }
        assert_eq!(self.welcomed, count, "every session is open");
    }

    /// CPU seconds of heartbeats and of ticks.
    fn steady(&mut self, count: u64, generation: u64, seconds: u64) -> (f64, f64) {
        let beat = encoded(Up::Heartbeat(Heartbeat {
            sequence: 7,
            load: Some(Load { cpu_permille: 400, ..Load::default() }),
            ..Heartbeat::default()
        }));
        let (mut beats, mut ticks) = (0.0, 0.0);
        let per_tick = count * TICK_MS / HEARTBEAT_MS;
        for tick in 0..seconds * 1000 / TICK_MS {
            self.now += TICK_MS;
            let begun = thread_cpu();
            let from = tick * per_tick;
            for chunk in (from..from + per_tick).collect::<Vec<_>>().chunks(BURST) {
                let inputs: Vec<Input> = chunk
                    .iter()
                    .map(|n| Input::FromWorker { conn: ConnId(generation * count + n % count), message: decoded(&beat) })
                    .collect();
                self.take(inputs);
            }
            let between = thread_cpu();
            self.take([Input::Tick]);
            beats += between - begun;
            ticks += thread_cpu() - between;
        }
        (beats, ticks)
    }
}

/// So many tasks that every device has work waiting.
fn job(count: u64) -> JobSpec {
    let tasks = count * 64;
    JobSpec {
        name: "bench".into(),
        namespace: "default".into(),
        stages: vec![StageSpec {
            name: "map".into(),
            kernel: Some(KernelRef {
                name: "kernel_0".into(),
                version: 1,
                kind: KernelKind::Map.into(),
                tallies: Vec::new(),
                ..KernelRef::default()
            }),
            inputs: vec![StageInput { name: "input".into(), source: Some(Source::Range(IndexRange { start: 0, count: tasks, tasks })) }],
            ..StageSpec::default()
        }],
        ..JobSpec::default()
    }
}

fn schedulers() -> Vec<String> {
    (1..=3).map(|n| format!("scheduler-{n}.example:7300")).collect()
}

fn hello(n: u64, incarnation: u64) -> Hello {
    let device = Device {
        class: "cpu".into(),
        name: "simulated".into(),
        capacity: Some(Capacity { milli_cpu: 16_000, memory_bytes: 1 << 34, slots: 64 }),
        kernels: (0..8).map(|k| format!("kernel_{k}@1")).collect(),
        parallelism: 16,
        ..Device::default()
    };
    Hello {
        protocol_version: raftwerk_proto::OLDEST_PROTOCOL_VERSION,
        versions: raftwerk_proto::own_versions(0),
        incarnation,
        name: format!("worker-{n}"),
        data_address: format!("worker-{n}.example:7400"),
        devices: vec![device],
        ..Hello::default()
    }
}

fn encoded(message: Up) -> Vec<u8> {
    WorkerMessage { message: Some(message) }.encode_to_vec()
}

fn decoded(bytes: &[u8]) -> Up {
    WorkerMessage::decode(bytes).ok().and_then(|message| message.message).expect("a message that was just encoded")
}

/// CPU seconds of the only thread, finer than what /proc counts in.
fn thread_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).map_or_else(|| cpu_seconds(std::process::id()), |ns| ns / 1e9)
}

pub fn run(count: u64, seconds: u64) -> anyhow::Result<()> {
    println!("## {count} simulated worker sessions: the leader loop by itself, messages encoded and decoded, two heartbeats a second each");
    let before = resident(std::process::id()).0;
    let mut host = Host::new();
    let timed = |what: &str, host: &mut Host, step: &mut dyn FnMut(&mut Host)| {
        let begun = thread_cpu();
        step(host);
        let cpu = thread_cpu() - begun;
        println!(
            "{what}: {:.0} ms of CPU, {:.1} us each; {} log entries, the largest {:.0} KiB",
            1e3 * cpu,
            1e6 * cpu / count as f64,
            host.entries,
            host.largest as f64 / 1024.0
        );
    };
    timed("first registration of all", &mut host, &mut |host| host.all_connect(count, 0, 1));
    let (beats, ticks) = host.steady(count, 0, seconds);
    println!(
        "steady for {seconds} s: {:.2} us of CPU per heartbeat, {:.1} us per tick (20 a second): {:.2} % of a core",
        1e6 * beats / host.acknowledged as f64,
        1e6 * ticks / (seconds * 1000 / TICK_MS) as f64,
        100.0 * (beats + ticks) / seconds as f64
    );
    timed("a new leader, all come back to it", &mut host, &mut |host| {
        host.next_leader();
        host.all_connect(count, 1, 1);
    });
    timed("a job that gives each of them leases", &mut host, &mut |host| {
        (host.entries, host.largest) = (0, 0);
        host.take([Input::Submit { request: RequestId(1), spec: job(count), idempotency_key: String::new() }]);
        host.take([Input::Tick]);
    });
    println!("leases out: {}", host.state.leases.len());
    let (beats, ticks) = host.steady(count, 1, seconds.min(5));
    println!(
        "steady with the job running: {:.2} us of CPU per heartbeat, {:.1} us per tick",
        1e6 * beats / (count * seconds.min(5) * 1000 / HEARTBEAT_MS) as f64,
        1e6 * ticks / (seconds.min(5) * 1000 / TICK_MS) as f64
    );
    timed("a new leader, all come back to it with their leases", &mut host, &mut |host| {
        host.next_leader();
        host.all_connect(count, 2, 1);
    });
    println!("the longest burst of that: {:.0} ms", 1e3 * host.longest);
    timed("a new leader, all come as new processes", &mut host, &mut |host| {
        host.next_leader();
        host.all_connect(count, 3, 2);
    });
    let peak = resident(std::process::id()).1;
    println!(
        "memory: {:.1} MiB at the most above {:.1} MiB at the start",
        (peak.saturating_sub(before)) as f64 / (1 << 20) as f64,
        before as f64 / (1 << 20) as f64
    );
    Ok(())
}
