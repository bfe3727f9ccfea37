//! The settings of a replica.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// The cluster's id. Every record on disk bears its fingerprint.
    pub cluster: String,
    /// Minted by the cluster at join, kept in the data directory, never reused: a replica that comes back empty under an old id could
    /// elect a leader that lacks acknowledged entries.
    pub id: u64,
    pub name: String,
    /// Where the other replicas reach this one.
    pub address: String,
    pub data_dir: PathBuf,

    /// A leader's sign of life. Three fit into the shortest election time-out, so that one may be late.
    pub heartbeat: Duration,
    /// A follower that hears nothing for a random time between these asks for votes. Slow or shared disks want more: a flush that takes
    /// longer than this looks like a dead leader.
    pub election_min: Duration,
    pub election_max: Duration,

    /// A snapshot is made, and the log before it dropped, every so many entries. A restart applies up to this many.
    pub snapshot_every_entries: u64,
    /// Entries kept although a snapshot has them, so that a follower that was away for a moment needs no snapshot.
    pub keep_entries: u64,
    /// The whole time a snapshot may take to arrive and be installed.
    pub snapshot_timeout: Duration,
    /// How long a joining replica may take to catch up before it is made a voter.
    pub join_timeout: Duration,
}

impl RaftConfig {
    pub fn new(cluster: &str, id: u64, name: &str, address: &str, data_dir: impl Into<PathBuf>) -> Self {
        RaftConfig {
            cluster: cluster.to_owned(),
            id,
            name: name.to_owned(),
            address: address.to_owned(),
            data_dir: data_dir.into(),
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            snapshot_every_entries: 50_000,
            keep_entries: 10_000,
            snapshot_timeout: Duration::from_secs(120),
            join_timeout: Duration::from_secs(60),
        }
    }

    pub(super) fn openraft(&self) -> Result<Arc<Config>, String> {
        let ms = |d: Duration| d.as_millis() as u64;
        let config = Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every_entries),
            max_in_snapshot_log_to_keep: self.keep_entries,
            // Entries are dropped this many at a time; one at a time would add a removal to every write.
            purge_batch_size: (self.snapshot_every_entries / 8).clamp(1, 1024),
            // Small entries travel in large messages; large ones are limited by bytes, in the log store.
            max_payload_entries: 4096,
            // How close a joining replica must come before it may vote: close enough to follow at the pace of new entries.
            replication_lag_threshold: 1000,
            install_snapshot_timeout: ms(self.snapshot_timeout),
            // A replica that cannot win must not disturb the leader by raising the term when it comes back.
            enable_pre_vote: Some(true),
            // A leader that lost its quorum must fall silent for a while, or its heartbeats keep the rest from electing another one
            // (openraft #2080). The shortest time openraft accepts.
            quorum_loss_probe_interval: Some(2 * ms(self.election_max)),
            // A restarted leader must be elected again. Its followers may have applied more than it remembers to be committed, and what
            // the leader alone knew about its workers is gone, so a term must not outlive a process.
            enable_leader_restore: Some(false),
            // The followers write an entry while the leader does. Measured with raft_bench: 64 callers 36,000 instead of 19,000 entries/s.
            broadcast_submitted_on_append: Some(true),
            // A restarted follower is found again quickly.
            backoff: "50ms 100ms 200ms ..500ms".into(),
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|e| e.to_string())
    }
}
