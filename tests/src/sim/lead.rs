//! A leadership: the leader loop that ships, with the wire where the edge would be.

use super::agent::Link;
use super::audit::{Watched, audit};
use super::wire::Delivery;
use super::{Sim, address};
use openraft::type_config::AsyncRuntime;
use prost::Message;
use raftwerk_core::{Applied, WorkerId};
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{Redirect, SchedulerMessage, WorkerMessage, command::Command, scheduler_message, worker_message};
use raftwerk_scheduler::leader::{ConnId, Effect, Input, Leader, RequestId, Timing};
use raftwerk_scheduler::raft::sim::SimRuntime;
use raftwerk_scheduler::raft::{LeaderTenure, Replica};
use raftwerk_worker::session;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const TICK_MS: u64 = 50;
/// Unix milliseconds at the start of every simulation.
const WALL: u64 = 1_700_000_000_000;
/// How long a replica that does not lead keeps a worker that has lost its leader.
const ELECTION_WAIT_MS: u64 = 2_000;
/// A verdict may be on its way into the log while the worker comes back.
/// A worker that was silent for so long is suspect, however irregular it was: its leader gives it the lease time although its connection broke.
const SURELY_SUSPECT_MS: u64 = 5_000;
const VERDICT_SLACK_MS: u64 = 3_000;

type Landed = Arc<Mutex<Option<Result<Arc<Applied>, String>>>>;

struct Conn {
    agent: usize,
    since: u64,
    heard: u64,
}

pub(super) struct LeaderHost {
    pub(super) term: u64,
    begun: u64,
    /// Workers that came to this leadership.
    seen: BTreeSet<u64>,
    /// Workers whose connections broke without a word since they were seen last: taken for dead before their leases are over.
    broke: BTreeSet<u64>,
    conns: BTreeMap<ConnId, Conn>,
    requests: BTreeMap<RequestId, usize>,
    replica: Replica<Watched, SimRuntime>,
    leader: Leader,
    inputs: Vec<Input>,
    landed: Landed,
    flying: bool,
    failed: bool,
    next_tick: u64,
    /// Members as the leader was told last.
    told: Vec<String>,
    /// Workers that it takes for lost by their silence, since they were looked at last.
    taken_for_lost: Vec<u64>,
}

/// A replica that has lost its leader loop to a failed proposal and whose tenure goes on: a new one begins when a majority answers.
pub(super) struct Pause {
    pub(super) term: u64,
    answered: Arc<AtomicBool>,
}

impl Pause {
    pub(super) fn of(replica: Replica<Watched, SimRuntime>, tenure: LeaderTenure) -> Pause {
        let answered = Arc::new(AtomicBool::new(false));
        let pause = Pause { term: tenure.term, answered: answered.clone() };
        super::spawn(async move {
            replica.majority_or_end(&tenure).await;
            answered.store(true, Ordering::Relaxed);
        });
        pause
    }

