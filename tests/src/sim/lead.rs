//! A leadership: the leader loop that ships, with the wire where the edge would be.

use super::Sim;
use super::agent::{Agent, Link};
use super::wire::Delivery;
use openraft::type_config::AsyncRuntime;
use prost::Message;
use raftwerk_core::{Applied, WorkerId};
use raftwerk_proto::v1::{Redirect, SchedulerMessage, WorkerMessage, scheduler_message, worker_message};
use raftwerk_scheduler::leader::{ConnId, Effect, Input, Leader, Timing};
use raftwerk_scheduler::machine::Replicated;
use raftwerk_scheduler::raft::Replica;
use raftwerk_scheduler::raft::sim::SimRuntime;
use raftwerk_worker::session;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const TICK_MS: u64 = 50;
/// Unix milliseconds at the start of every simulation.
const WALL: u64 = 1_700_000_000_000;

type Landed = Arc<Mutex<Option<Result<Arc<Applied>, String>>>>;

pub(super) struct LeaderHost {
    pub(super) term: u64,
    pub(super) conns: BTreeMap<ConnId, usize>,
    replica: Replica<Replicated, SimRuntime>,
    leader: Leader,
    inputs: Vec<Input>,
    landed: Landed,
    failed: bool,
    next_tick: u64,
}

impl LeaderHost {
    pub(super) fn new(replica: Replica<Replicated, SimRuntime>, term: u64, timing: Timing, now: u64) -> LeaderHost {
        let leader = Leader::new(timing, &replica.state().read().unwrap().0, now);
        LeaderHost {
            term,
            conns: BTreeMap::new(),
            replica,
            leader,
            inputs: Vec::new(),
            landed: Landed::default(),
            failed: false,
            next_tick: now,
        }
    }

    /// A proposal failed: the edge would begin afresh.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    fn run(&mut self, now: u64) -> Vec<Effect> {
        if let Some(landed) = self.landed.lock().unwrap().take() {
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
            self.inputs.push(Input::Tick);
        }
        let mut effects = Vec::new();
        let body = {
            let state = self.replica.state().read().unwrap();
            for input in self.inputs.drain(..) {
                effects.extend(self.leader.handle(now, &state.0, input));
            }
            self.leader.flush(&state.0, WALL + now)
        };
        if let Some(body) = body {
            let (replica, landed) = (self.replica.clone(), self.landed.clone());
            drop(SimRuntime::spawn(async move {
                let result = replica.propose(body.encode_to_vec().into()).await;
                *landed.lock().unwrap() = Some(result.map(|(_, applied)| applied).map_err(|e| e.to_string()));
            }));
        }
        effects
    }
}

impl Sim {
    pub(super) fn step_leader(&mut self, id: u64) {
        let now = self.now;
        let Some(host) = self.leaders.get_mut(&id) else { return };
        for effect in host.run(now) {
            match effect {
                Effect::Send { conn, message } => {
                    let Some(agent) = self.leaders.get(&id).and_then(|h| h.conns.get(&conn)).copied() else { continue };
                    let link = Link(conn.0);
                    let message = Box::new(SchedulerMessage { message: Some(message) });
                    self.wire.send(now, &mut self.dice, Delivery::Down { agent, link, message });
                }
                Effect::Close { conn } => {
                    if let Some(agent) = self.leaders.get_mut(&id).and_then(|h| h.conns.remove(&conn)) {
                        self.wire.send(now, &mut self.dice, Delivery::Broken { agent, link: Link(conn.0) });
                    }
                }
                Effect::Answer { request, answer } => self.on_answer(request, answer),
            }
        }
    }

