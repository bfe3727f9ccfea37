//! The auditor: sees every entry that any replica applies, keeps the one history they must all agree on, and judges it.
//!
//! It sits in the state machine itself ([`Watched`]), so no entry passes between two looks. Each promise is a function of its own; the
//! promises that one state can show by itself are in [`raftwerk_core::invariants`].

use super::counters::Counters;
use prost::Message;
use raftwerk_core::stage::TaskState;
use raftwerk_core::{Applied, Event, JobId, LeaseId, Outcome, Phase, State, TaskRange, WorkerId, invariants};
use raftwerk_proto::v1::{Command, EntryBody, command::Command as Do};
use raftwerk_scheduler::machine::Replicated;
use raftwerk_scheduler::raft::{ApplyError, StateMachine};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// States kept for comparing replicas without encoding them; older ones are compared by their hash.
const KEPT_STATES: usize = 128;
/// Encoding and decoding the whole state is the dearest check; every so many entries are enough, and the last ones are always among them.
const SNAPSHOT_CHECK_EVERY: u64 = 8;

thread_local! {
    static AUDIT: RefCell<Audit> = RefCell::new(Audit::default());
}

/// Runs `f` on this thread's auditor.
pub(super) fn audit<T>(f: impl FnOnce(&mut Audit) -> T) -> T {
    AUDIT.with_borrow_mut(f)
}

/// The state machine that ships, with the auditor looking on.
#[derive(Clone, Debug)]
pub struct Watched(pub Replicated);

impl Watched {
    pub fn state(&self) -> &State {
        &self.0.0
    }
}

impl StateMachine for Watched {
    type Outcome = Arc<Applied>;

    fn apply(&mut self, index: u64, payload: &[u8]) -> Result<Arc<Applied>, ApplyError> {
        let applied = self.0.apply(index, payload)?;
        audit(|a| a.applied(index, payload, &self.0.0, &applied));
        Ok(applied)
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.snapshot()
    }

    fn restore(cluster: &str, bytes: &[u8]) -> Result<Self, ApplyError> {
        let restored = Replicated::restore(cluster, bytes)?;
        audit(|a| a.restored(&restored.0));
        Ok(Watched(restored))
    }

    fn empty(cluster: &str) -> Self {
        Watched(Replicated::empty(cluster))
    }
}

/// One accepted result: (job, stage, generation, task).
type Accepted = (JobId, u32, u32, u64);

#[derive(Default)]
pub(super) struct Audit {
    /// Checksums of payload and of the state after it, for every entry that somebody applied.
    history: BTreeMap<u64, (u32, (usize, u32))>,
    recent: VecDeque<(u64, Arc<State>)>,
    latest: Option<Arc<State>>,
    granted: BTreeMap<LeaseId, WorkerId>,
    accepted: BTreeSet<Accepted>,
    /// What executors have really computed.
    computed: BTreeSet<(LeaseId, u64)>,
    reported: BTreeSet<(u64, LeaseId, u64)>,
    /// Acknowledged submits by key, and acknowledged cancels.
    submitted: BTreeMap<String, JobId>,
    cancelled: BTreeSet<JobId>,
    pub(super) counters: Counters,
    violation: Option<String>,
}

fn sum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

fn state_sum(state: &State) -> (usize, u32) {
    let bytes = state.to_snapshot();
    (bytes.len(), sum(&bytes))
}

impl Audit {
    /// The first broken promise.
    pub(super) fn violation(&mut self) -> Option<String> {
        self.violation.take()
    }

    pub(super) fn violate(&mut self, promise: &str, what: impl AsRef<str>) {
        if self.violation.is_none() {
            self.violation = Some(format!("{promise}: {}", what.as_ref()));
        }
    }

    /// The committed state, as far as anybody has applied it.
    pub(super) fn latest(&self) -> Option<Arc<State>> {
        self.latest.clone()
    }

    pub(super) fn index(&self) -> u64 {
        self.latest.as_ref().map_or(0, |s| s.applied_index)
    }

