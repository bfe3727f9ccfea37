//! `apply`: one arm per command, one function per arm. The same state and entry give the same result on every replica.

pub(crate) mod after;
mod costs;
mod epoch;
mod failure;
mod gang;
mod grant;
mod jobs;
mod namespaces;
mod remake;
mod report;
mod retention;
mod rounds;
mod workers;

pub use retention::is_old;

use crate::ids::{JobId, LeaseId, Session, TaskRange, Timestamp, WorkerId};
use crate::job::Phase;
use crate::lease::Lease;
use crate::state::State;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{EntryBody, command::Command};

/// Newest format of [`EntryBody`] that this code writes and reads. It writes it once every replica reads it, and [`UNMARKED_FORMAT`] until then.
///
/// | format | rules |
/// |---|---|
/// | 1 | failed tasks are ready at once; used-up attempts fail the job |
/// | 2 | pauses, suspicion, setting aside, quarantine; speculative leases; names of stages are distinct; two places of shuffle data; decided parts that are lost are made again |
/// | 3 | the state remembers the newest format of its log; workers can be drained; second leases that end undecided are not counted; first in which a leader writes of results on workers, copies made again and full workers |
/// | 4 | a job names the policy by which its tasks are placed; costs are learnt from reports and can be imported; specs carry footprint and memory; a device that runs out of memory gets smaller leases; priorities; namespaces have terms, and what they and their jobs have had is counted; specs may have side inputs, reproducible stages and bounded kernels; of the latter it is recorded which device ran which tasks; jobs may have rounds; workers have labels, stages require and prefer devices, and begin as gangs on devices that are held for them; inputs may be tables; keepers of parts say what they have no more; tasks say what they have read and made, and inputs how many records may be bad; why attempts failed is kept |
///
/// An entry keeps the rules of its own format for ever: a replica that replays it must come to the state of one that applied it long ago.
///
/// What builds of an older format would drop in silence needs a new one: a command, but also a field in anything that is logged.
pub const ENTRY_FORMAT: u32 = 4;
/// The last format that the state does not remember, and that every build of the oldest supported protocol reads.
pub const UNMARKED_FORMAT: u32 = 2;
/// First format under which failures follow the rules of `failure`.
const OWN_RULES: u32 = 2;
/// First format under which workers can be drained.
pub const DRAINING: u32 = 3;
/// The former release knows neither results on workers, nor copies that are made again, nor workers that are full: a leader does not write of
/// them before this format.
pub const KEPT_DATA: u32 = 3;
/// First format under which costs are learnt, and whose specs and failures say what placement by cost needs.
pub const LEARNING: u32 = 4;
/// First format under which second leases that end undecided are not counted any more.
pub(crate) const COPIES_GIVEN_BACK: u32 = 3;
/// First format under which a keeper of a part can say that it has it no more.
pub const KEPT_LOSSES: u32 = 4;
/// First format under which jobs have priorities and namespaces shares.
pub const SHARES: u32 = 4;
/// First format under which tasks say what they have read and made.
pub(crate) const COUNTING: u32 = 4;
/// First format under which it is kept why attempts failed.
pub(crate) const REASONS: u32 = 4;
/// First format under which workers have labels, and stages require and prefer devices and begin as gangs.
pub const MATCHING: u32 = 4;

/// The log holds something this code does not know. The node must stop: to skip it would make replicas differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("log entry {index} has format {found}, this build reads up to {ENTRY_FORMAT}; start a build that knows it")]
    Format { index: u64, found: u32 },
    #[error("log entry {index}: command {position} is unknown to this build; start a build that knows it")]
    UnknownCommand { index: u64, position: usize },
    #[error("log entry {index} cannot be decoded: {reason}")]
    Undecodable { index: u64, reason: String },
    #[error("snapshot: {0}")]
    Snapshot(String),
}

