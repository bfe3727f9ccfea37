//! The core against a naive model of its rules, and against logs that nobody would write.
//!
//! Random commands, sensible and absurd, go to both; after each they must agree about every task, lease, count and job. A log replayed from
//! the beginning gives the state of every snapshot plus its tail. Whatever can be decoded can be applied without a panic, and keeps the promises.

#[path = "model/naive.rs"]
mod naive;
mod support;

use naive::{Class, Do, Model, TaskIs, value};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use raftwerk_core::stage::TaskState;
use raftwerk_core::{JobId, LeaseId, Outcome, Phase, State, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::{Replica, device, hello, joined, map_only, map_reduce};

/// Of all jobs here.
const NAMESPACE: &str = "default";

/// What the dice say; which lease, job and task it hits depends on the state.
#[derive(Clone, Debug)]
enum Roll {
    Register {
        worker: u64,
        devices: u32,
    },
    Submit {
        tasks: u64,
        partitions: u64,
        joins: u64,
        max_attempts: u32,
        goes_on: bool,
        rounds: u32,
        gang: u32,
    },
    Cancel(u64),
    Plan,
    /// What the planner wants for gangs, the nth of it.
    Gang(usize),
    /// Devices of this worker and the next, for whatever stage that is.
    Hold {
        job: u64,
        stage: usize,
        worker: u64,
        until: u64,
    },
    /// The nth hold, whether its time is up or not.
    GiveBack(usize),
    /// The nth hold starts as the planner would start it, with something wrong.
    StartWrong {
        nth: usize,
        wrong: u64,
    },
    Place {
        job: u64,
        stage: usize,
        first: u64,
        count: u64,
        worker: u64,
        device: u32,
        speculative: bool,
    },
    /// A second lease of what the nth lease holds.
    Copy {
        nth: usize,
        skip: u64,
        less: u64,
        worker: u64,
    },
    Report {
        nth: usize,
        stranger: bool,
        results: (u64, u64),
        failures: Vec<(u64, u64, Class)>,
        last: bool,
    },
    Finish(usize),
    /// The executor dies under the first tasks of the nth lease; the others were stopped.
    Kill {
        nth: usize,
        count: u64,
    },
    /// A report of a lease that has ended.
    Late(usize),
    End(usize),
    Lose {
        worker: u64,
        stale: bool,
    },
    FinishPublish {
        job: u64,
        fails: bool,
    },
    FailJob(u64),
    EndQuarantine(u64),
    Drain(u64),
    Mint,
    RemoveReplica(u64),
    /// What the namespace of all jobs may have.
    Terms {
        weight: u32,
        max_jobs: u32,
        max_devices: u32,
    },
    Pause(u64),
    Suspect(u64),
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![
        6 => Just(Class::Task),
        6 => Just(Class::Executor),
        4 => Just(Class::Worker),
        4 => Just(Class::Device),
        6 => (1u64..5).prop_map(Class::Source),
        6 => Just(Class::Stopped),
        1 => Just(Class::Fatal),
    ]
}

fn roll() -> impl Strategy<Value = Roll> {
    let failures = prop::collection::vec((0u64..8, 1u64..6, class()), 0..3);
    // What ends much at once is rare, or nothing would live long enough to get far.
    prop_oneof![
        2 => (1u64..5, 1u32..3).prop_map(|(worker, devices)| Roll::Register { worker, devices }),
        5 => (0u64..24, 0u64..4, 1u32..6, any::<bool>(), prop_oneof![2 => Just(0u32), 1 => 1u32..6])
            .prop_map(|(tasks, partitions, max_attempts, goes_on, gang)| Roll::Submit { tasks, partitions, joins: 0, max_attempts, goes_on, rounds: 0, gang }),
        5 => (0u64..8, 1u64..4, 1u64..4, any::<bool>(), prop_oneof![4 => Just(0u32), 1 => 1u32..4])
            .prop_map(|(tasks, partitions, joins, goes_on, gang)| Roll::Submit { tasks, partitions, joins, max_attempts: 5, goes_on, rounds: 0, gang }),
        2 => (0u64..6, 1u32..6, 1u32..5, prop_oneof![2 => Just(0u32), 1 => 1u32..4])
            .prop_map(|(tasks, max_attempts, rounds, gang)| Roll::Submit { tasks, partitions: 1, joins: 0, max_attempts, goes_on: false, rounds, gang }),
        1 => (0u64..6).prop_map(Roll::Cancel),
        50 => Just(Roll::Plan),
        40 => (0usize..4).prop_map(Roll::Gang),
        3 => (0u64..8, 0usize..5, 1u64..5, 0u64..9_000).prop_map(|(job, stage, worker, until)| Roll::Hold { job, stage, worker, until }),
        2 => (0usize..4).prop_map(Roll::GiveBack),
        5 => (0usize..4, 0u64..5).prop_map(|(nth, wrong)| Roll::StartWrong { nth, wrong }),
        5 => (0u64..6, 0usize..6, 0u64..24, 0u64..8, 1u64..5, 0u32..3, any::<bool>())
            .prop_map(|(job, stage, first, count, worker, device, speculative)| Roll::Place { job, stage, first, count, worker, device, speculative }),
        25 => (0usize..30, 0u64..3, 0u64..2, 1u64..5).prop_map(|(nth, skip, less, worker)| Roll::Copy { nth, skip, less, worker }),
        20 => (0usize..30, prop::bool::weighted(0.1), (0u64..8, 0u64..8), failures, any::<bool>())
            .prop_map(|(nth, stranger, results, failures, last)| Roll::Report { nth, stranger, results, failures, last }),
        40 => (0usize..30).prop_map(Roll::Finish),
        20 => (0usize..30, 0u64..4).prop_map(|(nth, count)| Roll::Kill { nth, count }),
        5 => (0usize..30).prop_map(Roll::Late),
        2 => (0usize..30).prop_map(Roll::End),
        2 => (1u64..5, prop::bool::weighted(0.3)).prop_map(|(worker, stale)| Roll::Lose { worker, stale }),
        8 => (0u64..6, prop::bool::weighted(0.2)).prop_map(|(job, fails)| Roll::FinishPublish { job, fails }),
        1 => (0u64..6).prop_map(Roll::FailJob),
        2 => (1u64..6).prop_map(Roll::EndQuarantine),
        1 => (1u64..6).prop_map(Roll::Drain),
        1 => Just(Roll::Mint),
        1 => (0u64..4).prop_map(Roll::RemoveReplica),
        // Mostly without bounds, or little would run.
        2 => (prop_oneof![1u32..1_001, 0u32..2_000], prop_oneof![3 => Just(0u32), 1 => 1u32..6], prop_oneof![3 => Just(0u32), 1 => 1u32..6])
            .prop_map(|(weight, max_jobs, max_devices)| Roll::Terms { weight, max_jobs, max_devices }),
        20 => prop_oneof![3 => 0u64..1_500, 1 => 0u64..40_000].prop_map(Roll::Pause),
        5 => (0u64..5).prop_map(Roll::Suspect),
    ]
}

struct Bench {
    core: Replica,
    model: Model,
    /// Leases that were there once: (id, job, stage, first, end, worker).
    seen: Vec<(LeaseId, naive::Lease, u64, usize, u64, u64, u64)>,
    snapshots: Vec<Vec<u8>>,
}

impl Bench {
    fn new() -> Bench {
        let core = Replica::new();
        let first = core.state.to_snapshot();
        Bench { core, model: Model::default(), seen: Vec::new(), snapshots: vec![first] }
    }

    fn session(&self, worker: u64) -> u64 {
        self.model.workers.get(&worker).map_or(0, |w| w.session)
    }

    /// The nth live lease.
    fn live(&self, nth: usize) -> Option<(naive::Lease, naive::LeaseIs)> {
        let count = self.model.leases.len();
        self.model.leases.iter().nth(nth % count.max(1)).map(|(id, lease)| (*id, lease.clone()))
    }

    fn meant(&mut self, roll: Roll) -> Option<Do> {
        Some(match roll {
            Roll::Register { worker, devices } => Do::Register { worker, devices },
            Roll::Submit { tasks, partitions, joins, max_attempts, goes_on, rounds, gang } => {
                Do::Submit { tasks, partitions, joins, max_attempts, goes_on, rounds, gang }
            }
            Roll::Gang(nth) => {
                let mut steps = self.core.propose().gangs;
                let nth = nth % steps.len().max(1);
                if steps.is_empty() {
                    return None;
                }
                step_from(steps.swap_remove(nth))
            }
            Roll::Hold { job, stage, worker, until } => {
                let devices = vec![(worker, 0), (worker % 4 + 1, 0), (worker, 7)];
                Do::Hold { job, stage, devices, until: self.core.clock + until }
            }
            Roll::GiveBack(nth) => {
                let count = self.model.holds.len();
                let ((job, stage), hold) = self.model.holds.iter().nth(nth % count.max(1))?;
                Do::GiveBack { job: *job, stage: *stage, until: hold.until }
            }
            Roll::StartWrong { nth, wrong } => {
                let count = self.model.holds.len();
                let (&(job, stage), hold) = self.model.holds.iter().nth(nth % count.max(1))?;
                let placement = |(n, (worker, device)): (usize, &(u64, u32))| naive::Placement {
                    job,
                    stage,
                    first: n as u64,
                    count: 1,
                    worker: *worker,
                    session: self.session(*worker),
                    device: *device,
                    speculative: false,
                };
                let mut placements: Vec<naive::Placement> = hold.devices.iter().enumerate().map(placement).collect();
                let last = placements.last_mut()?;
                match wrong {
                    0 => last.first = 0,
                    1 => last.session = 0,
                    2 => last.device += 1,
                    3 => last.count = 1_000,
                    _ => drop(placements.pop()),
                }
                Do::Start { job, stage, placements }
            }
            Roll::Cancel(job) => Do::Cancel { job },
            Roll::FailJob(job) => Do::FailJob { job },
            Roll::FinishPublish { job, fails } => Do::FinishPublish { job, fails },
            Roll::EndQuarantine(worker) => Do::EndQuarantine { worker },
            Roll::Drain(worker) => Do::Drain { worker },
            Roll::Mint => Do::Mint,
            Roll::RemoveReplica(replica) => Do::RemoveReplica { replica },
            Roll::Terms { weight, max_jobs, max_devices } => Do::Terms(naive::Terms { weight, max_jobs, max_devices }),
            Roll::Lose { worker, stale } => Do::Lose { worker, session: self.session(worker).saturating_sub(u64::from(stale)) },
            Roll::End(nth) => Do::End(self.live(nth).into_iter().map(|(id, _)| id).collect()),
            Roll::Pause(ms) => {
                self.core.pause_ms = ms;
                return None;
            }
            Roll::Suspect(worker) => {
                self.core.suspects = [WorkerId(worker)].into();
                return None;
            }
            Roll::Plan => Do::Grant(self.core.plan().iter().map(placement_from).collect()),
            Roll::Place { job, stage, first, count, worker, device, speculative } => {
                let session = self.session(worker);
                Do::Grant(vec![naive::Placement { job, stage, first, count, worker, session, device, speculative }])
            }
            Roll::Copy { nth, skip, less, worker } => {
                let (_, lease) = self.live(nth)?;
                let first = lease.first + skip;
                let count = lease.end.saturating_sub(first).saturating_sub(less);
                let session = self.session(worker);
                Do::Grant(vec![naive::Placement {
                    job: lease.job,
                    stage: lease.stage,
                    first,
                    count,
                    worker,
                    session,
                    device: 0,
                    speculative: true,
                }])
            }
            Roll::Report { nth, stranger, results, failures, last } => {
                let (id, lease) = self.live(nth)?;
                let worker = if stranger { lease.worker % 4 + 1 } else { lease.worker };
                let failures = failures.into_iter().map(|(skip, count, class)| (lease.first + skip, count, class)).collect();
                let results = vec![(lease.first + results.0, results.1)];
                let report =
                    naive::Report { lease: id, job: lease.job, stage: lease.stage, results, failures, last, converged: nth % 8 == 0 };
                Do::Report { worker, reports: vec![report] }
            }
            Roll::Finish(nth) => {
                let (id, lease) = self.live(nth)?;
                let results = vec![(lease.first, lease.end - lease.first)];
                let report = naive::Report {
                    lease: id,
                    job: lease.job,
                    stage: lease.stage,
                    results,
                    failures: vec![],
                    last: true,
                    converged: nth % 8 == 0,
                };
                Do::Report { worker: lease.worker, reports: vec![report] }
            }
            Roll::Kill { nth, count } => {
                let (id, lease) = self.live(nth)?;
                let all = lease.end - lease.first;
                let failures = vec![(lease.first, count, Class::Executor), (lease.first, all, Class::Stopped)];
                let report = naive::Report {
                    lease: id,
                    job: lease.job,
                    stage: lease.stage,
                    results: vec![],
                    failures,
                    last: true,
                    converged: false,
                };
                Do::Report { worker: lease.worker, reports: vec![report] }
            }
            Roll::Late(nth) => {
                let (_, id, job, stage, first, end, worker) = *self.seen.get(nth % self.seen.len().max(1))?;
                let report = naive::Report {
                    lease: id,
                    job,
                    stage,
                    results: vec![(first, end - first)],
                    failures: vec![],
                    last: true,
                    converged: nth % 8 == 0,
                };
                Do::Report { worker, reports: vec![report] }
            }
        })
    }

    fn command(&self, meant: &Do) -> Command {
        match meant {
            Do::Register { worker, devices } => {
                let devices = (0..*devices).map(|n| device(n, if n == 0 { "cpu" } else { "discrete" }, 2)).collect();
                Command::RegisterWorker(RegisterWorker { worker: *worker, hello: Some(hello("w", self.core.index, devices)) })
            }
            Do::Hold { job, stage, devices, until } => {
                let devices = devices.iter().map(|(worker, device)| HeldDevice { worker: *worker, device: *device }).collect();
                Command::HoldDevices(HoldDevices { job: *job, stage: *stage as u32, devices, until_ms: *until })
            }
            Do::GiveBack { job, stage, until } => Command::ReleaseHold(ReleaseHold { job: *job, stage: *stage as u32, until_ms: *until }),
            Do::Start { job, stage, placements } => {
                Command::StartGang(StartGang { job: *job, stage: *stage as u32, placements: placements.iter().map(placement_to).collect() })
            }
            Do::Submit { tasks, partitions, joins, max_attempts, goes_on, rounds, gang } => {
                let mut spec = match (*partitions, *joins) {
                    (0, _) => map_only(*tasks),
                    (partitions, 0) => map_reduce(*tasks, partitions as u32),
                    (partitions, joins) => joined(*tasks, partitions as u32, joins as u32),
                };
                spec.max_attempts = *max_attempts;
                for stage in spec.stages.iter_mut().filter(|_| *gang > 0) {
                    stage.gang = Some(Gang { devices: *gang, hold_ms: naive::HOLD_MS });
                }
                spec.rounds = (*rounds > 0).then_some(Rounds { max: *rounds, all: false });
                spec.set_on_set_aside(if *goes_on { OnSetAside::Continue } else { OnSetAside::Fail });
                Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() })
            }
            Do::Cancel { job } => Command::CancelJob(CancelJob { job: *job }),
            Do::Grant(placements) => Command::GrantLeases(GrantLeases { placements: placements.iter().map(placement_to).collect() }),
            Do::Report { worker, reports } => {
                let reports = reports.iter().map(|r| self.wire_report(*worker, r)).collect();
                Command::ReportResults(ReportResults { worker: *worker, session: 0, reports })
            }
            Do::End(leases) => {
                Command::EndLeases(EndLeases { leases: leases.iter().map(|l| lease_id(*l).into()).collect(), reason: String::new() })
            }
            Do::Lose { worker, session } => Command::LoseWorker(LoseWorker { worker: *worker, session: *session, reason: String::new() }),
            Do::FinishPublish { job, fails } => {
                Command::FinishPublish(FinishPublish { job: *job, error: if *fails { "full".into() } else { String::new() } })
            }
            Do::FailJob { job } => Command::FailJob(FailJob { job: *job, cause: "asked to".into() }),
            Do::EndQuarantine { worker } => Command::EndQuarantine(EndQuarantine { worker: *worker }),
            Do::Drain { worker } => Command::DrainWorker(DrainWorker { worker: *worker }),
            Do::Mint => Command::MintId(MintId::default()),
            Do::RemoveReplica { replica } => Command::RemoveReplica(RemoveReplica { replica: *replica }),
            Do::Terms(naive::Terms { weight, max_jobs, max_devices }) => {
                let terms = NamespaceTerms { weight: *weight, max_jobs: *max_jobs, max_devices: *max_devices };
                Command::SetNamespace(SetNamespace { name: NAMESPACE.into(), terms: Some(terms) })
            }
        }
    }

    fn wire_report(&self, worker: u64, report: &naive::Report) -> Report {
        let stage = self.model.jobs.get(&report.job).map_or(1, |j| j.stages.len());
        let tallies = usize::from(naive::is_map(stage, report.stage));
        let publishes = stage >= 2 && report.stage + 1 == stage;
        let results = report.results.iter().map(|(first, count)| {
            let values: Vec<u64> = (*first..first + count).map(|t| value(t, worker)).collect();
            let counters = TaskCounters { records_in: values.clone(), bytes_in: vec![naive::BYTES], ..TaskCounters::default() };
            let tallies = vec![TallyValues { values }; tallies];
            TaskResults { first_task: *first, task_count: *count, tallies, counters: Some(counters) }
        });
        let parts = report.results.iter().flat_map(|(first, count)| *first..first + count);
        let failures = report.failures.iter().map(|(first_task, task_count, class)| {
            let (class, source) = match class {
                Class::Task => (FailureClass::Task, 0),
                Class::Executor => (FailureClass::Executor, 0),
                Class::Worker => (FailureClass::Worker, 0),
                Class::Device => (FailureClass::Device, 0),
                Class::Source(source) => (FailureClass::Source, *source),
                Class::Stopped => (FailureClass::Stopped, 0),
                Class::Fatal => (FailureClass::Fatal, 0),
            };
            TaskFailure {
                first_task: *first_task,
                task_count: *task_count,
                class: class.into(),
                message: "x".into(),
                source_worker: source,
            }
        });
        // Each round's, as whoever held the lease knows it; a late one names whatever round there is now.
        let round = self.model.jobs.get(&report.job).map_or(0, |j| j.ended.len() as u32 + 1);
        let round_end =
            (publishes && !report.results.is_empty()).then(|| RoundEnd { round, converged: report.converged, ..RoundEnd::default() });
        Report {
            round_end,
            sequence: 1,
            lease: Some(lease_id(report.lease).into()),
            job: report.job,
            stage: report.stage as u32,
            results: results.collect(),
            failures: failures.collect(),
            parts: if publishes { parts.map(|p| OutputPart { partition: p as u32, ..OutputPart::default() }).collect() } else { vec![] },
            final_report: report.last,
            busy_ns: 1_000_000,
            ..Report::default()
        }
    }

    fn step(&mut self, together: Vec<Roll>) {
        let meant: Vec<Do> = together.into_iter().filter_map(|roll| self.meant(roll)).collect();
        if meant.is_empty() {
            return;
        }
        let commands = meant.iter().map(|m| self.command(m)).collect();
        // Checks every invariant too.
        let outcomes = self.core.apply_all(commands).outcomes;
        let minted: Vec<u64> = outcomes.iter().filter_map(|o| if let Outcome::Minted(id) = o { Some(*id) } else { None }).collect();
        assert_eq!(minted, self.model.entry(self.core.index, self.core.clock, &meant), "numbers minted by {meant:?}");
        for (id, lease) in &self.model.leases {
            if !self.seen.iter().any(|(_, seen, ..)| seen == id) {
                self.seen.push((lease_id(*id), *id, lease.job, lease.stage, lease.first, lease.end, lease.worker));
            }
        }
        self.snapshots.push(self.core.state.to_snapshot());
        assert_eq!(of_core(&self.core.state), of_model(&self.model), "after {meant:?}");
    }
}