    fn applied(&mut self, index: u64, payload: &[u8], state: &State, applied: &Applied) {
        if let Some((known, _)) = self.history.get(&index) {
            if *known != sum(payload) {
                self.violate("committed_entries_never_change", format!("entry {index} is another one on this replica"));
            }
            self.equal_index_means_equal_state(state);
            return;
        }
        if index < self.index() {
            return self.violate("committed_entries_never_change", format!("entry {index} appears after entry {}", self.index()));
        }
        let before = self.latest.clone().unwrap_or_else(|| Arc::new(State::new(&state.cluster)));
        let after = Arc::new(state.clone());
        self.history.insert(index, (sum(payload), state_sum(state)));
        self.recent.push_back((index, after.clone()));
        if self.recent.len() > KEPT_STATES {
            self.recent.pop_front();
        }
        self.latest = Some(after.clone());
        match EntryBody::decode(payload) {
            Ok(body) => {
                if let Err(what) = self.judge(index, &before, &after, &body.commands, applied) {
                    self.violate(what.0, format!("entry {index}: {}", what.1));
                }
            }
            Err(e) => self.violate("entries_decode", e.to_string()),
        }
    }

    /// A replica starts from a snapshot, its own or the leader's.
    fn restored(&mut self, state: &State) {
        self.counters.snapshots_restored += 1;
        if state.applied_index > 0 && state.applied_index <= self.index() {
            self.equal_index_means_equal_state(state);
        }
    }

    fn equal_index_means_equal_state(&mut self, state: &State) {
        let index = state.applied_index;
        let first = self.recent.front().map_or(u64::MAX, |(i, _)| *i);
        let equal = if index >= first {
            self.recent.binary_search_by_key(&index, |(i, _)| *i).is_ok_and(|at| *self.recent[at].1 == *state)
        } else {
            self.history.get(&index).is_some_and(|(_, known)| *known == state_sum(state))
        };
        if !equal {
            self.violate("equal_index_means_equal_state", format!("two replicas differ after entry {index}"));
        }
    }

    fn judge(
        &mut self,
        index: u64,
        before: &State,
        after: &State,
        commands: &[Command],
        applied: &Applied,
    ) -> Result<(), (&'static str, String)> {
        let core = |result: Result<(), String>| result.map_err(|e| ("core", e));
        core(invariants::check_cheap(after))?;
        core(invariants::moves_only_forward(before, after))?;
        if index.is_multiple_of(SNAPSHOT_CHECK_EVERY) {
            core(invariants::snapshot_restores_the_same_state(after))?;
        }
        let entry = Entry { index, before, after, commands };
        self.lease_ids_are_never_reused(&entry)?;
        self.each_task_is_accepted_once_by_a_live_lease(&entry)?;
        leases_end_only_for_a_reason(&entry)?;
        tallies_count_each_task_once(after)?;
        self.acknowledged_requests_are_kept(after)?;
        self.count(&entry, applied);
        Ok(())
    }

    /// Counts what happened, and remembers which reports are in the log.
    fn count(&mut self, entry: &Entry<'_>, applied: &Applied) {
        let counters = &mut self.counters;
        counters.entries += 1;
        for command in entry.commands {
            if let Some(Do::ReportResults(reports)) = &command.command {
                for report in &reports.reports {
                    self.reported.insert((reports.worker, report.lease.unwrap_or_default().into(), report.sequence));
                }
            }
        }
        for event in &applied.events {
            match event {
                Event::Invalidated { .. } => counters.generations_invalidated += 1,
                Event::WorkerLost { .. } => counters.workers_lost += 1,
                Event::TaskFailed { .. } => counters.failed_attempts += 1,
                Event::JobEnded { .. } => counters.jobs_ended += 1,
                Event::SetAside { .. } => counters.tasks_set_aside += 1,
                Event::Quarantined { .. } => counters.quarantines += 1,
                _ => {}
            }
        }
        for outcome in &applied.outcomes {
            match outcome {
                Outcome::Granted { stale, .. } => counters.stale_placements += u64::from(*stale),
                Outcome::Submitted { existing: true, .. } => counters.repeated_submits += 1,
                _ => {}
            }
        }
        let fenced = |state: &State| state.jobs.values().flat_map(|j| &j.stages).map(|s| s.fenced).sum::<u64>();
        counters.fenced_results += fenced(entry.after).saturating_sub(fenced(entry.before));
        let won = |state: &State| state.jobs.values().flat_map(|j| &j.stages).map(|s| s.speculative_wins).sum::<u64>();
        counters.speculative_wins += won(entry.after).saturating_sub(won(entry.before));
    }

