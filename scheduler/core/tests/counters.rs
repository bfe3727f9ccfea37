//! What tasks say that they have read and made counts once for each task, whatever fails, and as long as nothing is wrong with more records than the
//! job allows.

mod support;

use raftwerk_core::counters::BAD_RECORDS_KEPT;
use raftwerk_core::{JobId, LeaseId, Phase, State};
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::*;
use support::*;

/// Every task reads as many records as its number plus one, on worker 8 a thousand more, and ten bytes.
fn told(report: Report, worker: u64) -> Report {
    let counters = |results: &TaskResults| {
        let records = |task: u64| task + 1 + if worker == 8 { 1000 } else { 0 };
        let tasks = results.first_task..results.first_task + results.task_count;
        TaskCounters { records_in: tasks.map(records).collect(), bytes_in: vec![10], ..TaskCounters::default() }
    };
    let results = report.results.into_iter().map(|results| TaskResults { counters: Some(counters(&results)), ..results });
    Report { results: results.collect(), ..report }
}

fn finish(r: &mut Replica, lease: LeaseId) {
    let worker = r.state.leases[&lease].worker.0;
    let report = told(r.full_report(lease), worker);
    r.report(worker, report);
}

fn counted(r: &Replica, job: JobId) -> (u64, u64) {
    let counters = r.state.jobs[&job].stages[0].counters;
    (counters.records_in, counters.bytes_in)
}

/// Two workers, and all of a job's tasks leased to the first.
fn leased(spec: JobSpec, tasks: u64) -> (Replica, JobId, LeaseId) {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(spec);
    let lease = r.grant(job, 0, 0, tasks, 7).unwrap();
    (r, job, lease)
}

#[test]
fn of_a_race_the_winner_is_counted_task_by_task() {
    let (mut r, job, slow) = leased(map_only(6), 6);
    let fast = r.speculate(job, 0, 0, 6, 8).unwrap();
    let late = told(r.full_report(slow), 7);
    let mut some = told(r.full_report(slow), 7);
    some.final_report = false;
    let results = &mut some.results[0];
    results.task_count = 2;
    results.tallies[0].values.truncate(2);
    results.counters.as_mut().unwrap().records_in.truncate(2);
    r.report(7, some);
    assert_eq!(counted(&r, job), (1 + 2, 20));
    finish(&mut r, fast);
    r.report(7, late);
    assert_eq!(counted(&r, job), (1 + 2 + 1003 + 1004 + 1005 + 1006, 60));
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
}

#[test]
fn a_task_that_runs_again_because_its_data_was_lost_is_not_counted_again() {
    let (mut r, job, lease) = leased(map_reduce(4, 2), 2);
    finish(&mut r, lease);
    assert_eq!(counted(&r, job), (3, 20));
    r.lose(7);
    assert_eq!(counted(&r, job), (3, 20), "what was counted stays");
    let again = r.grant(job, 0, 0, 4, 8).unwrap();
    finish(&mut r, again);
    assert_eq!(counted(&r, job), (3 + 1003 + 1004, 40), "and what is made again adds nothing");
    let state = State::from_snapshot("test", &r.state.to_snapshot()).unwrap();
    assert_eq!(state, r.state);
}

#[test]
fn numbers_of_too_few_tasks_are_no_result_and_entries_of_older_formats_count_nothing() {
    let (mut r, job, lease) = leased(map_only(4), 4);
    let mut short = told(r.full_report(lease), 7);
    short.final_report = false;
    short.results[0].counters.as_mut().unwrap().records_in.pop();
    r.report(7, short);
    assert_eq!((counted(&r, job), r.state.jobs[&job].stages[0].accepted()), ((0, 0), 0));
    finish(&mut r, lease);
    assert_eq!(counted(&r, job), (10, 40));

    let mut r = Replica::new();
    r.format = 3;
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(4));
    let lease = r.grant(job, 0, 0, 4, 7).unwrap();
    finish(&mut r, lease);
    assert_eq!(counted(&r, job), (0, 0));
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
}

/// A job over one file in four splits that may leave out so many records.
fn over_a_file(allowed: u64) -> JobSpec {
    let mut spec = map_only(0);
    let file = InputFile { path: "/data/a.csv".into(), bytes: 40, version: 1, ..InputFile::default() };
    let files = Files { listing: vec![file], format: "csv".into(), split_bytes: 10, bad_records: allowed, ..Files::default() };
    spec.stages[0].inputs[0].source = Some(Source::Files(files));
    spec
}

