//! A registered worker and what its devices hold.

use crate::alike::{Alike, alike};
use crate::cost::Speed;
use crate::ids::{JobId, Session, Timestamp, WorkerId};
use crate::trouble::Standing;
use raftwerk_proto::v1::{Capacity, Device, Hello};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    pub session: Session,
    /// As registered; `held` is always empty here.
    pub hello: Hello,
    /// Declared lost, or said goodbye. Its leases have ended and its shuffle data counts as gone.
    pub lost: bool,
    pub standing: Standing,
    /// Of devices that something is held against, by index.
    pub device_standing: BTreeMap<u32, Standing>,
    /// Gets nothing new, because an operator said so.
    pub drained: bool,
    /// Of devices that leases have been learnt from, by index.
    pub speeds: BTreeMap<u32, Speed>,
    /// Derived from `hello`, which never changes: its devices in the order of their indices.
    pub(crate) devices: Vec<Alike>,
}

impl Worker {
    pub fn new(session: Session, hello: Hello) -> Worker {
        Worker {
            session,
            devices: alike(&hello),
            hello,
            lost: false,
            standing: Standing::default(),
            device_standing: BTreeMap::new(),
            drained: false,
            speeds: BTreeMap::new(),
        }
    }

    /// Whether the device may be given new leases.
    pub fn takes_work(&self, device: u32, now: Timestamp) -> bool {
        !self.drained && !self.is_quarantined(device, now)
    }

    /// Whether the device, or the whole worker, is in quarantine.
    pub fn is_quarantined(&self, device: u32, now: Timestamp) -> bool {
        self.standing.is_quarantined(now) || self.device_standing.get(&device).is_some_and(|s| s.is_quarantined(now))
    }

    pub fn device(&self, index: u32) -> Option<&Device> {
        self.hello.devices.iter().find(|d| d.index == index)
    }
}

/// What live leases hold of one device. Derived from the leases, never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceUse {
    pub leases: u64,
    pub tasks: u64,
    pub held: Capacity,
}

impl DeviceUse {
    /// Whether one more lease of `amount` fits.
    pub fn fits(&self, capacity: &Capacity, amount: &Capacity) -> bool {
        let fits = |held: u64, more: u64, total: u64| more == 0 || held.checked_add(more).is_some_and(|sum| sum <= total);
        fits(self.held.slots, amount.slots, capacity.slots)
            && fits(self.held.milli_cpu, amount.milli_cpu, capacity.milli_cpu)
            && fits(self.held.memory_bytes, amount.memory_bytes, capacity.memory_bytes)
    }

    pub fn add(&mut self, tasks: u64, amount: &Capacity) {
        self.leases += 1;
        self.tasks = self.tasks.saturating_add(tasks);
        self.held.slots = self.held.slots.saturating_add(amount.slots);
        self.held.milli_cpu = self.held.milli_cpu.saturating_add(amount.milli_cpu);
        self.held.memory_bytes = self.held.memory_bytes.saturating_add(amount.memory_bytes);
    }

    pub fn remove(&mut self, tasks: u64, amount: &Capacity) {
        self.leases = self.leases.saturating_sub(1);
        self.tasks = self.tasks.saturating_sub(tasks);
        self.held.slots = self.held.slots.saturating_sub(amount.slots);
        self.held.milli_cpu = self.held.milli_cpu.saturating_sub(amount.milli_cpu);
        self.held.memory_bytes = self.held.memory_bytes.saturating_sub(amount.memory_bytes);
    }
}

/// Use of every device that holds a lease, by (worker, device index).
pub type DeviceUses = BTreeMap<(WorkerId, u32), DeviceUse>;

/// What a device has of one stage. Derived from the leases, never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageUse {
    pub leases: u64,
    pub tasks: u64,
    /// Of these, reported by leases that go on.
    pub done: u64,
}

/// What is leased to a device, by (worker, device index, job, stage).
pub type StageUses = BTreeMap<(WorkerId, u32, JobId, u32), StageUse>;
