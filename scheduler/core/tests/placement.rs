//! Placement by what leases are expected to cost, on devices that exist in these tests only.

mod support;

use raftwerk_core::cost::ORDINARY;
use raftwerk_core::{JobId, LeaseId, Outcome, Phase, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use std::collections::{BTreeMap, BTreeSet};
use support::*;

/// What a device really takes: of a lease, and of a task.
#[derive(Clone, Copy)]
struct Real {
    fixed_ns: u64,
    task_ns: u64,
}

impl Real {
    fn of(self, tasks: u64) -> u64 {
        self.fixed_ns + tasks * self.task_ns
    }
}

/// Devices that take their leases one after the other, in time that passes only here.
struct Lab {
    r: Replica,
    real: BTreeMap<(u64, u32), Real>,
    now_ns: u64,
    free_at: BTreeMap<(u64, u32), u64>,
    ends: BTreeSet<(u64, LeaseId)>,
    /// Every lease that ended: who, how many tasks, when.
    done: Vec<((u64, u32), u64, u64)>,
    /// Fifteen percent up or down, the same in every run.
    noise: u64,
}

impl Lab {
    /// Every device is a model of its own.
    fn new(devices: &[(u64, u32, &str, Real)]) -> Lab {
        Lab::with_models(devices, |worker, class| format!("{class} of {worker}"))
    }

    fn with_models(devices: &[(u64, u32, &str, Real)], model: impl Fn(u64, &str) -> String) -> Lab {
        let mut r = Replica::new();
        let workers: BTreeSet<u64> = devices.iter().map(|(worker, ..)| *worker).collect();
        for worker in workers {
            let own = devices.iter().filter(|(w, ..)| *w == worker);
            // Slots as real workers offer them.
            let capacity = Some(Capacity { slots: 256, ..Capacity::default() });
            let own = own.map(|(_, index, class, _)| Device { name: model(worker, class), capacity, ..device(*index, class, 1) });
            r.register(worker, own.collect());
        }
        let real = devices.iter().map(|(worker, index, _, real)| ((*worker, *index), *real)).collect();
        Lab { r, real, now_ns: 0, free_at: BTreeMap::new(), ends: BTreeSet::new(), done: Vec::new(), noise: 0x9e37_79b9_7f4a_7c15 }
    }

    fn noisy(&mut self, ns: u64) -> u64 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ns * (850 + (self.noise >> 33) % 301) / 1000
    }

    fn start(&mut self) {
        for id in self.r.plan_and_grant() {
            let lease = self.r.state.leases[&id].clone();
            let place = (lease.worker.0, lease.device);
            let took = self.real[&place].of(lease.tasks.count());
            let took = self.noisy(took);
            let free = self.free_at.entry(place).or_default();
            *free = (*free).max(self.now_ns) + took;
            self.ends.insert((*free, id));
        }
    }

    /// One lease ends, and a round is planned.
    fn step(&mut self) -> bool {
        let Some((end, id)) = self.ends.pop_first() else { return false };
        self.r.pause_ms = (end / 1_000_000).saturating_sub(self.now_ns / 1_000_000).saturating_sub(2);
        self.now_ns = end;
        if let Some(lease) = self.r.state.leases.get(&id).cloned() {
            let place = (lease.worker.0, lease.device);
            let busy_ns = self.real[&place].of(lease.tasks.count());
            let busy_ns = self.noisy(busy_ns);
            self.done.push((place, lease.tasks.count(), end));
            let report = Report { busy_ns, ..self.r.full_report(id) };
            self.r.report(lease.worker.0, report);
        }
        self.start();
        true
    }

    /// How long a job of so many tasks takes.
    fn run(&mut self, spec: JobSpec) -> u64 {
        let job = self.r.submit(spec);
        let began = self.now_ns;
        self.done.clear();
        self.start();
        while self.r.state.jobs[&job].phase == Phase::Running {
            assert!(self.step(), "nothing runs and the job is not done: {:?}", self.r.state.jobs[&job].stages[0].counts());
        }
        self.now_ns - began
    }

    fn tasks_of(&self, place: (u64, u32)) -> u64 {
        self.done.iter().filter(|(p, ..)| *p == place).map(|(_, n, _)| n).sum()
    }
}

