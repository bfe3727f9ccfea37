//! Random commands, sensible and absurd: the promises hold after each, and replay gives the same state as snapshot plus tail.

mod support;

use proptest::prelude::*;
use raftwerk_core::{LeaseId, State, invariants};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

#[derive(Clone, Debug)]
enum Step {
    Register(u64),
    Submit { tasks: u64, partitions: u32, key: u8 },
    Cancel(u64),
    Grant { job: u64, stage: u32, first: u64, count: u64, worker: u64 },
    Plan,
    Pause(u64),
    Suspect(u64),
    Report { nth: usize, from: u64, first: u64, count: u64, class: i32, last: bool },
    End(usize),
    Lose(u64),
    FinishPublish { job: u64, fails: bool },
    RemakeParts { job: u64, partition: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1u64..4).prop_map(Step::Register),
        1 => (0u64..20, 0u32..3, 0u8..3).prop_map(|(tasks, partitions, key)| Step::Submit { tasks, partitions, key }),
        1 => (0u64..4).prop_map(Step::Cancel),
        3 => (0u64..4, 0u32..6, 0u64..20, 0u64..8, 1u64..4).prop_map(|(job, stage, first, count, worker)| Step::Grant { job, stage, first, count, worker }),
        4 => Just(Step::Plan),
        2 => (0u64..40_000).prop_map(Step::Pause),
        2 => (0u64..4).prop_map(Step::Suspect),
        8 => (0usize..6, 1u64..4, 0u64..20, 1u64..20, -1i32..9, any::<bool>())
            .prop_map(|(nth, from, first, count, class, last)| Step::Report { nth, from, first, count, class, last }),
        1 => (0usize..6).prop_map(Step::End),
        1 => (1u64..4).prop_map(Step::Lose),
        1 => (0u64..4, any::<bool>()).prop_map(|(job, fails)| Step::FinishPublish { job, fails }),
        1 => (0u64..4, 0u32..3).prop_map(|(job, partition)| Step::RemakeParts { job, partition }),
    ]
}

