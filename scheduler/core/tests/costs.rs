//! What is learnt from reports, and when: see `cost`.

mod support;

use proptest::prelude::*;
use raftwerk_core::cost::{BELIEVED, Entry, Key, ORDINARY, size_class};
use raftwerk_core::{JobId, Outcome, State, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

fn key(model: &str, footprint: &str, units_per_task: u64) -> Key {
    Key { kernel: format!("{KERNEL}@1"), footprint: footprint.into(), class: size_class(units_per_task), model: model.into() }
}

/// Tasks of so many integers each.
fn sized(tasks: u64, units_per_task: u64) -> JobSpec {
    let mut spec = map_only(tasks);
    let range = IndexRange { start: 0, count: tasks * units_per_task, tasks };
    spec.stages[0].inputs[0].source = Some(stage_input::Source::Range(range));
    spec
}

/// One lease of these tasks, done in this time.
fn run(r: &mut Replica, job: JobId, first: u64, count: u64, worker: u64, busy_ns: u64) {
    let lease = r.grant(job, 0, first, count, worker).expect("ready tasks");
    let report = Report { busy_ns, ..r.full_report(lease) };
    r.report(worker, report);
}

/// Leases of different lengths, each costing 2 ms and 50 us a task.
fn learnt(worker: u64, permille: u64) -> (Replica, JobId) {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(sized(100_000, 100));
    learn_more(&mut r, job, 0, 20, worker, permille);
    (r, job)
}

fn learn_more(r: &mut Replica, job: JobId, first: u64, leases: u64, worker: u64, permille: u64) {
    for n in 0..leases {
        let count = 10 << (n % 6);
        run(r, job, first + n * 1000, count, worker, (2_000_000 + count * 50_000) * permille / 1000);
    }
}

fn entry<'a>(r: &'a Replica, key: &Key) -> &'a Entry {
    r.state.costs.get(key).unwrap_or_else(|| panic!("{key:?} of {:?}", r.state.costs))
}

#[test]
fn every_accepted_lease_is_one_sample_and_the_line_is_found() {
    let (r, _) = learnt(7, 1000);
    let entry = entry(&r, &key("cpu 0", "", 100));
    assert_eq!(entry.samples, 20);
    assert!(entry.line.fixed_ns.abs_diff(2_000_000) < 20_000, "{entry:?}");
    assert!(entry.line.per_unit_fs.abs_diff(500_000_000) < 5_000_000, "{entry:?}");
    assert_eq!(entry.scores.count(), 20 - BELIEVED, "scored only once it was believed");
    assert!(entry.scores.median_permille().is_some_and(|median| median <= 10), "{entry:?}");
}

#[test]
fn a_lease_that_reports_in_parts_is_one_sample_too() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(sized(100, 100));
    let lease = r.grant(job, 0, 0, 30, 7).expect("a lease");
    r.report_some(lease, 0, 10);
    r.report_some(lease, 10, 5);
    assert!(r.state.costs.is_empty() && r.state.leases[&lease].spent.tasks == 15);
    let mut last = r.full_report(lease);
    last.results[0] =
        TaskResults { first_task: 15, task_count: 15, tallies: vec![TallyValues { values: (15..30).collect() }], ..TaskResults::default() };
    (last.busy_ns, last.transfer_ns) = (1_000_000, 500_000);
    let told: u64 = r
        .log
        .iter()
        .flat_map(|e| &e.commands)
        .filter_map(|c| if let Some(Command::ReportResults(r)) = &c.command { Some(r) } else { None })
        .flat_map(|r| &r.reports)
        .map(|r| r.busy_ns)
        .sum();
    r.report(7, last);
    let entry = entry(&r, &key("cpu 0", "", 100));
    assert_eq!((entry.samples, entry.line.at(3000)), (1, told + 1_500_000), "all parts and the transfer");
}

