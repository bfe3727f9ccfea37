//! A few words of the glossary to write tests with.
#![allow(dead_code)]

use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_core::plan::policy::{Policy, policies};
use raftwerk_core::plan::{Proposal, View, propose};
use raftwerk_core::{Applied, JobId, LeaseId, Outcome, Phase, Session, State, Timestamp, WorkerId, invariants};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::*;
use std::collections::{BTreeMap, BTreeSet};

pub const KERNEL: &str = "count";

pub fn device(index: u32, class: &str, parallelism: u32) -> Device {
    Device {
        index,
        class: class.into(),
        name: format!("{class} {index}"),
        capacity: Some(Capacity { milli_cpu: 1000, memory_bytes: 1 << 30, slots: 8 }),
        kernels: vec!["count@1".into(), "sum@1".into()],
        parallelism,
        ..Device::default()
    }
}

pub fn hello(name: &str, incarnation: u64, devices: Vec<Device>) -> Hello {
    Hello {
        protocol_version: 1,
        incarnation,
        name: name.into(),
        data_address: format!("{name}:1"),
        devices,
        stage_graphs: true,
        ..Hello::default()
    }
}

fn kernel(name: &str, kind: KernelKind, tallies: &[&str]) -> Option<KernelRef> {
    Some(KernelRef {
        name: name.into(),
        version: 1,
        kind: kind.into(),
        tallies: tallies.iter().map(|t| t.to_string()).collect(),
        ..KernelRef::default()
    })
}

pub fn map_only(tasks: u64) -> JobSpec {
    JobSpec {
        name: "map".into(),
        namespace: "default".into(),
        stages: vec![StageSpec {
            name: "map".into(),
            kernel: kernel(KERNEL, KernelKind::Map, &["value"]),
            inputs: vec![StageInput { name: "input".into(), source: Some(Source::Range(IndexRange { start: 0, count: tasks, tasks })) }],
            ..StageSpec::default()
        }],
        ..JobSpec::default()
    }
}

pub fn map_reduce(tasks: u64, partitions: u32) -> JobSpec {
    let mut spec = map_only(tasks);
    spec.stages[0].partitions = partitions;
    spec.stages.push(StageSpec {
        name: "reduce".into(),
        kernel: kernel("sum", KernelKind::Reduce, &[]),
        inputs: vec![StageInput { name: "map".into(), source: Some(Source::Stage(StageOutput { stage: "map".into() })) }],
        ..StageSpec::default()
    });
    spec.output = Some(OutputSpec { url: "file:///out".into(), format: "csv".into(), ..OutputSpec::default() });
    spec
}

fn reading(name: &str, kind: KernelKind, from: &[&str], partitions: u32) -> StageSpec {
    let input = |from: &&str| StageInput { name: from.to_string(), source: Some(Source::Stage(StageOutput { stage: from.to_string() })) };
    let kernel = if kind == KernelKind::Map { kernel(KERNEL, kind, &["value"]) } else { kernel("sum", kind, &[]) };
    StageSpec { name: name.into(), kernel, inputs: from.iter().map(input).collect(), partitions, ..StageSpec::default() }
}

/// Three stages in a row and a second input, joined at the end:
/// map (0) -> reduce (1) -> again (2) -+-> join (4)
///                          other (3) -+
pub fn joined(tasks: u64, partitions: u32, joins: u32) -> JobSpec {
    let mut spec = map_reduce(tasks, partitions);
    spec.stages[1].partitions = partitions;
    spec.stages.push(reading("again", KernelKind::Map, &["reduce"], joins));
    spec.stages.push(StageSpec { name: "other".into(), partitions: joins, ..spec.stages[0].clone() });
    spec.stages.push(reading("both", KernelKind::Reduce, &["again", "other"], 0));
    spec
}

/// One replica's state with a log index that counts itself.
pub struct Replica {
    pub state: State,
    /// Rules that entries are written under.
    pub format: u32,
    /// Milliseconds that pass before the next entry, once.
    pub pause_ms: u64,
    pub clock: u64,
    pub suspects: BTreeSet<WorkerId>,
    pub returning: BTreeSet<WorkerId>,
    pub full: BTreeSet<WorkerId>,
    /// Of the cluster.
    pub policy: &'static dyn Policy,
    pub index: u64,
    pub log: Vec<EntryBody>,
}

