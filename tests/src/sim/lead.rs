//! A leadership: the leader loop that ships, with the wire where the edge would be.

use super::agent::{Agent, Finished, Link};
use super::audit::{Watched, audit};
use super::wire::Delivery;
use super::{Sim, address, id_of};
use openraft::type_config::AsyncRuntime;
use prost::Message;
use raftwerk_core::{Applied, JobId, WorkerId};
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{FailureClass, Redirect, SchedulerMessage, WorkerMessage, command::Command, scheduler_message, worker_message};
use raftwerk_scheduler::leader::{ConnId, Effect, Input, Leader, RequestId, Timing};
use raftwerk_scheduler::raft::Replica;
use raftwerk_scheduler::raft::sim::SimRuntime;
use raftwerk_worker::session;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

const TICK_MS: u64 = 50;
/// Unix milliseconds at the start of every simulation.
const WALL: u64 = 1_700_000_000_000;
/// How long a replica that does not lead keeps a worker that has lost its leader.
const ELECTION_WAIT_MS: u64 = 2_000;
/// A verdict may be on its way into the log while the worker comes back.
const VERDICT_SLACK_MS: u64 = 3_000;

/// Stands for the agent itself: no cut is between.
const NOBODY: u64 = 0;

type Landed = Arc<Mutex<Option<Result<Arc<Applied>, String>>>>;

struct Conn {
    agent: usize,
    since: u64,
    heard: u64,
}

