//! The control plane under a seed: three replicas with real Raft, real leader loops, real agent sessions. Replaced are the clock, the
//! network between all of them, the disks under Raft's log, and the executors (a task takes a while and returns its number).
//!
//! Time moves in steps of one simulated millisecond. After every step the promises of [`raftwerk_core::invariants`] are checked on every
//! replica whose state moved.

mod agent;
mod lead;
mod wire;

use agent::Agent;
use lead::LeaderHost;
use openraft::type_config::AsyncRuntime;
use raftwerk_core::{JobId, Phase, State, invariants};
use raftwerk_proto::v1::JobSpec;
use raftwerk_scheduler::leader::{Answer, Input, RequestId, Timing};
use raftwerk_scheduler::machine::Replicated;
use raftwerk_scheduler::raft::sim::{Dice, SimCluster, SimRuntime};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::{Delivery, Wire};

/// What one simulation did, for comparing two runs of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Hash over every message delivered and every leadership seen, with their times.
    pub trace: String,
    /// Simulated milliseconds until the last job ended.
    pub took_ms: u64,
    pub leaderships: u64,
}

/// A submit that is repeated with its idempotency key until it is acknowledged, as the command line does.
struct Submit {
    spec: JobSpec,
    key: String,
    asked: Option<(u64, RequestId)>,
    job: Option<JobId>,
}

pub struct Sim {
    pub now: u64,
    pub cluster: SimCluster<Replicated>,
    dice: Dice,
    wire: Wire,
    leaders: BTreeMap<u64, LeaderHost>,
    agents: Vec<Agent>,
    submits: Vec<Submit>,
    seen: BTreeMap<u64, State>,
    trace: Sha256,
    next_number: u64,
    leaderships: u64,
}

impl Sim {
    /// Three replicas, and workers with one CPU device each.
    pub async fn new(seed: u64, workers: u64) -> Sim {
        let cluster = SimCluster::new(seed, 3).await;
        let mut sim = Sim {
            now: 0,
            cluster,
            dice: Dice::new(seed ^ 0x5157_4552),
            wire: Wire::default(),
            leaders: BTreeMap::new(),
            agents: Vec::new(),
            submits: Vec::new(),
            seen: BTreeMap::new(),
            trace: Sha256::new(),
            next_number: 1,
            leaderships: 0,
        };
        // Ids as the cluster mints them, above the replicas'.
        sim.agents = (0..workers).map(|n| Agent::new(10 + n)).collect();
        sim
    }

    /// Hands a job to the cluster; it is submitted again until some leader has acknowledged it.
    pub fn submit(&mut self, spec: JobSpec) {
        let key = format!("submit-{}", self.submits.len());
        self.submits.push(Submit { spec, key, asked: None, job: None });
    }

    /// Kills a replica as a power cut does. Its leader loop and the sessions with it are gone.
    pub async fn kill(&mut self, id: u64) {
        self.note(&format!("kill {id}"));
        self.drop_leader(id);
        self.cluster.kill(id).await;
        self.seen.remove(&id);
    }

    pub async fn restart(&mut self, id: u64) {
        self.note(&format!("restart {id}"));
        self.cluster.restart(id).await.expect("a killed replica starts again on its disk");
    }

    /// The machine of a worker dies; another process takes its place later with [`Sim::revive_worker`].
    pub fn kill_worker(&mut self, index: usize) {
        self.note(&format!("kill worker {index}"));
        if let Some((replica, conn)) = self.agents[index].die() {
            self.wire.send(self.now, &mut self.dice, Delivery::Hangup { replica, conn });
        }
    }

    pub fn revive_worker(&mut self, index: usize) {
        self.note(&format!("revive worker {index}"));
        self.agents[index].revive();
    }

    /// The replica that leads now, if any does.
    pub fn leader(&self) -> Option<u64> {
        self.leaders.iter().max_by_key(|(_, host)| host.term).map(|(id, _)| *id)
    }

    /// Accepted tasks of the first submitted job, as the leader sees it.
    pub fn accepted(&self) -> u64 {
        let state = self.leader().and_then(|id| self.cluster.replica(id)).map(|r| r.state().read().unwrap().0.clone());
        state.map_or(0, |s| s.jobs.get(&JobId(1)).map_or(0, |j| j.stages.iter().map(|s| s.accepted()).sum()))
    }

    /// Every submit is acknowledged and every job has ended.
    pub fn all_ended(&self) -> bool {
        let Some(replica) = self.leader().and_then(|id| self.cluster.replica(id)) else { return false };
        let state = replica.state().read().unwrap();
        self.submits.iter().all(|s| s.job.is_some_and(|job| state.0.jobs.get(&job).is_some_and(|j| j.phase.ended_at().is_some())))
    }

    /// One simulated millisecond.
    pub async fn step(&mut self) {
        self.now += 1;
        self.follow_leadership();
        for delivery in self.wire.due(self.now) {
            self.deliver(delivery);
        }
        self.repeat_submits();
        for agent in 0..self.agents.len() {
            let effects = self.agents[agent].step(self.now);
            self.perform_agent(agent, effects);
        }
        let replicas: Vec<u64> = self.leaders.keys().copied().collect();
        for id in replicas {
            self.step_leader(id);
        }
        self.check();
        SimRuntime::sleep(Duration::from_millis(1)).await;
    }

