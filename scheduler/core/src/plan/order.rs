//! In which order jobs are served in a round, and how much of what is free each may take before the others have had theirs.
//!
//! Priority first. All jobs of one priority that want the same class of device are raised together, by one for every [`AGE_MS`] in which none of
//! them was given anything (ageing: nobody waits for ever; among themselves they need none, for whoever has had least is next). Among equals the namespace
//! that has had the least for its weight, then its job that has had the least, then the older one. What is out on devices counts as had: it
//! will be. Leases are short, so whoever is behind gets the next one: that is where a job is pre-empted.

use super::costs::RoundCosts;
use super::{LEASE_NS, View};
use crate::ids::{JobId, Timestamp, WorkerId};
use crate::job::{Job, Phase};
use crate::namespace::Namespace;
use crate::spec::{device_class, priority};
use std::collections::{BTreeMap, BTreeSet};

/// Waiting so long is worth one step of priority: from the lowest to the highest in less than nine minutes.
const AGE_MS: u64 = 5_000;
/// Fixed point for shares of a class.
const SCALE: u128 = 1_000_000;

/// A job in the round.
pub(super) struct Claim<'a> {
    pub job: &'a Job,
    pub priority: u64,
    /// It may take this much of what is free in thousandths, as long as others of the same priority want some as well.
    pub permille: u64,
    /// Its namespace's place among the tenants.
    pub namespace: usize,
}

/// A namespace with a running job.
pub(super) struct Tenant<'a> {
    name: &'a str,
    weight: u64,
    /// Largest part of a class that it had, for its weight.
    had: u128,
    max_devices: Option<usize>,
    /// Devices that work for it; kept only where there is a limit.
    pub devices: BTreeSet<(WorkerId, u32)>,
}

impl Tenant<'_> {
    /// How many more devices may begin to work for it; `None` without a limit.
    pub(super) fn devices_left(&self) -> Option<usize> {
        self.max_devices.map(|limit| limit.saturating_sub(self.devices.len()))
    }

    pub(super) fn begin_on(&mut self, devices: impl Iterator<Item = (WorkerId, u32)>) {
        if self.max_devices.is_some() {
            self.devices.extend(devices);
        }
    }
}

pub(super) struct Order<'a> {
    pub claims: Vec<Claim<'a>>,
    pub tenants: Vec<Tenant<'a>>,
}

/// Work that is out on devices.
#[derive(Default)]
struct Out<'a> {
    job: BTreeMap<JobId, u64>,
    /// By namespace and class.
    namespace: BTreeMap<(&'a str, &'a str), u64>,
    devices: BTreeMap<&'a str, BTreeSet<(WorkerId, u32)>>,
}

impl<'a> Out<'a> {
    fn of(view: &'a View<'a>, costs: &mut RoundCosts<'a>) -> Self {
        let mut out = Out::default();
        for (&(worker, index, id, stage), used) in view.state.stage_uses() {
            let tasks = used.tasks;
            let Some(job) = view.state.jobs.get(&id) else { continue };
            let Some(record) = view.state.workers.get(&worker) else { continue };
            let Some(device) = record.device(index) else { continue };
            let estimate = costs.of(job, stage).and_then(|costs| costs.of(worker, record, device));
            let all = estimate.map_or(tasks.saturating_mul(LEASE_NS), |estimate| estimate.of_tasks(tasks));
            let ns = all / u64::from(device.parallelism.max(1));
            let of_job = out.job.entry(id).or_default();
            *of_job = of_job.saturating_add(ns);
            let of_namespace = out.namespace.entry((&job.spec.namespace, &device.class)).or_default();
            *of_namespace = of_namespace.saturating_add(ns);
            if view.state.namespaces.get(&job.spec.namespace).is_some_and(|n| n.max_devices().is_some()) {
                out.devices.entry(&job.spec.namespace).or_default().insert((worker, index));
            }
        }
        out
    }
}

