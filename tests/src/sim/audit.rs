//! The auditor: sees every entry that any replica applies, keeps the one history they must all agree on, and judges it.
//!
//! It sits in the state machine itself ([`Watched`]), so no entry passes between two looks. Each promise is a function of its own; the
//! promises that one state can show by itself are in [`raftwerk_core::invariants`].

mod entry;
mod kept;
mod rounds;
mod tasks;

use super::counters::Counters;
use entry::{Entry, gangs_begin_on_all_their_devices, leases_end_only_for_a_reason};
use prost::Message;
use raftwerk_core::stage::{Stage, TaskState};
use raftwerk_core::{Applied, Event, JobId, LeaseId, Outcome, Phase, State, TaskRange, WorkerId, invariants};
use raftwerk_proto::v1::{Command, EntryBody, StageCounters, command::Command as Do};
use raftwerk_scheduler::machine::Replicated;
use raftwerk_scheduler::raft::{ApplyError, StateMachine};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// States kept for comparing replicas without encoding them. Of older ones every [`ENCODED_EVERY`]th is compared, by its checksum: a state
/// that differs goes on differing, so a replica that comes late is seen a few entries later.
const KEPT_STATES: usize = 128;
/// Encoding and decoding the whole state is the dearest check.
const ENCODED_EVERY: u64 = 8;

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

    fn is_removed(&self, replica: u64) -> bool {
        self.0.is_removed(replica)
    }
}

/// One accepted result: (job, stage, generation, task).
type Accepted = (JobId, u32, u32, u64);

#[derive(Default)]
pub(super) struct Audit {
    /// Checksums of payload and of the state after it, for every entry that somebody applied.
    history: BTreeMap<u64, (u32, Option<(usize, u32)>)>,
    recent: VecDeque<(u64, Arc<State>)>,
    latest: Option<Arc<State>>,
    granted: BTreeMap<LeaseId, WorkerId>,
    accepted: BTreeSet<Accepted>,
    /// What executors have really computed, and what came of it.
    computed: BTreeMap<(LeaseId, u64), u32>,
    reported: BTreeSet<(u64, LeaseId, u64)>,
    /// The round under way when a lease of a job with rounds was granted.
    granted_in: BTreeMap<LeaseId, u32>,
    /// Rounds that have ended.
    decided: BTreeSet<(JobId, u32)>,
    /// Jobs whose decision to publish was taken back for a lost part.
    taken_back: BTreeSet<JobId>,
    /// Workers that have had a part of a result on their disk: worker, job, staged name.
    had_parts: BTreeSet<(u64, u64, String)>,
    /// Acknowledged submits by key, and acknowledged cancels.
    submitted: BTreeMap<String, JobId>,
    cancelled: BTreeSet<JobId>,
    /// Jobs whose result somebody wants to drop, and those of which that was acknowledged.
    may_be_dropped: BTreeSet<JobId>,
    dropped: BTreeSet<JobId>,
    pub(super) counters: Counters,
    violation: Option<String>,
}

