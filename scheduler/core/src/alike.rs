//! Devices that are described alike, told apart by one number: what follows from a description (whether a stage may run there, what its model
//! costs) is looked up once for all of them. A round over ten thousand devices reads a few descriptions instead of ten thousand.

use crate::ring::place_of;
use raftwerk_proto::Wire;
use raftwerk_proto::v1::{Device, Hello};

/// A device of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alike {
    /// On its worker.
    pub index: u32,
    /// Place among the devices that the worker registered.
    pub place: u32,
    /// Of everything that is said of the device but its index, and of what matters of its worker to whoever chooses devices. Two descriptions
    /// with one number are as likely as any two numbers of 64 bits being equal; and a worker may say of its devices what it likes anyway.
    pub number: u64,
}

/// Devices of a worker in the order of their indices; of several with one index the first.
pub(crate) fn alike(hello: &Hello) -> Vec<Alike> {
    let labels = hello.labels.iter().fold(u64::from(hello.stage_graphs), |hash, label| number(hash, &label.to_wire()));
    let of_device = |(place, device): (usize, &Device)| {
        let description = Device { index: 0, ..device.clone() }.to_wire();
        Alike { index: device.index, place: place as u32, number: number(labels, &description) }
    };
    let mut all: Vec<Alike> = hello.devices.iter().enumerate().map(of_device).collect();
    all.sort_by_key(|device| device.index);
    all.dedup_by_key(|device| device.index);
    all
}

fn number(before: u64, bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    bytes.chunks(8).fold(place_of(&[before, bytes.len() as u64]), |hash, bytes| place_of(&[hash, word(bytes)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{Capacity, Label};

    fn device(index: u32, name: &str) -> Device {
        let capacity = Capacity { slots: 2, ..Capacity::default() };
        Device { index, class: "cpu".into(), name: name.into(), capacity: Some(capacity), parallelism: 4, ..Device::default() }
    }

    fn of(hello: Hello) -> Vec<u64> {
        alike(&hello).iter().map(|device| device.number).collect()
    }

    #[test]
    fn only_the_index_may_differ() {
        let numbers = of(Hello { devices: vec![device(0, "a"), device(1, "a"), device(2, "b")], ..Hello::default() });
        assert!(numbers[0] == numbers[1] && numbers[1] != numbers[2], "{numbers:?}");
        let wider = Device { parallelism: 8, ..device(0, "a") };
        assert_ne!(of(Hello { devices: vec![wider], ..Hello::default() })[0], numbers[0]);
    }

    #[test]
    fn what_matters_of_the_worker_counts() {
        let plain = Hello { devices: vec![device(0, "a")], ..Hello::default() };
        let label = Label { key: "zone".into(), value: "b".into() };
        let named = Hello { name: "w".into(), ..plain.clone() };
        assert_eq!(of(plain.clone()), of(named));
        assert_ne!(of(plain.clone()), of(Hello { labels: vec![label], ..plain.clone() }));
        assert_ne!(of(plain.clone()), of(Hello { stage_graphs: true, ..plain }));
    }

    #[test]
    fn of_devices_with_one_index_the_first_counts() {
        let hello = Hello { devices: vec![device(3, "c"), device(0, "a"), device(3, "d")], ..Hello::default() };
        let places: Vec<(u32, u32)> = alike(&hello).iter().map(|device| (device.index, device.place)).collect();
        assert_eq!(places, [(0, 1), (3, 0)]);
    }
}
