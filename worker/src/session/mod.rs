//! The agent's session with the cluster, as a state machine: inputs in, effects out.
//!
//! No runtime, clock, I/O or randomness reaches this module: time is the `now_ms` of the caller (monotonic milliseconds from any
//! origin), jitter comes in with [`Input::Disconnected`]. The simulation runs this code as it ships.
//!
//! ```text
//!            Connect                 Connected: Hello + unacknowledged reports        Welcome
//!   Down ------------> Connecting ------------------------------------------> Greeting -------> Open
//!                         ^  ^                                                   |                |
//!                         |  +------------- Disconnected: back-off --------------+----------------+
//!                         +---- Redirect: straight to the leader, no back-off ---+
//! ```
//! What must hold here:
//! - A report gets its sequence number once and is kept until it is acknowledged; every connect offers all kept ones again.
//! - A lease is started at most once: granted again while it is held, or after its final report (also an acknowledged one, as far back as is
//!   remembered: a leader that was cut off may not know of it), it is ignored.
//! - A worker that has heard nothing for the lease time stops its leases by itself; what they had produced is still offered.
//! - A lease ends with exactly one final report in which every task has a result or a failure.

mod fence;
mod leases;
mod outbox;
mod report;
pub mod rotation;
mod steps;
#[cfg(test)]
mod tests;

use crate::lease::LeaseKey;
use fence::Fence;
use leases::HeldLease;
use outbox::Outbox;
use raftwerk_liveness::Detector;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{
    self as pb, Heartbeat, Hello, LeaseId, Load, SchedulerMessage, StageInfo, WorkerMessage, scheduler_message, worker_message,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
pub use steps::{Effect, ExitReason, Input, StopReason};

/// First pause after a lost connection; doubled up to [`BACKOFF_MAX_MS`]. A failover takes a few hundred milliseconds, so the first
/// attempts must come well within one.
pub const BACKOFF_MIN_MS: u64 = 50;
/// Ten thousand workers that come back at this pace are five thousand greetings a second, which one leader can answer.
pub const BACKOFF_MAX_MS: u64 = 2_000;
/// A peer that accepted the stream and does not answer `Hello` for this long is treated as gone.
pub const GREETING_MS: u64 = 5_000;
/// A stopped lease whose running tasks have not ended after this long is taken to hang (a shader, an endless loop): its executor
/// is replaced. Tasks are meant to take seconds.
pub const STOP_GRACE_MS: u64 = 60_000;
/// A tick that comes so much later than it was due says that this process had no turn: it was stopped, or its machine is crowded.
const STANDSTILL_MS: u64 = 500;
/// Redirects in a row that are followed at once; after that two schedulers may be pointing at each other, so back off.
const REDIRECTS_AT_ONCE: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    Connecting,
    Greeting {
        since_ms: u64,
    },
    Open,
    /// `Disconnect` was asked for; `Disconnected` has not come yet.
    Closing,
    Exited,
}

#[derive(Debug)]
pub struct AgentSession {
    /// What this agent says of itself; `held` is filled in per connection.
    hello: Hello,
    link: Link,
    address: Option<String>,
    redirect: Option<String>,
    redirects_in_a_row: u32,
    failed_connects: u32,
    /// The leader whose connection broke, until another has welcomed this worker.
    left_leader: Option<String>,
    worker: u64,
    session: u64,
    lease_ttl_ms: u64,
    fence: Fence,
    heartbeat_ms: u64,
    last_heard_ms: u64,
    /// Of the leader that has welcomed this worker.
    leader: Option<Detector>,
    next_heartbeat_ms: u64,
    heartbeat_sequence: u64,
    load: Load,
    leases: BTreeMap<LeaseKey, HeldLease>,
    stages: BTreeMap<(u64, u32), Arc<StageInfo>>,
    outbox: Outbox,
    /// Jobs of which parts may lie here; every leader is told, because it may know that nobody needs them any more.
    kept_jobs: BTreeSet<u64>,
}

impl AgentSession {
    pub fn new(hello: Hello) -> Self {
        Self {
            kept_jobs: hello.kept_jobs.iter().copied().collect(),
            hello,
            link: Link::Down,
            address: None,
            redirect: None,
            redirects_in_a_row: 0,
            failed_connects: 0,
            left_leader: None,
            worker: 0,
            session: 0,
            lease_ttl_ms: 0,
            fence: Fence::default(),
            heartbeat_ms: 0,
            last_heard_ms: 0,
            leader: None,
            next_heartbeat_ms: 0,
            heartbeat_sequence: 0,
            load: Load::default(),
            leases: BTreeMap::new(),
            stages: BTreeMap::new(),
            outbox: Outbox::default(),
        }
    }

    /// 0 before the first `Welcome`.
    pub fn worker(&self) -> u64 {
        self.worker
    }

