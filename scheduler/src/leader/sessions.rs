//! Worker sessions: who is connected, who is suspect, who is lost. Soft state; only the verdict is logged.

use super::batch::Waiter;
use super::{ConnId, Effect, Leader};
use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_core::stage::TaskState;
use raftwerk_core::{JobId, Lease, LeaseId, Session, State, WorkerId, kept};
use raftwerk_liveness::Detector;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{self as wire, Hello, Load, command::Command, scheduler_message as down, worker_message as up};
use raftwerk_proto::{Window, own_versions};
use std::collections::{BTreeMap, BTreeSet};

/// Ended jobs that a connecting worker is told to forget.
const RELEASES_ON_CONNECT: usize = 1000;
/// Parts of one job that a worker is told by name to keep; a message holds about twice as many.
const NAMES_AT_ONCE: usize = 10_000;

pub(super) struct WorkerConn {
    pub(super) worker: WorkerId,
    /// `None` until the registration is in the log.
    pub(super) session: Option<Session>,
    pub(super) hello: Hello,
    since: u64,
    pub(super) detector: Detector,
    pub(super) load: Option<Load>,
    /// Newest version of the protocol that it speaks.
    pub(super) protocol: u32,
    /// Stages whose `StageInfo` this session has, and how many rounds of the job had ended then.
    pub(super) known_stages: BTreeMap<(JobId, u32), usize>,
    held: Vec<LeaseId>,
    /// Jobs of which it may keep parts.
    kept_jobs: Vec<JobId>,
    /// Of another cluster, of which parts lie there.
    brought_jobs: Vec<JobId>,
    /// Whether it can be asked what it has of the parts that it is to keep.
    checks_parts: bool,
    /// Which list of schedulers it has been told.
    told: u64,
}

pub(super) struct Sessions {
    pub(super) conns: BTreeMap<ConnId, WorkerConn>,
    pub(super) by_worker: BTreeMap<WorkerId, ConnId>,
    /// Workers of the state that are not connected, and when they will be declared lost.
    pub(super) lost_at: BTreeMap<WorkerId, u64>,
    /// When those of them were last heard that were connected during this leadership.
    last_heard: BTreeMap<WorkerId, u64>,
    /// When this leadership began.
    begun: u64,
    pub(super) schedulers: Schedulers,
}

/// Where the replicas are, for workers that will have to find them again.
#[derive(Default)]
pub(super) struct Schedulers {
    addresses: Vec<String>,
    /// Counts the changes.
    version: u64,
}

impl Schedulers {
    pub(super) fn set(&mut self, addresses: Vec<String>) {
        if addresses != self.addresses {
            self.addresses = addresses;
            self.version += 1;
        }
    }

    /// What somebody has to be told who was told version `told`.
    fn news(&self, told: &mut u64) -> Vec<String> {
        if std::mem::replace(told, self.version) == self.version { Vec::new() } else { self.addresses.clone() }
    }
}

impl Sessions {
    pub(super) fn new(state: &State, begun: u64, grace_ends: u64) -> Sessions {
        let lost_at = state.workers.iter().filter(|(_, w)| !w.lost).map(|(id, _)| (*id, grace_ends)).collect();
        Sessions {
            conns: BTreeMap::new(),
            by_worker: BTreeMap::new(),
            lost_at,
            last_heard: BTreeMap::new(),
            begun,
            schedulers: Schedulers::default(),
        }
    }

    /// For how long nothing was heard of a worker that is not lost; `None` when this leadership never heard it.
    pub(super) fn silence(&self, worker: WorkerId, now: u64) -> Option<u64> {
        match self.by_worker.get(&worker).and_then(|conn| self.conns.get(conn)) {
            Some(conn) => Some(conn.detector.silence(now)),
            None => self.last_heard.get(&worker).map(|heard| now.saturating_sub(*heard)),
        }
    }

    /// Nobody who is not connected is declared lost before `ms`.
    pub(super) fn wait_for_all_until(&mut self, ms: u64) {
        self.lost_at.values_mut().for_each(|at| *at = ms.max(*at));
    }

