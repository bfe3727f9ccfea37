//! The edge: the only place where the leader loop meets clock, network and Raft. It waits; the loop decides.

use crate::awake::Awake;
use crate::fail_point;
use crate::leader::{Answer, ConnId, Effect, Input, Leader, Limits, RequestId, Timing};
use crate::machine::Replicated;
use crate::members::Members;
use crate::raft::{LeaderTenure, Leadership, ProposeError, Replica};
use raftwerk_core::Applied;
use raftwerk_core::plan::policy::Policy;
use raftwerk_proto::Wire;
use raftwerk_proto::v1::{SchedulerMessage, WorkerView};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};

/// Inputs waiting for the loop; sessions wait here when it is busy, which is the back-pressure on workers.
const INBOX: usize = 8192;
/// Inputs taken before the loop proposes.
const BURST: usize = 1024;
const TICK: Duration = Duration::from_millis(50);
const DISK_LOOK: Duration = Duration::from_secs(2);

pub(crate) type Outgoing = Result<SchedulerMessage, tonic::Status>;

/// What services hand to the loop: an input, and the way back.
pub(crate) enum Arrival {
    Plain(Input),
    Connected { input: Input, conn: ConnId, outbox: mpsc::Sender<Outgoing> },
    Request { input: Input, request: RequestId, reply: oneshot::Sender<Answer> },
    Workers { reply: oneshot::Sender<Vec<WorkerView>> },
}

/// What the services and the loop share.
pub(crate) struct Shared {
    pub(crate) replica: Replica<Replicated>,
    /// By which tasks are placed while this process leads.
    pub(crate) policy: &'static dyn Policy,
    /// Set while this process leads.
    inbox: watch::Sender<Option<mpsc::Sender<Arrival>>>,
    next_number: AtomicU64,
    /// Grows with every applied entry while leading; job watchers wait on it.
    pub(crate) changed: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(replica: Replica<Replicated>, policy: &'static dyn Policy) -> Arc<Shared> {
        let (inbox, changed) = (watch::Sender::new(None), watch::Sender::new(0));
        Arc::new(Shared { replica, policy, inbox, next_number: AtomicU64::new(1), changed })
    }

    pub(crate) fn inbox(&self) -> Option<mpsc::Sender<Arrival>> {
        self.inbox.borrow().clone()
    }

    /// The loop of this replica once it leads; or the leader's address, empty when none is known, once that is another than `left` or
    /// `patience` is over. Whoever has just lost a leader hears of the next one as soon as there is one, without asking again.
    pub(crate) async fn inbox_or_leader(&self, left: &str, patience: Duration) -> Result<mpsc::Sender<Arrival>, String> {
        let (mut inbox, mut leadership) = (self.inbox.subscribe(), self.replica.leadership());
        let own = self.replica.id();
        // In one loop: two watches that are awaited one after the other would miss the one that comes first.
        let known = async {
            loop {
                if let Some(inbox) = inbox.borrow_and_update().clone() {
                    return Some(inbox);
                }
                let other = leadership.borrow_and_update().leader.as_ref().is_some_and(|(id, address)| *id != own && address != left);
                if other {
                    return None;
                }
                tokio::select! {
                    alive = inbox.changed() => alive.ok()?,
                    alive = leadership.changed() => alive.ok()?,
                }
            }
        };
        if let Ok(Some(inbox)) = tokio::time::timeout(patience, known).await {
            return Ok(inbox);
        }
        let leader = self.replica.leadership().borrow().leader.clone();
        Err(leader.filter(|(id, _)| *id != own).map(|(_, address)| address).unwrap_or_default())
    }

    /// Numbers for connections and requests.
    pub(crate) fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands a request to the loop and waits for its answer; `None` when this replica does not lead, or ceased to meanwhile.
    pub(crate) async fn ask(&self, make: impl FnOnce(RequestId) -> Input) -> Option<Answer> {
        let inbox = self.inbox()?;
        let request = RequestId(self.number());
        let (reply, answer) = oneshot::channel();
        inbox.send(Arrival::Request { input: make(request), request, reply }).await.ok()?;
        answer.await.ok()
    }

    fn set_inbox(&self, inbox: Option<mpsc::Sender<Arrival>>) {
        self.inbox.send_replace(inbox);
    }
}

