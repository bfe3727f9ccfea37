//! The state as versioned protobuf, and back. What is derived is not stored.

use crate::apply::{ApplyError, UNMARKED_FORMAT};
use crate::cost::{CostModel, Speed, Spent, of_stage};
use crate::graph::{Graph, MAX_STAGES};
use crate::homes::Homes;
use crate::ids::{JobId, LeaseId, Session, TaskRange, Timestamp, WorkerId};
use crate::interval_map::IntervalMap;
use crate::job::{Job, Phase};
use crate::lease::Lease;
use crate::namespace::Namespace;
use crate::rounds::Rounds;
use crate::stage::{Stage, TaskState};
use crate::state::{State, Submission};
use crate::trouble::{Evidence, Standing, Suspicions};
use crate::view::{job_state, set_aside_records, tally_totals};
use crate::worker::Worker;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::Wire;
use raftwerk_proto::v1::{self as wire, task_interval};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Newest format that this code reads and writes. A state that format 1 can say is written in format 1, so that a log of format 1 gives
/// the same bytes, and the same state hash, with every build.
pub const SNAPSHOT_FORMAT: u32 = 4;
/// Charges of tasks one by one, as format 1 has them, in runs up to this length.
const SINGLE_CHARGES: u64 = 64;

impl State {
    /// Equal applied index means equal bytes on every replica.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut snapshot = wire::Snapshot {
            format: 1,
            cluster: self.cluster.clone(),
            epoch: self.epoch,
            applied_index: self.applied_index,
            now_ms: self.now.0,
            next_job: self.next_job,
            next_id: self.next_id,
            jobs: self.jobs.values().map(job_record).collect(),
            workers: self.workers.iter().map(|(id, worker)| worker_record(*id, worker)).collect(),
            leases: self
                .leases
                .iter()
                .filter(|_| !planted::on(Bug::SnapshotLosesLeases))
                .map(|(id, lease)| lease_record(*id, lease))
                .collect(),
            idempotency: self
                .idempotency
                .iter()
                .map(|((namespace, key), s)| wire::IdempotencyRecord {
                    namespace: namespace.clone(),
                    key: key.clone(),
                    job: s.job.0,
                    payload_sha256: s.payload_sha256.clone().into(),
                    ended_at_ms: s.ended_at.0,
                })
                .collect(),
            removed_replicas: self.removed_replicas.iter().copied().collect(),
            log_format: if self.log_format > UNMARKED_FORMAT { self.log_format } else { 0 },
            namespaces: self.namespaces.iter().map(|(name, namespace)| namespace_record(name, namespace)).collect(),
            costs: self.costs.to_wire(),
            gangs: crate::gang::to_wire(&self.gangs),
            homes: self.homes.to_wire(),
        };
        if snapshot.log_format != 0 {
            // Nothing of format 3, or 4, is in a state whose log has none of it.
            snapshot.format = snapshot.log_format;
        } else if needs_format_2(&snapshot) {
            snapshot.format = 2;
        }
        snapshot.to_wire()
    }

    /// Refuses what it does not know or what does not fit together; never guesses.
    pub fn from_snapshot(cluster: &str, bytes: &[u8]) -> Result<State, ApplyError> {
        let damaged = |what: &str| ApplyError::Snapshot(what.to_string());
        let snapshot = wire::Snapshot::from_wire_slice(bytes).map_err(|e| ApplyError::Snapshot(e.to_string()))?;
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
        state.log_format = snapshot.log_format.max(UNMARKED_FORMAT);
        if state.log_format > SNAPSHOT_FORMAT {
            return Err(ApplyError::Snapshot(format!("its log has format {}; this build reads up to {SNAPSHOT_FORMAT}", state.log_format)));
        }
        state.costs = CostModel::from_wire(snapshot.costs).map_err(ApplyError::Snapshot)?;
        for record in snapshot.jobs {
            let job = job_from(record).ok_or_else(|| damaged("a job record does not fit together"))?;
            state.jobs.insert(job.id, job);
        }
        for record in snapshot.workers {
            let (id, worker) = worker_from(record).ok_or_else(|| damaged("a worker record has no registration"))?;
            state.workers.insert(id, worker);
        }
        for record in snapshot.leases {
            let (id, lease) = lease_from(record).ok_or_else(|| damaged("a lease record does not fit together"))?;
            state.leases.insert(id, lease);
        }
        for record in snapshot.idempotency {
            let submission = Submission {
                job: JobId(record.job),
                payload_sha256: record.payload_sha256.to_vec(),
                ended_at: Timestamp(record.ended_at_ms),
            };
            state.idempotency.insert((record.namespace, record.key), submission);
        }
        for record in snapshot.namespaces {
            let (name, namespace) = namespace_from(record);
            state.namespaces.insert(name, namespace);
        }
        // What the log could not have made must not be worked with: later entries rely on it.
        for (id, lease) in &state.leases {
            let stage = state.jobs.get(&lease.job).and_then(|j| j.stages.get(lease.stage as usize));
            if stage.is_none_or(|s| lease.tasks.end > s.tasks().len()) {
                return Err(damaged(&format!("lease {id} is of no stage")));
            }
        }
        crate::invariants::leased_tasks_have_live_leases(&state).map_err(ApplyError::Snapshot)?;
        crate::invariants::set_aside_tasks_have_their_evidence(&state).map_err(ApplyError::Snapshot)?;
        state.gangs = crate::gang::from_wire(snapshot.gangs);
        crate::gang::holds_are_sound(&state).map_err(ApplyError::Snapshot)?;
        state.homes = Homes::from_wire(snapshot.homes).map_err(ApplyError::Snapshot)?;
        state.removed_replicas = snapshot.removed_replicas.into_iter().collect();
        state.derive();
        Ok(state)
    }

    /// The state of a snapshot of any cluster as the beginning of cluster `cluster`, whose replicas get ids of their own.
    pub fn from_backup(cluster: &str, bytes: &[u8]) -> Result<State, ApplyError> {
        let of = wire::Snapshot::from_wire_slice(bytes).map_err(|e| ApplyError::Snapshot(e.to_string()))?.cluster;
        let mut state = State::from_snapshot(&of, bytes)?;
        state.cluster = cluster.to_string();
        state.removed_replicas.clear();
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

/// Whether something in it is unknown to builds that read format 1 only: they would drop it in silence.
fn needs_format_2(snapshot: &wire::Snapshot) -> bool {
    let interval = |i: &wire::TaskInterval| match &i.state {
        Some(task_interval::State::Raced(_) | task_interval::State::Parked(_)) => true,
        Some(task_interval::State::Accepted(by)) => by.copy != 0,
        _ => false,
    };
    let stage = |s: &wire::StageRecord| {
        !s.suspicions.is_empty()
            || !s.set_aside.is_empty()
            || s.speculated != 0
            || s.attempts.iter().any(|a| a.more != 0)
            || s.intervals.iter().any(interval)
    };
    let spec =
        |s: &wire::JobSpec| s.on_set_aside != 0 || s.stages.iter().any(|stage| stage.shuffle_replicas != 0) || crate::kept::on_workers(s);
    let job = |j: &wire::JobRecord| j.spec.as_ref().is_some_and(spec) || j.stages.iter().any(stage);
    !snapshot.removed_replicas.is_empty()
        || snapshot.jobs.iter().any(job)
        || snapshot.workers.iter().any(|w| w.standing.is_some() || !w.devices.is_empty())
        || snapshot.leases.iter().any(|l| l.speculative || l.expected_ms != 0)
}

fn namespace_record(name: &str, namespace: &Namespace) -> wire::NamespaceRecord {
    wire::NamespaceRecord {
        name: name.to_owned(),
        terms: namespace.terms,
        used: namespace.used.iter().map(|(class, ns)| wire::ClassUse { class: class.clone(), device_ns: *ns }).collect(),
    }
}

fn namespace_from(record: wire::NamespaceRecord) -> (String, Namespace) {
    let used = record.used.into_iter().map(|u| (u.class, u.device_ns)).collect();
    (record.name, Namespace { terms: record.terms, used })
}

fn worker_record(id: WorkerId, worker: &Worker) -> wire::WorkerRecord {
    wire::WorkerRecord {
        worker: id.0,
        session: worker.session.0,
        hello: Some(worker.hello.clone()),
        lost: worker.lost,
        standing: (worker.standing != Standing::default()).then(|| standing_record(&worker.standing)),
        devices: worker
            .device_standing
            .iter()
            .map(|(device, s)| wire::DeviceStanding { device: *device, standing: Some(standing_record(s)) })
            .collect(),
        drained: worker.drained,
        speeds: worker
            .speeds
            .iter()
            .map(|(device, s)| wire::DeviceSpeed { device: *device, permille: s.permille, samples: s.samples, astray: s.astray })
            .collect(),
    }
}

fn worker_from(record: wire::WorkerRecord) -> Option<(WorkerId, Worker)> {
    let mut worker = Worker::new(Session(record.session), record.hello?);
    worker.lost = record.lost;
    worker.drained = record.drained;
    worker.standing = record.standing.map(standing_from).unwrap_or_default();
    for device in record.devices {
        worker.device_standing.insert(device.device, device.standing.map(standing_from).unwrap_or_default());
    }
    for speed in record.speeds {
        let wire::DeviceSpeed { device, permille, samples, astray } = speed;
        worker.speeds.insert(device, Speed { permille, samples, astray });
    }
    Some((WorkerId(record.worker), worker))
}

fn standing_record(standing: &Standing) -> wire::Standing {
    let Standing { strikes, times, until, reason } = standing.clone();
    wire::Standing { strikes, times, until_ms: until.0, reason }
}

fn standing_from(record: wire::Standing) -> Standing {
    Standing { strikes: record.strikes, times: record.times, until: Timestamp(record.until_ms), reason: record.reason }
}

fn job_record(job: &Job) -> wire::JobRecord {
    wire::JobRecord {
        job: job.id.0,
        spec: Some(job.spec.clone()),
        state: job_state(&job.phase).into(),
        cause: job.phase.cause().to_owned(),
        submitted_at_ms: job.submitted_at.0,
        finished_at_ms: job.phase.ended_at().map_or(0, |t| t.0),
        idempotency_key: job.idempotency_key.clone(),
        stages: (0..job.stages.len()).map(|index| stage_record(job, index)).collect(),
        parts: job.parts.values().cloned().collect(),
        shares: job.shares.values().cloned().collect(),
        excluded_workers: job.excluded.iter().map(|w| w.0).collect(),
        excluded_devices: job.excluded_devices.iter().map(|(w, d)| wire::ExcludedDevice { worker: w.0, device: *d }).collect(),
        source_failures: job.source_failures.iter().map(|(w, n)| wire::SourceFailures { worker: w.0, count: *n }).collect(),
        served_ns: job.served_ns,
        served_at_ms: job.served_at.0,
        rounds: job.rounds.as_ref().map(Rounds::to_wire),
        waiting_for: job.waiting_for.iter().map(|job| job.0).collect(),
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
    if record.stages.len() != spec.stages.len() || spec.stages.len() > MAX_STAGES {
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
    let over = phase.ended_at().is_some();
    let rounds = match (record.rounds, spec.rounds.is_some()) {
        (Some(rounds), true) => Some(Rounds::from_wire(rounds, &spec)?),
        (None, false) => None,
        _ => return None,
    };
    Some(Job {
        id: JobId(record.job),
        graph: Graph::of(&spec),
        units: if over { Vec::new() } else { spec.stages.iter().map(of_stage).collect() },
        idempotency_key: record.idempotency_key,
        phase,
        submitted_at: Timestamp(record.submitted_at_ms),
        stages,
        parts: record.parts.into_iter().map(|p| (p.partition, p)).collect(),
        shares,
        excluded: record.excluded_workers.into_iter().map(WorkerId).collect(),
        excluded_devices: record.excluded_devices.into_iter().map(|e| (WorkerId(e.worker), e.device)).collect(),
        source_failures: record.source_failures.into_iter().map(|s| (WorkerId(s.worker), s.count)).collect(),
        served_ns: record.served_ns,
        served_at: Timestamp(record.served_at_ms),
        rounds,
        waiting_for: record.waiting_for.into_iter().map(JobId).collect(),
        spec_bytes: spec.wire_bytes() as u64,
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
                    // Time 0 is long past for every log entry that could make a task wait.
                    TaskState::Waiting(until) => task_interval::State::Parked(wire::Parked { until_ms: until.0.max(1) }),
                    TaskState::SetAside => task_interval::State::Parked(wire::Parked { until_ms: 0 }),
                    TaskState::Leased(id) => task_interval::State::Leased(id.into()),
                    TaskState::Raced { first, second } => {
                        task_interval::State::Raced(wire::Raced { first: Some(first.into()), second: Some(second.into()) })
                    }
                    TaskState::Accepted { worker, copy, generation } => {
                        task_interval::State::Accepted(wire::AcceptedBy { worker: worker.0, generation, copy: copy.0 })
                    }
                }),
            })
            .collect(),
        attempts: stage.attempts.iter().filter(|(_, charged)| *charged > 0).flat_map(charge_records).collect(),
        tallies: tally_totals(job, index),
        failed_attempts: stage.failed_attempts,
        leases: stage.leases,
        earlier_leases: stage.earlier_leases,
        fenced: stage.fenced,
        counted: stage
            .counted
            .iter()
            .filter(|(_, counted)| *counted)
            .map(|(range, _)| wire::TaskSpan { first_task: range.first, task_count: range.count() })
            .collect(),
        suspicions: stage
            .suspicions
            .iter()
            .map(|(range, workers)| wire::Suspicion {
                first_task: range.first,
                task_count: range.count(),
                workers: workers.iter().map(|w| w.0).collect(),
            })
            .collect(),
        set_aside: set_aside_records(job, index),
        speculated: stage.speculated,
        speculative_wins: stage.speculative_wins,
        memory_limits: stage
            .memory_limits
            .iter()
            .map(|((worker, device), tasks)| wire::MemoryLimit { worker: worker.0, device: *device, tasks: *tasks })
            .collect(),
        avoided_classes: stage.avoided.iter().cloned().collect(),
        counters: (stage.counters != wire::StageCounters::default()).then_some(stage.counters),
        bad_records: stage.bad_records.values().cloned().collect(),
        failures: stage.failures.clone(),
    }
}

