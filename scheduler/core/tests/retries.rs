//! Failed tasks: pauses, suspicion, setting aside, quarantine.

mod support;

use raftwerk_core::stage::TaskState;
use raftwerk_core::{Event, JobId, LeaseId, Outcome, Phase, State, Timestamp, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use std::collections::BTreeSet;
use support::*;

fn workers(count: u64, parallelism: u32) -> Replica {
    let mut r = Replica::new();
    for worker in 0..count {
        r.register(7 + worker, vec![device(0, "cpu", parallelism)]);
    }
    r
}

fn going_on(mut spec: JobSpec) -> JobSpec {
    spec.set_on_set_aside(OnSetAside::Continue);
    spec
}

fn done(r: &Replica, job: JobId) -> bool {
    matches!(r.state.jobs[&job].phase, Phase::Done { .. })
}

fn cause(r: &Replica, job: JobId) -> String {
    match &r.state.jobs[&job].phase {
        Phase::Failed { cause, .. } => cause.clone(),
        other => panic!("{other:?}"),
    }
}

/// Plans and runs everything; a lease that holds the poisoned task kills its executor, and with it `beside` other tasks of the lease.
/// Returns the workers that it killed on, in order.
fn run_with_poison(r: &mut Replica, poisoned: u64, beside: u64) -> Vec<u64> {
    let mut killed = Vec::new();
    for _ in 0..1000 {
        r.plan_and_grant();
        let Some(id) = r.state.leases.keys().next().copied() else {
            if r.state.active_jobs().all(|j| j.phase != Phase::Running) {
                return killed;
            }
            r.pause_ms = 20_000;
            continue;
        };
        let lease = r.state.leases[&id].clone();
        if !(lease.tasks.first <= poisoned && poisoned < lease.tasks.end) {
            r.finish(id);
            continue;
        }
        killed.push(lease.worker.0);
        let first = poisoned.saturating_sub(beside).max(lease.tasks.first);
        let end = (poisoned + beside + 1).min(lease.tasks.end);
        let failure = |first_task, task_count, class: FailureClass| TaskFailure {
            first_task,
            task_count,
            class: class.into(),
            message: "the executor died (signal 11): segfault".into(),
            source_worker: 0,
        };
        let failures = vec![
            failure(first, end - first, FailureClass::Executor),
            failure(lease.tasks.first, first - lease.tasks.first, FailureClass::Stopped),
            failure(end, lease.tasks.end - end, FailureClass::Stopped),
        ];
        let report = Report { results: vec![], failures, parts: vec![], ..r.full_report(id) };
        r.report(lease.worker.0, report);
    }
    panic!("it never ends");
}

#[test]
fn a_failed_task_waits_longer_each_time() {
    let mut r = workers(1, 1);
    let job = r.submit(map_only(1));
    for pause in [100, 200, 400] {
        let lease = r.grant(job, 0, 0, 1, 7).expect("its time has come");
        r.fail(lease, FailureClass::Task, "boom");
        let until = r.state.now.0 + pause;
        assert_eq!(r.state.jobs[&job].stages[0].state_of(0), Some(TaskState::Waiting(Timestamp(until))));
        r.pause_ms = pause - 2;
        assert_eq!(r.plan(), [], "not yet");
        assert!(r.grant(job, 0, 0, 1, 7).is_none());
    }
    let view = r.state.job_view(job).unwrap();
    assert_eq!((view.stages[0].ready, view.stages[0].waiting, view.stages[0].tasks), (1, 1, 1));
    r.pause_ms = 0;
    r.run();
    assert!(done(&r, job), "the fourth attempt went well");
}

#[test]
fn a_task_that_kills_its_executor_is_set_aside_after_three_workers_and_the_job_names_it() {
    let mut r = workers(5, 1);
    let job = r.submit(map_only(500));
    let killed = run_with_poison(&mut r, 123, 0);
    assert_eq!(killed.iter().collect::<BTreeSet<_>>().len(), 3, "three different workers: {killed:?}");
    assert_eq!(killed.len(), 3);
    let cause = cause(&r, job);
    assert!(cause.contains("task 123") && cause.contains("killed its executor on workers") && cause.contains("segfault"), "{cause}");
    let view = r.state.job_view(job).unwrap();
    let [aside] = &view.set_aside[..] else { panic!("{:?}", view.set_aside) };
    assert_eq!((aside.first_task, aside.task_count, aside.attempts, aside.workers.len()), (123, 1, 3, 3));
    assert!(aside.message.contains("segfault"));
}

#[test]
fn the_rest_of_the_job_goes_on_if_it_says_so() {
    let mut r = workers(5, 4);
    let job = r.submit(going_on(map_only(500)));
    let killed = run_with_poison(&mut r, 123, 3);
    assert_eq!(killed.len(), 3, "{killed:?}");
    assert!(done(&r, job), "{:?}", r.state.jobs[&job].phase);
    let stage = &r.state.jobs[&job].stages[0];
    assert_eq!((stage.accepted(), stage.set_aside()), (499, 1), "those that died beside it were tried alone, and live");
    assert_eq!(r.tally(job), (0..500u128).sum::<u128>() - 123);
    assert_eq!(stage.tasks().intervals(), 3);
}

#[test]
fn with_fewer_than_three_workers_the_limit_of_attempts_decides() {
    for count in [1, 2] {
        let mut r = workers(count, 2);
        let job = r.submit(going_on(map_only(50)));
        let killed = run_with_poison(&mut r, 20, 1);
        assert_eq!(killed.len(), 4, "{killed:?}");
        assert_eq!(killed.iter().collect::<BTreeSet<_>>().len() as u64, count);
        assert!(done(&r, job), "{:?}", r.state.jobs[&job].phase);
        assert_eq!(r.state.jobs[&job].stages[0].set_aside(), 1);
    }
}

#[test]
fn a_batch_of_thousands_that_dies_is_narrowed_down_to_the_one() {
    let mut r = workers(4, 1);
    let job = r.submit(going_on(map_only(100_000)));
    let lease = r.grant(job, 0, 0, 4_000, 7).unwrap();
    r.fail(lease, FailureClass::Executor, "device lost");
    let killed = run_with_poison(&mut r, 1_234, 10_000);
    assert!(done(&r, job));
    let aside: Vec<u64> = r.state.jobs[&job].stages[0].evidence.values().map(|e| e.tasks.count()).collect();
    assert_eq!(aside, [1], "{killed:?}");
}

#[test]
fn a_suspect_runs_alone_on_its_device() {
    let mut r = workers(2, 4);
    let job = r.submit(map_only(1000));
    let lease = r.grant(job, 0, 0, 4, 7).unwrap();
    r.fail(lease, FailureClass::Executor, "died");
    r.pause_ms = 1_000;
    r.plan_and_grant();
    let suspects: Vec<_> = r.state.leases.values().filter(|l| l.tasks.first < 4).cloned().collect();
    assert_eq!(suspects.len(), 1, "half of the devices, one at a time");
    assert_eq!((suspects[0].worker, suspects[0].tasks.count()), (WorkerId(8), 1), "elsewhere, and one task");
    for _ in 0..3 {
        r.pause_ms = 10;
        r.plan_and_grant();
        let beside = r.state.leases.values().filter(|l| l.worker == WorkerId(8)).count();
        assert_eq!(beside, 1, "nothing runs beside it");
    }
    r.run();
    assert!(done(&r, job));
}

#[test]
fn a_job_that_loses_too_many_tasks_fails() {
    let mut r = workers(1, 1);
    let job = r.submit(going_on(JobSpec { max_attempts: 1, ..map_only(5000) }));
    let lease = r.grant(job, 0, 0, 1000, 7).unwrap();
    r.fail(lease, FailureClass::Task, "boom");
    assert_eq!(r.state.jobs[&job].stages[0].set_aside(), 1000);
    let lease = r.grant(job, 0, 1000, 1, 7).unwrap();
    r.fail(lease, FailureClass::Task, "boom");
    assert!(cause(&r, job).contains("more than 1000 tasks"), "{}", cause(&r, job));
    let all = r.submit(going_on(JobSpec { max_attempts: 1, ..map_only(5) }));
    let lease = r.grant(all, 0, 0, 5, 7).unwrap();
    r.fail(lease, FailureClass::Task, "boom");
    assert!(cause(&r, all).contains("every task"), "{}", cause(&r, all));
}

#[test]
fn a_job_with_a_partition_set_aside_publishes_the_others() {
    let mut r = workers(1, 1);
    let job = r.submit(going_on(JobSpec { max_attempts: 1, ..map_reduce(4, 3) }));
    let map = r.grant(job, 0, 0, 4, 7).unwrap();
    r.finish(map);
    let bad = r.grant(job, 1, 1, 1, 7).unwrap();
    r.fail(bad, FailureClass::Task, "boom");
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert_eq!(r.state.jobs[&job].parts.keys().copied().collect::<Vec<_>>(), [0, 2]);
}

/// Gives one task of a fresh job to a worker and lets it fail there.
fn fail_on(r: &mut Replica, worker: u64, class: FailureClass) -> Vec<Event> {
    let job = r.submit(map_only(3));
    let lease: LeaseId = r.grant(job, 0, 0, 1, worker).expect("a lease");
    let failure =
        TaskFailure { first_task: 0, task_count: 1, class: class.into(), message: "No space left on device".into(), ..Default::default() };
    let report = Report { results: vec![], failures: vec![failure], ..r.full_report(lease) };
    r.apply_all(vec![Command::ReportResults(ReportResults { worker, session: 0, reports: vec![report] })]).events
}

fn quarantined(events: &[Event]) -> Option<(WorkerId, Option<u32>)> {
    events.iter().find_map(|e| match e {
        Event::Quarantined { worker, device, .. } => Some((*worker, *device)),
        _ => None,
    })
}

#[test]
fn a_worker_that_fails_job_after_job_is_quarantined_and_comes_back_by_itself() {
    let mut r = workers(2, 1);
    assert_eq!(quarantined(&fail_on(&mut r, 7, FailureClass::Worker)), None);
    assert_eq!(quarantined(&fail_on(&mut r, 7, FailureClass::Worker)), None);
    assert_eq!(quarantined(&fail_on(&mut r, 7, FailureClass::Worker)), Some((WorkerId(7), None)));
    let job = r.submit(map_only(100));
    assert!(r.grant(job, 0, 0, 1, 7).is_none(), "even a plan from before");
    let leases = r.plan_and_grant();
    assert!(!leases.is_empty() && leases.iter().all(|l| r.state.leases[l].worker == WorkerId(8)));
    r.pause_ms = 31_000;
    assert!(r.grant(job, 0, 99, 1, 7).is_some(), "it is tried again");
    assert_eq!(State::from_snapshot("test", &r.state.to_snapshot()).unwrap(), r.state);
    assert_eq!(quarantined(&fail_on(&mut r, 7, FailureClass::Worker)), Some((WorkerId(7), None)), "one more is enough now");
}

#[test]
fn a_result_in_between_clears_a_worker() {
    let mut r = workers(2, 1);
    for _ in 0..5 {
        assert_eq!(quarantined(&fail_on(&mut r, 7, FailureClass::Worker)), None);
        let job = r.submit(map_only(1));
        let lease = r.grant(job, 0, 0, 1, 7).unwrap();
        r.finish(lease);
    }
}

#[test]
fn a_device_is_quarantined_alone() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1), device(1, "discrete", 1)]);
    r.register(8, vec![device(0, "cpu", 1)]);
    for class in [FailureClass::Device, FailureClass::Executor] {
        fail_on(&mut r, 7, class);
    }
    assert_eq!(quarantined(&fail_on(&mut r, 7, FailureClass::Device)), Some((WorkerId(7), Some(0))));
    r.submit(map_only(100));
    r.plan_and_grant();
    let used: BTreeSet<_> = r.state.leases.values().map(|l| (l.worker.0, l.device)).collect();
    assert_eq!(used, BTreeSet::from([(7, 1), (8, 0)]));
}

