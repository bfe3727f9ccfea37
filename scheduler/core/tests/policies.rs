//! Placement policies: what is true of all of them, and what makes each of them what it is.

mod support;

use raftwerk_core::plan::policy::{policies, policy};
use raftwerk_core::{LeaseId, WorkerId};
use raftwerk_proto::v1::{JobSpec, Placement};
use std::collections::BTreeMap;
use support::{Replica, device, map_only, map_reduce};

fn cluster(name: &str, workers: u64) -> Replica {
    let mut r = Replica { policy: policy(name).expect("a policy of this name"), ..Replica::new() };
    for worker in 1..=workers {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    r
}

fn tasks_by_worker(placements: &[Placement]) -> BTreeMap<u64, u64> {
    placements.iter().fold(BTreeMap::new(), |mut sum, p| {
        *sum.entry(p.worker).or_default() += p.task_count;
        sum
    })
}

fn finish_all(r: &mut Replica) {
    let held: Vec<LeaseId> = r.state.leases.keys().copied().collect();
    held.into_iter().for_each(|id| r.finish(id));
}

#[test]
fn names_are_unique_and_the_default_is_the_model() {
    let names: Vec<&str> = policies().iter().map(|p| p.name()).collect();
    assert_eq!(names, ["model", "round-robin", "random", "two-choices", "weighted", "least-loaded", "consistent-hash"]);
    assert!(names.iter().all(|name| policy(name).is_some_and(|p| p.name() == *name)));
    assert!(policy("rnd").is_none());
}

#[test]
fn every_policy_runs_every_task_once_and_never_proposes_what_is_stale() {
    for policy in policies() {
        let mut r = cluster(policy.name(), 3);
        r.register(9, vec![device(0, "discrete", 1), device(1, "cpu", 4)]);
        let (map, reduce) = (r.submit(map_only(1_000)), r.submit(map_reduce(50, 4)));
        for round in 0..2_000 {
            assert!(round < 1_999, "{}: the jobs never end", policy.name());
            // `plan_and_grant` asserts that nothing of the plan is stale.
            r.plan_and_grant();
            finish_all(&mut r);
            let accepted = |job| r.state.jobs[&job].stages.iter().all(|s: &raftwerk_core::stage::Stage| s.is_complete());
            if accepted(map) && accepted(reduce) {
                break;
            }
        }
        assert_eq!(r.tally(map), 1_000 * 999 / 2, "{}", policy.name());
    }
}

#[test]
fn a_plan_is_a_function_of_what_it_sees() {
    for policy in policies() {
        let mut r = cluster(policy.name(), 5);
        r.submit(map_only(500));
        assert_eq!(r.plan(), r.plan(), "{}", policy.name());
        let mut again = cluster(policy.name(), 5);
        again.submit(map_only(500));
        assert_eq!(r.plan(), again.plan(), "{}", policy.name());
    }
}

#[test]
fn no_policy_gives_a_device_more_than_its_queue() {
    for policy in policies() {
        let mut r = cluster(policy.name(), 2);
        r.submit(map_only(1_000_000));
        // Nothing is known yet: a task counts as a whole lease, and two of them fill the queue.
        let given = tasks_by_worker(&r.plan());
        assert!(given.values().all(|tasks| *tasks <= 2), "{}: {given:?}", policy.name());
        assert_eq!(given.len(), 2, "{}: nobody is left out", policy.name());
    }
}

#[test]
fn round_robin_goes_on_where_the_last_round_ended() {
    let mut r = cluster("round-robin", 3);
    r.submit(map_only(2));
    r.submit(map_only(1_000));
    let workers = |placements: &[Placement], job: u64| -> Vec<u64> {
        let of_job = |p: &&Placement| p.job == Some(raftwerk_proto::v1::placement::Job::Id(job));
        placements.iter().filter(of_job).map(|p| p.worker).collect()
    };
    let first = r.plan();
    assert_eq!(workers(&first, 1), [2, 3], "job 1 begins at the second device");
    assert_eq!(workers(&first, 2), [3, 1, 2, 1], "in turn, and past those whose queue is full");
    r.plan_and_grant();
    finish_all(&mut r);
    assert_eq!(workers(&r.plan(), 2)[0], 1, "job 2 began at the third, and four leases so far: the first worker's turn");
}

#[test]
fn random_spreads_evenly() {
    let mut r = cluster("random", 10);
    r.submit(map_only(100_000_000));
    let mut first_choices = vec![0u32; 11];
    for _ in 0..300 {
        let placements = r.plan();
        first_choices[placements[0].worker as usize] += 1;
        r.plan_and_grant();
        finish_all(&mut r);
    }
    assert!(first_choices[1..].iter().all(|n| (10..60).contains(n)), "each is first about thirty times: {first_choices:?}");
}

#[test]
fn two_choices_avoid_a_queue_that_random_does_not_see() {
    // How often the one of four workers that has a queue is chosen first, over a hundred jobs.
    let chosen = |name: &str| {
        let first_goes_there = |number: u64| {
            let mut r = cluster(name, 4);
            (0..number).for_each(|_| {
                r.submit(map_only(0));
            });
            let job = r.submit(map_only(10));
            r.grant(job, 0, 0, 1, 1).expect("granted");
            r.plan()[0].worker == 1
        };
        (0..100).filter(|number| first_goes_there(*number)).count()
    };
    let (random, two) = (chosen("random"), chosen("two-choices"));
    assert!((15..40).contains(&random), "a quarter: {random}");
    assert!((1..14).contains(&two), "a sixteenth, when both draws are the same: {two}");
}

#[test]
fn least_loaded_gives_to_whoever_has_the_shortest_queue() {
    let mut r = cluster("least-loaded", 3);
    let job = r.submit(map_only(5));
    let session = |r: &Replica, worker: u64| r.state.workers[&WorkerId(worker)].session.0;
    assert!(session(&r, 1) > 0);
    r.grant(job, 0, 0, 1, 1).expect("granted");
    r.grant(job, 0, 1, 1, 2).expect("granted");
    let placements = r.plan();
    assert_eq!(placements[0].worker, 3);
}

#[test]
fn weighted_gives_by_class_and_threads_and_not_by_what_was_measured() {
    let mut r = Replica { policy: policy("weighted").expect("it is there"), ..Replica::new() };
    r.register(1, vec![device(0, "cpu", 16)]);
    r.register(2, vec![device(0, "discrete", 1)]);
    r.submit(map_only(1_000_000));
    for _ in 0..3 {
        r.plan_and_grant();
        finish_all(&mut r);
    }
    let lease_of = |placements: &[Placement], worker: u64| placements.iter().find(|p| p.worker == worker).map(|p| p.task_count);
    let placements = r.plan();
    let (cpu, gpu) = (lease_of(&placements, 1).expect("the CPU"), lease_of(&placements, 2).expect("the GPU"));
    assert_eq!(gpu / cpu, 4, "a card of its own counts as four CPUs of sixteen threads: {gpu} and {cpu}");
}

/// Which worker ran each block of sixteen tasks, job after job.
fn homes(r: &mut Replica, spec: JobSpec) -> Vec<u64> {
    let tasks = raftwerk_core::split::tasks_of(&spec.stages[0]).expect("a range");
    let job = r.submit(spec);
    let mut homes = vec![0; tasks as usize];
    while !r.state.jobs[&job].stages[0].is_complete() {
        for placement in r.plan() {
            let (first, end) = (placement.first_task as usize, (placement.first_task + placement.task_count) as usize);
            homes[first..end].fill(placement.worker);
        }
        r.plan_and_grant();
        finish_all(r);
    }
    homes
}

#[test]
fn consistent_hash_sends_the_same_split_to_the_same_device_in_the_next_job() {
    let mut r = cluster("consistent-hash", 5);
    let (first, second) = (homes(&mut r, map_only(640)), homes(&mut r, map_only(640)));
    let same = |a: &[u64], b: &[u64]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    assert!(same(&first, &second) > 640 * 8 / 10, "{} of 640", same(&first, &second));
    let other = homes(&mut r, map_only(639));
    assert!(same(&first[..639], &other) < 640 * 6 / 10, "another input has other homes: {}", same(&first[..639], &other));
    r.lose(5);
    let without = homes(&mut r, map_only(640));
    let stayed = first.iter().zip(&without).filter(|(before, after)| **before != 5 && before == after).count();
    let others = first.iter().filter(|before| **before != 5).count();
    assert!(stayed > others * 6 / 10, "most of what was elsewhere stays there: {stayed} of {others}");
    let mut r = cluster("random", 5);
    let (first, second) = (homes(&mut r, map_only(640)), homes(&mut r, map_only(640)));
    assert!(same(&first, &second) < 640 * 4 / 10, "chance alone would do that much: {}", same(&first, &second));
}

#[test]
fn consistent_hash_is_bounded() {
    let mut r = cluster("consistent-hash", 10);
    r.submit(map_only(10_000));
    let mut most = 0;
    for _ in 0..20 {
        let given = tasks_by_worker(&r.plan());
        let (all, devices) = (given.values().sum::<u64>(), 10);
        most = most.max(given.values().max().copied().unwrap_or(0) * devices * 100 / all.max(1));
        r.plan_and_grant();
        finish_all(&mut r);
    }
    // A quarter above the even share, and one block on top.
    assert!(most < 300, "{most} % of the even share");
}

/// Jobs of one task that are placed by the entry that submits them, one after the other.
fn homes_of_short_jobs(r: &mut Replica, jobs: usize) -> Vec<u64> {
    let place = |r: &mut Replica| {
        let spec = map_only(1);
        let planned = r.plan_with(&[(0, &spec)]);
        let job = r.submit(spec);
        let worker = planned.last().expect("room").worker;
        let lease = r.grant(job, 0, 0, 1, worker).expect("a ready task");
        r.finish(lease);
        worker
    };
    (0..jobs).map(|_| place(r)).collect()
}

#[test]
fn short_jobs_do_not_all_go_to_one_device() {
    for name in ["round-robin", "random", "two-choices"] {
        let mut r = cluster(name, 8);
        let homes = homes_of_short_jobs(&mut r, 160);
        let counts: Vec<usize> = (1..=8).map(|worker| homes.iter().filter(|home| **home == worker).count()).collect();
        assert!(counts.iter().all(|n| (8..=36).contains(n)), "{name}: {counts:?}");
    }
}

#[test]
fn short_jobs_venture_now_and_then_on_a_device_that_nothing_is_known_of() {
    let mut r = cluster("model", 1);
    // Nothing is known of the second one, and nothing ever comes back from it.
    homes_of_short_jobs(&mut r, 20);
    r.register(2, vec![device(0, "discrete", 1)]);
    let ventures = |r: &mut Replica, jobs: u64| {
        let ventures = (0..jobs).filter(|_| {
            let spec = map_only(1);
            let there = r.plan_with(&[(0, &spec)])[0].worker == 2;
            let job = r.submit(spec);
            let lease = r.grant(job, 0, 0, 1, 1).expect("a ready task");
            r.finish(lease);
            there
        });
        ventures.count()
    };
    let silent = ventures(&mut r, 200);
    assert!((10..50).contains(&silent), "an eighth: {silent}");
    // One lease that is a hundred times as long as the others says enough.
    let job = r.submit(map_only(1));
    let lease = r.grant(job, 0, 0, 1, 2).expect("a ready task");
    let report = raftwerk_proto::v1::Report { busy_ns: 500_000_000, ..r.full_report(lease) };
    r.report(2, report);
    assert_eq!(ventures(&mut r, 200), 0, "it is known to be slow");
}
