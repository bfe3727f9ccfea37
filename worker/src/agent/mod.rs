//! The agent: one per machine. Everything of a worker that touches files, network or processes.
//!
//! ```text
//! data_dir, identity      who this worker is               connection, edge   the session's clock, network and effects
//! elsewhere               addresses of another cluster
//! discovery, child, oom   devices and their executors      device, socket     leases on their way to an executor and back
//! watchdog                executors that hang
//! prepare, listing, npy   input files                      shuffle/           data between stages
//! footers                 of files of columns              store/             input and output in object stores
//! uploads/                input that clients have brought  packs              listings of very many files
//! takes                   whether kernels take them
//! destination, staging, publish, results/   output               logs, load, room   what people and the scheduler want to know
//! ```
mod child;
mod connection;
mod data_dir;
mod destination;
mod device;
mod discovery;
mod edge;
mod elsewhere;
mod footers;
mod identity;
mod listing;
mod load;
mod logs;
mod npy;
mod oom;
mod packs;
mod part_file;
mod pattern;
mod prepare;
mod publish;
mod results;
mod room;
mod scratch;
mod shuffle;
mod socket;
mod staging;
mod store;
mod survey;
mod takes;
mod uploads;
mod watchdog;

/// What shuffle data takes from one worker to another.
pub mod shuffle_speed {
    pub use super::shuffle::measure::{ShuffleShape, measure};
}

pub use data_dir::DataDirError;
pub use discovery::{DeviceSelection, ProbeOutcome, ProbedDevice, probe_devices};
pub use identity::JoinError;
pub use room::DiskLimits;
pub use store::{StoredResult, StoredResultError};

use crate::session::{AgentSession, ExitReason};
use anyhow::Context;
use child::Launcher;
use data_dir::DataDir;
use device::Common;
use edge::{Edge, EdgeInput, EdgeState};
use futures::future::BoxFuture;
use load::Machine;
use logs::Logs;
use packs::Packs;
use prepare::Preparer;
use raftwerk_proto::{
    DESCRIPTORS, Window, own_versions,
    v1::{Device, Hello, KernelKind, KernelRef, Label, worker_data_server::WorkerDataServer},
};
use raftwerk_transport::{Identity, JoinToken, MAX_MESSAGE_BYTES, PeerKind, require};
use results::store::ResultStore;
use room::Room;
use shuffle::{fetch::Fetcher, service::DataService, store::ShuffleStore};
use staging::Staging;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use tonic::service::interceptor::InterceptedService;
use uploads::{Uploads, store::UploadStore};

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// For people; need not be unique.
    pub name: String,
    /// Identity and shuffle data; of this worker alone.
    pub data_dir: PathBuf,
    /// Addresses ("host:port") of any schedulers of the cluster.
    pub schedulers: Vec<String>,
    /// Needed at the first start only.
    pub token: Option<JoinToken>,
    /// Where other workers fetch shuffle data.
    pub listen: String,
    /// The address others use, when it is not the one listened at.
    pub advertise: Option<String>,
    pub devices: DeviceSelection,
    /// What jobs may require or prefer of this worker, by key.
    pub labels: BTreeMap<String, String>,
    pub disk: DiskLimits,
    /// Shuffle data comes compressed from other workers: for networks that are slower than a core compresses.
    pub compress_shuffle: bool,
    /// A task without a sign of progress for so long is taken to hang, and its executor is ended; `None` leaves it to the scheduler, which knows what
    /// such tasks have taken, and to half an hour where it does not know.
    pub task_patience: Option<Duration>,
    /// When the data directory is that of a worker of another cluster: join this one, and bring what it kept of results. A cluster that was
    /// restored from a backup asks for what its jobs' records name.
    pub bring_results: bool,
    /// The program that runs as executor, and the arguments before `--device D --threads N`.
    pub executor_program: PathBuf,
    pub executor_args_prefix: Vec<String>,
}

/// Why a worker ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("the cluster refuses this worker: {0}")]
    Refused(String),
    /// Its data directory is of another cluster than the addresses, or the cluster knows its certificate no more.
    #[error("{0}")]
    Unreachable(String),
    #[error("the worker ended unexpectedly; its log says why")]
    Died,
}

