//! Tasks go back to the device that has read their input before, where that costs nobody a wait: in the rounds of a job, and from job to job.

mod support;

use raftwerk_core::plan::policy::policy;
use raftwerk_core::{JobId, LeaseId, Phase, State, TaskRange, WorkerId};
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::*;
use std::collections::BTreeMap;
use support::*;

type Device = (WorkerId, u32);

fn cpus(policy_name: &str, count: u64) -> Replica {
    let mut r = Replica { policy: policy(policy_name).expect("a policy of this name"), ..Replica::new() };
    for worker in 1..=count {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    r
}

/// Fifty megabytes in a few files.
fn files(version: u64) -> Files {
    let file = |n: u64| InputFile { path: format!("/data/{n}"), bytes: 10 << 20, version, ..InputFile::default() };
    Files { split_bytes: 4 << 10, listing: (0..5).map(file).collect(), ..Files::default() }
}

const TASKS: u64 = 12_800;
const THIRD: u64 = TASKS / 3;

fn over_files(mut spec: JobSpec, version: u64) -> JobSpec {
    spec.stages[0].inputs[0].source = Some(Source::Files(files(version)));
    spec
}

fn in_rounds(max: u32) -> JobSpec {
    over_files(JobSpec { rounds: Some(Rounds { max, all: false }), ..map_reduce(1, 1) }, 1)
}

/// Who runs what of the map stage now.
fn running(r: &Replica, job: JobId) -> Vec<(TaskRange, Device)> {
    let of_map = |lease: &&raftwerk_core::Lease| lease.job == job && lease.stage == 0;
    r.state.leases.values().filter(of_map).map(|lease| (lease.tasks, (lease.worker, lease.device))).collect()
}

fn finish_all(r: &mut Replica) {
    let live: Vec<LeaseId> = r.state.leases.keys().copied().collect();
    live.into_iter().for_each(|id| {
        if r.state.leases.contains_key(&id) {
            r.finish(id)
        }
    });
}

/// Runs the job to its end. For each round who ran which task; `between` is called when a round begins.
fn homes(r: &mut Replica, job: JobId, mut between: impl FnMut(&mut Replica, u32)) -> BTreeMap<u32, BTreeMap<u64, Device>> {
    let mut homes: BTreeMap<u32, BTreeMap<u64, Device>> = BTreeMap::new();
    let mut last = 1;
    for _ in 0..10_000 {
        let of = &r.state.jobs[&job];
        if of.phase != Phase::Running {
            return homes;
        }
        let round = of.rounds.as_ref().map_or(1, |rounds| rounds.current(&of.spec));
        if round > last {
            between(r, round);
            last = round;
        }
        r.plan_and_grant();
        for (tasks, device) in running(r, job) {
            homes.entry(round).or_default().extend((tasks.first..tasks.end).map(|task| (task, device)));
        }
        finish_all(r);
        r.pause_ms = 10;
    }
    panic!("the job never ends");
}

/// In percent: tasks of a round that ran where they ran in the round before.
fn returned(homes: &BTreeMap<u32, BTreeMap<u64, Device>>, round: u32) -> u64 {
    let (before, now) = (&homes[&(round - 1)], &homes[&round]);
    assert_eq!(now.len() as u64, TASKS);
    100 * now.iter().filter(|(task, device)| before.get(task) == Some(device)).count() as u64 / TASKS
}

#[test]
fn in_every_further_round_nearly_all_tasks_return_to_their_device() {
    for policy in ["model", "consistent-hash"] {
        let mut r = cpus(policy, 5);
        let job = r.submit(in_rounds(8));
        let homes = homes(&mut r, job, |_, _| ());
        let share: Vec<u64> = (2..=8).map(|round| returned(&homes, round)).collect();
        // The first round tries everybody out.
        assert!(share[0] >= 80 && share[1..].iter().all(|percent| *percent >= 95), "{policy}: {share:?}");
    }
}

#[test]
fn what_a_dead_device_had_goes_to_the_others_and_theirs_stays() {
    for policy in ["model", "consistent-hash"] {
        let mut r = cpus(policy, 5);
        let job = r.submit(in_rounds(6));
        let homes = homes(&mut r, job, |r, round| {
            if round == 4 {
                r.lose(3);
            }
        });
        let (before, after) = (&homes[&3], &homes[&4]);
        let had = |worker: u64| before.values().filter(|(of, _)| of.0 == worker).count();
        assert!(had(3) > 0 && after.values().all(|(worker, _)| worker.0 != 3), "{policy}");
        // A fifth had to move. The others' own come first.
        assert!(returned(&homes, 4) >= 65, "{policy}: {}", returned(&homes, 4));
        assert!(returned(&homes, 5) >= 90 && returned(&homes, 6) >= 90, "{policy}: {} {}", returned(&homes, 5), returned(&homes, 6));
    }
}

#[test]
fn a_device_that_comes_in_the_middle_gets_its_part_at_once() {
    let mut r = cpus("model", 4);
    let job = r.submit(in_rounds(5));
    let homes = homes(&mut r, job, |r, round| {
        if round == 3 {
            r.register(9, vec![device(0, "cpu", 1)]);
        }
    });
    let part = |round: u32| 100 * homes[&round].values().filter(|(worker, _)| worker.0 == 9).count() as u64 / TASKS;
    assert!(part(3) >= 10 && part(4) >= 15, "nobody waits to go home: {} {}", part(3), part(4));
    assert!(returned(&homes, 5) >= 90, "{}", returned(&homes, 5));
}

/// By hand, each worker a third.
fn by_thirds(r: &mut Replica, job: JobId) {
    for (worker, first, end) in [(3, 0, THIRD), (1, THIRD, 2 * THIRD), (2, 2 * THIRD, TASKS)] {
        let lease = r.grant(job, 0, first, end - first, worker).expect("a lease");
        r.finish(lease);
    }
}

#[test]
fn another_job_over_the_same_files_finds_them_where_they_were_read() {
    let share = |version: u64| {
        let mut r = cpus("consistent-hash", 3);
        let first = r.submit(over_files(map_only(1), 1));
        by_thirds(&mut r, first);
        assert!(matches!(r.state.jobs[&first].phase, Phase::Done { .. }));
        let second = r.submit(over_files(map_only(1), version));
        let homes = homes(&mut r, second, |_, _| ());
        let third = |task: u64| [3, 1, 2][(task / THIRD).min(2) as usize];
        100 * homes[&1].iter().filter(|(task, (worker, _))| third(**task) == worker.0).count() as u64 / TASKS
    };
    assert!(share(1) >= 85, "{}", share(1));
    assert!(share(2) <= 60, "other files are the ring's: {}", share(2));
}

#[test]
fn the_memory_of_its_machine_is_next_when_the_device_is_gone() {
    let mut r = Replica { policy: policy("consistent-hash").unwrap(), ..Replica::new() };
    for worker in 1..=3 {
        r.register(worker, vec![device(0, "cpu", 1), device(1, "cpu", 1)]);
    }
    let first = r.submit(over_files(map_only(1), 1));
    by_thirds(&mut r, first);
    // Each comes back without the device that read.
    for worker in 1..=3 {
        r.register(worker, vec![device(1, "cpu", 1)]);
    }
    let second = r.submit(over_files(map_only(1), 1));
    let homes = homes(&mut r, second, |_, _| ());
    let third = |task: u64| [3, 1, 2][(task / THIRD).min(2) as usize];
    let near = 100 * homes[&1].iter().filter(|(task, (worker, _))| third(**task) == worker.0).count() as u64 / TASKS;
    assert!(near >= 85, "{near}");
}

#[test]
fn who_read_what_is_known_after_a_snapshot_and_only_where_it_is_of_use() {
    let mut r = cpus("model", 3);
    let plain = r.submit(map_only(50));
    r.run();
    assert!(matches!(r.state.jobs[&plain].phase, Phase::Done { .. }));
    let random = r.submit(over_files(JobSpec { policy: "random".into(), ..map_only(1) }, 1));
    r.run();
    assert!(matches!(r.state.jobs[&random].phase, Phase::Done { .. }));
    assert!(r.state.homes().is_empty(), "numbers lie in no cache, and `random` looks at none");
    let job = r.submit(in_rounds(3));
    homes(&mut r, job, |_, _| ());
    assert!(!r.state.homes().is_empty());
    let restored = State::from_snapshot("test", &r.state.to_snapshot()).unwrap();
    assert_eq!(restored.homes(), r.state.homes());
    // Logs of before format 4 say nothing of it.
    let mut old = cpus("model", 2);
    old.format = 3;
    old.submit(over_files(map_only(1), 1));
    old.run();
    assert!(old.state.homes().is_empty());
}
