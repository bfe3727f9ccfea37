//! The whole control plane under a seed: replicas with real Raft, real leader loops, real agent sessions, clients that repeat, cancel and
//! look. Replaced are the clock, the network between all of them, the disks under Raft's log, and the executors (a task takes a while
//! and returns its number). Decision 0005 lists every replacement.
//!
//! ```text
//! workload   the jobs            audit     sees every applied entry and judges it
//! faults     the plan of faults  members   replicas come, go and are replaced
//! strike     faults are done and undone      lead      leader loops where their edge would be
//! client     submit, cancel, look            agent     worker sessions and executors
//! work       what a worker reads, writes and answers
//! output     the file system that workers share      kept      what stays on workers, and their room
//! rounds     what a round finds and leaves              stages    what a stage reads and leaves
//! recovery   a majority is lost for good
//! wire       messages under way  settle    what must be true at the end
//! run        one seed from its beginning to its verdict
//! ```

mod agent;
mod audit;
mod client;
mod counters;
mod faults;
mod kept;
mod lead;
mod members;
mod output;
mod recovery;
mod rounds;
mod run;
mod settle;
mod stages;
mod strike;
mod wire;
mod work;
mod workload;

pub use counters::Counters;
pub use faults::Fault;
pub use run::{Failure, Options, Report, planted_seeds, run_seed};

use agent::Agent;
use audit::{Watched, audit};
use client::Client;
use lead::{Greeting, LeaderHost, Pause};
use members::Members;
use openraft::async_runtime::Instant;
use openraft::type_config::AsyncRuntime;
use output::SharedFiles;
use raftwerk_scheduler::leader::Leader;
use raftwerk_scheduler::raft::sim::{Dice, SimCluster, SimRuntime};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use strike::Undo;
use wire::{Delivery, Wire};

/// How long a flush takes on a disk in good order.
const FLUSH: Duration = Duration::from_micros(300);
/// Ids as the cluster mints them, above the replicas'.
const FIRST_WORKER: u64 = 10_000;
/// The simulated edges look around at least this often.
const LONGEST_STEP_MS: u64 = 10;
/// Lines of the story that a failure tells.
const STORY_LINES: usize = 200;

/// Replicas that stopped by themselves: id, number of the start, cause.
type Stopped = Arc<Mutex<Vec<(u64, u64, String)>>>;

pub(crate) struct Sim {
    now: u64,
    begun: <SimRuntime as AsyncRuntime>::Instant,
    cluster: SimCluster<Watched>,
    dice: Dice,
    wire: Wire,
    leaders: BTreeMap<u64, LeaderHost>,
    /// Replicas that lead and wait for a majority before they do so again.
    pauses: BTreeMap<u64, Pause>,
    /// Leader loops of past leaderships, for a planted bug.
    retired: BTreeMap<u64, Leader>,
    greetings: Vec<Greeting>,
    agents: Vec<Agent>,
    clients: Vec<Client>,
    members: Members,
    plan: VecDeque<(u64, Fault)>,
    undo: BTreeMap<(u64, u64), Undo>,
    /// Messages for replicas that stand still.
    frozen: Vec<Delivery>,
    /// Milliseconds that a replica's wall clock is off.
    skew: BTreeMap<u64, i64>,
    /// Replicas whose next write fails: the kind of fault, and how long they stay down then.
    failing: BTreeMap<u64, (&'static str, u64)>,
    stopped: Stopped,
    files: SharedFiles,
    /// Faults have stopped.
    calm: bool,
    starts: BTreeMap<u64, u64>,
    /// Failed attempts of tasks, by (job, stage, task).
    attempts: BTreeMap<(u64, u32, u64), u64>,
    read_floor: u64,
    counted_reads: u64,
    calm_after: u64,
    installed: u64,
    trace: Sha256,
    next_number: u64,
    story: VecDeque<String>,
    tell: bool,
}

fn address(id: u64) -> String {
    format!("replica-{id}:7070")
}

fn id_of(address: &str) -> Option<u64> {
    address.strip_prefix("replica-")?.split(':').next()?.parse().ok()
}

fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(SimRuntime::spawn(future));
}

