//! Results that stay on workers, and the room that workers give: their disks outlive their processes, copies take a while, some get lost, clients
//! read and drop what is kept, and a worker that is full takes nothing more.

use super::Sim;
use super::agent::{Agent, Finished};
use super::audit::audit;
use raftwerk_core::{Job, JobId, Phase, State, WorkerId, kept};
use raftwerk_proto::v1::{CheckParts, KeepParts, KeptParts, LostPart, PartName, PartNotKept, PartToKeep, PartsKept, PartsMissing};
use raftwerk_worker::session;
use std::collections::{BTreeMap, BTreeSet};

/// A copy takes less than this, with faults and without.
const COPY_MS: u64 = 4_000;
const CALM_COPY_MS: u64 = 300;

/// A part of a result as a client is told of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeptPart {
    pub(super) name: String,
    pub(super) crc32c: u32,
    /// Workers that keep it.
    pub(super) keepers: Vec<u64>,
}

/// A worker's disk, as far as it belongs to results and to what bounds them.
#[derive(Default)]
pub(super) struct Disk {
    /// Job and staged name, and the checksum of what lies there.
    parts: BTreeMap<(u64, String), u32>,
    /// What was lost, or damaged, without anybody's doing.
    lost: BTreeSet<(u64, String)>,
    /// Of these, what its worker has found out.
    noticed: BTreeSet<(u64, String)>,
    /// Tasks' shuffle data and parts that fit; without it there is no end.
    room: Option<usize>,
    /// Copies on their way here. They go with the process.
    coming: Vec<Coming>,
}

/// What one request asked for.
struct Coming {
    until: u64,
    job: u64,
    /// What is fetched; room is promised to each.
    parts: Vec<PartToKeep>,
    /// What was known of the others at once.
    report: PartsKept,
    /// The job's directory was removed.
    dropped: bool,
}

impl Disk {
    pub(super) fn with_room(room: Option<usize>) -> Disk {
        Disk { room, ..Disk::default() }
    }

    pub(super) fn jobs(&self) -> Vec<u64> {
        let jobs: BTreeSet<u64> = self.parts.keys().map(|(job, _)| *job).collect();
        jobs.into_iter().collect()
    }

    fn promised(&self) -> usize {
        self.coming.iter().map(|coming| coming.parts.len()).sum()
    }

    /// Why nothing more may be left there, if so; `shuffled` tasks have their shuffle data there, and room for `more` parts is promised beside what
    /// is coming.
    pub(super) fn full_with(&self, shuffled: usize, more: usize) -> Option<String> {
        let (used, promised) = (shuffled + self.parts.len(), self.promised() + more);
        self.room.filter(|room| used + promised >= *room).map(|room| format!("{used} of {room} are taken, {promised} are on their way"))
    }

    pub(super) fn full(&self, shuffled: usize) -> Option<String> {
        self.full_with(shuffled, 0)
    }

    /// Whether it is there as it was made.
    fn has(&self, job: u64, name: &str, crc32c: u32) -> bool {
        self.parts.get(&(job, name.to_owned())) == Some(&crc32c)
    }

    fn keep(&mut self, job: u64, name: &str, crc32c: u32) {
        let part = (job, name.to_owned());
        self.lost.remove(&part);
        self.noticed.remove(&part);
        self.parts.insert(part, crc32c);
    }

    /// Which of these parts are not there as they were made.
    pub(super) fn check(&mut self, request: &CheckParts) -> PartsMissing {
        let mut missing = PartsMissing { job: request.job, parts: Vec::new() };
        for part in &request.parts {
            if !self.has(request.job, &part.staged_name, part.crc32c) {
                audit(|a| a.counters.kept_losses_found += 1);
                self.noticed.insert((request.job, part.staged_name.clone()));
                missing.parts.push(LostPart {
                    partition: part.partition,
                    staged_name: part.staged_name.clone(),
                    reason: "it is missing or damaged".into(),
                });
            }
        }
        missing
    }

    /// When the next request for copies has come to its end.
    pub(super) fn wakes_at(&self) -> u64 {
        self.coming.iter().map(|coming| coming.until).min().unwrap_or(u64::MAX)
    }

    /// Copies that had not come yet.
    pub(super) fn process_ends(&mut self) {
        self.coming.clear();
    }

    /// The names that went. Copies on their way go with the whole directory only.
    fn release(&mut self, kept: &KeptParts) -> Vec<String> {
        if kept.all {
            return Vec::new();
        }
        if kept.names.is_empty() {
            self.coming.iter_mut().filter(|coming| coming.job == kept.job).for_each(|coming| coming.dropped = true);
        }
        let goes = |(job, name): &(u64, String)| *job == kept.job && !kept.names.contains(name);
        let gone: Vec<(u64, String)> = self.parts.keys().filter(|part| goes(part)).cloned().collect();
        for part in &gone {
            self.parts.remove(part);
        }
        gone.into_iter().map(|(_, name)| name).collect()
    }
}