fn command(replica: &mut Replica, step: Step) -> Command {
    let leases = replica.state.leases.clone();
    let nth = |n: usize| leases.keys().nth(n % leases.len().max(1)).copied();
    match step {
        Step::Register(worker) => {
            let devices = vec![device(0, "cpu", 2), device(1, "software", 1)];
            Command::RegisterWorker(RegisterWorker { worker, hello: Some(hello("w", replica.index, devices)) })
        }
        Step::Submit { tasks, partitions, key } => {
            let mut spec = match (partitions, key) {
                (0, _) => map_only(tasks),
                // Two jobs in three of two partitions have five stages; in one of them each part lies at two workers.
                (2, 1 | 2) => joined(tasks % 7, 2, 1 + tasks as u32 % 3),
                _ => map_reduce(tasks, partitions),
            };
            if partitions == 2 && key == 2 {
                spec.stages[1].shuffle_replicas = 2;
            }
            if tasks % 5 == 3 {
                let before = replica.state.jobs.keys().next_back().map_or(1, |job| job.0);
                spec.after = Some(StartAfter { jobs: vec![before.to_string()], any: tasks % 2 == 0 });
            }
            if key == 2 {
                spec.set_on_set_aside(OnSetAside::Continue);
            }
            if partitions == 1 && key != 2 {
                spec.rounds = Some(Rounds { max: 1 + tasks as u32 % 4, all: tasks % 2 == 0 });
            }
            let idempotency_key = if key == 0 { String::new() } else { key.to_string() };
            Command::SubmitJob(SubmitJob { spec: Some(spec), idempotency_key, payload_sha256: vec![tasks as u8].into() })
        }
        Step::Cancel(job) => Command::CancelJob(CancelJob { job }),
        Step::Grant { job, stage, first, count, worker } => {
            let session = replica.state.workers.get(&raftwerk_core::WorkerId(worker)).map_or(0, |w| w.session.0);
            let placement = Placement {
                job: Some(placement::Job::Id(job)),
                stage,
                first_task: first,
                task_count: count,
                worker,
                session,
                ..Placement::default()
            };
            let again = Placement { speculative: true, ..placement };
            Command::GrantLeases(GrantLeases { placements: vec![placement, again] })
        }
        Step::Pause(ms) => {
            replica.pause_ms = ms;
            Command::MintId(MintId::default())
        }
        Step::Suspect(worker) => {
            replica.suspects = [raftwerk_core::WorkerId(worker)].into();
            Command::EndQuarantine(EndQuarantine { worker })
        }
        Step::Plan => Command::GrantLeases(GrantLeases { placements: replica.plan() }),
        Step::Report { nth: n, from, first, count, class, last } => {
            let id = nth(n).unwrap_or(LeaseId { epoch: 0, index: 1, position: 0 });
            let mut report = match replica.state.leases.get(&id) {
                Some(_) => replica.full_report(id),
                None => Report { lease: Some(id.into()), job: 1, ..Report::default() },
            };
            report.final_report = last;
            // Some reports name a second place: a present worker, itself, or one that was never seen.
            report.copy_worker = first % 5;
            let named = replica.state.workers.get(&raftwerk_core::WorkerId(report.copy_worker));
            report.copy_incarnation = named.map_or(0, |w| w.hello.incarnation);
            if class > 0 {
                report.results.clear();
                let failure = TaskFailure { first_task: first, task_count: count, class, message: "x".into(), source_worker: from };
                report.failures.push(failure);
            } else if class < 0 {
                for results in &mut report.results {
                    results.task_count = count;
                }
            }
            let worker = replica.state.leases.get(&id).map_or(from, |l| if from == 3 { from } else { l.worker.0 });
            Command::ReportResults(ReportResults { worker, session: 0, reports: vec![report] })
        }
        Step::End(n) => Command::EndLeases(EndLeases { leases: nth(n).into_iter().map(Into::into).collect(), reason: String::new() }),
        Step::Lose(worker) => {
            let session = replica.state.workers.get(&raftwerk_core::WorkerId(worker)).map_or(0, |w| w.session.0);
            Command::LoseWorker(LoseWorker { worker, session, reason: String::new() })
        }
        Step::RemakeParts { job, partition } => {
            let part = LostPart { partition, reason: "x".into(), ..LostPart::default() };
            Command::RemakeParts(RemakeParts { job, parts: vec![part] })
        }
        Step::FinishPublish { job, fails } => {
            Command::FinishPublish(FinishPublish { job, error: if fails { "full".into() } else { String::new() } })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn promises_hold_after_every_command_and_replay_equals_snapshot_plus_tail(steps in prop::collection::vec(step(), 1..80), at in 0usize..80) {
        let mut replica = Replica::new();
        let mut snapshot = None;
        for (n, step) in steps.into_iter().enumerate() {
            let command = command(&mut replica, step);
            // `apply_all` checks every invariant.
            replica.apply_all(vec![command]);
            if n == at {
                snapshot = Some((replica.index, replica.state.to_snapshot()));
            }
            for job in replica.state.jobs.values() {
                // Values are task numbers, so a task counted twice or a stranger's value shows.
                if job.stages[0].is_complete() && job.stages[0].set_aside() == 0 {
                    let n = u128::from(job.stages[0].tasks().len());
                    prop_assert_eq!(job.stages[0].tallies[0], n * n.saturating_sub(1) / 2);
                }
            }
        }
        let mut replayed = State::new("test");
        for (n, body) in replica.log.iter().enumerate() {
            replayed.apply(n as u64 + 1, body.clone()).unwrap();
        }
        prop_assert_eq!(replayed.hash(), replica.state.hash());
        if let Some((index, bytes)) = snapshot {
            let mut resumed = State::from_snapshot("test", &bytes).unwrap();
            for (n, body) in replica.log.iter().enumerate().skip(index as usize) {
                resumed.apply(n as u64 + 1, body.clone()).unwrap();
            }
            invariants::check(&resumed).map_err(TestCaseError::fail)?;
            prop_assert_eq!(resumed.hash(), replica.state.hash());
        }
    }
}
