//! Stages that begin on several devices at once: which devices are held for them, and when they start (see [`crate::gang`]).
//!
//! A stage that can have all its devices now holds them, busy or not: nobody else gets a new lease there, so they are idle soon. If others hold
//! some of them, it holds what is left, but only if no other stage holds devices while some are missing: of two that hold a part each, neither
//! might ever start. What more than the whole cluster could give is not held at all.

use super::{LEASE_NS, MAX_PLACEMENTS, Ready, Round, View, runs_again};
use crate::device_match::is_preferred;
use crate::gang::{Hold, hold_ms, size, waiting_stage};
use crate::ids::{JobId, WorkerId};
use crate::job::Job;
use crate::matching::candidates;
use crate::spec::lease_amount;
use crate::split::input_number;
use crate::state::State;
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::{HeldDevice, HoldDevices, Placement, ReleaseHold, StageSpec, StartGang, placement};
use std::collections::{BTreeMap, BTreeSet};

type DeviceKey = (WorkerId, u32);
type StageKey = (JobId, u32);

/// Gangs in the round.
pub(super) struct Gangs {
    /// Who holds a device, with the holds that this round proposes.
    pub(super) held: BTreeMap<DeviceKey, StageKey>,
    /// The one stage that may hold devices while others are missing.
    incomplete: Option<StageKey>,
    seen: BTreeSet<StageKey>,
    /// Devices named in `commands`: an entry has a limit.
    named: usize,
    pub(super) commands: Vec<Command>,
}

impl Gangs {
    pub(super) fn new(view: &View<'_>) -> Gangs {
        let mut gangs = Gangs { held: BTreeMap::new(), incomplete: None, seen: BTreeSet::new(), named: 0, commands: Vec::new() };
        for (&key, hold) in view.state.gangs() {
            gangs.held.extend(hold.devices.iter().map(|device| (*device, key)));
            if !hold.devices.is_empty() && hold.until <= view.now {
                gangs.seen.insert(key);
                let release = ReleaseHold { job: key.0.0, stage: key.1, until_ms: hold.until.0 };
                gangs.commands.push(Command::ReleaseHold(release));
            } else if gangs.incomplete.is_none() && is_incomplete(view.state, key, hold) {
                gangs.incomplete = Some(key);
            }
        }
        gangs
    }

    /// Whether a device may be leased to, or held for, this stage.
    pub(super) fn leave(&self, device: DeviceKey, to: Option<StageKey>) -> bool {
        self.held.get(&device).is_none_or(|holder| Some(*holder) == to)
    }
}

fn is_incomplete(state: &State, (job, index): StageKey, hold: &Hold) -> bool {
    let stage = state.jobs.get(&job).and_then(|job| waiting_stage(job, index));
    !hold.devices.is_empty() && stage.is_some_and(|(spec, stage)| hold.devices.len() < size(spec, Some(stage.tasks().len())))
}

impl<'a> Round<'a> {
    /// The next step toward the start of a stage that waits for its gang.
    pub(super) fn serve_gang(&mut self, job: &'a Job, index: u32) {
        let key = (job.id, index);
        if !self.gangs.seen.insert(key) {
            return;
        }
        let (spec, stage) = (&job.spec.stages[index as usize], &job.stages[index as usize]);
        let wanted = size(spec, Some(stage.tasks().len()));
        let none = Hold::default();
        let hold = self.view.state.gangs().get(&key).unwrap_or(&none);
        if self.view.now < hold.again_at || self.gangs.named + wanted > MAX_PLACEMENTS {
            return;
        }
        let mut found = BTreeMap::new();
        for place in self.devices(spec, Some(job), index) {
            found.entry((self.slots[place].worker, self.slots[place].device)).or_insert(place);
        }
        // Who is only not heard of is not given up: the log says when it is lost.
        let is_away = |worker: &WorkerId| !self.view.present.contains_key(worker) || self.view.suspects.contains(worker);
        let mut devices: BTreeSet<DeviceKey> =
            hold.devices.iter().filter(|device| found.contains_key(*device) || is_away(&device.0)).copied().collect();
        let mut others: Vec<(DeviceKey, usize)> =
            found.iter().filter(|(device, _)| !devices.contains(*device)).map(|(device, place)| (*device, *place)).collect();
        let in_reach = devices.len() + others.len();
        others.sort_by_key(|(device, place)| {
            let slot = &self.slots[*place];
            (!self.is_preferred(spec, *device), slot.used.leases > 0, slot.queued_ns, *device)
        });
        let missing = wanted.saturating_sub(devices.len());
        if in_reach >= wanted {
            devices.extend(others.iter().take(missing).map(|(device, _)| *device));
        } else if in_reach + self.held_by_others(spec, key) >= wanted && self.gangs.incomplete.is_none_or(|other| other == key) {
            self.gangs.incomplete = Some(key);
            devices.extend(others.iter().map(|(device, _)| *device));
        }
        if devices != hold.devices {
            self.hold(job, index, &devices);
        } else if devices.len() == wanted {
            let places: Vec<usize> = devices.iter().filter_map(|device| found.get(device).copied()).collect();
            if places.len() == wanted && places.iter().all(|place| self.slots[*place].used.leases == 0) {
                self.start_gang(job, index, &places);
            }
        }
    }

