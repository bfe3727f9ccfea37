//! Results that stay on workers, and the room that workers give: their disks outlive their processes, copies are asked for, some get lost,
//! and a worker that is full takes nothing more.

use super::Sim;
use super::agent::{Agent, Finished};
use super::audit::audit;
use raftwerk_core::{Job, State, WorkerId, kept};
use raftwerk_proto::v1::{KeepParts, KeptParts, PartName, PartNotKept, PartsKept};
use std::collections::BTreeSet;

/// A worker's disk, as far as it belongs to results and to what bounds them.
#[derive(Default)]
pub(super) struct Disk {
    /// Job and staged name.
    parts: BTreeSet<(u64, String)>,
    /// Of these, what was lost without anybody's doing.
    lost: BTreeSet<(u64, String)>,
    /// Tasks' shuffle data and parts that fit; without it there is no end.
    room: Option<usize>,
}

impl Disk {
    pub(super) fn with_room(room: Option<usize>) -> Disk {
        Disk { room, ..Disk::default() }
    }

    pub(super) fn jobs(&self) -> Vec<u64> {
        let jobs: BTreeSet<u64> = self.parts.iter().map(|(job, _)| *job).collect();
        jobs.into_iter().collect()
    }

    /// Why nothing more may be left there, if so; `shuffled` tasks have their shuffle data there.
    pub(super) fn full(&self, shuffled: usize) -> Option<String> {
        let used = shuffled + self.parts.len();
        self.room.filter(|room| used >= *room).map(|room| format!("{used} of {room} are taken"))
    }

    fn has(&self, job: u64, name: &str) -> bool {
        self.parts.contains(&(job, name.to_owned()))
    }

    pub(super) fn release(&mut self, kept: &KeptParts) {
        if !kept.all {
            self.parts.retain(|(job, name)| *job != kept.job || kept.names.contains(name));
        }
    }
}

impl Sim {
    /// A reduce task has written and flushed a part that stays.
    pub(super) fn keep_own(&mut self, agent: usize, task: &Finished) {
        let (id, name) = (self.agents[agent].id, super::output::staged_name(task.task, task.lease));
        audit(|a| {
            a.counters.parts_kept += 1;
            a.has_part(id, task.job, &name);
        });
        self.agents[agent].disk.parts.insert((task.job, name));
    }

    /// What a worker that is asked for copies has in the end.
    pub(super) fn keep_parts(&mut self, agent: usize, request: &KeepParts) -> PartsKept {
        let mut report = PartsKept { job: request.job, ..PartsKept::default() };
        for part in &request.parts {
            let name = PartName { partition: part.partition, staged_name: part.staged_name.clone() };
            if self.agents[agent].disk.has(request.job, &part.staged_name) {
                report.kept.push(name);
                continue;
            }
            if let Some(reason) = self.agents[agent].full() {
                audit(|a| a.counters.copies_refused += 1);
                report.failed.push(PartNotKept { part: Some(name), gone_at: Vec::new(), reason });
                continue;
            }
            let mut gone_at = Vec::new();
            let answers = |a: &&Agent| a.alive() && !a.stopped && a.index != agent;
            let sources = part.sources.iter().filter_map(|source| self.agents.iter().filter(answers).find(|a| a.id == source.worker));
            let mut found = false;
            for source in sources {
                found = source.disk.has(request.job, &part.staged_name);
                if found {
                    break;
                }
                gone_at.push(source.id);
            }
            if found {
                let id = self.agents[agent].id;
                audit(|a| {
                    a.counters.parts_copied += 1;
                    a.has_part(id, request.job, &part.staged_name);
                });
                self.agents[agent].disk.parts.insert((request.job, part.staged_name.clone()));
                self.agents[agent].disk.lost.remove(&(request.job, part.staged_name.clone()));
                report.kept.push(name);
            } else {
                report.failed.push(PartNotKept { part: Some(name), gone_at, reason: "no source has it".into() });
            }
        }
        report
    }

    /// A part that some worker keeps is gone.
    pub(super) fn lose_kept_part(&mut self) {
        let all: Vec<(usize, (u64, String))> =
            self.agents.iter().flat_map(|a| a.disk.parts.iter().map(|part| (a.index, part.clone()))).collect();
        if all.is_empty() {
            return;
        }
        let (agent, part) = all[self.dice.below(all.len() as u64) as usize].clone();
        self.say(format!("part {} of job {} is lost at worker {}", part.1, part.0, self.agents[agent].id));
        audit(|a| a.counters.kept_parts_lost += 1);
        self.agents[agent].disk.parts.remove(&part);
        self.agents[agent].disk.lost.insert(part);
    }

    /// What the record says that a worker keeps it has, unless its disk has lost it.
    pub(super) fn check_kept(&self, state: &State, job: &Job) {
        for part in job.parts.values() {
            if kept::keepers(part).next().is_none() {
                audit(|a| a.violate("a_result_has_keepers", format!("part {} of job {} has none", part.staged_name, job.id)));
            }
            for WorkerId(keeper) in kept::keepers(part).filter(|keeper| state.is_there(*keeper)) {
                let key = (job.id.0, part.staged_name.clone());
                let has = |a: &Agent| a.id == keeper && (a.disk.parts.contains(&key) || a.disk.lost.contains(&key));
                if !self.agents.iter().any(has) {
                    let what = format!("worker {keeper} is recorded as keeper of part {} of job {}", part.staged_name, job.id);
                    audit(|a| a.violate("what_is_recorded_as_kept_is_there", what));
                }
            }
        }
    }
}