const FAST: Real = Real { fixed_ns: 100_000, task_ns: 1_000_000 };
const SLOW: Real = Real { fixed_ns: 100_000, task_ns: 20_000_000 };

#[test]
fn ranges_follow_the_predictions_and_unequal_devices_end_together() {
    let mut lab = Lab::new(&[(7, 0, "cpu", FAST), (8, 0, "cpu", SLOW)]);
    // Tasks per second of both together.
    let least = |tasks: u64| tasks * 1_000_000 / 21 * 20;
    let cold = lab.run(map_only(20_000));
    assert!(cold < least(20_000) * 110 / 100, "cold: {cold} of {}", least(20_000));
    let warm = lab.run(map_only(20_000));
    assert!(warm < least(20_000) * 103 / 100, "warm: {warm} of {}", least(20_000));
    let (fast, slow) = (lab.tasks_of((7, 0)), lab.tasks_of((8, 0)));
    assert!((17..23).contains(&(fast / slow)), "{fast} to {slow}");
    let last = |worker: u64| lab.done.iter().filter(|(p, ..)| p.0 == worker).map(|(.., end)| *end).max().unwrap_or(0);
    assert!(last(7).abs_diff(last(8)) < 200_000_000, "they end {} ns apart", last(7).abs_diff(last(8)));
    let longest = |worker: u64| lab.done.iter().filter(|(p, ..)| p.0 == worker).map(|(_, n, _)| *n).max().unwrap_or(0);
    assert!((200..=400).contains(&longest(7)) && (10..=20).contains(&longest(8)), "{} {}", longest(7), longest(8));
}

#[test]
fn a_short_stage_is_left_to_the_device_that_is_done_first() {
    let mut lab = Lab::new(&[(7, 0, "cpu", FAST), (8, 0, "cpu", SLOW)]);
    lab.run(map_only(20_000));
    lab.run(map_only(10));
    assert_eq!((lab.tasks_of((7, 0)), lab.tasks_of((8, 0))), (10, 0), "one task of the slow one takes twice as long as all");
}

#[test]
fn a_gpu_gets_no_lease_that_does_not_pay_its_launch_and_none_too_long_to_lose() {
    let gpu = Real { fixed_ns: 20_000_000, task_ns: 10_000 };
    let mut lab = Lab::new(&[(7, 0, "cpu", Real { fixed_ns: 10_000, task_ns: 200_000 }), (7, 1, "discrete", gpu)]);
    lab.run(map_only(300_000));
    let warm = lab.run(map_only(300_000));
    let least = 300_000 * 10_000 / 21 * 20;
    assert!(warm < least * 125 / 100, "{warm} of {least}: a twentieth of each lease on the GPU is its launch");
    let leases: Vec<u64> = lab.done.iter().filter(|(p, ..)| p.1 == 1).map(|(_, n, _)| *n).collect();
    let (last, rest) = leases.split_last().expect("leases on the GPU");
    // Nine times the launch, within what fifteen percent of noise leave of it.
    assert!(rest.iter().all(|n| n * gpu.task_ns > 5 * gpu.fixed_ns), "{leases:?}, the last {last}");
    assert!(leases.iter().all(|n| gpu.of(*n) < 1_300_000_000), "{leases:?}");
}

#[test]
fn a_device_of_which_nothing_is_known_gets_one_small_lease() {
    let mut lab = Lab::new(&[(7, 0, "cpu", FAST), (8, 0, "cpu", SLOW)]);
    let job = lab.r.submit(map_only(10_000));
    lab.start();
    let out: Vec<u64> = lab.r.state.leases.values().map(|l| l.tasks.count()).collect();
    assert_eq!(out, [1, 1]);
    assert!(lab.r.plan().is_empty(), "and no second one before it is back");
    lab.step();
    let known = lab.r.state.leases.values().filter(|l| l.worker == WorkerId(7)).map(|l| l.tasks.count()).max();
    assert!(known > Some(100), "what the job has shown counts at once: {known:?} of {job}");
}