/// What one entry did: an outcome per command, and the events in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    pub index: u64,
    pub outcomes: Vec<Outcome>,
    pub events: Vec<Event>,
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Submitted {
        job: JobId,
        existing: bool,
    },
    /// The key belongs to this job, which was submitted with another payload.
    IdempotencyConflict {
        job: JobId,
    },
    Refused(String),
    /// It names something that there is not, or not any more.
    NotFound(String),
    /// It is well as it stands, but the state is not one in which it is possible.
    Precondition(String),
    /// There is no room for it now; the same may be possible later.
    Full(String),
    Cancelled {
        job: JobId,
    },
    Registered {
        worker: WorkerId,
        session: Session,
    },
    /// Leases granted, and how many placements were stale.
    Granted {
        leases: Vec<LeaseId>,
        stale: u32,
    },
    Reported,
    Minted(u64),
    Done,
}

/// Past facts that the leader turns into effects.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Results of these tasks were taken from the lease.
    Accepted {
        lease: LeaseId,
        job: JobId,
        stage: u32,
        tasks: Vec<TaskRange>,
    },
    /// The lease ended otherwise than by its own final report.
    LeaseEnded {
        id: LeaseId,
        lease: Lease,
    },
    WorkerLost {
        worker: WorkerId,
    },
    /// All parts are prepared and the decision to publish is in the log.
    PublishDecided {
        job: JobId,
    },
    JobEnded {
        job: JobId,
    },
    /// Accepted shuffle data is gone; so many tasks run again.
    Invalidated {
        job: JobId,
        worker: WorkerId,
        tasks: u64,
    },
    /// A holder of shuffle data is gone; so many tasks have it at one other place still.
    CopiesLeft {
        job: JobId,
        worker: WorkerId,
        tasks: u64,
    },
    /// Decided parts are lost for good; the job runs again to make them.
    PartsLost {
        job: JobId,
        parts: u64,
    },
    /// Nobody needs what workers keep of the job's result any more.
    ResultDropped {
        job: JobId,
    },
    /// The reduce task of a round was accepted. Unless it was the last, all leases of the job have ended and the next round begins.
    RoundEnded {
        job: JobId,
        round: u32,
        last: bool,
    },
    TaskFailed {
        job: JobId,
        stage: u32,
        task: u64,
        message: String,
    },
    /// The task, and perhaps the ones after it, will not be tried again.
    SetAside {
        job: JobId,
        stage: u32,
        task: u64,
        message: String,
    },
    /// So many devices were held for a gang that was not complete in time.
    HoldRanOut {
        job: JobId,
        stage: u32,
        held: usize,
    },
    /// The worker, or one device of it, gets no work until then.
    Quarantined {
        worker: WorkerId,
        device: Option<u32>,
        until: Timestamp,
        reason: String,
    },
}

/// Finished jobs beyond this number are forgotten once they are a day old.
pub const RETAINED_JOBS: usize = 10_000;
/// An idempotency key answers for at least this long.
pub const RETENTION_MS: u64 = 24 * 60 * 60 * 1000;