    /// Workers that may be given leases: registered, and not suspect.
    pub(super) fn present(&self, now: u64) -> BTreeMap<WorkerId, Session> {
        let usable = |c: &ConnId| self.conns.get(c).filter(|conn| !conn.detector.is_suspect(now));
        self.by_worker.iter().filter_map(|(w, c)| usable(c)?.session.map(|s| (*w, s))).collect()
    }

    /// Workers whose silence is suspect, and those that are not connected and not yet lost. A new leadership gives them time to come.
    pub(super) fn suspects(&self, state: &State, now: u64, return_ms: u64) -> BTreeSet<WorkerId> {
        let suspect = |worker: &WorkerId| match self.by_worker.get(worker).and_then(|c| self.conns.get(c)) {
            Some(conn) => conn.detector.is_suspect(now),
            None => now.saturating_sub(self.begun) > return_ms,
        };
        state.workers.iter().filter(|(id, w)| !w.lost && suspect(id)).map(|(id, _)| *id).collect()
    }

    /// Workers whose results may still be on their way: a new leadership waits for them, or they came less than a heartbeat ago. Their
    /// reports come right behind their hello, but not in the same message.
    pub(super) fn returning(&self, state: &State, now: u64, return_ms: u64, heartbeat_ms: u64) -> BTreeSet<WorkerId> {
        let returning = |worker: &WorkerId| match self.by_worker.get(worker).and_then(|c| self.conns.get(c)) {
            Some(conn) => now.saturating_sub(conn.since) <= heartbeat_ms,
            None => now.saturating_sub(self.begun) <= return_ms,
        };
        state.workers.iter().filter(|(id, w)| !w.lost && returning(id)).map(|(id, _)| *id).collect()
    }

    /// Workers that have no room for more shuffle data, as they last said.
    pub(super) fn full(&self) -> BTreeSet<WorkerId> {
        self.conns.values().filter(|conn| conn.load.as_ref().is_some_and(|load| !load.full.is_empty())).map(|conn| conn.worker).collect()
    }

    pub(super) fn revoke(&self, state: &State, id: LeaseId, lease: &Lease, effects: &mut Vec<Effect>) {
        if let Some(conn) = self.by_worker.get(&lease.worker)
            && self.conns.get(conn).is_some_and(|c| c.session == Some(lease.session))
        {
            let unused = if leaves_nothing(state, lease) { vec![id.into()] } else { Vec::new() };
            let revoke = wire::Revoke { leases: vec![id.into()], unused };
            effects.push(Effect::Send { conn: *conn, message: down::Message::Revoke(revoke) });
        }
    }
}

/// Whether no accepted task of an ended lease has its shuffle data, or a part that is kept there, at the lease's worker.
fn leaves_nothing(state: &State, lease: &Lease) -> bool {
    let job = state.jobs.get(&lease.job);
    let keeps_parts = job.is_some_and(|j| {
        let last = lease.stage as usize + 1 == j.stages.len() && kept::on_workers(&j.spec);
        last && j.parts.values().any(|part| kept::keepers(part).any(|worker| worker == lease.worker))
    });
    if keeps_parts {
        return false;
    }
    let stage = job.and_then(|j| j.stages.get(lease.stage as usize));
    stage.is_none_or(|s| {
        !s.tasks().overlapping(lease.tasks).any(|(_, task)| matches!(task, TaskState::Accepted { worker, .. } if worker == lease.worker))
    })
}

