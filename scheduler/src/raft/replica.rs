//! One replica: the handle that the rest of the scheduler holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
};
use openraft::impls::TokioRuntime;
use openraft::metrics::RaftMetrics;
use openraft::network::{NetSnapshot, RaftNetworkFactory};
use openraft::type_config::alias::{MutexOf, WatchReceiverOf};
use openraft::type_config::{AsyncRuntime, TypeConfigExt};
use openraft::{ChangeMembers, Raft, ReadPolicy, ServerState};
use raftwerk_proto::own_versions;
use raftwerk_proto::v1::{Versions, raft_server::RaftServer};
use raftwerk_transport::{Identity, MAX_MESSAGE_BYTES};

use super::config::RaftConfig;
use super::fault::Fault;
use super::handle::Handler;
use super::leadership::{Leadership, LeadershipWatch, follow};
use super::network::Network;
use super::presence;
use super::server::RaftService;
use super::state_machine::{Machine, StateMachine};
use super::status::{Status, members};
use super::store::{DataDir, LogStats, LogStore, Medium, SnapshotStore, StoreError};
use super::types::{Node, Payload, Types};
use super::versions::Peers;

/// The largest payload of one entry. With the entries that may travel before it, it fits a message ([`MAX_MESSAGE_BYTES`]).
pub const MAX_PAYLOAD_BYTES: usize = 4 << 20;
const _: () = assert!(MAX_PAYLOAD_BYTES + super::store::REPLICATION_BYTES + (1 << 20) <= MAX_MESSAGE_BYTES);

type C<S, Rt> = Types<S, Rt>;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the Raft settings contradict each other: {0}")]
    Settings(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record that is damaged, foreign, or of an unknown version; the text names the file and what to do.
    #[error("{0}")]
    Recover(String),
}

/// Why a proposal, or a read, was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written; ask the leader. It is unknown during an election: wait a little, or ask any other replica.
    #[error("another replica leads{}", .leader.as_ref().map(|(id, address)| format!(": {id} at {address}")).unwrap_or_default())]
    NotLeader { leader: Option<(u64, String)> },
    /// Nothing was written: this replica leads but has not heard from a majority for too long. It may recover, or learn of another leader.
    #[error("a majority of the replicas cannot be reached")]
    NoQuorum,
    /// The entry was taken in and then lost its place to another leader's. It may have been committed all the same, so only a command that
    /// may be repeated can be proposed again.
    #[error("the leader changed, and whether the entry was committed is unknown")]
    Unknown { leader: Option<(u64, String)> },
    #[error("an entry of {bytes} bytes is larger than the limit of {MAX_PAYLOAD_BYTES}")]
    TooLarge { bytes: usize },
    /// A change of members could not be made now.
    #[error("{0}")]
    Refused(String),
    /// The replica has stopped; see [`Replica::fatal`].
    #[error("this replica has stopped: {0}")]
    Fatal(String),
}

/// What a replica writes to.
pub struct Storage {
    pub medium: Arc<dyn Medium>,
    pub snapshots: SnapshotStore,
    /// The hold on the data directory, if there is one.
    pub dir: Option<DataDir>,
}

/// A running replica. Cloning shares it.
pub struct Replica<S: StateMachine, Rt: AsyncRuntime = TokioRuntime>(Arc<Inner<S, Rt>>);

impl<S: StateMachine, Rt: AsyncRuntime> Clone for Replica<S, Rt> {
    fn clone(&self) -> Self {
        Replica(self.0.clone())
    }
}

struct Inner<S: StateMachine, Rt: AsyncRuntime> {
    config: RaftConfig,
    raft: Raft<C<S, Rt>, Machine<S, Rt>>,
    state: Arc<RwLock<S>>,
    log: LogStore<S, Rt>,
    stats: Arc<LogStats>,
    fault: Fault,
    leadership: WatchReceiverOf<C<S, Rt>, Leadership>,
    leadership_tokio: tokio::sync::watch::Receiver<Leadership>,
    /// One change of members at a time; openraft would refuse a second.
    joining: MutexOf<C<S, Rt>, ()>,
    peers: Peers,
    dir: Mutex<Option<DataDir>>,
}

