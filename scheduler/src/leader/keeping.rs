//! Results that stay on workers: the second phase of their publishing, and copies that are lost later.
//!
//! ```text
//! decided --> every part that has too few keepers: a worker is asked to fetch it from one that has it --> its word goes into the log
//!         --> all parts have their keepers: done.   A part without any keeper left: made again, like any decided part that is lost
//! ```
//! A keeper that is lost, or says that its copy is missing or damaged ([`super::checks`]), does not count: another worker is asked for a copy.
//! Which worker is asked is the ring's choice. Everything here is soft: a new leader sees in the state what is missing, and asks again. What a
//! worker says that it keeps it has flushed and compared with the checksum, so it may be said twice. But it may also be old: at the end of a job its
//! workers are told which parts to keep, and delete the others. So a leader records what it has asked for itself, by the number of the request, and names at
//! the end of the job whatever it is still going to record. To another leader's question the answer is lost, and the question asked again.

use super::batch::Waiter;
use super::{ConnId, Effect, Leader};
use raftwerk_core::ring::Ring;
use raftwerk_core::{Job, JobId, Phase, State, WorkerId, kept};
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{self as wire, OutputPart, command::Command, scheduler_message as down};
use std::collections::{BTreeMap, BTreeSet};

/// Rounds over all workers that could take a copy, after which the job is done with fewer.
const MAX_TRIES: u32 = 5;
const RETRY_MS: u64 = 500;
/// Parts that one worker is asked for at once. A few keep disk and network going; more only wait.
const AT_ONCE: usize = 16;
/// As for a publisher: the time to say anything, and that to move the bytes.
const PATIENCE_MS: u64 = 60_000;
const SLOWEST_BYTES_PER_MS: u64 = 20_000;
/// Results of ended jobs are looked through at most this often.
const LOOK_EVERY_MS: u64 = 1_000;

type PartKey = (JobId, u32);

/// A part on its way to a worker.
struct Asked {
    /// Number of the message that asked for it.
    request: u64,
    conn: ConnId,
    worker: WorkerId,
    staged_name: String,
    deadline: u64,
    /// The worker has it, and the word is on its way into the log.
    told: bool,
}

#[derive(Default)]
struct Trouble {
    staged_name: String,
    tries: u32,
    not_before: u64,
    /// Workers that could not take it in this round.
    unable: BTreeSet<WorkerId>,
    /// Keepers that do not have it as it was made.
    gone: BTreeMap<WorkerId, String>,
    last: String,
}

pub(super) struct Keeping {
    asked: BTreeMap<PartKey, Asked>,
    /// Workers that were asked what they have of a job, by the number of the request.
    looks: BTreeMap<u64, (ConnId, JobId)>,
    /// What such workers have said that they have, on its way into the log.
    found: BTreeMap<(PartKey, WorkerId), String>,
    /// Number of the last request.
    requests: u64,
    trouble: BTreeMap<PartKey, Trouble>,
    /// Jobs whose verdict is on its way into the log.
    settled: BTreeSet<JobId>,
    /// Something changed for jobs that are being decided.
    changed: bool,
    /// Results of ended jobs may lack copies.
    look: bool,
    next_look: u64,
    ring: Ring,
}

impl Default for Keeping {
    fn default() -> Self {
        // A new leader knows nothing and has to look.
        Keeping {
            asked: BTreeMap::new(),
            looks: BTreeMap::new(),
            found: BTreeMap::new(),
            requests: 0,
            trouble: BTreeMap::new(),
            settled: BTreeSet::new(),
            changed: true,
            look: true,
            next_look: 0,
            ring: Ring::default(),
        }
    }
}

/// How a job's parts stand.
#[derive(Default)]
struct Standing {
    lost: Vec<wire::LostPart>,
    /// Parts that wait for a copy.
    waiting: usize,
    /// Parts that nobody could take a copy of.
    given_up: usize,
}

impl Keeping {
    /// Numbers its requests from here on. An earlier leadership that numbered from here too has not changed the state since, so it has told nobody to delete
    /// anything.
    pub(super) fn since(index: u64) -> Keeping {
        Keeping { requests: index << 24, ..Keeping::default() }
    }

    fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Number of a request for what a worker has of a job.
    pub(super) fn looks(&mut self, conn: ConnId, job: JobId) -> u64 {
        let request = self.next_request();
        self.looks.insert(request, (conn, job));
        request
    }