impl Leader {
    pub(super) fn on_worker_connected(
        &mut self,
        now: u64,
        state: &State,
        conn: ConnId,
        worker: WorkerId,
        mut hello: Hello,
        effects: &mut Vec<Effect>,
    ) {
        if self.in_the_dark {
            // A known session would be welcomed without an entry, and its leases would go on from now.
            let redirect = wire::Redirect { leader_address: String::new() };
            effects.push(Effect::Send { conn, message: down::Message::Redirect(redirect) });
            effects.push(Effect::Close { conn });
            return;
        }
        let said = hello.versions.take();
        let (own, theirs) = (Window::own(), Window::of(said.as_ref(), hello.protocol_version));
        if own.shared(theirs).is_none() {
            let reason = crate::versions::strangers("the worker", own, theirs);
            effects.push(Effect::Send { conn, message: down::Message::Refused(wire::Refused { reason }) });
            effects.push(Effect::Close { conn });
            return;
        }
        if let Some(old) = self.sessions.by_worker.insert(worker, conn) {
            // The worker dialled again before its old connection was seen to be dead.
            self.sessions.conns.remove(&old);
            self.connection_gone(old);
            effects.push(Effect::Close { conn: old });
        }
        self.sessions.lost_at.remove(&worker);
        self.sessions.last_heard.remove(&worker);
        let held = std::mem::take(&mut hello.held).into_iter().map(LeaseId::from).collect();
        let kept_jobs = std::mem::take(&mut hello.kept_jobs).into_iter().map(JobId).collect();
        let resumed = state.workers.get(&worker).filter(|record| {
            !record.lost
                && record.hello.incarnation == hello.incarnation
                && record.hello.devices == hello.devices
                && record.hello.data_address == hello.data_address
        });
        let brought_jobs = std::mem::take(&mut hello.brought_jobs).into_iter().map(JobId).collect();
        self.uploads.told(worker, std::mem::take(&mut hello.uploads));
        let checks_parts = std::mem::take(&mut hello.checks_parts);
        let session = resumed.map(|record| record.session);
        let entry = WorkerConn {
            worker,
            since: now,
            session,
            hello: hello.clone(),
            detector: Detector::new(now, self.timing.heartbeat_ms),
            load: None,
            known_stages: BTreeMap::new(),
            held,
            kept_jobs,
            brought_jobs,
            checks_parts,
            told: 0,
            protocol: theirs.newest,
        };
        self.sessions.conns.insert(conn, entry);
        match session {
            Some(_) => self.welcome(now, state, conn, effects),
            None => {
                let register = wire::RegisterWorker { worker: worker.0, hello: Some(hello) };
                self.batch.push(Command::RegisterWorker(register), Waiter::Register(conn));
            }
        }
    }

    pub(super) fn on_registered(&mut self, now: u64, state: &State, conn: ConnId, session: Session, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.sessions.conns.get_mut(&conn) {
            entry.session = Some(session);
            self.welcome(now, state, conn, effects);
        }
    }

    /// Session hand-over: tells which of the held leases ended, and grants again what the worker should hold and does not.
    fn welcome(&mut self, now: u64, state: &State, conn: ConnId, effects: &mut Vec<Effect>) {
        let Some(entry) = self.sessions.conns.get_mut(&conn) else { return };
        let Some(session) = entry.session else { return };
        let holds = |id: &LeaseId| state.leases.get(id).is_some_and(|l| l.worker == entry.worker && l.session == session);
        let held = std::mem::take(&mut entry.held);
        let stop: Vec<wire::LeaseId> = held.iter().filter(|id| !holds(id)).map(|id| (*id).into()).collect();
        let message = down::Message::Welcome(wire::Welcome {
            worker: entry.worker.0,
            session: session.0,
            lease_ttl_ms: self.timing.lease_ttl_ms as u32,
            heartbeat_ms: self.timing.heartbeat_ms as u32,
            stop,
            cluster: state.cluster.clone(),
            versions: own_versions(ENTRY_FORMAT),
            schedulers: self.sessions.schedulers.news(&mut entry.told),
        });
        effects.push(Effect::Send { conn, message });
        let (kept, brought) = (std::mem::take(&mut entry.kept_jobs), std::mem::take(&mut entry.brought_jobs));
        let release = what_ended(state, &kept);
        if !release.jobs.is_empty() {
            effects.push(Effect::Send { conn, message: down::Message::Release(release) });
        }
        let worker = entry.worker;
        if entry.checks_parts {
            self.checks.of(worker, conn);
        }
        if !brought.is_empty() {
            let unknown = brought.iter().filter(|job| !state.jobs.contains_key(job)).count();
            tracing::info!(%worker, jobs = brought.len(), unknown, "a worker brings parts of results from another cluster");
        }
        self.ask_what_is_there(state, (conn, worker), &brought, usize::MAX, effects);
        // It may have taken in such parts before, and died before that was recorded.
        self.ask_what_is_there(state, (conn, worker), &kept, 1, effects);
        let again: Vec<LeaseId> =
            state.leases_of(worker).filter(|(id, l)| l.session == session && !held.contains(id)).map(|(id, _)| id).collect();
        self.dispatch(state, &again, effects);
        self.replan = true;
        self.keeping.workers_changed();
        self.recopy.look();
        self.ask_newcomer(now, conn, effects);
    }