impl<S: StateMachine> Replica<S, TokioRuntime> {
    /// Takes the data directory, checks it, brings the state up to what is known to be committed, and starts to take part.
    ///
    /// Mount [`Replica::service`] on the address of the configuration; until then the others cannot reach it.
    pub async fn open(config: RaftConfig, identity: Identity) -> Result<Self, OpenError> {
        let (cluster, id, path) = (config.cluster.clone(), config.id, config.data_dir.clone());
        let opened = raftwerk_transport::tasks::blocking(move || {
            let dir = DataDir::take(&path)?;
            let medium = dir.database()?;
            let snapshots = SnapshotStore::open(&cluster, &dir.snapshots())?;
            Ok::<_, StoreError>((dir, Arc::new(medium), snapshots))
        });
        let (dir, medium, snapshots) = opened.await.map_err(|e| OpenError::Recover(e.to_string()))??;
        let network = Network::new(id, identity);
        let (lines, removed) = (network.lines(), network.removed());
        let replica = Self::start(config, Storage { medium, snapshots, dir: Some(dir) }, network).await?;
        raftwerk_transport::tasks::spawn(presence::watch(replica.downgrade(), replica.leadership(), lines, replica.0.fault.clone()));
        let fault = replica.0.fault.clone();
        raftwerk_transport::tasks::spawn(async move { fault.raise(removed.wait().await) });
        Ok(replica)
    }

    /// Changes when this replica starts or stops to lead, and when it hears of another leader. Closes when the replica stops.
    pub fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership> {
        self.0.leadership_tokio.clone()
    }

    /// What other replicas call.
    pub fn service(&self) -> RaftServer<RaftService<S>> {
        RaftServer::new(RaftService(self.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

impl<S: StateMachine, Rt: AsyncRuntime> Replica<S, Rt> {
    /// [`Replica::open`] on any storage, network and runtime.
    pub async fn start<N>(config: RaftConfig, storage: Storage, network: N) -> Result<Self, OpenError>
    where
        N: RaftNetworkFactory<C<S, Rt>>,
        N::Network: NetSnapshot<C<S, Rt>, SnapshotData = Bytes>,
    {
        let settings = config.openraft().map_err(OpenError::Settings)?;
        let fault = Fault::default();
        let log = LogStore::<S, Rt>::open(storage.medium, &config.cluster, config.id, fault.clone())?;
        if let Some(dir) = &storage.dir {
            dir.seal(&config.cluster, config.id)?;
        }
        // openraft would find it out as well, but cannot say what to do.
        let (begins, covered) = (log.first_index(), storage.snapshots.covered()?);
        if covered < begins {
            let lost = format!("the log begins with entry {begins}, and no snapshot holds what came before it");
            return Err(StoreError::damaged(storage.snapshots.place(), lost).into());
        }
        let machine = Machine::new(&config.cluster, Arc::new(storage.snapshots), fault.clone());
        let (state, stats) = (machine.state(), log.stats());
        let raft = match Raft::new(config.id, settings, network, log.clone(), machine).await {
            Ok(raft) => raft,
            Err(e) => {
                log.close().await;
                return Err(OpenError::Recover(fault.first().unwrap_or_else(|| e.to_string())));
            }
        };
        let (changes, leadership) = C::<S, Rt>::watch_channel(Leadership::default());
        let (changes_tokio, leadership_tokio) = tokio::sync::watch::channel(Leadership::default());
        drop(Rt::spawn(follow(raft.clone(), changes, changes_tokio)));
        let joining = C::<S, Rt>::mutex(());
        let dir = Mutex::new(storage.dir);
        Ok(Replica(Arc::new(Inner {
            config,
            raft,
            state,
            log,
            stats,
            fault,
            leadership,
            leadership_tokio,
            joining,
            peers: Peers::default(),
            dir,
        })))
    }

    pub fn id(&self) -> u64 {
        self.0.config.id
    }

    pub fn config(&self) -> &RaftConfig {
        &self.0.config
    }

    /// The replicated state. Hold the lock for reading only, and briefly: applying waits for it.
    pub fn state(&self) -> &Arc<RwLock<S>> {
        &self.0.state
    }

    pub fn leadership_watch(&self) -> LeadershipWatch<S, Rt> {
        LeadershipWatch(self.0.leadership.clone())
    }

    pub(super) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// The newest format of entries that every member reads, as each of them has said while it runs; `floor` when one has not. Whoever reads
    /// less than the answer is kept out from now on.
    pub fn agree_on_format(&self, floor: u32) -> u32 {
        let own = self.id();
        let others = self.metrics().membership_config.nodes().map(|(id, _)| *id).filter(|id| *id != own).collect();
        self.0.peers.agree(S::reads(), &others, floor)
    }

    /// What this replica says of itself.
    pub fn versions(&self) -> Option<Versions> {
        own_versions(S::reads()).map(|own| Versions { log_format: self.needed_format(), ..own })
    }

    /// The format up to which a new member has to read.
    pub fn needed_format(&self) -> u32 {
        self.0.peers.needed(self.log_format())
    }

    /// Newest format among the entries applied so far.
    pub fn log_format(&self) -> u32 {
        self.0.state.read().unwrap_or_else(|e| e.into_inner()).log_format()
    }

    pub(super) fn handler(&self) -> Handler<S, Rt> {
        Handler { id: self.id(), raft: self.0.raft.clone(), state: self.0.state.clone() }
    }

    /// Begins a cluster with this replica as its only member. Does nothing if it has a log already.
    pub async fn bootstrap(&self) -> Result<(), ProposeError> {
        let this = BTreeMap::from([(self.id(), self.node())]);
        match self.0.raft.initialize(this).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(e)) => Err(ProposeError::Refused(e.to_string())),
            Err(RaftError::Fatal(e)) => Err(self.stopped(&e)),
        }
    }

    /// Writes one entry. It is on disk at a majority and applied here when this returns its index and what applying it answered.
    pub async fn propose(&self, payload: Bytes) -> Result<(u64, S::Outcome), ProposeError> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(ProposeError::TooLarge { bytes: payload.len() });
        }
        let written = self.0.raft.client_write(Payload(payload)).await.map_err(|e| self.write_error(e))?;
        let outcome = written.data.0.ok_or_else(|| ProposeError::Fatal("a normal entry was applied without an outcome".into()))?;
        Ok((written.log_id.index, outcome))
    }

