//! Logs of attempts lie on the workers that ran them; the leader asks all present ones and puts the answers together.

use super::{Answer, ConnId, Effect, Leader, RequestId};
use raftwerk_core::{JobId, State, WorkerId};
use raftwerk_proto::v1::{self as wire, WorkerLogs, scheduler_message as down};
use std::collections::{BTreeMap, BTreeSet};

const WAIT_MS: u64 = 3_000;
const MAX_BYTES: u64 = 256 * 1024;

struct Pending {
    deadline: u64,
    waiting_for: BTreeMap<ConnId, (WorkerId, String)>,
    found: Vec<WorkerLogs>,
}

#[derive(Default)]
pub(super) struct LogRequests {
    pending: BTreeMap<RequestId, Pending>,
}

impl Leader {
    pub(super) fn on_logs(&mut self, now: u64, state: &State, request: RequestId, job: JobId, effects: &mut Vec<Effect>) {
        if !state.jobs.contains_key(&job) {
            effects.push(Effect::Answer { request, answer: Answer::NotFound(format!("there is no job {job}")) });
            return;
        }
        let (mut waiting_for, mut found) = (BTreeMap::new(), Vec::new());
        for (conn, entry) in &self.sessions.conns {
            waiting_for.insert(*conn, (entry.worker, entry.hello.name.clone()));
            let message = down::Message::FetchLogs(wire::FetchLogs { request: request.0, job: job.0, max_bytes: MAX_BYTES });
            effects.push(Effect::Send { conn: *conn, message });
        }
        // Who ran tasks of it and cannot be asked is named: what is missing would look like what was never printed.
        let ran: BTreeSet<WorkerId> =
            state.jobs.get(&job).into_iter().flat_map(|job| job.shares.keys().map(|(_, worker, _)| *worker)).collect();
        for worker in ran.into_iter().filter(|worker| !self.sessions.by_worker.contains_key(worker)) {
            let name = state.workers.get(&worker).map(|known| known.hello.name.clone()).unwrap_or_default();
            found.push(WorkerLogs { worker: worker.0, worker_name: name, logs: Vec::new(), error: "it is not connected".into() });
        }
        self.logs.pending.insert(request, Pending { deadline: now + WAIT_MS, waiting_for, found });
        self.logs.settle(now, effects);
    }
}

impl LogRequests {
    pub(super) fn on_logs(&mut self, conn: ConnId, worker: WorkerId, logs: wire::AttemptLogs, effects: &mut Vec<Effect>) {
        if let Some(pending) = self.pending.get_mut(&RequestId(logs.request))
            && let Some((_, name)) = pending.waiting_for.remove(&conn)
        {
            pending.found.push(WorkerLogs { worker: worker.0, worker_name: name, logs: logs.logs, error: String::new() });
        }
        self.settle(0, effects);
    }

    pub(super) fn connection_gone(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        for pending in self.pending.values_mut() {
            pending.give_up(|c| c == conn, "the connection broke");
        }
        self.settle(0, effects);
    }

    pub(super) fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.settle(now, effects);
    }

    fn settle(&mut self, now: u64, effects: &mut Vec<Effect>) {
        for pending in self.pending.values_mut().filter(|p| p.deadline <= now) {
            pending.give_up(|_| true, "no answer in time");
        }
        let ready: Vec<RequestId> = self.pending.iter().filter(|(_, p)| p.waiting_for.is_empty()).map(|(r, _)| *r).collect();
        for request in ready {
            if let Some(mut pending) = self.pending.remove(&request) {
                pending.found.sort_by_key(|w| w.worker);
                effects.push(Effect::Answer { request, answer: Answer::Logs(pending.found) });
            }
        }
    }
}

impl Pending {
    fn give_up(&mut self, whom: impl Fn(ConnId) -> bool, why: &str) {
        let gone: Vec<ConnId> = self.waiting_for.keys().copied().filter(|c| whom(*c)).collect();
        for conn in gone {
            if let Some((worker, name)) = self.waiting_for.remove(&conn) {
                self.found.push(WorkerLogs { worker: worker.0, worker_name: name, logs: Vec::new(), error: why.into() });
            }
        }
    }
}
