//! Starts a replica: identity, listener, Raft, services, leader loop. Stops it again.

use crate::backup;
use crate::config::{DEFAULT_LISTEN, SchedulerConfig, StartError, StartMode};
use crate::edge::{self, Shared};
use crate::join;
use crate::leader::Timing;
use crate::machine::Replicated;
use crate::raft::{DataDir, RaftConfig, Replica, StoreError};
use crate::services::client::ClientService;
use crate::services::join::JoinService;
use crate::services::worker_session::WorkerSessionService;
use futures::future::BoxFuture;
use raftwerk_core::plan::policy::policy;
use raftwerk_proto::v1::client_server::ClientServer;
use raftwerk_proto::v1::join_server::JoinServer;
use raftwerk_proto::v1::worker_session_server::WorkerSessionServer;
use raftwerk_transport::{Authority, Identity, IdentityError, MAX_MESSAGE_BYTES, PeerKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The replica that makes a cluster has this id; all others are minted through the log.
pub(crate) const FIRST_REPLICA: u64 = 1;
pub const ADMIN_FILE: &str = "admin.pem";
pub const TOKEN_FILE: &str = "join-token";
/// In the identity's folder: a log was made under this identity, so one that is missing is lost.
const HAD_LOG: &str = "had-log";
const MEMBERS_WAIT: Duration = Duration::from_secs(5);
/// Where this replica listens, and what it tells the others if that is something else: a start without flags goes on with them.
const ADDRESS_FILE: &str = "address";
const ADVERTISE_FILE: &str = "advertise";

pub struct RunningScheduler {
    address: String,
    replica: Replica<Replicated>,
    replica_id: u64,
    cluster: String,
    data_dir: PathBuf,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    edge: JoinHandle<()>,
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> StartError + '_ {
    move |source| StartError::File { path: path.to_path_buf(), source }
}

/// Starts a replica and returns once it serves; a joining one once it is a voter.
///
/// Boxed here, as every future that leaves this crate: what polls a future compiles it and all that it calls, so the program would compile the log,
/// openraft and the servers a second time.
pub fn start(config: SchedulerConfig) -> BoxFuture<'static, Result<RunningScheduler, StartError>> {
    Box::pin(start_replica(config))
}

