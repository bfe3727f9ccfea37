//! A worker: the agent session that ships, and executors that take time and sometimes fail.

use super::audit::{audit, value_of};
use super::kept::Disk;
use super::rounds::Round;
use super::stages::Reads;
use super::wire::Delivery;
use raftwerk_core::LeaseId;
use raftwerk_proto::OUTPUT_ON_WORKERS;
use raftwerk_proto::v1::{
    BlockIndex, Capacity, Device, FailureClass, Grant, Hello, InputListing, Label, LeaseProgress, ListInputs, Load, OutputPart,
    ShuffleSource, StageInfo, TallyValues, TaskCounters, TaskFailure, TaskResults, WorkerMessage, scheduler_message, worker_message,
};
use raftwerk_worker::session::rotation::Rotation;
use raftwerk_worker::session::{AgentSession, Effect, Input};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One stream between an agent and a replica; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link(pub(super) u64);

/// A worker may go on this long after its lease time without having heard anything; more is a broken promise.
const FENCE_SLACK_MS: u64 = 1_500;

/// A lease at the executor.
pub(super) struct Running {
    pub(super) lease: LeaseId,
    pub(super) job: u64,
    pub(super) stage: u32,
    generation: u32,
    next_task: u64,
    end: u64,
    tallies: usize,
    with_parts: bool,
    on_workers: bool,
    keeps_shuffle: bool,
    /// Of a job that has them.
    round: Option<Round>,
    task_ms: u64,
    /// Every so-manieth task fails this often before it succeeds; see [`super::workload`].
    fail_every: u64,
    fail_times: u64,
    kills: bool,
    reads: Reads,
    sources: Vec<ShuffleSource>,
    /// Workers that may keep a second copy of the shuffle data, best first.
    copy_to: Vec<u64>,
    pending: Vec<LeaseProgress>,
}

/// Shuffle data of one task: job, stage, generation, task.
pub(super) type Shuffled = (u64, u32, u32, u64);

/// A task that an executor has come to the end of.
pub(super) struct Finished {
    pub(super) lease: LeaseId,
    pub(super) job: u64,
    pub(super) stage: u32,
    pub(super) generation: u32,
    pub(super) task: u64,
    pub(super) with_parts: bool,
    /// Its part stays on the worker.
    pub(super) on_workers: bool,
    pub(super) copy_to: Vec<u64>,
    pub(super) fail_every: u64,
    pub(super) fail_times: u64,
    pub(super) kills: bool,
    pub(super) reads: Reads,
    pub(super) sources: Vec<ShuffleSource>,
    /// What it leaves, once it has read its input; see [`super::stages`].
    pub(super) content: u32,
}

pub(super) struct Agent {
    pub(super) index: usize,
    pub(super) id: u64,
    pub(super) link: Link,
    /// The replica at the other end of the link.
    pub(super) replica: u64,
    session: Option<AgentSession>,
    pub(super) incarnation: u64,
    /// Leases in the order they came; the first one runs.
    queue: VecDeque<Running>,
    next_done: u64,
    dial: Option<(u64, Option<String>)>,
    /// Where schedulers may be, as the cluster has said last; on disk, as what follows.
    addresses: Vec<String>,
    pub(super) disk: Disk,
    rotation: Rotation,
    was_open: bool,
    pub(super) stopped: bool,
    pub(super) backlog: Vec<Delivery>,
    started: BTreeSet<LeaseId>,
    /// Sequence numbers of this process and the leases they report.
    sequences: BTreeMap<u64, LeaseId>,
    /// Shuffle data of this process, its own and copies of others': what each task left.
    shuffle: BTreeMap<Shuffled, u32>,
    last_heard: u64,
    resumed_at: u64,
    /// Reports gather this many tasks.
    batch: usize,
    pub(super) repeat_reports: bool,
    /// How many times longer than elsewhere a task takes here.
    pub(super) slowness: u64,
    /// Its device is broken: whatever runs there dies.
    pub(super) sick: bool,
}

impl Running {
    /// Of a job with rounds only the last one makes output.
    fn makes_part(&self) -> bool {
        self.with_parts && self.round.as_ref().is_none_or(Round::makes_output)
    }
}

