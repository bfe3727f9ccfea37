//! Jobs that say which devices they want: only those run them, those that are preferred come first, and stages that begin on several devices
//! begin on all of them at once.

mod support;

use raftwerk_core::apply::Event;
use raftwerk_core::plan::{PREFER_MS, Proposal};
use raftwerk_core::{JobId, LeaseId, Outcome, WorkerId, gang, invariants, matching};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use std::collections::BTreeSet;
use support::*;

fn label(key: &str, value: &str) -> Label {
    Label { key: key.into(), value: value.into() }
}

fn register_labelled(r: &mut Replica, worker: u64, devices: Vec<Device>, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(key, value)| label(key, value)).collect();
    let hello = Hello { labels, ..hello(&format!("w{worker}"), r.index, devices) };
    let outcome = r.apply(Command::RegisterWorker(RegisterWorker { worker, hello: Some(hello) }));
    assert!(matches!(outcome, Outcome::Registered { .. }), "{outcome:?}");
}

/// A CPU in zone a, a card of NVIDIA and one of AMD in zone b.
fn lab() -> Replica {
    let mut r = Replica::new();
    register_labelled(&mut r, 1, vec![device(0, "cpu", 4)], &[("zone", "a")]);
    let card = |vendor: &str, features: &[&str], gib: u64| Device {
        vendor: vendor.into(),
        backend: "vulkan".into(),
        features: features.iter().map(|f| f.to_string()).collect(),
        capacity: Some(Capacity { milli_cpu: 1000, memory_bytes: gib << 30, slots: 8 }),
        ..device(1, "discrete", 1)
    };
    register_labelled(&mut r, 2, vec![card("NVIDIA", &["f16", "subgroup"], 8)], &[("zone", "b"), ("disk", "ssd")]);
    register_labelled(&mut r, 3, vec![card("AMD", &["subgroup"], 16)], &[("zone", "b")]);
    r
}

