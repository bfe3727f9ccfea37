//! A few words of the glossary to write tests with.
#![allow(dead_code)]

use raftwerk_core::plan::{View, plan};
use raftwerk_core::{Applied, JobId, LeaseId, Outcome, Session, State, WorkerId, invariants};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::*;
use std::collections::BTreeMap;

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
    Hello { protocol_version: 1, incarnation, name: name.into(), data_address: format!("{name}:1"), devices, ..Hello::default() }
}

fn kernel(name: &str, kind: KernelKind, tallies: &[&str]) -> Option<KernelRef> {
    Some(KernelRef { name: name.into(), version: 1, kind: kind.into(), tallies: tallies.iter().map(|t| t.to_string()).collect() })
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

/// One replica's state with a log index that counts itself.
pub struct Replica {
    pub state: State,
    pub index: u64,
    pub log: Vec<EntryBody>,
}

impl Replica {
    pub fn new() -> Replica {
        Replica { state: State::new("test"), index: 0, log: Vec::new() }
    }

    pub fn apply_all(&mut self, commands: Vec<Command>) -> Applied {
        self.index += 1;
        let body = EntryBody {
            format: 1,
            at_ms: 1000 + self.index,
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

    /// One planning round whose plan is granted at once.
    pub fn plan_and_grant(&mut self) -> Vec<LeaseId> {
        let placements = plan(&View { state: &self.state, present: &self.present(), submitted: &[] });
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
        let placement = Placement { job: Some(placement::Job::Id(job.0)), stage, first_task, task_count, worker, session, device: 0 };
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
        Report {
            sequence: 1,
            lease: Some(id.into()),
            job: lease.job.0,
            stage: lease.stage,
            generation: lease.generation,
            results: vec![TaskResults {
                first_task: lease.tasks.first,
                task_count: lease.tasks.count(),
                tallies: vec![TallyValues { values: values.clone() }; tallies],
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

    /// Plans, runs and reports until nothing is left to grant.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            let leases = self.plan_and_grant();
            let held: Vec<LeaseId> = self.state.leases.keys().copied().collect();
            if leases.is_empty() && held.is_empty() {
                return;
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
