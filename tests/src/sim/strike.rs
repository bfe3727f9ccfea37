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

    /// A fault that is due. It counts when it was carried out: many find nobody to strike.
    pub(super) async fn strike(&mut self, fault: Fault) {
        self.say(format!("fault: {fault:?}"));
        let fault = match fault {
            // With none to spare, one comes instead of going.
            Fault::RemoveReplica if self.members.are_fewest() => Fault::AddReplica,
            fault => fault,
        };
        let kind = fault.kind();
        if self.carry_out(fault).await {
            audit(|a| a.counters.fault(kind));
            self.calm_after = self.calm_after.max(self.now + 3_000);
        }
    }

    /// Whether anything came of it at once. A write fails, and a part is found lost, later: what is only armed here counts when that happens.
    async fn carry_out(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::KillReplica { down } => {
                let Some(id) = self.any(&self.running_ids()) else { return false };
                self.kill(id).await;
                self.later(down, Undo::Start(id));
            }
            Fault::KillLeader { down } => {
                let Some(id) = self.leader() else { return false };
                self.kill(id).await;
                self.later(down, Undo::Start(id));
            }
            Fault::KillAllReplicas { down } => {
                let ids: Vec<u64> = self.cluster.running().map(|r| r.id()).collect();
                for id in &ids {
                    self.kill(*id).await;
                    let more = self.dice.below(500);
                    self.later(down + more, Undo::Start(*id));
                }
                return !ids.is_empty();
            }
            Fault::StopReplica { ms } => {
                let Some(id) = self.any(&self.running_ids()) else { return false };
                self.stop_replica(id, ms);
            }
            Fault::StopLeader { ms } => {
                let Some(id) = self.leader() else { return false };
                self.stop_replica(id, ms);
            }
            Fault::CutReplicas { ms, one_way } => {
                let ids = self.cluster.ids();
                let (Some(a), Some(b)) = (self.any(&ids), self.any(&ids)) else { return false };
                if a == b {
                    return false;
                }
                self.cluster.network().cut_one_way(a, b);
                if !one_way {
                    self.cluster.network().cut_one_way(b, a);
                }
                self.later(ms, Undo::MendReplicas);
            }
            Fault::IsolateReplica { ms } => {
                let Some(id) = self.any(&self.running_ids()) else { return false };
                self.cluster.network().isolate(id);
                self.later(ms, Undo::MendReplicas);
            }
            Fault::IsolateLeader { ms } => {
                let Some(id) = self.leader() else { return false };
                self.cluster.network().isolate(id);
                self.later(ms, Undo::MendReplicas);
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
                let Some(id) = self.any(&self.running_ids()) else { return false };
                self.cluster.disk(id).set_flush(Duration::from_millis(flush));
                self.later(ms, Undo::Flush(id));
            }
            Fault::FailWrite { kept, down } => {
                if let Some(id) = self.any(&self.running_ids()) {
                    self.cluster.disk(id).fail_next_write(if kept { WriteFault::Kept } else { WriteFault::Torn });
                    self.failing.insert(id, (fault.kind(), down));
                }
                return false;
            }
            Fault::FlipBit { bit, down } => return self.flip_bit(bit, down).await,
            Fault::ClockJump { hours } => {
                let Some(id) = self.any(&self.cluster.ids()) else { return false };
                *self.skew.entry(id).or_default() += hours * 3_600_000;
            }
            Fault::AddReplica => return self.add_replica().await,
            Fault::RemoveReplica => return self.remove_replica(),
            Fault::HandOver => {
                let Some(replica) = self.leader().and_then(|id| self.cluster.replica(id)) else { return false };
                super::spawn(async move {
                    replica.hand_over().await;
                });
            }
            Fault::KillWorker { down, silent } => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                if silent {
                    self.agents[index].die();
                } else {
                    self.kill_agent(index);
                }
                let incarnation = self.agents[index].incarnation;
                self.later(down, Undo::Revive(index, incarnation));
            }
            Fault::StopWorker { ms } | Fault::Zombie { ms } => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                self.agents[index].stopped = true;
                let incarnation = self.agents[index].incarnation;
                self.later(ms, Undo::Continue(index, incarnation));
            }
            Fault::CutWorker { ms, up, down } => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                let mut ways = Vec::new();
                for replica in self.cluster.ids() {
                    ways.extend([up.then_some(true), down.then_some(false)].into_iter().flatten().map(|up| Way {
                        peer: Peer::Agent(index),
                        replica,
                        up,
                    }));
                }
                return self.cut_ways(ms, ways);
            }
            Fault::ResetStream => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                return self.reset_stream(index);
            }
            Fault::KillExecutor => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                let effects = self.agents[index].executor_dies(self.now, None);
                self.perform_agent(index, effects);
            }
            Fault::Goodbye { down } => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                let reason = "shut down".to_owned();
                let effects = self.agents[index].handle(self.now, raftwerk_worker::session::Input::ShutdownRequested { reason });
                self.perform_agent(index, effects);
                let incarnation = self.agents[index].incarnation;
                self.later(down, Undo::Revive(index, incarnation));
            }
            Fault::RepeatReports { ms } => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                self.agents[index].repeat_reports = true;
                self.later(ms, Undo::NoRepeats(index));
            }
            Fault::SlowWorkers { ms, most } => {
                self.wire.slow_ms = most;
                self.later(ms, Undo::FastWire);
            }
            Fault::Straggler { ms, times } => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                self.agents[index].slowness = times;
                self.later(ms, Undo::Hurry(index));
            }
            Fault::LoseMajority => return self.recover_by_force().await,
            Fault::LosePart => {
                self.files.losses += 1;
                if self.lose_kept_part() {
                    audit(|a| a.counters.fault("kept part lost or damaged"));
                }
                return false;
            }
            Fault::SickDevice { ms } => {
                let Some(index) = self.any(&self.living_agents()) else { return false };
                self.agents[index].sick = true;
                self.later(ms, Undo::Heal(index));
            }
            Fault::CutClient { ms } => {
                let client = self.dice.below(self.clients.len().max(1) as u64) as usize;
                let up = self.dice.below(2) == 0;
                let ways = self.cluster.ids().into_iter().map(|replica| Way { peer: Peer::Client(client), replica, up }).collect();
                return self.cut_ways(ms, ways);
            }
        }
        true
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

    /// Whether any of them was not cut before.
    fn cut_ways(&mut self, ms: u64, ways: Vec<Way>) -> bool {
        // A way that is cut already is mended by whoever cut it.
        let ways: Vec<Way> = ways.into_iter().filter(|way| !self.wire.is_cut(*way)).collect();
        ways.iter().for_each(|way| self.wire.cut(*way));
        let is_news = !ways.is_empty();
        self.later(ms, Undo::MendWays(ways));
        is_news
    }

    fn stop_replica(&mut self, id: u64, ms: u64) {
        self.cluster.stop(id);
        self.later(ms, Undo::GoOn(id));
    }

    /// Whether it had one.
    fn reset_stream(&mut self, index: usize) -> bool {
        let (link, replica) = (self.agents[index].link, self.agents[index].replica);
        if link.0 != 0 {
            self.wire.send_now(self.now, Delivery::Broken { agent: index, replica, link });
            self.wire.send_now(self.now, Delivery::Hangup { agent: index, replica, link, left: false });
        }
        link.0 != 0
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
