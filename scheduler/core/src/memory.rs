//! What a lease takes of a device's own memory: declared by the kernel, checked when it is granted, and learnt from leases that did not fit.

use crate::job::Job;
use crate::lease::Lease;
use crate::worker::DeviceUse;
use raftwerk_proto::v1::{Capacity, Device, StageSpec};

/// As far as it depends on the lease's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    fixed_bytes: u64,
    /// 1024ths of bytes.
    per_task: u128,
    /// 0: no such limit.
    most_bytes: u64,
}

impl Need {
    /// Of a stage on a device. A CPU's leases are small beside the machine's memory, so formulas are of devices with memory of their own.
    pub fn of(spec: &StageSpec, device: &Device, units_per_task: u64) -> Need {
        let Some(need) = spec.memory.filter(|_| device.class != "cpu") else { return Need::default() };
        let units = u128::from(need.per_kilo_unit_bytes) * u128::from(units_per_task);
        Need {
            fixed_bytes: need.fixed_bytes,
            per_task: (u128::from(need.per_task_bytes) << 10).saturating_add(units),
            most_bytes: need.most_bytes,
        }
    }

    fn bytes(&self, tasks: u64) -> u64 {
        let variable = self.per_task.saturating_mul(u128::from(tasks)).div_ceil(1 << 10);
        let all = u64::try_from(variable.saturating_add(u128::from(self.fixed_bytes))).unwrap_or(u64::MAX);
        if self.most_bytes == 0 { all } else { all.min(self.most_bytes) }
    }

    /// What a lease of so many tasks holds of a device, of which every lease holds `base`.
    pub fn amount(&self, base: &Capacity, tasks: u64) -> Capacity {
        Capacity { memory_bytes: base.memory_bytes.max(self.bytes(tasks)), ..*base }
    }

    /// The longest lease that still fits; 0 when none does.
    pub fn tasks_within(&self, base: &Capacity, capacity: &Capacity, used: &DeviceUse) -> u64 {
        if !used.fits(capacity, &self.amount(base, 1)) {
            return 0;
        }
        if self.most_bytes > 0 && used.fits(capacity, &self.amount(base, u64::MAX)) {
            return u64::MAX;
        }
        let free = capacity.memory_bytes.saturating_sub(used.held.memory_bytes).saturating_sub(self.fixed_bytes);
        let most = (u128::from(free) << 10).checked_div(self.per_task).unwrap_or(u128::MAX);
        u64::try_from(most).unwrap_or(u64::MAX).max(1)
    }
}

/// The lease was too much for its device's memory. The next ones there are half as long; when it had one task only, no device of this class
/// is tried again for the stage. Says whether the device itself is to be given up: a CPU has no other class to turn to.
pub(crate) fn ran_out(job: &mut Job, lease: &Lease, class: Option<&str>) -> bool {
    let stage = &mut job.stages[lease.stage as usize];
    let limit = stage.memory_limits.get(&(lease.worker, lease.device)).copied().unwrap_or(u64::MAX);
    let half = lease.tasks.count().min(limit) / 2;
    if half > 0 {
        stage.memory_limits.insert((lease.worker, lease.device), half);
        return false;
    }
    match class {
        Some(class) if class != "cpu" => {
            stage.avoided.insert(class.to_owned());
            false
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use raftwerk_proto::v1::MemoryNeed;

    proptest! {
        #[test]
        fn the_longest_lease_that_fits_does_and_one_more_does_not(
            need in (0u64..5000, 0u64..5000, 0u64..5000, 0u64..50_000),
            units in 0u64..10_000,
            total in 0u64..100_000,
            held in 0u64..100_000,
        ) {
            let memory = MemoryNeed { fixed_bytes: need.0, per_task_bytes: need.1, per_kilo_unit_bytes: need.2, most_bytes: need.3 };
            let spec = StageSpec { memory: Some(memory), ..StageSpec::default() };
            let need = Need::of(&spec, &Device { class: "discrete".into(), ..Device::default() }, units);
            let base = Capacity { slots: 1, ..Capacity::default() };
            let capacity = Capacity { slots: 4, memory_bytes: total, ..Capacity::default() };
            let mut used = DeviceUse::default();
            used.add(1, &Capacity { memory_bytes: held.min(total), slots: 1, ..Capacity::default() });
            let most = need.tasks_within(&base, &capacity, &used);
            prop_assert!(most == 0 || used.fits(&capacity, &need.amount(&base, most)));
            prop_assert!(most == u64::MAX || !used.fits(&capacity, &need.amount(&base, most + 1)));
        }
    }
}