#[test]
fn the_only_worker_is_not_quarantined() {
    let mut r = workers(1, 1);
    assert!((0..6).all(|_| quarantined(&fail_on(&mut r, 7, FailureClass::Worker)).is_none()));
}

#[test]
fn an_operator_or_a_new_process_ends_a_quarantine() {
    let mut r = workers(2, 1);
    let quarantine = |r: &mut Replica| (0..3).any(|_| quarantined(&fail_on(r, 7, FailureClass::Worker)).is_some());
    assert!(quarantine(&mut r));
    assert_eq!(r.apply(Command::EndQuarantine(EndQuarantine { worker: 7 })), Outcome::Done);
    assert!(!r.state.workers[&WorkerId(7)].is_quarantined(0, r.state.now));
    assert!(quarantine(&mut r));
    r.register(7, vec![device(0, "cpu", 1)]);
    assert!(!r.state.workers[&WorkerId(7)].is_quarantined(0, r.state.now));
    assert!(matches!(r.apply(Command::EndQuarantine(EndQuarantine { worker: 99 })), Outcome::Refused(_)));
}

#[test]
fn a_new_process_of_an_excluded_worker_is_tried_again() {
    let mut r = workers(2, 1);
    let job = r.submit(map_only(10));
    let lease = r.grant(job, 0, 0, 1, 7).unwrap();
    r.fail(lease, FailureClass::Worker, "cannot read /mnt/x");
    assert!(r.grant(job, 0, 0, 1, 7).is_none());
    r.register(7, vec![device(0, "cpu", 1)]);
    assert!(r.grant(job, 0, 0, 1, 7).is_some(), "the mount may be there now");
}