/// Leads whenever Raft says so, until the process ends.
pub(crate) async fn run(shared: Arc<Shared>, timing: Timing, limits: Limits) {
    let mut leadership = shared.replica.leadership();
    loop {
        // Looked at anew each time: one tenure may have followed another while the loop was still in the first.
        let tenure = leadership.borrow_and_update().leading.clone();
        let Some(tenure) = tenure else {
            match leadership.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        tracing::info!(term = tenure.term, "leading");
        lead(&shared, &tenure, timing, limits, &mut leadership).await;
        shared.set_inbox(None);
        tracing::info!(term = tenure.term, "no longer leading");
        // A proposal may have failed although Raft has not said that leadership ended: begin afresh when a majority answers, and not before.
        shared.replica.majority_or_end(&tenure).await;
    }
}

type Proposal = std::pin::Pin<Box<dyn Future<Output = Result<(u64, Arc<Applied>), ProposeError>> + Send>>;

/// Ways out of one leadership; all of them close when it ends.
#[derive(Default)]
struct Outlets {
    conns: BTreeMap<ConnId, mpsc::Sender<Outgoing>>,
    requests: BTreeMap<RequestId, oneshot::Sender<Answer>>,
}

/// One leadership. All sessions and waiting calls end with it: the workers and clients turn to the next leader.
async fn lead(shared: &Arc<Shared>, tenure: &LeaderTenure, timing: Timing, limits: Limits, leadership: &mut watch::Receiver<Leadership>) {
    let (sender, mut inbox) = mpsc::channel(INBOX);
    let started = Instant::now();
    let mut awake = Awake::since(0);
    let mut now = || awake.at(started.elapsed().as_millis() as u64);
    let mut members = Members::look(shared);
    let mut leader = {
        let state = shared.replica.state().read().unwrap_or_else(|e| e.into_inner());
        Leader::new(timing, &state.0, now())
            .with_limits(limits)
            .with_policy(shared.policy)
            .writing(members.format())
            .with_schedulers(members.schedulers())
    };
    let mut disk_watch = tokio::task::JoinSet::new();
    disk_watch.spawn(watch_disk(shared.replica.config().data_dir.clone(), sender.clone()));
    shared.set_inbox(Some(sender));
    let mut outlets = Outlets::default();
    let mut proposal: Option<Proposal> = None;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut inputs: Vec<Input> = Vec::with_capacity(BURST);
    loop {
        tokio::select! {
            biased;
            landed = async { match proposal.as_mut() { Some(p) => p.await, None => std::future::pending().await } } => {
                proposal = None;
                match landed {
                    Ok((index, applied)) => {
                        shared.changed.send_replace(index);
                        inputs.push(Input::Applied(applied));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an entry was not committed by this leadership");
                        return;
                    }
                }
            }
            changed = leadership.changed() => {
                if changed.is_err() || leadership.borrow().leading.as_ref() != Some(tenure) {
                    return;
                }
            }
            arrival = inbox.recv() => match arrival {
                Some(arrival) => outlets.take_in(arrival, &leader, shared, now(), &mut inputs),
                None => return,
            },
            _ = ticks.tick() => {
                inputs.push(Input::Tick);
                inputs.extend(members.news(shared));
            }
        }
        while inputs.len() < BURST
            && let Ok(arrival) = inbox.try_recv()
        {
            outlets.take_in(arrival, &leader, shared, now(), &mut inputs);
        }
        let mut effects = Vec::new();
        let body = {
            let state = shared.replica.state().read().unwrap_or_else(|e| e.into_inner());
            leader.majority_silent_for(shared.replica.majority_silence().as_millis() as u64);
            for input in inputs.drain(..) {
                fail_point::on_input(&input);
                effects.extend(leader.handle(now(), &state.0, input));
            }
            leader.flush(&state.0, wall_clock())
        };
        effects.iter().for_each(fail_point::on_effect);
        if let Some(body) = body {
            let (replica, bytes) = (shared.replica.clone(), bytes::Bytes::from(body.to_wire()));
            proposal = Some(Box::pin(async move { replica.propose_patiently(bytes).await }));
        }
        for conn in outlets.perform(effects) {
            inputs.push(Input::WorkerLeft { conn });
        }
    }
}

impl Outlets {
    fn take_in(&mut self, arrival: Arrival, leader: &Leader, shared: &Shared, now: u64, inputs: &mut Vec<Input>) {
        match arrival {
            Arrival::Plain(input) => {
                if let Input::WorkerDisconnected { conn } | Input::WorkerLeft { conn } = &input {
                    self.conns.remove(conn);
                }
                inputs.push(input);
            }
            Arrival::Connected { input, conn, outbox } => {
                self.conns.insert(conn, outbox);
                inputs.push(input);
            }
            Arrival::Request { input, request, reply } => {
                self.requests.insert(request, reply);
                inputs.push(input);
            }
            Arrival::Workers { reply } => {
                let state = shared.replica.state().read().unwrap_or_else(|e| e.into_inner());
                // The asker may have gone; then nobody misses the answer.
                let _ = reply.send(leader.worker_views(now, &state.0));
            }
        }
    }

    /// Performs effects; returns connections that had to be given up.
    fn perform(&mut self, effects: Vec<Effect>) -> Vec<ConnId> {
        let mut given_up = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { conn, message } => {
                    // An outbox that is closed is another matter: the session itself says how it ended.
                    let full = self.conns.get(&conn).is_some_and(|outbox| {
                        let sent = outbox.try_send(Ok(SchedulerMessage { message: Some(message) }));
                        matches!(sent, Err(mpsc::error::TrySendError::Full(_)))
                    });
                    if full {
                        tracing::warn!(conn = conn.0, "a worker does not read its session; closing it");
                        self.conns.remove(&conn);
                        given_up.push(conn);
                    }
                }
                Effect::Close { conn } => {
                    self.conns.remove(&conn);
                }
                Effect::Answer { request, answer } => {
                    if let Some(reply) = self.requests.remove(&request) {
                        // A client that hung up gets its answer when it asks again with the same idempotency key.
                        let _ = reply.send(answer);
                    }
                }
            }
        }
        given_up
    }
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Tells the loop how much room the disk has, until the leadership ends.
async fn watch_disk(dir: std::path::PathBuf, inbox: mpsc::Sender<Arrival>) {
    loop {
        let dir = dir.clone();
        // A disk that hangs must not hang the runtime.
        let free =
            raftwerk_transport::tasks::blocking(move || rustix::fs::statvfs(&dir).map(|v| v.f_bavail.saturating_mul(v.f_frsize))).await;
        match free {
            Ok(Ok(bytes)) => {
                if inbox.send(Arrival::Plain(Input::FreeDisk(bytes))).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "the disk does not tell how much is free"),
            Err(_) => return,
        }
        tokio::time::sleep(DISK_LOOK).await;
    }
}
