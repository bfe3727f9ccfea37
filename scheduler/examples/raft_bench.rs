//! Proposals per second on three replicas in one process: real TLS on loopback, three databases on one disk.
//!
//! `cargo run --release -p raftwerk-scheduler --example raft_bench -- [seconds] [payload bytes] [folder]`
//! The folder decides which disk is measured; a memory file system leaves out the flush.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftwerk_scheduler::raft::{ApplyError, RaftConfig, Replica, StateMachine};
use raftwerk_transport::{Authority, PeerKind, incoming, server};
use tokio::net::TcpListener;

/// The least a state machine can do.
#[derive(Clone)]
struct Counter(u64);

impl StateMachine for Counter {
    type Outcome = u64;

    fn apply(&mut self, _: u64, _: &[u8]) -> Result<u64, ApplyError> {
        self.0 += 1;
        Ok(self.0)
    }
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }
    fn restore(_: &str, bytes: &[u8]) -> Result<Self, ApplyError> {
        bytes.try_into().map(|b| Counter(u64::from_le_bytes(b))).map_err(|_| ApplyError("not eight bytes".into()))
    }
    fn empty(_: &str) -> Self {
        Counter(0)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(5), |s| s.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(256), |s| s.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join(format!("raft_bench-{}", std::process::id()));

    let (authority, _) = Authority::create("bench")?;
    let mut replicas = Vec::new();
    for id in 1..=3 {
        let name = format!("replica-{id}");
        let identity = authority.issue(PeerKind::Scheduler, id, &name)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let config = RaftConfig::new("bench", id, &name, &address, folder.join(&name));
        let replica = Replica::<Counter>::open(config, identity.clone()).await?;
        tokio::spawn(server().add_service(replica.service()).serve_with_incoming(incoming(listener, &identity)));
        replicas.push(replica);
    }
    replicas[0].bootstrap().await?;
    replicas[0].leadership().wait_for(|l| l.leading.is_some()).await?;
    for other in &replicas[1..] {
        replicas[0].add_voter(other.id(), &other.config().name, &other.config().address).await?;
    }

    println!("three replicas, {bytes} byte payloads, {} cores, {}", std::thread::available_parallelism()?, folder.display());
    println!("{:>8} {:>12} {:>10} {:>10} {:>16}", "callers", "proposals/s", "p50 ms", "p99 ms", "entries/flush");
    for callers in [1, 16, 64, 256] {
        run(&replicas[0], callers, bytes, Duration::from_secs(seconds)).await?;
    }
    let started = Instant::now();
    let mut barriers = 0;
    while started.elapsed() < Duration::from_secs(1) {
        replicas[0].read_barrier().await?;
        barriers += 1;
    }
    println!("read barrier, one caller: {:.0} us", started.elapsed().as_micros() as f64 / f64::from(barriers));
    for replica in &replicas {
        replica.shutdown().await;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

async fn run(leader: &Replica<Counter>, callers: usize, bytes: usize, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let payload = Bytes::from(vec![7; bytes]);
    let stop = Arc::new(AtomicBool::new(false));
    let before = leader.status();
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (leader, payload, stop) = (leader.clone(), payload.clone(), stop.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    leader.propose(payload.clone()).await?;
                    times.push(asked.elapsed());
                }
                Ok::<_, raftwerk_scheduler::raft::ProposeError>(times)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let after = leader.status();
    let per_flush = (after.log_entries_written - before.log_entries_written) as f64 / (after.log_commits - before.log_commits) as f64;
    println!("{callers:>8} {:>12.0} {:>10.2} {:>10.2} {per_flush:>16.1}", times.len() as f64 / elapsed, at(0.5), at(0.99));
    Ok(())
}