#[test]
fn what_failed_or_was_first_done_elsewhere_teaches_nothing() {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(map_only(100));
    let failed = r.grant(job, 0, 0, 10, 7).expect("a lease");
    r.fail(failed, FailureClass::Task, "boom");
    let slow = r.grant(job, 0, 20, 10, 7).expect("a lease");
    let fast = r.speculate(job, 0, 20, 5, 8).expect("a second lease");
    r.finish(fast);
    let samples = |r: &Replica| r.state.costs.iter().map(|(_, e)| e.samples).sum::<u64>();
    assert_eq!(samples(&r), 1, "the second lease did all of its own");
    r.finish(slow);
    assert_eq!(samples(&r), 1, "half of its tasks were fenced, its time was not");
}

#[test]
fn nothing_is_learnt_and_nothing_new_is_kept_under_an_older_format() {
    let mut r = Replica::new();
    r.format = 3;
    r.register(7, vec![device(0, "cpu", 1)]);
    let mut spec = map_only(100);
    spec.stages[0].footprint = "bins=7".into();
    spec.stages[0].memory = Some(MemoryNeed { fixed_bytes: 1, ..MemoryNeed::default() });
    let job = r.submit(spec.clone());
    assert_eq!(r.state.jobs[&job].spec, map_only(100), "as a build of before has it");
    run(&mut r, job, 0, 10, 7, 1_000);
    assert!(r.state.costs.is_empty() && r.state.workers[&WorkerId(7)].speeds.is_empty());
    let outcome = r.apply(Command::ImportCosts(ImportCosts::default()));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    r.format = 4;
    let job = r.submit(spec.clone());
    assert_eq!(r.state.jobs[&job].spec, spec);
    run(&mut r, job, 0, 10, 7, 1_000);
    assert_eq!(entry(&r, &key("cpu 0", "bins=7", 1)).samples, 1);
}

#[test]
fn what_was_learnt_survives_snapshot_and_replay_with_the_same_hash() {
    let (mut r, job) = learnt(7, 1000);
    let lease = r.grant(job, 0, 90_000, 10, 8).expect("a lease");
    r.report_some(lease, 90_000, 4);
    let snapshot = r.state.to_snapshot();
    let mut resumed = State::from_snapshot("test", &snapshot).expect("a snapshot");
    assert_eq!(resumed, r.state);
    let at = r.index;
    learn_more(&mut r, job, 20_000, 15, 7, 3000);
    r.lose(8);
    for (n, body) in r.log.iter().enumerate().skip(at as usize) {
        resumed.apply(n as u64 + 1, body.clone()).expect("a known entry");
    }
    assert_eq!(resumed.hash(), r.state.hash());
    let mut replayed = State::new("test");
    for (n, body) in r.log.iter().enumerate() {
        replayed.apply(n as u64 + 1, body.clone()).expect("a known entry");
    }
    assert_eq!(replayed.hash(), r.state.hash());
    assert!(!r.state.costs.is_empty() && !r.state.workers[&WorkerId(7)].speeds.is_empty());
}

#[test]
fn a_device_that_becomes_three_times_slower_is_known_to_be_and_its_model_stays_what_it_was() {
    let (mut r, job) = learnt(7, 1000);
    let speed = |r: &Replica| r.state.workers[&WorkerId(7)].speeds[&0].permille;
    assert!(speed(&r).abs_diff(ORDINARY) < 30, "{}", speed(&r));
    learn_more(&mut r, job, 30_000, 5, 7, 3000);
    assert!((2_300..3_300).contains(&speed(&r)), "{}", speed(&r));
    learn_more(&mut r, job, 40_000, 20, 7, 3000);
    let line = entry(&r, &key("cpu 0", "", 100)).line;
    let ordinary = speed(&r) * line.at(100_000) / 1000;
    let really = 3 * 52_000_000;
    assert!(ordinary.abs_diff(really) < really / 10, "{ordinary} {really}: {line:?}");
    // A new process on the same device is as slow; one on another device is not.
    let known = speed(&r);
    r.register(7, vec![device(0, "cpu", 1)]);
    assert_eq!(speed(&r), known);
    r.register(7, vec![device(0, "integrated", 1)]);
    assert!(r.state.workers[&WorkerId(7)].speeds.is_empty());
}