    /// All workers that are connected were told what to keep of the job: what they have said of other parts before they heard it is true no more.
    pub(super) fn released(&mut self, job: JobId) {
        self.looks.retain(|_, (_, of)| *of != job);
    }

    /// Workers came or went: what could not be done may be possible now.
    pub(super) fn workers_changed(&mut self) {
        self.changed = true;
        self.look = true;
        self.trouble.retain(|_, trouble| !trouble.gone.is_empty());
        self.trouble.values_mut().for_each(|trouble| (trouble.tries, trouble.not_before) = (0, 0));
    }

    pub(super) fn job_changed(&mut self, job: JobId) {
        self.settled.remove(&job);
        self.changed = true;
        self.look = true;
    }

    /// Its parts are no longer the ones that were asked for.
    pub(super) fn forget(&mut self, job: JobId) {
        self.asked.retain(|(of, _), _| *of != job);
        self.trouble.retain(|(of, _), _| *of != job);
        self.job_changed(job);
    }

    pub(super) fn connection_gone(&mut self, conn: ConnId) {
        self.looks.retain(|_, (of, _)| *of != conn);
        let before = self.asked.len();
        self.asked.retain(|_, asked| asked.conn != conn || asked.told);
        if self.asked.len() < before {
            self.changed = true;
            self.look = true;
        }
    }

    /// The word is in the log.
    pub(super) fn recorded(&mut self, worker: WorkerId, parts: &[PartKey]) {
        for key in parts {
            if self.asked.get(key).is_some_and(|asked| asked.worker == worker && asked.told) {
                self.asked.remove(key);
            }
            self.found.remove(&(*key, worker));
        }
        self.changed = true;
    }

    /// That keepers have these no more is in the log.
    pub(super) fn missing(&mut self, parts: &[PartKey]) {
        for key in parts {
            if let Some(trouble) = self.trouble.get_mut(key) {
                (trouble.tries, trouble.not_before) = (0, 0);
            }
        }
        self.changed = true;
        self.look = true;
    }

    /// Parts of the job that workers are being asked to keep, or are about to be recorded for.
    pub(super) fn asked_of(&self, job: JobId) -> impl Iterator<Item = (WorkerId, &str)> {
        let asked = self.asked.range((job, 0)..=(job, u32::MAX)).map(|(_, asked)| (asked.worker, asked.staged_name.as_str()));
        let all = ((job, 0), WorkerId(0))..=((job, u32::MAX), WorkerId(u64::MAX));
        asked.chain(self.found.range(all).map(|((_, worker), name)| (*worker, name.as_str())))
    }

    fn room(&self, worker: WorkerId) -> bool {
        self.asked.values().filter(|asked| asked.worker == worker && !asked.told).count() < AT_ONCE
    }
}

