//! The leader loop: a state machine, input in, effects out. It waits for nothing, reads no clock and opens nothing; the edge
//! ([`crate::edge`]) and the simulation drive the same code.
//!
//! A [`Leader`] lives for one leadership of one process and is dropped with it: it holds only soft state, and derives what is
//! outstanding from the replicated state when it begins. Nothing here grants or ends a right; that takes a log entry.

mod batch;
mod brought;
mod checks;
mod copies;
mod dispatch;
mod format;
mod keeping;
mod logs;
mod namespaces;
mod patience;
mod publish;
mod readers;
mod recopy;
mod retention;
mod room;
mod sessions;
mod submissions;
mod uploads;
mod views;

use batch::Batch;
use logs::LogRequests;
use publish::Publishing;
use raftwerk_core::plan::policy::{Policy, policies};
use raftwerk_core::{Applied, Event, JobId, State, Timestamp, WorkerId};
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{
    CostRecord, EntryBody, Hello, JobSpec, NamespaceTerms, WorkerLogs, command::Command, scheduler_message, worker_message,
};
pub use retention::Limits;
use retention::Retention;
use sessions::Sessions;
use std::sync::Arc;
pub use submissions::OR_WAIT;
use submissions::Submissions;
pub(crate) use submissions::existing;

/// A worker's connection; numbered by the edge, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A client's call that waits for an answer; numbered by the edge, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

#[derive(Debug)]
pub enum Input {
    WorkerConnected {
        conn: ConnId,
        worker: WorkerId,
        hello: Hello,
    },
    FromWorker {
        conn: ConnId,
        message: worker_message::Message,
    },
    /// A connection that broke without a word, as that of a process that dies does.
    WorkerDisconnected {
        conn: ConnId,
    },
    /// A session that was closed by whoever had it, and who lives on: the worker looks for another leader, or did not read.
    WorkerLeft {
        conn: ConnId,
    },
    Submit {
        request: RequestId,
        spec: JobSpec,
        idempotency_key: String,
    },
    Cancel {
        request: RequestId,
        job: JobId,
    },
    /// Ends a worker's quarantine.
    Release {
        request: RequestId,
        worker: WorkerId,
    },
    /// Nobody needs the result that workers keep any more.
    DropResult {
        request: RequestId,
        job: JobId,
    },
    Mint {
        request: RequestId,
        kind: String,
        name: String,
    },
    /// Gives a worker nothing new until it is released.
    Drain {
        request: RequestId,
        worker: WorkerId,
    },
    /// What a namespace may have.
    SetNamespace {
        request: RequestId,
        name: String,
        terms: NamespaceTerms,
    },
    /// Costs that somebody has exported.
    ImportCosts {
        request: RequestId,
        costs: Vec<CostRecord>,
    },
    /// Every replica of the cluster reads entries up to this format.
    Format(u32),
    /// Addresses of all replicas, when they have changed.
    Schedulers(Vec<String>),
    /// A replica that is out of the membership already.
    RemoveReplica {
        request: RequestId,
        replica: u64,
    },
    Logs {
        request: RequestId,
        job: JobId,
    },
    /// Bytes that are free under this replica's data directory.
    FreeDisk(u64),
    /// The entry in flight is committed and applied here.
    Applied(Arc<Applied>),
    Tick,
}

#[derive(Debug)]
pub enum Effect {
    Send { conn: ConnId, message: scheduler_message::Message },
    Close { conn: ConnId },
    Answer { request: RequestId, answer: Answer },
}

/// What a client's call is answered. Everything that says yes is durable on a majority.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Submitted {
        job: JobId,
        existing: bool,
    },
    /// The key belongs to that job, submitted with another payload.
    IdempotencyConflict {
        job: JobId,
    },
    /// The request is wrong as it stands; the text says how to mend it.
    Refused(String),
    /// The cluster as it stands cannot do it (no device, no worker that sees the input, output exists).
    Precondition(String),
    Unavailable(String),
    /// There is no room for another job now; nothing of it was kept.
    Exhausted(String),
    NotFound(String),
    Cancelled,
    Released,
    Minted(u64),
    Logs(Vec<WorkerLogs>),
}