    fn lease_ids_are_never_reused(&mut self, entry: &Entry<'_>) -> Result<(), (&'static str, String)> {
        const NAME: &str = "lease_ids_are_never_reused";
        for (id, lease) in &entry.after.leases {
            if entry.before.leases.contains_key(id) {
                continue;
            }
            if id.index != entry.index {
                return Err((NAME, format!("lease {id} appears in another entry than the one in its name")));
            }
            if self.granted.insert(*id, lease.worker).is_some() {
                return Err((NAME, format!("lease {id} was granted before")));
            }
        }
        let granted = |c: &Command| matches!(&c.command, Some(Do::GrantLeases(_)));
        if !entry.commands.iter().any(granted) && entry.after.leases.keys().any(|id| !entry.before.leases.contains_key(id)) {
            return Err((NAME, "a lease appears in an entry that grants none".into()));
        }
        Ok(())
    }

    /// A task becomes accepted only by a result that its executor computed under a lease that was live, and once in a generation; it
    /// leaves that state only with a new generation. A task is leased only when it was ready or its lease ended in the same entry.
    fn each_task_is_accepted_once_by_a_live_lease(&mut self, entry: &Entry<'_>) -> Result<(), (&'static str, String)> {
        for (id, job) in &entry.after.jobs {
            let earlier = entry.before.jobs.get(id);
            if earlier.is_some_and(|j| j.phase.ended_at().is_some()) {
                continue;
            }
            for (number, stage) in job.stages.iter().enumerate() {
                let old_stage = earlier.map(|j| &j.stages[number]);
                for (range, new) in stage.tasks().iter() {
                    let whole = vec![(range, TaskState::Ready)];
                    let olds = old_stage.map_or(whole, |s| s.tasks().overlapping(range).collect());
                    for (part, old) in olds.into_iter().filter(|(_, old)| *old != new) {
                        let grown = old_stage.is_some_and(|s| s.generation < stage.generation);
                        self.task_moves_along_the_diagram(entry, (*id, number as u32), part, old, new, grown)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn task_moves_along_the_diagram(
        &mut self,
        entry: &Entry<'_>,
        (job, stage): (JobId, u32),
        tasks: TaskRange,
        old: TaskState,
        new: TaskState,
        new_generation: bool,
    ) -> Result<(), (&'static str, String)> {
        const NAME: &str = "tasks_move_along_the_diagram";
        let wrong = |name, why: &str| Err((name, format!("job {job} stage {stage} tasks {tasks:?}: {old:?} -> {new:?}: {why}")));
        // Its shuffle data has one place less, or one more.
        if let (TaskState::Accepted { generation: was, .. }, TaskState::Accepted { generation: is, .. }) = (old, new)
            && was == is
        {
            return Ok(());
        }
        if matches!(old, TaskState::Accepted { .. }) && !new_generation {
            return wrong(NAME, "an accepted result is gone within its generation");
        }
        match new {
            TaskState::Accepted { generation, .. } => {
                for task in tasks.first..tasks.end {
                    let Some(by) = entry.reporter(job, stage, task) else {
                        return wrong("accepted_results_come_from_live_leases", "no live lease reported it");
                    };
                    if !self.computed.contains(&(by, task)) {
                        return wrong("accepted_results_were_computed", &format!("task {task} was never computed under lease {by}"));
                    }
                    if !self.accepted.insert((job, stage, generation, task)) {
                        return wrong("each_task_is_accepted_once", &format!("task {task} was accepted in generation {generation} before"));
                    }
                    self.counters.accepted_tasks += 1;
                }
            }
            // The other one of two leases has ended or failed.
            TaskState::Leased(id) if old.is_held_by(id) => {}
            TaskState::Raced { first, second } => {
                let worker = |id: &LeaseId| entry.after.leases.get(id).map(|l| l.worker);
                if worker(&first).is_none() || worker(&second).is_none() || worker(&first) == worker(&second) {
                    return wrong("two_holders_are_on_two_workers", "they are not");
                }
                if second.index != entry.index || !entry.after.leases.get(&second).is_some_and(|l| l.speculative) {
                    return wrong(NAME, "the second lease is not a new speculative one");
                }
            }
            TaskState::SetAside => {}
            TaskState::Leased(id) => {
                if id.index != entry.index {
                    return wrong(NAME, "a lease from an earlier entry takes it");
                }
                if let TaskState::Leased(other) = old
                    && entry.after.leases.contains_key(&other)
                    && !entry.reports_failure(other)
                {
                    return wrong("a_task_has_one_holder", &format!("lease {other} still holds it"));
                }
            }
            TaskState::Ready | TaskState::Waiting(_) => {
                if let TaskState::Leased(id) = old
                    && entry.after.leases.contains_key(&id)
                    && !entry.reports_failure(id)
                {
                    return wrong(NAME, "its lease lives and reported no failure");
                }
            }
        }
        Ok(())
    }

    fn acknowledged_requests_are_kept(&self, state: &State) -> Result<(), (&'static str, String)> {
        const NAME: &str = "acknowledged_requests_are_kept";
        for (key, job) in &self.submitted {
            match state.jobs.get(job) {
                Some(found) if found.idempotency_key == *key => {}
                _ => return Err((NAME, format!("job {job}, acknowledged for key {key}, is gone"))),
            }
        }
        for job in &self.cancelled {
            if state.jobs.get(job).is_none_or(|j| j.phase.ended_at().is_none()) {
                return Err((NAME, format!("job {job} was acknowledged as cancelled and runs")));
            }
        }
        Ok(())
    }

    /// A replica begins to lead: nothing acknowledged may be missing.
    pub(super) fn leader_begins(&mut self, id: u64, state: &State) {
        if let Err((name, what)) = self.acknowledged_requests_are_kept(state) {
            self.violate(name, format!("replica {id} begins to lead: {what}"));
        }
    }

    pub(super) fn computed(&mut self, lease: LeaseId, task: u64) {
        self.computed.insert((lease, task));
    }

    pub(super) fn lease_starts(&mut self, worker: u64, lease: LeaseId) {
        if self.granted.get(&lease) != Some(&WorkerId(worker)) {
            self.violate("grants_are_sent_after_they_are_committed", format!("worker {worker} starts lease {lease}"));
        }
    }

    pub(super) fn report_acknowledged(&mut self, worker: u64, lease: LeaseId, sequence: u64) {
        if !self.reported.contains(&(worker, lease, sequence)) {
            let what = format!("worker {worker} may forget report {sequence} of lease {lease}");
            self.violate("reports_are_acknowledged_after_they_are_committed", what);
        }
    }

    pub(super) fn submit_acknowledged(&mut self, key: &str, job: JobId) {
        let known = self.latest.as_ref().and_then(|s| s.jobs.get(&job)).is_some_and(|j| j.idempotency_key == key);
        if !known {
            self.violate("submits_are_acknowledged_after_they_are_committed", format!("job {job} for key {key}"));
        }
        if let Some(earlier) = self.submitted.insert(key.to_owned(), job).filter(|earlier| *earlier != job) {
            self.violate("a_key_makes_one_job", format!("key {key} made job {earlier} and job {job}"));
        }
    }

    pub(super) fn cancel_acknowledged(&mut self, job: JobId) {
        self.cancelled.insert(job);
        if let Some(state) = self.latest()
            && let Err((name, what)) = self.acknowledged_requests_are_kept(&state)
        {
            self.violate(name, what);
        }
    }

    /// A worker is told to make an output visible.
    pub(super) fn publishes(&mut self, job: JobId, parts: usize) {
        let latest = self.latest();
        let Some(found) = latest.as_ref().and_then(|s| s.jobs.get(&job)) else {
            return self.violate("publishing_follows_the_decision", format!("there is no job {job}"));
        };
        if !matches!(found.phase, Phase::Publishing | Phase::Done { .. } | Phase::Failed { .. }) {
            self.violate("publishing_follows_the_decision", format!("job {job} is {:?}", found.phase));
        } else if found.stages.last().is_some_and(|s| s.tasks().len() != parts as u64) {
            self.violate("publishing_is_of_every_part", format!("job {job} with {parts} parts"));
        }
        self.counters.publishes += 1;
    }
}

/// One entry, and the states around it.
struct Entry<'a> {
    index: u64,
    before: &'a State,
    after: &'a State,
    commands: &'a [Command],
}

impl Entry<'_> {
    fn reports(&self) -> impl Iterator<Item = (u64, &raftwerk_proto::v1::Report)> {
        self.commands
            .iter()
            .filter_map(|c| match &c.command {
                Some(Do::ReportResults(r)) => Some(r.reports.iter().map(|report| (r.worker, report))),
                _ => None,
            })
            .flatten()
    }

    /// The live lease under which this entry reports a result of the task.
    fn reporter(&self, job: JobId, stage: u32, task: u64) -> Option<LeaseId> {
        self.reports().find_map(|(worker, report)| {
            let id = LeaseId::from(report.lease?);
            let lease = self.before.leases.get(&id)?;
            let holds = lease.worker.0 == worker && (lease.job, lease.stage) == (job, stage);
            let says = report.results.iter().any(|r| r.first_task <= task && task - r.first_task < r.task_count);
            (holds && says && lease.tasks.first <= task && task < lease.tasks.end).then_some(id)
        })
    }

    /// All that the lease still held has another's result now.
    fn is_beaten(&self, id: LeaseId, lease: &raftwerk_core::Lease) -> bool {
        let stage = |state: &State| state.jobs.get(&lease.job).and_then(|j| j.stages.get(lease.stage as usize)).cloned();
        let (Some(before), Some(after)) = (stage(self.before), stage(self.after)) else { return false };
        let settled = |range: TaskRange| after.all(range, |s| !s.is_held_by(id) && !matches!(s, TaskState::Ready | TaskState::Waiting(_)));
        before.held_by(lease.tasks, id).into_iter().all(|(range, _)| settled(range))
    }

    fn reports_failure(&self, id: LeaseId) -> bool {
        self.reports().any(|(_, r)| r.lease.map(LeaseId::from) == Some(id) && !r.failures.is_empty())
    }
}

fn leases_end_only_for_a_reason(entry: &Entry<'_>) -> Result<(), (&'static str, String)> {
    for (id, lease) in entry.before.leases.iter().filter(|(id, _)| !entry.after.leases.contains_key(id)) {
        let final_report = entry.reports().any(|(_, r)| r.final_report && r.lease.map(LeaseId::from) == Some(*id));
        let job_over = entry.after.jobs.get(&lease.job).is_none_or(|j| j.phase != Phase::Running);
        let command = entry.commands.iter().any(|c| match &c.command {
            Some(Do::EndLeases(end)) => end.leases.iter().any(|l| LeaseId::from(*l) == *id),
            Some(Do::LoseWorker(lose)) => lose.worker == lease.worker.0 && lose.session == lease.session.0,
            Some(Do::RegisterWorker(register)) => register.worker == lease.worker.0,
            _ => false,
        });
        // Another lease has brought home what both held.
        let beaten = entry.is_beaten(*id, lease);
        if !(final_report || job_over || command || beaten) {
            return Err(("leases_end_only_for_a_reason", format!("lease {id} of worker {} is gone", lease.worker)));
        }
    }
    Ok(())
}

/// A task's tally in the simulation: not zero, so that task 0 counts too.
pub(super) fn value_of(task: u64) -> u64 {
    task + 1
}

fn tallies_count_each_task_once(state: &State) -> Result<(), (&'static str, String)> {
    let total = |range: TaskRange| (range.first..range.end).map(|t| u128::from(value_of(t))).sum::<u128>();
    for job in state.active_jobs() {
        for (index, stage) in job.stages.iter().enumerate().filter(|(_, s)| !s.tallies.is_empty()) {
            let mut expected = 0;
            for (range, task) in stage.tasks().iter() {
                expected += match task {
                    TaskState::Accepted { .. } => total(range),
                    // Tallied before its shuffle data was lost.
                    _ => stage.counted.overlapping(range).filter(|(_, counted)| *counted).map(|(part, _)| total(part)).sum(),
                };
            }
            if stage.tallies[0] != expected {
                let what = format!("job {} stage {index}: {} instead of {expected}", job.id, stage.tallies[0]);
                return Err(("tallies_count_each_task_once", what));
            }
        }
    }
    Ok(())
}

/// Forgets the last simulation of this thread.
pub(super) fn begin() {
    audit(|a| *a = Audit::default());
}
