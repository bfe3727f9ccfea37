//! A worker at work: its timers, its executors, what it reads from others, and what its session asks of it.

use super::agent::{Agent, Finished, Link};
use super::audit::audit;
use super::stages::content;
use super::wire::{Delivery, Peer, Way};
use super::{Sim, id_of};
use raftwerk_proto::v1::{CopiedAgain, CopyAgain, FailureClass, LeaseProgress};
use raftwerk_scheduler::leader::Timing;
use raftwerk_worker::session;
use std::collections::VecDeque;

/// One fetch in so many finds its first source silent.
const HICCUP: u64 = 300;
/// Beside an address that does not answer, the next one is asked after this long.
const HEAD_START_MS: u64 = 250;
/// Stands for the agent itself: no cut is between.
const NOBODY: u64 = 0;

impl Sim {
    /// Timers and executors of a worker.
    pub(super) fn step_agent(&mut self, index: usize) {
        let now = self.now;
        if self.agents[index].stopped || !self.agents[index].alive() {
            return;
        }
        self.agents[index].check_fence(now, Timing::default().lease_ttl_ms);
        if self.agents[index].tick_due(now) {
            self.agents[index].measure(now);
            let effects = self.agents[index].handle(now, session::Input::Tick);
            self.perform_agent(index, effects);
        }
        self.run_executor(index);
        self.end_copies(index);
        self.dial_if_due(index);
    }

    /// The executor has come to the end of a task, or dies over it.
    pub(super) fn run_executor(&mut self, index: usize) {
        let now = self.now;
        let Some(mut finished) = self.agents[index].finished(now) else { return };
        let outcome = self.fate(index, &finished);
        if let Err((FailureClass::Executor, _, _)) = outcome {
            let effects = self.agents[index].executor_dies(now, Some(finished.task));
            return self.perform_agent(index, effects);
        }
        if let Ok(content) = outcome {
            finished.content = content;
            self.prepare(index, &finished);
        }
        let mut progress = self.agents[index].conclude(finished.task, outcome);
        self.copy_out(index, &finished, &mut progress);
        if !progress.is_empty() {
            let effects = self.agents[index].handle(now, session::Input::Progress(progress));
            self.perform_agent(index, effects);
        }
        let effects = self.agents[index].hand_back(now);
        self.perform_agent(index, effects);
    }

    /// What the task leaves, or how it fails, as its job's parameters and the sources of its input say.
    fn fate(&mut self, agent: usize, task: &Finished) -> Result<u32, (FailureClass, u64, &'static str)> {
        if self.agents[agent].sick {
            return Err((FailureClass::Executor, 0, "the device is broken"));
        }
        let mut read = vec![0u32; task.reads.stages.len()];
        for source in &task.sources {
            let named = source.first_task..source.first_task + source.task_count;
            // Of parts it reads its own.
            let tasks = match task.reads.parts {
                true if !named.contains(&task.task) => continue,
                true => task.task..task.task + 1,
                false => named,
            };
            let input = source.input as usize;
            let Some(from) = task.reads.stages.get(input).copied() else {
                audit(|a| a.violate("a_grant_names_all_that_its_tasks_read", format!("job {} has no input {input}", task.job)));
                continue;
            };
            let found = |worker: u64| {
                let holder = self.agents.iter().find(|a| a.id == worker && a.alive() && (!a.stopped || a.index == agent))?;
                holder.read_shuffle(task.job, from, source.generation, tasks.clone())
            };
            // Now and then a connection between two workers breaks.
            let hiccup = !self.calm && self.dice.below(HICCUP) == 0;
            if let Some(sum) = found(source.worker).filter(|_| !hiccup) {
                read[input] = read[input].wrapping_add(sum);
                continue;
            }
            let Some(sum) = found(source.copy_worker) else {
                return Err((FailureClass::Source, source.worker, "its shuffle data cannot be fetched"));
            };
            read[input] = read[input].wrapping_add(sum);
            audit(|a| a.counters.copies_read += 1);
        }
        if task.fail_every > 0 && task.task % task.fail_every == task.fail_every - 1 {
            let attempts = self.attempts.entry((task.job, task.stage, task.task)).or_default();
            *attempts += 1;
            if *attempts <= task.fail_times {
                let class = if task.kills { FailureClass::Executor } else { FailureClass::Task };
                return Err((class, 0, "this task fails at first"));
            }
        }
        Ok(content(task.stage, task.task, &read))
    }