fn charge_records((range, charged): (TaskRange, u32)) -> Vec<wire::TaskAttempts> {
    if range.count() > SINGLE_CHARGES {
        return vec![wire::TaskAttempts { task: range.first, charged, more: range.count() - 1 }];
    }
    (range.first..range.end).map(|task| wire::TaskAttempts { task, charged, more: 0 }).collect()
}

fn stage_from(record: wire::StageRecord) -> Option<Stage> {
    let mut parts = Vec::with_capacity(record.intervals.len());
    for interval in record.intervals {
        let range = TaskRange::new(interval.first_task, interval.task_count)?;
        let state = match interval.state? {
            task_interval::State::Ready(_) => TaskState::Ready,
            task_interval::State::Leased(id) => TaskState::Leased(id.into()),
            task_interval::State::Raced(pair) => TaskState::Raced { first: pair.first?.into(), second: pair.second?.into() },
            task_interval::State::Parked(wire::Parked { until_ms: 0 }) => TaskState::SetAside,
            task_interval::State::Parked(parked) => TaskState::Waiting(Timestamp(parked.until_ms)),
            task_interval::State::Accepted(by) => {
                TaskState::Accepted { worker: WorkerId(by.worker), copy: WorkerId(by.copy), generation: by.generation }
            }
        };
        parts.push((range, state));
    }
    let mut stage = Stage::from_parts(IntervalMap::from_intervals(record.tasks, parts)?, record.tallies.len());
    stage.generation = record.generation;
    stage.open = record.open;
    for charged in record.attempts {
        let range = TaskRange::new(charged.task, charged.more.checked_add(1)?).filter(|r| r.end <= record.tasks)?;
        stage.attempts.set(range, charged.charged);
    }
    let mut suspicions = Vec::with_capacity(record.suspicions.len());
    for suspicion in record.suspicions {
        let range = TaskRange::new(suspicion.first_task, suspicion.task_count)?;
        suspicions.push((range, suspicion.workers.into_iter().map(WorkerId).collect()));
    }
    stage.suspicions = Suspicions::from_parts(record.tasks, suspicions)?;
    for aside in record.set_aside {
        let tasks = TaskRange::new(aside.first_task, aside.task_count).filter(|r| r.end <= record.tasks)?;
        let evidence = Evidence {
            tasks,
            attempts: aside.attempts,
            workers: aside.workers.into_iter().map(WorkerId).collect(),
            message: aside.message,
            at: Timestamp(aside.at_ms),
        };
        stage.evidence.insert(tasks.first, evidence);
    }
    stage.speculated = record.speculated;
    stage.speculative_wins = record.speculative_wins;
    stage.memory_limits = record.memory_limits.into_iter().map(|l| ((WorkerId(l.worker), l.device), l.tasks)).collect();
    stage.avoided = record.avoided_classes.into_iter().collect();
    stage.tallies = record.tallies.iter().map(|t| u128::from(t.low) | (u128::from(t.high) << 64)).collect();
    stage.counters = record.counters.unwrap_or_default();
    stage.bad_records = record.bad_records.into_iter().map(|bad| ((bad.task, bad.offset), bad)).collect();
    stage.failed_attempts = record.failed_attempts;
    stage.failures = record.failures;
    stage.leases = record.leases;
    stage.earlier_leases = record.earlier_leases;
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
        speculative: lease.speculative,
        expected_ms: lease.expected_ms,
        spent_ns: lease.spent.ns,
        done_units: lease.spent.units,
        done_tasks: lease.spent.tasks,
        mixed: lease.spent.mixed,
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
        speculative: record.speculative,
        expected_ms: record.expected_ms,
        spent: Spent { ns: record.spent_ns, units: record.done_units, tasks: record.done_tasks, mixed: record.mixed },
    };
    Some((record.lease?.into(), lease))
}
