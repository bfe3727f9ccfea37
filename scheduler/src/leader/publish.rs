//! Second phase of publishing. The decision is in the log; some worker that reaches the destination makes it visible. Repeatable: a
//! new leader simply asks again.
//!
//! A publisher that finds a part missing or damaged is not believed at once: it may only be the one that does not see it. The worker that
//! prepared the part is asked, or, when that one is gone, every other one. Then the part is lost for good, and the log takes the decision back.

use super::batch::Waiter;
use super::{ConnId, Effect, Leader};
use crate::document;
use raftwerk_core::{Job, JobId, Phase, State, WorkerId, kept};
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{self as wire, command::Command, scheduler_message as down};
use std::collections::BTreeMap;

/// Retryable failures after which the job fails with the last message.
const MAX_TRIES: u32 = 5;
const RETRY_MS: u64 = 500;
/// A publisher that has not answered after this time, and the time to read its parts at [`SLOWEST_BYTES_PER_MS`], hangs (a file server that is away, a
/// disk that does not answer), and another one is asked. Should the first one come round, its claim has gone, and it changes nothing.
const PATIENCE_MS: u64 = 60_000;
/// 20 MB/s: a shared disk under load.
const SLOWEST_BYTES_PER_MS: u64 = 20_000;

struct Attempt {
    conn: Option<ConnId>,
    tries: u32,
    not_before: u64,
    /// When the one that was asked is given up.
    deadline: u64,
    last_error: String,
    /// The verdict is on its way into the log.
    settled: bool,
    /// Who does not find which part, by partition and the name of the attempt.
    missed: BTreeMap<(u32, String), BTreeMap<WorkerId, String>>,
}

#[derive(Default)]
pub(super) struct Publishing {
    attempts: BTreeMap<JobId, Attempt>,
}

impl Publishing {
    pub(super) fn forget(&mut self, job: JobId) {
        self.attempts.remove(&job);
    }

    pub(super) fn connection_gone(&mut self, conn: ConnId) {
        for attempt in self.attempts.values_mut().filter(|a| a.conn == Some(conn)) {
            attempt.conn = None;
        }
    }
}

impl Leader {
    pub(super) fn start_publishing(&mut self, now: u64, state: &State, effects: &mut Vec<Effect>) {
        // [`Bug::PublishEarly`]: the last reports are on their way, so why wait.
        let nearly = |j: &Job| {
            let last = j.stages.last();
            planted::on(Bug::PublishEarly) && j.spec.output.is_some() && last.is_some_and(|s| s.accepted() + s.leased() == s.tasks().len())
        };
        for job in state.active_jobs().filter(|j| !kept::on_workers(&j.spec) && (j.phase == Phase::Publishing || nearly(j))) {
            let attempt = self.publishing.attempts.entry(job.id).or_insert(Attempt {
                conn: None,
                tries: 0,
                not_before: now,
                deadline: 0,
                last_error: String::new(),
                settled: false,
                missed: BTreeMap::new(),
            });
            if attempt.conn.is_some() && attempt.deadline <= now {
                tracing::warn!(job = %job.id, "the publisher does not answer; another one is asked");
                attempt.conn = None;
                attempt.tries += 1;
            }
            if attempt.settled || attempt.conn.is_some() || attempt.not_before > now {
                continue;
            }
            let present = self.sessions.present(self.now);
            let Some(worker) = publisher(job, &present, attempt) else { continue };
            let Some(conn) = self.sessions.by_worker.get(&worker).copied() else { continue };
            attempt.conn = Some(conn);
            let bytes = job.parts.values().fold(0u64, |sum, part| sum.saturating_add(part.bytes));
            attempt.deadline = now.saturating_add(PATIENCE_MS + bytes / SLOWEST_BYTES_PER_MS);
            let message = down::Message::Publish(wire::Publish {
                job: job.id.0,
                output: job.spec.output.clone(),
                parts: job.parts.values().cloned().collect(),
                manifest_json: manifest(state, job),
            });
            effects.push(Effect::Send { conn, message });
        }
    }

