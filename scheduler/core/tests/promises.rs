//! What the replicated state promises, one test per promise.

mod support;

use raftwerk_core::{Event, JobId, LeaseId, Outcome, Phase, State, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

fn done(r: &Replica, job: JobId) -> bool {
    matches!(r.state.jobs[&job].phase, Phase::Done { .. })
}

fn sum_to(n: u64) -> u128 {
    (0..u128::from(n)).sum()
}

#[test]
fn a_map_only_job_ends_with_the_exact_sum_of_its_tasks() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 2)]);
    r.register(8, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(100_000));
    r.run();
    assert!(done(&r, job));
    assert_eq!(r.tally(job), sum_to(100_000));
    assert!(r.state.jobs[&job].stages[0].tasks().intervals() == 1, "an ended stage is one interval");
}

#[test]
fn a_result_from_an_ended_lease_changes_nothing() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    r.register(8, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(10));
    let first = r.grant(job, 0, 0, 10, 7).unwrap();
    let late = r.full_report(first);
    r.lose(7);
    let second = r.grant(job, 0, 0, 4, 8).unwrap();
    r.report(7, late.clone());
    assert_eq!(r.tally(job), 0);
    assert_eq!(r.state.jobs[&job].stages[0].fenced, 10);
    r.finish(second);
    r.report(7, late);
    assert_eq!(r.tally(job), sum_to(4), "only the holder's results count");
}

#[test]
fn another_worker_cannot_report_for_the_holder() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    r.register(8, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(10));
    let lease = r.grant(job, 0, 0, 10, 7).unwrap();
    let forged = r.full_report(lease);
    r.report(8, forged);
    assert_eq!(r.state.jobs[&job].stages[0].accepted(), 0);
}

#[test]
fn a_report_that_comes_twice_counts_once() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(10));
    let lease = r.grant(job, 0, 0, 6, 7).unwrap();
    let mut partial = r.full_report(lease);
    partial.final_report = false;
    r.report(7, partial.clone());
    r.report(7, partial);
    assert_eq!(r.tally(job), sum_to(6));
    assert_eq!(r.state.jobs[&job].stages[0].accepted(), 6);
}

#[test]
fn a_stale_placement_is_skipped() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(10));
    assert!(r.grant(job, 0, 0, 10, 7).is_some());
    assert!(r.grant(job, 0, 5, 1, 7).is_none(), "a task that is leased cannot be leased again");
    assert!(r.grant(job, 0, 5, 100, 7).is_none(), "nor one that does not exist");
    assert!(r.grant(job, 1, 0, 1, 7).is_none(), "nor one of a stage that does not exist");
}

#[test]
fn a_submit_and_its_first_grants_share_one_entry() {
    let mut r = Replica::new();
    let session = r.register(7, vec![device(0, "cpu", 1)]);
    let placement = Placement {
        job: Some(placement::Job::SubmittedAt(0)),
        first_task: 0,
        task_count: 1,
        worker: 7,
        session: session.0,
        ..Placement::default()
    };
    let applied = r.apply_all(vec![
        Command::SubmitJob(SubmitJob { spec: Some(map_only(1)), ..SubmitJob::default() }),
        Command::GrantLeases(GrantLeases { placements: vec![placement] }),
    ]);
    assert!(matches!(&applied.outcomes[1], Outcome::Granted { leases, stale: 0 } if leases.len() == 1));
}

#[test]
fn the_same_idempotency_key_is_the_same_job_and_another_payload_is_an_error() {
    let mut r = Replica::new();
    let submit = |hash: &'static [u8]| {
        Command::SubmitJob(SubmitJob { spec: Some(map_only(1)), idempotency_key: "k".into(), payload_sha256: hash.into() })
    };
    assert_eq!(r.apply(submit(b"a")), Outcome::Submitted { job: JobId(1), existing: false });
    assert_eq!(r.apply(submit(b"a")), Outcome::Submitted { job: JobId(1), existing: true });
    assert_eq!(r.apply(submit(b"b")), Outcome::IdempotencyConflict { job: JobId(1) });
    assert_eq!(r.state.jobs.len(), 1);
}