fn lease_id((index, position): naive::Lease) -> LeaseId {
    LeaseId { epoch: 0, index, position }
}

fn placement_from(p: &Placement) -> naive::Placement {
    let Some(placement::Job::Id(job)) = p.job else { panic!("nothing was submitted together with this plan") };
    naive::Placement {
        job,
        stage: p.stage as usize,
        first: p.first_task,
        count: p.task_count,
        worker: p.worker,
        session: p.session,
        device: p.device,
        speculative: p.speculative,
    }
}

fn step_from(step: Command) -> Do {
    match step {
        Command::HoldDevices(hold) => {
            let devices = hold.devices.iter().map(|held| (held.worker, held.device)).collect();
            Do::Hold { job: hold.job, stage: hold.stage as usize, devices, until: hold.until_ms }
        }
        Command::ReleaseHold(release) => Do::GiveBack { job: release.job, stage: release.stage as usize, until: release.until_ms },
        Command::StartGang(start) => {
            let placements = start.placements.iter().map(placement_from).collect();
            Do::Start { job: start.job, stage: start.stage as usize, placements }
        }
        other => panic!("no step of a gang: {other:?}"),
    }
}

fn placement_to(p: &naive::Placement) -> Placement {
    Placement {
        job: Some(placement::Job::Id(p.job)),
        stage: p.stage as u32,
        first_task: p.first,
        task_count: p.count,
        worker: p.worker,
        session: p.session,
        device: p.device,
        speculative: p.speculative,
        expected_ms: 1,
    }
}