impl Agent {
    pub(super) fn new(index: usize, id: u64, addresses: Vec<String>, room: Option<usize>) -> Agent {
        let mut agent = Agent {
            index,
            id,
            link: Link(0),
            replica: 0,
            session: None,
            incarnation: 0,
            queue: VecDeque::new(),
            next_done: 0,
            dial: None,
            addresses,
            disk: Disk::with_room(room),
            rotation: Rotation::default(),
            was_open: false,
            stopped: false,
            backlog: Vec::new(),
            started: BTreeSet::new(),
            sequences: BTreeMap::new(),
            shuffle: BTreeMap::new(),
            last_heard: 0,
            resumed_at: 0,
            batch: 1 + index % 4,
            repeat_reports: false,
            slowness: 1,
            sick: false,
        };
        agent.revive(0);
        agent
    }

    /// A new process.
    pub(super) fn revive(&mut self, now: u64) {
        self.incarnation += 1;
        let device = Device {
            class: "cpu".into(),
            name: "simulated".into(),
            capacity: Some(Capacity { milli_cpu: 1000, memory_bytes: 1 << 30, slots: 8 }),
            kernels: vec!["number@1".into(), "gather@1".into()],
            parallelism: 1,
            ..Device::default()
        };
        let mut session = AgentSession::new(Hello {
            protocol_version: raftwerk_proto::OLDEST_PROTOCOL_VERSION,
            versions: raftwerk_proto::own_versions(0),
            incarnation: self.incarnation,
            name: format!("worker-{}", self.id),
            data_address: format!("worker-{}:1", self.id),
            devices: vec![device],
            labels: vec![Label { key: "even".into(), value: if self.id.is_multiple_of(2) { "yes" } else { "no" }.into() }],
            kept_jobs: self.disk.jobs(),
            checks_parts: true,
            stage_graphs: true,
            ..Hello::default()
        });
        (self.rotation, self.was_open) = (Rotation::default(), false);
        let effects = session.handle(now, Input::Start);
        self.session = Some(session);
        self.last_heard = now;
        for effect in effects {
            if let Effect::Connect { address, .. } = effect {
                self.dial = Some((now, address));
            }
        }
    }

    pub(super) fn alive(&self) -> bool {
        self.session.is_some()
    }

    /// The process is gone, with everything it knew.
    pub(super) fn die(&mut self) {
        self.session = None;
        self.disk.process_ends();
        self.stopped = false;
        self.queue.clear();
        self.started.clear();
        self.sequences.clear();
        self.shuffle.clear();
        self.backlog.clear();
        self.dial = None;
        self.link = Link(0);
    }

    pub(super) fn handle(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let Some(session) = &mut self.session else { return Vec::new() };
        let effects = session.handle(now, input);
        let open = session.is_open();
        if open && !self.was_open {
            self.rotation.found();
        }
        self.was_open = open;
        effects
    }

    /// The scheduler to ask now, in the order of the agent that ships.
    pub(super) fn next_address(&mut self) -> Option<String> {
        audit(|a| a.counters.addresses_asked += 1);
        let left = self.session.as_ref().and_then(|session| session.left_leader());
        self.rotation.next(&self.addresses, left)
    }

    /// Whom to ask beside this one.
    pub(super) fn others(&self, first: &str) -> Vec<String> {
        let left = self.session.as_ref().and_then(|session| session.left_leader());
        self.rotation.others(&self.addresses, left, first)
    }

    pub(super) fn asked(&mut self, addresses: &[String]) {
        self.rotation.asked(addresses);
    }

    pub(super) fn knows_one_of(&self, addresses: &[String]) -> bool {
        self.addresses.iter().any(|known| addresses.contains(known))
    }

    pub(super) fn know(&mut self, addresses: Vec<String>) {
        self.addresses = addresses;
    }

    /// Why this worker takes nothing more that stays here, if so.
    pub(super) fn full(&self) -> Option<String> {
        self.disk.full(self.shuffle.len())
    }

    /// The same with room for so many parts more, that is promised already.
    pub(super) fn full_with(&self, promised: usize) -> Option<String> {
        self.disk.full_with(self.shuffle.len(), promised)
    }

    /// What its next heartbeat says.
    pub(super) fn measure(&mut self, now: u64) {
        let full = self.full().unwrap_or_default();
        self.handle(now, Input::Load(Load { full, ..Load::default() }));
    }

