//! Simulated replicas: the code that ships, on a seeded clock, a network in memory and disks in memory.
//!
//! ```ignore
//! sim::run(seed, async {
//!     let mut cluster = SimCluster::<MyState>::new(seed, 3).await;
//!     let leader = cluster.leader().await;
//!     cluster.kill(leader.id()).await;
//!     cluster.leader().await.propose(bytes).await?;
//!     cluster.restart(leader.id()).await?;
//! });
//! ```
//! The runtime runs tasks first come first served, so what explores different orders is the network: every message takes a random time,
//! and messages overtake each other. The same seed gives the same run, message by message ([`SimCluster::trace`]).

mod network;
mod runtime;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use network::{NetworkCounts, SimNetwork, Trace};
pub use runtime::{InProcess, Process, SimRuntime};

use bytes::Bytes;
use openraft::type_config::AsyncRuntime;

pub use super::store::{Flip, MemoryDisk, Torn, WriteFault};

use super::offline::{Opened, Survey};
use super::presence;
use super::store::SnapshotStore;
use super::{OpenError, ProposeError, RaftConfig, Replica, StateMachine, Storage};

const CLUSTER: &str = "simulated";

/// How long a wait for the cluster may take, on the simulated clock, before the simulation fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `simulation` under `seed` to its end. No simulated second takes a real one.
pub fn run<T>(seed: u64, simulation: impl Future<Output = T>) -> T {
    SimRuntime::with_seed(seed).block_on(simulation)
}

/// A random source of the simulation's own, so that what it draws does not depend on how often openraft draws.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
}

/// The running replicas; clones see them come and go.
pub struct Directory<S: StateMachine>(Arc<Mutex<BTreeMap<u64, Replica<S, SimRuntime>>>>);

impl<S: StateMachine> Clone for Directory<S> {
    fn clone(&self) -> Self {
        Directory(self.0.clone())
    }
}

impl<S: StateMachine> Directory<S> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Replica<S, SimRuntime>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn get(&self, id: u64) -> Option<Replica<S, SimRuntime>> {
        self.lock().get(&id).cloned()
    }

    /// In order of id.
    pub fn all(&self) -> Vec<Replica<S, SimRuntime>> {
        self.lock().values().cloned().collect()
    }

    /// Those that believe they lead; the one of the latest term may be right.
    pub fn leading(&self) -> Option<Replica<S, SimRuntime>> {
        let tenures = self.all().into_iter().filter_map(|r| Some((r.leadership_watch().current().leading?.term, r)));
        tenures.max_by_key(|(term, _)| *term).map(|(_, replica)| replica)
    }
}

/// Replicas with the ids 1 to n. Each has a disk that outlives it.
pub struct SimCluster<S: StateMachine> {
    network: SimNetwork<S>,
    disks: BTreeMap<u64, MemoryDisk>,
    running: Directory<S>,
    processes: BTreeMap<u64, Process>,
    configure: Arc<dyn Fn(&mut RaftConfig) + Send + Sync>,
}

impl<S: StateMachine> SimCluster<S> {
    /// Starts `n` replicas that know each other.
    pub async fn new(seed: u64, n: u64) -> Self {
        Self::with_settings(seed, n, |_| {}).await
    }

    /// The same with other settings than the default ones.
    pub async fn with_settings(seed: u64, n: u64, configure: impl Fn(&mut RaftConfig) + Send + Sync + 'static) -> Self {
        let mut cluster = SimCluster {
            network: SimNetwork::new(seed),
            disks: BTreeMap::new(),
            running: Directory(Arc::default()),
            processes: BTreeMap::new(),
            configure: Arc::new(configure),
        };
        for id in 1..=n {
            cluster.add(id).await.expect("an empty disk opens");
        }
        cluster.replica(1).expect("it was just started").bootstrap().await.expect("an empty replica can begin a cluster");
        let leader = cluster.leader().await;
        for id in 2..=n {
            cluster.join(&leader, id).await.expect("a replica on a whole network can join");
        }
        cluster
    }

    /// Starts a replica with an empty disk, which is no member yet.
    pub async fn add(&mut self, id: u64) -> Result<(), OpenError> {
        self.disks.insert(id, MemoryDisk::new(&format!("the disk of replica {id}"), Duration::from_micros(300)));
        self.restart(id).await
    }

    pub async fn join(&self, leader: &Replica<S, SimRuntime>, id: u64) -> Result<(), ProposeError> {
        leader.add_voter(id, &format!("replica-{id}"), &address(id)).await
    }

    /// Stops a replica as a power cut does: what it had not flushed is lost, and nothing it was about to say is heard.
    pub async fn kill(&mut self, id: u64) {
        let Some(replica) = self.running.lock().remove(&id) else { return };
        self.network.disconnect(id);
        self.disks[&id].cut_power();
        self.go_on(id); // a stopped process cannot end; what it says from here on is not heard
        replica.shutdown().await;
    }

