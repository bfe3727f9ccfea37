//! Kinds of devices in a round: those that are described alike (`alike`). What follows from the description is found once for each kind.

use crate::alike::Alike;
use crate::device_match::is_preferred;
use crate::matching::device_fits;
use crate::spec::device_class;
use crate::worker::Worker;
use raftwerk_proto::v1::{Device, DeviceMatch, StageSpec};
use std::collections::BTreeMap;

/// Of all workers that are not lost, whether they take work now or not.
#[derive(Default)]
pub(super) struct Kinds<'a> {
    by_number: BTreeMap<u64, usize>,
    /// One device of each, with its worker. Its index is its own.
    first: Vec<(&'a Worker, &'a Device)>,
    /// The last one asked for: neighbours are mostly of one kind.
    last: Option<(u64, usize)>,
}

impl<'a> Kinds<'a> {
    /// The kind of a device of this worker.
    pub(super) fn of(&mut self, worker: &'a Worker, alike: &Alike) -> Option<usize> {
        if let Some((_, kind)) = self.last.filter(|(number, _)| *number == alike.number) {
            return Some(kind);
        }
        let kind = match self.by_number.get(&alike.number) {
            Some(kind) => *kind,
            None => {
                self.first.push((worker, worker.hello.devices.get(alike.place as usize)?));
                self.by_number.insert(alike.number, self.first.len() - 1);
                self.first.len() - 1
            }
        };
        self.last = Some((alike.number, kind));
        Some(kind)
    }

    pub(super) fn len(&self) -> usize {
        self.first.len()
    }

    /// Any device of the kind.
    pub(super) fn device(&self, kind: usize) -> &'a Device {
        self.first[kind].1
    }

    /// Which kinds may run the stage. The rule is that of [`crate::matching::candidates`].
    pub(super) fn that_fit(&self, stage: &StageSpec) -> Vec<bool> {
        let mut fit: Vec<bool> = self.first.iter().map(|(worker, device)| device_fits(stage, worker, device)).collect();
        let is_software = |kind: usize| self.device(kind).class == "software";
        let hardware = (0..fit.len()).any(|kind| fit[kind] && !is_software(kind));
        let software = !hardware || device_class(stage) == "software";
        fit.iter_mut().enumerate().for_each(|(kind, fits)| *fits &= is_software(kind) == software);
        fit
    }

    /// Which kinds are preferred.
    pub(super) fn preferred(&self, prefer: &DeviceMatch) -> Vec<bool> {
        self.first.iter().map(|(worker, device)| is_preferred(prefer, &worker.hello, device)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Session, WorkerId};
    use crate::matching::candidates;
    use crate::state::State;
    use proptest::prelude::*;
    use raftwerk_proto::v1::{Capacity, DeviceRequest, Hello, KernelRef, Label};

    fn device(index: u32, class: &str, kernel: &str, slots: u64) -> Device {
        let capacity = Some(Capacity { slots, ..Capacity::default() });
        Device { index, class: class.into(), kernels: vec![kernel.into()], capacity, parallelism: 1, ..Device::default() }
    }

    proptest! {
        /// Two ways to the same devices: one by one for who asks rarely, by kind for the rounds.
        #[test]
        fn devices_found_by_kind_are_those_found_one_by_one(
            workers in prop::collection::vec((prop::collection::vec((0usize..3, 0usize..3, 0u64..3), 0..4), any::<bool>(), 0u8..3), 0..12),
            class in 0usize..5,
            label in any::<bool>(),
        ) {
            let mut state = State::new("c");
            for (number, (devices, labelled, lost)) in workers.into_iter().enumerate() {
                let classes = ["cpu", "discrete", "software"];
                let of = |(index, (class, kernel, slots)): (usize, (usize, usize, u64))| {
                    device(index as u32, classes[class], ["k@1", "k@2", "other@1"][kernel], slots)
                };
                let labels = if labelled { vec![Label { key: "zone".into(), value: "a".into() }] } else { Vec::new() };
                let hello = Hello { labels, devices: devices.into_iter().enumerate().map(of).collect(), ..Hello::default() };
                let worker = Worker { lost: lost == 0, ..Worker::new(Session(1), hello) };
                state.workers.insert(WorkerId(number as u64 + 1), worker);
            }
            let require = DeviceMatch { labels: vec![Label { key: "zone".into(), value: "a".into() }], ..DeviceMatch::default() };
            let class = ["", "any", "cpu", "gpu", "software"][class];
            let stage = StageSpec {
                kernel: Some(KernelRef { name: "k".into(), version: 1, ..KernelRef::default() }),
                device: Some(DeviceRequest { class: class.into(), ..DeviceRequest::default() }),
                require: label.then_some(require),
                ..StageSpec::default()
            };
            let mut kinds = Kinds::default();
            let mut of_devices = Vec::new();
            for (id, worker) in state.workers.iter().filter(|(_, worker)| !worker.lost) {
                for alike in &worker.devices {
                    of_devices.push(((*id, alike.index), kinds.of(worker, alike).expect("a kind")));
                }
            }
            let fit = kinds.that_fit(&stage);
            let by_kind: Vec<(WorkerId, u32)> = of_devices.into_iter().filter(|(_, kind)| fit[*kind]).map(|(device, _)| device).collect();
            prop_assert_eq!(by_kind, candidates(&state, &stage));
        }
    }
}