fn requiring(tasks: u64, require: DeviceMatch) -> JobSpec {
    let mut spec = map_only(tasks);
    spec.stages[0].require = Some(require);
    spec
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// Workers that ran tasks of the job.
fn workers_of(r: &Replica, job: JobId) -> BTreeSet<u64> {
    r.state.jobs[&job].shares.iter().filter(|(_, share)| share.tasks > 0).map(|((_, worker, _), _)| worker.0).collect()
}

#[test]
fn a_job_runs_only_on_devices_that_have_all_it_requires() {
    let cases = [
        (DeviceMatch { vendors: words(&["nvidia"]), ..DeviceMatch::default() }, vec![2]),
        (DeviceMatch { vendors: words(&["amd", "nvidia"]), ..DeviceMatch::default() }, vec![2, 3]),
        (DeviceMatch { backends: words(&["vulkan"]), ..DeviceMatch::default() }, vec![2, 3]),
        (DeviceMatch { features: words(&["f16", "subgroup"]), ..DeviceMatch::default() }, vec![2]),
        (DeviceMatch { memory_bytes: 16 << 30, ..DeviceMatch::default() }, vec![3]),
        (DeviceMatch { labels: vec![label("zone", "a")], ..DeviceMatch::default() }, vec![1]),
        (DeviceMatch { labels: vec![label("disk", "ssd"), label("zone", "b")], ..DeviceMatch::default() }, vec![2]),
    ];
    for (require, wanted) in cases {
        let mut r = lab();
        let job = r.submit(requiring(2_000, require.clone()));
        for worker in 1..4 {
            let index = u32::from(worker != 1);
            let session = r.state.workers[&WorkerId(worker)].session.0;
            let placement = Placement {
                job: Some(placement::Job::Id(job.0)),
                first_task: 1_000 + worker,
                task_count: 1,
                worker,
                session,
                device: index,
                ..Placement::default()
            };
            let outcome = r.apply(Command::GrantLeases(GrantLeases { placements: vec![placement] }));
            let granted = matches!(outcome, Outcome::Granted { stale: 0, .. });
            assert_eq!(granted, wanted.contains(&worker), "worker {worker}, {require:?}");
        }
        r.run();
        assert_eq!(workers_of(&r, job), wanted.into_iter().collect(), "{require:?}");
        assert_eq!(r.tally(job), 1_999 * 1_000);
    }
}

#[test]
fn a_wish_that_nobody_meets_is_told_with_what_would_have_to_change() {
    let r = lab();
    let features = words(&["f16", "f64"]);
    let spec =
        requiring(10, DeviceMatch { vendors: words(&["amd"]), features, labels: vec![label("zone", "b")], ..DeviceMatch::default() });
    let short = matching::shortfall(&r.state, &spec).expect("nobody can");
    let said = "no device of the cluster can run stage 'map'\n  \
        3 of 3 devices: lacks feature f64\n  \
        2 of 3 devices: not of vendor amd\n  \
        2 of 3 devices: lacks feature f16\n  \
        1 of 3 devices: its worker has no label zone=b\n  \
        nearest: worker 2 (w2) device 1, discrete 1 (discrete): not of vendor amd, lacks feature f64\n  \
        then: worker 3 (w3) device 1, discrete 1 (discrete): lacks feature f16, lacks feature f64\n  \
        then: worker 1 (w1) device 0, cpu 0 (cpu): not of vendor amd, lacks feature f16, lacks feature f64, its worker has no label zone=b";
    assert_eq!(short.lines(), said);
    assert!(!short.line().contains('\n'));
    // What a kernel needs comes the same way.
    let mut other = map_only(3);
    other.stages[0].kernel.as_mut().unwrap().name = "unheard_of".into();
    other.stages[0].device = Some(DeviceRequest { class: "gpu".into(), amount: None });
    let said = matching::shortfall(&r.state, &other).expect("nobody can").lines();
    assert!(
        said.contains("3 of 3 devices: has no twin of kernel unheard_of@1") && said.contains("1 of 3 devices: not of class gpu"),
        "{said}"
    );
    let empty = Replica::new();
    assert!(matching::shortfall(&empty.state, &map_only(1)).expect("nobody is there").lines().contains("worker start"));
}

#[test]
fn a_backend_that_no_build_has_is_told_as_one_that_nobody_can_start() {
    let r = lab();
    let said = |backends: &[&str]| {
        let spec = requiring(10, DeviceMatch { backends: words(backends), vendors: words(&["intel"]), ..DeviceMatch::default() });
        matching::shortfall(&r.state, &spec).expect("nobody can").lines()
    };
    let hopeless = said(&["dx12", "metal"]);
    assert!(hopeless.contains("\n  no build of this release reaches a device by dx12 or metal; require backend \"vulkan\""), "{hopeless}");
    let possible = said(&["metal", "vulkan"]);
    assert!(!possible.contains("no build"), "{possible}");
}

#[test]
fn lost_workers_are_not_counted_and_come_back_with_their_labels() {
    let mut r = lab();
    let spec = requiring(10, DeviceMatch { labels: vec![label("zone", "a")], ..DeviceMatch::default() });
    assert_eq!(matching::shortfall(&r.state, &spec), None);
    r.lose(1);
    assert!(matching::shortfall(&r.state, &spec).is_some());
    let job = r.submit(JobSpec { wait_for_devices: true, ..spec });
    assert!(r.plan().is_empty());
    let said = r.state.waits_for(job);
    assert!(said.starts_with("no device of the cluster can run stage 'map'; ") && said.contains("no label zone=a"), "{said}");
    register_labelled(&mut r, 1, vec![device(0, "cpu", 4)], &[("zone", "a")]);
    assert_eq!(r.state.waits_for(job), "");
    r.run();
    assert_eq!(workers_of(&r, job), [1].into());
}

#[test]
fn labels_are_kept_from_format_4_on_only_and_made_tidy() {
    let mut r = Replica::new();
    r.format = 3;
    register_labelled(&mut r, 1, vec![device(0, "cpu", 1)], &[("zone", "a")]);
    assert!(r.state.workers[&WorkerId(1)].hello.labels.is_empty());
    r.format = 4;
    register_labelled(&mut r, 1, vec![device(0, "cpu", 1)], &[("zone", "b"), ("Bad Key", "x"), ("disk", "ssd"), ("zone", "c")]);
    assert_eq!(r.state.workers[&WorkerId(1)].hello.labels, [label("disk", "ssd"), label("zone", "b")]);
}

#[test]
fn hundreds_of_jobs_that_wait_for_a_device_do_not_hold_up_the_one_behind_them() {
    let mut r = lab();
    for n in 0..600 {
        let mut spec = map_only(1);
        // Of two kinds; both are found out once.
        match n % 2 {
            0 => spec.stages[0].require = Some(DeviceMatch { vendors: words(&["apple"]), ..DeviceMatch::default() }),
            _ => spec.stages[0].device = Some(DeviceRequest { class: "integrated".into(), amount: None }),
        }
        r.submit(JobSpec { wait_for_devices: true, ..spec });
    }
    let job = r.submit(map_only(5));
    let leases = r.plan_and_grant();
    assert!(!leases.is_empty() && leases.iter().all(|id| r.state.leases[id].job == job));
}

/// Two equal CPUs, of which the stage prefers the second.
fn preferring(tasks: u64) -> (Replica, JobSpec) {
    let mut r = Replica::new();
    register_labelled(&mut r, 1, vec![device(0, "cpu", 1)], &[]);
    register_labelled(&mut r, 2, vec![device(0, "cpu", 1)], &[("disk", "ssd")]);
    let mut spec = map_only(tasks);
    spec.stages[0].prefer = Some(DeviceMatch { labels: vec![label("disk", "ssd")], ..DeviceMatch::default() });
    (r, spec)
}

fn placed_on(placements: &[Placement]) -> BTreeSet<u64> {
    placements.iter().map(|p| p.worker).collect()
}

#[test]
fn a_preferred_device_is_served_first_and_alone_while_it_has_room() {
    for policy in raftwerk_core::plan::policy::policies() {
        let (mut r, spec) = preferring(1);
        r.policy = *policy;
        let fresh = r.plan_with(&[(0, &spec)]);
        assert_eq!(placed_on(&fresh), [2].into(), "{}: {fresh:?}", policy.name());
        let job = r.submit(spec);
        r.run();
        assert_eq!(workers_of(&r, job), [2].into(), "{}", policy.name());
    }
}

#[test]
fn what_preferred_devices_have_no_room_for_goes_to_the_others_at_once() {
    for policy in raftwerk_core::plan::policy::policies() {
        let (mut r, spec) = preferring(100_000);
        r.policy = *policy;
        let job = r.submit(spec);
        // Two rounds of learning what a task takes, then both are busy.
        for _ in 0..3 {
            r.plan_and_grant();
            r.state.leases.keys().copied().collect::<Vec<LeaseId>>().into_iter().for_each(|id| r.finish(id));
        }
        let placements = r.plan();
        assert_eq!(placed_on(&placements), [1, 2].into(), "{}", policy.name());
        let first = placements.iter().min_by_key(|p| p.first_task).unwrap();
        assert_eq!(first.worker, 2, "{}: the preferred one takes the first tasks", policy.name());
        assert!(r.state.jobs[&job].stages[0].accepted() > 0);
    }
}

#[test]
fn nobody_idles_for_a_preference_longer_than_is_said() {
    // The preferred device tries its first lease, of which nothing is known yet, and it takes long.
    let (mut r, spec) = preferring(1_000);
    let job = r.submit(spec);
    assert_eq!(placed_on(&r.plan()), [2].into());
    r.plan_and_grant();
    assert_eq!(placed_on(&r.plan()), BTreeSet::new(), "it has room, and is asked for more when it has answered");
    r.pause_ms = PREFER_MS - 2;
    assert_eq!(placed_on(&r.plan()), BTreeSet::new());
    r.pause_ms = PREFER_MS;
    assert_eq!(placed_on(&r.plan()), [1].into());
    // When no preferred device is there, the others are as good as any.
    r.lose(2);
    assert_eq!(placed_on(&r.plan()), [1].into());
    r.run();
    assert_eq!(r.tally(job), 999 * 500);
}

// ---- Gangs ----

/// One round as the leader takes it: placements first, then what gangs need, all in one entry. The leases that were granted.
fn round(r: &mut Replica) -> Vec<LeaseId> {
    let Proposal { placements, gangs } = r.propose();
    let mut commands = gangs;
    if !placements.is_empty() {
        commands.insert(0, Command::GrantLeases(GrantLeases { placements }));
    }
    if commands.is_empty() {
        // Time passes all the same.
        commands.push(Command::MintId(MintId::default()));
    }
    let outcomes = r.apply_all(commands).outcomes;
    outcomes
        .into_iter()
        .flat_map(|outcome| match outcome {
            Outcome::Granted { leases, stale } => {
                assert_eq!(stale, 0, "a plan on the present state is never stale");
                leases
            }
            Outcome::Done | Outcome::Minted(_) => Vec::new(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn ganged(tasks: u64, devices: u32, hold_ms: u64) -> JobSpec {
    let mut spec = map_only(tasks);
    spec.stages[0].gang = Some(Gang { devices, hold_ms });
    spec
}

fn cpus(count: u64) -> Replica {
    let mut r = Replica::new();
    for worker in 1..=count {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    r
}

fn held(r: &Replica, job: JobId) -> Vec<u64> {
    r.state.gangs().get(&(job, 0)).into_iter().flat_map(|hold| hold.devices.iter().map(|(worker, _)| worker.0)).collect()
}

fn finish_all(r: &mut Replica) {
    let live: Vec<LeaseId> = r.state.leases.keys().copied().collect();
    live.into_iter().for_each(|id| r.finish(id));
}

#[test]
fn a_gang_holds_its_devices_in_one_entry_and_starts_on_all_of_them_in_another() {
    let mut r = cpus(3);
    let job = r.submit(ganged(30, 3, 5_000));
    assert!(round(&mut r).is_empty());
    assert_eq!(held(&r, job), [1, 2, 3]);
    let leases = round(&mut r);
    let on: BTreeSet<WorkerId> = leases.iter().map(|id| r.state.leases[id].worker).collect();
    assert_eq!((leases.len(), on.len()), (3, 3));
    assert!(leases.iter().all(|id| id.index == leases[0].index), "one entry: {leases:?}");
    assert!(r.state.gangs().is_empty());
    finish_all(&mut r);
    r.run();
    assert_eq!(r.tally(job), 29 * 15);
}

#[test]
fn a_busy_device_is_held_too_and_gets_nothing_new_until_the_gang_has_started() {
    let mut r = cpus(2);
    let plain = r.submit(map_only(10_000));
    round(&mut r);
    assert_eq!(r.state.leases.values().map(|l| l.worker.0).collect::<BTreeSet<_>>(), [1, 2].into());
    let job = r.submit(JobSpec { priority: 60, ..ganged(10, 2, 5_000) });
    assert!(round(&mut r).is_empty(), "held, and the plain job gets nothing more there");
    assert_eq!(held(&r, job), [1, 2]);
    let waits = r.state.waits_for(job);
    assert!(waits.contains("holds 2 (worker 1 device 0, worker 2 device 0)") && waits.contains("2 of them are busy"), "{waits}");
    assert!(
        r.grant(plain, 0, 9_000, 1, 1).is_none() && r.grant(job, 0, 0, 1, 1).is_none(),
        "nobody gets a lease there, not even the gang, one by one"
    );
    assert!(round(&mut r).is_empty(), "not before both are idle");
    let one = *r.state.leases.iter().find(|(_, l)| l.worker == WorkerId(1)).unwrap().0;
    r.state.leases_of(WorkerId(1)).map(|(id, _)| id).collect::<Vec<_>>().into_iter().for_each(|id| r.finish(id));
    assert!(!r.state.leases.contains_key(&one) && round(&mut r).is_empty());
    finish_all(&mut r);
    let leases = round(&mut r);
    assert_eq!(leases.iter().filter(|id| r.state.leases[id].job == job).count(), 2);
    finish_all(&mut r);
    r.run();
}

#[test]
fn a_hold_runs_out_gives_everything_back_and_tries_again_after_a_pause() {
    let mut r = cpus(2);
    r.submit(map_only(2));
    let [a, _] = round(&mut r)[..] else { panic!("one lease each") };
    r.finish(a);
    let job = r.submit(ganged(10, 2, 5_000));
    round(&mut r);
    assert_eq!(held(&r, job), [1, 2]);
    r.pause_ms = 4_900;
    assert!(round(&mut r).is_empty());
    assert_eq!(held(&r, job), [1, 2]);
    r.pause_ms = 200;
    assert!(round(&mut r).is_empty());
    assert_eq!((held(&r, job), r.state.gangs()[&(job, 0)].given_back), (vec![], 1));
    assert!(r.state.waits_for(job).contains("; 1 time it gave back"), "{}", r.state.waits_for(job));
    // Others are served meanwhile.
    let other = r.submit(map_only(1));
    let leases = round(&mut r);
    assert_eq!((held(&r, job).len(), leases.iter().filter(|id| r.state.leases[id].job == other).count()), (0, 1));
    finish_all(&mut r);
    r.pause_ms = 1_100;
    round(&mut r);
    assert_eq!(held(&r, job), [1, 2]);
    assert_eq!(round(&mut r).len(), 2);
}

#[test]
fn two_gangs_over_the_same_devices_both_run() {
    let mut r = cpus(4);
    let a = r.submit(ganged(40, 3, 3_000));
    let b = r.submit(ganged(40, 3, 3_000));
    for _ in 0..200 {
        round(&mut r);
        // Of two gangs, one at most holds a part only.
        let parts = [a, b].iter().filter(|job| (1..3).contains(&held(&r, **job).len())).count();
        assert!(parts <= 1);
        finish_all(&mut r);
        r.pause_ms = 50;
        if r.state.active_count() == 0 {
            return;
        }
    }
    panic!("{:?}", r.state.gangs());
}

#[test]
fn a_large_gang_is_not_starved_by_small_ones() {
    let mut r = cpus(3);
    let small = |r: &mut Replica| r.submit(ganged(2, 2, 3_000));
    small(&mut r);
    small(&mut r);
    let large = r.submit(ganged(3, 3, 10_000));
    for n in 0..500 {
        round(&mut r);
        if r.state.jobs[&large].phase.ended_at().is_some() {
            return;
        }
        if n % 2 == 0 {
            finish_all(&mut r);
            small(&mut r);
        }
        r.pause_ms = 100;
    }
    panic!("{:?}", r.state.gangs());
}

#[test]
fn the_death_of_a_held_worker_ends_its_part_of_the_hold_and_another_device_takes_its_place() {
    let mut r = cpus(2);
    r.submit(map_only(1));
    round(&mut r);
    let job = r.submit(ganged(10, 2, 20_000));
    round(&mut r);
    assert_eq!(held(&r, job), [1, 2]);
    let until = r.state.gangs()[&(job, 0)].until;
    r.lose(2);
    assert_eq!(held(&r, job), [1]);
    round(&mut r);
    assert_eq!(held(&r, job), [1], "there is nobody else");
    r.register(5, vec![device(0, "cpu", 1)]);
    round(&mut r);
    assert_eq!((held(&r, job), r.state.gangs()[&(job, 0)].until), (vec![1, 5], until), "the time of the hold goes on");
    finish_all(&mut r);
    assert_eq!(round(&mut r).len(), 2);
}

#[test]
fn a_drained_device_is_exchanged_and_one_that_is_only_silent_is_kept() {
    let mut r = cpus(3);
    // What keeps the gang from starting in between.
    r.submit(map_only(1));
    round(&mut r);
    let job = r.submit(ganged(10, 2, 20_000));
    round(&mut r);
    let first = held(&r, job);
    assert_eq!(first.len(), 2);
    r.suspects = [WorkerId(first[0])].into();
    round(&mut r);
    assert!(held(&r, job).contains(&first[0]), "{:?}", held(&r, job));
    r.suspects.clear();
    let rest = (1..4).find(|worker| !first.contains(worker)).unwrap();
    r.apply(Command::DrainWorker(DrainWorker { worker: first[1] }));
    round(&mut r);
    assert_eq!(held(&r, job).into_iter().collect::<BTreeSet<_>>(), [first[0], rest].into());
}

#[test]
fn what_is_held_is_free_again_when_the_job_ends_or_a_new_epoch_begins() {
    for end in 0..3 {
        let mut r = cpus(2);
        r.submit(map_only(1));
        round(&mut r);
        let job = r.submit(ganged(10, 2, 20_000));
        round(&mut r);
        assert!(!held(&r, job).is_empty());
        r.apply(match end {
            0 => Command::CancelJob(CancelJob { job: job.0 }),
            1 => Command::FailJob(FailJob { job: job.0, cause: "asked to".into() }),
            _ => Command::NewEpoch(NewEpoch { removed_replicas: vec![], forget_workers: true }),
        });
        assert!(held(&r, job).is_empty(), "{end}");
    }
}

#[test]
fn a_gang_starts_whole_or_not_at_all() {
    let mut r = cpus(2);
    let job = r.submit(ganged(10, 2, 20_000));
    round(&mut r);
    let Proposal { gangs, .. } = r.propose();
    let [Command::StartGang(start)] = &gangs[..] else { panic!("{gangs:?}") };
    let refused = |r: &mut Replica, start: StartGang| {
        let outcome = r.apply(Command::StartGang(start));
        assert!(matches!(outcome, Outcome::Granted { ref leases, .. } if leases.is_empty()), "{outcome:?}");
        assert!(r.state.leases.is_empty() && r.state.jobs[&job].stages[0].leases == 0);
    };
    let one = StartGang { placements: start.placements[..1].to_vec(), ..start.clone() };
    let mut twice = start.clone();
    twice.placements[1] = twice.placements[0];
    let mut same_tasks = start.clone();
    same_tasks.placements[1].first_task = same_tasks.placements[0].first_task;
    let mut old_session = start.clone();
    old_session.placements[1].session += 100;
    let mut no_tasks = start.clone();
    no_tasks.placements[1].first_task = 10_000;
    for start in [one, twice, same_tasks, old_session, no_tasks] {
        refused(&mut r, start);
    }
    // A worker that has gone, and come back, in between: its session is another one.
    r.register(2, vec![device(0, "cpu", 1)]);
    refused(&mut r, start.clone());
    round(&mut r);
    assert_eq!(round(&mut r).len(), 2);
    invariants::check(&r.state).unwrap();
}

#[test]
fn a_gang_takes_only_what_it_requires_and_first_what_it_prefers() {
    let mut r = Replica::new();
    for worker in 1..6 {
        let labels: &[(&str, &str)] = if worker == 1 {
            &[]
        } else if worker > 3 {
            &[("zone", "a"), ("disk", "ssd")]
        } else {
            &[("zone", "a")]
        };
        register_labelled(&mut r, worker, vec![device(0, "cpu", 1)], labels);
    }
    let mut spec = ganged(10, 3, 5_000);
    spec.stages[0].require = Some(DeviceMatch { labels: vec![label("zone", "a")], ..DeviceMatch::default() });
    spec.stages[0].prefer = Some(DeviceMatch { labels: vec![label("disk", "ssd")], ..DeviceMatch::default() });
    let job = r.submit(spec);
    round(&mut r);
    assert_eq!(held(&r, job), [2, 4, 5]);
}

#[test]
fn a_gang_larger_than_the_cluster_is_refused_and_holds_nothing_while_it_waits() {
    let mut r = cpus(2);
    let spec = ganged(10, 3, 5_000);
    let said = matching::shortfall(&r.state, &spec).expect("too few").lines();
    assert_eq!(
        said,
        "stage 'map' begins on 3 devices at once (gang), and 2 of the cluster can run it\n  \
         start workers with 1 more device that can run it, or ask for at most 2 (gang = 2)"
    );
    assert_eq!(matching::shortfall(&r.state, &ganged(2, 3, 5_000)), None, "with two tasks it needs two");
    let job = r.submit(JobSpec { wait_for_devices: true, ..spec });
    let other = r.submit(map_only(2));
    let leases = round(&mut r);
    assert_eq!((held(&r, job).len(), leases.len()), (0, 2));
    assert!(r.state.waits_for(job).starts_with("stage 'map' begins on 3 devices at once (gang), and 2"), "{}", r.state.waits_for(job));
    finish_all(&mut r);
    assert!(r.state.jobs[&other].phase.ended_at().is_some());
    r.register(3, vec![device(0, "cpu", 1)]);
    round(&mut r);
    assert_eq!(round(&mut r).len(), 3);
}

#[test]
fn a_reduce_stage_begins_as_a_gang_once_its_input_is_there() {
    let mut r = cpus(2);
    let mut spec = map_reduce(4, 4);
    spec.stages[1].gang = Some(Gang { devices: 2, hold_ms: gang::DEFAULT_HOLD_MS });
    let job = r.submit(spec);
    for _ in 0..20 {
        round(&mut r);
        if !r.state.gangs().is_empty() {
            break;
        }
        finish_all(&mut r);
    }
    assert!(r.state.gangs().contains_key(&(job, 1)), "{:?}", r.state.jobs[&job].stages);
    // Its input is lost again, so it waits for that and holds nothing meanwhile.
    let holder = r.state.jobs[&job].stages[0].tasks().iter().find_map(|(_, task)| match task {
        raftwerk_core::stage::TaskState::Accepted { worker, .. } => Some(worker.0),
        _ => None,
    });
    let holder = holder.expect("shuffle data");
    r.lose(holder);
    assert!(r.state.gangs().is_empty() && !r.state.jobs[&job].stages[1].open);
    r.register(holder, vec![device(0, "cpu", 1)]);
    let mut begun = Vec::new();
    for _ in 0..20 {
        let leases = round(&mut r);
        begun.extend(leases.iter().filter(|id| r.state.leases[id].stage == 1).copied());
        finish_all(&mut r);
        if !begun.is_empty() {
            break;
        }
    }
    assert_eq!(begun.len(), 2);
}

#[test]
fn a_gang_for_which_too_few_devices_are_left_fails_with_the_reason() {
    let mut r = cpus(2);
    let mut spec = map_reduce(4, 4);
    spec.stages[0].max_lease_tasks = 1;
    spec.stages[1].gang = Some(Gang { devices: 2, hold_ms: 5_000 });
    let job = r.submit(spec);
    let [a, b] = [r.grant(job, 0, 0, 1, 1).unwrap(), r.grant(job, 0, 1, 3, 2).unwrap()];
    r.fail(a, FailureClass::Device, "lost");
    r.finish(b);
    assert_eq!(r.state.jobs[&job].phase.cause(), "", "the map stage needs no more than one");
    let rest = r.grant(job, 0, 0, 1, 2).unwrap();
    r.finish(rest);
    let cause = r.state.jobs[&job].phase.cause();
    assert!(cause.starts_with("stage 'reduce' begins on 2 devices at once (gang), and 1 of 2 are left"), "{cause}");
}

#[test]
fn a_namespace_that_may_not_have_so_many_devices_is_told() {
    let mut r = cpus(3);
    let terms = NamespaceTerms { max_devices: 2, ..NamespaceTerms::default() };
    r.apply(Command::SetNamespace(SetNamespace { name: "default".into(), terms: Some(terms) }));
    let said = r.state.gang_beyond_namespace(&ganged(10, 3, 5_000)).expect("more than it may have");
    assert!(said.contains("begins on 3 devices") && said.contains("2 may work for namespace 'default'"), "{said}");
    let job = r.submit(ganged(10, 2, 5_000));
    round(&mut r);
    assert_eq!(round(&mut r).len(), 2);
    finish_all(&mut r);
    r.run();
    assert_eq!(r.tally(job), 45);
}

#[test]
fn specs_that_want_the_impossible_are_refused() {
    let mut r = cpus(1);
    let mut refused = |change: &dyn Fn(&mut StageSpec), word: &str| {
        let mut spec = map_only(4);
        change(&mut spec.stages[0]);
        let outcome = r.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() }));
        assert!(matches!(&outcome, Outcome::Refused(text) if text.contains(word)), "{word}: {outcome:?}");
    };
    refused(&|s| s.gang = Some(Gang { devices: 0, hold_ms: 5_000 }), "1 to 1024 devices");
    refused(&|s| s.gang = Some(Gang { devices: u32::MAX, hold_ms: 5_000 }), "1 to 1024 devices");
    refused(&|s| s.gang = Some(Gang { devices: 2, hold_ms: 1 }), "1000 to 600000 ms");
    let wanting = |change: fn(&mut DeviceMatch)| {
        let mut wanted = DeviceMatch::default();
        change(&mut wanted);
        Some(wanted)
    };
    refused(&|s| s.require = wanting(|w| w.class = "gpu".into()), "device request");
    refused(&|s| s.prefer = wanting(|w| w.class = "quantum".into()), "quantum");
    refused(&|s| s.prefer = wanting(|w| w.vendors = vec!["x".repeat(65)]), "1 to 64 bytes as vendor");
    refused(&|s| s.require = wanting(|w| w.features = vec!["x".into(); 33]), "at most 32 words");
    refused(&|s| s.require = wanting(|w| w.labels = vec![label("Zone", "a")]), "a-z");
    refused(&|s| s.require = wanting(|w| w.labels = vec![label("zone", "a"); 33]), "at most 32 labels");
}

#[test]
fn the_events_say_that_a_hold_ran_out() {
    let mut r = cpus(2);
    r.submit(map_only(1));
    round(&mut r);
    let job = r.submit(ganged(10, 2, 1_000));
    round(&mut r);
    r.pause_ms = 1_100;
    let Proposal { gangs, .. } = r.propose();
    let events = r.apply_all(gangs).events;
    assert_eq!(events, [Event::HoldRanOut { job, stage: 0, held: 2 }]);
}