    /// The host of a killed replica closes its connections, and the others miss it at once.
    pub fn close_connections(&self, gone: u64) {
        for replica in self.running() {
            let Some(process) = self.processes.get(&replica.id()) else { continue };
            let (leadership, handle) = (replica.leadership_watch(), replica.downgrade());
            let miss = async move {
                let leads = || leadership.current().leader.is_some_and(|(id, _)| id == gone);
                let _ = SimRuntime::timeout(presence::PERSISTENCE, presence::replace(&handle, leads, gone)).await;
            };
            drop(SimRuntime::spawn(process.run(miss)));
        }
    }

    /// Stops a replica's process as SIGSTOP does.
    pub fn stop(&self, id: u64) {
        if let Some(process) = self.processes.get(&id) {
            process.stop();
        }
    }

    /// Lets a stopped process go on, with everything that has piled up.
    pub fn go_on(&self, id: u64) {
        if let Some(process) = self.processes.get(&id) {
            process.go_on();
        }
    }

    pub fn is_stopped(&self, id: u64) -> bool {
        self.processes.get(&id).is_some_and(Process::is_stopped)
    }

    /// Forgets a replica that is not running, with its disk.
    pub fn forget(&mut self, id: u64) {
        assert!(self.replica(id).is_none(), "replica {id} is running");
        self.disks.remove(&id);
        self.processes.remove(&id);
    }

    /// The vote on a replica's disk, as term and whom for.
    pub fn stored_vote(&self, id: u64) -> Option<(u64, u64)> {
        self.disks.get(&id)?.vote(CLUSTER)
    }

    /// Every replica that has a disk here, running or not.
    pub fn ids(&self) -> Vec<u64> {
        self.disks.keys().copied().collect()
    }

    /// Starts a killed replica on its disk.
    pub async fn restart(&mut self, id: u64) -> Result<(), OpenError> {
        assert!(self.replica(id).is_none(), "replica {id} is running");
        let mut config = RaftConfig::new(CLUSTER, id, &format!("replica-{id}"), &address(id), "");
        (self.configure)(&mut config);
        let storage = self.storage(id);
        let link = self.network.link(id);
        let process = Process::default();
        let replica = process.run(Replica::start(config, storage, link.clone())).await?;
        self.processes.insert(id, process);
        link.serve(replica.handler());
        self.running.lock().insert(id, replica);
        Ok(())
    }

    fn storage(&self, id: u64) -> Storage {
        let medium = self.disks[&id].medium();
        Storage { snapshots: SnapshotStore::in_memory(CLUSTER, medium.clone()), medium: Arc::new(medium), dir: None }
    }

    /// What the disk of a killed replica holds.
    pub async fn survey(&self, id: u64) -> Result<Survey, OpenError> {
        let mut opened = Opened::<S, SimRuntime>::on(self.storage(id), CLUSTER, id)?;
        let (survey, _) = opened.survey(id).await?;
        opened.close().await;
        Ok(survey)
    }

    /// The forced recovery of a killed replica; `entry` makes the entry of the new epoch from the ids of the others.
    pub async fn recover(&self, id: u64, entry: impl FnOnce(&[u64]) -> Bytes) -> Result<Survey, OpenError> {
        let mut opened = Opened::<S, SimRuntime>::on(self.storage(id), CLUSTER, id)?;
        let survey = opened.recover(id, &format!("the disk of replica {id}"), entry).await?;
        opened.close().await;
        Ok(survey)
    }

    pub fn replica(&self, id: u64) -> Option<Replica<S, SimRuntime>> {
        self.running.get(id)
    }

    /// For tasks that run beside the one that kills and restarts.
    pub fn directory(&self) -> Directory<S> {
        self.running.clone()
    }

    pub fn running(&self) -> impl Iterator<Item = Replica<S, SimRuntime>> + use<S> {
        self.running.all().into_iter()
    }

    pub fn disk(&self, id: u64) -> &MemoryDisk {
        &self.disks[&id]
    }

    pub fn network(&self) -> &SimNetwork<S> {
        &self.network
    }

    /// What happened on the network so far.
    pub fn trace(&self) -> Trace {
        self.network.trace()
    }

    /// Waits for an established leader that a majority follows.
    pub async fn leader(&self) -> Replica<S, SimRuntime> {
        let found = async {
            loop {
                for replica in self.running() {
                    // Asking the majority tells the leader from one that has not noticed its end.
                    if replica.leadership_watch().current().leading.is_some() && replica.read_barrier().await.is_ok() {
                        return replica;
                    }
                }
                SimRuntime::sleep(Duration::from_millis(10)).await;
            }
        };
        match SimRuntime::timeout(PATIENCE, found).await {
            Ok(replica) => replica,
            Err(_) => panic!("no leader within {PATIENCE:?}: {:#?}", self.running().map(|r| r.status()).collect::<Vec<_>>()),
        }
    }

    /// Waits until all running replicas have applied what `index` says.
    pub async fn applied_everywhere(&self, index: u64) {
        let applied = async {
            while self.running().any(|r| r.status().applied < index) {
                SimRuntime::sleep(Duration::from_millis(10)).await;
            }
        };
        if SimRuntime::timeout(PATIENCE, applied).await.is_err() {
            panic!("not applied up to {index} within {PATIENCE:?}: {:#?}", self.running().map(|r| r.status()).collect::<Vec<_>>());
        }
    }
}

fn address(id: u64) -> String {
    format!("replica-{id}:7070")
}
