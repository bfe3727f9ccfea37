//! Real replicas: TLS on loopback, databases on disk, the real clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use raftwerk_transport::{Authority, PeerKind, incoming, server};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::Chain;
use crate::raft::{OpenError, ProposeError, RaftConfig, Replica};

// Disks may be slow, and other tests write a lot meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    replica: Replica<Chain>,
    /// The gRPC server runs in here, so that ending it breaks every connection as the end of a process does.
    server: Server,
}

struct Server(Option<tokio::runtime::Runtime>);

impl Server {
    async fn end(mut self) {
        let runtime = self.0.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background(); // an ordinary drop waits, which an async test must not
        }
    }
}

struct House {
    authority: Authority,
    dirs: tempfile::TempDir,
    addresses: BTreeMap<u64, SocketAddr>,
    running: BTreeMap<u64, Running>,
    snapshot_every: u64,
}

impl House {
    async fn new(snapshot_every: u64) -> House {
        let (authority, _) = Authority::create("house").unwrap();
        let mut addresses = BTreeMap::new();
        let mut listeners = Vec::new(); // held together, so that no port is given twice
        for id in 1..=3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.insert(id, listener.local_addr().unwrap());
            listeners.push(listener);
        }
        drop(listeners);
        let mut house = House { authority, dirs: tempfile::tempdir().unwrap(), addresses, running: BTreeMap::new(), snapshot_every };
        for id in 1..=3 {
            house.start(id).await;
        }
        house.replica(1).bootstrap().await.unwrap();
        let leader = house.leader().await;
        for id in 2..=3 {
            leader.add_voter(id, &format!("replica-{id}"), &house.addresses[&id].to_string()).await.unwrap();
        }
        house
    }

    fn config(&self, id: u64) -> RaftConfig {
        let dir = self.dirs.path().join(id.to_string());
        let mut config = RaftConfig::new("house", id, &format!("replica-{id}"), &self.addresses[&id].to_string(), dir);
        config.snapshot_every_entries = self.snapshot_every;
        config.keep_entries = self.snapshot_every / 10;
        // Several of these houses stand on two busy cores.
        config.heartbeat = Duration::from_millis(100);
        config.election_min = Duration::from_millis(500);
        config.election_max = Duration::from_millis(1000);
        config
    }

    async fn start(&mut self, id: u64) {
        let identity = self.authority.issue(PeerKind::Scheduler, id, &format!("replica-{id}")).unwrap();
        let replica = Replica::<Chain>::open(self.config(id), identity.clone()).await.unwrap();
        let (service, address) = (replica.service(), self.addresses[&id]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (listening, ready) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            listening.send(()).unwrap();
            server().add_service(service).serve_with_incoming(incoming(listener, &identity)).await.unwrap();
        });
        ready.await.unwrap();
        self.running.insert(id, Running { replica, server: Server(Some(runtime)) });
    }

    async fn stop(&mut self, id: u64) {
        let Running { replica, server } = self.running.remove(&id).unwrap();
        replica.shutdown().await;
        server.end().await;
    }

    /// Like the death of the process: the others learn of it by broken connections only.
    async fn crash(&mut self, id: u64) {
        let Running { replica, server } = self.running.remove(&id).unwrap();
        server.end().await;
        replica.shutdown().await;
    }

    fn replica(&self, id: u64) -> Replica<Chain> {
        self.running[&id].replica.clone()
    }

    async fn leader(&self) -> Replica<Chain> {
        self.leader_within(PATIENCE).await.expect("a leader is elected")
    }

    async fn leader_within(&self, patience: Duration) -> Option<Replica<Chain>> {
        let found = async {
            loop {
                for Running { replica, .. } in self.running.values() {
                    if replica.leadership().borrow().leading.is_some() && replica.read_barrier().await.is_ok() {
                        return replica.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(patience, found).await.ok()
    }

    /// All running replicas catch up with the leader and have the same state.
    async fn agree(&self) -> Chain {
        let target = self.leader().await.status().applied;
        let states = async {
            loop {
                if self.running.values().all(|r| r.replica.status().applied >= target) {
                    let states: Vec<Chain> = self.running.values().map(|r| r.replica.state().read().unwrap().clone()).collect();
                    return states;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let states = tokio::time::timeout(PATIENCE, states).await.expect("all replicas apply what the leader has");
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:#?}");
        states[0].clone()
    }
}

/// Proposes `count` entries from 16 callers.
async fn propose_many(leader: &Replica<Chain>, count: u64) {
    let callers = (0..16).map(|caller| {
        let leader = leader.clone();
        tokio::spawn(async move {
            for i in (caller..count).step_by(16) {
                leader.propose(Bytes::from(format!("entry {i}"))).await.unwrap();
            }
        })
    });
    for caller in futures::future::join_all(callers).await {
        caller.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_entries_survive_the_leader_and_every_replica() {
    let mut house = House::new(100_000).await;
    let first = house.leader().await;
    propose_many(&first, 1000).await;

    house.stop(first.id()).await;
    let second = house.leader().await;
    assert_ne!(second.id(), first.id());
    propose_many(&second, 200).await;
    house.start(first.id()).await;
    let before = house.agree().await;
    assert_eq!(before.entries, 1200);

    for id in 1..=3 {
        house.stop(id).await;
    }
    for id in 1..=3 {
        house.start(id).await;
        // Nobody leads yet: what was known to be committed is there from the log alone.
        assert!(house.replica(id).state().read().unwrap().entries > 1000);
    }
    assert_eq!(house.agree().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_too_long_gets_a_snapshot() {
    let mut house = House::new(200).await;
    let leader = house.leader().await;
    let away = house.running.keys().copied().find(|id| *id != leader.id()).unwrap();
    house.stop(away).await;
    propose_many(&leader, 2000).await;
    assert!(leader.status().purged > 1500, "{:?}", leader.status());
    house.start(away).await;
    assert_eq!(house.agree().await.entries, 2000);
    assert!(house.replica(away).status().snapshot >= 1500);
    assert!(files(&house.dirs.path().join(away.to_string()).join("snapshots")) <= 2);
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_serves_one_process_one_replica_and_one_cluster() {
    let mut house = House::new(1000).await;
    let identity = house.authority.issue(PeerKind::Scheduler, 1, "replica-1").unwrap();
    let config = house.config(1);
    let refusal = |config: RaftConfig| {
        let identity = identity.clone();
        async move {
            match Replica::<Chain>::open(config, identity).await {
                Err(OpenError::Store(e)) => e.to_string(),
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("opened"),
            }
        }
    };
    let in_use = format!("data directory {} is in use by another process (pid {})", config.data_dir.display(), std::process::id());
    assert_eq!(refusal(config.clone()).await, in_use);

    house.stop(1).await;
    let other_cluster = refusal(RaftConfig { cluster: "shed".into(), ..config.clone() }).await;
    assert!(other_cluster.contains("belongs to another cluster (house), not to shed"), "{other_cluster}");
    let other_replica = refusal(RaftConfig { id: 2, ..config.clone() }).await;
    assert!(other_replica.contains("belongs to replica 1, not to replica 2"), "{other_replica}");
    std::fs::remove_file(config.data_dir.join("raft.redb")).unwrap();
    let missing = refusal(config).await;
    assert!(missing.contains("the file is missing or empty") && missing.contains("To repair:"), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_has_a_largest_size_and_that_size_is_replicated() {
    let house = House::new(1000).await;
    let leader = house.leader().await;
    let largest = Bytes::from(vec![7; crate::raft::MAX_PAYLOAD_BYTES]);
    leader.propose(largest.clone()).await.unwrap();
    let larger = Bytes::from(vec![7; crate::raft::MAX_PAYLOAD_BYTES + 1]);
    assert!(matches!(leader.propose(larger).await, Err(ProposeError::TooLarge { .. })));
    assert_eq!(house.agree().await.entries, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_schedulers_speaking_for_themselves_are_heard() {
    use raftwerk_proto::v1::{self as pb, raft_client::RaftClient};
    let house = House::new(1000).await;
    let address = house.addresses[&1].to_string();
    let mut codes = Vec::new();
    for (kind, id, to) in [(PeerKind::Worker, 2, 1), (PeerKind::Scheduler, 9, 1), (PeerKind::Scheduler, 2, 3)] {
        let identity = house.authority.issue(kind, id, "someone").unwrap();
        let channel = raftwerk_transport::connect(&address, &identity, PeerKind::Scheduler).await.unwrap();
        let request = pb::VoteRequest { vote: Some(pb::RaftVote { term: 99, node: 2, committed: false }), to, ..Default::default() };
        codes.push(RaftClient::new(channel).vote(request).await.unwrap_err().code());
    }
    assert_eq!(codes, [tonic::Code::PermissionDenied, tonic::Code::PermissionDenied, tonic::Code::FailedPrecondition]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_connections_break_is_replaced_without_an_election_timeout() {
    // Both followers hear of the broken connection. Where a disk is slow they may vote for themselves at the same time, and without election timeouts
    // nobody asks again: then it is tried with another house. If broken connections told nobody anything, no house would have a leader.
    for _ in 0..5 {
        let mut house = House::new(1000).await;
        let old = house.leader().await.id();
        // No follower calls an election by itself any more: only the broken connection can tell it to.
        for Running { replica, .. } in house.running.values() {
            replica.disable_election_timeout();
        }
        // Streams that could not be opened at first are opened within this time.
        tokio::time::sleep(Duration::from_secs(3)).await;
        house.crash(old).await;
        if let Some(next) = house.leader_within(Duration::from_secs(15)).await {
            assert_ne!(next.id(), old);
            next.propose(Bytes::from_static(b"after")).await.unwrap();
            return;
        }
    }
    panic!("of five leaders that crashed none was replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hands_over_is_not_taken_for_dead() {
    let house = House::new(1000).await;
    let old = house.leader().await;
    assert!(old.hand_over().await);
    let next = house.leader().await;
    let term = next.status().term;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((house.leader().await.id(), house.leader().await.status().term), (next.id(), term), "somebody called another election");
}
