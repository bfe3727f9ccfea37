//! The edge of the agent: waits, hands inputs to the session, performs its effects. It decides nothing and never blocks; files, network
//! and executors are other tasks that answer through the same queue.
use super::{
    connection::{Connection, Ended},
    data_dir::DataDir,
    device::{Common, DeviceEvent, DeviceHandle},
    elsewhere::{Tried, warn_of_others},
    load::LoadMeter,
    logs::Logs,
    publish, results, store,
};
use crate::session::{AgentSession, Effect, ExitReason, Input, StopReason, rotation::Rotation};
use raftwerk_proto::v1::{AttemptLogs, Device, Grant, InputListing, LeaseProgress, Load, SchedulerMessage, StageInfo, WorkerMessage};
use raftwerk_transport::Identity;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, mpsc, oneshot};

pub(crate) enum EdgeInput {
    Session(Input),
    /// To the last of these addresses; the others were asked before it, and have not answered.
    ConnectionOpen(u64, Vec<String>, mpsc::UnboundedSender<WorkerMessage>),
    ConnectionEnded(u64, Ended),
    Message(u64, SchedulerMessage),
    /// An answer to whoever is at the other end of this connection.
    Listing(u64, InputListing),
    Load(Load),
    /// A device does not start any more.
    Withdrawn(u32),
    Shutdown,
}

/// Jobs of another cluster whose results lie here that a heartbeat names at most.
const BROUGHT_TOLD: usize = 100;
/// Load is measured at most this often.
const LOAD_EVERY: Duration = Duration::from_secs(1);
/// How often a lost cluster is mentioned in the log, after the first time.
const MENTION_EVERY: Duration = Duration::from_secs(30);

pub(crate) struct Edge {
    pub(crate) session: AgentSession,
    pub(crate) name: String,
    pub(crate) identity: Identity,
    /// Where schedulers may be, in the order to try.
    pub(crate) addresses: Vec<String>,
    /// Those that this process was started with.
    pub(crate) given: Vec<String>,
    pub(crate) dir: Arc<DataDir>,
    pub(crate) common: Arc<Common>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) offered: Vec<Device>,
    pub(crate) devices: BTreeMap<u32, DeviceHandle>,
    pub(crate) inputs: mpsc::UnboundedReceiver<EdgeInput>,
    /// Told once, with the reason of the end.
    pub(crate) exited: Option<oneshot::Sender<ExitReason>>,
    pub(crate) state: EdgeState,
}

/// What the edge remembers for itself.
pub(crate) struct EdgeState {
    started: Instant,
    connections: u64,
    connection: Option<Connection>,
    rotation: Rotation,
    tried: Tried,
    mentioned: Option<Instant>,
    was_open: bool,
    load_asked: Option<Instant>,
    meter: Arc<std::sync::Mutex<LoadMeter>>,
    /// One publish at a time: a leader may ask again while the first is under way.
    publishing: Arc<Mutex<()>>,
}

impl EdgeState {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            connections: 0,
            connection: None,
            rotation: Rotation::default(),
            tried: Tried::default(),
            mentioned: None,
            was_open: false,
            load_asked: None,
            meter: Arc::default(),
            publishing: Arc::default(),
        }
    }
}

impl Edge {
    fn now_ms(&self) -> u64 {
        self.state.started.elapsed().as_millis() as u64
    }