    pub(super) fn on_published(&mut self, now: u64, state: &State, conn: ConnId, report: wire::PublishReport) {
        let job = JobId(report.job);
        if state.jobs.get(&job).is_none_or(|j| j.phase != Phase::Publishing) {
            return;
        }
        let Some(attempt) = self.publishing.attempts.get_mut(&job).filter(|a| a.conn == Some(conn) && !a.settled) else { return };
        attempt.conn = None;
        attempt.tries += 1;
        attempt.last_error = report.error.clone();
        let present = self.sessions.present(self.now);
        if let Some(worker) = self.sessions.conns.get(&conn).map(|c| c.worker) {
            for lost in report.lost {
                attempt.missed.entry((lost.partition, lost.staged_name)).or_default().insert(worker, lost.reason);
            }
        }
        let verdict = judge(&state.jobs[&job], &present, attempt);
        let lost = verdict.lost;
        if !lost.is_empty() && verdict.unsettled && attempt.tries < MAX_TRIES {
            attempt.not_before = now;
            return;
        }
        if !lost.is_empty() {
            attempt.settled = true;
            self.batch.push(Command::RemakeParts(wire::RemakeParts { job: job.0, parts: lost }), Waiter::Published(job));
            return;
        }
        if !report.error.is_empty() && report.retryable && attempt.tries < MAX_TRIES {
            attempt.not_before = now + RETRY_MS;
            return;
        }
        attempt.settled = true;
        let error = std::mem::take(&mut attempt.last_error);
        self.batch.push(Command::FinishPublish(wire::FinishPublish { job: job.0, error }), Waiter::Published(job));
    }
}

/// The worker that prepared most parts: the destination is at hand there. When parts are missed, their makers come first; other tries go
/// round.
fn publisher(job: &Job, present: &BTreeMap<WorkerId, raftwerk_core::Session>, attempt: &Attempt) -> Option<WorkerId> {
    let unheard = |worker: &WorkerId| present.contains_key(worker) && !attempt.missed.values().any(|said| said.contains_key(worker));
    let makers = attempt.missed.keys().filter_map(|(partition, _)| job.parts.get(partition)).map(|part| WorkerId(part.worker));
    if let Some(maker) = makers.into_iter().find(unheard) {
        return Some(maker);
    }
    let mut prepared: BTreeMap<WorkerId, usize> = present.keys().map(|w| (*w, 0)).collect();
    for part in job.parts.values() {
        if let Some(count) = prepared.get_mut(&WorkerId(part.worker)) {
            *count += 1;
        }
    }
    let mut order: Vec<(WorkerId, usize)> = prepared.into_iter().collect();
    order.sort_by_key(|(worker, count)| (std::cmp::Reverse(*count), *worker));
    let len = order.len();
    (len > 0).then(|| order[attempt.tries as usize % len].0)
}

struct Verdict {
    /// Parts of which no other opinion is to be had: their maker says so, or, when it is gone, so many others do that nobody else is left
    /// to ask.
    lost: Vec<wire::LostPart>,
    /// Others are missed as well, and somebody who can say more of them has not been asked yet. Taking the decision back for all of them
    /// at once makes one new generation instead of one for each maker.
    unsettled: bool,
}

fn judge(job: &Job, present: &BTreeMap<WorkerId, raftwerk_core::Session>, attempt: &Attempt) -> Verdict {
    let mut verdict = Verdict { lost: Vec::new(), unsettled: false };
    let heard = |worker: &WorkerId| attempt.missed.values().any(|said| said.contains_key(worker));
    for ((partition, name), said) in &attempt.missed {
        let Some(part) = job.parts.get(partition).filter(|part| part.staged_name == *name) else { continue };
        let maker = WorkerId(part.worker);
        let (lost, all_heard) = match present.contains_key(&maker) {
            true => (said.contains_key(&maker), heard(&maker)),
            false => (attempt.tries >= MAX_TRIES || present.keys().all(|worker| said.contains_key(worker)), present.keys().all(heard)),
        };
        if lost {
            let reason = said.get(&maker).or_else(|| said.values().next()).cloned().unwrap_or_default();
            verdict.lost.push(wire::LostPart { partition: *partition, staged_name: name.clone(), reason });
        } else {
            verdict.unsettled |= !all_heard;
        }
    }
    verdict
}

/// What the published directory says of itself.
fn manifest(state: &State, job: &Job) -> String {
    let view = state.job_view(job.id).unwrap_or_default();
    serde_json::to_string_pretty(&document::manifest(&view, &state.cluster)).unwrap_or_default()
}