    /// A full worker ends the leases that would leave more: their tasks run elsewhere, or later.
    pub(super) fn hand_back(&mut self, now: u64) -> Vec<Effect> {
        let Some(reason) = self.full() else { return Vec::new() };
        let first = self.queue.front().map(|running| running.lease);
        let (back, stay): (VecDeque<Running>, VecDeque<Running>) =
            std::mem::take(&mut self.queue).into_iter().partition(|r| r.keeps_shuffle);
        self.queue = stay;
        if self.queue.front().map(|running| running.lease) != first {
            self.next_done = now + self.queue.front().map_or(0, |r| r.task_ms) * self.slowness;
        }
        let mut progress = Vec::new();
        for running in back {
            audit(|a| a.counters.handed_back += 1);
            progress.extend(running.pending);
            progress.push(handed_back(running.lease, &reason));
        }
        if progress.is_empty() { Vec::new() } else { self.handle(now, Input::Progress(progress)) }
    }

    /// Notes what a message says before the session takes it.
    pub(super) fn hears(&mut self, now: u64, message: &scheduler_message::Message) {
        self.last_heard = now;
        if let scheduler_message::Message::ReportAck(ack) = message {
            for sequence in &ack.sequences {
                if let Some(lease) = self.sequences.get(sequence) {
                    audit(|a| a.report_acknowledged(self.id, *lease, *sequence));
                }
            }
        }
    }

