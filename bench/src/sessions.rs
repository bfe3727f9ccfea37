//! Thousands of worker sessions from one load process: real TLS, real agent sessions, no executors. What a heartbeat costs the leader, and what
//! happens when all of them come back at once.

use crate::sample::cpu_seconds;
use raftwerk_proto::v1::worker_session_client::WorkerSessionClient;
use raftwerk_proto::v1::{Capacity, Device, Hello, WorkerMessage, worker_message::Message as Up};
use raftwerk_tests::cluster::Cluster;
use raftwerk_transport::{Authority, Identity, PeerKind, connect};
use raftwerk_worker::session::{AgentSession, Effect, Input};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

#[derive(Default)]
struct Counters {
    open: AtomicU64,
    heartbeats: AtomicU64,
    connects: AtomicU64,
}

/// Ids of the load's workers start here, far above those the cluster has minted.
const FIRST_ID: u64 = 1_000_000;

pub fn run(count: u64, seconds: u64) -> anyhow::Result<()> {
    println!("## {count} worker sessions from one process: 3 durable replicas, TLS, two heartbeats a second each");
    let mut cluster = Cluster::start(3, 0);
    let authority = Authority::load(&cluster.path("scheduler-1/identity"))?;
    let identities =
        (0..count).map(|n| authority.issue(PeerKind::Worker, FIRST_ID + n, &format!("load-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let counters = Arc::new(Counters::default());
    // This machine's other core is for the schedulers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let addresses = cluster.addresses.clone();
    let load = counters.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            for (n, identity) in identities.into_iter().enumerate() {
                tokio::spawn(agent(n as u64, identity, addresses.clone(), load.clone()));
            }
            std::future::pending::<()>().await
        })
    });

    let begun = Instant::now();
    cluster.until("all sessions open", || counters.open.load(Relaxed) == count);
    println!("all registered after {:.1} s", begun.elapsed().as_secs_f64());
    let leader = cluster.leader();
    let term = |cluster: &Cluster| cluster.json(&["cluster", "show"])["term"].as_u64().unwrap_or(0);
    let before = term(&cluster);
    let (cpu, beats) = (cpu_seconds(cluster.schedulers[leader].child.id()), counters.heartbeats.load(Relaxed));
    std::thread::sleep(Duration::from_secs(seconds));
    let cpu = cpu_seconds(cluster.schedulers[leader].child.id()) - cpu;
    let beats = counters.heartbeats.load(Relaxed) - beats;
    println!(
        "steady: {:.0} heartbeats/s answered with {:.1} % of a core in the leader: {:.0} us of CPU each (its Raft heartbeats included); elections: {}; sessions open: {}",
        beats as f64 / seconds as f64,
        100.0 * cpu / seconds as f64,
        1e6 * cpu / beats as f64,
        term(&cluster) - before,
        counters.open.load(Relaxed)
    );

    let connects = counters.connects.load(Relaxed);
    cluster.schedulers[leader].kill();
    let killed = Instant::now();
    cluster.until("the sessions are lost", || counters.open.load(Relaxed) < count);
    cluster.until("all sessions open again", || counters.open.load(Relaxed) == count);
    let back = killed.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(3));
    let workers = cluster.json(&["worker", "list"]);
    let lost = workers["workers"].as_array().map_or(0, |w| w.iter().filter(|w| w["liveness"] == "lost").count());
    println!(
        "leader killed: all {count} back after {back:.1} s with {} connections; elections: {}; declared lost: {lost}",
        counters.connects.load(Relaxed) - connects,
        term(&cluster) - before
    );
    Ok(())
}