    /// Returns when the state holds everything acknowledged before the call, by asking a majority whether this replica still leads.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        match self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(f))) => Err(self.forward(f)),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(ProposeError::NoQuorum),
            Err(RaftError::Fatal(e)) => Err(self.stopped(&e)),
        }
    }

    /// Makes a replica a voter: it receives the log first, and votes once it has caught up. Repeating it is harmless; with another address
    /// it changes the address.
    pub async fn add_voter(&self, id: u64, name: &str, address: &str) -> Result<(), ProposeError> {
        let node = Node { name: name.to_owned(), address: address.to_owned() };
        let _one_at_a_time = openraft::async_runtime::Mutex::lock(&self.0.joining).await;
        let join = async {
            let known = self.metrics().membership_config.get_node(&id).cloned();
            match known {
                Some(known) if known == node => {}
                // Its address has changed: the certificate of whoever answers there still has to bear this id.
                Some(_) => self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))).await?,
                None => self.until_no_other_change(|| self.0.raft.add_learner(id, node.clone(), true)).await?,
            }
            if self.metrics().membership_config.membership().voter_ids().any(|voter| voter == id) {
                return Ok(());
            }
            self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
        };
        match Rt::timeout(self.0.config.join_timeout, join).await {
            Ok(joined) => joined,
            Err(_) => Err(ProposeError::Refused(format!(
                "replica {id} at {address} did not catch up within {:?}; is it running and reachable?",
                self.0.config.join_timeout
            ))),
        }
    }

    /// The voters that answer this replica, itself among them, as far as they do so after this call and within `limit`. Empty if it does not
    /// lead.
    pub async fn answering_voters(&self, limit: Duration) -> BTreeSet<u64> {
        let asked = C::<S, Rt>::now();
        loop {
            let metrics = self.metrics();
            let Some(heard) = metrics.heartbeat.as_ref().filter(|_| metrics.state == ServerState::Leader) else { return BTreeSet::new() };
            let answers = |id: &u64| *id == metrics.id || heard.get(id).copied().flatten().is_some_and(|at| *at > asked);
            let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
            let answering: BTreeSet<u64> = voters.iter().copied().filter(answers).collect();
            if answering.len() == voters.len() || C::<S, Rt>::now() > asked + limit {
                return answering;
            }
            Rt::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until this replica knows the members that its log or snapshot names; false if it names none.
    pub async fn knows_members(&self, limit: Duration) -> bool {
        let deadline = C::<S, Rt>::now() + limit;
        loop {
            if self.metrics().membership_config.nodes().next().is_some() {
                return true;
            }
            if C::<S, Rt>::now() > deadline {
                return false;
            }
            Rt::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the state says that the replica was taken out for good.
    pub fn is_removed(&self, id: u64) -> bool {
        self.0.state.read().unwrap_or_else(|e| e.into_inner()).is_removed(id)
    }

    /// Takes a replica out of the cluster. Its id must never be used again.
    pub async fn remove_member(&self, id: u64) -> Result<(), ProposeError> {
        let _one_at_a_time = openraft::async_runtime::Mutex::lock(&self.0.joining).await;
        let membership = self.metrics().membership_config.clone();
        if membership.get_node(&id).is_none() {
            return Ok(());
        }
        if membership.membership().voter_ids().any(|voter| voter == id) {
            self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await
        } else {
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await
        }
    }

    async fn change(&self, change: ChangeMembers<u64, Node>) -> Result<(), ProposeError> {
        self.until_no_other_change(|| self.0.raft.change_membership(change.clone(), false)).await
    }

    /// A change begun by an earlier leader may still be under way.
    async fn until_no_other_change<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<(), ProposeError>
    where
        F: Future<Output = Result<T, RaftError<C<S, Rt>, ClientWriteError<C<S, Rt>>>>>,
    {
        let deadline = C::<S, Rt>::now() + self.0.config.join_timeout;
        loop {
            match attempt().await {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))))
                    if C::<S, Rt>::now() < deadline =>
                {
                    Rt::sleep(Duration::from_millis(50)).await;
                }
                Err(e) => return Err(self.write_error(e)),
            }
        }
    }

    pub fn status(&self) -> Status {
        let metrics = self.metrics();
        let matched = |id: u64| {
            if metrics.state == ServerState::Leader && id == metrics.id {
                return metrics.last_log_index;
            }
            metrics.replication.as_ref().and_then(|r| r.get(&id)).and_then(|m| m.map(|id| id.index))
        };
        let index = |id: &Option<super::types::LogId>| id.map_or(0, |id| id.index);
        Status {
            id: metrics.id,
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            // What was applied was committed, also before a leader has told this process how far the others are.
            committed: index(&metrics.cluster_committed).max(index(&metrics.last_applied)),
            applied: index(&metrics.last_applied),
            snapshot: index(&metrics.snapshot),
            purged: index(&metrics.purged),
            members: members(metrics.membership_config.membership(), matched),
            log_bytes_written: self.0.stats.bytes.load(std::sync::atomic::Ordering::Relaxed),
            log_entries_written: self.0.stats.entries.load(std::sync::atomic::Ordering::Relaxed),
            log_commits: self.0.stats.commits.load(std::sync::atomic::Ordering::Relaxed),
        }
    }

    /// Begins to make a snapshot and to drop the log before it.
    pub async fn trigger_snapshot(&self) -> Result<(), ProposeError> {
        self.0.raft.trigger().snapshot().await.map_err(|e| self.stopped(&e))
    }

    /// Drops the log up to `index`, as far as a snapshot covers it, however much the settings would keep.
    pub async fn trigger_purge(&self, index: u64) -> Result<(), ProposeError> {
        self.0.raft.trigger().purge_log(index).await.map_err(|e| self.stopped(&e))
    }

    /// Calls an election as soon as the leader's lease is over, if it is; otherwise does nothing. Harmless while a leader is alive: its
    /// heartbeats keep the lease, and a pre-vote changes nothing anywhere.
    pub(super) async fn call_election(&self) {
        // A stopped replica has nothing to elect; its end is reported elsewhere.
        let _ = self.0.raft.trigger().elect(true).await;
    }

    #[cfg(test)]
    pub(super) fn disable_election_timeout(&self) {
        self.0.raft.runtime_config().elect(false);
    }

    /// A handle that does not keep the replica running.
    pub(super) fn downgrade(&self) -> impl Fn() -> Option<Self> + Send + Sync + 'static {
        let weak = Arc::downgrade(&self.0);
        move || weak.upgrade().map(Replica)
    }

    /// The other members, with their addresses.
    pub(super) fn others(&self) -> BTreeMap<u64, String> {
        self.status().members.into_iter().filter(|m| m.id != self.id()).map(|m| (m.id, m.address)).collect()
    }

    /// Place of this replica among the voters that are left without `leader`.
    pub(super) fn rank_without(&self, leader: u64) -> Option<usize> {
        let voters: BTreeSet<u64> = self.metrics().membership_config.voter_ids().collect();
        voters.into_iter().filter(|id| *id != leader).position(|id| id == self.id())
    }

    /// Hands leadership to the follower that has most of the log. True if this replica no longer leads; the cluster then has a new leader
    /// in a few milliseconds instead of an election time-out. Best effort: nobody may be there to take it.
    pub async fn hand_over(&self) -> bool {
        let metrics = self.metrics();
        if metrics.state != ServerState::Leader {
            return true;
        }
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let next = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id && voters.contains(id));
        let Some((next, _)) = next.max_by_key(|(_, matched)| **matched) else { return false };
        if self.0.raft.trigger().transfer_leader(*next).await.is_err() {
            return true;
        }
        let mut server = self.0.raft.server_metrics();
        let stepped_down = async {
            while server.borrow_and_update().state == ServerState::Leader {
                if server.changed().await.is_err() {
                    break;
                }
            }
        };
        Rt::timeout(self.0.config.election_max, stepped_down).await.is_ok()
    }

    /// Waits until something stops this replica for good, and says what: the file, the cause, and what to do. Never returns after an
    /// orderly [`Replica::shutdown`].
    ///
    /// A fault of the storage counts even where openraft would go on: a replica whose snapshots fail would fill its disk with log.
    pub async fn fatal(&self) -> String {
        let mut metrics = self.0.raft.metrics();
        let stopped = async {
            loop {
                let state = metrics.borrow_and_update().running_state.clone();
                match state {
                    Err(Fatal::Stopped) => break,
                    Err(e) => return e.to_string(),
                    Ok(()) => {}
                }
                if metrics.changed().await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            cause = self.0.fault.wait() => cause,
            consequence = stopped => self.0.fault.first().unwrap_or(consequence),
        }
    }

    /// Stops taking part, writes what is pending and lets go of the data directory.
    pub async fn shutdown(&self) {
        let _ = self.0.raft.shutdown().await;
        self.0.log.close().await;
        self.0.dir.lock().unwrap_or_else(|e| e.into_inner()).take();
    }

    fn node(&self) -> Node {
        Node { name: self.0.config.name.clone(), address: self.0.config.address.clone() }
    }

    fn metrics(&self) -> RaftMetrics<C<S, Rt>> {
        self.watch_metrics().borrow_watched().clone()
    }

    pub(super) fn watch_metrics(&self) -> WatchReceiverOf<C<S, Rt>, RaftMetrics<C<S, Rt>>> {
        self.0.raft.metrics()
    }

    fn stopped(&self, e: &Fatal<C<S, Rt>>) -> ProposeError {
        ProposeError::Fatal(self.0.fault.first().unwrap_or_else(|| e.to_string()))
    }

    fn forward(&self, f: ForwardToLeader<C<S, Rt>>) -> ProposeError {
        match f.reason {
            ForwardReason::LeaseExpired => ProposeError::NoQuorum,
            _ => ProposeError::NotLeader { leader: leader_of(f) },
        }
    }

    fn write_error(&self, e: RaftError<C<S, Rt>, ClientWriteError<C<S, Rt>>>) -> ProposeError {
        match e {
            RaftError::APIError(ClientWriteError::ForwardToLeader(f)) => self.forward(f),
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(f)) => ProposeError::Unknown { leader: leader_of(f) },
            RaftError::APIError(e) => ProposeError::Refused(e.to_string()),
            RaftError::Fatal(e) => self.stopped(&e),
        }
    }
}

fn leader_of<S: StateMachine, Rt: AsyncRuntime>(f: ForwardToLeader<C<S, Rt>>) -> Option<(u64, String)> {
    f.leader_id.map(|id| (id, f.leader_node.map(|n| n.address).unwrap_or_default()))
}
