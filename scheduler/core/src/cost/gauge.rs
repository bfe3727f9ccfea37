//! What an ordinary speed is: that of the middle one of the devices of a model.
//!
//! A device's speed is learnt against its model's line, and the line from what devices took, brought to an ordinary speed. By themselves the two
//! would drift: half the line at twice the time says the same. So a sample is brought to the speed of the median device and not to 1. Where one
//! device is the whole model, its samples are taken as they were measured, and the line is what it takes; where one of many is throttled, the line
//! stays what it was. Either way speeds come back to 1 in the middle.

use super::{Speed, model_of};
use crate::alike::Alike;
use crate::ids::WorkerId;
use crate::worker::Worker;
use std::collections::BTreeMap;

/// Workers looked at on either side, by number: ten thousand need not be sorted for each lease.
const NEIGHBOURS: usize = 32;

pub(super) struct Gauge {
    /// Speeds of others of the model near by, sorted.
    others: Vec<u64>,
}

impl Gauge {
    /// Of live devices that leases were judged by.
    pub(super) fn around(workers: &BTreeMap<WorkerId, Worker>, model: &str, own: (WorkerId, u32)) -> Gauge {
        let alike = workers.get(&own.0).and_then(|worker| worker.devices.iter().find(|device| device.index == own.1));
        // Neighbours are mostly alike; then no name need be looked at.
        let is_of_model = |worker: &Worker, device: &Alike| {
            alike.is_some_and(|own| own.number == device.number)
                || worker.hello.devices.get(device.place as usize).is_some_and(|device| model_of(device) == model)
        };
        let before = workers.range(..own.0).rev().take(NEIGHBOURS);
        let near = before.chain(workers.range(own.0..).take(NEIGHBOURS + 1));
        let mut others: Vec<u64> = near
            .filter(|(_, worker)| !worker.lost)
            .flat_map(|(id, worker)| worker.devices.iter().map(move |device| (*id, worker, device)))
            .filter(|(id, worker, device)| (*id, device.index) != own && is_of_model(worker, device))
            .filter_map(|(_, worker, device)| worker.speeds.get(&device.index))
            .filter(|speed| speed.samples > 0)
            .map(|speed| speed.permille)
            .collect();
        others.sort_unstable();
        Gauge { others }
    }

    /// No other device of the model has shown a speed.
    pub(super) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// What the middle device of the model would have needed for what one of this speed needed `ns` for.
    pub(super) fn of_model(&self, ns: u64, own: Speed) -> u64 {
        // The lower one of the two in the middle, as if its own were among them: of two devices the faster one is what the model can do.
        let middle = self.others.len() / 2;
        let below = self.others.partition_point(|other| *other < own.permille);
        let median = match middle.cmp(&below) {
            std::cmp::Ordering::Less => self.others[middle],
            std::cmp::Ordering::Equal => own.permille,
            std::cmp::Ordering::Greater => self.others[middle - 1],
        };
        own.as_if(ns, median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_is_ordinary() {
        let of =
            |others: &[u64], own: u64| Gauge { others: others.to_vec() }.of_model(1_000, Speed { permille: own, samples: 1, astray: 0 });
        assert_eq!(of(&[], 9_000), 1_000, "alone it is the model");
        assert_eq!((of(&[1_000], 2_000), of(&[2_000], 1_000)), (500, 1_000), "of two the faster one");
        assert_eq!((of(&[500, 1_000], 2_000), of(&[500, 2_000], 1_000), of(&[1_000, 2_000], 500)), (500, 1_000, 2_000));
        assert_eq!(of(&[1, 2, 3, 4, 5], 6), 500);
    }
}