/// One agent session and its connections, as the edge of the real agent drives them.
async fn agent(n: u64, identity: Identity, addresses: Vec<String>, counters: Arc<Counters>) {
    let device = Device {
        class: "cpu".into(),
        name: "load".into(),
        capacity: Some(Capacity { milli_cpu: 1000, memory_bytes: 1 << 30, slots: 16 }),
        parallelism: 1,
        ..Device::default()
    };
    let hello = Hello {
        protocol_version: raftwerk_proto::OLDEST_PROTOCOL_VERSION,
        versions: raftwerk_proto::own_versions(0),
        incarnation: n + 1,
        name: format!("load-{n}"),
        data_address: format!("load-{n}:1"),
        devices: vec![device],
        ..Hello::default()
    };
    let mut session = AgentSession::new(hello);
    let started = Instant::now();
    // No two agents alike, and no random source needed: a Weyl sequence.
    let jitter = |k: u64| (((n + 1) * 7919 + k * 104_729) % 1001) as u16;
    let (inputs, mut arriving) = mpsc::unbounded_channel::<(u64, Input)>();
    let mut outgoing: Option<mpsc::UnboundedSender<WorkerMessage>> = None;
    let (mut connection, mut was_open, mut next) = (0u64, false, n as usize);
    let mut pending = vec![Input::Start];
    loop {
        for input in std::mem::take(&mut pending) {
            for effect in session.handle(started.elapsed().as_millis() as u64, input) {
                match effect {
                    Effect::Connect { address, after_ms } => {
                        connection += 1;
                        counters.connects.fetch_add(1, Relaxed);
                        let address = address.unwrap_or_else(|| {
                            next += 1;
                            addresses[next % addresses.len()].clone()
                        });
                        let (sender, receiver) = mpsc::unbounded_channel();
                        outgoing = Some(sender);
                        let link =
                            Link { number: connection, identity: identity.clone(), inputs: inputs.clone(), jitter: jitter(connection) };
                        tokio::spawn(link.run(address, Duration::from_millis(after_ms), receiver));
                    }
                    Effect::Send(message) => {
                        if matches!(message.message, Some(Up::Heartbeat(_))) {
                            counters.heartbeats.fetch_add(1, Relaxed);
                        }
                        if let Some(outgoing) = &outgoing {
                            let _ = outgoing.send(message); // a broken connection reports itself
                        }
                    }
                    Effect::Disconnect { reason } => {
                        outgoing = None;
                        connection += 1;
                        pending.push(Input::Disconnected { reason, jitter_permille: jitter(connection) });
                    }
                    Effect::Exit(reason) => panic!("agent {n} left: {reason:?}"),
                    _ => {}
                }
            }
        }
        if session.is_open() != was_open {
            was_open = session.is_open();
            if was_open {
                counters.open.fetch_add(1, Relaxed)
            } else {
                counters.open.fetch_sub(1, Relaxed)
            };
        }
        if !pending.is_empty() {
            continue;
        }
        let wake = session.wake_at().map(|at| started + Duration::from_millis(at));
        let tick = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((number, input)) = arriving.recv() => if number == connection { pending.push(input) },
            () = tick => pending.push(Input::Tick),
        }
    }
}

/// One connection of one agent.
struct Link {
    number: u64,
    identity: Identity,
    inputs: mpsc::UnboundedSender<(u64, Input)>,
    jitter: u16,
}

impl Link {
    async fn run(self, address: String, after: Duration, outgoing: mpsc::UnboundedReceiver<WorkerMessage>) {
        tokio::time::sleep(after).await;
        let reason = self.talk(address, outgoing).await.err().map_or_else(|| "closed".into(), |e| e.to_string());
        let _ = self.inputs.send((self.number, Input::Disconnected { reason, jitter_permille: self.jitter }));
    }

    async fn talk(&self, address: String, outgoing: mpsc::UnboundedReceiver<WorkerMessage>) -> anyhow::Result<()> {
        let channel = connect(&address, &self.identity, PeerKind::Scheduler).await?;
        let _ = self.inputs.send((self.number, Input::Connected { address }));
        // No deadline here: the session itself closes a link whose `Hello` is not answered, and one on which nothing is heard.
        let mut messages = WorkerSessionClient::new(channel).session(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
        while let Some(message) = messages.message().await? {
            let _ = self.inputs.send((self.number, Input::FromScheduler(message)));
        }
        Ok(())
    }
}