/// Times of the leader's soft state, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A worker that was not heard for this long is lost; it has stopped by itself by then.
    pub lease_ttl_ms: u64,
    pub heartbeat_ms: u64,
    /// A broken connection is not yet a lost worker: it may come back.
    pub reconnect_grace_ms: u64,
    /// How long a submit waits for workers to answer what they see.
    pub listing_ms: u64,
    /// A leader that no majority has answered for longer than this answers no heartbeat and welcomes nobody: another may lead by now, and workers that it kept with it
    /// would be taken for lost there. They leave it, or stop by themselves.
    pub majority_ms: u64,
}

impl Timing {
    /// Workers that did not come to a new leader within this time are suspect: a few heartbeats.
    fn return_ms(&self) -> u64 {
        3 * self.heartbeat_ms
    }
}

impl Default for Timing {
    fn default() -> Self {
        // Ten seconds of silence survive a paused virtual machine or a machine that swaps; a broken connection is seen at once.
        Timing { lease_ttl_ms: 10_000, heartbeat_ms: 500, reconnect_grace_ms: 1_000, listing_ms: 5_000, majority_ms: 1_000 }
    }
}

pub struct Leader {
    timing: Timing,
    /// No majority has been heard for a while.
    in_the_dark: bool,
    limits: Limits,
    policy: &'static dyn Policy,
    retention: Retention,
    /// Time of the last input.
    now: u64,
    batch: Batch,
    sessions: Sessions,
    submissions: Submissions,
    publishing: Publishing,
    logs: LogRequests,
    copies: copies::Copies,
    keeping: keeping::Keeping,
    checks: checks::Checks,
    recopy: recopy::Recopy,
    uploads: uploads::Uploads,
    waiting_for_room: room::WaitingForRoom,
    format: format::Format,
    /// Something changed since the last planning round.
    replan: bool,
    clock: Clock,
}

/// Cluster time between entries. It never goes back, and it goes on where the wall clock stands still behind it (set back by an hour, say):
/// pauses of failed tasks end by it.
struct Clock {
    /// Time of the last applied entry, and the monotonic time at which this leader saw it.
    applied: Timestamp,
    seen_at: u64,
    now: u64,
}

impl Clock {
    fn see(&mut self, now: u64, applied: Timestamp) {
        self.now = now;
        if applied != self.applied {
            self.applied = applied;
            self.seen_at = now;
        }
    }

    /// Cluster time at a monotonic time of this leader.
    fn at(&self, now: u64) -> Timestamp {
        Timestamp(self.applied.0.saturating_add(now.saturating_sub(self.seen_at)))
    }

    /// Stamp of an entry made now.
    fn stamp(&self, wall: u64) -> u64 {
        if planted::on(Bug::TimeGoesBack) { wall } else { wall.max(self.at(self.now).0) }
    }
}

impl Leader {
    /// Begins a leadership. Nobody is declared lost before one full lease time from now, and the time in which a former leader may still have
    /// answered a worker.
    pub fn new(timing: Timing, state: &State, now: u64) -> Leader {
        Leader {
            sessions: Sessions::new(state, now, now + timing.lease_ttl_ms + timing.majority_ms),
            in_the_dark: false,
            timing,
            limits: Limits::default(),
            policy: policies()[0],
            retention: Retention::default(),
            now,
            batch: Batch::default(),
            submissions: Submissions::default(),
            publishing: Publishing::default(),
            logs: LogRequests::default(),
            copies: copies::Copies::default(),
            keeping: keeping::Keeping::since(state.applied_index),
            checks: checks::Checks::default(),
            recopy: recopy::Recopy::default(),
            uploads: uploads::Uploads::default(),
            waiting_for_room: room::WaitingForRoom::default(),
            format: format::Format::default(),
            replan: true,
            clock: Clock { applied: state.now, seen_at: now, now },
        }
    }

    pub fn with_limits(self, limits: Limits) -> Leader {
        Leader { limits, ..self }
    }