    pub(crate) async fn run(mut self) {
        self.handle(Input::Start);
        let mut batch = Vec::new();
        while !self.session.has_exited() {
            let wake = self.session.wake_at().map(|at| self.state.started + Duration::from_millis(at));
            let tick = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.inputs.recv_many(&mut batch, 1024) => {
                    if received == 0 {
                        self.handle(Input::ShutdownRequested { reason: "the worker was dropped".into() });
                    }
                    self.take(&mut batch);
                }
                () = tick => {}
            }
            // After every batch too: a busy queue must not keep a heartbeat waiting.
            if wake.is_some_and(|at| Instant::now() >= at) {
                self.measure_load();
                self.handle(Input::Tick);
            }
        }
        self.shut_down().await;
    }

    /// Neighbouring progress goes to the session as one input, and so to the scheduler as one message.
    fn take(&mut self, batch: &mut Vec<EdgeInput>) {
        let mut progress: Vec<LeaseProgress> = Vec::new();
        for input in batch.drain(..) {
            if let EdgeInput::Session(Input::Progress(more)) = input {
                if progress.is_empty() {
                    progress = more;
                } else {
                    progress.extend(more);
                }
                continue;
            }
            if !progress.is_empty() {
                let told = std::mem::take(&mut progress);
                self.handle(Input::Progress(told));
            }
            match input {
                EdgeInput::Session(input) => self.handle(input),
                EdgeInput::ConnectionOpen(number, asked, outgoing) => self.on_open(number, asked, outgoing),
                EdgeInput::ConnectionEnded(number, ended) => self.on_ended(number, ended),
                EdgeInput::Message(number, message) => {
                    if self.state.connection.as_ref().is_some_and(|connection| connection.number == number) {
                        self.handle(Input::FromScheduler(message));
                    }
                }
                EdgeInput::Listing(number, listing) => {
                    if self.state.connection.as_ref().is_some_and(|connection| connection.number == number) {
                        self.handle(Input::Listing(listing));
                    }
                }
                EdgeInput::Load(load) => self.handle(Input::Load(load)),
                EdgeInput::Withdrawn(index) => {
                    self.offered.retain(|device| device.index != index);
                    self.handle(Input::DevicesChanged(self.offered.clone()));
                }
                EdgeInput::Shutdown => self.handle(Input::ShutdownRequested { reason: "the worker was asked to stop".into() }),
            }
        }
        if !progress.is_empty() {
            self.handle(Input::Progress(progress));
        }
    }

    fn handle(&mut self, input: Input) {
        let effects = self.session.handle(self.now_ms(), input);
        let mut starts: BTreeMap<u32, Vec<(Grant, Arc<StageInfo>)>> = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::StartLease { grant, stage } => {
                    let lease = crate::lease::LeaseKey::from(grant.lease.unwrap_or_default());
                    tracing::debug!(target: "raftwerk_worker::leases", %lease, job = grant.job, first_task = grant.first_task, tasks = grant.task_count, "granted");
                    starts.entry(grant.device).or_default().push((grant, stage));
                }
                effect => {
                    // A stop must not overtake the start of its lease.
                    self.start(&mut starts);
                    self.perform(effect);
                }
            }
        }
        self.start(&mut starts);
        if self.session.is_open() && !self.state.was_open {
            let leader = self.state.connection.as_ref().map_or_else(String::new, |connection| connection.address.clone());
            tracing::info!(worker = self.session.worker(), session = self.session.session(), leader, "registered with the cluster");
            if self.state.tried.found() {
                self.look_at_given(&leader);
            }
            self.remember(leader);
            self.state.rotation.found();
            self.state.mentioned = None;
        }
        self.state.was_open = self.session.is_open();
    }

    fn start(&mut self, starts: &mut BTreeMap<u32, Vec<(Grant, Arc<StageInfo>)>>) {
        while let Some((device, leases)) = starts.pop_first() {
            if let Some(handle) = self.devices.get(&device) {
                handle.send(DeviceEvent::Start(leases));
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { address, after_ms } => self.connect(address, Duration::from_millis(after_ms)),
            Effect::Disconnect { reason } => {
                tracing::info!(reason, "leaving this scheduler");
                self.state.connection.take().iter().for_each(Connection::abort);
                self.handle(Input::Disconnected { reason, jitter_permille: jitter() });
            }
            Effect::Send(message) => {
                if let Some(outgoing) = self.state.connection.as_ref().and_then(|connection| connection.outgoing.as_ref()) {
                    let _ = outgoing.send(message);
                }
            }
            Effect::StartLease { .. } => unreachable!("collected by the caller"),
            Effect::StopLease { lease, device, reason } => {
                let key = crate::lease::LeaseKey::from(lease);
                match reason {
                    StopReason::Unheard => tracing::warn!(lease = %key, "no leader has answered for the lease time; stopping a lease"),
                    reason => tracing::debug!(lease = %key, ?reason, "stopping a lease"),
                }
                if let Some(handle) = self.devices.get(&device) {
                    handle.send(DeviceEvent::Stop(lease.into()));
                }
            }
            Effect::ReplaceExecutor { device } => {
                tracing::warn!(device, "what runs of stopped leases is ended with its executor, which is replaced");
                if let Some(handle) = self.devices.get(&device) {
                    handle.send(DeviceEvent::Replace);
                }
            }
            Effect::ReleaseJob(job) => self.release(job),
            Effect::ReleaseParts(kept) => {
                let common = self.common.clone();
                raftwerk_transport::tasks::blocking(move || {
                    if let Err(error) = common.results.release(&kept) {
                        tracing::warn!(job = kept.job, %error, "cannot remove parts of a result that nobody needs");
                    }
                });
            }
            Effect::CopyAgain(request) => {
                let common = self.common.clone();
                raftwerk_transport::tasks::spawn(async move {
                    let copied = common.copier.again(&common.preparer.fetcher, &common.store, request).await;
                    let _ = common.edge.send(EdgeInput::Session(Input::CopiedAgain(copied)));
                });
            }
            Effect::KeepParts(request) => {
                let common = self.common.clone();
                raftwerk_transport::tasks::spawn(async move {
                    let kept = results::keep::answer(common.results.clone(), &common.room, &common.preparer.fetcher, request).await;
                    let _ = common.edge.send(EdgeInput::Session(Input::PartsKept(kept)));
                });
            }
            Effect::CheckParts(request) => {
                let (store, tell) = (self.common.results.clone(), results::inventory::to_session(&self.common.edge));
                raftwerk_transport::tasks::spawn(results::inventory::check(store, request, tell));
            }
            Effect::KnowSchedulers(schedulers) => self.know(schedulers),
            Effect::FreeLease(lease) => {
                let common = self.common.clone();
                raftwerk_transport::tasks::blocking(move || {
                    if let Err(error) = common.store.free(lease.into()) {
                        tracing::warn!(?lease, %error, "cannot free the shuffle data of a lease");
                    }
                });
            }
            Effect::FreeRounds { job, stage, before } => {
                let common = self.common.clone();
                raftwerk_transport::tasks::blocking(move || {
                    if let Err(error) = common.store.free_rounds(job, &stage, before) {
                        tracing::warn!(job, stage, %error, "cannot free the shuffle data of earlier rounds");
                    }
                });
            }
            Effect::ListInputs(request) => {
                let name = self.name.clone();
                // Numbers of requests begin anew with every leader: what the last one asked must not be answered to the next.
                let Some(asked_by) = self.state.connection.as_ref().map(|connection| connection.number) else { return };
                let common = self.common.clone();
                raftwerk_transport::tasks::blocking(move || {
                    let preparer = &common.preparer;
                    let listing = preparer.packs.answer(request, &name, |request| preparer.uploads.listing(request, &name));
                    let _ = common.edge.send(EdgeInput::Listing(asked_by, listing));
                });
            }
            Effect::ReleaseUploads(ids) => {
                let common = self.common.clone();
                raftwerk_transport::tasks::blocking(move || common.preparer.uploads.release(&ids));
            }
            Effect::Publish(request) => {
                let (turn, common) = (self.state.publishing.clone(), self.common.clone());
                raftwerk_transport::tasks::spawn(async move {
                    let _turn = turn.lock().await;
                    let shared = common.clone();
                    let publish = move || match request.output.as_ref().is_some_and(|output| store::is_url(&output.url)) {
                        true => shared.preparer.objects.publish(&request),
                        false => publish::answer(&shared.staging, &request),
                    };
                    let answered = raftwerk_transport::tasks::blocking(publish).await;
                    if let Ok(report) = answered {
                        let _ = common.edge.send(EdgeInput::Session(Input::Published(report)));
                    }
                });
            }
            Effect::FetchLogs(request) => {
                let logs = self.logs.of_job(request.job, request.max_bytes);
                self.handle(Input::Logs(AttemptLogs { request: request.request, logs }));
            }
            Effect::Exit(reason) => {
                if let ExitReason::Refused(reason) = &reason {
                    tracing::error!(reason, "the cluster refuses this worker");
                }
                if let ExitReason::Unreachable(reason) = &reason {
                    tracing::error!(reason, "no scheduler will ever take this worker");
                }
                if let Some(exited) = self.exited.take() {
                    let _ = exited.send(reason);
                }
            }
        }
    }

    /// A leader found by redirect may be the only scheduler left when those that are known are gone.
    fn remember(&mut self, address: String) {
        if address.is_empty() || self.addresses.contains(&address) {
            return;
        }
        self.addresses.push(address);
        self.write_down(self.addresses.clone());
    }

    /// Addresses that were typed and were not needed may be other names of the cluster's schedulers, or a mistake.
    fn look_at_given(&self, leader: &str) {
        let others: Vec<String> = self.given.iter().filter(|given| *given != leader).cloned().collect();
        let (identity, dir) = (self.identity.clone(), self.dir.clone());
        raftwerk_transport::tasks::spawn(async move { warn_of_others(others, identity, dir.path()).await });
    }

    /// The cluster's own list comes first. What this process was started with stays behind it: the addresses under which replicas know one another
    /// may not be those under which this machine reaches them.
    fn know(&mut self, schedulers: Vec<String>) {
        let mut addresses = schedulers.clone();
        addresses.extend(self.given.iter().filter(|given| !schedulers.contains(given)).cloned());
        if addresses == self.addresses {
            return;
        }
        tracing::info!(schedulers = schedulers.join(", "), "the schedulers of the cluster");
        self.addresses = addresses;
        self.write_down(schedulers);
    }

    fn write_down(&self, addresses: Vec<String>) {
        let dir = self.dir.clone();
        raftwerk_transport::tasks::blocking(move || {
            if let Err(error) = dir.remember_schedulers(&addresses) {
                tracing::warn!(%error, "cannot note the addresses of the schedulers");
            }
        });
    }

    fn release(&self, job: u64) {
        self.devices.values().for_each(|device| device.send(DeviceEvent::Release(job)));
        let common = self.common.clone();
        raftwerk_transport::tasks::blocking(move || {
            for result in [common.store.release(job), common.staging.release(job)] {
                if let Err(error) = result {
                    tracing::warn!(job, %error, "cannot remove what an ended job left on disk");
                }
            }
            common.room.released(job);
            common.preparer.objects.release(job);
        });
    }

    fn connect(&mut self, address: Option<String>, after: Duration) {
        // Never empty: what this process was started with stays on the list.
        let next = || self.state.rotation.next(&self.addresses, self.session.left_leader()).unwrap_or_default();
        let address = address.unwrap_or_else(next);
        let others = self.state.rotation.others(&self.addresses, self.session.left_leader(), &address);
        self.state.connections += 1;
        let (number, identity) = (self.state.connections, self.identity.clone());
        let connection = Connection::open(number, address, others, after, identity, self.common.edge.clone());
        self.state.connection = Some(connection);
    }

    fn on_open(&mut self, number: u64, asked: Vec<String>, outgoing: mpsc::UnboundedSender<WorkerMessage>) {
        if let Some(connection) = &mut self.state.connection
            && connection.number == number
        {
            connection.outgoing = Some(outgoing);
            self.state.rotation.asked(&asked);
            let address = asked.into_iter().next_back().unwrap_or_default();
            connection.address.clone_from(&address);
            self.state.tried.answered(&address);
            self.handle(Input::Connected { address });
        }
    }

    fn on_ended(&mut self, number: u64, ended: Ended) {
        let Some(connection) = self.state.connection.take_if(|connection| connection.number == number) else { return };
        let Ended { reason, failed } = ended;
        let asked: Vec<String> = failed.iter().map(|failed| failed.address.clone()).collect();
        self.state.rotation.asked(&asked);
        failed.into_iter().for_each(|failed| self.state.tried.failed(failed));
        if let Some(why) = self.state.tried.hopeless(&self.addresses, &self.given) {
            let (dir, cluster) = (self.dir.path().display(), self.identity.cluster());
            let reason = format!("{dir} is the data directory of a worker of cluster {cluster}, but {why}");
            return self.handle(Input::Unreachable { reason });
        }
        if self.state.was_open || self.state.mentioned.is_none_or(|at| at.elapsed() >= MENTION_EVERY) {
            tracing::warn!(address = connection.address, reason, "no connection to the cluster, trying again");
            self.state.mentioned = Some(Instant::now());
        }
        self.handle(Input::Disconnected { reason, jitter_permille: jitter() });
    }

    /// Off the hot path: the numbers go out with the next heartbeat.
    fn measure_load(&mut self) {
        if self.state.load_asked.is_some_and(|at| at.elapsed() < LOAD_EVERY) {
            return;
        }
        self.state.load_asked = Some(Instant::now());
        let (common, meter) = (self.common.clone(), self.state.meter.clone());
        raftwerk_transport::tasks::blocking(move || {
            let load = meter.lock().unwrap_or_else(std::sync::PoisonError::into_inner).measure(Load {
                shuffle_bytes: common.store.bytes(),
                kept_bytes: common.results.bytes(),
                upload_bytes: common.preparer.uploads.store.bytes(),
                brought_bytes: common.results.brought().bytes(),
                brought_jobs: common.results.brought().jobs().into_iter().take(BROUGHT_TOLD).collect(),
                quota_bytes: common.room.limits().quota_bytes.unwrap_or_default(),
                full: common.room.full().unwrap_or_default(),
                ..Load::default()
            });
            let _ = common.edge.send(EdgeInput::Load(load));
        });
    }

    async fn shut_down(mut self) {
        if let Some(connection) = self.state.connection.take() {
            connection.finish().await;
        }
        let ends = self.devices.values().map(|device| {
            let (sender, done) = oneshot::channel();
            device.send(DeviceEvent::Shutdown(sender));
            done
        });
        for done in ends.collect::<Vec<_>>() {
            let _ = done.await;
        }
    }
}

/// Spreads workers that lost the same leader; without a random source they merely come back together.
fn jitter() -> u16 {
    (getrandom::u32().unwrap_or_default() % 1001) as u16
}