impl Sim {
    /// Three replicas, and workers with one CPU device each.
    async fn new(seed: u64, tell: bool) -> Sim {
        audit::begin();
        let mut dice = Dice::new(seed ^ 0x5157_4552);
        let every = 30 + dice.below(200);
        let keep = dice.below(20);
        let cluster = SimCluster::with_settings(seed, 3, move |config| {
            config.snapshot_every_entries = every;
            config.keep_entries = keep;
        })
        .await;
        let mut sim = Sim {
            now: 0,
            begun: <SimRuntime as AsyncRuntime>::Instant::now(),
            cluster,
            dice,
            wire: Wire::default(),
            leaders: BTreeMap::new(),
            pauses: BTreeMap::new(),
            retired: BTreeMap::new(),
            greetings: Vec::new(),
            agents: Vec::new(),
            clients: Vec::new(),
            members: Members::new([1, 2, 3]),
            plan: VecDeque::new(),
            undo: BTreeMap::new(),
            frozen: Vec::new(),
            skew: BTreeMap::new(),
            failing: BTreeMap::new(),
            stopped: Stopped::default(),
            files: SharedFiles::default(),
            calm: false,
            starts: BTreeMap::new(),
            attempts: BTreeMap::new(),
            read_floor: 0,
            counted_reads: 0,
            calm_after: 0,
            installed: 0,
            trace: Sha256::new(),
            next_number: 1,
            story: VecDeque::new(),
            tell,
        };
        let workers = 3 + sim.dice.below(4);
        // One of three has a room that is soon used up; the others take what it cannot.
        let mut rooms: Vec<Option<usize>> = (0..workers).map(|_| None).collect();
        for room in rooms.iter_mut().take(workers as usize / 3) {
            *room = Some(10 + sim.dice.below(60) as usize);
        }
        let known: Vec<String> = (1..=3).map(address).collect();
        let agent = |(n, room)| Agent::new(n, FIRST_WORKER + n as u64, known.clone(), room);
        sim.agents = rooms.into_iter().enumerate().map(agent).collect();
        for id in 1..=3 {
            sim.watch(id);
        }
        sim
    }

    /// The replica that leads now, if any does.
    fn leader(&self) -> Option<u64> {
        let able = self.leaders.iter().filter(|(id, _)| !self.cluster.is_stopped(**id));
        able.max_by_key(|(_, host)| host.term).map(|(id, _)| *id)
    }

    fn note(&mut self, what: &str) {
        self.trace.update(format!("{} {what}\n", self.now));
    }

    fn note_delivery(&mut self, delivery: &Delivery) {
        self.trace.update(self.now.to_le_bytes());
        delivery.digest().iter().for_each(|part| self.trace.update(part.to_le_bytes()));
        if self.tell {
            println!("{:>7} {}", self.now, delivery.words());
        }
    }