    /// Places tasks of jobs that name no policy by this one.
    pub fn with_policy(self, policy: &'static dyn Policy) -> Leader {
        Leader { policy, ..self }
    }

    /// Writes entries of this format at the most, unless the log has newer ones, until told by [`Input::Format`]. Without this, the newest.
    pub fn writing(self, format: u32) -> Leader {
        Leader { format: format::Format::up_to(format), ..self }
    }

    /// Tells workers these addresses.
    pub fn with_schedulers(mut self, addresses: Vec<String>) -> Leader {
        self.sessions.schedulers.set(addresses);
        self
    }

    /// For how long no majority of the replicas has answered this one. To be said before every burst of inputs.
    pub fn majority_silent_for(&mut self, ms: u64) {
        let before = std::mem::replace(&mut self.in_the_dark, ms > self.timing.majority_ms && !planted::on(Bug::AnswerInTheDark));
        if before && !self.in_the_dark {
            // Whom it sent away, or left without an answer, comes back as to a new leader: others are asked first, with pauses.
            self.sessions.wait_for_all_until(self.now + self.timing.lease_ttl_ms);
        }
    }

    /// Takes one input. `state` is the applied state, `now` any monotonic milliseconds.
    pub fn handle(&mut self, now: u64, state: &State, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now = now;
        self.clock.see(now, state.now);
        match input {
            Input::WorkerConnected { conn, worker, hello } => self.on_worker_connected(now, state, conn, worker, hello, &mut effects),
            Input::FromWorker { conn, message } => self.on_worker_message(now, state, conn, message, &mut effects),
            Input::WorkerDisconnected { conn } => self.on_worker_disconnected(now, conn, &mut effects),
            Input::WorkerLeft { conn } => self.on_worker_left(now, conn, &mut effects),
            Input::Submit { request, spec, idempotency_key } => self.on_submit(now, state, request, spec, idempotency_key, &mut effects),
            Input::Cancel { request, job } => {
                if state.jobs.contains_key(&job) {
                    self.batch.push(Command::CancelJob(raftwerk_proto::v1::CancelJob { job: job.0 }), batch::Waiter::Cancel(request));
                } else {
                    effects.push(Effect::Answer { request, answer: Answer::NotFound(format!("there is no job {job}")) });
                }
            }
            Input::Release { request, worker } => {
                if state.workers.contains_key(&worker) {
                    let command = raftwerk_proto::v1::EndQuarantine { worker: worker.0 };
                    self.batch.push(Command::EndQuarantine(command), batch::Waiter::Release(request));
                } else {
                    effects.push(Effect::Answer { request, answer: Answer::NotFound(format!("there is no worker {worker}")) });
                }
            }
            Input::DropResult { request, job } => {
                self.batch.push(Command::DropResult(raftwerk_proto::v1::DropResult { job: job.0 }), batch::Waiter::Drop(request));
            }
            Input::Drain { request, worker } => self.on_drain(state, request, worker, &mut effects),
            Input::SetNamespace { request, name, terms } => self.on_set_namespace(state, request, name, terms, &mut effects),
            Input::ImportCosts { request, costs } => self.on_import_costs(state, request, costs, &mut effects),
            Input::Format(format) => self.format.raise(format),
            Input::Schedulers(addresses) => self.sessions.schedulers.set(addresses),
            Input::RemoveReplica { request, replica } => {
                let command = raftwerk_proto::v1::RemoveReplica { replica };
                self.batch.push(Command::RemoveReplica(command), batch::Waiter::Release(request));
            }
            Input::Mint { request, kind, name } => {
                self.batch.push(Command::MintId(raftwerk_proto::v1::MintId { kind, name }), batch::Waiter::Mint(request));
            }
            Input::Logs { request, job } => self.on_logs(now, state, request, job, &mut effects),
            Input::FreeDisk(bytes) => self.on_free_disk(bytes),
            Input::Applied(applied) => self.on_applied(now, state, &applied, &mut effects),
            Input::Tick => self.on_tick(now, state, &mut effects),
        }
        effects
    }