impl Sim {
    /// A reduce task has written and flushed a part that stays.
    pub(super) fn keep_own(&mut self, agent: usize, task: &Finished) {
        let (id, name) = (self.agents[agent].id, super::output::staged_name(task.task, task.lease));
        audit(|a| {
            a.counters.parts_kept += 1;
            a.has_part(id, task.job, &name, task.content);
        });
        self.agents[agent].disk.keep(task.job, &name, task.content);
    }

    /// A worker is asked for copies. It answers when all of them have come to their end; at once when there is nothing to fetch.
    pub(super) fn keep_parts(&mut self, agent: usize, request: KeepParts) -> Option<PartsKept> {
        let mut report = PartsKept { job: request.job, request: request.request, ..PartsKept::default() };
        let mut parts = Vec::new();
        for part in request.parts {
            let name = PartName { partition: part.partition, staged_name: part.staged_name.clone() };
            if self.agents[agent].disk.has(request.job, &part.staged_name, part.crc32c) {
                report.kept.push(name);
            } else if let Some(reason) = self.agents[agent].full_with(parts.len()) {
                audit(|a| a.counters.copies_refused += 1);
                report.failed.push(PartNotKept { part: Some(name), gone_at: Vec::new(), reason });
            } else {
                parts.push(part);
            }
        }
        if parts.is_empty() {
            return Some(report);
        }
        let until = self.now + 5 + self.dice.below(if self.calm { CALM_COPY_MS } else { COPY_MS });
        self.agents[agent].disk.coming.push(Coming { until, job: request.job, parts, report, dropped: false });
        None
    }

    /// Copies whose time is over: they are there, or their source has gone meanwhile.
    pub(super) fn end_copies(&mut self, agent: usize) {
        let now = self.now;
        let (ended, coming) = std::mem::take(&mut self.agents[agent].disk.coming).into_iter().partition(|c: &Coming| c.until <= now);
        self.agents[agent].disk.coming = coming;
        let ended: Vec<Coming> = ended;
        for copies in ended {
            let report = self.arrived(agent, copies);
            let effects = self.agents[agent].handle(now, session::Input::PartsKept(report));
            self.perform_agent(agent, effects);
        }
    }

    fn arrived(&mut self, agent: usize, copies: Coming) -> PartsKept {
        let Coming { job, parts, mut report, dropped, .. } = copies;
        for part in parts {
            let name = PartName { partition: part.partition, staged_name: part.staged_name.clone() };
            let mut gone_at = Vec::new();
            let answers = |a: &&Agent| a.alive() && !a.stopped && a.index != agent;
            let sources: Vec<usize> = part
                .sources
                .iter()
                .filter_map(|source| self.agents.iter().filter(answers).find(|a| a.id == source.worker))
                .map(|a| a.index)
                .collect();
            let mut found = false;
            for source in sources {
                let disk = &self.agents[source].disk;
                found = disk.has(job, &part.staged_name, part.crc32c);
                if found {
                    break;
                }
                // What comes is compared with the checksum that the leader has named.
                let comes = disk.parts.contains_key(&(job, part.staged_name.clone()));
                audit(|a| a.counters.copies_damaged += u64::from(comes));
                gone_at.push(self.agents[source].id);
                // Whoever is asked for what it has lost finds that out.
                let asked = CheckParts { job, parts: vec![part.clone()] };
                let missing = self.agents[source].disk.check(&asked);
                let effects = self.agents[source].handle(self.now, session::Input::PartsMissing(missing));
                self.perform_agent(source, effects);
            }
            if dropped || !found {
                let (gone_at, reason) = if dropped { (Vec::new(), "its directory was removed") } else { (gone_at, "no source has it") };
                audit(|a| a.counters.copies_dropped += u64::from(dropped));
                report.failed.push(PartNotKept { part: Some(name), gone_at, reason: reason.into() });
                continue;
            }
            let id = self.agents[agent].id;
            audit(|a| {
                a.counters.parts_copied += 1;
                a.has_part(id, job, &part.staged_name, part.crc32c);
            });
            self.agents[agent].disk.keep(job, &part.staged_name, part.crc32c);
            report.kept.push(name);
        }
        report
    }

    /// A leader has said which parts of an ended job are still needed.
    pub(super) fn release_parts(&mut self, agent: usize, kept: &KeptParts) {
        let id = self.agents[agent].id;
        let gone = self.agents[agent].disk.release(kept);
        audit(|a| a.deletes(id, kept.job, &gone));
    }

