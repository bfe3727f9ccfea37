//! Second leases: what is late is leased again, the first result of a task wins, nothing is counted twice.

mod support;

use raftwerk_core::stage::TaskState;
use raftwerk_core::{Event, JobId, LeaseId, Phase, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

fn sum_to(n: u64) -> u128 {
    (0..u128::from(n)).sum()
}

/// Two workers with a one-thread CPU each, and all of a job's tasks leased to the first.
fn all_at_one(spec: JobSpec, tasks: u64) -> (Replica, JobId, LeaseId) {
    let mut r = Replica::new();
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(spec);
    let lease = r.grant(job, 0, 0, tasks, 7).unwrap();
    (r, job, lease)
}

fn events_of(r: &mut Replica, worker: u64, report: Report) -> Vec<Event> {
    r.apply_all(vec![Command::ReportResults(ReportResults { worker, session: 0, reports: vec![report] })]).events
}

#[test]
fn a_task_has_at_most_two_leases_and_never_both_on_one_worker() {
    let (mut r, job, _) = all_at_one(map_only(10), 10);
    assert!(r.speculate(job, 0, 0, 5, 7).is_none(), "the holder's own worker");
    assert!(r.speculate(job, 0, 0, 5, 8).is_some());
    assert!(r.speculate(job, 0, 0, 5, 9).is_none(), "a third lease");
    assert!(r.speculate(job, 0, 4, 2, 9).is_none(), "not even in part");
    assert!(r.speculate(job, 0, 5, 5, 9).is_some());
    assert!(r.grant(job, 0, 9, 1, 9).is_none(), "an ordinary lease wants ready tasks");
    assert_eq!(r.state.jobs[&job].stages[0].leased(), 10, "a raced task counts once");
}

#[test]
fn ready_tasks_are_not_speculated() {
    let (mut r, job, _) = all_at_one(map_only(10), 5);
    assert!(r.speculate(job, 0, 5, 5, 8).is_none());
    assert!(r.speculate(job, 0, 4, 2, 8).is_none());
}

#[test]
fn the_first_result_wins_and_the_other_is_fenced() {
    let (mut r, job, slow) = all_at_one(map_only(10), 10);
    let fast = r.speculate(job, 0, 0, 10, 8).unwrap();
    r.report_some(slow, 0, 3);
    r.report_some(fast, 0, 6);
    let late = r.full_report(slow);
    r.finish(fast);
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
    r.report(7, late);
    assert_eq!(r.tally(job), sum_to(10));
    let stage = &r.state.jobs[&job].stages[0];
    assert_eq!((stage.accepted(), stage.speculated, stage.speculative_wins), (10, 10, 7));
}

#[test]
fn a_loser_is_told_to_stop_when_nothing_of_its_lease_is_left() {
    let (mut r, job, slow) = all_at_one(map_only(20), 10);
    let fast = r.speculate(job, 0, 4, 6, 8).unwrap();
    let mut first = r.full_report(fast);
    first.final_report = false;
    let events = events_of(&mut r, 8, first);
    assert!(!events.iter().any(|e| matches!(e, Event::LeaseEnded { .. })), "tasks 0..4 are still its own: {events:?}");
    assert!(r.state.leases.contains_key(&slow));
    let rest = r.speculate(job, 0, 0, 4, 9).unwrap();
    let last = r.full_report(rest);
    let events = events_of(&mut r, 9, last);
    assert!(events.iter().any(|e| matches!(e, Event::LeaseEnded { id, .. } if *id == slow)), "{events:?}");
    assert!(!r.state.leases.contains_key(&slow) && r.state.leases.contains_key(&fast));
}

#[test]
fn when_one_of_two_leases_ends_the_other_goes_on() {
    for (dies, lives) in [(7, 8), (8, 7)] {
        let (mut r, job, slow) = all_at_one(map_only(10), 10);
        let fast = r.speculate(job, 0, 0, 10, 8).unwrap();
        r.lose(dies);
        let stage = &r.state.jobs[&job].stages[0];
        assert_eq!((stage.free(), stage.leased()), (0, 10));
        let left = if lives == 8 { fast } else { slow };
        assert!(r.speculate(job, 0, 0, 10, 9).is_some(), "its place can be taken");
        r.finish(left);
        assert_eq!(r.tally(job), sum_to(10));
    }
}

#[test]
fn a_failure_of_one_lease_leaves_its_tasks_to_the_other() {
    let (mut r, job, slow) = all_at_one(map_only(10), 10);
    let fast = r.speculate(job, 0, 0, 10, 8).unwrap();
    r.fail(fast, FailureClass::Task, "boom");
    let stage = &r.state.jobs[&job].stages[0];
    assert_eq!((stage.free(), stage.leased()), (0, 10));
    assert!(stage.attempts.iter().all(|(_, charged)| charged == 1), "an attempt is an attempt");
    r.finish(slow);
    assert_eq!(r.tally(job), sum_to(10));
}

#[test]
fn shuffle_data_is_fetched_from_the_winner() {
    let (mut r, job, slow) = all_at_one(map_reduce(10, 1), 10);
    let fast = r.speculate(job, 0, 5, 5, 8).unwrap();
    r.finish(fast);
    r.report_some(slow, 0, 5);
    let holders: Vec<_> = r.state.jobs[&job].stages[0].tasks().iter().map(|(range, state)| (range.first, state)).collect();
    let accepted = |worker| TaskState::Accepted { worker: WorkerId(worker), copy: WorkerId(0), generation: 1 };
    assert_eq!(holders, [(0, accepted(7)), (5, accepted(8))]);
    r.lose(7);
    assert_eq!(r.state.jobs[&job].stages[0].ready(), 5, "only the loser's own share is lost with it");
}

#[test]
fn a_part_is_the_winners() {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(map_reduce(1, 2));
    let map = r.grant(job, 0, 0, 1, 7).unwrap();
    r.finish(map);
    let slow = r.grant(job, 1, 0, 2, 7).unwrap();
    let fast = r.speculate(job, 1, 0, 1, 8).unwrap();
    r.finish(fast);
    r.finish(slow);
    let prepared: Vec<u64> = r.state.jobs[&job].parts.values().map(|p| p.worker).collect();
    assert_eq!(prepared, [8, 7]);
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
}

// The planner's choice.

/// A job of 100 tasks of a millisecond each, all done but the last ten, which worker 7 holds.
fn tail(worker_count: u64) -> (Replica, JobId, LeaseId) {
    let mut r = Replica::new();
    for worker in 0..worker_count {
        r.register(7 + worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(map_only(100));
    let most = r.grant(job, 0, 0, 90, 8).unwrap();
    r.finish(most);
    let rest = r.grant(job, 0, 90, 10, 7).unwrap();
    (r, job, rest)
}

#[test]
fn nothing_is_speculated_before_it_is_late() {
    let (mut r, _, _) = tail(3);
    assert_eq!(r.plan(), []);
    r.pause_ms = 400;
    assert_eq!(r.plan(), []);
}

#[test]
fn what_is_late_is_leased_a_second_time_within_the_budget() {
    let (mut r, job, slow) = tail(3);
    r.pause_ms = 5_000;
    let second = r.plan_and_grant();
    assert_eq!(second.len(), 1);
    let lease = &r.state.leases[&second[0]];
    assert!(lease.speculative && lease.worker != WorkerId(7));
    assert_eq!(lease.tasks.count(), 10, "a tenth of the stage");
    r.pause_ms = 5_000;
    assert_eq!(r.plan(), [], "each task once, and the budget is spent");
    r.finish(second[0]);
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
    assert!(!r.state.leases.contains_key(&slow));
    assert_eq!(r.tally(job), sum_to(100));
}

#[test]
fn a_suspect_is_not_waited_for_and_gets_nothing_new() {
    let (mut r, job, _) = tail(2);
    r.suspects = [WorkerId(7)].into();
    let second = r.plan_and_grant();
    assert_eq!(second.len(), 1);
    r.finish(second[0]);
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
    let next = r.submit(map_only(50));
    let leases = r.plan_and_grant();
    assert!(!leases.is_empty() && leases.iter().all(|id| r.state.leases[id].worker == WorkerId(8)), "job {next}");
}

#[test]
fn nobody_is_late_who_is_on_its_way_to_a_new_leader() {
    let (mut r, _, _) = tail(8);
    r.pause_ms = 60_000;
    assert!(!r.plan().is_empty());
    r.returning = [WorkerId(7)].into();
    assert!(r.plan().is_empty(), "it may have done everything without a leader");
    r.suspects = [WorkerId(7)].into();
    assert!(!r.plan().is_empty(), "but it does not come");
}

#[test]
fn a_device_that_became_slow_does_not_excuse_itself() {
    let (mut r, job, slow) = tail(2);
    // One task came home, a thousand times slower than the others.
    let mut report = r.full_report(slow);
    report.final_report = false;
    report.busy_ns = 1_000_000_000;
    report.results[0].task_count = 1;
    report.results[0].tallies[0].values.truncate(1);
    r.report(7, report);
    r.pause_ms = 5_000;
    let leases = r.plan_and_grant();
    assert_eq!(leases.len(), 1, "{:?}", r.state.jobs[&job].shares);
}

#[test]
fn copies_in_vain_stay_under_a_tenth_of_the_stage() {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(map_only(200));
    let first = r.grant(job, 0, 0, 100, 8).unwrap();
    r.finish(first);
    let slow = r.grant(job, 0, 100, 100, 7).unwrap();
    let mut copied = 0;
    // The holder is always first after all.
    while r.state.leases.contains_key(&slow) {
        r.pause_ms = 60_000;
        let second = r.plan_and_grant();
        let Some(second) = second.first().copied() else { break };
        let tasks = r.state.leases[&second].tasks;
        copied += tasks.count();
        r.report_some(slow, tasks.first, tasks.count());
        assert!(!r.state.leases.contains_key(&second), "the copy is told to stop");
    }
    assert_eq!(copied, 20);
}

#[test]
fn a_stage_of_few_tasks_may_copy_one() {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(map_only(4));
    r.grant(job, 0, 0, 2, 7).unwrap();
    let other = r.grant(job, 0, 2, 2, 8).unwrap();
    r.finish(other);
    r.suspects = [WorkerId(7)].into();
    for left in [1, 0] {
        let copy = r.plan_and_grant();
        assert_eq!(copy.len(), 1, "one after the other, because each that wins gives its place back");
        assert_eq!(r.state.leases[&copy[0]].tasks.first, left);
        r.finish(copy[0]);
    }
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
}

#[test]
fn a_copy_that_dies_with_its_worker_leaves_the_budget_for_another() {
    let (mut r, job, slow) = tail(3);
    r.pause_ms = 5_000;
    for _ in 0..3 {
        let copy = r.plan_and_grant();
        assert_eq!(copy.len(), 1);
        assert_eq!(r.state.jobs[&job].stages[0].speculated, 10);
        let worker = r.state.leases[&copy[0]].worker.0;
        r.lose(worker);
        assert_eq!(r.state.jobs[&job].stages[0].speculated, 0);
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let last = r.plan_and_grant();
    r.report_some(slow, 90, 4);
    r.lose(r.state.leases[&last[0]].worker.0);
    assert_eq!(r.state.jobs[&job].stages[0].speculated, 4, "copies of what the other brought home were in vain");
}
