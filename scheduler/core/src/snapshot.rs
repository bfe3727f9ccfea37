//! The state as versioned protobuf, and back. What is derived is not stored.

use crate::apply::ApplyError;
use crate::ids::{JobId, LeaseId, Session, TaskRange, Timestamp, WorkerId};
use crate::interval_map::IntervalMap;
use crate::job::{Job, Phase};
use crate::lease::Lease;
use crate::stage::{Stage, TaskState};
use crate::state::{State, Submission};
use crate::view::{job_state, tally_totals};
use crate::worker::Worker;
use prost::Message;
use raftwerk_proto::v1::{self as wire, task_interval};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Format that this code writes, and the newest it reads.
pub const SNAPSHOT_FORMAT: u32 = 1;

impl State {
    /// Equal applied index means equal bytes on every replica.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let snapshot = wire::Snapshot {
            format: SNAPSHOT_FORMAT,
            cluster: self.cluster.clone(),
            epoch: self.epoch,
            applied_index: self.applied_index,
            now_ms: self.now.0,
            next_job: self.next_job,
            next_id: self.next_id,
            jobs: self.jobs.values().map(job_record).collect(),
            workers: self
                .workers
                .iter()
                .map(|(id, w)| wire::WorkerRecord { worker: id.0, session: w.session.0, hello: Some(w.hello.clone()), lost: w.lost })
                .collect(),
            leases: self.leases.iter().map(|(id, lease)| lease_record(*id, lease)).collect(),
            idempotency: self
                .idempotency
                .iter()
                .map(|((namespace, key), s)| wire::IdempotencyRecord {
                    namespace: namespace.clone(),
                    key: key.clone(),
                    job: s.job.0,
                    payload_sha256: s.payload_sha256.clone().into(),
                })
                .collect(),
        };
        snapshot.encode_to_vec()
    }

    /// Refuses what it does not know or what does not fit together; never guesses.
    pub fn from_snapshot(cluster: &str, bytes: &[u8]) -> Result<State, ApplyError> {
        let damaged = |what: &str| ApplyError::Snapshot(what.to_string());
        let snapshot = wire::Snapshot::decode(bytes).map_err(|e| ApplyError::Snapshot(e.to_string()))?;
        if snapshot.format == 0 || snapshot.format > SNAPSHOT_FORMAT {
            return Err(ApplyError::Snapshot(format!("format {} is unknown; this build reads up to {SNAPSHOT_FORMAT}", snapshot.format)));
        }
        if snapshot.cluster != cluster {
            return Err(ApplyError::Snapshot(format!("it belongs to cluster {}, not to {cluster}", snapshot.cluster)));
        }
        let mut state = State::new(cluster);
        state.epoch = snapshot.epoch;
        state.applied_index = snapshot.applied_index;
        state.now = Timestamp(snapshot.now_ms);
        state.next_job = snapshot.next_job;
        state.next_id = snapshot.next_id;
        for record in snapshot.jobs {
            let job = job_from(record).ok_or_else(|| damaged("a job record does not fit together"))?;
            state.jobs.insert(job.id, job);
        }
        for record in snapshot.workers {
            let hello = record.hello.ok_or_else(|| damaged("a worker record has no registration"))?;
            state.workers.insert(WorkerId(record.worker), Worker { session: Session(record.session), hello, lost: record.lost });
        }
        for record in snapshot.leases {
            let (id, lease) = lease_from(record).ok_or_else(|| damaged("a lease record does not fit together"))?;
            state.leases.insert(id, lease);
        }
        for record in snapshot.idempotency {
            let submission = Submission { job: JobId(record.job), payload_sha256: record.payload_sha256.to_vec() };
            state.idempotency.insert((record.namespace, record.key), submission);
        }
        state.derive();
        Ok(state)
    }

    /// SHA-256 of the snapshot bytes, in hexadecimal.
    pub fn hash(&self) -> String {
        Sha256::digest(self.to_snapshot()).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

fn job_record(job: &Job) -> wire::JobRecord {
    wire::JobRecord {
        job: job.id.0,
        spec: Some(job.spec.clone()),
        state: job_state(&job.phase).into(),
        cause: match &job.phase {
            Phase::Failed { cause, .. } => cause.clone(),
            _ => String::new(),
        },
        submitted_at_ms: job.submitted_at.0,
        finished_at_ms: job.phase.ended_at().map_or(0, |t| t.0),
        idempotency_key: job.idempotency_key.clone(),
        stages: (0..job.stages.len()).map(|index| stage_record(job, index)).collect(),
        parts: job.parts.values().cloned().collect(),
        shares: job.shares.values().cloned().collect(),
        excluded_workers: job.excluded.iter().map(|w| w.0).collect(),
        excluded_devices: job.excluded_devices.iter().map(|(w, d)| wire::ExcludedDevice { worker: w.0, device: *d }).collect(),
        source_failures: job.source_failures.iter().map(|(w, n)| wire::SourceFailures { worker: w.0, count: *n }).collect(),
    }
}

fn job_from(record: wire::JobRecord) -> Option<Job> {
    let spec = record.spec?;
    let at = Timestamp(record.finished_at_ms);
    let phase = match wire::JobState::try_from(record.state).ok()? {
        wire::JobState::Running => Phase::Running,
        wire::JobState::Publishing => Phase::Publishing,
        wire::JobState::Done => Phase::Done { at },
        wire::JobState::Failed => Phase::Failed { at, cause: record.cause },
        wire::JobState::Cancelled => Phase::Cancelled { at },
        wire::JobState::Unspecified => return None,
    };
    if record.stages.len() != spec.stages.len() {
        return None;
    }
    let stage_index = |name: &str| spec.stages.iter().position(|s| s.name == name);
    let mut shares = std::collections::BTreeMap::new();
    for share in record.shares {
        let stage = stage_index(&share.stage)? as u32;
        shares.insert((stage, WorkerId(share.worker), share.device), share);
    }
    let mut stages = Vec::with_capacity(record.stages.len());
    for stage in record.stages {
        stages.push(stage_from(stage)?);
    }
    Some(Job {
        id: JobId(record.job),
        idempotency_key: record.idempotency_key,
        phase,
        submitted_at: Timestamp(record.submitted_at_ms),
        stages,
        parts: record.parts.into_iter().map(|p| (p.partition, p)).collect(),
        shares,
        excluded: record.excluded_workers.into_iter().map(WorkerId).collect(),
        excluded_devices: record.excluded_devices.into_iter().map(|e| (WorkerId(e.worker), e.device)).collect(),
        source_failures: record.source_failures.into_iter().map(|s| (WorkerId(s.worker), s.count)).collect(),
        spec,
    })
}

fn stage_record(job: &Job, index: usize) -> wire::StageRecord {
    let stage = &job.stages[index];
    wire::StageRecord {
        tasks: stage.tasks().len(),
        generation: stage.generation,
        open: stage.open,
        intervals: stage
            .tasks()
            .iter()
            .map(|(range, state)| wire::TaskInterval {
                first_task: range.first,
                task_count: range.count(),
                state: Some(match state {
                    TaskState::Ready => task_interval::State::Ready(true),
                    TaskState::Leased(id) => task_interval::State::Leased(id.into()),
                    TaskState::Accepted { worker, generation } => {
                        task_interval::State::Accepted(wire::AcceptedBy { worker: worker.0, generation })
                    }
                }),
            })
            .collect(),
        attempts: stage.attempts.iter().map(|(task, charged)| wire::TaskAttempts { task: *task, charged: *charged }).collect(),
        tallies: tally_totals(job, index),
        failed_attempts: stage.failed_attempts,
        leases: stage.leases,
        fenced: stage.fenced,
        counted: stage
            .counted
            .iter()
            .filter(|(_, counted)| *counted)
            .map(|(range, _)| wire::TaskSpan { first_task: range.first, task_count: range.count() })
            .collect(),
    }
}

fn stage_from(record: wire::StageRecord) -> Option<Stage> {
    let mut parts = Vec::with_capacity(record.intervals.len());
    for interval in record.intervals {
        let range = TaskRange::new(interval.first_task, interval.task_count)?;
        let state = match interval.state? {
            task_interval::State::Ready(_) => TaskState::Ready,
            task_interval::State::Leased(id) => TaskState::Leased(id.into()),
            task_interval::State::Accepted(by) => TaskState::Accepted { worker: WorkerId(by.worker), generation: by.generation },
        };
        parts.push((range, state));
    }
    let mut stage = Stage::from_parts(IntervalMap::from_intervals(record.tasks, parts)?, record.tallies.len());
    stage.generation = record.generation;
    stage.open = record.open;
    stage.attempts = record.attempts.into_iter().map(|a| (a.task, a.charged)).collect();
    stage.tallies = record.tallies.iter().map(|t| u128::from(t.low) | (u128::from(t.high) << 64)).collect();
    stage.failed_attempts = record.failed_attempts;
    stage.leases = record.leases;
    stage.fenced = record.fenced;
    for span in record.counted {
        let range = TaskRange::new(span.first_task, span.task_count)?;
        if range.end > record.tasks {
            return None;
        }
        stage.counted.set(range, true);
    }
    Some(stage)
}

fn lease_record(id: LeaseId, lease: &Lease) -> wire::LeaseRecord {
    wire::LeaseRecord {
        lease: Some(id.into()),
        job: lease.job.0,
        stage: lease.stage,
        generation: lease.generation,
        first_task: lease.tasks.first,
        task_count: lease.tasks.count(),
        worker: lease.worker.0,
        session: lease.session.0,
        device: lease.device,
        granted_at_ms: lease.granted_at.0,
        amount: Some(lease.amount),
    }
}

fn lease_from(record: wire::LeaseRecord) -> Option<(LeaseId, Lease)> {
    let lease = Lease {
        job: JobId(record.job),
        stage: record.stage,
        generation: record.generation,
        tasks: TaskRange::new(record.first_task, record.task_count)?,
        worker: WorkerId(record.worker),
        session: Session(record.session),
        device: record.device,
        granted_at: Timestamp(record.granted_at_ms),
        amount: record.amount.unwrap_or_default(),
    };
    Some((record.lease?.into(), lease))
}