impl Replica {
    pub fn new() -> Replica {
        Replica {
            state: State::new("test"),
            format: ENTRY_FORMAT,
            pause_ms: 0,
            clock: 1000,
            suspects: BTreeSet::new(),
            returning: BTreeSet::new(),
            full: BTreeSet::new(),
            policy: policies()[0],
            index: 0,
            log: Vec::new(),
        }
    }

    pub fn apply_all(&mut self, commands: Vec<Command>) -> Applied {
        self.index += 1;
        self.clock += 1 + std::mem::take(&mut self.pause_ms);
        let body = EntryBody {
            format: self.format,
            at_ms: self.clock,
            commands: commands.into_iter().map(|c| raftwerk_proto::v1::Command { command: Some(c) }).collect(),
        };
        self.log.push(body.clone());
        let before = self.state.clone();
        let applied = self.state.apply(self.index, body).expect("a known command");
        invariants::check(&self.state).expect("invariants");
        invariants::moves_only_forward(&before, &self.state).expect("moves forward");
        applied
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        self.apply_all(vec![command]).outcomes.remove(0)
    }

    pub fn register(&mut self, worker: u64, devices: Vec<Device>) -> Session {
        let hello = hello(&format!("w{worker}"), self.index, devices);
        match self.apply(Command::RegisterWorker(RegisterWorker { worker, hello: Some(hello) })) {
            Outcome::Registered { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    pub fn submit(&mut self, spec: JobSpec) -> JobId {
        match self.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() })) {
            Outcome::Submitted { job, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    pub fn present(&self) -> BTreeMap<WorkerId, Session> {
        self.state.workers.iter().filter(|(_, w)| !w.lost).map(|(id, w)| (*id, w.session)).collect()
    }

    /// What one planning round proposes for the next entry.
    pub fn plan(&self) -> Vec<Placement> {
        self.plan_with(&[])
    }

    /// The same with jobs that the entry submits.
    pub fn plan_with(&self, submitted: &[(u32, &JobSpec)]) -> Vec<Placement> {
        self.propose_with(submitted).placements
    }

    /// One planning round with what gangs need.
    pub fn propose(&self) -> Proposal {
        self.propose_with(&[])
    }

    fn propose_with(&self, submitted: &[(u32, &JobSpec)]) -> Proposal {
        let now = Timestamp(self.clock + 1 + self.pause_ms);
        propose(&View {
            state: &self.state,
            present: &self.present(),
            suspects: &self.suspects,
            returning: &self.returning,
            full: &self.full,
            now,
            submitted,
            policy: self.policy,
        })
    }

    /// One planning round whose plan is granted at once.
    pub fn plan_and_grant(&mut self) -> Vec<LeaseId> {
        let placements = self.plan();
        match self.apply(Command::GrantLeases(GrantLeases { placements })) {
            Outcome::Granted { leases, stale } => {
                assert_eq!(stale, 0, "a plan on the present state is never stale");
                leases
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn grant(&mut self, job: JobId, stage: u32, first_task: u64, task_count: u64, worker: u64) -> Option<LeaseId> {
        let session = self.state.workers[&WorkerId(worker)].session.0;
        let placement =
            Placement { job: Some(placement::Job::Id(job.0)), stage, first_task, task_count, worker, session, ..Placement::default() };
        self.grant_placement(placement)
    }

    /// A second lease.
    pub fn speculate(&mut self, job: JobId, stage: u32, first_task: u64, task_count: u64, worker: u64) -> Option<LeaseId> {
        let session = self.state.workers[&WorkerId(worker)].session.0;
        let placement = Placement {
            job: Some(placement::Job::Id(job.0)),
            stage,
            first_task,
            task_count,
            worker,
            session,
            speculative: true,
            ..Placement::default()
        };
        self.grant_placement(placement)
    }

    fn grant_placement(&mut self, placement: Placement) -> Option<LeaseId> {
        match self.apply(Command::GrantLeases(GrantLeases { placements: vec![placement] })) {
            Outcome::Granted { leases, .. } => leases.first().copied(),
            other => panic!("{other:?}"),
        }
    }

    /// A full and final result of a lease as its holder would send it: the value of each task is its number.
    pub fn full_report(&self, id: LeaseId) -> Report {
        let lease = &self.state.leases[&id];
        let tallies = self.state.jobs[&lease.job].stages[lease.stage as usize].tallies.len();
        let values: Vec<u64> = (lease.tasks.first..lease.tasks.end).collect();
        let job = &self.state.jobs[&lease.job];
        let last = lease.stage as usize + 1 == job.stages.len() && job.spec.output.is_some();
        let reduces = lease.stage as usize + 1 == job.stages.len();
        let round =
            job.rounds.as_ref().filter(|_| reduces).map(|rounds| RoundEnd { round: rounds.current(&job.spec), ..RoundEnd::default() });
        Report {
            round_end: round,
            sequence: 1,
            lease: Some(id.into()),
            job: lease.job.0,
            stage: lease.stage,
            generation: lease.generation,
            results: vec![TaskResults {
                first_task: lease.tasks.first,
                task_count: lease.tasks.count(),
                tallies: vec![TallyValues { values: values.clone() }; tallies],
                ..TaskResults::default()
            }],
            final_report: true,
            busy_ns: 1_000_000 * lease.tasks.count(),
            parts: if last {
                values.iter().map(|v| OutputPart { partition: *v as u32, ..OutputPart::default() }).collect()
            } else {
                vec![]
            },
            ..Report::default()
        }
    }

    pub fn report(&mut self, worker: u64, report: Report) {
        let session = self.state.workers.get(&WorkerId(worker)).map_or(0, |w| w.session.0);
        self.apply(Command::ReportResults(ReportResults { worker, session, reports: vec![report] }));
    }

    pub fn finish(&mut self, id: LeaseId) {
        let worker = self.state.leases[&id].worker.0;
        let report = self.full_report(id);
        self.report(worker, report);
    }

    pub fn lose(&mut self, worker: u64) {
        let session = self.state.workers[&WorkerId(worker)].session.0;
        self.apply(Command::LoseWorker(LoseWorker { worker, session, reason: String::new() }));
    }

    /// Part of a lease's result, not its last word.
    pub fn report_some(&mut self, id: LeaseId, first_task: u64, task_count: u64) {
        let lease = self.state.leases[&id].clone();
        let mut report = self.full_report(id);
        let from = (first_task - lease.tasks.first) as usize;
        report.final_report = false;
        let results = &mut report.results[0];
        (results.first_task, results.task_count) = (first_task, task_count);
        for tally in &mut results.tallies {
            tally.values = tally.values[from..from + task_count as usize].to_vec();
        }
        report.parts.retain(|p| (first_task..first_task + task_count).contains(&u64::from(p.partition)));
        self.report(lease.worker.0, report);
    }

    /// Every task of the lease fails, and that is its last word.
    pub fn fail(&mut self, id: LeaseId, class: FailureClass, message: &str) {
        let lease = self.state.leases[&id].clone();
        let failure = TaskFailure {
            first_task: lease.tasks.first,
            task_count: lease.tasks.count(),
            class: class.into(),
            message: message.into(),
            source_worker: 0,
        };
        let report = Report { results: vec![], failures: vec![failure], parts: vec![], ..self.full_report(id) };
        self.report(lease.worker.0, report);
    }

    /// Plans, runs and reports until nothing is left to grant.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            let leases = self.plan_and_grant();
            let held: Vec<LeaseId> = self.state.leases.keys().copied().collect();
            if leases.is_empty() && held.is_empty() {
                if self.state.active_jobs().all(|j| j.phase != Phase::Running) {
                    return;
                }
                // Something waits before its next attempt.
                self.pause_ms = 1_000;
            }
            for id in held {
                self.finish(id);
            }
        }
        panic!("the job never ends: {:?}", self.state.active_jobs().map(|j| &j.phase).collect::<Vec<_>>());
    }

    pub fn tally(&self, job: JobId) -> u128 {
        self.state.jobs[&job].stages[0].tallies[0]
    }
}
