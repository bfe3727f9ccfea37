//! The log outlives the code: committed logs of each format still give the committed snapshots, byte for byte.
//!
//! A change that breaks this test breaks every running cluster. A new format gets new files; these stay.
//! `RAFTWERK_WRITE_GOLDEN=2 cargo test -p raftwerk-core --test golden` writes those of one format anew (before its first release only).

#![allow(clippy::disallowed_methods)] // fixtures are files; the ban is for the core itself

mod support;

use prost::Message;
use raftwerk_core::State;
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use std::path::PathBuf;
use support::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// Every command once, on the way to every phase.
fn history_1() -> Replica {
    let mut r = Replica::new();
    r.format = 1;
    r.register(7, vec![device(0, "cpu", 2), device(1, "discrete", 1)]);
    r.register(8, vec![device(0, "cpu", 1)]);
    r.apply(Command::MintId(MintId { kind: "worker".into(), name: "w9".into() }));
    r.apply(Command::SubmitJob(SubmitJob { spec: Some(map_only(1000)), idempotency_key: "k".into(), payload_sha256: vec![1, 2].into() }));
    r.plan_and_grant();
    let reduced = r.submit(map_reduce(6, 2));
    let a = r.grant(reduced, 0, 0, 4, 7).unwrap();
    let b = r.grant(reduced, 0, 4, 2, 8).unwrap();
    r.finish(a);
    r.finish(b);
    r.lose(8);
    let cancelled = r.submit(map_only(5));
    r.apply(Command::CancelJob(CancelJob { job: cancelled.0 }));
    let failed = r.submit(map_only(5));
    r.apply(Command::FailJob(FailJob { job: failed.0, cause: "asked to".into() }));
    let lease = *r.state.leases.keys().next().unwrap();
    let failure =
        TaskFailure { first_task: 0, task_count: 2, class: FailureClass::Task.into(), message: "boom".into(), ..Default::default() };
    let report = Report { results: vec![], failures: vec![failure], final_report: false, ..r.full_report(lease) };
    r.report(7, report);
    r.apply(Command::EndLeases(EndLeases { leases: vec![lease.into()], reason: "test".into() }));
    let done = r.submit(map_reduce(0, 1));
    let last = r.grant(done, 1, 0, 1, 7).unwrap();
    r.finish(last);
    r.apply(Command::FinishPublish(FinishPublish { job: done.0, error: String::new() }));
    r
}

/// What format 2 brought: second leases, pauses, suspicion, tasks set aside, quarantine.
fn history_2() -> Replica {
    let mut r = Replica::new();
    r.format = 2;
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 2)]);
    }
    let going_on = |mut spec: JobSpec| {
        spec.set_on_set_aside(OnSetAside::Continue);
        spec
    };
    let raced = r.submit(going_on(map_reduce(40, 2)));
    let slow = r.grant(raced, 0, 0, 20, 7).unwrap();
    let fast = r.speculate(raced, 0, 5, 10, 8).unwrap();
    r.report_some(fast, 10, 5);
    r.report_some(slow, 0, 6);
    let died = r.grant(raced, 0, 20, 4, 9).unwrap();
    r.fail(died, FailureClass::Executor, "the executor died (signal 6)");
    let long = r.submit(map_only(1000));
    let failed = r.grant(long, 0, 100, 500, 9).unwrap();
    r.fail(failed, FailureClass::Task, "boom");
    let hopeless = r.submit(going_on(JobSpec { max_attempts: 1, ..map_only(3) }));
    let lease = r.grant(hopeless, 0, 1, 1, 9).unwrap();
    r.fail(lease, FailureClass::Task, "bad record");
    for worker in [8, 8, 8, 9, 9] {
        let job = r.submit(map_only(2));
        let lease = r.grant(job, 0, 0, 1, worker).unwrap();
        r.fail(lease, if worker == 8 { FailureClass::Worker } else { FailureClass::Device }, "No space left on device");
    }
    r.apply(Command::EndQuarantine(EndQuarantine { worker: 8 }));
    r.pause_ms = 1_000;
    r.plan_and_grant();
    r
}

fn replays_to_its_snapshot(format: u32, history: fn() -> Replica) {
    let (log, snapshot) = (fixture(&format!("log-v{format}.bin")), fixture(&format!("snapshot-v{format}.bin")));
    if std::env::var_os("RAFTWERK_WRITE_GOLDEN").is_some_and(|wanted| wanted == *format.to_string()) {
        let r = history();
        let bytes: Vec<u8> = r.log.iter().flat_map(|body| body.encode_length_delimited_to_vec()).collect();
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, bytes).unwrap();
        std::fs::write(&snapshot, r.state.to_snapshot()).unwrap();
    }
    let bytes = std::fs::read(&log).expect("the golden log");
    let mut rest = bytes.as_slice();
    let mut state = State::new("test");
    let mut index = 0;
    while !rest.is_empty() {
        index += 1;
        let body = EntryBody::decode_length_delimited(&mut rest).expect("a decodable entry");
        state.apply(index, body).expect("a known command");
    }
    let golden = std::fs::read(&snapshot).expect("the golden snapshot");
    assert!(state.to_snapshot() == golden, "format {format} no longer means what it meant");
    assert_eq!(State::from_snapshot("test", &golden).expect("a known snapshot"), state);
    assert_eq!(Snapshot::decode(golden.as_slice()).expect("a snapshot").format, format, "the lowest format that can say it");
}

#[test]
fn the_log_of_format_1_gives_the_snapshot_of_format_1() {
    replays_to_its_snapshot(1, history_1);
}

#[test]
fn the_log_of_format_2_gives_the_snapshot_of_format_2() {
    replays_to_its_snapshot(2, history_2);
}
