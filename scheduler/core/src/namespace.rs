//! What a namespace may have beside others, and what it has had.
//!
//! Shares follow two published ideas. Use is counted per device class and a namespace's use is the largest part that it had of any class, so
//! that a tenant of the GPUs and a tenant of the CPUs do not stand in each other's way (dominant resource fairness: Ghodsi et al., 2011). And
//! whoever comes, or comes back, begins where the least served of those at work stands (start-time fair queueing: Goyal, Vin and
//! Cheng, 1996): idle time is no credit, so that a newcomer gets its share at once, and not everything until it has caught up. Nor is time in which
//! a namespace had all the devices that it may have.

use crate::ids::{JobId, WorkerId};
use crate::job::Job;
use crate::state::State;
use raftwerk_proto::v1::NamespaceTerms;
use std::collections::{BTreeMap, BTreeSet};

pub const MAX_WEIGHT: u32 = 1_000;
pub const MAX_NAME_BYTES: usize = 63;
/// Namespaces for which an operator has set something.
pub const MAX_SET: usize = 1_000;
/// Namespaces whose use is remembered; those without a job go first.
const MAX_KEPT: usize = 2_000;
/// So much device time, for each of its devices, a namespace may be behind the others while it may not have more of them. It comes first for the devices
/// that it may have, and when it may have more, it is not given everything until it has caught up with hours.
const HELD_BACK_NS: u64 = 10_000_000_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespace {
    /// As an operator set them.
    pub terms: Option<NamespaceTerms>,
    /// Device time per class, of whole devices, in nanoseconds.
    pub used: BTreeMap<String, u64>,
}

impl Namespace {
    pub fn weight(&self) -> u64 {
        self.terms.map_or(1, |t| u64::from(t.weight.clamp(1, MAX_WEIGHT)))
    }

    /// Jobs that have not ended, beyond which a submit is refused.
    pub fn max_jobs(&self) -> Option<u64> {
        self.terms.map(|t| u64::from(t.max_jobs)).filter(|n| *n > 0)
    }

    /// Devices that work for it at once.
    pub fn max_devices(&self) -> Option<usize> {
        self.terms.map(|t| t.max_devices as usize).filter(|n| *n > 0)
    }

    /// What it has had is, class by class, no less than this for its weight, but for so much device time.
    fn raise(&mut self, floors: BTreeMap<String, u64>, credit_ns: u64) {
        let weight = self.weight();
        for (class, floor) in floors {
            let floor = floor.saturating_mul(weight).saturating_sub(credit_ns);
            if self.used.get(&class).copied().unwrap_or(0) < floor {
                self.used.insert(class, floor);
            }
        }
    }

    pub(crate) fn charge(&mut self, class: &str, device_ns: u64) {
        match self.used.get_mut(class) {
            Some(used) => *used = used.saturating_add(device_ns),
            None if device_ns > 0 => drop(self.used.insert(class.to_owned(), device_ns)),
            None => {}
        }
    }
}

/// Why such a name cannot be a namespace's.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(allowed) {
        return Err(format!("namespace '{name}' must be 1 to {MAX_NAME_BYTES} of a-z, 0-9 and `-`"));
    }
    Ok(())
}

impl State {
    /// Why the namespace may not have one more job.
    pub fn namespace_is_full(&self, name: &str) -> Option<String> {
        let limit = self.namespaces.get(name)?.max_jobs()?;
        let active = self.active_in(name).count() as u64;
        (active >= limit).then(|| {
            format!(
                "namespace '{name}' has {active} jobs that have not ended, and may have {limit}; wait for one to end, or let an operator raise it \
                 with 'raftwerk namespace set {name} --max-jobs N'"
            )
        })
    }

    fn active_in<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Job> {
        self.active_jobs().filter(move |job| job.spec.namespace == name)
    }

    /// The job has just come: it, and its namespace if it had no other, begin where the least served of those at work stand.
    pub(crate) fn begin_to_share(&mut self, id: JobId) {
        let Some(name) = self.jobs.get(&id).map(|j| j.spec.namespace.clone()) else { return };
        let least = self.active_in(&name).filter(|j| j.id != id).map(|j| j.served_ns).min();
        if let Some(least) = least {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.served_ns = least;
            }
            return;
        }
        let floors = self.least_served(|other| other != name);
        self.namespaces.entry(name).or_default().raise(floors, 0);
        self.forget_idle_namespaces();
    }

    /// Per unit of weight, class by class: what the least served of these namespaces has had, of those at work.
    fn least_served(&self, counts: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
        let mut others: BTreeMap<&str, &Namespace> = BTreeMap::new();
        for job in self.active_jobs().filter(|j| counts(&j.spec.namespace)) {
            if let Some(other) = self.namespaces.get(&job.spec.namespace) {
                others.insert(&job.spec.namespace, other);
            }
        }
        let classes = others.values().flat_map(|n| n.used.keys());
        classes
            .map(|class| (class.clone(), others.values().map(|n| n.used.get(class).copied().unwrap_or(0) / n.weight()).min().unwrap_or(0)))
            .collect()
    }

    /// Of these namespaces, to which something was just leased: those that have as many devices at work as they may have lose the credit beyond
    /// [`HELD_BACK_NS`] that they gain by it.
    pub(crate) fn bound_credit(&mut self, leased_to: &BTreeSet<String>) {
        let limit = |name: &str| self.namespaces.get(name).and_then(Namespace::max_devices);
        if !leased_to.iter().any(|name| limit(name).is_some()) {
            return;
        }
        let mut devices: BTreeMap<&str, BTreeSet<(WorkerId, u32)>> = BTreeMap::new();
        for &(worker, device, job, _) in self.stage_uses.keys() {
            if let Some(job) = self.jobs.get(&job).filter(|job| limit(&job.spec.namespace).is_some()) {
                devices.entry(&job.spec.namespace).or_default().insert((worker, device));
            }
        }
        let is_held_back = |name: &str| limit(name).is_some_and(|limit| devices.get(name).is_some_and(|at_work| at_work.len() >= limit));
        let held_back: Vec<String> = leased_to.iter().filter(|name| is_held_back(name)).cloned().collect();
        if held_back.is_empty() {
            return;
        }
        // Those that are held back themselves stand behind for the same reason.
        let floors = self.least_served(|other| !is_held_back(other));
        for name in held_back {
            if let Some(own) = self.namespaces.get_mut(&name) {
                let credit = HELD_BACK_NS.saturating_mul(own.max_devices().unwrap_or_default() as u64);
                own.raise(floors.clone(), credit);
            }
        }
    }

    /// Bounds the memory: what an idle namespace has had means nothing any more.
    fn forget_idle_namespaces(&mut self) {
        if self.namespaces.len() <= MAX_KEPT {
            return;
        }
        let active: std::collections::BTreeSet<String> = self.active_jobs().map(|j| j.spec.namespace.clone()).collect();
        self.namespaces.retain(|name, namespace| namespace.terms.is_some() || active.contains(name));
    }
}