/// Everything that both know, line by line, so that a difference can be read.
fn of_core(state: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for (JobId(id), job) in &state.jobs {
        let phase = match job.phase {
            Phase::Running => naive::Phase::Running,
            Phase::Publishing => naive::Phase::Publishing,
            Phase::Done { .. } => naive::Phase::Done,
            Phase::Failed { .. } => naive::Phase::Failed,
            Phase::Cancelled { .. } => naive::Phase::Cancelled,
        };
        let excluded: Vec<u64> = job.excluded.iter().map(|w| w.0).collect();
        let devices: Vec<(u64, u32)> = job.excluded_devices.iter().map(|(w, d)| (w.0, *d)).collect();
        lines.push(format!("job {id} {phase:?} without {excluded:?} {devices:?}"));
        let ended: Vec<bool> = job.rounds.iter().flat_map(|rounds| &rounds.ended).map(|round| round.converged).collect();
        lines.push(format!("rounds {ended:?}"));
        lines.push(format!("parts {:?}", job.parts.iter().map(|(p, part)| (u64::from(*p), part.worker)).collect::<Vec<_>>()));
        for ((stage, worker, device), share) in &job.shares {
            lines.push(format!("share {stage} {worker} {device}: {}", share.tasks));
        }
        for stage in &job.stages {
            let tally = stage.tallies.first().copied().unwrap_or_default();
            lines.push(format!(
                "stage open {} generation {} tally {tally} read {} {} fenced {} failed {} speculated {} won {}",
                stage.open,
                stage.generation,
                stage.counters.records_in,
                stage.counters.bytes_in,
                stage.fenced,
                stage.failed_attempts,
                stage.speculated,
                stage.speculative_wins
            ));
            for (range, task) in stage.tasks().iter() {
                for t in range.first..range.end {
                    let is = match task {
                        TaskState::Ready => TaskIs::Free { not_before: 0 },
                        TaskState::Waiting(until) => TaskIs::Free { not_before: until.0 },
                        TaskState::Leased(id) => TaskIs::Held(vec![(id.index, id.position)]),
                        TaskState::Raced { first, second } => {
                            TaskIs::Held(vec![(first.index, first.position), (second.index, second.position)])
                        }
                        TaskState::Accepted { worker, generation, .. } => TaskIs::Accepted { at: worker.0, generation },
                        TaskState::SetAside => TaskIs::SetAside,
                    };
                    let one = raftwerk_core::TaskRange { first: t, end: t + 1 };
                    let charged = stage.attempts.overlapping(one).next().map_or(0, |(_, n)| n);
                    let died_on: Vec<u64> =
                        stage.suspicions.overlapping(one).next().map(|(_, w)| w.iter().map(|w| w.0).collect()).unwrap_or_default();
                    lines.push(format!("task {t} {is:?} charged {charged} died on {died_on:?}"));
                }
            }
        }
    }
    for (id, l) in &state.leases {
        lines.push(format!(
            "lease {}-{} job {} stage {} {}..{} on {} {}",
            id.index, id.position, l.job, l.stage, l.tasks.first, l.tasks.end, l.worker, l.device
        ));
    }
    for ((job, stage), hold) in state.gangs() {
        let devices: Vec<(u64, u32)> = hold.devices.iter().map(|(w, d)| (w.0, *d)).collect();
        lines.push(format!(
            "job {job} stage {stage} holds {devices:?} until {}, {} times in vain, again at {}",
            hold.until.0, hold.given_back, hold.again_at.0
        ));
    }
    for (id, w) in &state.workers {
        let devices: Vec<(u32, u64)> = w.device_standing.iter().map(|(d, s)| (*d, s.until.0)).collect();
        lines.push(format!("worker {id} lost {} until {} {devices:?}", w.lost, w.standing.until));
    }
    let terms = state.namespaces.get(NAMESPACE).and_then(|namespace| namespace.terms);
    let terms = terms.map(|t| naive::Terms { weight: t.weight, max_jobs: t.max_jobs, max_devices: t.max_devices });
    lines.push(format!("{terms:?} without replicas {:?}", state.removed_replicas));
    lines
}