/// Once, three equal workers had 445, 1 and 1 of a short job's 447 tasks: whoever reported first was the only one known.
#[test]
fn equal_devices_share_a_short_job_whichever_reports_first() {
    let real = Real { fixed_ns: 100_000, task_ns: 70_000 };
    let devices = [(7, 0, "cpu", real), (8, 0, "cpu", real), (9, 0, "cpu", real)];
    let one_model = |_: u64, class: &str| class.to_owned();
    let own_models = |worker: u64, class: &str| format!("{class} of {worker}");
    for mut lab in [Lab::with_models(&devices, one_model), Lab::with_models(&devices, own_models)] {
        lab.run(map_only(447));
        let tasks = [7, 8, 9].map(|worker| lab.tasks_of((worker, 0)));
        assert!(tasks.iter().all(|n| n.abs_diff(149) <= 149 / 4), "{tasks:?}");
    }
}

#[test]
fn a_device_that_is_not_like_the_others_of_its_class_is_misjudged_for_one_task() {
    let mut lab = Lab::new(&[(7, 0, "cpu", FAST), (8, 0, "cpu", SLOW), (9, 0, "cpu", SLOW)]);
    let took = lab.run(map_only(400));
    // 364 ms for all three at best. The slow ones have shown one task each, fifteen percent from the truth, when they get theirs.
    assert!(took < 480_000_000, "{took}: {:?}", lab.done);
    for slow in [8, 9] {
        let first = lab.done.iter().find(|(place, ..)| place.0 == slow).map(|(_, tasks, _)| *tasks);
        assert_eq!(first, Some(1), "nothing more before it was back");
    }
}

#[test]
fn a_newcomer_gets_one_short_lease_by_what_others_of_its_model_take_and_no_second_one_before_it_is_back() {
    let one_model = |_: u64, class: &str| class.to_owned();
    let mut lab = Lab::with_models(&[(7, 0, "cpu", FAST)], one_model);
    let job = lab.r.submit(map_only(100_000));
    lab.start();
    (0..5).for_each(|_| assert!(lab.step()));
    // One like the others and one that is said to be another model; both are really slow.
    lab.r.register(8, vec![Device { name: "cpu".into(), ..device(0, "cpu", 1) }]);
    lab.r.register(9, vec![Device { name: "other".into(), ..device(0, "cpu", 1) }]);
    lab.real.extend([((8, 0), SLOW), ((9, 0), SLOW)]);
    lab.start();
    let out = |lab: &Lab, worker: u64| -> Vec<u64> { lab.r.state.leases_of(WorkerId(worker)).map(|(_, l)| l.tasks.count()).collect() };
    assert!(matches!(out(&lab, 8)[..], [n] if (15..=35).contains(&n)), "about a tenth of an ordinary lease: {:?}", out(&lab, 8));
    assert_eq!(out(&lab, 9), [1], "others of its class say less");
    while lab.done.iter().all(|(place, ..)| place.0 != 8) {
        assert!(out(&lab, 8).len() <= 1, "one lease at most is misjudged");
        assert!(lab.step());
    }
    assert!(out(&lab, 8).iter().all(|n| *n <= 20), "then by what it has shown: {:?} of {job}", out(&lab, 8));
}

#[test]
fn what_is_kept_for_a_device_that_stays_silent_goes_to_the_others() {
    let mut lab = Lab::new(&[(7, 0, "cpu", FAST), (8, 0, "cpu", Real { fixed_ns: 0, task_ns: 3_000_000_000 })]);
    lab.run(map_only(200));
    let ended = lab.done.iter().filter(|(place, ..)| place.0 == 7).map(|(.., end)| *end).max();
    assert!(lab.tasks_of((8, 0)) == 1 && ended < Some(230_000_000), "all but one by the fast one, without a pause: {:?}", lab.done);
}

