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