    /// A client fetches the parts of a result from where it was told that they lie.
    pub(super) fn read_result(&mut self, id: JobId, parts: &[KeptPart]) {
        let mut whole = !parts.is_empty();
        for KeptPart { name, crc32c, keepers } in parts {
            let mut found = false;
            for keeper in keepers {
                // Now and then a connection does not come about.
                let hiccup = !self.calm && self.dice.below(16) == 0;
                let Some(agent) = self.agents.iter().find(|a| a.id == *keeper && a.alive() && !a.stopped && !hiccup) else { continue };
                found = agent.disk.has(id.0, name, *crc32c);
                if !found && !agent.disk.lost.contains(&(id.0, name.clone())) {
                    audit(|a| a.has_nothing_of(*keeper, id, name));
                }
                if found {
                    break;
                }
            }
            whole &= found;
        }
        audit(|a| {
            a.counters.results_read += u64::from(whole);
            a.counters.results_away += u64::from(!whole);
        });
    }

    /// Nobody has anything of a result that was dropped. What is missing until then.
    pub(super) fn left_of_dropped(&self, state: &State) -> Option<String> {
        let is_dropped = |job: &&Job| {
            let named = |job: &Job| job.parts.values().any(|part| kept::keepers(part).next().is_some());
            kept::on_workers(&job.spec) && matches!(job.phase, Phase::Done { .. }) && !job.parts.is_empty() && !named(job)
        };
        let dropped: BTreeSet<u64> = state.jobs.values().filter(is_dropped).map(|job| job.id.0).collect();
        self.agents.iter().find_map(|agent| {
            let (job, name) = agent.disk.parts.keys().find(|(job, _)| dropped.contains(job))?;
            Some(format!("worker {} still has part {name} of job {job}, whose result was dropped", agent.id))
        })
    }

    /// A part that some worker keeps is gone, or not as it was made any more; whether there was one.
    pub(super) fn lose_kept_part(&mut self) -> bool {
        let all: Vec<(usize, (u64, String))> =
            self.agents.iter().flat_map(|a| a.disk.parts.keys().map(|part| (a.index, part.clone()))).collect();
        if all.is_empty() {
            return false;
        }
        let (agent, part) = all[self.dice.below(all.len() as u64) as usize].clone();
        let damaged = self.dice.below(2) == 0;
        let how = if damaged { "damaged" } else { "lost" };
        self.say(format!("part {} of job {} is {how} at worker {}", part.1, part.0, self.agents[agent].id));
        let disk = &mut self.agents[agent].disk;
        if let Some(content) = disk.parts.get_mut(&part).filter(|_| damaged) {
            // Not as it was made, however often this strikes.
            *content = content.wrapping_add(1);
            audit(|a| a.counters.kept_parts_damaged += 1);
        } else {
            disk.parts.remove(&part);
            audit(|a| a.counters.kept_parts_lost += 1);
        }
        disk.lost.insert(part);
        true
    }

    /// A worker that has found out what its disk lost, and whose word may still be on its way. One that was told while it was being asked for a copy may
    /// have got one since.
    pub(super) fn counted_without_its_part(&self, state: &State) -> Option<String> {
        let done = state.jobs.values().filter(|job| job.has_kept_result());
        let mut counted = done.flat_map(|job| job.parts.values().map(move |part| (job, part))).flat_map(|(job, part)| {
            let key = (job.id.0, part.staged_name.clone());
            state.holders(part).filter(move |WorkerId(holder)| self.agents.iter().any(|a| a.id == *holder && a.disk.noticed.contains(&key)))
        });
        counted.next().map(|worker| format!("worker {worker} knows that it has lost a part, and is counted as its keeper"))
    }

    /// What the record says that a worker keeps it has, unless its disk has lost it.
    pub(super) fn check_kept(&self, state: &State, job: &Job) {
        if audit(|a| a.may_be_dropped(job.id)) {
            return;
        }
        for part in job.parts.values() {
            if kept::keepers(part).next().is_none() {
                audit(|a| a.violate("a_result_has_keepers", format!("part {} of job {} has none", part.staged_name, job.id)));
            }
            for WorkerId(keeper) in kept::keepers(part).filter(|keeper| state.is_there(*keeper)) {
                let key = (job.id.0, part.staged_name.clone());
                let has = |a: &Agent| a.id == keeper && (a.disk.has(key.0, &key.1, part.crc32c) || a.disk.lost.contains(&key));
                if !self.agents.iter().any(has) {
                    let what = format!("worker {keeper} is recorded as keeper of part {} of job {}", part.staged_name, job.id);
                    audit(|a| a.violate("what_is_recorded_as_kept_is_there", what));
                }
            }
        }
    }
}