    /// Log index of the current registration.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Whether a leader has welcomed this worker on the current connection.
    pub fn is_open(&self) -> bool {
        self.link == Link::Open
    }

    /// The leader whose connection broke, while there is no other: the last place to look for one.
    pub fn left_leader(&self) -> Option<&str> {
        self.left_leader.as_deref()
    }

    pub fn has_exited(&self) -> bool {
        self.link == Link::Exited
    }

    /// Leases not ended yet, stopping ones included.
    pub fn held(&self) -> impl Iterator<Item = LeaseId> + '_ {
        self.leases.keys().map(|&key| key.into())
    }

    /// Reports without acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.outbox.len()
    }

    /// When the next [`Input::Tick`] is wanted at the latest.
    pub fn wake_at(&self) -> Option<u64> {
        let mut at = match self.link {
            Link::Exited => return None,
            Link::Greeting { since_ms } => Some(since_ms + GREETING_MS),
            Link::Open => Some(self.next_heartbeat_ms.min(self.leader_suspect_at())),
            Link::Down | Link::Connecting | Link::Closing => None,
        };
        let mut by = |deadline: u64| at = Some(at.map_or(deadline, |a: u64| a.min(deadline)));
        if self.leases.values().any(|held| held.stopping_since_ms.is_none()) {
            by(self.fence.falls_at());
        }
        if let Some(since) = self.leases.values().filter_map(|held| held.stopping_since_ms).min() {
            by(since + STOP_GRACE_MS);
        }
        at
    }

    pub fn handle(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        if self.link == Link::Exited {
            return Vec::new();
        }
        let mut effects = Vec::new();
        let due_ms = self.wake_at().unwrap_or(now_ms);
        match input {
            Input::Start => {
                self.link = Link::Connecting;
                effects.push(Effect::Connect { address: None, after_ms: 0 });
            }
            Input::Connected { address } => self.on_connected(now_ms, address, &mut effects),
            Input::Disconnected { jitter_permille, .. } => self.on_disconnected(jitter_permille, &mut effects),
            Input::Unreachable { reason } => self.exit(ExitReason::Unreachable(reason), &mut effects),
            Input::FromScheduler(message) => self.on_message(now_ms, message, &mut effects),
            Input::Progress(batch) => self.on_progress(batch, &mut effects),
            Input::ExecutorLost { device, message, running, class } => {
                self.on_executor_lost(device, &message, &running, class, &mut effects)
            }
            Input::DevicesChanged(devices) => {
                self.hello.devices = devices;
                if matches!(self.link, Link::Greeting { .. } | Link::Open) {
                    self.redirect.clone_from(&self.address);
                    self.close("the devices of this worker changed", &mut effects);
                }
            }
            Input::Load(load) => self.load = load,
            Input::Listing(listing) => self.send_if_connected(worker_message::Message::Listing(listing), &mut effects),
            Input::Published(report) => self.send_if_connected(worker_message::Message::Published(report), &mut effects),
            Input::PartsKept(report) => self.send_if_connected(worker_message::Message::PartsKept(report), &mut effects),
            Input::PartsMissing(report) => self.send_if_connected(worker_message::Message::PartsMissing(report), &mut effects),
            Input::CopiedAgain(report) => self.send_if_connected(worker_message::Message::CopiedAgain(report), &mut effects),
            Input::Uploads(ids) => {
                self.hello.uploads = ids;
                // With the next heartbeat, which is now: whoever submits a job that reads a new one does it next.
                self.next_heartbeat_ms = self.next_heartbeat_ms.min(now_ms);
                self.on_tick(now_ms, due_ms, &mut effects);
            }
            Input::Logs(logs) => self.send_if_connected(worker_message::Message::Logs(logs), &mut effects),
            Input::Tick => self.on_tick(now_ms, due_ms, &mut effects),
            Input::ShutdownRequested { reason } => self.on_shutdown(reason, &mut effects),
        }
        effects
    }

    fn on_connected(&mut self, now_ms: u64, address: String, effects: &mut Vec<Effect>) {
        self.link = Link::Greeting { since_ms: now_ms };
        self.address = Some(address);
        let held = self.leases.iter().filter(|(_, held)| held.stopping_since_ms.is_none()).map(|(&key, _)| key.into());
        let left_leader = self.left_leader.clone().unwrap_or_default();
        let kept_jobs = self.kept_jobs.iter().copied().collect();
        let hello = Hello { held: held.collect(), left_leader, kept_jobs, ..self.hello.clone() };
        effects.push(send(worker_message::Message::Hello(hello)));
        // Right behind `Hello`, so that the leader sees what a lease produced before it decides about the lease.
        if planted::on(Bug::ForgetResults) {
            self.outbox = Outbox::default();
        }
        effects.extend(self.outbox.all().into_iter().map(|reports| send(worker_message::Message::Reports(reports))));
    }

    fn on_disconnected(&mut self, jitter_permille: u16, effects: &mut Vec<Effect>) {
        if self.link == Link::Open {
            self.left_leader = self.address.take();
        }
        self.link = Link::Connecting;
        if let Some(address) = self.redirect.take() {
            self.redirects_in_a_row += 1;
            if self.redirects_in_a_row <= REDIRECTS_AT_ONCE {
                effects.push(Effect::Connect { address: Some(address), after_ms: 0 });
                return;
            }
        }
        self.redirects_in_a_row = 0;
        let full = (BACKOFF_MIN_MS << self.failed_connects.min(10)).min(BACKOFF_MAX_MS);
        self.failed_connects += 1;
        let after_ms = full / 2 + full / 2 * u64::from(jitter_permille.min(1000)) / 1000;
        effects.push(Effect::Connect { address: None, after_ms });
    }

    fn on_message(&mut self, now_ms: u64, message: SchedulerMessage, effects: &mut Vec<Effect>) {
        use scheduler_message::Message;
        let Some(message) = message.message else {
            return self.close("protocol error: a message of a kind this build does not know", effects);
        };
        let greeting = matches!(self.link, Link::Greeting { .. });
        if !greeting && self.link != Link::Open {
            return; // left over from a stream that is being closed
        }
        self.last_heard_ms = self.last_heard_ms.max(now_ms);
        if let Some(leader) = &mut self.leader {
            match message {
                Message::HeartbeatAck(_) => leader.beat(now_ms),
                _ => leader.heard(now_ms),
            }
        }
        match message {
            Message::Welcome(welcome) if greeting => self.on_welcome(now_ms, welcome, effects),
            Message::Redirect(redirect) => {
                self.redirect = Some(redirect.leader_address).filter(|address| !address.is_empty());
                self.close("another scheduler leads", effects);
            }
            Message::Refused(refused) => self.exit(ExitReason::Refused(refused.reason), effects),
            _ if greeting => self.close("protocol error: expected Welcome", effects),
            Message::Welcome(_) => self.close("protocol error: Welcome came twice", effects),
            Message::HeartbeatAck(ack) => {
                self.fence.answered(ack.sequence);
                know(ack.schedulers, effects);
                if !ack.unneeded_uploads.is_empty() {
                    effects.push(Effect::ReleaseUploads(ack.unneeded_uploads));
                }
            }
            Message::Grants(grants) => self.on_grants(grants, effects),
            Message::Revoke(revoke) => {
                for lease in revoke.leases {
                    self.stop_lease(now_ms, lease.into(), StopReason::Revoked, effects);
                }
                effects.extend(revoke.unused.into_iter().map(Effect::FreeLease));
            }
            Message::ReportAck(ack) => ack.sequences.iter().for_each(|&sequence| self.outbox.acknowledge(sequence)),
            Message::ListInputs(request) => effects.push(Effect::ListInputs(request)),
            Message::Publish(request) => effects.push(Effect::Publish(request)),
            Message::CopyAgain(request) => effects.push(Effect::CopyAgain(request)),
            Message::KeepParts(request) => {
                self.kept_jobs.insert(request.job);
                effects.push(Effect::KeepParts(request));
            }
            Message::CheckParts(request) => effects.push(Effect::CheckParts(request)),
            Message::FetchLogs(request) => effects.push(Effect::FetchLogs(request)),
            Message::Release(release) => {
                let mut kept: BTreeMap<u64, pb::KeptParts> = release.kept.into_iter().map(|kept| (kept.job, kept)).collect();
                for job in release.jobs {
                    self.on_release(now_ms, job, effects);
                    self.release_parts(kept.remove(&job).unwrap_or(pb::KeptParts { job, ..Default::default() }), effects);
                }
            }
        }
    }

    fn on_welcome(&mut self, now_ms: u64, welcome: pb::Welcome, effects: &mut Vec<Effect>) {
        if let Link::Greeting { since_ms } = self.link {
            self.fence.welcomed(since_ms, u64::from(welcome.lease_ttl_ms.max(1)));
        }
        self.link = Link::Open;
        self.redirects_in_a_row = 0;
        self.failed_connects = 0;
        self.left_leader = None;
        self.worker = welcome.worker;
        self.session = welcome.session;
        self.lease_ttl_ms = u64::from(welcome.lease_ttl_ms.max(1));
        self.heartbeat_ms = u64::from(welcome.heartbeat_ms.max(1));
        self.next_heartbeat_ms = now_ms + self.heartbeat_ms;
        self.leader = Some(Detector::new(now_ms, self.heartbeat_ms));
        for lease in welcome.stop {
            self.stop_lease(now_ms, lease.into(), StopReason::EndedMeanwhile, effects);
        }
        know(welcome.schedulers, effects);
    }

    fn release_parts(&mut self, kept: pb::KeptParts, effects: &mut Vec<Effect>) {
        if self.kept_jobs.contains(&kept.job) {
            if !kept.all && kept.names.is_empty() {
                self.kept_jobs.remove(&kept.job);
            }
            effects.push(Effect::ReleaseParts(kept));
        }
    }

    fn on_tick(&mut self, now_ms: u64, due_ms: u64, effects: &mut Vec<Effect>) {
        if let Some(leader) = &mut self.leader
            && now_ms > due_ms + STANDSTILL_MS
        {
            // What the leader said meanwhile has not been read yet. Leases know no such excuse.
            leader.heard(now_ms);
        }
        if !self.leases.is_empty() && now_ms >= self.fence.falls_at() && !planted::on(Bug::NoSelfFence) {
            let over = self.leases.iter().filter(|(_, held)| held.stopping_since_ms.is_none());
            let (keys, devices): (Vec<LeaseKey>, BTreeSet<u32>) = over.map(|(&key, held)| (key, held.device)).unzip();
            for key in keys {
                self.stop_lease(now_ms, key, StopReason::Unheard, effects);
            }
            // The tasks that run are given to others next, and may take long yet.
            effects.extend(devices.into_iter().map(|device| Effect::ReplaceExecutor { device }));
        }
        let hung: BTreeSet<u32> = (self.leases.values_mut())
            .filter(|held| held.stopping_since_ms.is_some_and(|since| now_ms >= since + STOP_GRACE_MS))
            .map(|held| {
                held.stopping_since_ms = Some(now_ms); // ask once per grace, not on every tick
                held.device
            })
            .collect();
        effects.extend(hung.into_iter().map(|device| Effect::ReplaceExecutor { device }));
        match self.link {
            // Long before the leases run out: there may be another leader by now, and coming back to this one costs nothing.
            Link::Open if now_ms >= self.leader_suspect_at() => {
                self.left_leader = self.address.clone();
                self.close("the leader is silent", effects)
            }
            Link::Open if now_ms >= self.next_heartbeat_ms => {
                self.heartbeat_sequence += 1;
                self.next_heartbeat_ms = now_ms + self.heartbeat_ms;
                self.fence.asks(self.heartbeat_sequence, now_ms);
                let uploads = self.hello.uploads.clone();
                let heartbeat = Heartbeat { sequence: self.heartbeat_sequence, load: Some(self.current_load()), uploads };
                effects.push(send(worker_message::Message::Heartbeat(heartbeat)));
            }
            Link::Greeting { since_ms } if now_ms >= since_ms + GREETING_MS => self.close("Hello was not answered", effects),
            _ => {}
        }
    }

    /// When the leader becomes suspect if nothing more is heard of it.
    fn leader_suspect_at(&self) -> u64 {
        let silent_too_long = self.last_heard_ms + self.lease_ttl_ms;
        self.leader.as_ref().map_or(silent_too_long, |leader| leader.suspect_at().min(silent_too_long))
    }

    fn on_shutdown(&mut self, reason: String, effects: &mut Vec<Effect>) {
        self.send_if_connected(worker_message::Message::Goodbye(pb::Goodbye { reason }), effects);
        self.exit(ExitReason::Stopped, effects);
    }

    fn exit(&mut self, reason: ExitReason, effects: &mut Vec<Effect>) {
        for (&key, held) in &self.leases {
            effects.push(Effect::StopLease { lease: key.into(), device: held.device, reason: StopReason::Shutdown });
        }
        self.leases.clear();
        self.link = Link::Exited;
        effects.push(Effect::Exit(reason));
    }

    fn close(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Greeting { .. } | Link::Open) {
            self.link = Link::Closing;
            effects.push(Effect::Disconnect { reason: reason.into() });
        }
    }

    fn send_reports(&self, reports: Vec<pb::Report>, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Greeting { .. } | Link::Open) {
            effects.extend(outbox::batches(reports).into_iter().map(|reports| send(worker_message::Message::Reports(reports))));
        }
    }

    /// Answers to a leader's request: a later leader asks again, so nothing is kept.
    fn send_if_connected(&self, message: worker_message::Message, effects: &mut Vec<Effect>) {
        if self.link == Link::Open {
            effects.push(send(message));
        }
    }
}

/// Nothing is said when nothing has changed.
fn know(schedulers: Vec<String>, effects: &mut Vec<Effect>) {
    if !schedulers.is_empty() {
        effects.push(Effect::KnowSchedulers(schedulers));
    }
}

fn send(message: worker_message::Message) -> Effect {
    Effect::Send(WorkerMessage { message: Some(message) })
}