    pub(super) fn is_preferred(&self, spec: &StageSpec, (worker, index): DeviceKey) -> bool {
        let record = self.view.state.workers.get(&worker);
        let device = record.and_then(|record| record.device(index));
        spec.prefer.as_ref().zip(record).zip(device).is_some_and(|((prefer, record), device)| is_preferred(prefer, &record.hello, device))
    }

    /// Devices that fit and are held for another stage.
    fn held_by_others(&self, spec: &StageSpec, key: StageKey) -> usize {
        let fitting: BTreeSet<DeviceKey> = candidates(self.view.state, spec).into_iter().collect();
        self.gangs.held.iter().filter(|(device, holder)| **holder != key && fitting.contains(*device)).count()
    }

    fn hold(&mut self, job: &Job, index: u32, devices: &BTreeSet<DeviceKey>) {
        let until_ms = self.view.now.0.saturating_add(hold_ms(&job.spec.stages[index as usize]));
        let named = devices.iter().map(|(worker, device)| HeldDevice { worker: worker.0, device: *device }).collect();
        self.gangs.named += devices.len();
        self.gangs.held.extend(devices.iter().map(|device| (*device, (job.id, index))));
        let command = HoldDevices { job: job.id.0, stage: index, devices: named, until_ms };
        self.gangs.commands.push(Command::HoldDevices(command));
    }

    /// One lease for each device, as long as its first one should be, and each with its part of the stage at most.
    fn start_gang(&mut self, job: &'a Job, index: u32, places: &[usize]) {
        let (spec, stage) = (&job.spec.stages[index as usize], &job.stages[index as usize]);
        let base = lease_amount(spec);
        let longest = if spec.max_lease_tasks == 0 { u64::MAX } else { spec.max_lease_tasks };
        let mut ready = Ready::of(stage, self.view.now, &[]);
        if ready.left() < places.len() as u64 {
            return;
        }
        let key = |place: &usize| (self.slots[*place].worker, self.slots[*place].device);
        if runs_again(job)
            && let Some(home) = self.view.state.homes.of(input_number(spec, Some(job.id)), stage.tasks().len())
        {
            ready.go_home(home, &places.iter().map(key).collect());
        }
        let mut leases = Vec::with_capacity(places.len());
        for (n, place) in places.iter().enumerate() {
            let slot = &self.slots[*place];
            let limit = stage.memory_limits.get(&(slot.worker, slot.device)).copied().unwrap_or(u64::MAX);
            let need = self.costs.need_on(slot, job, index);
            let most = need.tasks_within(&base, &slot.capacity, &slot.used).min(limit).min(longest);
            let estimate = self.costs.estimate_on(slot, job, index);
            let by_time = estimate.map_or(slot.parallelism, |e| e.tasks_within(LEASE_NS.saturating_mul(slot.parallelism)));
            let part = ready.left() / (places.len() - n) as u64;
            let Some(tasks) = ready.take_for((slot.worker, slot.device), part.min(by_time.max(1)).min(most)).filter(|_| most > 0) else {
                return;
            };
            let cost_ns = estimate.map_or(tasks.count().saturating_mul(LEASE_NS), |e| e.of_tasks(tasks.count()));
            leases.push((*place, tasks, need.amount(&base, tasks.count()), cost_ns));
        }
        let job_ref = placement::Job::Id(job.id.0);
        let placements: Vec<Placement> = leases
            .into_iter()
            .map(|(place, tasks, amount, cost_ns)| self.slots[place].take(job_ref, index, tasks, &amount, cost_ns))
            .collect();
        self.gangs.named += placements.len();
        self.gangs.commands.push(Command::StartGang(StartGang { job: job.id.0, stage: index, placements }));
    }
}