/// The address at which this worker was told to listen cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: String,
    source: std::io::Error,
}

/// A worker that has joined, whose devices are ready and which keeps its session with the cluster until it is stopped. Dropping it stops
/// it too, without waiting.
#[derive(Debug)]
pub struct RunningWorker {
    id: u64,
    address: String,
    edge: Option<JoinHandle<()>>,
    exited: Option<oneshot::Receiver<ExitReason>>,
    shutdown: Shutdown,
    data_service: DataServer,
}

/// The shuffle service; it ends, its connections included, when this is dropped.
#[derive(Debug)]
struct DataServer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Fetches under way at the end may take this long to finish.
const LAST_FETCHES: Duration = Duration::from_millis(500);

/// Asks for the end when it is dropped.
#[derive(Debug)]
struct Shutdown(mpsc::UnboundedSender<EdgeInput>);

impl Drop for Shutdown {
    fn drop(&mut self) {
        let _ = self.0.send(EdgeInput::Shutdown);
    }
}

impl RunningWorker {
    /// Minted by the cluster when this worker joined; the same after every restart.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where other workers reach this one.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Returns when the worker ends by itself: never while it keeps trying.
    pub async fn wait(&mut self) -> Result<(), WorkerError> {
        let Some(exited) = &mut self.exited else { return Ok(()) };
        let reason = exited.await;
        self.exited = None;
        match reason {
            Ok(ExitReason::Refused(reason)) => Err(WorkerError::Refused(reason)),
            Ok(ExitReason::Unreachable(reason)) => Err(WorkerError::Unreachable(reason)),
            Ok(ExitReason::Stopped) => Ok(()),
            Err(_) => Err(WorkerError::Died),
        }
    }

    /// Says goodbye to the cluster, so that its leases end at once, and ends the executors.
    pub fn stop(mut self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = self.shutdown.0.send(EdgeInput::Shutdown);
            if let Some(edge) = self.edge.take() {
                let _ = edge.await;
            }
            drop(self.data_service.stop);
            if tokio::time::timeout(LAST_FETCHES, &mut self.data_service.task).await.is_err() {
                self.data_service.task.abort();
            }
        })
    }
}

/// Joins the cluster if need be, starts an executor per device, and keeps a session with the leader from then on. Returns when the
/// devices are ready; that the cluster is away is no error, and is tried for ever.
///
/// Boxed here, as every future that leaves this crate: what polls a future compiles it and all that it calls, so the program would compile the agent
/// and its servers a second time.
pub fn start(config: WorkerConfig) -> BoxFuture<'static, anyhow::Result<RunningWorker>> {
    Box::pin(start_agent(config))
}

