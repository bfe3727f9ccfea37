//! The log outlives the code: a committed log still gives the committed snapshot, byte for byte.
//!
//! A change that breaks this test breaks every running cluster. A new format gets new files; these stay.
//! `RAFTWERK_WRITE_GOLDEN=1 cargo test -p raftwerk-core --test golden` writes those that are missing (for a new format or new commands only).

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

/// Commands and fields that came with format 2: places of shuffle data, and parts lost after the decision.
fn history_of_lost_data() -> Replica {
    let mut r = Replica::new();
    r.format = 2;
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let mut spec = map_reduce(6, 2);
    spec.stages[0].shuffle_replicas = 2;
    let job = r.submit(spec);
    for (first, worker, copy) in [(0, 7, 8), (2, 8, 9), (4, 9, 0)] {
        let lease = r.grant(job, 0, first, 2, worker).unwrap();
        let incarnation = r.state.workers.get(&raftwerk_core::WorkerId(copy)).map_or(0, |w| w.hello.incarnation);
        let report = Report { copy_worker: copy, copy_incarnation: incarnation, ..r.full_report(lease) };
        r.report(worker, report);
    }
    r.lose(8);
    let lease = r.grant(job, 1, 0, 2, 7).unwrap();
    r.finish(lease);
    let lost = LostPart { partition: 1, staged_name: String::new(), reason: "is missing".into() };
    r.apply(Command::RemakeParts(RemakeParts { job: job.0, parts: vec![lost] }));
    r
}

/// Results that stay on workers.
fn history_of_kept_results() -> Replica {
    let mut r = Replica::new();
    r.format = 3;
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let mut spec = map_reduce(2, 2);
    spec.output = Some(OutputSpec { url: "worker:".into(), format: "csv".into(), copies: 2, ..OutputSpec::default() });
    for _ in 0..2 {
        let job = r.submit(spec.clone());
        let map = r.grant(job, 0, 0, 2, 7).unwrap();
        r.finish(map);
        let lease = r.grant(job, 1, 0, 2, 8).unwrap();
        r.finish(lease);
        let parts = [0, 1].map(|partition| PartName { partition, staged_name: String::new() });
        r.apply(Command::RecordKept(RecordKept { job: job.0, worker: 9, parts: parts.to_vec() }));
        r.apply(Command::FinishPublish(FinishPublish { job: job.0, error: String::new() }));
    }
    r.lose(8);
    r.apply(Command::RecordKept(RecordKept { job: 1, worker: 7, parts: vec![PartName::default()] }));
    r.apply(Command::DropResult(DropResult { job: 2 }));
    r
}

/// Keepers that say what they have lost: one finds it again, one is replaced, and of one part nobody has a copy.
fn history_of_kept_losses() -> Replica {
    let mut r = Replica::new();
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let mut spec = map_reduce(2, 4);
    spec.output = Some(OutputSpec { url: "worker:".into(), format: "csv".into(), copies: 2, ..OutputSpec::default() });
    let job = r.submit(spec).0;
    let map = r.grant(raftwerk_core::JobId(job), 0, 0, 2, 7).unwrap();
    r.finish(map);
    let lease = r.grant(raftwerk_core::JobId(job), 1, 0, 4, 8).unwrap();
    r.finish(lease);
    let parts = |partitions: &[u32]| partitions.iter().map(|n| PartName { partition: *n, staged_name: String::new() }).collect::<Vec<_>>();
    r.apply(Command::RecordKept(RecordKept { job, worker: 9, parts: parts(&[0, 1, 2, 3]) }));
    r.apply(Command::FinishPublish(FinishPublish { job, error: String::new() }));
    r.apply(Command::LoseKept(LoseKept { job, worker: 8, parts: parts(&[0, 1, 2]) }));
    r.apply(Command::RecordKept(RecordKept { job, worker: 8, parts: parts(&[0]) }));
    r.apply(Command::RecordKept(RecordKept { job, worker: 7, parts: parts(&[1]) }));
    r.apply(Command::LoseKept(LoseKept { job, worker: 9, parts: parts(&[2, 3]) }));
    r
}

/// A second copy of shuffle data that is made again.
fn history_of_copies_made_again() -> Replica {
    let mut r = Replica::new();
    r.format = 3;
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let mut spec = map_reduce(4, 2);
    spec.stages[0].shuffle_replicas = 2;
    let job = r.submit(spec);
    let lease = r.grant(job, 0, 0, 3, 7).unwrap();
    r.finish(lease);
    let [holder, taker] = [7, 8].map(|worker| r.state.workers[&raftwerk_core::WorkerId(worker)].clone());
    let tasks = vec![TaskPiece { first_task: 1, task_count: 2 }];
    let copied = CopiedAgain { job: job.0, stage: 0, generation: 1, tasks, copy_worker: 8, copy_incarnation: taker.hello.incarnation };
    r.apply(Command::RecordCopies(RecordCopies { worker: 7, session: holder.session.0, copied: Some(copied) }));
    r
}