    pub(super) fn is_over(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

/// A hello that waits for this replica, or another one, to lead.
pub(super) struct Greeting {
    until: u64,
    agent: usize,
    replica: u64,
    link: Link,
    hello: raftwerk_proto::v1::Hello,
}

impl Greeting {
    pub(super) fn replica(&self) -> u64 {
        self.replica
    }
}

impl LeaderHost {
    pub(super) fn new(replica: Replica<Watched, SimRuntime>, term: u64, now: u64, earlier: Option<Leader>) -> LeaderHost {
        let leader = {
            let state = replica.state().read().unwrap();
            earlier.unwrap_or_else(|| Leader::new(Timing::default(), state.state(), now))
        };
        LeaderHost {
            term,
            begun: now,
            seen: BTreeSet::new(),
            broke: BTreeSet::new(),
            conns: BTreeMap::new(),
            requests: BTreeMap::new(),
            replica,
            leader,
            inputs: Vec::new(),
            landed: Landed::default(),
            flying: false,
            failed: false,
            next_tick: now,
            told: Vec::new(),
            taken_for_lost: Vec::new(),
        }
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.inputs.push(input);
    }

    /// A proposal failed: this leadership is over, and the next may begin when a majority answers.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    pub(super) fn wakes_at(&self) -> u64 {
        if self.flying || !self.inputs.is_empty() { 0 } else { self.next_tick }
    }

    fn run(&mut self, now: u64, wall: u64) -> Vec<Effect> {
        if let Some(landed) = self.landed.lock().unwrap().take() {
            self.flying = false;
            match landed {
                Ok(applied) => self.inputs.push(Input::Applied(applied)),
                Err(_) => self.failed = true,
            }
        }
        if self.failed {
            return Vec::new();
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK_MS;
            let members: Vec<String> = self.replica.status().members.iter().map(|member| address(member.id)).collect();
            if members != self.told {
                self.told.clone_from(&members);
                self.inputs.push(Input::Schedulers(members));
            }
            self.inputs.push(Input::Tick);
        }
        if self.inputs.is_empty() {
            return Vec::new();
        }
        let mut effects = Vec::new();
        let body = {
            let state = self.replica.state().read().unwrap();
            self.leader.majority_silent_for(self.replica.majority_silence().as_millis() as u64);
            for input in self.inputs.drain(..) {
                effects.extend(self.leader.handle(now, state.state(), input));
            }
            self.leader.flush(state.state(), wall)
        };
        if let Some(body) = body {
            for command in &body.commands {
                if let Some(Command::LoseWorker(lose)) = &command.command {
                    self.check_verdict(now, lose);
                }
            }
            let (replica, landed) = (self.replica.clone(), self.landed.clone());
            self.flying = true;
            drop(SimRuntime::spawn(async move {
                let result = replica.propose_patiently(body.encode_to_vec().into()).await;
                *landed.lock().unwrap() = Some(result.map(|(_, applied)| applied).map_err(|e| e.to_string()));
            }));
        }
        effects
    }

    /// Nobody is declared lost who was heard of lately, nor before a new leadership has given him the time to come back.
    fn check_verdict(&mut self, now: u64, lose: &raftwerk_proto::v1::LoseWorker) {
        if lose.reason != "not heard of in time" {
            return; // it said goodbye
        }
        let ttl = Timing::default().lease_ttl_ms;
        for conn in self.conns.values().filter(|c| c.agent as u64 + super::FIRST_WORKER == lose.worker) {
            let settled = now > conn.since + VERDICT_SLACK_MS;
            if settled && now < conn.heard + ttl - VERDICT_SLACK_MS {
                let what = format!("worker {} was heard {} ms ago and is declared lost", lose.worker, now - conn.heard);
                audit(|a| a.violate("nobody_heard_lately_is_lost", what));
            }
        }
        let here = self.conns.values().find(|c| c.agent as u64 + super::FIRST_WORKER == lose.worker);
        if !self.broke.contains(&lose.worker) || here.is_some_and(|conn| now >= conn.heard + ttl) {
            self.taken_for_lost.push(lose.worker);
        }
        if !self.seen.contains(&lose.worker) && now < self.begun + ttl {
            let what = format!("worker {} is declared lost {} ms after the leadership began", lose.worker, now - self.begun);
            audit(|a| a.violate("a_new_leader_waits_for_everybody", what));
        }
    }
}

impl Sim {
    /// All sessions and waiting calls end with a leadership.
    pub(super) fn drop_leader(&mut self, id: u64) {
        let Some(host) = self.leaders.remove(&id) else { return };
        for (conn, of) in host.conns {
            let broken = Delivery::Broken { agent: of.agent, replica: id, link: Link(conn.0) };
            self.wire.send(self.now, &mut self.dice, broken);
        }
        if planted::on(Bug::OldSessions) {
            self.retired.insert(id, host.leader);
        }
    }

    pub(super) fn step_leader(&mut self, id: u64) {
        let now = self.now;
        let wall = (WALL + now).saturating_add_signed(self.skew.get(&id).copied().unwrap_or_default());
        let Some(host) = self.leaders.get_mut(&id) else { return };
        let effects = host.run(now, wall);
        for worker in host.taken_for_lost.drain(..) {
            self.agents[(worker - super::FIRST_WORKER) as usize].check_has_stopped(now);
        }
        for effect in effects {
            match effect {
                Effect::Send { conn, message } => {
                    let Some(agent) = self.leaders.get(&id).and_then(|h| h.conns.get(&conn)).map(|c| c.agent) else { continue };
                    let message = Box::new(SchedulerMessage { message: Some(message) });
                    self.wire.send(now, &mut self.dice, Delivery::Down { agent, replica: id, link: Link(conn.0), message });
                }
                Effect::Close { conn } => {
                    if let Some(conn_of) = self.leaders.get_mut(&id).and_then(|h| h.conns.remove(&conn)) {
                        let broken = Delivery::Broken { agent: conn_of.agent, replica: id, link: Link(conn.0) };
                        self.wire.send(now, &mut self.dice, broken);
                    }
                }
                Effect::Answer { request, answer } => {
                    if let Some(client) = self.leaders.get_mut(&id).and_then(|h| h.requests.remove(&request)) {
                        self.clients[client].check_answer(&answer);
                        let answer = Delivery::Answer { client, replica: id, request, answer: Box::new(answer) };
                        self.wire.send(now, &mut self.dice, answer);
                    }
                }
            }
        }
    }