/// The last able worker may come back, so the job waits; it says for what.
#[test]
fn a_job_whose_last_able_worker_is_lost_says_that_the_others_have_failed_at_it() {
    let mut r = workers(2, 1);
    let job = r.submit(map_only(10));
    let lease = r.grant(job, 0, 0, 1, 7).unwrap();
    r.fail(lease, FailureClass::Worker, "cannot read /mnt/x");
    assert_eq!(r.state.waits_for(job), "", "the other worker can");
    r.lose(8);
    assert_eq!(
        r.state.waits_for(job),
        "no device is left for 10 tasks of stage 'map': worker 7 (w7) device 0 has failed at this job and gets no more of it until it is started again"
    );
    r.register(8, vec![device(0, "cpu", 1)]);
    assert_eq!(r.state.waits_for(job), "");
    r.pause_ms = 20_000;
    r.run();
    assert!(done(&r, job));
}

#[test]
fn entries_of_format_1_keep_their_rules() {
    let mut r = workers(3, 1);
    r.format = 1;
    let job = r.submit(going_on(map_only(1)));
    for _ in 0..4 {
        let lease = r.grant(job, 0, 0, 1, 7).expect("no pause");
        r.fail(lease, FailureClass::Executor, "boom");
    }
    assert!(cause(&r, job).contains("task 0 failed 4 times, the last time with: boom"));
    assert!(r.state.job_view(job).unwrap().set_aside.is_empty());
    let job = r.submit(map_only(2));
    r.grant(job, 0, 0, 2, 7).unwrap();
    assert!(r.speculate(job, 0, 0, 2, 8).is_none(), "nor second leases");
}