impl Leader {
    /// Sees to it that results have their copies, and that jobs whose results have them are done.
    pub(super) fn keep_results(&mut self, now: u64, state: &State, effects: &mut Vec<Effect>) {
        let late: Vec<PartKey> = self.keeping.asked.iter().filter(|(_, a)| !a.told && a.deadline <= now).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(asked) = self.keeping.asked.remove(&key) {
                self.in_trouble(now, key, asked.staged_name, Some(asked.worker), Vec::new(), "it does not answer");
            }
        }
        if self.keeping.changed {
            self.keeping.changed = false;
            let deciding: Vec<JobId> =
                state.active_jobs().filter(|j| j.phase == Phase::Publishing && kept::on_workers(&j.spec)).map(|j| j.id).collect();
            for id in deciding {
                if let Some(job) = state.jobs.get(&id).filter(|_| !self.keeping.settled.contains(&id)) {
                    self.decide_kept(now, state, job, effects);
                }
            }
        }
        if self.keeping.look && now >= self.keeping.next_look {
            self.keeping.next_look = now + LOOK_EVERY_MS;
            self.keeping.look = false;
            let wanting = state.jobs.values().filter(|job| kept::copies(&job.spec) > 1 && job.has_kept_result());
            for job in wanting {
                if self.ask_for_copies(now, state, job, effects).waiting > 0 {
                    self.keeping.look = true;
                }
            }
        }
    }

    /// A job all of whose parts were made: done when they have their keepers, back to running when one has none left.
    fn decide_kept(&mut self, now: u64, state: &State, job: &Job, effects: &mut Vec<Effect>) {
        let standing = self.ask_for_copies(now, state, job, effects);
        let verdict = if !standing.lost.is_empty() {
            Command::RemakeParts(wire::RemakeParts { job: job.id.0, parts: standing.lost })
        } else if standing.waiting > 0 {
            // Again on the next tick, should nothing be heard.
            self.keeping.changed = true;
            return;
        } else {
            if standing.given_up > 0 {
                tracing::warn!(job = %job.id, parts = standing.given_up, "done with fewer copies of these parts than asked for: no worker could take one");
            }
            Command::FinishPublish(wire::FinishPublish { job: job.id.0, error: String::new() })
        };
        self.keeping.settled.insert(job.id);
        self.batch.push(verdict, Waiter::Published(job.id));
    }

    fn ask_for_copies(&mut self, now: u64, state: &State, job: &Job, effects: &mut Vec<Effect>) -> Standing {
        let present = self.sessions.present(self.now);
        let members: Vec<WorkerId> = state.workers.iter().filter(|(_, w)| !w.lost).map(|(id, _)| *id).collect();
        let wanted = kept::copies(&job.spec).min(members.len());
        if self.keeping.ring.members() != members {
            self.keeping.ring = Ring::new(members);
        }
        let mut standing = Standing::default();
        let mut messages: BTreeMap<ConnId, (u64, Vec<wire::PartToKeep>)> = BTreeMap::new();
        for (partition, part) in job.parts.iter().filter(|(_, part)| part.worker != 0) {
            let key = (job.id, *partition);
            if self.keeping.trouble.get(&key).is_some_and(|trouble| trouble.staged_name != part.staged_name) {
                self.keeping.trouble.remove(&key);
            }
            let trouble = self.keeping.trouble.get(&key);
            let gone = |worker: &WorkerId| trouble.is_some_and(|t| t.gone.contains_key(worker));
            let there: Vec<WorkerId> = state.holders(part).collect();
            let good: Vec<WorkerId> = there.iter().copied().filter(|worker| !gone(worker)).collect();
            if good.is_empty() {
                standing.lost.push(lost_part(part, trouble));
                continue;
            }
            // Keepers that others have found without their copy count until they say so themselves: nobody can take their place before.
            if there.len() >= wanted {
                continue;
            }
            if trouble.is_some_and(|t| t.tries >= MAX_TRIES) {
                standing.given_up += 1;
                continue;
            }
            standing.waiting += 1;
            if self.keeping.asked.contains_key(&key) || trouble.is_some_and(|t| t.not_before > now) {
                continue;
            }
            let unable = |worker: &WorkerId| trouble.is_some_and(|t| t.unable.contains(worker));
            let order = self.keeping.ring.owners(&[job.id.0, u64::from(*partition), u64::MAX], WorkerId(0), usize::MAX);
            let mut candidates = order.iter().filter(|worker| !there.contains(worker) && !unable(worker)).peekable();
            if candidates.peek().is_none() {
                self.next_round(now, key, &part.staged_name);
                continue;
            }
            // Those that are registered and not present are waited for: they come back, or are declared lost.
            let Some((worker, conn)) = candidates
                .filter(|worker| present.contains_key(worker))
                .find_map(|worker| self.sessions.by_worker.get(worker).map(|conn| (*worker, *conn)))
            else {
                continue;
            };
            if !self.keeping.room(worker) {
                continue;
            }
            let deadline = now.saturating_add(PATIENCE_MS + part.bytes / SLOWEST_BYTES_PER_MS);
            let staged_name = part.staged_name.clone();
            if planted::on(Bug::CountCopyEarly) {
                let parts = vec![wire::PartName { partition: *partition, staged_name: staged_name.clone() }];
                let record = wire::RecordKept { job: job.id.0, worker: worker.0, parts };
                self.batch.push(Command::RecordKept(record), Waiter::Nobody);
            }
            let (request, parts) = messages.entry(conn).or_insert_with(|| (self.keeping.next_request(), Vec::new()));
            parts.push(part_to_keep(state, part, &good));
            self.keeping.asked.insert(key, Asked { request: *request, conn, worker, staged_name, deadline, told: false });
        }
        for (conn, (request, parts)) in messages {
            effects.push(Effect::Send { conn, message: down::Message::KeepParts(wire::KeepParts { job: job.id.0, parts, request }) });
        }
        standing
    }

    pub(super) fn on_parts_kept(&mut self, now: u64, conn: ConnId, worker: WorkerId, report: wire::PartsKept) {
        let (job, request) = (JobId(report.job), report.request);
        // A worker of an older release does not say what it answers, and is believed.
        let names_none = request == 0;
        let looked = self.keeping.looks.remove(&request).is_some_and(|of| of == (conn, job)) || names_none;
        let wanted = |asked: &&mut Asked, part: &wire::PartName| {
            asked.conn == conn && asked.staged_name == part.staged_name && (asked.request == request || names_none)
        };
        let mut kept = Vec::new();
        for part in report.kept {
            let key = (job, part.partition);
            let asked = self.keeping.asked.get_mut(&key).filter(|asked| wanted(asked, &part));
            let is_asked = asked.map(|asked| asked.told = true).is_some();
            if !is_asked && !looked {
                continue;
            }
            if !is_asked {
                self.keeping.found.insert((key, worker), part.staged_name.clone());
            }
            if let Some(trouble) = self.keeping.trouble.get_mut(&key).filter(|trouble| trouble.staged_name == part.staged_name) {
                trouble.gone.remove(&worker);
            }
            kept.push(part);
        }
        for failed in report.failed {
            let Some(part) = failed.part else { continue };
            let key = (job, part.partition);
            if self.keeping.asked.get_mut(&key).is_some_and(|asked| wanted(&asked, &part)) {
                self.keeping.asked.remove(&key);
                let gone: Vec<WorkerId> = failed.gone_at.into_iter().map(WorkerId).collect();
                tracing::warn!(%job, part = part.staged_name, %worker, reason = failed.reason, "no copy of a part there");
                // When it is the sources that do not have it, the one that asked them is as good as any.
                let unable = gone.is_empty().then_some(worker);
                self.in_trouble(now, key, part.staged_name, unable, gone, &failed.reason);
            }
        }
        if !kept.is_empty() {
            let parts = kept.iter().map(|part| (job, part.partition)).collect();
            let command = wire::RecordKept { job: job.0, worker: worker.0, parts: kept };
            self.batch.push(Command::RecordKept(command), Waiter::Kept { worker, parts });
        }
    }

    fn in_trouble(&mut self, now: u64, key: PartKey, staged_name: String, unable: Option<WorkerId>, gone: Vec<WorkerId>, reason: &str) {
        let trouble = self.keeping.trouble.entry(key).or_default();
        if trouble.staged_name != staged_name {
            *trouble = Trouble { staged_name, ..Trouble::default() };
        }
        trouble.unable.extend(unable);
        trouble.gone.extend(gone.into_iter().map(|worker| (worker, reason.to_owned())));
        trouble.last = reason.to_owned();
        trouble.not_before = now;
        self.keeping.changed = true;
        self.keeping.look = true;
    }

    /// Everybody was asked.
    fn next_round(&mut self, now: u64, key: PartKey, staged_name: &str) {
        let trouble = self.keeping.trouble.entry(key).or_default();
        trouble.staged_name = staged_name.to_owned();
        trouble.tries += 1;
        trouble.unable.clear();
        trouble.not_before = now + RETRY_MS;
    }
}

fn lost_part(part: &OutputPart, trouble: Option<&Trouble>) -> wire::LostPart {
    let workers: Vec<String> = kept::keepers(part).map(|worker| worker.to_string()).collect();
    let reason = match trouble.and_then(|t| t.gone.values().next()) {
        Some(reason) => reason.clone(),
        None if part.gone_at.is_empty() => format!("every worker that kept it is lost (worker {})", workers.join(", ")),
        None => {
            format!("every worker that kept it is lost, or has said that it is missing or damaged there (worker {})", workers.join(", "))
        }
    };
    wire::LostPart { partition: part.partition, staged_name: part.staged_name.clone(), reason }
}

fn part_to_keep(state: &State, part: &OutputPart, sources: &[WorkerId]) -> wire::PartToKeep {
    let address = |worker: &WorkerId| state.workers.get(worker).map(|w| w.hello.data_address.clone()).unwrap_or_default();
    wire::PartToKeep {
        partition: part.partition,
        staged_name: part.staged_name.clone(),
        bytes: part.bytes,
        crc32c: part.crc32c,
        sources: sources.iter().map(|worker| wire::CopyTarget { worker: worker.0, address: address(worker) }).collect(),
    }
}