    /// Workers that wait at a replica for a leader.
    pub(super) fn settle_greetings(&mut self) {
        let now = self.now;
        for greeting in std::mem::take(&mut self.greetings) {
            let id = greeting.replica;
            let Some(replica) = self.cluster.replica(id).filter(|_| !self.cluster.is_stopped(id)) else {
                if self.cluster.replica(id).is_some() {
                    self.greetings.push(greeting); // it stands still
                }
                continue;
            };
            if let Some(host) = self.leaders.get_mut(&id) {
                let conn = ConnId(greeting.link.0);
                host.conns.insert(conn, Conn { agent: greeting.agent, since: now, heard: now });
                let worker = WorkerId(self.agents[greeting.agent].id);
                host.seen.insert(worker.0);
                host.broke.remove(&worker.0);
                host.inputs.push(Input::WorkerConnected { conn, worker, hello: greeting.hello });
                continue;
            }
            let leader = replica.leadership_watch().current().leader.filter(|(other, _)| *other != id).map(|(_, address)| address);
            let news = leader.as_ref().is_some_and(|address| *address != greeting.hello.left_leader);
            if !news && now < greeting.until {
                self.greetings.push(greeting);
                continue;
            }
            let message = Some(scheduler_message::Message::Redirect(Redirect { leader_address: leader.unwrap_or_default() }));
            let (agent, link) = (greeting.agent, greeting.link);
            let message = Box::new(SchedulerMessage { message });
            self.wire.send(now, &mut self.dice, Delivery::Down { agent, replica: id, link, message });
        }
    }

    pub(super) fn deliver(&mut self, delivery: Delivery) {
        let way = delivery.way();
        if way.up && self.cluster.is_stopped(way.replica) && self.cluster.replica(way.replica).is_some() {
            self.frozen.push(delivery);
            return;
        }
        if let (super::wire::Peer::Agent(agent), false) = (way.peer, way.up)
            && self.agents[agent].stopped
        {
            self.agents[agent].backlog.push(delivery);
            return;
        }
        self.note_delivery(&delivery);
        let now = self.now;
        match delivery {
            Delivery::Dial { agent, replica, link } => {
                let answer = if self.cluster.replica(replica).is_some() {
                    Delivery::Accepted { agent, replica, link }
                } else {
                    Delivery::Broken { agent, replica, link }
                };
                self.wire.send(now, &mut self.dice, answer);
            }
            Delivery::Accepted { agent, replica, link } if self.agents[agent].link == link => {
                let effects = self.agents[agent].handle(now, session::Input::Connected { address: address(replica) });
                self.perform_agent(agent, effects);
            }
            Delivery::Up { agent, replica, link, message } => self.on_up(agent, replica, link, *message),
            Delivery::Down { agent, link, message, .. } if self.agents[agent].link == link => {
                if let Some(inner) = &message.message {
                    self.agents[agent].hears(now, inner);
                }
                let effects = self.agents[agent].handle(now, session::Input::FromScheduler(*message));
                self.perform_agent(agent, effects);
            }
            Delivery::Broken { agent, link, .. } if self.agents[agent].link == link => {
                self.agents[agent].link = Link(0);
                let jitter_permille = self.dice.below(1001) as u16;
                let effects = self.agents[agent].handle(now, session::Input::Disconnected { reason: "broken".into(), jitter_permille });
                self.perform_agent(agent, effects);
            }
            Delivery::Hangup { agent, replica, link, left } => {
                self.greetings.retain(|g| g.link != link);
                let conn = ConnId(link.0);
                if let Some(host) = self.leaders.get_mut(&replica)
                    && let Some(known) = host.conns.remove(&conn)
                {
                    let worker = agent as u64 + super::FIRST_WORKER;
                    if left || self.now - known.heard > SURELY_SUSPECT_MS {
                        host.broke.remove(&worker);
                    } else {
                        host.broke.insert(worker);
                    }
                    host.inputs.push(if left { Input::WorkerLeft { conn } } else { Input::WorkerDisconnected { conn } });
                }
            }
            Delivery::Ask { client, replica, request, ask } => {
                // A replica that does not lead says so; the client asks again elsewhere.
                if let Some(host) = self.leaders.get_mut(&replica) {
                    host.requests.insert(request, client);
                    host.inputs.push(self.clients[client].input(request, &ask));
                }
            }
            Delivery::Answer { client, request, answer, .. } => self.on_answer(client, request, *answer),
            // For a stream that has been replaced meanwhile.
            Delivery::Accepted { .. } | Delivery::Down { .. } | Delivery::Broken { .. } => {}
        }
    }

    fn on_up(&mut self, agent: usize, replica: u64, link: Link, message: WorkerMessage) {
        let Some(message) = message.message else { return };
        let (now, conn) = (self.now, ConnId(link.0));
        if let worker_message::Message::Hello(hello) = message {
            self.greetings.push(Greeting { until: now + ELECTION_WAIT_MS, agent, replica, link, hello });
            self.settle_greetings();
            return;
        }
        if let Some(host) = self.leaders.get_mut(&replica)
            && let Some(known) = host.conns.get_mut(&conn)
        {
            known.heard = now;
            let repeat = self.agents[agent].repeat_reports && matches!(message, worker_message::Message::Reports(_));
            if repeat {
                host.inputs.push(Input::FromWorker { conn, message: message.clone() });
            }
            host.inputs.push(Input::FromWorker { conn, message });
        }
    }
}