    /// A second copy of what is being reported, at the first candidate that is there.
    fn copy_out(&mut self, agent: usize, task: &Finished, progress: &mut [LeaseProgress]) {
        let target = self.taker(agent, &task.copy_to);
        let Some(target) = target else { return };
        for message in progress.iter_mut().filter(|p| !p.results.is_empty()) {
            for results in &message.results {
                for copied in results.first_task..results.first_task + results.task_count {
                    let data = (task.job, task.stage, task.generation, copied);
                    let Some(content) = self.agents[agent].holds(&data) else { continue };
                    self.agents[target].keep_copy(data, content);
                    audit(|a| a.counters.copies_made += 1);
                }
            }
            (message.copy_worker, message.copy_incarnation) = (self.agents[target].id, self.agents[target].incarnation);
        }
    }

    /// The first of the candidates that is there and has room.
    fn taker(&self, agent: usize, candidates: &[u64]) -> Option<usize> {
        let there = |a: &&Agent| a.alive() && !a.stopped && a.index != agent;
        let candidates = candidates.iter().filter_map(|id| self.agents.iter().filter(there).find(|a| a.id == *id));
        for candidate in candidates {
            if candidate.full().is_none() {
                return Some(candidate.index);
            }
            audit(|a| a.counters.copies_refused += 1);
        }
        None
    }

    /// Another second copy, where the first one was lost.
    fn copy_again(&mut self, agent: usize, request: CopyAgain) -> CopiedAgain {
        let CopyAgain { job, stage, generation, tasks, targets, .. } = request;
        let targets: Vec<u64> = targets.iter().map(|target| target.worker).collect();
        let target = self.taker(agent, &targets);
        let blocks: Vec<_> =
            tasks.iter().flat_map(|t| t.first_task..t.first_task + t.task_count).map(|task| (job, stage, generation, task)).collect();
        let mut copied = CopiedAgain { job, stage, generation, tasks, ..CopiedAgain::default() };
        let contents: Option<Vec<u32>> = blocks.iter().map(|block| self.agents[agent].holds(block)).collect();
        if let (Some(target), Some(contents)) = (target, contents) {
            audit(|a| a.counters.copies_made_again += blocks.len() as u64);
            blocks.into_iter().zip(contents).for_each(|(block, content)| self.agents[target].keep_copy(block, content));
            (copied.copy_worker, copied.copy_incarnation) = (self.agents[target].id, self.agents[target].incarnation);
        }
        copied
    }