    /// Runs until every job ended, or panics with the state when it takes too long.
    pub async fn run_to_the_end(&mut self, limit_ms: u64) -> Outcome {
        let until = self.now + limit_ms;
        while !self.all_ended() {
            assert!(self.now < until, "jobs did not end within {limit_ms} simulated ms: {:#?}", self.describe());
            self.step().await;
        }
        Outcome { trace: format!("{:x}", self.trace.clone().finalize()), took_ms: self.now, leaderships: self.leaderships }
    }

    /// Waits until all running replicas applied the same entries, and compares their state hashes.
    pub async fn assert_replicas_agree(&mut self) {
        let last = self.cluster.running().map(|r| r.status().last_log_index).max().unwrap_or(0);
        self.cluster.applied_everywhere(last).await;
        let hashes: Vec<String> = self.cluster.running().map(|r| r.state().read().unwrap().0.hash()).collect();
        assert!(hashes.windows(2).all(|w| w[0] == w[1]), "equal index, different state: {hashes:?}");
    }

    /// Every submitted job is done, and its tally is what `n` tasks that return their numbers must give.
    pub fn assert_counted_once(&self) {
        let replica = self.cluster.running().next().expect("a running replica");
        let state = replica.state().read().unwrap();
        assert_eq!(state.0.jobs.len(), self.submits.len(), "a submit was lost or taken twice");
        for job in state.0.jobs.values() {
            assert!(matches!(job.phase, Phase::Done { .. }), "job {}: {:?}", job.id, job.phase);
            let n = u128::from(job.stages[0].tasks().len());
            assert_eq!(job.stages[0].tallies[0], n * (n - 1) / 2, "job {}", job.id);
        }
    }

    fn note(&mut self, what: &str) {
        self.trace.update(format!("{} {what}\n", self.now));
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn follow_leadership(&mut self) {
        let now = self.now;
        let mut begun = Vec::new();
        let mut ended = Vec::new();
        for replica in self.cluster.running() {
            let leading = replica.leadership_watch().current().leading;
            let hosted = self.leaders.get(&replica.id()).map(|h| (h.term, h.failed()));
            match (&leading, hosted) {
                (Some(tenure), Some((term, false))) if tenure.term == term => {}
                (Some(tenure), _) => begun.push((replica.id(), tenure.term)),
                (None, Some(_)) => ended.push(replica.id()),
                (None, None) => {}
            }
        }
        for id in ended {
            self.note(&format!("{id} leads no longer"));
            self.drop_leader(id);
        }
        for (id, term) in begun {
            self.note(&format!("{id} leads in term {term}"));
            self.drop_leader(id);
            self.leaderships += 1;
            let replica = self.cluster.replica(id).expect("a running replica").clone();
            self.leaders.insert(id, LeaderHost::new(replica, term, Timing::default(), now));
        }
    }

    /// All sessions and waiting calls end with a leadership.
    fn drop_leader(&mut self, id: u64) {
        let Some(host) = self.leaders.remove(&id) else { return };
        for agent in host.conns.into_values() {
            let conn = self.agents[agent].link;
            self.wire.send(self.now, &mut self.dice, Delivery::Broken { agent, link: conn });
        }
        for submit in &mut self.submits {
            if submit.asked.is_some_and(|(replica, _)| replica == id) {
                submit.asked = None;
            }
        }
    }

    fn repeat_submits(&mut self) {
        let Some(leader) = self.leader() else { return };
        for n in 0..self.submits.len() {
            if self.submits[n].job.is_some() || self.submits[n].asked.is_some() {
                continue;
            }
            let request = RequestId(self.number());
            let submit = &mut self.submits[n];
            submit.asked = Some((leader, request));
            let input = Input::Submit { request, spec: submit.spec.clone(), idempotency_key: submit.key.clone() };
            self.wire.send(self.now, &mut self.dice, Delivery::Client { replica: leader, input: Box::new(input) });
        }
    }

    fn on_answer(&mut self, request: RequestId, answer: Answer) {
        let Some(submit) = self.submits.iter_mut().find(|s| s.asked.is_some_and(|(_, r)| r == request)) else { return };
        submit.asked = None;
        match answer {
            Answer::Submitted { job, .. } => submit.job = Some(job),
            // Nobody there yet: ask again.
            Answer::Unavailable(_) => {}
            other => panic!("the submit was answered {other:?}"),
        }
    }

    fn check(&mut self) {
        for replica in self.cluster.running() {
            let state = replica.state().read().unwrap().0.clone();
            let before = self.seen.get(&replica.id());
            if before.is_some_and(|b| b.applied_index == state.applied_index) {
                continue;
            }
            invariants::check(&state).unwrap_or_else(|e| panic!("replica {} at {}: {e}", replica.id(), self.now));
            if let Some(before) = before {
                invariants::moves_only_forward(before, &state).unwrap_or_else(|e| panic!("replica {} at {}: {e}", replica.id(), self.now));
            }
            self.seen.insert(replica.id(), state);
        }
    }

    fn describe(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.cluster.running().map(|r| format!("{:?}", r.status())).collect();
        if let Some(replica) = self.leader().and_then(|id| self.cluster.replica(id)) {
            let state = replica.state().read().unwrap();
            for job in state.0.jobs.values() {
                let stages: Vec<_> = job.stages.iter().map(|s| (s.ready(), s.leased(), s.accepted(), s.generation)).collect();
                lines.push(format!("job {} {:?} {stages:?}", job.id, job.phase));
            }
            lines.extend(state.0.leases.iter().map(|(id, l)| format!("lease {id} {:?} on {}", l.tasks, l.worker)));
        }
        lines.extend(self.agents.iter().map(|a| a.describe()));
        lines
    }
}
