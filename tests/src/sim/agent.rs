//! A worker: the agent session that ships, and executors that only take time.

use raftwerk_core::LeaseId;
use raftwerk_proto::v1::{
    BlockIndex, Capacity, Device, Hello, InputListing, LeaseProgress, OutputPart, PublishReport, TallyValues, TaskResults,
};
use raftwerk_scheduler::leader::ConnId;
use raftwerk_worker::session::{AgentSession, Effect, Input};
use std::collections::BTreeMap;

/// One stream between an agent and a replica; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link(pub(super) u64);

/// How long a task of the simulation takes.
const TASK_MS: u64 = 3;

struct Running {
    lease: LeaseId,
    next_task: u64,
    end: u64,
    tallies: usize,
    with_parts: bool,
}

pub(super) struct Agent {
    pub(super) id: u64,
    pub(super) link: Link,
    /// The replica and connection at the other end, once accepted.
    pub(super) conn: Option<(u64, ConnId)>,
    session: Option<AgentSession>,
    incarnation: u64,
    /// Leases in the order they came; the first one runs.
    queue: Vec<Running>,
    next_done: u64,
    dial: Option<(u64, Option<String>)>,
}

impl Agent {
    pub(super) fn new(id: u64) -> Agent {
        let mut agent = Agent { id, link: Link(0), conn: None, session: None, incarnation: 0, queue: Vec::new(), next_done: 0, dial: None };
        agent.revive();
        agent
    }

    pub(super) fn revive(&mut self) {
        self.incarnation += 1;
        let device = Device {
            class: "cpu".into(),
            name: "simulated".into(),
            capacity: Some(Capacity { milli_cpu: 1000, memory_bytes: 1 << 30, slots: 16 }),
            kernels: vec!["number@1".into(), "gather@1".into()],
            parallelism: 1,
            ..Device::default()
        };
        let mut session = AgentSession::new(Hello {
            protocol_version: raftwerk_proto::PROTOCOL_VERSION,
            incarnation: self.incarnation,
            name: format!("worker-{}", self.id),
            data_address: format!("worker-{}:1", self.id),
            devices: vec![device],
            ..Hello::default()
        });
        let effects = session.handle(0, Input::Start);
        self.session = Some(session);
        for effect in effects {
            if let Effect::Connect { address, .. } = effect {
                self.dial = Some((0, address));
            }
        }
    }

    /// The process is gone, with everything it knew.
    pub(super) fn die(&mut self) -> Option<(u64, ConnId)> {
        self.session = None;
        self.queue.clear();
        self.dial = None;
        self.link = Link(0);
        self.conn.take()
    }

    pub(super) fn handle(&mut self, now: u64, input: Input) -> Vec<Effect> {
        self.session.as_mut().map(|s| s.handle(now, input)).unwrap_or_default()
    }

    /// A dial that is due.
    pub(super) fn dial_due(&mut self, now: u64) -> Option<Option<String>> {
        match &self.dial {
            Some((at, _)) if *at <= now && self.session.is_some() => self.dial.take().map(|(_, address)| address),
            _ => None,
        }
    }

    pub(super) fn dial_at(&mut self, at: u64, address: Option<String>) {
        self.dial = Some((at, address));
    }

    /// What time brings: ticks and finished tasks.
    pub(super) fn step(&mut self, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.session.as_ref().and_then(|s| s.wake_at()).is_some_and(|at| at <= now) {
            effects.extend(self.handle(now, Input::Tick));
        }
        if let Some(running) = self.queue.first_mut()
            && now >= self.next_done
        {
            let task = running.next_task;
            running.next_task += 1;
            self.next_done = now + TASK_MS;
            let over = running.next_task == running.end;
            let progress = finished(running, task, over);
            if over {
                self.queue.remove(0);
            }
            effects.extend(self.handle(now, Input::Progress(vec![progress])));
        }
        effects
    }

    pub(super) fn start(&mut self, now: u64, grant: &raftwerk_proto::v1::Grant, stage: &raftwerk_proto::v1::StageInfo) {
        let spec = stage.spec.clone().unwrap_or_default();
        if self.queue.is_empty() {
            self.next_done = now + TASK_MS;
        }
        self.queue.push(Running {
            lease: grant.lease.unwrap_or_default().into(),
            next_task: grant.first_task,
            end: grant.first_task + grant.task_count,
            tallies: spec.kernel.map_or(0, |k| k.tallies.len()),
            with_parts: stage.output.is_some(),
        });
    }

    /// Drops what has not run and says so with the final message.
    pub(super) fn stop(&mut self, now: u64, lease: LeaseId) -> Vec<Effect> {
        self.queue.retain(|r| r.lease != lease);
        let last = LeaseProgress { lease: Some(lease.into()), final_report: true, ..LeaseProgress::default() };
        self.handle(now, Input::Progress(vec![last]))
    }

    pub(super) fn listing(request: &raftwerk_proto::v1::ListInputs) -> Input {
        Input::Listing(InputListing { request: request.request, inputs: request.inputs.clone(), ..InputListing::default() })
    }

    pub(super) fn published(job: u64) -> Input {
        Input::Published(PublishReport { job, ..PublishReport::default() })
    }

    pub(super) fn describe(&self) -> String {
        let held: BTreeMap<String, usize> = BTreeMap::from([("held".into(), self.session.as_ref().map_or(0, |s| s.held().count()))]);
        format!(
            "agent {} link {:?} {held:?} unacknowledged {}",
            self.id,
            self.link,
            self.session.as_ref().map_or(0, |s| s.unacknowledged())
        )
    }
}

fn finished(running: &Running, task: u64, over: bool) -> LeaseProgress {
    let parts = if running.with_parts {
        vec![OutputPart { partition: task as u32, name: format!("part-{task}"), ..OutputPart::default() }]
    } else {
        vec![]
    };
    LeaseProgress {
        lease: Some(running.lease.into()),
        results: vec![TaskResults { first_task: task, task_count: 1, tallies: vec![TallyValues { values: vec![task] }; running.tallies] }],
        blocks: vec![BlockIndex { task, ..BlockIndex::default() }],
        parts,
        final_report: over,
        busy_ns: TASK_MS * 1_000_000,
        ..LeaseProgress::default()
    }
}
