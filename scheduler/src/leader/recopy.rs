//! Second copies of shuffle data that are made again, after the loss of a worker that held one or had not been there to take it.
//!
//! The remaining holder is asked to copy what it holds alone, some tasks at a time, to the worker that the ring names. What came of it enters the
//! log. Soft state: a new leader sees in the state what has one place only.

use super::batch::Waiter;
use super::{ConnId, Effect, Leader};
use raftwerk_core::{JobId, Phase, State, TaskRange, WorkerId};
use raftwerk_proto::v1::{self as wire, command::Command, scheduler_message as down};
use std::collections::BTreeMap;

/// Tasks that one holder is asked to copy at once.
const TASKS_AT_ONCE: u64 = 256;
const LOOK_EVERY_MS: u64 = 500;
/// After nobody took a copy. The job runs all the same.
const PAUSE_MS: u64 = 5_000;
/// A holder that has not answered by then is asked again. It has patience of its own, by the bytes.
const PATIENCE_MS: u64 = 120_000;

struct Asked {
    conn: ConnId,
    until: u64,
}

pub(super) struct Recopy {
    asked: BTreeMap<(JobId, u32, WorkerId), Asked>,
    look: bool,
    next_look: u64,
}

impl Default for Recopy {
    fn default() -> Self {
        Recopy { asked: BTreeMap::new(), look: true, next_look: 0 }
    }
}

impl Recopy {
    /// Workers came or went.
    pub(super) fn look(&mut self) {
        self.look = true;
    }

    pub(super) fn connection_gone(&mut self, conn: ConnId) {
        self.asked.retain(|_, asked| asked.conn != conn);
    }

    /// What was copied is in the log.
    pub(super) fn recorded(&mut self, job: JobId, stage: u32, holder: WorkerId) {
        self.asked.remove(&(job, stage, holder));
        (self.look, self.next_look) = (true, 0);
    }
}

impl Leader {
    pub(super) fn copy_lone_data_again(&mut self, now: u64, state: &State, effects: &mut Vec<Effect>) {
        if !self.recopy.look || now < self.recopy.next_look {
            return;
        }
        (self.recopy.look, self.recopy.next_look) = (false, now + LOOK_EVERY_MS);
        self.recopy.asked.retain(|_, asked| asked.until > now);
        if state.workers.values().filter(|worker| !worker.lost).count() < 2 || !self.all_know_kept_data(state) {
            return;
        }
        let full = self.sessions.full();
        for job in state.active_jobs().filter(|job| job.phase == Phase::Running) {
            for index in 0..job.stages.len() {
                for ((holder, generation), ranges) in job.lone_copies(index) {
                    self.recopy.look = true;
                    let key = (job.id, index as u32, holder);
                    let Some(conn) = self.sessions.by_worker.get(&holder).copied() else { continue };
                    let open = self.sessions.conns.get(&conn).is_some_and(|c| c.session.is_some());
                    if !open || self.recopy.asked.contains_key(&key) {
                        continue;
                    }
                    let targets = self.copies.targets_of_lone(state, &full, job.id, index as u32, holder, ranges[0].first);
                    if targets.is_empty() {
                        continue; // nobody has room now
                    }
                    let request = wire::CopyAgain {
                        job: job.id.0,
                        stage: index as u32,
                        stage_name: job.spec.stages[index].name.clone(),
                        generation,
                        tasks: first_of(&ranges),
                        targets,
                    };
                    self.recopy.asked.insert(key, Asked { conn, until: now + PATIENCE_MS });
                    effects.push(Effect::Send { conn, message: down::Message::CopyAgain(request) });
                }
            }
        }
    }

    pub(super) fn on_copied_again(&mut self, now: u64, conn: ConnId, copied: wire::CopiedAgain) {
        let Some(entry) = self.sessions.conns.get(&conn) else { return };
        let (worker, Some(session)) = (entry.worker, entry.session) else { return };
        let key = (JobId(copied.job), copied.stage, worker);
        if copied.copy_worker == 0 {
            self.recopy.asked.insert(key, Asked { conn, until: now + PAUSE_MS });
            return;
        }
        let waiter = Waiter::CopiedAgain { job: key.0, stage: key.1, holder: worker };
        let command = wire::RecordCopies { worker: worker.0, session: session.0, copied: Some(copied) };
        self.batch.push(Command::RecordCopies(command), waiter);
    }
}

/// As many of the tasks as one request has.
fn first_of(ranges: &[TaskRange]) -> Vec<wire::TaskPiece> {
    let mut left = TASKS_AT_ONCE;
    let mut pieces = Vec::new();
    for range in ranges {
        let count = range.count().min(left);
        if count == 0 {
            break;
        }
        left -= count;
        pieces.push(wire::TaskPiece { first_task: range.first, task_count: count });
    }
    pieces
}