/// The promise that an entry breaks, and how.
type Verdict = Result<(), (&'static str, String)>;

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
        let encoded = index.is_multiple_of(ENCODED_EVERY).then(|| state_sum(state));
        self.history.insert(index, (sum(payload), encoded));
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
            self.history.get(&index).is_some_and(|(_, known)| known.is_none_or(|known| known == state_sum(state)))
        };
        if !equal {
            self.violate("equal_index_means_equal_state", format!("two replicas differ after entry {index}"));
        }
    }

    fn judge(&mut self, index: u64, before: &State, after: &State, commands: &[Command], applied: &Applied) -> Verdict {
        let core = |result: Result<(), String>| result.map_err(|e| ("core", e));
        core(invariants::check_cheap(after))?;
        core(invariants::moves_only_forward(before, after))?;
        if index.is_multiple_of(ENCODED_EVERY) {
            core(invariants::snapshot_restores_the_same_state(after))?;
        }
        let entry = Entry { index, before, after, commands };
        self.lease_ids_are_never_reused(&entry)?;
        self.rounds_are_decided_once(&entry)?;
        self.each_task_is_accepted_once_by_a_live_lease(&entry)?;
        leases_end_only_for_a_reason(&entry)?;
        gangs_begin_on_all_their_devices(&entry)?;
        leases_are_of_this_epoch(after)?;
        self.keepers_have_their_parts(&entry)?;
        tallies_count_each_task_once(after)?;
        counters_count_each_task_once(after)?;
        self.acknowledged_requests_are_kept(after)?;
        self.dropped_results_stay_dropped(after)?;
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
                Event::PartsLost { job, .. } => {
                    counters.parts_remade += 1;
                    self.taken_back.insert(*job);
                }
                Event::CopiesLeft { tasks, .. } => counters.copies_used += tasks,
                _ => {}
            }
        }
        for (command, outcome) in entry.commands.iter().zip(&applied.outcomes) {
            if let Outcome::Granted { stale, leases } = outcome {
                counters.stale_placements += u64::from(*stale);
                counters.gangs_begun += u64::from(matches!(command.command, Some(Do::StartGang(_))) && !leases.is_empty());
            }
        }
        counters.new_epochs += u64::from(entry.after.epoch - entry.before.epoch);
        let fenced = |state: &State| state.jobs.values().flat_map(|j| &j.stages).map(|s| s.fenced).sum::<u64>();
        counters.fenced_results += fenced(entry.after).saturating_sub(fenced(entry.before));
        for (id, job) in entry.after.jobs.iter().filter(|(_, job)| job.stages.len() > 2) {
            let made_again = entry.before.jobs.get(id).is_some_and(|before| before.stages[1].generation < job.stages[1].generation);
            counters.parts_made_again += u64::from(made_again);
        }
        let won = |state: &State| state.jobs.values().flat_map(|j| &j.stages).map(|s| s.speculative_wins).sum::<u64>();
        counters.speculative_wins += won(entry.after).saturating_sub(won(entry.before));
    }

    fn lease_ids_are_never_reused(&mut self, entry: &Entry<'_>) -> Verdict {
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
        let granted = |c: &Command| matches!(&c.command, Some(Do::GrantLeases(_) | Do::StartGang(_)));
        if !entry.commands.iter().any(granted) && entry.after.leases.keys().any(|id| !entry.before.leases.contains_key(id)) {
            return Err((NAME, "a lease appears in an entry that grants none".into()));
        }
        Ok(())
    }

    fn acknowledged_requests_are_kept(&self, state: &State) -> Verdict {
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
        let kept = self.acknowledged_requests_are_kept(state).and_then(|()| self.dropped_results_stay_dropped(state));
        if let Err((name, what)) = kept {
            self.violate(name, format!("replica {id} begins to lead: {what}"));
        }
    }

    pub(super) fn computed(&mut self, lease: LeaseId, task: u64, content: u32) {
        self.computed.insert((lease, task), content);
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
        // What was sent while the decision stood may come when it has been taken back: it names the parts of then, of which one is lost.
        let late = found.phase == Phase::Running && self.taken_back.contains(&job);
        if !late && !matches!(found.phase, Phase::Publishing | Phase::Done { .. } | Phase::Failed { .. }) {
            self.violate("publishing_follows_the_decision", format!("job {job} is {:?}", found.phase));
        } else if found.stages.last().is_some_and(|s| s.tasks().len() != parts as u64) {
            self.violate("publishing_is_of_every_part", format!("job {job} with {parts} parts"));
        }
        self.counters.publishes += 1;
    }
}

/// A task's tally in the simulation: not zero, so that task 0 counts too.
pub(super) fn value_of(task: u64) -> u64 {
    task + 1
}

fn tallies_count_each_task_once(state: &State) -> Verdict {
    let total = |range: TaskRange| (range.first..range.end).map(|t| u128::from(value_of(t))).sum::<u128>();
    for job in state.active_jobs() {
        for (index, stage) in job.stages.iter().enumerate().filter(|(_, s)| !s.tallies.is_empty()) {
            let expected: u128 = counted_tasks(stage).into_iter().map(total).sum();
            if stage.tallies[0] != expected {
                let what = format!("job {} stage {index}: {} instead of {expected}", job.id, stage.tallies[0]);
                return Err(("tallies_count_each_task_once", what));
            }
        }
    }
    Ok(())
}

/// Tasks that were accepted at least once in this round.
fn counted_tasks(stage: &Stage) -> Vec<TaskRange> {
    let mut tasks = Vec::new();
    for (range, task) in stage.tasks().iter() {
        match task {
            TaskState::Accepted { .. } => tasks.push(range),
            // Counted before its shuffle data was lost.
            _ => tasks.extend(stage.counted.overlapping(range).filter(|(_, counted)| *counted).map(|(part, _)| part)),
        }
    }
    tasks
}

/// Every task says that it has read as many records as its tally, and one byte.
fn counters_count_each_task_once(state: &State) -> Verdict {
    for job in state.active_jobs() {
        for (index, stage) in job.stages.iter().enumerate() {
            let tasks = counted_tasks(stage);
            let records: u64 = tasks.iter().flat_map(|range| range.first..range.end).map(value_of).sum();
            let expected =
                StageCounters { records_in: records, bytes_in: tasks.iter().map(|range| range.count()).sum(), ..StageCounters::default() };
            if stage.counters != expected {
                let what = format!("job {} stage {index}: {:?} instead of {expected:?}", job.id, stage.counters);
                return Err(("counters_count_each_task_once", what));
            }
        }
    }
    Ok(())
}

/// A forced recovery fences every lease of before.
fn leases_are_of_this_epoch(state: &State) -> Verdict {
    match state.leases.keys().find(|id| id.epoch != state.epoch) {
        Some(id) => Err(("leases_are_of_this_epoch", format!("lease {id} lives in epoch {}", state.epoch))),
        None => Ok(()),
    }
}

/// Forgets the last simulation of this thread.
pub(super) fn begin() {
    audit(|a| *a = Audit::default());
}