/// What format 3 brought: a log that says so, in the middle of it, and drained workers.
fn history_3() -> Replica {
    let mut r = Replica::new();
    r.format = 2;
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(map_only(40));
    r.grant(job, 0, 0, 4, 7).unwrap();
    r.apply(Command::DrainWorker(DrainWorker { worker: 8 })); // not under this format
    r.format = 3;
    r.apply_all(Vec::new());
    r.apply(Command::DrainWorker(DrainWorker { worker: 7 }));
    r.apply(Command::DrainWorker(DrainWorker { worker: 9 }));
    r.plan_and_grant();
    r.apply(Command::EndQuarantine(EndQuarantine { worker: 9 }));
    r
}

/// What format 4 brought: costs that are learnt and imported, devices out of memory, priorities, policies and terms of namespaces; in a log that
/// was of format 3 before.
fn history_4() -> Replica {
    let mut r = Replica::new();
    r.format = 3;
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 2), device(1, "discrete", 1)]);
    }
    let mut spec = map_reduce(4000, 2);
    spec.stages[0].footprint = "bins=7".into();
    spec.stages[0].memory = Some(MemoryNeed { fixed_bytes: 1 << 20, per_task_bytes: 1 << 10, ..MemoryNeed::default() });
    let before = r.submit(spec.clone());
    let lease = r.grant(before, 0, 0, 40, 7).unwrap();
    r.finish(lease);
    r.format = 4;
    let job = r.submit(spec);
    for round in 0..12 {
        for (worker, permille) in [(7, 1000), (8, 3000)] {
            let first = round * 200 + (worker - 7) * 100;
            let count = 10 + round * 7;
            let lease = r.grant(job, 0, first, count, worker).unwrap();
            let busy_ns = (2_000_000 + count * 50_000) * permille / 1000;
            r.report(worker, Report { busy_ns, transfer_ns: 100, ..r.full_report(lease) });
        }
    }
    let cost = CostRecord {
        kernel: "sum@1".into(),
        model: "discrete 1".into(),
        fixed_ns: 5,
        per_unit_fs: 7,
        samples: 30,
        ..CostRecord::default()
    };
    r.apply(Command::ImportCosts(ImportCosts { costs: vec![cost] }));
    let half = r.grant(job, 0, 3000, 50, 7).unwrap();
    r.report_some(half, 3000, 20);
    let terms = NamespaceTerms { weight: 3, max_jobs: 5, max_devices: 2 };
    r.apply(Command::SetNamespace(SetNamespace { name: "other".into(), terms: Some(terms) }));
    r.submit(JobSpec { namespace: "other".into(), priority: 70, policy: "random".into(), ..map_only(300) });
    r.plan_and_grant();
    r
}

/// What format 4 brought for jobs that say which devices they want: labels, wishes, and gangs that hold, give back and start.
fn history_of_matching() -> Replica {
    let mut r = Replica::new();
    r.format = 4;
    for worker in [7, 8, 9] {
        let labels = vec![Label { key: "zone".into(), value: if worker == 9 { "b" } else { "a" }.into() }];
        let hello = Hello { labels, ..hello(&format!("w{worker}"), r.index, vec![device(0, "cpu", 1), device(1, "discrete", 1)]) };
        r.apply(Command::RegisterWorker(RegisterWorker { worker, hello: Some(hello) }));
    }
    let wanted = |value: &str| DeviceMatch {
        class: String::new(),
        vendors: vec![],
        backends: vec![],
        features: vec![],
        memory_bytes: 1 << 20,
        labels: vec![Label { key: "zone".into(), value: value.into() }],
    };
    let mut wishful = map_only(40);
    wishful.stages[0].require = Some(wanted("a"));
    wishful.stages[0].prefer = Some(DeviceMatch { class: "gpu".into(), vendors: vec!["nvidia".into()], ..DeviceMatch::default() });
    r.submit(JobSpec { wait_for_devices: true, ..wishful });
    let ganged = |tasks: u64, devices: u32| {
        let mut spec = map_only(tasks);
        spec.stages[0].gang = Some(Gang { devices, hold_ms: 2_000 });
        spec
    };
    let (whole, partly, in_vain) = (r.submit(ganged(30, 2)), r.submit(ganged(30, 3)), r.submit(ganged(30, 2)));
    let hold = |r: &mut Replica, job: raftwerk_core::JobId, devices: &[(u64, u32)]| {
        let until_ms = r.clock + 1_500;
        let devices = devices.iter().map(|(worker, device)| HeldDevice { worker: *worker, device: *device }).collect();
        r.apply(Command::HoldDevices(HoldDevices { job: job.0, stage: 0, devices, until_ms }));
    };
    hold(&mut r, whole, &[(7, 0), (8, 0)]);
    hold(&mut r, in_vain, &[(9, 0), (8, 0)]);
    let placement = |r: &Replica, first_task: u64, worker: u64| Placement {
        job: Some(placement::Job::Id(whole.0)),
        first_task,
        task_count: 5,
        worker,
        session: r.state.workers[&raftwerk_core::WorkerId(worker)].session.0,
        ..Placement::default()
    };
    let placements = vec![placement(&r, 0, 7), placement(&r, 5, 8)];
    r.apply(Command::StartGang(StartGang { job: whole.0, stage: 0, placements }));
    r.pause_ms = 2_000;
    let until_ms = r.state.gangs()[&(in_vain, 0)].until.0;
    r.apply(Command::ReleaseHold(ReleaseHold { job: in_vain.0, stage: 0, until_ms }));
    hold(&mut r, partly, &[(7, 1), (9, 1)]);
    r.plan_and_grant();
    r
}