fn of_model(model: &Model) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, job) in &model.jobs {
        let excluded: Vec<u64> = job.excluded.iter().copied().collect();
        let devices: Vec<(u64, u32)> = job.excluded_devices.iter().copied().collect();
        lines.push(format!("job {id} {:?} without {excluded:?} {devices:?}", job.phase));
        lines.push(format!("rounds {:?}", job.ended));
        lines.push(format!("parts {:?}", job.parts.iter().map(|(p, w)| (*p, *w)).collect::<Vec<_>>()));
        for ((stage, worker, device), tasks) in &job.shares {
            lines.push(format!("share {stage} {worker} {device}: {tasks}"));
        }
        for s in &job.stages {
            lines.push(format!(
                "stage open {} generation {} tally {} read {} {} fenced {} failed {} speculated {} won {}",
                s.open, s.generation, s.tally, s.records_in, s.bytes_in, s.fenced, s.failed, s.speculated, s.wins
            ));
            for (t, task) in s.tasks.iter().enumerate() {
                let died_on: Vec<u64> = task.died_on.iter().copied().collect();
                lines.push(format!("task {t} {:?} charged {} died on {died_on:?}", task.is, task.charged));
            }
        }
    }
    for ((index, position), l) in &model.leases {
        lines.push(format!("lease {index}-{position} job {} stage {} {}..{} on {} {}", l.job, l.stage, l.first, l.end, l.worker, l.device));
    }
    for ((job, stage), hold) in &model.holds {
        let devices: Vec<(u64, u32)> = hold.devices.iter().copied().collect();
        lines.push(format!(
            "job {job} stage {stage} holds {devices:?} until {}, {} times in vain, again at {}",
            hold.until, hold.given_back, hold.again_at
        ));
    }
    for (id, w) in &model.workers {
        let devices: Vec<(u32, u64)> = w.device_standing.iter().map(|(d, s)| (*d, s.until)).collect();
        lines.push(format!("worker {id} lost {} until {} {devices:?}", w.lost, w.standing.until));
    }
    lines.push(format!("{:?} without replicas {:?}", model.terms, model.removed_replicas));
    lines
}