    /// Proposes what has gathered, with the placements it allows, unless an entry is in flight. Call it after every burst of inputs.
    /// `wall` is Unix milliseconds for the entry's stamp: data, nothing about safety is decided by it.
    pub fn flush(&mut self, state: &State, wall: u64) -> Option<EntryBody> {
        if self.batch.in_flight() {
            return None;
        }
        let stamp = self.clock.stamp(wall);
        self.retention.cluster_time = Timestamp(stamp);
        self.batch.take();
        if self.replan || self.batch.has_submissions() {
            self.replan = false;
            // A look at ten thousand workers takes milliseconds; without a job there is nothing to look for.
            if state.active_count() > 0 || self.batch.has_submissions() {
                self.place(state, Timestamp(stamp));
            }
        }
        let (format, announce) = self.format.of_next_entry(state);
        self.batch.launch(stamp, format, announce)
    }

    fn on_applied(&mut self, now: u64, state: &State, applied: &Applied, effects: &mut Vec<Effect>) {
        self.replan = true;
        let waiters = self.batch.landed();
        for (waiter, outcome) in waiters.into_iter().zip(&applied.outcomes) {
            self.on_outcome(now, state, waiter, outcome, effects);
        }
        for event in &applied.events {
            self.on_event(state, event, effects);
        }
        self.start_publishing(now, state, effects);
        self.keep_results(now, state, effects);
    }

    fn on_event(&mut self, state: &State, event: &Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Accepted { .. } => {}
            Event::LeaseEnded { id, lease } => self.sessions.revoke(state, *id, lease, effects),
            Event::JobEnded { job } => {
                self.publishing.forget(*job);
                self.keeping.job_changed(*job);
                self.release(state, *job, effects);
            }
            Event::ResultDropped { job } => {
                self.keeping.forget(*job);
                self.release(state, *job, effects);
            }
            Event::WorkerLost { worker } => {
                self.keeping.workers_changed();
                self.recopy.look();
                tracing::warn!(%worker, "worker lost; its tasks run elsewhere");
                self.close_lost(*worker, effects);
            }
            Event::PublishDecided { job } => {
                tracing::info!(%job, "every part is prepared; publishing");
                self.keeping.job_changed(*job);
            }
            Event::Invalidated { job, worker, tasks } => {
                tracing::warn!(%job, %worker, tasks, "shuffle data lost; its tasks run again under a new generation");
            }
            Event::CopiesLeft { job, worker, tasks } => {
                tracing::warn!(%job, %worker, tasks, "one of two places of shuffle data lost; the other one is read");
            }
            Event::RoundEnded { job, round, last } => tracing::info!(%job, round, last, "a round has ended"),
            Event::PartsLost { job, parts } => {
                tracing::warn!(%job, parts, "decided parts are lost; they are made again under a new generation");
                self.publishing.forget(*job);
                self.keeping.forget(*job);
            }
            Event::TaskFailed { job, stage, task, message } => tracing::warn!(%job, stage, task, message, "task failed"),
            Event::SetAside { job, stage, task, message } => tracing::warn!(%job, stage, task, message, "task set aside"),
            Event::HoldRanOut { job, stage, held } => {
                tracing::info!(%job, stage, held, "a gang was not complete in time; what was held for it is given back");
            }
            Event::Quarantined { worker, device, until, reason } => {
                let ms = until.0.saturating_sub(state.now.0);
                tracing::warn!(%worker, ?device, ms, reason, "in quarantine: it failed again and again by its own fault");
            }
        }
    }

    fn on_tick(&mut self, now: u64, state: &State, effects: &mut Vec<Effect>) {
        self.lose_silent_workers(now, state, effects);
        self.expire_submissions(now, state, effects);
        self.logs.expire(now, effects);
        self.copy_lone_data_again(now, state, effects);
        self.forget_what_is_old(now, state);
        self.fail_what_waits_for_room_in_vain(now, state);
        self.start_publishing(now, state, effects);
        self.keep_results(now, state, effects);
        self.check_kept_parts(now, state, effects);
        self.replan = true;
    }
}
