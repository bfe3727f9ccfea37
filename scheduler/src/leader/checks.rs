//! Whether workers have what the log says that they keep of results: every one is asked when it has connected. What it has no more it says then, or when
//! a reader comes for it; the log takes it down, so that it is not counted there any more, and [`super::keeping`] has another copy made.

use super::batch::Waiter;
use super::{ConnId, Effect, Leader};
use raftwerk_core::{JobId, Phase, State, WorkerId, kept};
use raftwerk_proto::v1::{self as wire, command::Command, scheduler_message as down};
use std::collections::BTreeMap;

/// Parts named in one message.
const PARTS_AT_ONCE: usize = 1_000;
/// All results are looked through for whoever has come, at most this often.
const LOOK_EVERY_MS: u64 = 1_000;

#[derive(Default)]
pub(super) struct Checks {
    /// Who has come and was not asked yet.
    waiting: BTreeMap<WorkerId, ConnId>,
    next_look: u64,
}

impl Checks {
    pub(super) fn of(&mut self, worker: WorkerId, conn: ConnId) {
        self.waiting.insert(worker, conn);
    }

    pub(super) fn connection_gone(&mut self, conn: ConnId) {
        self.waiting.retain(|_, waiting| *waiting != conn);
    }
}

impl Leader {
    pub(super) fn check_kept_parts(&mut self, now: u64, state: &State, effects: &mut Vec<Effect>) {
        if self.checks.waiting.is_empty() || now < self.checks.next_look || !self.all_know_kept_losses(state) {
            return;
        }
        self.checks.next_look = now + LOOK_EVERY_MS;
        let waiting = std::mem::take(&mut self.checks.waiting);
        let mut asked: BTreeMap<(WorkerId, JobId), Vec<wire::PartToKeep>> = BTreeMap::new();
        for job in
            state.jobs.values().filter(|job| kept::on_workers(&job.spec) && (job.is_active() || matches!(job.phase, Phase::Done { .. })))
        {
            for part in job.parts.values() {
                let counts = |worker: &WorkerId| waiting.contains_key(worker) && !part.gone_at.contains(&worker.0);
                for worker in kept::keepers(part).filter(counts) {
                    asked.entry((worker, job.id)).or_default().push(wire::PartToKeep {
                        partition: part.partition,
                        staged_name: part.staged_name.clone(),
                        bytes: part.bytes,
                        crc32c: part.crc32c,
                        sources: Vec::new(),
                    });
                }
            }
        }
        for ((worker, job), parts) in asked {
            let Some(conn) = waiting.get(&worker).copied() else { continue };
            for parts in parts.chunks(PARTS_AT_ONCE) {
                let check = wire::CheckParts { job: job.0, parts: parts.to_vec() };
                effects.push(Effect::Send { conn, message: down::Message::CheckParts(check) });
            }
        }
    }

    /// What is not counted there already, or by this leader's knowledge never was, is nothing new.
    pub(super) fn on_parts_missing(&mut self, state: &State, worker: WorkerId, report: wire::PartsMissing) {
        let id = JobId(report.job);
        let Some(job) = state.jobs.get(&id).filter(|job| kept::on_workers(&job.spec) && self.all_know_kept_losses(state)) else { return };
        let mut parts = Vec::new();
        for lost in report.parts {
            let counted = |part: &&wire::OutputPart| {
                part.staged_name == lost.staged_name
                    && kept::keepers(part).any(|keeper| keeper == worker)
                    && !part.gone_at.contains(&worker.0)
            };
            if job.parts.get(&lost.partition).filter(counted).is_none() {
                continue;
            }
            tracing::warn!(job = %id, part = lost.staged_name, %worker, reason = lost.reason, "a part is not where it was kept");
            parts.push(wire::PartName { partition: lost.partition, staged_name: lost.staged_name });
        }
        if !parts.is_empty() {
            let keys = parts.iter().map(|part| (id, part.partition)).collect();
            self.batch.push(Command::LoseKept(wire::LoseKept { job: id.0, worker: worker.0, parts }), Waiter::Missing(keys));
        }
    }
}