    pub(super) fn perform_agent(&mut self, index: usize, effects: Vec<session::Effect>) {
        let now = self.now;
        let mut effects: VecDeque<session::Effect> = effects.into();
        while let Some(effect) = effects.pop_front() {
            let (link, replica) = (self.agents[index].link, self.agents[index].replica);
            match effect {
                session::Effect::Connect { address, after_ms } => self.agents[index].dial_at(now + after_ms, address),
                session::Effect::Disconnect { .. } => {
                    self.wire.send(now, &mut self.dice, Delivery::Hangup { agent: index, replica, link, left: true });
                    // Its own end is closed at once, whatever the network does.
                    self.wire.send_now(now, Delivery::Broken { agent: index, replica: NOBODY, link });
                }
                session::Effect::Send(message) => {
                    self.agents[index].says(&message);
                    self.wire.send(now, &mut self.dice, Delivery::Up { agent: index, replica, link, message: Box::new(message) });
                }
                session::Effect::StartLease { grant, stage } => {
                    self.check_sources(&grant);
                    effects.extend(self.agents[index].start(now, &grant, &stage));
                }
                session::Effect::StopLease { lease, reason, .. } => {
                    if reason == session::StopReason::Unheard {
                        audit(|a| a.counters.self_fenced += 1);
                    }
                    effects.extend(self.agents[index].stop(now, lease.into()));
                }
                session::Effect::ListInputs(request) => effects.extend(self.agents[index].handle(now, Agent::listing(&request))),
                session::Effect::Publish(publish) => {
                    let report = self.publish(&publish);
                    effects.extend(self.agents[index].handle(now, session::Input::Published(report)));
                }
                session::Effect::Exit(session::ExitReason::Stopped) => self.kill_agent(index),
                session::Effect::Exit(reason) => audit(|a| a.violate("no_worker_is_refused", format!("worker {index}: {reason:?}"))),
                session::Effect::ReleaseJob(job) => self.agents[index].release(job),
                session::Effect::CopyAgain(request) => {
                    let copied = self.copy_again(index, request);
                    effects.extend(self.agents[index].handle(now, session::Input::CopiedAgain(copied)));
                }
                session::Effect::KeepParts(request) => {
                    if let Some(kept) = self.keep_parts(index, request) {
                        effects.extend(self.agents[index].handle(now, session::Input::PartsKept(kept)));
                    }
                }
                session::Effect::CheckParts(request) => {
                    let missing = self.agents[index].disk.check(&request);
                    effects.extend(self.agents[index].handle(now, session::Input::PartsMissing(missing)));
                }
                session::Effect::ReleaseParts(kept) => self.release_parts(index, &kept),
                session::Effect::KnowSchedulers(addresses) => {
                    audit(|a| a.counters.addresses_learnt += 1);
                    self.agents[index].know(addresses);
                }
                session::Effect::FreeRounds { job, stage, before } => self.agents[index].free_rounds(job, &stage, before),
                session::Effect::FreeLease(_)
                | session::Effect::ReplaceExecutor { .. }
                | session::Effect::FetchLogs(_)
                | session::Effect::ReleaseUploads(_) => {}
            }
        }
        self.dial_if_due(index);
    }

    /// Who is asked from this address on, up to the first that answers, and how long the silent ones before it take. One that is down refuses at once.
    fn ask_in_turn(&self, index: usize, first: String) -> (Vec<String>, u64) {
        let others = self.agents[index].others(&first);
        let (mut asked, mut wait) = (Vec::new(), 0);
        for address in std::iter::once(&first).chain(&others) {
            asked.push(address.clone());
            let Some(id) = id_of(address).filter(|id| self.cluster.replica(*id).is_some()) else { continue };
            let cut = [true, false].into_iter().any(|up| self.wire.is_cut(Way { peer: Peer::Agent(index), replica: id, up }));
            if !cut && !self.cluster.is_stopped(id) {
                audit(|a| a.counters.addresses_passed_by += asked.len() as u64 - 1);
                return (asked, wait);
            }
            wait += HEAD_START_MS;
        }
        // Nobody answers: the first one stands for all.
        (vec![first], 0)
    }

    fn dial_if_due(&mut self, index: usize) {
        let now = self.now;
        let Some(address) = self.agents[index].dial_due(now) else { return };
        let address = address.or_else(|| {
            // All that it knew were replaced while it was away: its operator says where the cluster is.
            let members: Vec<String> = self.cluster.ids().into_iter().map(super::address).collect();
            if !self.agents[index].knows_one_of(&members) {
                self.agents[index].know(members);
            }
            self.agents[index].next_address()
        });
        let Some(address) = address else {
            return audit(|a| a.violate("an_agent_has_somebody_to_ask", format!("worker {index} knows nobody")));
        };
        let (asked, wait) = self.ask_in_turn(index, address);
        self.agents[index].asked(&asked);
        let Some(replica) = asked.last().and_then(|address| id_of(address)) else { return };
        if wait > 0 {
            return self.agents[index].dial_at(now + wait, asked.last().cloned());
        }
        let link = Link(self.number());
        self.agents[index].link = link;
        self.agents[index].replica = replica;
        self.wire.send(now, &mut self.dice, Delivery::Dial { agent: index, replica, link });
    }
}