async fn start_replica(config: SchedulerConfig) -> Result<RunningScheduler, StartError> {
    raftwerk_transport::install_crypto();
    std::fs::create_dir_all(&config.data_dir).map_err(file_error(&config.data_dir))?;
    let identity_dir = config.data_dir.join("identity");
    let known = Identity::exists(&identity_dir);
    if known && matches!(config.start, StartMode::Restore { .. }) {
        return Err(StartError::NotEmpty { path: config.data_dir });
    }
    // Before anything is written: this log belongs to an identity that must not be replaced by another.
    if !known && DataDir::holds_any_log(&config.data_dir) {
        return Err(StartError::IdentityLost { path: config.data_dir });
    }
    let begins = matches!(config.start, StartMode::Bootstrap | StartMode::Restore { .. });
    if !known && begins && config.data_dir.join(ADDRESS_FILE).exists() {
        return Err(StartError::Leftover { path: config.data_dir });
    }
    if !known && matches!(config.start, StartMode::Continue) {
        return Err(StartError::Empty(config.data_dir.clone()));
    }

    let listener = match listen(&config).await {
        Ok(listener) => listener,
        // Whoever runs on this directory holds its port too; another --listen would be no way out. Name the cause, not the symptom.
        Err(error @ StartError::Listen { .. }) if known => return Err(holder(&config.data_dir).unwrap_or(error)),
        Err(error) => return Err(error),
    };
    let unknown = |source| StartError::Listen { address: config.listen.clone().unwrap_or_default(), source };
    let bound = listener.local_addr().map_err(unknown)?;
    let advertise = advertise(&config);
    let address = match &advertise {
        Some(address) => address.clone(),
        None if bound.ip().is_unspecified() => return Err(StartError::EveryAddress { listen: bound.to_string() }),
        None => bound.to_string(),
    };

    let mut peers = Vec::new();
    let (identity, authority) = if known {
        load(&config, &identity_dir)?
    } else {
        match &config.start {
            StartMode::Bootstrap => make_cluster(&config, &identity_dir)?,
            StartMode::Join { addresses, token } => {
                let (identity, authority, others) = join::obtain_identity(&config, &address, addresses, token).await?;
                save(&identity, &authority, &identity_dir)?;
                peers = others;
                know(&mut peers, addresses);
                (identity, authority)
            }
            StartMode::Restore { file } => backup::restore(&config, file, &address, &identity_dir).await?,
            StartMode::Continue => return Err(StartError::Empty(config.data_dir.clone())),
        }
    };
    let had_log = identity_dir.join(HAD_LOG);
    let has_log = had_log.exists();
    if has_log && !DataDir::holds_log(&config.data_dir) {
        if DataDir::holds_any_log(&config.data_dir) {
            return Err(StartError::LogUnnamed { path: config.data_dir });
        }
        return Err(StartError::LogLost { path: config.data_dir, replica: identity.peer().id });
    }
    if let (true, StartMode::Join { addresses, .. }) = (known, &config.start) {
        know(&mut peers, addresses);
    }

    let policy = policy(&config.policy).ok_or_else(|| StartError::Other(format!("there is no policy {}", config.policy)))?;
    let replica_id = identity.peer().id;
    let cluster = identity.cluster().to_string();
    let mut raft_config = RaftConfig::new(&cluster, replica_id, &config.name, &address, &config.data_dir);
    raft_config.heartbeat = config.raft_heartbeat;
    raft_config.election_min = config.election.0;
    raft_config.election_max = config.election.1;
    raft_config.snapshot_every_entries = config.snapshot_every_entries;
    let replica: Replica<Replicated> = Replica::open(raft_config, identity.clone()).await?;
    std::fs::write(&had_log, b"").map_err(file_error(&had_log))?;
    // Only now is the directory ours: a start that is refused must not change what another process keeps there.
    let saved = config.data_dir.join(ADDRESS_FILE);
    std::fs::write(&saved, format!("{bound}\n")).map_err(file_error(&saved))?;
    let saved = config.data_dir.join(ADVERTISE_FILE);
    std::fs::write(&saved, format!("{}\n", advertise.unwrap_or_default())).map_err(file_error(&saved))?;
    let shared = Shared::new(replica.clone(), policy);
    let (stop, stopping) = watch::channel(false);
    let server = serve(listener, &identity, authority, &shared, stopping).await;
    let timing = Timing {
        lease_ttl_ms: config.lease_ttl.as_millis() as u64,
        heartbeat_ms: config.heartbeat.as_millis() as u64,
        ..Timing::default()
    };
    let edge = raftwerk_transport::tasks::spawn(edge::run(shared, timing, config.limits));

    // One that was a member is one still, or is told otherwise; it has just not looked into its log yet.
    if has_log {
        replica.knows_members(MEMBERS_WAIT).await;
    }
    if replica_id == FIRST_REPLICA {
        replica.bootstrap().await.map_err(|e| StartError::Other(e.to_string()))?;
    } else if !replica.status().members.iter().any(|m| m.id == replica_id && m.voter) {
        join::become_voter(&identity, &config.name, &address, &peers).await?;
    }
    Ok(RunningScheduler { address, replica, replica_id, cluster, data_dir: config.data_dir, stop, server, edge })
}

/// The refusal of a data directory that another process holds.
fn holder(dir: &Path) -> Option<StartError> {
    match DataDir::take(dir) {
        Err(in_use @ StoreError::InUse { .. }) => Some(StartError::Raft(in_use.into())),
        _ => None,
    }
}