/// Leases of which two in five take half as long again: what lies beside the line must not move line and speed apart.
#[test]
fn the_line_of_a_lone_device_is_what_it_takes_however_long_it_teaches() {
    let (mut r, job) = learnt(7, 1000);
    for n in 0..400u64 {
        let permille = if n % 5 < 2 { 1500 } else { 1000 };
        run(&mut r, job, 30_000 + n * 40, 40, 7, 4_000_000 * permille / 1000);
    }
    let line = entry(&r, &key("cpu 0", "", 100)).line.at(4_000);
    assert!((3_500_000..6_500_000).contains(&line), "{line}");
    let speed = r.state.workers[&WorkerId(7)].speeds[&0].permille;
    assert!((700..1500).contains(&speed), "{speed}");
}

#[test]
fn one_throttled_device_of_three_leaves_its_model_what_it_was() {
    let mut r = Replica::new();
    for worker in 7..10 {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(sized(100_000, 100));
    for n in 0..300u64 {
        let (worker, times) = (7 + n % 3, if n % 3 == 0 && n > 60 { 3 } else { 1 });
        run(&mut r, job, n * 100, 20, worker, 3_000_000 * times * (900 + n * 7919 % 201) / 1000);
    }
    let line = entry(&r, &key("cpu 0", "", 100)).line.at(2_000);
    assert!((2_500_000..3_500_000).contains(&line), "{line}");
    let speed = |worker| r.state.workers[&WorkerId(worker)].speeds[&0].permille;
    assert!((2_300..3_700).contains(&speed(7)), "{}", speed(7));
    assert!((800..1_250).contains(&speed(8)) && (800..1_250).contains(&speed(9)), "{} {}", speed(8), speed(9));
}

#[test]
fn costs_are_imported_whole_or_not_at_all() {
    let (r, _) = learnt(7, 1000);
    let exported = r.state.costs.to_wire();
    let mut other = Replica::new();
    assert_eq!(other.apply(Command::ImportCosts(ImportCosts { costs: exported.clone() })), Outcome::Done);
    let key = key("cpu 0", "", 100);
    assert_eq!(entry(&other, &key).line, entry(&r, &key).line);
    assert!(entry(&other, &key).is_believed());
    let mut spoilt = exported.clone();
    spoilt.push(CostRecord { kernel: "other@1".into(), ..CostRecord::default() });
    let refused = other.apply(Command::ImportCosts(ImportCosts { costs: spoilt }));
    assert!(matches!(&refused, Outcome::Refused(why) if why.contains("other@1")), "{refused:?}");
    let twice = [exported.clone(), exported].concat();
    let refused = other.apply(Command::ImportCosts(ImportCosts { costs: twice }));
    assert!(matches!(&refused, Outcome::Refused(why) if why.contains("twice")), "{refused:?}");
    assert_eq!(other.state.costs.len(), 1);
}

#[test]
fn a_footprint_that_is_too_long_is_refused() {
    let mut r = Replica::new();
    let mut spec = map_only(3);
    spec.stages[0].footprint = "f".repeat(201);
    let refused = r.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() }));
    assert!(matches!(&refused, Outcome::Refused(why) if why.contains("at most 200 bytes")), "{refused:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_report_however_absurd_makes_learning_panic(reports in prop::collection::vec((any::<u64>(), any::<u64>(), 1u64..200), 1..40)) {
        let edge = |n: u64| match n % 5 { 0 => u64::MAX, 1 => 0, 2 => 1, _ => n };
        let mut r = Replica::new();
        r.register(7, vec![device(0, "cpu", 3)]);
        let job = r.submit(sized(100_000, 1 << 40));
        for (n, (busy, transfer, count)) in reports.into_iter().enumerate() {
            let lease = r.grant(job, 0, n as u64 * 1000, count, 7).expect("a lease");
            let report = Report { busy_ns: edge(busy), transfer_ns: edge(transfer), input_bytes: edge(busy ^ transfer), ..r.full_report(lease) };
            r.report(7, report);
            r.plan();
        }
    }
}
