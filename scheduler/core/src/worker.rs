//! A registered worker and what its devices hold.

use crate::ids::{JobId, Session, WorkerId};
use raftwerk_proto::v1::{Capacity, Device, Hello};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    pub session: Session,
    /// As registered; `held` is always empty here.
    pub hello: Hello,
    /// Declared lost, or said goodbye. Its leases have ended and its shuffle data counts as gone.
    pub lost: bool,
}

impl Worker {
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
        let fits = |held: u64, more: u64, total: u64| more == 0 || held.saturating_add(more) <= total;
        fits(self.held.slots, amount.slots, capacity.slots)
            && fits(self.held.milli_cpu, amount.milli_cpu, capacity.milli_cpu)
            && fits(self.held.memory_bytes, amount.memory_bytes, capacity.memory_bytes)
    }

    pub fn add(&mut self, tasks: u64, amount: &Capacity) {
        self.leases += 1;
        self.tasks += tasks;
        self.held.slots = self.held.slots.saturating_add(amount.slots);
        self.held.milli_cpu = self.held.milli_cpu.saturating_add(amount.milli_cpu);
        self.held.memory_bytes = self.held.memory_bytes.saturating_add(amount.memory_bytes);
    }

    pub fn remove(&mut self, tasks: u64, amount: &Capacity) {
        self.leases -= 1;
        self.tasks -= tasks;
        self.held.slots = self.held.slots.saturating_sub(amount.slots);
        self.held.milli_cpu = self.held.milli_cpu.saturating_sub(amount.milli_cpu);
        self.held.memory_bytes = self.held.memory_bytes.saturating_sub(amount.memory_bytes);
    }
}

/// Use of every device that holds a lease, by (worker, device index).
pub type DeviceUses = BTreeMap<(WorkerId, u32), DeviceUse>;

/// Tasks leased to a device, by (worker, device index, job, stage).
pub type StageUses = BTreeMap<(WorkerId, u32, JobId, u32), u64>;