    pub(super) fn deliver(&mut self, delivery: Delivery) {
        self.note(&format!("{delivery:?}"));
        let now = self.now;
        match delivery {
            Delivery::Dial { agent, replica, link } => {
                if self.cluster.replica(replica).is_some() {
                    self.wire.send(now, &mut self.dice, Delivery::Accepted { agent, link });
                } else {
                    self.wire.send(now, &mut self.dice, Delivery::Broken { agent, link });
                }
            }
            Delivery::Accepted { agent, link } if self.agents[agent].link == link => {
                let effects = self.agents[agent].handle(now, session::Input::Connected { address: String::new() });
                self.perform_agent(agent, effects);
            }
            Delivery::Up { agent, link, message } => self.on_up(agent, link, *message),
            Delivery::Down { agent, link, message } if self.agents[agent].link == link => {
                let effects = self.agents[agent].handle(now, session::Input::FromScheduler(*message));
                self.perform_agent(agent, effects);
            }
            Delivery::Broken { agent, link } if self.agents[agent].link == link => {
                self.agents[agent].link = Link(0);
                self.agents[agent].conn = None;
                let jitter_permille = self.dice.below(1001) as u16;
                let effects = self.agents[agent].handle(now, session::Input::Disconnected { reason: "broken".into(), jitter_permille });
                self.perform_agent(agent, effects);
            }
            Delivery::Hangup { replica, conn } => {
                if let Some(host) = self.leaders.get_mut(&replica)
                    && host.conns.remove(&conn).is_some()
                {
                    host.inputs.push(Input::WorkerDisconnected { conn });
                }
            }
            Delivery::Client { replica, input } => match self.leaders.get_mut(&replica) {
                Some(host) => host.inputs.push(*input),
                // The replica does not lead any more: the client asks again elsewhere.
                None => self.submits.iter_mut().filter(|s| s.asked.is_some_and(|(r, _)| r == replica)).for_each(|s| s.asked = None),
            },
            // For a stream that has been replaced meanwhile.
            Delivery::Accepted { .. } | Delivery::Down { .. } | Delivery::Broken { .. } => {}
        }
    }

    fn on_up(&mut self, agent: usize, link: Link, message: WorkerMessage) {
        let Some((replica, conn)) = self.agents[agent].conn.filter(|_| self.agents[agent].link == link) else { return };
        let Some(message) = message.message else { return };
        let now = self.now;
        let Some(host) = self.leaders.get_mut(&replica) else {
            // The service of a replica that does not lead redirects.
            let leader = self.leader();
            let address = leader.map(|id| id.to_string()).unwrap_or_default();
            let message = Some(scheduler_message::Message::Redirect(Redirect { leader_address: address }));
            self.wire.send(now, &mut self.dice, Delivery::Down { agent, link, message: Box::new(SchedulerMessage { message }) });
            return;
        };
        match message {
            worker_message::Message::Hello(hello) => {
                host.conns.insert(conn, agent);
                host.inputs.push(Input::WorkerConnected { conn, worker: WorkerId(self.agents[agent].id), hello });
            }
            message if host.conns.contains_key(&conn) => host.inputs.push(Input::FromWorker { conn, message }),
            _ => {}
        }
    }

    pub(super) fn perform_agent(&mut self, index: usize, effects: Vec<session::Effect>) {
        let now = self.now;
        let mut effects: std::collections::VecDeque<session::Effect> = effects.into();
        while let Some(effect) = effects.pop_front() {
            match effect {
                session::Effect::Connect { address, after_ms } => self.agents[index].dial_at(now + after_ms, address),
                session::Effect::Disconnect { .. } => {
                    let (link, conn) = (self.agents[index].link, self.agents[index].conn);
                    if let Some((replica, conn)) = conn {
                        self.wire.send(now, &mut self.dice, Delivery::Hangup { replica, conn });
                    }
                    self.wire.send(now, &mut self.dice, Delivery::Broken { agent: index, link });
                }
                session::Effect::Send(message) => {
                    let link = self.agents[index].link;
                    self.wire.send(now, &mut self.dice, Delivery::Up { agent: index, link, message: Box::new(message) });
                }
                session::Effect::StartLease { grant, stage } => self.agents[index].start(now, &grant, &stage),
                session::Effect::StopLease { lease, .. } => effects.extend(self.agents[index].stop(now, lease.into())),
                session::Effect::ListInputs(request) => effects.extend(self.agents[index].handle(now, Agent::listing(&request))),
                session::Effect::Publish(publish) => effects.extend(self.agents[index].handle(now, Agent::published(publish.job))),
                session::Effect::Exit(reason) => panic!("agent {index} left: {reason:?}"),
                session::Effect::FreeLease(_)
                | session::Effect::ReleaseJob(_)
                | session::Effect::ReplaceExecutor { .. }
                | session::Effect::FetchLogs(_) => {}
            }
        }
        if let Some(address) = self.agents[index].dial_due(now) {
            let replicas = 3;
            let replica = address.and_then(|a| a.parse().ok()).unwrap_or_else(|| 1 + self.dice.below(replicas));
            let link = Link(self.number());
            self.agents[index].link = link;
            self.agents[index].conn = Some((replica, ConnId(link.0)));
            self.wire.send(now, &mut self.dice, Delivery::Dial { agent: index, replica, link });
        }
    }
}