/// A report whose tasks have all left out `each` records.
fn with_bad(r: &Replica, lease: LeaseId, each: u64) -> Report {
    let report = r.full_report(lease);
    let tasks = report.results[0].first_task..report.results[0].first_task + report.results[0].task_count;
    let bad = |task: u64, n: u64| BadRecord {
        task,
        path: "/data/a.csv".into(),
        offset: task * 10 + n,
        line: task + n + 1,
        reason: "it has 1 cells".into(),
        ..BadRecord::default()
    };
    let bad_records = tasks.flat_map(|task| (0..each.min(100)).map(move |n| (task, n))).map(|(task, n)| bad(task, n)).collect();
    let counters = Some(TaskCounters { bad_records: vec![each], ..TaskCounters::default() });
    let results = report.results.into_iter().map(|results| TaskResults { counters: counters.clone(), ..results }).collect();
    Report { results, bad_records, ..report }
}

#[test]
fn as_many_bad_records_as_are_allowed_are_kept_aside_and_one_more_fails_the_job() {
    let (mut r, job, first) = leased(over_a_file(8), 2);
    let report = with_bad(&r, first, 2);
    r.report(7, report.clone());
    assert_eq!(r.state.jobs[&job].stages[0].bad_records.len(), 4);
    r.report(7, report);
    assert_eq!(r.state.jobs[&job].stages[0].counters.bad_records, 4, "nothing of a lease that has ended counts");
    let second = r.grant(job, 0, 2, 2, 8).unwrap();
    let report = with_bad(&r, second, 2);
    r.report(8, report);
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
    let view = r.state.job_view(job).unwrap();
    assert_eq!(view.bad_records.iter().map(|bad| (bad.stage.as_str(), bad.task)).collect::<Vec<_>>()[3..5], [("map", 1), ("map", 2)]);
    assert_eq!(State::from_snapshot("test", &r.state.to_snapshot()).unwrap(), r.state);

    let (mut r, job, all) = leased(over_a_file(7), 4);
    let report = with_bad(&r, all, 2);
    r.report(7, report);
    let Phase::Failed { cause, .. } = &r.state.jobs[&job].phase else { panic!("{:?}", r.state.jobs[&job].phase) };
    assert_eq!(
        cause,
        "8 records of the input of stage 'map' cannot be read so far, and bad_records = 7 allows no more; the first: /data/a.csv line 1 \
         (byte 0): it has 1 cells; /data/a.csv line 2 (byte 1): it has 1 cells; /data/a.csv line 2 (byte 10): it has 1 cells"
    );
}

#[test]
fn a_task_that_fails_for_good_leaves_the_records_that_are_to_blame() {
    for (class, kept) in [(FailureClass::Fatal, 2), (FailureClass::Input, 2), (FailureClass::Task, 0), (FailureClass::Device, 0)] {
        let (mut r, job, all) = leased(over_a_file(7), 4);
        let mut report = with_bad(&r, all, 2);
        let failure = TaskFailure { first_task: 1, task_count: 1, class: class.into(), message: "unread".into(), ..TaskFailure::default() };
        // Nothing of tasks that it says nothing of, nor of those that it does not hold.
        let elsewhere = TaskFailure { first_task: 4, task_count: 9, ..failure.clone() };
        report.bad_records.push(BadRecord { task: 5, ..BadRecord::default() });
        r.report(7, Report { results: Vec::new(), failures: vec![failure, elsewhere], ..report });
        let view = r.state.job_view(job).unwrap();
        assert_eq!(view.bad_records.iter().filter(|bad| bad.task == 1).count(), kept, "{class:?}");
        assert_eq!(view.bad_records.len(), kept, "{class:?}");
        assert_eq!(r.state.jobs[&job].stages[0].counters.bad_records, 0, "counters are of accepted tasks");
    }
}

#[test]
fn of_many_bad_records_the_first_of_the_input_are_kept() {
    let (mut r, job, late) = leased(over_a_file(10_000), 4);
    let early = r.speculate(job, 0, 0, 2, 8).unwrap();
    for lease in [late, early] {
        let tasks = if lease == late { 2..4 } else { 0..2 };
        let mut report = with_bad(&r, lease, 500);
        report.final_report = false;
        report.bad_records.retain(|bad| tasks.contains(&bad.task));
        let results = &mut report.results[0];
        (results.first_task, results.task_count) = (tasks.start, 2);
        results.tallies[0].values.truncate(2);
        let worker = r.state.leases[&lease].worker.0;
        r.report(worker, report);
    }
    let stage = &r.state.jobs[&job].stages[0];
    assert_eq!((stage.counters.bad_records, stage.bad_records.len()), (2000, BAD_RECORDS_KEPT));
    assert!(stage.bad_records.values().all(|bad| bad.task == 0), "whichever lease was the first to report");
}