async fn start_agent(config: WorkerConfig) -> anyhow::Result<RunningWorker> {
    raftwerk_transport::install_crypto();
    crate::executor::raise_descriptor_limit();
    config.devices.memory_bytes.into_iter().for_each(crate::heap::keep_little);
    anyhow::ensure!(!config.schedulers.is_empty(), "no scheduler address was given");
    // Before anything is made there: the directory may be somebody else's.
    identity::nobody_elses(&config.data_dir)?;
    let dir = Arc::new(DataDir::open(&config.data_dir)?);
    let identity = identity::load_or_join(&dir, &config.name, &config.schedulers, config.token.as_ref(), config.bring_results).await?;
    let id = identity.peer().id;
    // What the cluster has said is newer than the command line of a service that was written once.
    let mut addresses = dir.known_schedulers();
    addresses.extend(config.schedulers.iter().filter(|given| !addresses.contains(given)).cloned().collect::<Vec<_>>());

    let store = Arc::new(ShuffleStore::open(dir.path()).with_context(|| format!("cannot empty {}", dir.path().join("shuffle").display()))?);
    let results = ResultStore::open(dir.path()).with_context(|| format!("cannot use {}", dir.path().join("results").display()))?;
    let results = Arc::new(results);
    if !results.brought().jobs().is_empty() {
        let dir = results.brought().dir().display();
        tracing::info!(jobs = ?results.brought().jobs(), "parts of results of another cluster lie in {dir}: this one is told, and asks for what it knows");
    }
    let held = UploadStore::open(dir.path()).with_context(|| format!("cannot use {}", dir.path().join("uploads").display()))?;
    let held = Arc::new(held);
    let room = Arc::new(Room::new(config.disk, dir.path().to_owned(), store.clone(), results.clone(), held.clone()));
    let cannot_listen = |source| ListenError { address: config.listen.clone(), source };
    let listener = TcpListener::bind(&config.listen).await.map_err(cannot_listen)?;
    let local = listener.local_addr()?;
    let machine = Machine::look();
    let address = config.advertise.clone().unwrap_or_else(|| match local.ip().is_unspecified() {
        // Nobody can connect to "any address"; the host's name is the best guess there is.
        true => format!("{}:{}", machine.host.hostname, local.port()),
        false => local.to_string(),
    });

    let launcher = Launcher::new(
        config.executor_program.clone(),
        config.executor_args_prefix.clone(),
        config.devices.cpus.unwrap_or(machine.host.cores),
    )
    .with_memory(config.devices.memory_bytes);
    let logs: Arc<Logs> = Arc::default();
    let found = discovery::discover(&launcher, &machine, &config.devices, &logs).await;

    let (edge, inputs) = mpsc::unbounded_channel();
    let uploads = Arc::new(Uploads::new(held.clone(), room.clone(), identity.clone(), edge.clone()));
    let packs = Packs::open(dir.path()).with_context(|| format!("cannot use {}", dir.path().join("packs").display()))?;
    let preparer = Arc::new(Preparer {
        worker: id,
        name: config.name.clone(),
        packs: Arc::new(packs),
        uploads: uploads.clone(),
        objects: store::Objects::new(&config.name, identity.cluster(), store.dir().to_owned(), config.devices.memory_bytes),
        store: store.clone(),
        room: room.clone(),
        fetcher: Fetcher::new(identity.clone(), store.clone(), config.compress_shuffle, config.devices.memory_bytes),
        descriptors: Arc::new(Semaphore::new(prepare::DESCRIPTORS)),
        fetches: Arc::new(Semaphore::new(Fetcher::at_once(config.devices.memory_bytes, prepare::FETCHES))),
        opens: Semaphore::new(prepare::OPENS),
    });
    let staging = Arc::new(Staging::new(identity.cluster()));
    let parts = Semaphore::new(staging::PARTS_AT_ONCE);
    let copier = Arc::default();
    let common = Common {
        worker: id,
        launcher,
        preparer,
        store: store.clone(),
        results: results.clone(),
        room: room.clone(),
        staging,
        parts,
        copier,
        task_patience: config.task_patience,
        edge: edge.clone(),
    };
    let common = Arc::new(common);
    let (devices, offered) = offer(&common, found)?;
    let incarnation = getrandom::u64().map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let data_service =
        serve_data(listener, &identity, DataService { store, results: results.clone(), room, uploads, incarnation, edge: edge.clone() });

    let hello = Hello {
        protocol_version: Window::own().oldest,
        incarnation,
        name: config.name.clone(),
        data_address: address.clone(),
        host: Some(machine.host),
        devices: offered.clone(),
        held: Vec::new(),
        build: env!("CARGO_PKG_VERSION").into(),
        kernels: known_kernels(),
        left_leader: String::new(),
        kept_jobs: results.jobs(),
        uploads: held.ids(),
        brought_jobs: results.brought().jobs(),
        versions: own_versions(0),
        // A process that stands in for the former release knows of two stages only.
        stage_graphs: own_versions(0).is_some(),
        checks_parts: own_versions(0).is_some(),
        labels: config.labels.into_iter().map(|(key, value)| Label { key, value }).collect(),
    };
    let (exited_sender, exited) = oneshot::channel();
    let edge_loop = Edge {
        session: AgentSession::new(hello),
        name: config.name,
        identity,
        addresses,
        given: config.schedulers,
        dir,
        common,
        logs,
        offered,
        devices,
        inputs,
        exited: Some(exited_sender),
        state: EdgeState::new(),
    };
    let edge_task = raftwerk_transport::tasks::spawn(edge_loop.run());
    Ok(RunningWorker { id, address, edge: Some(edge_task), exited: Some(exited), shutdown: Shutdown(edge), data_service })
}

