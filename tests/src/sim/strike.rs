//! Faults are done and undone.

use super::Sim;
use super::audit::audit;
use super::faults::Fault;
use super::wire::{Delivery, Peer, Way};
use raftwerk_scheduler::raft::sim::WriteFault;
use std::time::Duration;

/// What ends a fault.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    Start(u64),
    GoOn(u64),
    MendReplicas,
    Reliable,
    Flush(u64),
    Revive(usize, u64),
    Continue(usize, u64),
    MendWays(Vec<Way>),
    NoRepeats(usize),
    Hurry(usize),
    Heal(usize),
    FastWire,
    Forget(u64),
}

impl Sim {
    fn any<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.dice.below(of.len() as u64) as usize]) }
    }

    fn running_ids(&self) -> Vec<u64> {
        self.cluster.running().map(|r| r.id()).filter(|id| !self.cluster.is_stopped(*id)).collect()
    }

    fn living_agents(&self) -> Vec<usize> {
        self.agents.iter().filter(|a| a.alive() && !a.stopped).map(|a| a.index).collect()
    }

    fn later(&mut self, after: u64, undo: Undo) {
        let number = self.number();
        self.undo.insert((self.now + after, number), undo);
    }

    pub(super) async fn strike(&mut self, fault: Fault) {
        self.say(format!("fault: {fault:?}"));
        audit(|a| *a.counters.faults.entry(fault.kind()).or_default() += 1);
        self.calm_after = self.calm_after.max(self.now + 3_000);
        match fault {
            Fault::KillReplica { down } => {
                if let Some(id) = self.any(&self.running_ids()) {
                    self.kill(id).await;
                    self.later(down, Undo::Start(id));
                }
            }
            Fault::KillLeader { down } => {
                if let Some(id) = self.leader() {
                    self.kill(id).await;
                    self.later(down, Undo::Start(id));
                }
            }
            Fault::KillAllReplicas { down } => {
                for id in self.cluster.running().map(|r| r.id()).collect::<Vec<_>>() {
                    self.kill(id).await;
                    let more = self.dice.below(500);
                    self.later(down + more, Undo::Start(id));
                }
            }
            Fault::StopReplica { ms } => {
                if let Some(id) = self.any(&self.running_ids()) {
                    self.stop_replica(id, ms);
                }
            }
            Fault::StopLeader { ms } => {
                if let Some(id) = self.leader() {
                    self.stop_replica(id, ms);
                }
            }
            Fault::CutReplicas { ms, one_way } => {
                let ids = self.cluster.ids();
                if let (Some(a), Some(b)) = (self.any(&ids), self.any(&ids))
                    && a != b
                {
                    self.cluster.network().cut_one_way(a, b);
                    if !one_way {
                        self.cluster.network().cut_one_way(b, a);
                    }
                    self.later(ms, Undo::MendReplicas);
                }
            }
            Fault::IsolateReplica { ms } => {
                if let Some(id) = self.any(&self.running_ids()) {
                    self.cluster.network().isolate(id);
                    self.later(ms, Undo::MendReplicas);
                }
            }
            Fault::LossAndRepeats { ms, loss, repeats } => {
                self.cluster.network().set_unreliable(loss, repeats);
                self.later(ms, Undo::Reliable);
            }
            Fault::SlowNetwork { ms, most } => {
                self.cluster.network().set_delay(Duration::from_micros(200), Duration::from_millis(most));
                self.later(ms, Undo::Reliable);
            }
            Fault::SlowDisk { ms, flush } => {
                if let Some(id) = self.any(&self.running_ids()) {
                    self.cluster.disk(id).set_flush(Duration::from_millis(flush));
                    self.later(ms, Undo::Flush(id));
                }
            }
            Fault::FailWrite { torn, down } => {
                if let Some(id) = self.any(&self.running_ids()) {
                    self.cluster.disk(id).fail_next_write(if torn { WriteFault::Torn } else { WriteFault::Lost });
                    self.failing.insert(id, down);
                }
            }
            Fault::FlipBit { bit, down } => self.flip_bit(bit, down).await,
            Fault::ClockJump { hours } => {
                if let Some(id) = self.any(&self.cluster.ids()) {
                    *self.skew.entry(id).or_default() += hours * 3_600_000;
                }
            }
            Fault::AddReplica => self.add_replica().await,
            Fault::RemoveReplica => self.remove_replica().await,
            Fault::HandOver => {
                if let Some(replica) = self.leader().and_then(|id| self.cluster.replica(id)) {
                    super::spawn(async move {
                        replica.hand_over().await;
                    });
                }
            }
            Fault::KillWorker { down, silent } => {
                if let Some(index) = self.any(&self.living_agents()) {
                    if silent {
                        self.agents[index].die();
                    } else {
                        self.kill_agent(index);
                    }
                    let incarnation = self.agents[index].incarnation;
                    self.later(down, Undo::Revive(index, incarnation));
                }
            }
            Fault::StopWorker { ms } | Fault::Zombie { ms } => {
                if let Some(index) = self.any(&self.living_agents()) {
                    self.agents[index].stopped = true;
                    let incarnation = self.agents[index].incarnation;
                    self.later(ms, Undo::Continue(index, incarnation));
                }
            }
            Fault::CutWorker { ms, up, down } => {
                if let Some(index) = self.any(&self.living_agents()) {
                    let mut ways = Vec::new();
                    for replica in self.cluster.ids() {
                        ways.extend([up.then_some(true), down.then_some(false)].into_iter().flatten().map(|up| Way {
                            peer: Peer::Agent(index),
                            replica,
                            up,
                        }));
                    }
                    self.cut_ways(ms, ways);
                }
            }
            Fault::ResetStream => {
                if let Some(index) = self.any(&self.living_agents()) {
                    self.reset_stream(index);
                }
            }
            Fault::KillExecutor => {
                if let Some(index) = self.any(&self.living_agents()) {
                    let effects = self.agents[index].executor_dies(self.now, None);
                    self.perform_agent(index, effects);
                }
            }
            Fault::Goodbye { down } => {
                if let Some(index) = self.any(&self.living_agents()) {
                    let reason = "shut down".to_owned();
                    let effects = self.agents[index].handle(self.now, raftwerk_worker::session::Input::ShutdownRequested { reason });
                    self.perform_agent(index, effects);
                    let incarnation = self.agents[index].incarnation;
                    self.later(down, Undo::Revive(index, incarnation));
                }
            }
            Fault::RepeatReports { ms } => {
                if let Some(index) = self.any(&self.living_agents()) {
                    self.agents[index].repeat_reports = true;
                    self.later(ms, Undo::NoRepeats(index));
                }
            }
            Fault::SlowWorkers { ms, most } => {
                self.wire.slow_ms = most;
                self.later(ms, Undo::FastWire);
            }
            Fault::Straggler { ms, times } => {
                if let Some(index) = self.any(&self.living_agents()) {
                    self.agents[index].slowness = times;
                    self.later(ms, Undo::Hurry(index));
                }
            }
            Fault::LoseMajority => self.recover_by_force().await,
            Fault::LosePart => {
                self.files.losses += 1;
                self.lose_kept_part();
            }
            Fault::SickDevice { ms } => {
                if let Some(index) = self.any(&self.living_agents()) {
                    self.agents[index].sick = true;
                    self.later(ms, Undo::Heal(index));
                }
            }
            Fault::CutClient { ms } => {
                let client = self.dice.below(self.clients.len().max(1) as u64) as usize;
                let up = self.dice.below(2) == 0;
                let ways = self.cluster.ids().into_iter().map(|replica| Way { peer: Peer::Client(client), replica, up }).collect();
                self.cut_ways(ms, ways);
            }
        }
    }

    pub(super) async fn undo(&mut self, undo: Undo) {
        let now = self.now;
        match undo {
            Undo::Start(id) => self.start(id).await,
            Undo::GoOn(id) => {
                self.cluster.go_on(id);
                let (frozen, rest) = std::mem::take(&mut self.frozen).into_iter().partition(|d: &Delivery| d.way().replica == id);
                self.frozen = rest;
                for delivery in frozen {
                    self.deliver(delivery);
                }
            }
            Undo::MendReplicas => self.cluster.network().heal(),
            Undo::Reliable => {
                self.cluster.network().set_unreliable(0, 0);
                self.cluster.network().set_delay(Duration::from_micros(50), Duration::from_millis(2));
            }
            Undo::Flush(id) => {
                if self.cluster.ids().contains(&id) {
                    self.cluster.disk(id).set_flush(super::FLUSH);
                }
            }
            Undo::Revive(index, incarnation) => {
                let agent = &mut self.agents[index];
                if !agent.alive() && agent.incarnation == incarnation {
                    agent.revive(now);
                }
            }
            Undo::Continue(index, incarnation) => {
                let agent = &mut self.agents[index];
                if agent.stopped && agent.incarnation == incarnation {
                    // Executors and timers may come before the network, and the other way round.
                    let backlog = agent.go_on(now);
                    match self.dice.below(3) {
                        0 => self.step_agent(index),
                        1 => self.run_executor(index),
                        _ => {}
                    }
                    for delivery in backlog {
                        self.deliver(delivery);
                    }
                }
            }
            Undo::MendWays(ways) => ways.into_iter().for_each(|way| self.wire.mend(now, way)),
            Undo::NoRepeats(index) => self.agents[index].repeat_reports = false,
            Undo::Heal(index) => self.agents[index].sick = false,
            Undo::Hurry(index) => self.agents[index].hurry(now),
            Undo::FastWire => self.wire.slow_ms = 0,
            Undo::Forget(id) => self.forget(id).await,
        }
    }

    fn cut_ways(&mut self, ms: u64, ways: Vec<Way>) {
        // A way that is cut already is mended by whoever cut it.
        let ways: Vec<Way> = ways.into_iter().filter(|way| !self.wire.is_cut(*way)).collect();
        ways.iter().for_each(|way| self.wire.cut(*way));
        self.later(ms, Undo::MendWays(ways));
    }

    fn stop_replica(&mut self, id: u64, ms: u64) {
        self.cluster.stop(id);
        self.later(ms, Undo::GoOn(id));
    }

    fn reset_stream(&mut self, index: usize) {
        let (link, replica) = (self.agents[index].link, self.agents[index].replica);
        if link.0 != 0 {
            self.wire.send_now(self.now, Delivery::Broken { agent: index, replica, link });
            self.wire.send_now(self.now, Delivery::Hangup { agent: index, replica, link });
        }
    }

    /// Ends what is going on and lets everything come back, for the test of liveness.
    pub(super) async fn calm(&mut self) {
        self.say("faults stop".to_owned());
        self.calm = true;
        self.files.losses = 0;
        self.plan.clear();
        self.failing.clear();
        let undo = std::mem::take(&mut self.undo);
        for (_, undo) in undo {
            self.undo(undo).await;
        }
        self.cluster.network().heal();
        self.wire.mend_all(self.now);
        for id in self.cluster.ids() {
            self.cluster.disk(id).set_flush(super::FLUSH);
            self.cluster.disk(id).mend();
        }
    }
}
