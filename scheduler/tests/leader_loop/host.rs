//! A leader loop with nothing around it: entries are applied as soon as the test says that they are committed.

use raftwerk_core::{State, WorkerId};
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::worker_message::Message as Up;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{Answer, ConnId, Effect, Input, Leader, RequestId, Timing};
use std::sync::Arc;

pub const TIMING: Timing =
    Timing { lease_ttl_ms: 10_000, heartbeat_ms: 500, reconnect_grace_ms: 1_000, listing_ms: 5_000, majority_ms: 1_000 };

pub struct Host {
    pub now: u64,
    pub state: State,
    pub index: u64,
    pub leader: Leader,
    /// Proposed and not yet committed.
    pub proposed: Option<EntryBody>,
}

impl Host {
    pub fn new() -> Host {
        let state = State::new("test");
        Host { now: 0, leader: Leader::new(TIMING, &state, 0), state, index: 0, proposed: None }
    }

    /// Another replica takes over with the same state.
    pub fn change_leader(&mut self) {
        self.proposed = None;
        self.leader = Leader::new(TIMING, &self.state, self.now);
    }

    pub fn input(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.leader.handle(self.now, &self.state, input);
        if let Some(body) = self.leader.flush(&self.state, 1_000 + self.now) {
            assert!(self.proposed.is_none(), "two entries in flight");
            self.proposed = Some(body);
        }
        effects
    }

    /// The entry in flight reaches a majority and is applied; so do those that follow from it.
    pub fn commit(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(body) = self.proposed.take() {
            self.index += 1;
            let applied = self.state.apply(self.index, body).expect("a known command");
            effects.extend(self.input(Input::Applied(Arc::new(applied))));
        }
        effects
    }

    pub fn wait(&mut self, ms: u64) -> Vec<Effect> {
        self.now += ms;
        let mut effects = self.input(Input::Tick);
        effects.extend(self.commit());
        effects
    }

    pub fn connect(&mut self, conn: u64, worker: u64) -> Vec<Effect> {
        let mut effects = self.input(Input::WorkerConnected { conn: ConnId(conn), worker: WorkerId(worker), hello: hello(worker) });
        effects.extend(self.commit());
        effects
    }

    pub fn up(&mut self, conn: u64, message: Up) -> Vec<Effect> {
        self.input(Input::FromWorker { conn: ConnId(conn), message })
    }

    /// A second passes in which the worker is heard.
    pub fn beat(&mut self, conn: u64) {
        self.up(conn, Up::Heartbeat(Heartbeat::default()));
        self.wait(1_000);
    }

    pub fn submit(&mut self, request: u64, spec: JobSpec) -> Vec<Effect> {
        self.input(Input::Submit { request: RequestId(request), spec, idempotency_key: String::new() })
    }
}

pub fn hello(worker: u64) -> Hello {
    let device = Device {
        class: "cpu".into(),
        capacity: Some(Capacity { milli_cpu: 1000, memory_bytes: 1 << 30, slots: 8 }),
        kernels: vec!["count@1".into()],
        parallelism: 1,
        ..Device::default()
    };
    Hello {
        protocol_version: raftwerk_proto::OLDEST_PROTOCOL_VERSION,
        versions: raftwerk_proto::own_versions(0),
        incarnation: worker,
        name: format!("w{worker}"),
        data_address: format!("w{worker}:1"),
        devices: vec![device],
        stage_graphs: true,
        checks_parts: true,
        ..Hello::default()
    }
}

pub fn spec(source: Source) -> JobSpec {
    JobSpec {
        name: "j".into(),
        namespace: "default".into(),
        stages: vec![StageSpec {
            name: "map".into(),
            kernel: Some(KernelRef {
                name: "count".into(),
                version: 1,
                kind: KernelKind::Map.into(),
                tallies: vec!["value".into()],
                ..KernelRef::default()
            }),
            inputs: vec![StageInput { name: "input".into(), source: Some(source) }],
            ..StageSpec::default()
        }],
        ..JobSpec::default()
    }
}

pub fn numbers(tasks: u64) -> JobSpec {
    spec(Source::Range(IndexRange { start: 0, count: tasks, tasks }))
}

pub fn files() -> JobSpec {
    spec(Source::Files(Files { patterns: vec!["/data/*.txt".into()], format: "text".into(), split_bytes: 10, ..Files::default() }))
}

pub fn sent(effects: &[Effect]) -> impl Iterator<Item = (u64, &Down)> {
    effects.iter().filter_map(|e| match e {
        Effect::Send { conn, message } => Some((conn.0, message)),
        _ => None,
    })
}

pub fn grants(effects: &[Effect]) -> Vec<Grants> {
    sent(effects).filter_map(|(_, m)| if let Down::Grants(grants) = m { Some(grants.clone()) } else { None }).collect()
}

pub fn welcome(effects: &[Effect]) -> Option<Welcome> {
    sent(effects).find_map(|(_, m)| if let Down::Welcome(welcome) = m { Some(welcome.clone()) } else { None })
}

pub fn publisher(effects: &[Effect]) -> Option<u64> {
    sent(effects).find_map(|(conn, m)| matches!(m, Down::Publish(_)).then_some(conn))
}

pub fn answers(effects: &[Effect]) -> Vec<Answer> {
    effects.iter().filter_map(|e| if let Effect::Answer { answer, .. } = e { Some(answer.clone()) } else { None }).collect()
}

pub fn result(grant: &Grant, sequence: u64) -> Report {
    let values = (grant.first_task..grant.first_task + grant.task_count).collect();
    Report {
        sequence,
        lease: grant.lease,
        job: grant.job,
        results: vec![TaskResults {
            first_task: grant.first_task,
            task_count: grant.task_count,
            tallies: vec![TallyValues { values }],
            ..TaskResults::default()
        }],
        final_report: true,
        busy_ns: 1,
        ..Report::default()
    }
}

pub fn reports(report: Report) -> Up {
    Up::Reports(Reports { reports: vec![report] })
}

/// No map task, and one partition.
pub fn one_reduce_task() -> JobSpec {
    let mut spec = numbers(0);
    spec.stages[0].partitions = 1;
    spec.stages.push(StageSpec {
        name: "reduce".into(),
        kernel: Some(KernelRef {
            name: "count".into(),
            version: 1,
            kind: KernelKind::Reduce.into(),
            tallies: vec![],
            ..KernelRef::default()
        }),
        inputs: vec![StageInput { name: "map".into(), source: Some(Source::Stage(StageOutput { stage: "map".into() })) }],
        ..StageSpec::default()
    });
    spec
}

pub fn heartbeat(full: &str) -> Up {
    Up::Heartbeat(Heartbeat { sequence: 1, load: Some(Load { full: full.into(), ..Load::default() }), ..Heartbeat::default() })
}

/// A job whose only map task leaves shuffle data.
pub fn with_shuffle() -> JobSpec {
    let mut spec = one_reduce_task();
    spec.stages[0].inputs[0].source = Some(Source::Range(IndexRange { start: 0, count: 1, tasks: 1 }));
    spec
}