/// A cluster with something to do, so that the dice do not spend themselves on nothing.
fn begun() -> Bench {
    let mut bench = Bench::new();
    for worker in 1..5 {
        bench.step(vec![Roll::Register { worker, devices: 1 + worker as u32 % 2 }]);
    }
    let first = Roll::Submit { tasks: 20, partitions: 2, joins: 0, max_attempts: 4, goes_on: true, rounds: 0, gang: 0 };
    bench.step(vec![first, Roll::Plan]);
    bench.step(vec![Roll::Submit { tasks: 3, partitions: 2, joins: 2, max_attempts: 9, goes_on: false, rounds: 0, gang: 0 }, Roll::Plan]);
    bench
}

/// What a run reached, so that agreement about nothing is not taken for agreement.
#[derive(Default)]
struct Reached {
    wins: u64,
    fenced: u64,
    set_aside: u64,
    generations: u64,
    published: u64,
    quarantines: u64,
    killers: u64,
    rounds: u64,
    gangs: u64,
    in_vain: u64,
    /// Jobs of several stages that came to their output, and those of which parts were made again together with what they were made from.
    joined: u64,
    made_again: u64,
}

impl Reached {
    fn look(&mut self, bench: &Bench) {
        for job in bench.model.jobs.values() {
            let stages = || job.stages.iter();
            self.wins += stages().map(|s| s.wins).sum::<u64>();
            self.fenced += stages().map(|s| s.fenced).sum::<u64>();
            self.generations += stages().map(|s| u64::from(s.generation) - 1).sum::<u64>();
            self.rounds += job.ended.len() as u64;
            self.published += u64::from(job.phase == naive::Phase::Done && job.stages.len() == 2);
            let several = job.stages.len() > 2;
            self.joined += u64::from(several && matches!(job.phase, naive::Phase::Publishing | naive::Phase::Done));
            self.made_again += u64::from(several && job.stages[0].generation > 1 && job.stages[1].generation > 1);
        }
        self.in_vain += bench.model.holds.values().map(|hold| u64::from(hold.given_back)).sum::<u64>();
        for job in bench.core.state.jobs.values() {
            let begun = job.stages.iter().zip(&job.spec.stages).filter(|(stage, spec)| spec.gang.is_some() && stage.leases > 0);
            self.gangs += begun.count() as u64;
            for evidence in job.stages.iter().flat_map(|s| s.evidence.values()) {
                self.set_aside += 1;
                self.killers += u64::from(evidence.workers.len() >= 3 && evidence.attempts < job.max_attempts());
            }
        }
        self.quarantines +=
            bench.model.workers.values().filter(|w| w.standing.until > 0 || w.device_standing.values().any(|s| s.until > 0)).count() as u64;
    }
}