    /// The connection of a process that dies ends at once, whatever it was doing: that is why it is not given the lease time. One of a
    /// worker that was silent before says nothing of the kind, only that somebody has given it up.
    pub(super) fn on_worker_disconnected(&mut self, now: u64, conn: ConnId, effects: &mut Vec<Effect>) {
        let died = self.sessions.conns.get(&conn).is_some_and(|entry| !entry.detector.is_suspect(now));
        self.worker_gone(now, conn, if died { 0 } else { self.timing.lease_ttl_ms }, effects);
    }

    /// Its leases run for as long as it may think that it has them.
    pub(super) fn on_worker_left(&mut self, now: u64, conn: ConnId, effects: &mut Vec<Effect>) {
        self.worker_gone(now, conn, if planted::on(Bug::LeftIsDead) { 0 } else { self.timing.lease_ttl_ms }, effects);
    }

    /// It is lost `silence_ms` after it was heard, and not before it has had the time to come back.
    fn worker_gone(&mut self, now: u64, conn: ConnId, silence_ms: u64, effects: &mut Vec<Effect>) {
        let Some(entry) = self.sessions.conns.remove(&conn) else { return };
        if self.sessions.by_worker.get(&entry.worker) == Some(&conn) {
            self.uploads.gone(entry.worker);
            self.sessions.by_worker.remove(&entry.worker);
            let heard = now.saturating_sub(entry.detector.silence(now));
            let lost_at = (heard + silence_ms).max(now + self.timing.reconnect_grace_ms);
            self.sessions.lost_at.insert(entry.worker, lost_at);
            self.sessions.last_heard.insert(entry.worker, heard);
        }
        self.connection_gone(conn);
        self.settle_submissions(effects);
        self.logs.connection_gone(conn, effects);
    }

    /// Forgets what was asked of a connection that is no more.
    fn connection_gone(&mut self, conn: ConnId) {
        self.publishing.connection_gone(conn);
        self.keeping.connection_gone(conn);
        self.checks.connection_gone(conn);
        self.recopy.connection_gone(conn);
        self.submissions.connection_gone(conn);
    }