impl State {
    /// Applies one committed entry.
    pub fn apply(&mut self, index: u64, body: EntryBody) -> Result<Applied, ApplyError> {
        if body.format == 0 || body.format > ENTRY_FORMAT {
            return Err(ApplyError::Format { index, found: body.format });
        }
        // An older leader's slower clock must not turn time back.
        self.now = if planted::on(Bug::TimeGoesBack) { Timestamp(body.at_ms) } else { self.now.max(Timestamp(body.at_ms)) };
        self.applied_index = index;
        self.log_format = self.log_format.max(body.format);
        let mut entry = Entry {
            index,
            format: body.format,
            next_lease: 0,
            jobs_by_command: Vec::new(),
            applied: Applied { index, ..Applied::default() },
        };
        for (position, command) in body.commands.into_iter().enumerate() {
            let command = command.command.ok_or(ApplyError::UnknownCommand { index, position })?;
            let mut submitted = None;
            let outcome = match command {
                Command::SubmitJob(c) => {
                    let outcome = self.submit_job(c, &mut entry);
                    if let Outcome::Submitted { job, existing: false } = outcome {
                        submitted = Some(job);
                    }
                    outcome
                }
                Command::CancelJob(c) => self.cancel_job(JobId(c.job), &mut entry),
                Command::RegisterWorker(c) => self.register_worker(c, &mut entry),
                Command::GrantLeases(c) => self.grant_leases(c, &mut entry),
                Command::ReportResults(c) => self.report_results(c, &mut entry),
                Command::EndLeases(c) => self.end_leases(c, &mut entry),
                Command::LoseWorker(c) => self.lose_worker(WorkerId(c.worker), Session(c.session), &mut entry),
                Command::FinishPublish(c) => self.finish_publish(JobId(c.job), &c.error, &mut entry),
                Command::MintId(_) => {
                    self.next_id += 1;
                    Outcome::Minted(self.next_id - 1)
                }
                Command::RemakeParts(c) => self.remake_parts(&c, &mut entry),
                Command::RecordCopies(c) => self.record_copies(&c),
                Command::RecordKept(c) => self.record_kept(&c),
                Command::LoseKept(c) => self.lose_kept(&c, entry.format),
                Command::DropResult(c) => {
                    let outcome = self.drop_result(&c);
                    if outcome == Outcome::Done {
                        entry.applied.events.push(Event::ResultDropped { job: JobId(c.job) });
                    }
                    outcome
                }
                Command::FailJob(c) => self.fail_job_command(JobId(c.job), c.cause, &mut entry),
                Command::Forget(c) => self.forget(c, &mut entry),
                Command::EndQuarantine(c) => self.end_quarantine(WorkerId(c.worker)),
                Command::DrainWorker(c) => self.drain_worker(WorkerId(c.worker), &entry),
                Command::SetNamespace(c) => self.set_namespace(c, &entry),
                Command::ImportCosts(c) => self.import_costs(c, &entry),
                Command::HoldDevices(c) => self.hold_devices(&c, &entry),
                Command::ReleaseHold(c) => self.release_hold(&c, &mut entry),
                Command::StartGang(c) => self.start_gang(c, &mut entry),
                Command::RemoveReplica(c) => {
                    self.removed_replicas.insert(c.replica);
                    Outcome::Done
                }
                Command::NewEpoch(c) => self.new_epoch(c, &mut entry),
            };
            entry.jobs_by_command.push(submitted);
            entry.applied.outcomes.push(outcome);
        }
        Ok(entry.applied)
    }

    /// Moves the job on after something changed, and says so when it is decided or ended.
    fn advance_job(&mut self, id: JobId, entry: &mut Entry) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.is_active() {
            return;
        }
        let before = job.phase.clone();
        job.advance(self.now);
        let phase = job.phase.clone();
        self.give_back_needless(id);
        if phase == before {
            return;
        }
        match phase {
            Phase::Publishing => {
                // A lease whose last task was accepted by a partial report has nothing left to do.
                self.end_leases_of(id, entry);
                entry.applied.events.push(Event::PublishDecided { job: id });
            }
            Phase::Running => {}
            Phase::Done { .. } | Phase::Failed { .. } | Phase::Cancelled { .. } => self.job_ended(id, entry),
        }
    }

    /// Puts a job into a final phase; final phases never change.
    fn end_job(&mut self, id: JobId, phase: Phase, entry: &mut Entry) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.is_active() {
            job.phase = phase;
            self.job_ended(id, entry);
        }
    }

    fn job_ended(&mut self, id: JobId, entry: &mut Entry) {
        self.settle_ended(id, entry);
        self.tell_followers(id, entry);
    }

    /// What the end of a job means for itself.
    pub(crate) fn settle_ended(&mut self, id: JobId, entry: &mut Entry) {
        self.active.remove(&id);
        self.waiting.remove(&id);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.waiting_for.clear();
        }
        self.end_leases_of(id, entry);
        self.give_back_needless(id);
        self.shed(id);
        entry.applied.events.push(Event::JobEnded { job: id });
    }

    fn end_leases_of(&mut self, job: JobId, entry: &mut Entry) {
        let held: Vec<LeaseId> = self.leases.iter().filter(|(_, l)| l.job == job).map(|(id, _)| *id).collect();
        for lease in held {
            self.end_lease(lease, entry);
        }
    }

    fn end_lease(&mut self, id: LeaseId, entry: &mut Entry) {
        if let Some(lease) = self.remove_lease(id) {
            entry.applied.events.push(Event::LeaseEnded { id, lease });
        }
    }
}

/// What the arms of one entry share.
pub(crate) struct Entry {
    index: u64,
    /// Of the entry: its rules.
    format: u32,
    /// Position of the next lease within this entry.
    next_lease: u32,
    /// The job that the command at this position made.
    jobs_by_command: Vec<Option<JobId>>,
    applied: Applied,
}