    /// Notes what is sent.
    pub(super) fn says(&mut self, message: &WorkerMessage) {
        if let Some(worker_message::Message::Reports(reports)) = &message.message {
            for report in &reports.reports {
                let lease = report.lease.unwrap_or_default().into();
                if self.sequences.insert(report.sequence, lease).is_some() {
                    audit(|a| a.counters.kept_reports_offered += 1);
                }
            }
        }
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

    /// When something is to do without a message.
    pub(super) fn wakes_at(&self) -> u64 {
        let Some(session) = self.session.as_ref().filter(|_| !self.stopped) else { return u64::MAX };
        let tick = session.wake_at().unwrap_or(u64::MAX);
        let dial = self.dial.as_ref().map_or(u64::MAX, |(at, _)| *at);
        let done = if self.queue.is_empty() { u64::MAX } else { self.next_done };
        tick.min(dial).min(done).min(self.disk.wakes_at())
    }

    pub(super) fn tick_due(&self, now: u64) -> bool {
        self.session.as_ref().and_then(|s| s.wake_at()).is_some_and(|at| at <= now)
    }

    /// The process wakes after a stop. Its executors stood still too.
    pub(super) fn go_on(&mut self, now: u64) -> Vec<Delivery> {
        self.stopped = false;
        self.resumed_at = now;
        self.next_done = self.next_done.max(now);
        std::mem::take(&mut self.backlog)
    }

    /// As quick as the others again, in the middle of a task too.
    pub(super) fn hurry(&mut self, now: u64) {
        self.next_done = now + self.next_done.saturating_sub(now) / self.slowness.max(1);
        self.slowness = 1;
    }

    /// The task whose time is over, if there is one.
    pub(super) fn finished(&mut self, now: u64) -> Option<Finished> {
        let running = self.queue.front_mut().filter(|_| now >= self.next_done)?;
        let task = running.next_task;
        running.next_task += 1;
        self.next_done = now + running.task_ms * self.slowness;
        Some(Finished {
            lease: running.lease,
            job: running.job,
            stage: running.stage,
            generation: running.generation,
            task,
            with_parts: running.makes_part(),
            on_workers: running.on_workers,
            copy_to: running.copy_to.clone(),
            fail_every: running.fail_every,
            fail_times: running.fail_times,
            kills: running.kills,
            reads: running.reads.clone(),
            sources: running.sources.clone(),
            content: 0,
        })
    }

    /// Puts the task's end into what the session is told, in batches.
    pub(super) fn conclude(&mut self, task: u64, outcome: Result<u32, (FailureClass, u64, &str)>) -> Vec<LeaseProgress> {
        let Some(running) = self.queue.front_mut() else { return Vec::new() };
        let over = running.next_task == running.end;
        if let Ok(content) = outcome {
            audit(|a| a.computed(running.lease, task, content));
            if running.keeps_shuffle {
                self.shuffle.insert((running.job, running.stage, running.generation, task), content);
            }
        }
        running.pending.push(concluded(self.id, running, task, over, outcome));
        if !over && running.pending.len() < self.batch {
            return Vec::new();
        }
        let progress = std::mem::take(&mut running.pending);
        if over {
            self.queue.pop_front();
        }
        progress
    }

    pub(super) fn start(&mut self, now: u64, grant: &Grant, stage: &StageInfo) -> Vec<Effect> {
        let spec = stage.spec.clone().unwrap_or_default();
        let param = |name: &str| spec.params.iter().find(|p| p.name == name).and_then(|p| p.value.parse().ok()).unwrap_or_default();
        let task_ms = std::cmp::max(1, param("ms"));
        let round = stage.round.clone().map(|info| Round::new(info, u32::try_from(param("converges")).unwrap_or_default()));
        let lease: LeaseId = grant.lease.unwrap_or_default().into();
        audit(|a| {
            a.lease_starts(self.id, lease);
            a.starts_in_round(lease, grant.job, stage.round.as_ref());
            if !self.started.insert(lease) {
                a.violate("a_lease_is_started_once", format!("worker {} starts lease {lease} again", self.id));
            }
        });
        if let Some(reason) = self.full().filter(|_| spec.partitions > 0) {
            audit(|a| a.counters.handed_back += 1);
            return self.handle(now, Input::Progress(vec![handed_back(lease, &reason)]));
        }
        if self.queue.is_empty() {
            self.next_done = now + task_ms * self.slowness;
        }
        self.queue.push_back(Running {
            lease,
            job: grant.job,
            stage: grant.stage,
            generation: grant.generation,
            next_task: grant.first_task,
            end: grant.first_task + grant.task_count,
            tallies: spec.kernel.as_ref().map_or(0, |k| k.tallies.len()),
            with_parts: stage.output.is_some(),
            on_workers: stage.output.as_ref().is_some_and(|output| output.url == OUTPUT_ON_WORKERS),
            keeps_shuffle: spec.partitions > 0,
            round,
            task_ms,
            fail_every: param("fail_every"),
            fail_times: param("fail_times"),
            kills: param("kills") != 0,
            reads: Reads::of(&spec),
            sources: grant.sources.clone(),
            copy_to: grant.copy_to.iter().map(|target| target.worker).collect(),
            pending: Vec::new(),
        });
        Vec::new()
    }

    /// Drops what has not run and says so with the final message.
    pub(super) fn stop(&mut self, now: u64, lease: LeaseId) -> Vec<Effect> {
        let mut progress: Vec<LeaseProgress> = Vec::new();
        if let Some(at) = self.queue.iter().position(|r| r.lease == lease)
            && let Some(running) = self.queue.remove(at)
        {
            progress = running.pending;
            if at == 0 {
                self.next_done = now + self.queue.front().map_or(0, |r| r.task_ms) * self.slowness;
            }
        }
        progress.push(LeaseProgress { lease: Some(lease.into()), final_report: true, ..LeaseProgress::default() });
        self.handle(now, Input::Progress(progress))
    }

    /// The executor dies under its leases: over this task, or over the one that runs.
    pub(super) fn executor_dies(&mut self, now: u64, task: Option<u64>) -> Vec<Effect> {
        let running = self.queue.front().map(|r| (r.lease.into(), task.unwrap_or(r.next_task), 1));
        // What it had handed over already is the agent's.
        let progress: Vec<LeaseProgress> = self.queue.drain(..).flat_map(|r| r.pending).collect();
        let mut effects = self.handle(now, Input::Progress(progress));
        let running = running.into_iter().collect();
        let class = FailureClass::Executor;
        effects.extend(self.handle(now, Input::ExecutorLost { device: 0, message: "killed".into(), running, class }));
        effects
    }

    /// Shuffle data of earlier rounds that nobody needs any more.
    pub(super) fn free_rounds(&mut self, job: u64, stage: &str, before: u32) {
        let stage = super::stages::stage_called(stage);
        self.shuffle.retain(|(of, index, generation, _), _| (*of, *index) != (job, stage) || *generation >= before);
    }

    pub(super) fn release(&mut self, job: u64) {
        self.shuffle.retain(|(of, ..), _| *of != job);
    }

    /// Takes a copy of another worker's shuffle data.
    pub(super) fn keep_copy(&mut self, data: Shuffled, content: u32) {
        self.shuffle.insert(data, content);
    }

    pub(super) fn holds(&self, data: &Shuffled) -> Option<u32> {
        self.shuffle.get(data).copied()
    }

    /// The sum of what the tasks left, if all of it is here.
    pub(super) fn read_shuffle(&self, job: u64, stage: u32, generation: u32, mut tasks: std::ops::Range<u64>) -> Option<u32> {
        tasks.try_fold(0u32, |sum, task| Some(sum.wrapping_add(self.holds(&(job, stage, generation, task))?)))
    }

    pub(super) fn listing(request: &ListInputs) -> Input {
        Input::Listing(InputListing { request: request.request, inputs: request.inputs.clone(), ..InputListing::default() })
    }

    /// A worker that has heard nothing for the lease time stops by itself.
    pub(super) fn check_fence(&self, now: u64, lease_ttl_ms: u64) {
        let limit = lease_ttl_ms + FENCE_SLACK_MS;
        if !self.queue.is_empty() && now > self.last_heard + limit && now > self.resumed_at + FENCE_SLACK_MS && !self.stopped {
            let silent = now - self.last_heard;
            audit(|a| a.violate("an_unheard_worker_stops", format!("worker {} runs leases after {silent} ms of silence", self.id)));
        }
    }

    /// A leader that has not heard of it for the lease time is about to say that it is lost.
    pub(super) fn check_has_stopped(&self, now: u64) {
        if !self.queue.is_empty() && now > self.resumed_at + FENCE_SLACK_MS && !self.stopped {
            audit(|a| a.violate("who_is_taken_for_lost_has_stopped", format!("worker {} runs leases", self.id)));
        }
    }

    pub(super) fn describe(&self) -> String {
        let held = self.session.as_ref().map_or(0, |s| s.held().count());
        let unacknowledged = self.session.as_ref().map_or(0, |s| s.unacknowledged());
        let state = if self.alive() { "alive" } else { "dead" };
        format!(
            "worker {} {state} stopped {} link {:?} to {} held {held} unacknowledged {unacknowledged} queue {}",
            self.id,
            self.stopped,
            self.link,
            self.replica,
            self.queue.len()
        )
    }
}

/// For whatever tasks of the lease have no result yet.
fn handed_back(lease: LeaseId, reason: &str) -> LeaseProgress {
    let failure =
        TaskFailure { first_task: 0, task_count: u64::MAX, class: FailureClass::Full.into(), message: reason.into(), source_worker: 0 };
    LeaseProgress { lease: Some(lease.into()), failures: vec![failure], final_report: true, ..LeaseProgress::default() }
}

fn concluded(worker: u64, running: &Running, task: u64, over: bool, outcome: Result<u32, (FailureClass, u64, &str)>) -> LeaseProgress {
    let mut progress = LeaseProgress {
        lease: Some(running.lease.into()),
        final_report: over,
        busy_ns: running.task_ms * 1_000_000,
        ..LeaseProgress::default()
    };
    let content = match outcome {
        Ok(content) => content,
        Err((class, source_worker, message)) => {
            let failure = TaskFailure { first_task: task, task_count: 1, class: class.into(), message: message.into(), source_worker };
            progress.failures.push(failure);
            return progress;
        }
    };
    let tallies = vec![TallyValues { values: vec![value_of(task)] }; running.tallies];
    let counters = TaskCounters { records_in: vec![value_of(task)], bytes_in: vec![1], ..TaskCounters::default() };
    progress.results.push(TaskResults { first_task: task, task_count: 1, tallies, counters: Some(counters) });
    progress.blocks.push(BlockIndex { task, ..BlockIndex::default() });
    if running.stage > 0 {
        progress.round_end = running.round.as_ref().map(|round| round.end(running.job));
    }
    if running.makes_part() {
        let staged_name = super::output::staged_name(task, running.lease);
        let part = OutputPart {
            partition: task as u32,
            name: format!("part-{task}-{}", running.generation),
            staged_name,
            worker: if running.on_workers { worker } else { 0 },
            crc32c: content,
            ..OutputPart::default()
        };
        progress.parts.push(part);
    }
    progress
}