type Offer = (BTreeMap<u32, device::DeviceHandle>, Vec<Device>);

/// Numbers the devices that are ready; 0 is the CPU when it is offered.
fn offer(common: &Arc<Common>, found: Vec<discovery::Found>) -> anyhow::Result<Offer> {
    let cpu_offered = matches!(found.first(), Some(discovery::Found { launched: Some(Ok(_)), .. }));
    let mut next = if cpu_offered { 0 } else { 1 };
    let (mut devices, mut offered, mut reasons) = (BTreeMap::new(), Vec::new(), Vec::new());
    for discovery::Found { kind, mut device, output, launched } in found {
        let called = if device.name.is_empty() { kind.to_string() } else { format!("{kind} ({})", device.name) };
        match launched {
            Some(Ok(launched)) => {
                device.index = next;
                next += 1;
                tracing::info!(
                    index = device.index,
                    class = device.class,
                    name = device.name,
                    kernels = device.kernels.len(),
                    "device is ready"
                );
                devices.insert(device.index, device::start(common.clone(), device.index, kind, launched, output));
                offered.push(device);
            }
            Some(Err(error)) => {
                let error = shuffle::fetch::chain(&error);
                tracing::warn!(device = %kind, name = device.name, error, "device is not offered");
                reasons.push(format!("{called}: {error}"));
            }
            None => reasons.push(format!("{called}: not selected")),
        }
    }
    anyhow::ensure!(!offered.is_empty(), "this worker has no device to offer: {}", reasons.join("; "));
    Ok((devices, offered))
}

fn serve_data(listener: TcpListener, identity: &Identity, service: DataService) -> DataServer {
    let identity = identity.clone();
    #[cfg(feature = "flight")]
    let flights = raftwerk_flight::server(results::flight::Flights {
        store: service.results.clone(),
        tell: results::inventory::to_session(&service.edge),
    });
    let data = WorkerDataServer::new(service).max_encoding_message_size(MAX_MESSAGE_BYTES).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (stop, stopped) = oneshot::channel();
    let task = raftwerk_transport::tasks::spawn(async move {
        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_serving::<WorkerDataServer<DataService>>().await;
        // Even that somebody is well, and what it speaks, is said to peers of the cluster only.
        let peers_only = |request: tonic::Request<()>| {
            require(&request, &[PeerKind::Scheduler, PeerKind::Worker, PeerKind::Client])?;
            Ok(request)
        };
        let router = raftwerk_transport::server().add_service(data).add_service(InterceptedService::new(health, peers_only));
        #[cfg(feature = "flight")]
        let router = router.add_service(flights);
        let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS).build_v1();
        let router = match reflection {
            Ok(reflection) => router.add_service(InterceptedService::new(reflection, peers_only)),
            Err(error) => {
                tracing::warn!(%error, "gRPC reflection is off");
                router
            }
        };
        let stopped = async {
            let _: Result<(), _> = stopped.await;
        };
        if let Err(error) = raftwerk_transport::serve(router, listener, &identity, stopped).await {
            tracing::error!(%error, "the shuffle service ended");
        }
    });
    DataServer { stop, task }
}

/// What this build knows, for messages about kernels that it does not.
fn known_kernels() -> Vec<KernelRef> {
    let descriptors = raftwerk_kernels::registry().iter().map(|kernel| kernel.descriptor());
    let reference = |descriptor: &raftwerk_kernels::Descriptor| KernelRef {
        name: descriptor.name.into(),
        version: descriptor.version,
        kind: match descriptor.kind {
            raftwerk_kernels::Kind::Map => KernelKind::Map.into(),
            raftwerk_kernels::Kind::Reduce => KernelKind::Reduce.into(),
        },
        tallies: descriptor.tallies.iter().map(|&tally| tally.into()).collect(),
        // What is newer than the oldest format must not be in a registration, which is logged in any.
        ..KernelRef::default()
    };
    descriptors.map(reference).collect()
}