    /// A line of the story that is told when the seed fails.
    fn say(&mut self, what: String) {
        self.note(&what);
        if self.tell {
            println!("{:>7} {what}", self.now);
        }
        self.story.push_back(format!("{:>7} {what}", self.now));
        if self.story.len() > STORY_LINES {
            self.story.pop_front();
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Reports when a replica stops by itself.
    fn watch(&mut self, id: u64) {
        let Some(replica) = self.cluster.replica(id) else { return };
        let start = self.starts.entry(id).or_default();
        *start += 1;
        let (start, stopped) = (*start, self.stopped.clone());
        spawn(async move {
            let why = replica.fatal().await;
            stopped.lock().unwrap().push((id, start, why));
        });
    }

    /// Kills a replica as a power cut does. Its leader loop and the sessions with it are gone.
    async fn kill(&mut self, id: u64) {
        if self.cluster.replica(id).is_none() {
            return;
        }
        self.say(format!("replica {id} is killed"));
        self.drop_leader(id);
        self.pauses.remove(&id);
        self.retired.remove(&id);
        self.frozen.retain(|d| d.way().replica != id);
        self.greetings.retain(|g| g.replica() != id);
        for agent in self.agents.iter().filter(|a| a.replica == id && a.link.0 != 0) {
            let broken = Delivery::Broken { agent: agent.index, replica: id, link: agent.link };
            self.wire.send(self.now, &mut self.dice, broken);
        }
        *self.starts.entry(id).or_default() += 1;
        self.cluster.kill(id).await;
        // Of a process that is killed the host closes the connections; of a machine without power nobody hears.
        if self.dice.below(2) == 0 {
            self.cluster.close_connections(id);
        }
    }

    /// Starts a replica on its disk.
    async fn start(&mut self, id: u64) {
        if self.cluster.replica(id).is_some() || !self.cluster.ids().contains(&id) || self.members.is_lost(id) {
            return;
        }
        self.cluster.disk(id).mend();
        self.failing.remove(&id);
        match self.cluster.restart(id).await {
            Ok(()) => {
                self.say(format!("replica {id} is started"));
                if self.members.flipped(id) {
                    audit(|a| a.counters.damage_harmless += 1);
                }
                self.keeps_its_promises(id);
                self.watch(id);
            }
            Err(error) if self.members.flipped(id) => {
                self.say(format!("replica {id} does not start: {error}"));
                audit(|a| a.counters.damage_detected += 1);
                self.members.lose(id);
            }
            Err(error) => audit(|a| a.violate("a_replica_starts_on_its_disk", format!("replica {id}: {error}"))),
        }
    }

    /// A vote that a replica has given is not forgotten by a restart: it could be given twice.
    fn keeps_its_promises(&self, id: u64) {
        let (promised, stored) = (self.cluster.network().promised(id), self.cluster.stored_vote(id));
        // A vote for another one in the same term comes later only by a new leader of that term, and there is only one.
        if promised.map(|(term, _)| term) > stored.map(|(term, _)| term) {
            audit(|a| a.violate("a_vote_survives_a_restart", format!("replica {id} voted {promised:?} and has {stored:?} on its disk")));
        }
    }

    /// The process of a worker ends; the kernel of its machine says so to the other end.
    fn kill_agent(&mut self, index: usize) {
        let (link, replica) = (self.agents[index].link, self.agents[index].replica);
        self.agents[index].die();
        if link.0 != 0 {
            self.wire.send(self.now, &mut self.dice, Delivery::Hangup { agent: index, replica, link, left: false });
        }
    }

    fn follow_leadership(&mut self) {
        let mut begun = Vec::new();
        let mut ended = Vec::new();
        let mut paused = Vec::new();
        for replica in self.cluster.running().filter(|r| !self.cluster.is_stopped(r.id())) {
            let id = replica.id();
            let leading = replica.leadership_watch().current().leading;
            let hosted = self.leaders.get(&id).map(|h| (h.term, h.failed()));
            let pause = self.pauses.get(&id);
            match (leading, hosted) {
                (Some(tenure), Some((term, failed))) if tenure.term == term => paused.extend(failed.then(|| (replica.clone(), tenure))),
                (Some(tenure), None) if pause.is_some_and(|p| p.term == tenure.term && !p.is_over()) => {}
                // A new loop in an old tenure: another leader may have come since a majority answered, and this one can commit nothing.
                (Some(tenure), _) => begun.push((id, tenure.term, pause.is_some_and(|p| p.term == tenure.term))),
                (None, Some(_)) => ended.push(id),
                (None, None) => {}
            }
        }
        for id in ended {
            self.say(format!("replica {id} leads no longer"));
            self.drop_leader(id);
        }
        for (replica, tenure) in paused {
            let id = replica.id();
            self.say(format!("replica {id} hears no majority in term {}", tenure.term));
            self.drop_leader(id);
            self.pauses.insert(id, Pause::of(replica, tenure));
        }
        for (id, term, again) in begun {
            self.say(format!("replica {id} leads in term {term}"));
            self.drop_leader(id);
            self.pauses.remove(&id);
            audit(|a| a.counters.leaderships += 1);
            let replica = self.cluster.replica(id).expect("a running replica").clone();
            if !again {
                audit(|a| a.leader_begins(id, replica.state().read().unwrap().state()));
            }
            let host = LeaderHost::new(replica, term, self.now, self.retired.remove(&id));
            self.leaders.insert(id, host);
        }
    }

    /// Replicas that stopped by themselves: after a failed write they must, for any other reason they must not.
    async fn bury_stopped(&mut self) {
        let stopped: Vec<_> = self.stopped.lock().unwrap().drain(..).collect();
        for (id, start, why) in stopped {
            if self.starts.get(&id) != Some(&start) || self.cluster.replica(id).is_none() {
                continue;
            }
            self.say(format!("replica {id} stopped: {why}"));
            if let Some((kind, down)) = self.failing.remove(&id) {
                let torn = self.cluster.disk(id).take_torn();
                audit(|a| {
                    a.counters.stopped_by_disk += 1;
                    a.counters.torn_cut_off += torn.cut_off;
                    a.counters.torn_whole += torn.whole;
                    if let Some(why) = torn.neither {
                        a.violate("a_torn_commit_is_there_or_not", why);
                    }
                });
                audit(|a| a.counters.fault(kind));
                self.kill(id).await;
                let number = self.number();
                self.undo.insert((self.now + down, number), Undo::Start(id));
            } else if self.members.is_out(id) {
                self.kill(id).await;
            } else if self.members.flipped(id) {
                audit(|a| a.counters.damage_detected += 1);
                self.kill(id).await;
                self.members.lose(id);
            } else {
                audit(|a| a.violate("a_replica_stops_only_for_a_cause", format!("replica {id}: {why}")));
            }
        }
    }

    /// The next moment at which anything is due, a few milliseconds ahead at most: Raft moves by itself in between.
    fn next_step(&self) -> u64 {
        let mut next = self.now + LONGEST_STEP_MS;
        let mut by = |at: u64| next = next.min(at);
        by(self.wire.next_at());
        by(self.clients_wake_at());
        by(self.plan.front().map_or(u64::MAX, |(at, _)| *at));
        by(self.undo.first_key_value().map_or(u64::MAX, |((at, _), _)| *at));
        self.agents.iter().for_each(|a| by(a.wakes_at()));
        self.leaders.values().for_each(|l| by(l.wakes_at()));
        next.max(self.now + 1)
    }

    async fn step(&mut self) {
        self.bury_stopped().await;
        self.follow_leadership();
        while let Some((_, fault)) = self.plan.pop_front_if(|(at, _)| *at <= self.now) {
            self.strike(fault).await;
        }
        while let Some(entry) = self.undo.first_entry().filter(|e| e.key().0 <= self.now) {
            let undo = entry.remove();
            self.undo(undo).await;
        }
        self.manage_members().await;
        self.settle_greetings();
        while let Some(delivery) = self.wire.next(self.now) {
            self.deliver(delivery);
        }
        for client in 0..self.clients.len() {
            self.step_client(client);
        }
        for agent in 0..self.agents.len() {
            self.step_agent(agent);
        }
        let replicas: Vec<u64> = self.leaders.keys().copied().filter(|id| !self.cluster.is_stopped(*id)).collect();
        for id in replicas {
            self.step_leader(id);
        }
        self.count_installs();
        let wait = self.next_step() - self.now;
        SimRuntime::sleep(Duration::from_millis(wait)).await;
        // Starting and stopping replicas takes simulated time too.
        self.now = self.begun.elapsed().as_millis() as u64;
    }

    fn count_installs(&mut self) {
        let installed = self.cluster.network().counts().snapshots;
        let more = installed - self.installed;
        if more > 0 {
            self.installed = installed;
            let under_fire = self.now < self.calm_after || !self.undo.is_empty();
            audit(|a| {
                a.counters.snapshots_installed += more;
                a.counters.installs_under_fire += if under_fire { more } else { 0 };
            });
        }
    }
}