#[test]
fn reduce_waits_for_every_map_task_and_publishing_follows_the_last_part() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_reduce(4, 2));
    let a = r.grant(job, 0, 0, 3, 7).unwrap();
    r.finish(a);
    assert!(r.grant(job, 1, 0, 1, 7).is_none(), "the reduce stage is not open yet");
    let b = r.grant(job, 0, 3, 1, 7).unwrap();
    r.finish(b);
    let c = r.grant(job, 1, 0, 2, 7).unwrap();
    r.finish(c);
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert_eq!(r.state.jobs[&job].parts.len(), 2);
    assert!(matches!(r.apply(Command::CancelJob(CancelJob { job: job.0 })), Outcome::Refused(_)), "the decision is made");
    r.apply(Command::FinishPublish(FinishPublish { job: job.0, error: String::new() }));
    assert!(done(&r, job));
}

#[test]
fn lost_shuffle_data_is_made_again_under_a_new_generation_and_counted_once() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    r.register(8, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_reduce(10, 1));
    let a = r.grant(job, 0, 0, 6, 7).unwrap();
    let b = r.grant(job, 0, 6, 4, 8).unwrap();
    r.finish(a);
    r.finish(b);
    r.lose(7);
    let stage = &r.state.jobs[&job].stages[0];
    assert_eq!((stage.generation, stage.ready(), stage.accepted()), (2, 6, 4), "only what was lost runs again");
    assert!(!r.state.jobs[&job].stages[1].open);
    r.run();
    assert_eq!(r.tally(job), sum_to(10));
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
}

#[test]
fn a_failing_task_fails_the_job_after_its_attempts_with_its_last_words() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(3));
    for _ in 0..4 {
        r.pause_ms = 1_000;
        let lease = r.grant(job, 0, 1, 1, 7).unwrap();
        let failure =
            TaskFailure { first_task: 1, task_count: 1, class: FailureClass::Task.into(), message: "boom".into(), ..Default::default() };
        let report = Report { results: vec![], failures: vec![failure], ..r.full_report(lease) };
        r.report(7, report);
    }
    let Phase::Failed { cause, .. } = &r.state.jobs[&job].phase else { panic!("{:?}", r.state.jobs[&job].phase) };
    assert!(cause.contains("task 1") && cause.contains("4 times") && cause.contains("boom"), "{cause}");
    assert!(r.state.leases.is_empty());
}

#[test]
fn a_stopped_attempt_is_not_charged() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(1));
    for _ in 0..20 {
        let lease = r.grant(job, 0, 0, 1, 7).unwrap();
        let failure = TaskFailure { first_task: 0, task_count: 1, class: FailureClass::Stopped.into(), ..Default::default() };
        let report = Report { results: vec![], failures: vec![failure], ..r.full_report(lease) };
        r.report(7, report);
    }
    r.run();
    assert!(done(&r, job));
}

#[test]
fn a_job_that_no_worker_can_do_fails_with_what_the_last_one_said() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(1));
    let lease = r.grant(job, 0, 0, 1, 7).unwrap();
    let failure = TaskFailure {
        first_task: 0,
        task_count: 1,
        class: FailureClass::Worker.into(),
        message: "/data/x: no such file".into(),
        ..Default::default()
    };
    let report = Report { results: vec![], failures: vec![failure], ..r.full_report(lease) };
    r.report(7, report);
    let Phase::Failed { cause, .. } = &r.state.jobs[&job].phase else { panic!() };
    assert!(cause.contains("/data/x: no such file"), "{cause}");
}

#[test]
fn an_empty_input_is_a_valid_empty_result() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(0));
    assert!(done(&r, job));
    let reduce = r.submit(map_reduce(0, 2));
    r.run();
    assert_eq!(r.state.jobs[&reduce].phase, Phase::Publishing, "empty parts are parts");
}

