//! Priorities, namespaces and the jobs of one namespace share devices; nobody waits for ever.

mod support;

use raftwerk_core::plan::policy::policy;
use raftwerk_core::{JobId, Outcome, Phase, State, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use std::collections::BTreeMap;
use support::*;

const TASK_NS: u64 = 50_000_000;

fn of(namespace: &str, tasks: u64, priority: u32) -> JobSpec {
    JobSpec { namespace: namespace.into(), priority, ..map_only(tasks) }
}

fn terms(r: &mut Replica, name: &str, terms: NamespaceTerms) {
    assert_eq!(r.apply(Command::SetNamespace(SetNamespace { name: name.into(), terms: Some(terms) })), Outcome::Done);
}

/// One-core devices whose tasks take [`TASK_NS`] each, or as long as is said: a lease ends when its time has passed, the first one first. Returns when it ended.
struct Cluster {
    r: Replica,
    busy_until: BTreeMap<WorkerId, u64>,
    now_ns: u64,
    task_ns: u64,
}

impl Cluster {
    fn new(workers: u64) -> Cluster {
        Cluster::of_tasks(workers, TASK_NS)
    }

    fn of_tasks(workers: u64, task_ns: u64) -> Cluster {
        let mut r = Replica::new();
        for worker in 1..=workers {
            r.register(worker, vec![device(0, "cpu", 1)]);
        }
        Cluster { r, busy_until: BTreeMap::new(), now_ns: 0, task_ns }
    }

    /// Plans, and lets the device that ends first end its oldest lease.
    fn step(&mut self) {
        self.r.plan_and_grant();
        let mut oldest = BTreeMap::new();
        for (id, lease) in &self.r.state.leases {
            oldest.entry(lease.worker).or_insert((*id, lease.tasks.count()));
        }
        let ends = |(worker, (_, tasks)): (&WorkerId, &(raftwerk_core::LeaseId, u64))| {
            self.busy_until.get(worker).copied().unwrap_or(0).max(self.now_ns.saturating_sub(self.task_ns)) + tasks * self.task_ns
        };
        let Some((worker, (id, tasks))) = oldest.iter().min_by_key(|(w, l)| ends((w, l))) else { return };
        let end = ends((worker, &(*id, *tasks)));
        self.busy_until.insert(*worker, end);
        let later = end.max(self.now_ns);
        self.r.pause_ms = (later - self.now_ns) / 1_000_000;
        self.now_ns = later;
        let report = Report { busy_ns: tasks * self.task_ns, ..self.r.full_report(*id) };
        self.r.report(worker.0, report);
    }

    fn run_until(&mut self, ms: u64) {
        while self.now_ns < ms * 1_000_000 && self.r.state.active_count() > 0 {
            self.step();
        }
    }

    fn accepted(&self, job: JobId) -> u64 {
        self.r.state.jobs[&job].stages[0].accepted()
    }

    fn run_until_done(&mut self, job: JobId) -> u64 {
        for _ in 0..100_000 {
            if matches!(self.r.state.jobs[&job].phase, Phase::Done { .. }) {
                return self.now_ns / 1_000_000;
            }
            self.step();
        }
        panic!("job {job} never ends");
    }
}

#[test]
fn namespaces_share_by_weight() {
    let mut c = Cluster::new(4);
    terms(&mut c.r, "three", NamespaceTerms { weight: 3, ..NamespaceTerms::default() });
    let one = c.r.submit(of("one", 100_000, 0));
    let three = c.r.submit(of("three", 100_000, 0));
    c.run_until(60_000);
    let ratio = c.accepted(three) as f64 / c.accepted(one) as f64;
    assert!((2.7..3.3).contains(&ratio), "weight 3 got {ratio:.2} times what weight 1 got");
}

#[test]
fn jobs_with_unlike_kernels_that_gain_nothing_by_an_exchange_share_every_device() {
    let mut c = Cluster::new(4);
    let mut other = of("other", 100_000, 0);
    other.stages[0].kernel.as_mut().expect("a kernel").name = "sum".into();
    let (one, other) = (c.r.submit(of("one", 100_000, 0)), c.r.submit(other));
    c.run_until(60_000);
    let ratio = c.accepted(other) as f64 / c.accepted(one) as f64;
    assert!((0.9..1.1).contains(&ratio), "one had {ratio:.2} times what the other had");
}

#[test]
fn a_namespace_with_many_jobs_gets_no_more_than_one_with_a_single_job() {
    for name in ["model", "weighted"] {
        let mut c = Cluster::new(4);
        c.r.policy = policy(name).expect("a policy of this name");
        let many: Vec<JobId> = (0..20).map(|_| c.r.submit(of("many", 100_000, 0))).collect();
        let single = c.r.submit(of("single", 100_000, 0));
        c.run_until(60_000);
        let of_many: u64 = many.iter().map(|job| c.accepted(*job)).sum();
        let ratio = of_many as f64 / c.accepted(single) as f64;
        assert!((0.9..1.1).contains(&ratio), "{name}: twenty jobs got {ratio:.2} times what one got");
        let (least, most) = (many.iter().map(|j| c.accepted(*j)).min().unwrap(), many.iter().map(|j| c.accepted(*j)).max().unwrap());
        if name == "weighted" {
            assert!(most <= 2 * least + 12, "jobs of one namespace share alike: {least} to {most}");
        }
    }
}

#[test]
fn of_one_namespace_the_shorter_job_is_done_first_and_the_longer_one_no_later() {
    let ends = |name: &str| {
        let mut c = Cluster::new(1);
        c.r.policy = policy(name).expect("a policy of this name");
        let long = c.r.submit(of("default", 500, 0));
        c.run_until(2_000);
        let short = c.r.submit(of("default", 100, 0));
        (c.run_until_done(short), c.run_until_done(long))
    };
    // Alone the short one would take 5 s, after at most 0.6 s of work that is out already, and until it has shown what it costs both share; all
    // together 30 s.
    let (short, long) = ends("model");
    assert!(short < 2_000 + 600 + 5_000 + 1_000, "the short one was done at {short} ms");
    assert!(long < 30_600, "the long one was done at {long} ms");
    let (short, _) = ends("weighted");
    assert!(short > 2_000 + 9_000, "policies that do not go by cost share evenly: {short} ms");
}

#[test]
fn beside_a_stream_of_shorter_jobs_a_long_one_has_a_quarter_of_its_even_share() {
    let mut c = Cluster::new(1);
    let long = c.r.submit(of("default", 100_000, 0));
    let mut of_short = 0;
    while c.now_ns < 200_000_000_000 {
        let short = c.r.submit(of("default", 100, 0));
        c.run_until_done(short);
        of_short += 100;
    }
    // Half of the device would be its even share.
    let part = c.accepted(long) as f64 / (c.accepted(long) + of_short) as f64;
    assert!((0.11..0.2).contains(&part), "it had {part:.3} of what was done");
}

#[test]
fn a_newcomer_gets_its_share_at_once_and_not_everything() {
    let mut c = Cluster::new(4);
    let old = c.r.submit(of("old", 1_000_000, 0));
    c.run_until(300_000);
    let before = c.accepted(old);
    let new = c.r.submit(of("new", 1_000_000, 0));
    c.run_until(330_000);
    let (of_old, of_new) = (c.accepted(old) - before, c.accepted(new));
    let ratio = of_new as f64 / of_old as f64;
    assert!((0.8..1.25).contains(&ratio), "in the first half minute: {of_new} for the newcomer, {of_old} for who was there");
}

#[test]
fn a_short_job_is_not_stuck_behind_a_long_one() {
    let mut c = Cluster::new(2);
    c.r.submit(of("default", 1_000_000, 0));
    c.run_until(10_000);
    let begin = c.now_ns / 1_000_000;
    let short = c.r.submit(of("default", 20, 0));
    // Alone it would take 0.5 s; with half of the devices 1 s, after leases that are out already.
    let took = c.run_until_done(short) - begin;
    assert!(took < 3_000, "20 tasks of 50 ms took {took} ms beside a long job");
}

#[test]
fn priority_goes_first_and_ageing_lets_nobody_starve() {
    let mut c = Cluster::new(2);
    let low = c.r.submit(of("default", 1_000_000, 40));
    let high = c.r.submit(of("other", 1_000_000, 60));
    c.run_until(60_000);
    let (of_low, of_high) = (c.accepted(low), c.accepted(high));
    assert!(of_high > 10 * of_low, "high {of_high}, low {of_low}");
    c.run_until(400_000);
    // Twenty steps of priority are made up for by 100 s of waiting.
    let later = c.accepted(low) - of_low;
    assert!((1..100).contains(&later), "in 340 s the low one was served a few times, not {later}");
}

#[test]
fn quotas_hold() {
    let mut c = Cluster::new(8);
    terms(&mut c.r, "small", NamespaceTerms { weight: 1, max_jobs: 2, max_devices: 3 });
    let first = c.r.submit(of("small", 100_000, 0));
    c.r.submit(of("small", 100_000, 0));
    let third = c.r.apply(Command::SubmitJob(SubmitJob { spec: Some(of("small", 1, 0)), ..SubmitJob::default() }));
    let Outcome::Full(reason) = third else { panic!("{third:?}") };
    assert!(reason.contains("max-jobs") && reason.contains("small"), "{reason}");
    for _ in 0..200 {
        c.step();
        let devices: std::collections::BTreeSet<_> = c.r.state.leases.values().map(|l| (l.worker, l.device)).collect();
        assert!(devices.len() <= 3, "{devices:?}");
    }
    assert!(c.accepted(first) > 0);
    c.r.apply(Command::CancelJob(CancelJob { job: first.0 }));
    c.r.submit(of("small", 1, 0));
}

/// Tasks of a second: a device has one at a time, so that whoever is behind could have every one of them until it has caught up.
#[test]
fn a_namespace_that_was_held_back_gets_its_share_when_it_may_have_more_and_not_everything() {
    let mut c = Cluster::of_tasks(4, 1_000_000_000);
    terms(&mut c.r, "small", NamespaceTerms { max_devices: 1, ..NamespaceTerms::default() });
    let (small, big) = (c.r.submit(of("small", 1_000_000, 0)), c.r.submit(of("big", 1_000_000, 0)));
    c.run_until(300_000);
    let (of_small, of_big) = (c.accepted(small), c.accepted(big));
    // It comes first for the one device that it may have.
    assert!((280..=300).contains(&of_small) && of_big > 800, "held back: {of_small}, {of_big} for the other");
    terms(&mut c.r, "small", NamespaceTerms::default());
    c.run_until(400_000);
    let (more_small, more_big) = (c.accepted(small) - of_small, c.accepted(big) - of_big);
    let ratio = more_small as f64 / more_big as f64;
    assert!((0.9..1.3).contains(&ratio), "in the 100 s after that: {more_small}, {more_big} for the other");
    // Nor does a newcomer have to make up for it.
    let new = c.r.submit(of("new", 1_000_000, 0));
    let before = c.accepted(big);
    c.run_until(460_000);
    let ratio = c.accepted(new) as f64 / (c.accepted(big) - before) as f64;
    assert!((0.8..1.25).contains(&ratio), "{ratio:.2}");
}

#[test]
fn namespaces_that_are_all_held_back_are_behind_nobody() {
    let mut c = Cluster::of_tasks(4, 1_000_000_000);
    for name in ["a", "b"] {
        terms(&mut c.r, name, NamespaceTerms { max_devices: 1, ..NamespaceTerms::default() });
    }
    let (a, b) = (c.r.submit(of("a", 1_000_000, 0)), c.r.submit(of("b", 1_000_000, 0)));
    c.run_until(60_000);
    assert!(c.accepted(a).abs_diff(c.accepted(b)) <= 2);
    let had = |c: &Cluster, name: &str| c.r.state.namespaces[name].used["cpu"] / 1_000_000_000;
    assert!(had(&c, "a") <= 60 && had(&c, "b") <= 60, "nothing is counted that they did not have: {} {}", had(&c, "a"), had(&c, "b"));
    // Beside one without a limit they fall behind by the credit that is left to them.
    let big = c.r.submit(of("big", 1_000_000, 0));
    c.run_until(160_000);
    assert!(c.accepted(big) > 180, "{}", c.accepted(big));
    assert!(had(&c, "big") - had(&c, "a") <= 12 && had(&c, "big") - had(&c, "b") <= 12, "{:?}", c.r.state.namespaces);
}

#[test]
fn a_quota_holds_for_jobs_placed_with_the_entry_that_submits_them() {
    let mut r = Replica::new();
    for worker in 1..=4 {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    terms(&mut r, "small", NamespaceTerms { weight: 1, max_jobs: 0, max_devices: 1 });
    let spec = of("small", 100, 0);
    let placements = r.plan_with(&[(0, &spec)]);
    let workers: std::collections::BTreeSet<u64> = placements.iter().map(|p| p.worker).collect();
    assert_eq!(workers.len(), 1, "{placements:?}");
}

#[test]
fn what_was_had_survives_a_snapshot_and_old_entries_know_nothing_of_it() {
    let mut c = Cluster::new(2);
    terms(&mut c.r, "a", NamespaceTerms { weight: 7, max_jobs: 9, max_devices: 5 });
    c.r.submit(of("a", 1_000, 70));
    c.run_until(5_000);
    let again = State::from_snapshot("test", &c.r.state.to_snapshot()).expect("a snapshot");
    assert_eq!(again, c.r.state);
    assert!(again.namespaces["a"].used["cpu"] > 0);

    let mut old = Replica::new();
    old.format = 3;
    old.register(1, vec![device(0, "cpu", 1)]);
    old.submit(of("a", 10, 0));
    old.run();
    assert!(old.state.namespaces.is_empty());
    let set = SetNamespace { name: "a".into(), terms: None };
    assert!(matches!(old.apply(Command::SetNamespace(set)), Outcome::Refused(_)));
}

#[test]
fn bad_terms_and_names_are_refused() {
    let mut r = Replica::new();
    for (name, weight) in [("", 1), ("Upper", 1), ("a b", 1), ("ok", 1001)] {
        let set = SetNamespace { name: name.into(), terms: Some(NamespaceTerms { weight, ..NamespaceTerms::default() }) };
        assert!(matches!(r.apply(Command::SetNamespace(set)), Outcome::Refused(_)), "{name} {weight}");
    }
    let spec = of("default", 1, 101);
    assert!(matches!(r.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() })), Outcome::Refused(_)));
}