#[test]
fn what_is_known_of_other_parameters_tells_how_devices_compare() {
    let mut lab = Lab::new(&[(7, 0, "cpu", FAST), (8, 0, "cpu", SLOW)]);
    lab.run(map_only(20_000));
    // Other parameters: everything takes five times as long.
    lab.real.values_mut().for_each(|real| real.task_ns *= 5);
    let mut spec = map_only(4_000);
    spec.stages[0].footprint = "depth=5".into();
    let took = lab.run(spec);
    let least = 4_000 * 5_000_000 / 21 * 20;
    assert!(took < least * 108 / 100, "{took} of {least}");
}

#[test]
fn a_device_that_slows_down_in_the_middle_gets_less() {
    // Of models of their own, and of one model.
    for alike in [false, true] {
        let model = |worker: u64, class: &str| if alike { class.to_owned() } else { format!("{class} of {worker}") };
        let mut lab = Lab::with_models(&[(7, 0, "cpu", FAST), (8, 0, "cpu", FAST)], model);
        lab.run(map_only(20_000));
        lab.real.insert((8, 0), Real { task_ns: 3_000_000, ..FAST });
        let took = lab.run(map_only(20_000));
        let least = 20_000 * 1_000_000 / 4 * 3;
        assert!(took < least * 108 / 100, "{took} of {least}");
        // Alone it is its model, whose line follows; beside another the difference is its own.
        let speed = lab.r.state.workers[&WorkerId(8)].speeds[&0].permille;
        assert!(if alike { speed > 2 * ORDINARY } else { speed < 3 * ORDINARY / 2 }, "{alike}: {speed}");
    }
}

// Second leases.

#[test]
fn a_late_task_goes_to_the_device_that_is_done_first_of_whatever_class() {
    let gpu = Real { fixed_ns: 100_000, task_ns: 100_000 };
    let mut lab = Lab::new(&[(6, 0, "cpu", SLOW), (7, 0, "cpu", FAST), (8, 0, "cpu", SLOW), (9, 0, "discrete", gpu)]);
    lab.run(map_only(50_000));
    let job = lab.r.submit(map_only(100));
    let most = lab.r.grant(job, 0, 0, 90, 9).expect("a lease");
    let stuck = lab.r.grant(job, 0, 90, 10, 7).expect("a lease");
    lab.r.finish(most);
    lab.r.pause_ms = 200;
    assert!(lab.r.plan().is_empty(), "10 ms and what such predictions are off");
    lab.r.pause_ms = 400;
    let second = lab.r.plan_and_grant();
    assert_eq!(second.len(), 1);
    let lease = &lab.r.state.leases[&second[0]];
    assert!(lease.speculative && lease.worker == WorkerId(9), "{lease:?}");
    assert!(lab.r.state.leases.contains_key(&stuck));
}

#[test]
fn no_second_lease_where_it_would_end_after_the_first() {
    let snail = Real { fixed_ns: 0, task_ns: 400_000_000 };
    let mut lab = Lab::new(&[(7, 0, "cpu", FAST), (8, 0, "cpu", snail)]);
    lab.run(map_only(20_000));
    let job = lab.r.submit(map_only(100));
    let held = lab.r.grant(job, 0, 0, 100, 7).expect("a lease");
    // Late by a factor of four, and nine tenths done: 40 ms are left.
    lab.r.pause_ms = 450;
    lab.r.report_some(held, 0, 90);
    assert!(lab.r.plan().is_empty(), "ten tasks take four seconds there");
}

// Memory.

fn with_gpu() -> Replica {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1), device(1, "discrete", 1)]);
    r
}

fn out_of_memory(r: &mut Replica, id: LeaseId) {
    r.fail(id, FailureClass::OutOfMemory, "A card: out of memory");
}