/// What format 4 brought for jobs with rounds: one in its second round, with late results of the first, one that has converged, and one whose rounds
/// begin as gangs.
fn history_of_rounds() -> Replica {
    let mut r = Replica::new();
    r.format = 4;
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let in_rounds = |max: u32, all: bool| JobSpec { rounds: Some(Rounds { max, all }), ..map_reduce(4, 1) };
    let run_map = |r: &mut Replica, job: raftwerk_core::JobId, worker: u64| {
        let lease = r.grant(job, 0, 0, 4, worker).unwrap();
        r.finish(lease);
    };
    let end_round = |r: &mut Replica, lease: raftwerk_core::LeaseId, state: &[u8], converged: bool| {
        let report = r.full_report(lease);
        let measures = vec![Param { name: "moved".into(), value: "12".into() }];
        let end = RoundEnd { state: state.to_vec().into(), converged, measures, ..report.round_end.clone().unwrap() };
        let worker = r.state.leases[&lease].worker.0;
        r.report(worker, Report { round_end: Some(end), ..report });
    };
    let under_way = r.submit(in_rounds(5, true));
    run_map(&mut r, under_way, 7);
    let first = r.grant(under_way, 1, 0, 1, 8).unwrap();
    let second = r.speculate(under_way, 1, 0, 1, 9).unwrap();
    let late = r.full_report(second);
    end_round(&mut r, first, b"one", true);
    r.report(9, late);
    let half = r.grant(under_way, 0, 0, 2, 7).unwrap();
    r.finish(half);
    r.grant(under_way, 0, 2, 2, 8).unwrap();
    let converged = r.submit(in_rounds(9, false));
    for (state, last) in [(b"one".as_slice(), false), (b"two".as_slice(), true)] {
        run_map(&mut r, converged, 9);
        let lease = r.grant(converged, 1, 0, 1, 9).unwrap();
        end_round(&mut r, lease, state, last);
    }
    let mut spec = in_rounds(3, false);
    spec.stages[0].gang = Some(Gang { devices: 2, hold_ms: 5_000 });
    let ganged = r.submit(spec);
    let hold = |r: &mut Replica| {
        let devices = [7, 9].map(|worker| HeldDevice { worker, device: 0 }).to_vec();
        let until_ms = r.clock + 4_000;
        r.apply(Command::HoldDevices(HoldDevices { job: ganged.0, stage: 0, devices, until_ms }));
    };
    hold(&mut r);
    let placement = |r: &Replica, first_task: u64, worker: u64| Placement {
        job: Some(placement::Job::Id(ganged.0)),
        first_task,
        task_count: 2,
        worker,
        session: r.state.workers[&raftwerk_core::WorkerId(worker)].session.0,
        ..Placement::default()
    };
    let placements = vec![placement(&r, 0, 7), placement(&r, 2, 9)];
    r.apply(Command::StartGang(StartGang { job: ganged.0, stage: 0, placements }));
    let begun: Vec<_> = r.state.leases.iter().filter(|(_, lease)| lease.job == ganged).map(|(id, _)| *id).collect();
    assert_eq!(begun.len(), 2);
    begun.into_iter().for_each(|id| r.finish(id));
    let lease = r.grant(ganged, 1, 0, 1, 8).unwrap();
    end_round(&mut r, lease, b"one", false);
    hold(&mut r);
    r
}