pub(super) fn order<'a>(view: &'a View<'a>, costs: &mut RoundCosts<'a>) -> Order<'a> {
    let running: Vec<&Job> = view.state.active_jobs().filter(|j| j.phase == Phase::Running && j.waiting_for.is_empty()).collect();
    let limits = || running.iter().any(|j| view.state.namespaces.get(&j.spec.namespace).is_some_and(|n| n.max_devices().is_some()));
    if running.len() < 2 && !limits() {
        // Nobody to share with: not worth a look at every device.
        let tenants: Vec<Tenant> = running.iter().map(|j| tenant(view, &j.spec.namespace, &Out::default(), &BTreeMap::new())).collect();
        let claims = running.iter().map(|job| Claim { job, priority: 0, permille: 1000, namespace: 0 }).collect();
        return Order { claims, tenants };
    }
    let out = Out::of(view, costs);
    let mut classes: BTreeMap<&str, u64> = BTreeMap::new();
    for device in view.state.workers.values().filter(|w| !w.lost).flat_map(|w| &w.hello.devices) {
        *classes.entry(&device.class).or_default() += 1;
    }
    let names: BTreeSet<&str> = running.iter().map(|j| j.spec.namespace.as_str()).collect();
    let tenants: Vec<Tenant> = names.into_iter().map(|name| tenant(view, name, &out, &classes)).collect();
    let place = |job: &Job| tenants.binary_search_by(|t| t.name.cmp(job.spec.namespace.as_str())).unwrap_or(0);
    let priorities = effective_priorities(&running, view.now, &out);
    let claim = |job: &&'a Job| Claim { job, priority: priorities[&peers(job)], permille: 1000, namespace: place(job) };
    let mut claims: Vec<Claim> = running.iter().map(claim).collect();
    let had = |job: &Job| job.served_ns.saturating_add(out.job.get(&job.id).copied().unwrap_or(0));
    claims.sort_by_cached_key(|c| (u64::MAX - c.priority, tenants[c.namespace].had, c.namespace, had(c.job), c.job.id));
    share(&mut claims, &tenants);
    Order { claims, tenants }
}

fn tenant<'a>(view: &'a View<'a>, name: &'a str, out: &Out<'a>, classes: &BTreeMap<&str, u64>) -> Tenant<'a> {
    let none = Namespace::default();
    let record = view.state.namespaces.get(name).unwrap_or(&none);
    let part = |class: &str| {
        let had = record.used.get(class).copied().unwrap_or(0).saturating_add(out.namespace.get(&(name, class)).copied().unwrap_or(0));
        u128::from(had) * SCALE / u128::from(classes.get(class).copied().unwrap_or(1))
    };
    Tenant {
        name,
        weight: record.weight(),
        had: classes.keys().map(|class| part(class)).max().unwrap_or(0) / u128::from(record.weight()),
        max_devices: record.max_devices(),
        devices: out.devices.get(name).cloned().unwrap_or_default(),
    }
}

/// The namespace of a job that the entry being made submits.
pub(super) fn newcomer<'a>(view: &'a View<'a>, costs: &mut RoundCosts<'a>, name: &'a str) -> Tenant<'a> {
    let limited = view.state.namespaces.get(name).is_some_and(|n| n.max_devices().is_some());
    tenant(view, name, &if limited { Out::of(view, costs) } else { Out::default() }, &BTreeMap::new())
}

/// Jobs that compete for the same devices with the same right.
fn peers(job: &Job) -> (u32, &str) {
    let open = job.stages.iter().position(|stage| stage.open).unwrap_or(0);
    (priority(&job.spec), job.spec.stages.get(open).map_or("", device_class))
}

/// Priority of each group of peers, raised by the time in which none of them was given anything.
fn effective_priorities<'a>(running: &[&'a Job], now: Timestamp, out: &Out<'_>) -> BTreeMap<(u32, &'a str), u64> {
    // Newest lease of any, or else the oldest submit; whoever has something out waits for nothing.
    let mut since: BTreeMap<(u32, &str), (Option<Timestamp>, Timestamp)> = BTreeMap::new();
    for job in running {
        let served = if out.job.contains_key(&job.id) { Some(now) } else { Some(job.served_at).filter(|at| at.0 > 0) };
        let (newest, oldest) = since.entry(peers(job)).or_insert((None, job.submitted_at));
        *newest = served.max(*newest);
        *oldest = job.submitted_at.min(*oldest);
    }
    let raised = |((priority, class), (newest, oldest)): ((u32, &'a str), (Option<Timestamp>, Timestamp))| {
        let waited = now.0.saturating_sub(newest.map_or(oldest, |at| at.max(oldest)).0);
        ((priority, class), u64::from(priority).saturating_add(waited / AGE_MS))
    };
    since.into_iter().map(raised).collect()
}

/// Among jobs of one priority: namespaces by weight, the jobs of each alike.
fn share(claims: &mut [Claim<'_>], tenants: &[Tenant<'_>]) {
    for level in claims.chunk_by_mut(|a, b| a.priority == b.priority) {
        let mut jobs: BTreeMap<usize, u64> = BTreeMap::new();
        for claim in level.iter() {
            *jobs.entry(claim.namespace).or_default() += 1;
        }
        let weights: u64 = jobs.keys().map(|place| tenants[*place].weight).sum();
        for claim in level {
            claim.permille = (1000 * tenants[claim.namespace].weight / (weights * jobs[&claim.namespace])).max(1);
        }
    }
}