#[test]
fn the_core_agrees_with_the_naive_model() {
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    let reached = std::cell::RefCell::new(Reached::default());
    let rolls = prop::collection::vec(prop::collection::vec(roll(), 1..3), 1..160);
    // Always the same dice, because what they must reach is counted; the test below throws new ones every time.
    let dice = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, dice).run(&rolls, |rolls| {
        let mut bench = begun();
        rolls.into_iter().for_each(|together| bench.step(together));
        reached.borrow_mut().look(&bench);
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    let Reached { wins, fenced, set_aside, generations, published, quarantines, killers, rounds, gangs, in_vain, joined, made_again } =
        reached.into_inner();
    println!(
        "{gangs} gangs begun, {in_vain} holds ran out, {wins} wins of second leases, {fenced} results fenced, {set_aside} set aside ({killers} by three workers), {generations} generations, {published} published, {quarantines} quarantines, {rounds} rounds, {joined} joined, {made_again} with parts made again"
    );
    assert!(
        [wins, fenced, set_aside, generations, published, quarantines, killers, rounds, gangs, in_vain, joined, made_again]
            .iter()
            .all(|n| *n > 0),
        "a rule was never tried"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_equals_snapshot_plus_tail_at_every_cut_and_the_model_agrees(rolls in prop::collection::vec(prop::collection::vec(roll(), 1..3), 1..60)) {
        let mut bench = begun();
        rolls.into_iter().for_each(|together| bench.step(together));
        let whole = bench.core.state.to_snapshot();
        for (cut, snapshot) in bench.snapshots.iter().enumerate() {
            let mut state = State::from_snapshot("test", snapshot).unwrap();
            for (n, body) in bench.core.log.iter().enumerate().skip(cut) {
                state.apply(n as u64 + 1, body.clone()).unwrap();
            }
            prop_assert_eq!(&state, &bench.core.state, "cut at {}", cut);
            prop_assert!(state.to_snapshot() == whole, "cut at {}", cut);
        }
    }
}