pub(super) struct LeaderHost {
    pub(super) term: u64,
    conns: BTreeMap<ConnId, Conn>,
    requests: BTreeMap<RequestId, usize>,
    replica: Replica<Watched, SimRuntime>,
    leader: Leader,
    inputs: Vec<Input>,
    landed: Landed,
    flying: bool,
    failed: bool,
    next_tick: u64,
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
            audit(|a| a.leader_begins(replica.id(), state.state()));
            earlier.unwrap_or_else(|| Leader::new(Timing::default(), state.state(), now))
        };
        LeaderHost {
            term,
            conns: BTreeMap::new(),
            requests: BTreeMap::new(),
            replica,
            leader,
            inputs: Vec::new(),
            landed: Landed::default(),
            flying: false,
            failed: false,
            next_tick: now,
        }
    }

    /// A proposal failed: the edge would begin afresh.
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
            self.inputs.push(Input::Tick);
        }
        if self.inputs.is_empty() {
            return Vec::new();
        }
        let mut effects = Vec::new();
        let body = {
            let state = self.replica.state().read().unwrap();
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
                let result = replica.propose(body.encode_to_vec().into()).await;
                *landed.lock().unwrap() = Some(result.map(|(_, applied)| applied).map_err(|e| e.to_string()));
            }));
        }
        effects
    }

    /// Nobody is declared lost who was heard of lately.
    fn check_verdict(&self, now: u64, lose: &raftwerk_proto::v1::LoseWorker) {
        let goodbye = lose.reason != "not heard of in time";
        let known = self.conns.values().filter(|c| c.agent as u64 + super::FIRST_WORKER == lose.worker);
        for conn in known.filter(|_| !goodbye) {
            let settled = now > conn.since + VERDICT_SLACK_MS;
            if settled && now < conn.heard + Timing::default().lease_ttl_ms - VERDICT_SLACK_MS {
                let what = format!("worker {} was heard {} ms ago and is declared lost", lose.worker, now - conn.heard);
                audit(|a| a.violate("nobody_heard_lately_is_lost", what));
            }
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
        for effect in host.run(now, wall) {
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
            Delivery::Hangup { replica, link, .. } => {
                self.greetings.retain(|g| g.link != link);
                if let Some(host) = self.leaders.get_mut(&replica)
                    && host.conns.remove(&ConnId(link.0)).is_some()
                {
                    host.inputs.push(Input::WorkerDisconnected { conn: ConnId(link.0) });
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

    /// Timers and executors of a worker.
    pub(super) fn step_agent(&mut self, index: usize) {
        let now = self.now;
        if self.agents[index].stopped || !self.agents[index].alive() {
            return;
        }
        self.agents[index].check_fence(now, Timing::default().lease_ttl_ms);
        if self.agents[index].tick_due(now) {
            let effects = self.agents[index].handle(now, session::Input::Tick);
            self.perform_agent(index, effects);
        }
        if let Some(finished) = self.agents[index].finished(now) {
            let failure = self.fate(index, &finished);
            if let Some((FailureClass::Executor, _, _)) = failure {
                let effects = self.agents[index].executor_dies(now, Some(finished.task));
                self.perform_agent(index, effects);
                return self.dial_if_due(index);
            }
            let progress = self.agents[index].conclude(finished.task, failure);
            if !progress.is_empty() {
                let effects = self.agents[index].handle(now, session::Input::Progress(progress));
                self.perform_agent(index, effects);
            }
        }
        self.dial_if_due(index);
    }

    /// Whether the task fails, as its job's parameters and the sources of its input say.
    fn fate(&mut self, agent: usize, task: &Finished) -> Option<(FailureClass, u64, &'static str)> {
        for source in &task.sources {
            let holder = self.agents.iter().find(|a| a.id == source.worker);
            let there =
                holder.is_some_and(|a| a.alive() && (!a.stopped || a.index == agent) && a.has_shuffle(task.job, task.stage - 1, source));
            if !there {
                return Some((FailureClass::Source, source.worker, "its shuffle data cannot be fetched"));
            }
        }
        if task.fail_every > 0 && task.task % task.fail_every == task.fail_every - 1 {
            let attempts = self.attempts.entry((task.job, task.stage, task.task)).or_default();
            *attempts += 1;
            if *attempts <= task.fail_times {
                let class = if task.kills { FailureClass::Executor } else { FailureClass::Task };
                return Some((class, 0, "this task fails at first"));
            }
        }
        None
    }

    pub(super) fn perform_agent(&mut self, index: usize, effects: Vec<session::Effect>) {
        let now = self.now;
        let mut effects: VecDeque<session::Effect> = effects.into();
        while let Some(effect) = effects.pop_front() {
            let (link, replica) = (self.agents[index].link, self.agents[index].replica);
            match effect {
                session::Effect::Connect { address, after_ms } => self.agents[index].dial_at(now + after_ms, address),
                session::Effect::Disconnect { .. } => {
                    self.wire.send(now, &mut self.dice, Delivery::Hangup { agent: index, replica, link });
                    // Its own end is closed at once, whatever the network does.
                    self.wire.send_now(now, Delivery::Broken { agent: index, replica: NOBODY, link });
                }
                session::Effect::Send(message) => {
                    self.agents[index].says(&message);
                    self.wire.send(now, &mut self.dice, Delivery::Up { agent: index, replica, link, message: Box::new(message) });
                }
                session::Effect::StartLease { grant, stage } => {
                    self.check_sources(&grant);
                    self.agents[index].start(now, &grant, &stage);
                }
                session::Effect::StopLease { lease, reason, .. } => {
                    if reason == session::StopReason::Unheard {
                        audit(|a| a.counters.self_fenced += 1);
                    }
                    effects.extend(self.agents[index].stop(now, lease.into()));
                }
                session::Effect::ListInputs(request) => effects.extend(self.agents[index].handle(now, Agent::listing(&request))),
                session::Effect::Publish(publish) => {
                    audit(|a| a.publishes(JobId(publish.job), publish.parts.len()));
                    let error = if self.dice.below(8) == 0 { "the store does not answer" } else { "" };
                    effects.extend(self.agents[index].handle(now, Agent::published(publish.job, error)));
                }
                session::Effect::Exit(session::ExitReason::Stopped) => self.kill_agent(index),
                session::Effect::Exit(reason) => audit(|a| a.violate("no_worker_is_refused", format!("worker {index}: {reason:?}"))),
                session::Effect::ReleaseJob(job) => self.agents[index].release(job),
                // Its jobs have outputs that all workers share, so nothing of a result lies on a worker.
                session::Effect::KeepParts(request) => {
                    audit(|a| a.violate("results_do_not_stay_here", format!("worker {index}: {request:?}")))
                }
                session::Effect::ReleaseParts(_) => {}
                // Nor do they ask for second copies of shuffle data.
                session::Effect::CopyAgain(request) => {
                    audit(|a| a.violate("no_copies_are_asked_for", format!("worker {index}: {request:?}")))
                }
                session::Effect::FreeLease(_)
                | session::Effect::ReplaceExecutor { .. }
                | session::Effect::FetchLogs(_)
                | session::Effect::KnowSchedulers(_) => {}
            }
        }
        self.dial_if_due(index);
    }

    /// What a reduce task reads is all of the stage before it, once.
    fn check_sources(&self, grant: &raftwerk_proto::v1::Grant) {
        let latest = audit(|a| a.latest());
        let Some(job) = latest.as_ref().and_then(|s| s.jobs.get(&JobId(grant.job))) else { return };
        if grant.stage == 0 {
            return;
        }
        let mut ranges: Vec<(u64, u64)> = grant.sources.iter().map(|s| (s.first_task, s.first_task + s.task_count)).collect();
        ranges.sort_unstable();
        let mut next = 0;
        let whole = ranges.iter().all(|(first, end)| std::mem::replace(&mut next, *end) == *first);
        // A grant made just before shuffle data was lost names less than all; its lease cannot be accepted any more.
        let live = latest.as_ref().is_some_and(|s| s.leases.contains_key(&grant.lease.unwrap_or_default().into()));
        let complete = job.stages[grant.stage as usize - 1].is_complete();
        if live && complete && (!whole || next != job.stages[grant.stage as usize - 1].tasks().len()) {
            audit(|a| a.violate("a_reduce_task_reads_every_map_task_once", format!("job {} reads {ranges:?}", grant.job)));
        }
    }

    fn dial_if_due(&mut self, index: usize) {
        let now = self.now;
        let Some(address) = self.agents[index].dial_due(now) else { return };
        let known = self.cluster.ids();
        let replica = address.as_deref().and_then(id_of).unwrap_or_else(|| {
            let mut pick = || known[self.dice.below(known.len() as u64) as usize];
            let first = pick();
            // The leader that has just gone answers last, if at all.
            if self.agents[index].left_leader().and_then(id_of) == Some(first) { pick() } else { first }
        });
        let link = Link(self.number());
        self.agents[index].link = link;
        self.agents[index].replica = replica;
        self.wire.send(now, &mut self.dice, Delivery::Dial { agent: index, replica, link });
    }
}