#[test]
fn a_record_that_cannot_be_read_is_not_tried_again() {
    let unread = "the cell at line 3 (byte 33 of the file), column 'amount', is \"two\", which is no number";
    let mut r = workers(2, 1);
    let job = r.submit(map_only(6));
    let lease = r.grant(job, 0, 2, 1, 7).unwrap();
    r.fail(lease, FailureClass::Input, unread);
    assert_eq!(cause(&r, job), format!("stage 'map' task 2: {unread}"), "after one attempt");

    let job = r.submit(going_on(map_only(6)));
    let lease = r.grant(job, 0, 2, 1, 7).unwrap();
    r.fail(lease, FailureClass::Input, unread);
    let stage = &r.state.jobs[&job].stages[0];
    assert_eq!((stage.set_aside(), stage.evidence[&2].attempts, stage.evidence[&2].message.as_str()), (1, 1, unread));
    assert!(r.state.workers.values().all(|worker| worker.standing == Default::default() && worker.device_standing.is_empty()));
    r.run();
    assert!(done(&r, job), "the rest of the job goes on");

    // A second lease of the task is left to its end: it can only say the same.
    let job = r.submit(going_on(map_only(6)));
    let first = r.grant(job, 0, 2, 1, 7).unwrap();
    let second = r.speculate(job, 0, 2, 1, 8).unwrap();
    r.fail(first, FailureClass::Input, unread);
    assert_eq!(r.state.jobs[&job].stages[0].set_aside(), 0);
    r.fail(second, FailureClass::Input, unread);
    assert_eq!(r.state.jobs[&job].stages[0].set_aside(), 1);
}

/// Only the log of the worker said why, and a job that went on all the same showed nothing but a number.
#[test]
fn why_an_attempt_failed_is_shown_also_of_a_job_that_succeeds_in_the_end() {
    let mut r = workers(2, 2);
    let job = r.submit(map_only(8));
    for (first, worker) in [(0, 7), (4, 8)] {
        let lease = r.grant(job, 0, first, 4, worker).unwrap();
        r.fail(lease, FailureClass::Executor, "the executor died (signal 9)");
    }
    // Nobody's fault, and so nothing to be told.
    r.pause_ms = 20_000;
    r.apply_all(Vec::new());
    let lease = r.grant(job, 0, 0, 1, 7).unwrap();
    r.fail(lease, FailureClass::Stopped, "stopped");
    r.run();
    assert!(done(&r, job));
    let shown = r.state.job_view(job).unwrap().failures;
    let lines: Vec<_> =
        shown.iter().map(|f| (f.stage.as_str(), f.first_task, f.task_count, f.worker, f.worker_name.as_str(), f.times)).collect();
    assert_eq!(lines, [("map", 0, 4, 7, "w7", 1), ("map", 4, 4, 8, "w8", 1)]);
    assert!(shown.iter().all(|f| f.reason == "the executor died (signal 9)" && f.at_ms > 0), "{shown:?}");
    assert_eq!(State::from_snapshot("test", &r.state.to_snapshot()).expect("a snapshot"), r.state);
}

#[test]
fn entries_of_before_keep_no_reasons() {
    let mut r = workers(2, 2);
    r.format = 3;
    let job = r.submit(map_only(8));
    let lease = r.grant(job, 0, 0, 4, 7).unwrap();
    r.fail(lease, FailureClass::Task, "boom");
    assert_eq!((r.state.jobs[&job].stages[0].failed_attempts, r.state.job_view(job).unwrap().failures), (4, vec![]));
}