    pub(super) fn on_worker_message(&mut self, now: u64, state: &State, conn: ConnId, message: up::Message, effects: &mut Vec<Effect>) {
        let (knows_full, knows_costs) = (self.all_know_kept_data(state), self.all_know_costs(state));
        let Some(entry) = self.sessions.conns.get_mut(&conn) else { return };
        match message {
            up::Message::Heartbeat(_) => entry.detector.beat(now),
            _ => entry.detector.heard(now),
        }
        let worker = entry.worker;
        match message {
            up::Message::Hello(_) => {
                // A second hello on one stream breaks the protocol.
                effects.push(Effect::Close { conn });
            }
            up::Message::Heartbeat(heartbeat) => {
                if heartbeat.load.is_some() {
                    entry.load = heartbeat.load;
                }
                if self.in_the_dark {
                    return;
                }
                let schedulers = self.sessions.schedulers.news(&mut entry.told);
                self.uploads.told(worker, heartbeat.uploads);
                let unneeded_uploads = self.unneeded_uploads(now, state, worker);
                let message =
                    down::Message::HeartbeatAck(wire::HeartbeatAck { sequence: heartbeat.sequence, schedulers, unneeded_uploads });
                effects.push(Effect::Send { conn, message });
            }
            up::Message::Reports(mut reports) => {
                // Results from before this registration come right behind the hello; apply fences or accepts them by their lease.
                let session = entry.session.unwrap_or_default();
                let mut failures = reports.reports.iter().flat_map(|report| &report.failures);
                if let Some(full) = failures.rfind(|failure| failure.class() == wire::FailureClass::Full) {
                    // Until the next heartbeat says otherwise.
                    entry.load.get_or_insert_default().full = full.message.clone();
                }
                if !knows_full {
                    let failures = reports.reports.iter_mut().flat_map(|report| &mut report.failures);
                    failures.filter(|f| f.class() == wire::FailureClass::Full).for_each(|f| f.set_class(wire::FailureClass::Stopped));
                }
                if !knows_costs {
                    // As the former release says it.
                    let failures = reports.reports.iter_mut().flat_map(|report| &mut report.failures);
                    failures.filter(|f| f.class() == wire::FailureClass::OutOfMemory).for_each(|f| f.set_class(wire::FailureClass::Device));
                    let failures = reports.reports.iter_mut().flat_map(|report| &mut report.failures);
                    failures.filter(|f| f.class() == wire::FailureClass::Input).for_each(|f| f.set_class(wire::FailureClass::Task));
                }
                for chunk in chunks_below_one_entry(reports.reports) {
                    let sequences: Vec<u64> = chunk.iter().map(|r| r.sequence).collect();
                    if planted::on(Bug::AckEarly) {
                        let message = down::Message::ReportAck(wire::ReportAck { sequences: sequences.clone() });
                        effects.push(Effect::Send { conn, message });
                    }
                    let command = Command::ReportResults(wire::ReportResults { worker: worker.0, session: session.0, reports: chunk });
                    self.batch.push(command, Waiter::Reports { conn, sequences });
                }
            }
            up::Message::Listing(listing) => self.on_listing(state, conn, listing, effects),
            up::Message::Published(report) => self.on_published(now, state, conn, report),
            up::Message::CopiedAgain(copied) => self.on_copied_again(now, conn, copied),
            up::Message::PartsKept(report) => self.on_parts_kept(now, conn, worker, report),
            up::Message::PartsMissing(report) => self.on_parts_missing(state, worker, report),
            up::Message::Logs(found) => self.logs.on_logs(conn, worker, found, effects),
            up::Message::Goodbye(goodbye) => {
                let Some(session) = entry.session else { return };
                tracing::info!(%worker, reason = goodbye.reason, "worker says goodbye");
                let command = wire::LoseWorker { worker: worker.0, session: session.0, reason: goodbye.reason };
                self.batch.push(Command::LoseWorker(command), Waiter::Nobody);
            }
        }
    }

    /// Tells every worker that the job has ended, and which parts of its result it is to keep. Parts of attempts that were not accepted go.
    pub(super) fn release(&mut self, state: &State, job: JobId, effects: &mut Vec<Effect>) {
        let mut names: BTreeMap<WorkerId, Vec<String>> = BTreeMap::new();
        let kept = state.jobs.get(&job).filter(|job| job.has_kept_result());
        for part in kept.iter().flat_map(|job| job.parts.values()) {
            let told = if planted::on(Bug::ReleaseCopies) { 1 } else { usize::MAX };
            kept::keepers(part).take(told).for_each(|worker| names.entry(worker).or_default().push(part.staged_name.clone()));
        }
        if kept.is_some() {
            self.keeping.asked_of(job).for_each(|(worker, name)| names.entry(worker).or_default().push(name.to_owned()));
        }
        for (conn, entry) in &self.sessions.conns {
            let kept = names.get(&entry.worker).map(|names| {
                // Too many to say: then what was not accepted stays as well.
                let all = names.len() > NAMES_AT_ONCE;
                wire::KeptParts { job: job.0, all, names: if all { Vec::new() } else { names.clone() } }
            });
            let release = wire::ReleaseJobs { jobs: vec![job.0], kept: kept.into_iter().collect() };
            effects.push(Effect::Send { conn: *conn, message: down::Message::Release(release) });
        }
        self.keeping.released(job);
    }