/// Jobs of more than two stages: parts between stages, losses with and without readers, and what is made again for them.
fn history_of_stages() -> Replica {
    let mut r = Replica::new();
    r.format = 4;
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let mut spec = joined(4, 2, 3);
    spec.stages[1].shuffle_replicas = 2;
    let job = r.submit(spec);
    let run = |r: &mut Replica, stage: u32, worker: u64, count: u64| {
        let lease = r.grant(job, stage, 0, count, worker).unwrap();
        r.finish(lease);
    };
    run(&mut r, 0, 7, 4);
    run(&mut r, 3, 9, 4);
    let lease = r.grant(job, 1, 0, 2, 8).unwrap();
    let incarnation = r.state.workers[&raftwerk_core::WorkerId(7)].hello.incarnation;
    let report = Report { copy_worker: 7, copy_incarnation: incarnation, ..r.full_report(lease) };
    r.report(8, report);
    r.lose(7);
    run(&mut r, 2, 9, 1);
    r.lose(8);
    r.register(7, vec![device(0, "cpu", 1)]);
    r.plan_and_grant();
    let published = r.submit(joined(0, 1, 1));
    for (stage, count) in [(1, 1), (2, 1), (4, 1)] {
        let lease = r.grant(published, stage, 0, count, 9).unwrap();
        r.finish(lease);
    }
    r.apply(Command::FinishPublish(FinishPublish { job: published.0, error: String::new() }));
    let after = |jobs: &[raftwerk_core::JobId], any| Some(StartAfter { jobs: jobs.iter().map(|job| job.to_string()).collect(), any });
    let ended = r.submit(map_only(3));
    r.submit(JobSpec { after: after(&[ended, published], false), ..map_only(3) });
    r.submit(JobSpec { after: after(&[ended], true), ..map_only(3) });
    r.apply(Command::CancelJob(CancelJob { job: ended.0 }));
    r.submit(JobSpec { after: after(&[job], false), ..map_only(3) });
    r
}

#[test]
fn the_log_with_rounds_gives_its_snapshot() {
    replays("log-v4-rounds.bin", "snapshot-v4-rounds.bin", 4, history_of_rounds);
}

#[test]
fn the_log_with_several_stages_gives_its_snapshot() {
    replays("log-v4-stages.bin", "snapshot-v4-stages.bin", 4, history_of_stages);
}

#[test]
fn the_log_with_matching_gives_its_snapshot() {
    replays("log-v4-matching.bin", "snapshot-v4-matching.bin", 4, history_of_matching);
}

#[test]
fn the_log_of_format_4_gives_the_snapshot_of_format_4() {
    replays("log-v4.bin", "snapshot-v4.bin", 4, history_4);
}

#[test]
fn the_log_with_keepers_that_lost_their_parts_gives_its_snapshot() {
    replays("log-v4-kept-losses.bin", "snapshot-v4-kept-losses.bin", 4, history_of_kept_losses);
}

#[test]
fn the_log_with_copies_made_again_gives_its_snapshot() {
    replays("log-v2-copies-again.bin", "snapshot-v2-copies-again.bin", 2, history_of_copies_made_again);
}

#[test]
fn the_log_with_kept_results_gives_its_snapshot() {
    replays("log-v2-kept-results.bin", "snapshot-v2-kept-results.bin", 2, history_of_kept_results);
}

#[test]
fn the_log_of_format_3_gives_the_snapshot_of_format_3() {
    replays("log-v3.bin", "snapshot-v3.bin", 3, history_3);
}

#[test]
fn the_log_of_format_1_gives_the_snapshot_of_format_1() {
    replays("log-v1.bin", "snapshot-v1.bin", 1, history_1);
}

#[test]
fn the_log_with_lost_data_gives_its_snapshot() {
    replays("log-v2-lost-data.bin", "snapshot-v2-lost-data.bin", 2, history_of_lost_data);
}

#[test]
fn the_log_of_format_2_gives_the_snapshot_of_format_2() {
    replays("log-v2.bin", "snapshot-v2.bin", 2, history_2);
}

fn replays(log: &str, snapshot: &str, written_under: u32, history: fn() -> Replica) {
    let (log, snapshot) = (fixture(log), fixture(snapshot));
    // The files that are there stay.
    if std::env::var_os("RAFTWERK_WRITE_GOLDEN").is_some() && !log.exists() {
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
    assert!(state.to_snapshot() == golden, "{} no longer means what it meant", log.display());
    assert_eq!(State::from_snapshot("test", &golden).expect("a known snapshot"), state);
    let format = Snapshot::decode(golden.as_slice()).expect("a snapshot").format;
    assert_eq!(format, written_under, "the lowest format that can say it");
}
