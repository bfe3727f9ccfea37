//! A stage that begins as a gang does so in every round of its job: each time on all its devices at once, or not yet.

mod support;

use raftwerk_core::plan::Proposal;
use raftwerk_core::{JobId, LeaseId, Outcome, Phase, State, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use std::collections::BTreeSet;
use support::*;

fn cpus(count: u64) -> Replica {
    let mut r = Replica::new();
    for worker in 1..=count {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    r
}

fn ganged(tasks: u64, devices: u32, max: u32) -> JobSpec {
    let mut spec = JobSpec { rounds: Some(Rounds { max, all: false }), ..map_reduce(tasks, 1) };
    for stage in &mut spec.stages {
        stage.gang = Some(Gang { devices, hold_ms: 5_000 });
    }
    spec
}

/// One planning round as the leader takes it, in one entry; what it granted.
fn plan(r: &mut Replica) -> Vec<LeaseId> {
    let Proposal { placements, gangs } = r.propose();
    let mut commands = vec![Command::GrantLeases(GrantLeases { placements })];
    commands.extend(gangs);
    let granted = |outcome: Outcome| match outcome {
        Outcome::Granted { leases, stale } => {
            assert_eq!(stale, 0, "a plan on the present state is never stale");
            leases
        }
        _ => Vec::new(),
    };
    r.apply_all(commands).outcomes.into_iter().flat_map(granted).collect()
}

fn finish_all(r: &mut Replica) {
    let live: Vec<LeaseId> = r.state.leases.keys().copied().collect();
    // The end of a round ends what is left of it.
    live.into_iter().for_each(|id| {
        if r.state.leases.contains_key(&id) {
            r.finish(id)
        }
    });
}

fn round_of(r: &Replica, job: JobId) -> u32 {
    let job = &r.state.jobs[&job];
    job.rounds.as_ref().map_or(0, |rounds| rounds.current(&job.spec))
}

fn map_workers(r: &Replica, leases: &[LeaseId], job: JobId) -> BTreeSet<WorkerId> {
    let of_map = |lease: &&raftwerk_core::Lease| lease.job == job && lease.stage == 0;
    leases.iter().map(|id| &r.state.leases[id]).filter(of_map).map(|lease| lease.worker).collect()
}

/// Runs until the job is in this round and its map stage waits for its gang.
fn until_round(r: &mut Replica, job: JobId, round: u32) {
    for _ in 0..100 {
        if round_of(r, job) == round {
            assert!(!r.state.jobs[&job].stages[0].has_begun());
            return;
        }
        plan(r);
        finish_all(r);
    }
    panic!("the job is in round {}", round_of(r, job));
}

/// Until the job has ended or is to be published.
fn run(r: &mut Replica, job: JobId) {
    for _ in 0..200 {
        if r.state.jobs[&job].phase != Phase::Running {
            return;
        }
        plan(r);
        finish_all(r);
    }
    panic!("the job never ends: {:?}", r.state.gangs());
}

#[test]
fn every_round_begins_on_all_devices_of_the_gang_at_once() {
    let mut r = cpus(4);
    let job = r.submit(ganged(9, 3, 4));
    let mut begun = Vec::new();
    for _ in 0..100 {
        let waits = !r.state.jobs[&job].stages[0].has_begun();
        let (round, leases) = (round_of(&r, job), plan(&mut r));
        let on = map_workers(&r, &leases, job);
        if waits && !on.is_empty() {
            begun.push((round, on.len()));
        }
        finish_all(&mut r);
        if r.state.jobs[&job].phase != Phase::Running {
            break;
        }
    }
    assert_eq!(begun, [(1, 3), (2, 3), (3, 3), (4, 3)]);
    assert_eq!((r.state.jobs[&job].phase.clone(), r.tally(job)), (Phase::Publishing, 36));
    assert!(r.state.gangs().is_empty());
}

#[test]
fn no_lease_of_a_later_round_is_granted_before_its_gang_starts() {
    let mut r = cpus(3);
    let job = r.submit(ganged(6, 2, 3));
    until_round(&mut r, job, 2);
    assert!(r.grant(job, 0, 0, 1, 1).is_none(), "one by one");
    assert!(plan(&mut r).is_empty());
    let held = &r.state.gangs()[&(job, 0)];
    assert_eq!(held.devices.len(), 2);
    assert!(r.state.waits_for(job).starts_with("stage 'map' begins on 2 devices at once (gang), holds 2"), "{}", r.state.waits_for(job));
    // Whoever takes over from a snapshot knows it as well.
    let restored = State::from_snapshot("test", &r.state.to_snapshot()).unwrap();
    assert_eq!(restored, r.state);
    assert!(!restored.jobs[&job].stages[0].has_begun() && restored.jobs[&job].stages[0].leases > 0);
    assert_eq!(plan(&mut r).len(), 2);
}

#[test]
fn within_a_round_a_gang_that_has_begun_is_not_asked_for_again() {
    let mut r = cpus(3);
    let job = r.submit(ganged(30, 3, 3));
    until_round(&mut r, job, 2);
    plan(&mut r);
    assert_eq!(plan(&mut r).len(), 3);
    r.lose(3);
    // Two are left, which is too few to begin and enough to go on.
    for _ in 0..50 {
        finish_all(&mut r);
        if round_of(&r, job) == 3 {
            break;
        }
        plan(&mut r);
    }
    assert_eq!(round_of(&r, job), 3);
    for _ in 0..3 {
        assert!(plan(&mut r).is_empty(), "the next round has nobody to begin on");
    }
    let waits = r.state.waits_for(job);
    assert!(waits.starts_with("stage 'map' begins on 3 devices at once (gang), and 2 of the cluster can run it"), "{waits}");
    r.register(4, vec![device(0, "cpu", 1)]);
    plan(&mut r);
    assert_eq!(plan(&mut r).len(), 3);
    run(&mut r, job);
    assert_eq!((r.state.jobs[&job].phase.clone(), r.tally(job)), (Phase::Publishing, 29 * 15));
}

#[test]
fn between_rounds_others_get_what_is_free_and_end_before_the_next_begins() {
    let mut r = cpus(2);
    let job = r.submit(JobSpec { priority: 60, ..ganged(4, 2, 3) });
    plan(&mut r);
    assert_eq!(plan(&mut r).len(), 2);
    let other = r.submit(map_only(100_000));
    let mut others_had = BTreeSet::new();
    for _ in 0..60 {
        for id in plan(&mut r) {
            let lease = &r.state.leases[&id];
            // On a device that is held for the gang nobody else begins anything.
            assert!(lease.job == job || r.state.holder_of((lease.worker, lease.device)).is_none());
            if lease.job == other {
                others_had.insert(round_of(&r, job));
            }
        }
        finish_all(&mut r);
        if r.state.jobs[&job].phase != Phase::Running {
            break;
        }
    }
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert!(others_had.len() > 1, "while one device reduced, the other one was free: {others_had:?}");
}

#[test]
fn a_later_round_for_whose_gang_too_few_devices_are_left_fails_the_job_with_the_reason() {
    let mut r = cpus(2);
    let job = r.submit(ganged(10, 2, 5));
    until_round(&mut r, job, 2);
    plan(&mut r);
    let [first, _] = plan(&mut r)[..] else { panic!("two leases") };
    r.fail(first, FailureClass::Device, "lost");
    for _ in 0..20 {
        finish_all(&mut r);
        if r.state.jobs[&job].phase != Phase::Running {
            break;
        }
        plan(&mut r);
    }
    let cause = r.state.jobs[&job].phase.cause().to_owned();
    assert!(cause.starts_with("stage 'map' begins on 2 devices at once (gang), and 1 of 2 are left"), "{cause}");
    assert_eq!(r.state.jobs[&job].rounds.as_ref().map(|rounds| rounds.ended.len()), Some(2), "the round under way was brought to its end");
}

#[test]
fn a_hold_that_runs_out_between_rounds_gives_its_devices_back() {
    let mut r = cpus(2);
    let job = r.submit(ganged(4, 2, 3));
    until_round(&mut r, job, 2);
    // One device stays busy for longer than the hold lasts.
    let other = r.submit(map_only(2));
    let long = r.grant(other, 0, 0, 1, 1).expect("a free device");
    plan(&mut r);
    assert_eq!(r.state.gangs()[&(job, 0)].devices.len(), 2);
    r.pause_ms = 5_100;
    plan(&mut r);
    assert_eq!((r.state.gangs()[&(job, 0)].devices.len(), r.state.gangs()[&(job, 0)].given_back), (0, 1));
    r.finish(long);
    r.pause_ms = 1_100;
    plan(&mut r);
    finish_all(&mut r);
    r.pause_ms = 1_100;
    run(&mut r, job);
    assert_eq!((r.state.jobs[&job].phase.clone(), r.tally(job)), (Phase::Publishing, 6));
    assert!(r.state.gangs().is_empty(), "what earlier holds came to is forgotten once the gang has started");
}