    /// A worker may have come back while the verdict on its session was on its way into the log. It has to register again: a lost session gets no
    /// more work.
    pub(super) fn close_lost(&mut self, worker: WorkerId, effects: &mut Vec<Effect>) {
        let Some(conn) = self.sessions.by_worker.get(&worker).copied() else { return };
        if self.sessions.conns.get(&conn).is_some_and(|c| c.session.is_some()) {
            self.sessions.by_worker.remove(&worker);
            self.sessions.conns.remove(&conn);
            self.uploads.gone(worker);
            self.connection_gone(conn);
            effects.push(Effect::Close { conn });
        }
    }

    /// Silence for the lease time, or a connection that did not come back: the worker is lost, and the log says so. A leader that no majority
    /// answers has sent its workers away itself, and cannot say where they are.
    pub(super) fn lose_silent_workers(&mut self, now: u64, state: &State, effects: &mut Vec<Effect>) {
        if self.in_the_dark {
            return;
        }
        let silent: Vec<ConnId> =
            self.sessions.conns.iter().filter(|(_, c)| c.detector.silence(now) > self.timing.lease_ttl_ms).map(|(conn, _)| *conn).collect();
        for conn in silent {
            effects.push(Effect::Close { conn });
            if let Some(worker) = self.sessions.conns.get(&conn).map(|c| c.worker) {
                self.on_worker_disconnected(now, conn, effects);
                self.sessions.lost_at.insert(worker, now);
            }
        }
        if planted::on(Bug::ExpireByWallClock) {
            let ttl = self.timing.lease_ttl_ms;
            let old = state.leases.values().filter(|l| l.granted_at.0 + ttl < state.now.0);
            self.sessions.lost_at.extend(old.map(|l| (l.worker, now)));
        }
        let lost: Vec<WorkerId> = self.sessions.lost_at.iter().filter(|(_, at)| **at <= now).map(|(w, _)| *w).collect();
        for worker in lost {
            self.sessions.lost_at.remove(&worker);
            self.sessions.last_heard.remove(&worker);
            if let Some(record) = state.workers.get(&worker).filter(|w| !w.lost) {
                let command = wire::LoseWorker { worker: worker.0, session: record.session.0, reason: "not heard of in time".into() };
                self.batch.push(Command::LoseWorker(command), Waiter::Nobody);
            }
        }
    }
}

/// What a worker that comes may forget: the newest ended jobs, and those of which it keeps parts that nobody needs any more.
fn what_ended(state: &State, kept_jobs: &[JobId]) -> wire::ReleaseJobs {
    let newest = state.jobs.values().rev().filter(|j| !j.is_active()).take(RELEASES_ON_CONNECT).map(|j| j.id);
    let mut ended: BTreeSet<JobId> = newest.collect();
    // A job of a later number than any is one that this state has not seen yet.
    let over = |id: &&JobId| state.jobs.get(id).map_or(state.has_had(**id), |job| !job.is_active());
    ended.extend(kept_jobs.iter().filter(over));
    let kept = ended.iter().filter(|id| state.jobs.get(id).is_some_and(|job| job.has_kept_result()));
    let kept = kept.map(|id| wire::KeptParts { job: id.0, all: true, names: Vec::new() }).collect();
    wire::ReleaseJobs { jobs: ended.iter().map(|id| id.0).collect(), kept }
}

/// Reports cut so that each part fits an entry with room to spare.
fn chunks_below_one_entry(reports: Vec<wire::Report>) -> Vec<Vec<wire::Report>> {
    const LIMIT: usize = 400_000;
    let mut chunks = Vec::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for report in reports {
        let more = prost::Message::encoded_len(&report);
        if bytes + more > LIMIT && !chunk.is_empty() {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += more;
        chunk.push(report);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}