/// What a file of the data directory keeps for the next start.
fn kept(config: &SchedulerConfig, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(config.data_dir.join(file)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The address of a replica is kept: the others, workers and contexts know it. So is a free port, once it is chosen.
async fn listen(config: &SchedulerConfig) -> Result<TcpListener, StartError> {
    let address = match &config.listen {
        Some(given) if !given.ends_with(":0") => given.clone(),
        given => kept(config, ADDRESS_FILE).or(given.clone()).unwrap_or_else(|| DEFAULT_LISTEN.into()),
    };
    TcpListener::bind(&address).await.map_err(|source| StartError::Listen { address, source })
}

/// What the others are told, when it is not the address that this replica listens at. With a --listen of its own a start says all of it anew.
fn advertise(config: &SchedulerConfig) -> Option<String> {
    let given = config.advertise.clone();
    given.or_else(|| kept(config, ADVERTISE_FILE).filter(|_| config.listen.is_none()))
}

/// Adds those of `more` that are not there yet: no address is worth asking twice in a round.
fn know(peers: &mut Vec<String>, more: &[String]) {
    for address in more {
        if !peers.contains(address) {
            peers.push(address.clone());
        }
    }
}

fn load(config: &SchedulerConfig, dir: &Path) -> Result<(Identity, Authority), StartError> {
    let wrong = |source| match source {
        IdentityError::Damaged { what, reason } if DataDir::holds_any_log(&config.data_dir) => {
            StartError::IdentityDamaged { path: config.data_dir.clone(), what, reason }
        }
        source => StartError::Identity { path: dir.to_path_buf(), source },
    };
    let identity = Identity::load(dir).map_err(wrong)?;
    // First: another kind's directory has no authority, and the person should hear whose it is.
    if identity.peer().kind != PeerKind::Scheduler {
        return Err(StartError::WrongKind { path: config.data_dir.clone(), found: identity.peer().to_string() });
    }
    let authority = Authority::load(dir).map_err(wrong)?;
    if let StartMode::Join { token, .. } = &config.start
        && !authority.token_matches(&token.secret)
    {
        return Err(StartError::OtherCluster { path: config.data_dir.clone() });
    }
    Ok((identity, authority))
}

pub(crate) fn save(identity: &Identity, authority: &Authority, dir: &Path) -> Result<(), StartError> {
    let wrong = |source| StartError::Identity { path: dir.to_path_buf(), source };
    authority.save(dir).map_err(wrong)?;
    // Last: its presence says that this directory is complete.
    identity.save(dir).map_err(wrong)
}

/// CA, own identity, admin credential and join token of a new cluster.
pub(crate) fn make_cluster(config: &SchedulerConfig, dir: &Path) -> Result<(Identity, Authority), StartError> {
    let wrong = |source| StartError::Identity { path: dir.to_path_buf(), source };
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|e| StartError::Other(format!("the system's random source: {e}")))?;
    let cluster = random.iter().fold(String::from("rw-"), |text, byte| format!("{text}{byte:02x}"));
    let (authority, token) = Authority::create(&cluster).map_err(wrong)?;
    let identity = authority.issue(PeerKind::Scheduler, FIRST_REPLICA, &config.name).map_err(wrong)?;
    let admin = authority.issue(PeerKind::Client, 0, "admin").map_err(wrong)?;
    let admin_file = config.data_dir.join(ADMIN_FILE);
    admin.save_pem_bundle(&admin_file).map_err(|source| StartError::Identity { path: admin_file, source })?;
    let token_file = config.data_dir.join(TOKEN_FILE);
    write_secret(&token_file, &format!("{token}\n")).map_err(file_error(&token_file))?;
    save(&identity, &authority, dir)?;
    Ok((identity, authority))
}

pub(crate) fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

async fn serve(
    listener: TcpListener,
    identity: &Identity,
    authority: Authority,
    shared: &Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ClientServer<ClientService>>().await;
    let reflection =
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(raftwerk_proto::DESCRIPTORS).build_v1();
    let client = ClientService { shared: shared.clone(), cluster: identity.cluster().to_string(), replica_id: identity.peer().id };
    #[cfg(feature = "flight")]
    let flights = raftwerk_flight::server(crate::services::flight::Flights(client.clone()));
    let joining = JoinService { shared: shared.clone(), authority: Arc::new(authority) };
    let mut router = raftwerk_transport::server()
        .add_service(health_service)
        .add_service(ClientServer::new(client).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(
            WorkerSessionServer::new(WorkerSessionService(shared.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(JoinServer::new(joining).max_decoding_message_size(64 * 1024))
        .add_service(shared.replica.service());
    #[cfg(feature = "flight")]
    {
        router = router.add_service(flights);
    }
    if let Ok(reflection) = reflection {
        router = router.add_service(reflection);
    }
    let stopped = async move {
        // An error means that the running scheduler was dropped, which stops it as well.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    raftwerk_transport::tasks::spawn(raftwerk_transport::serve(router, listener, identity, stopped))
}

impl RunningScheduler {
    /// Where others reach this replica.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn replica(&self) -> u64 {
        self.replica_id
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Returns only when the replica cannot go on, with the reason.
    pub fn wait(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            tokio::select! {
                reason = self.replica.fatal() => Err(reason),
                ended = &mut self.server => match ended {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(format!("the gRPC server ended: {error}")),
                    Err(error) => Err(format!("the gRPC server ended: {error}")),
                },
            }
        })
    }

    /// Clean end: leadership is handed over first, so that the cluster need not notice by silence.
    pub fn stop(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.replica.hand_over().await;
            self.edge.abort();
            self.stop.send_replace(true);
            self.replica.shutdown().await;
            // Open sessions would hold the server for as long as they last.
            self.server.abort();
        })
    }
}