#[test]
fn software_adapters_work_only_when_asked_for_or_alone() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1), device(1, "software", 1)]);
    let any = r.submit(map_only(50));
    r.run();
    assert!(r.state.jobs[&any].shares.values().all(|s| s.class == "cpu"));
    let mut spec = map_only(50);
    spec.stages[0].device = Some(DeviceRequest { class: "software".into(), ..DeviceRequest::default() });
    let asked = r.submit(spec.clone());
    r.run();
    assert!(r.state.jobs[&asked].shares.values().all(|s| s.class == "software"));
    spec.stages[0].device = Some(DeviceRequest { class: "gpu".into(), ..DeviceRequest::default() });
    let alone = r.submit(spec);
    r.run();
    assert!(done(&r, alone), "nothing else is a GPU");
}

#[test]
fn a_cpu_and_a_gpu_share_one_stage() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 4), device(1, "discrete", 1)]);
    let job = r.submit(map_only(20_000));
    r.run();
    assert_eq!(r.tally(job), sum_to(20_000));
    let tasks = |class: &str| r.state.jobs[&job].shares.values().filter(|s| s.class == class).map(|s| s.tasks).sum::<u64>();
    assert!(tasks("cpu") > 2_000 && tasks("discrete") > 2_000, "cpu {} gpu {}", tasks("cpu"), tasks("discrete"));
}

#[test]
fn ending_a_job_ends_its_leases_and_says_so() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(10));
    let lease = r.grant(job, 0, 0, 5, 7).unwrap();
    let applied = r.apply_all(vec![Command::CancelJob(CancelJob { job: job.0 })]);
    assert!(applied.events.iter().any(|e| matches!(e, Event::LeaseEnded { id, .. } if *id == lease)));
    assert!(applied.events.contains(&Event::JobEnded { job }));
}

#[test]
fn a_new_process_of_a_worker_holds_nothing_of_the_old_one() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_reduce(4, 1));
    let a = r.grant(job, 0, 0, 2, 7).unwrap();
    r.finish(a);
    r.grant(job, 0, 2, 1, 7).unwrap();
    r.register(7, vec![device(0, "cpu", 1)]);
    assert!(r.state.leases.is_empty());
    assert_eq!(r.state.jobs[&job].stages[0].accepted(), 0, "its shuffle data went with it");
}

#[test]
fn an_unknown_command_or_format_stops_the_node() {
    let mut state = State::new("test");
    assert!(state.apply(1, EntryBody { format: raftwerk_core::apply::ENTRY_FORMAT + 1, ..EntryBody::default() }).is_err());
    assert!(state.apply(1, EntryBody { format: 1, at_ms: 0, commands: vec![raftwerk_proto::v1::Command { command: None }] }).is_err());
}

#[test]
fn a_snapshot_of_another_cluster_or_format_is_refused() {
    let bytes = State::new("one").to_snapshot();
    assert!(State::from_snapshot("two", &bytes).unwrap_err().to_string().contains("cluster one"));
    assert!(State::from_snapshot("one", b"\xff\xff").is_err());
    assert!(State::from_snapshot("one", &[]).is_err(), "nothing is not an empty state");
}

#[test]
fn a_million_tasks_in_flight_cost_as_many_intervals_as_leases() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 64)]);
    let job = r.submit(map_only(1_000_000));
    r.plan_and_grant();
    assert!(r.state.jobs[&job].stages[0].tasks().intervals() <= r.state.leases.len() + 1);
    assert!(r.state.to_snapshot().len() < 4096);
}

#[test]
fn lease_ids_are_epoch_index_and_position() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(10));
    let lease = r.grant(job, 0, 0, 5, 7).unwrap();
    assert_eq!(lease, LeaseId { epoch: 0, index: r.index, position: 0 });
    assert_eq!(r.state.leases[&lease].worker, WorkerId(7));
}
