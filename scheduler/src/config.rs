//! How a replica is started.

use crate::leader::Limits;
use raftwerk_transport::JoinToken;
use std::path::PathBuf;
use std::time::Duration;

/// Where a replica with a new data directory listens unless it is told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7300";

#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    pub name: String,
    /// Everything durable of this replica; locked while it runs.
    pub data_dir: PathBuf,
    /// Where to listen, "host:port". Port 0 takes any free one, and the same one again after a restart. When not given, the address that the data
    /// directory keeps, or [`DEFAULT_LISTEN`] in a new one.
    pub listen: Option<String>,
    /// What the others are told to connect to. When not given, what the data directory keeps if its listening address is kept too, and else that
    /// address.
    pub advertise: Option<String>,
    pub start: StartMode,
    pub lease_ttl: Duration,
    pub heartbeat: Duration,
    /// Between Raft heartbeats of a leader. Slow shared disks want more.
    pub raft_heartbeat: Duration,
    /// A follower that heard nothing for a random time in this range calls an election.
    pub election: (Duration, Duration),
    /// Log entries after which a snapshot is taken and the log before it dropped.
    pub snapshot_every_entries: u64,
    /// In force while this replica leads; give all replicas the same.
    pub limits: Limits,
    /// By which tasks are placed while this replica leads; give all replicas the same. One of [`raftwerk_core::plan::policy::policies`].
    pub policy: String,
}

#[derive(Clone, Debug)]
pub enum StartMode {
    /// Make a new cluster with this replica as its first, or continue it.
    Bootstrap,
    /// Join a running cluster through any of its replicas, or continue as the member this data directory belongs to.
    Join { addresses: Vec<String>, token: JoinToken },
    /// Make a new cluster that begins with the state in a backup of another.
    Restore { file: PathBuf },
    /// Continue with an existing data directory.
    Continue,
}

impl SchedulerConfig {
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> SchedulerConfig {
        SchedulerConfig {
            name: name.into(),
            data_dir: data_dir.into(),
            listen: None,
            advertise: None,
            start: StartMode::Continue,
            lease_ttl: Duration::from_secs(10),
            heartbeat: Duration::from_millis(500),
            raft_heartbeat: Duration::from_millis(50),
            election: (Duration::from_millis(250), Duration::from_millis(400)),
            snapshot_every_entries: 20_000,
            limits: Limits::default(),
            policy: raftwerk_core::plan::policy::policies()[0].name().into(),
        }
    }
}

/// Why a replica did not start; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("{listen} is every address of this machine; tell the others which one to use with --advertise HOST:PORT")]
    EveryAddress { listen: String },
    #[error("{} holds no replica", .0.display())]
    Empty(PathBuf),
    #[error("the identity in {path}: {source}")]
    Identity { path: PathBuf, source: raftwerk_transport::IdentityError },
    #[error("{path} belongs to {found}, not to a scheduler; give each process a data directory of its own")]
    WrongKind { path: PathBuf, found: String },
    #[error("{path} belongs to another cluster than the join token; use another data directory, or the token of its cluster")]
    OtherCluster { path: PathBuf },
    #[error("joining the cluster: {0}")]
    Join(String),
    #[error("{0}")]
    Removed(String),
    /// Starting with an empty log under an id that has voted and acknowledged could undo a decision of the majority.
    #[error(
        "{path} holds the identity of replica {replica}, but its log is gone ({path}/raft.redb and {path}/raft-identity). It must not start \
         empty under its old id: take it out with `raftwerk cluster remove {replica}`, and start a new replica in an empty directory with \
         `raftwerk scheduler start --join ADDRESS --token-file FILE`"
    )]
    LogLost { path: PathBuf, replica: u64 },
    /// Under another identity its log would be read as damage, and what lies beside it may be all that is left of the cluster's keys.
    #[error(
        "{path} holds the log of a replica, but the identity that goes with it is gone ({path}/identity). Put that folder back from a copy, if \
         there is one. If not, and others of its cluster run, take the replica out with `raftwerk cluster remove NUMBER` ({path}/raft-identity \
         has its number), and start a new one in an empty directory"
    )]
    IdentityLost { path: PathBuf },
    /// The log is there and says whose it is when it is opened; only the file that says so in words is not.
    #[error(
        "{path} holds a log, but {path}/raft-identity, which says in words whose it is, is gone. Put that file back from a copy, or make an empty one \
         (`touch {path}/raft-identity`): it is written anew from the log"
    )]
    LogUnnamed { path: PathBuf },
    /// What is wrong with a file of the identity of a replica that has a log. Joining again into its directory is refused, so nobody is sent there.
    #[error(
        "{what} is damaged: {reason}. Put that file back from a copy. If there is none, and others of its cluster run, take the replica out with \
         `raftwerk cluster remove NUMBER` ({path}/raft-identity has its number), and start a new one in an empty directory"
    )]
    IdentityDamaged { path: PathBuf, what: String, reason: String },
    /// A cluster has lived here: its keys would be replaced by those of another.
    #[error(
        "{path} was the directory of a replica ({path}/address), but its log and identity are gone, and a new cluster would replace what is left of \
         its keys ({path}/admin.pem, {path}/join-token). If others of its cluster run, join a new replica in an empty directory; begin a new cluster in \
         another one"
    )]
    Leftover { path: PathBuf },
    #[error("{path} holds a replica already; restore a backup into an empty directory")]
    NotEmpty { path: PathBuf },
    #[error("{path} is no backup that this version can restore: {reason}")]
    Backup { path: PathBuf, reason: String },
    /// Nobody answered, or everybody said to come back later, for as long as it makes sense to knock.
    #[error("joining the cluster: {0}")]
    Unreachable(String),
    #[error(transparent)]
    Raft(#[from] crate::raft::OpenError),
    #[error("{0}")]
    Other(String),
}
