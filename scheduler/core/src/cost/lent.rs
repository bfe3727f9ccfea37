//! What a device that has shown nothing itself is taken to cost until it has: as much as others of its model, or else of its class.
//!
//! A loan, not an estimate: it says how much of a stage to keep for the device, and it grants no more than one short lease.

use super::estimate::{Estimate, Source, StageCosts};
use super::{ORDINARY, model_of};
use raftwerk_proto::v1::Device;
use std::collections::BTreeMap;

/// Estimates of several devices, added up.
#[derive(Clone, Copy, Default)]
struct Sum {
    devices: u64,
    fixed_ns: u128,
    task_fs: u128,
}

impl Sum {
    fn add(&mut self, estimate: &Estimate) {
        self.devices += 1;
        self.fixed_ns = self.fixed_ns.saturating_add(u128::from(estimate.fixed_ns));
        self.task_fs = self.task_fs.saturating_add(estimate.task_fs);
    }
}

/// Means over the devices that have an estimate of the stage.
pub(super) struct Lent<'a> {
    models: BTreeMap<&'a str, Sum>,
    classes: BTreeMap<&'a str, Sum>,
}

impl<'a> Lent<'a> {
    pub(super) fn of(costs: &StageCosts<'a>) -> Lent<'a> {
        let mut lent = Lent { models: BTreeMap::new(), classes: BTreeMap::new() };
        if costs.knows_nothing() {
            return lent;
        }
        for (id, worker) in costs.workers().iter().filter(|(_, worker)| !worker.lost) {
            for device in &worker.hello.devices {
                if let Some(estimate) = costs.of(*id, worker, device) {
                    lent.models.entry(model_of(device)).or_default().add(&estimate);
                    lent.classes.entry(device.class.as_str()).or_default().add(&estimate);
                }
            }
        }
        lent
    }

    pub(super) fn of_model(&self, device: &Device) -> Option<Estimate> {
        mean(self.models.get(model_of(device))?, Source::Peers)
    }

    pub(super) fn of_class(&self, device: &Device) -> Option<Estimate> {
        mean(self.classes.get(device.class.as_str())?, Source::Class)
    }
}

fn mean(sum: &Sum, source: Source) -> Option<Estimate> {
    let devices = u128::from(sum.devices);
    let fixed_ns = u64::try_from(sum.fixed_ns.checked_div(devices)?).unwrap_or(u64::MAX);
    let task_fs = sum.task_fs.checked_div(devices)?.max(1);
    Some(Estimate { fixed_ns, task_fs, spread_permille: ORDINARY / 4, source })
}