fn on_device(r: &mut Replica, job: JobId, first: u64, count: u64, device: u32) -> Option<LeaseId> {
    let session = r.state.workers[&WorkerId(7)].session.0;
    let job = Some(placement::Job::Id(job.0));
    let placement = Placement { job, first_task: first, task_count: count, worker: 7, session, device, ..Placement::default() };
    match r.apply(Command::GrantLeases(GrantLeases { placements: vec![placement] })) {
        Outcome::Granted { leases, .. } => leases.first().copied(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_that_does_not_fit_is_halved_and_at_last_left_to_the_cpu() {
    let mut r = with_gpu();
    let job = r.submit(map_only(1_000));
    let mut lease = on_device(&mut r, job, 0, 8, 1).expect("a lease");
    for limit in [4, 2, 1] {
        out_of_memory(&mut r, lease);
        let stage = &r.state.jobs[&job].stages[0];
        assert_eq!(stage.memory_limits.values().copied().collect::<Vec<_>>(), [limit]);
        assert_eq!(stage.ready(), 1_000, "at once, and nobody is charged");
        assert!(stage.attempts.iter().all(|(_, charged)| charged == 0));
        assert!(r.plan().iter().filter(|p| p.device == 1).all(|p| p.task_count <= limit));
        lease = on_device(&mut r, job, 0, limit, 1).expect("the same device");
    }
    out_of_memory(&mut r, lease);
    assert!(r.plan().iter().all(|p| p.device == 0), "one task alone does not fit on such a device");
    assert!(on_device(&mut r, job, 0, 1, 1).is_none());
    r.run();
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
    assert_eq!(r.tally(job), (0..1_000).sum::<u128>());
    let next = r.submit(map_only(10));
    assert!(on_device(&mut r, next, 0, 1, 1).is_some(), "another stage may fit");
}

#[test]
fn a_job_that_fits_nowhere_fails_with_the_reason() {
    let mut r = with_gpu();
    let mut spec = map_only(4);
    spec.stages[0].device = Some(DeviceRequest { class: "gpu".into(), amount: None });
    let job = r.submit(spec);
    let lease = on_device(&mut r, job, 0, 1, 1).expect("a lease");
    out_of_memory(&mut r, lease);
    assert!(r.state.jobs[&job].phase.cause().contains("out of memory"), "{:?}", r.state.jobs[&job].phase);
}

#[test]
fn before_format_4_a_device_out_of_memory_is_what_builds_of_before_took_it_for() {
    let mut r = with_gpu();
    r.format = 3;
    let job = r.submit(map_only(4));
    let lease = on_device(&mut r, job, 0, 2, 1).expect("a lease");
    out_of_memory(&mut r, lease);
    let stage = &r.state.jobs[&job].stages[0];
    assert!(stage.memory_limits.is_empty() && stage.counts().waiting == 2, "a class that they do not know is charged");
}

#[test]
fn declared_memory_bounds_leases_and_what_runs_side_by_side() {
    let mut r = with_gpu();
    let gib = 1u64 << 30;
    let mut spec = map_only(100_000);
    spec.stages[0].memory = Some(MemoryNeed { fixed_bytes: gib / 4, per_task_bytes: gib / 1024, ..MemoryNeed::default() });
    let job = r.submit(spec);
    assert!(on_device(&mut r, job, 0, 769, 1).is_none(), "more than the card has");
    let all = on_device(&mut r, job, 0, 768, 1).expect("exactly as much");
    assert_eq!(r.state.leases[&all].amount.memory_bytes, gib);
    assert!(r.plan().iter().all(|p| p.device == 0), "it is full");
    assert!(on_device(&mut r, job, 10_000, 50_000, 0).is_some(), "a CPU's leases are small beside the machine's memory");
    r.finish(all);
    let planned: Vec<u64> = r.plan().iter().filter(|p| p.device == 1).map(|p| p.task_count).collect();
    assert!(!planned.is_empty() && planned.iter().sum::<u64>() <= 768, "{planned:?}");
    // One that fits no lease at all is not tried.
    let mut spec = map_only(10);
    spec.stages[0].memory = Some(MemoryNeed { fixed_bytes: 2 * gib, ..MemoryNeed::default() });
    let large = r.submit(spec);
    assert!(r.plan().iter().all(|p| p.job != Some(placement::Job::Id(large.0)) || p.device == 0));
}
