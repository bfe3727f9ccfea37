//! What work costs on which device, learnt from what was reported.
//!
//! ```text
//!   report --> a lease's time and units --(its last report)--> sample --+--> entry (kernel, footprint, size class, model): line, spread
//!                                                                       +--> speed of that very device against its model
//!   plan   <-- estimate of a task and a lease on a device <-- entry, if believed; the job's own shares; a related entry; nothing
//! ```
//! Everything here is replicated state and integers: it changes in `apply` only, and goes with the snapshot. A lease is one sample, so
//! that what it costs to begin one can be told from what its units cost. Nothing is learnt by entries of before format 4.

mod entry;
mod estimate;
mod fit;
mod gauge;
mod learn;
mod lent;
mod limits;
mod score;
mod speed;
mod units;

pub use entry::{BELIEVED, Entry, Key, MAX_TEXT, size_class};
pub use estimate::{Estimate, Source, StageCosts};
pub(crate) use estimate::{Lines, units_per_task};
pub use fit::{Line, Sample, fit};
pub use learn::Spent;
pub use limits::beyond_limits;
pub use score::Scores;
pub use speed::{ORDINARY, Speed};
pub use units::{of_stage, of_tasks};

use raftwerk_proto::v1::{CostRecord, Device, KernelRef};
use std::collections::BTreeMap;

/// Keys that are remembered; what was used longest ago makes room. Tens of kernels, a few parameters, sizes and models of each.
pub const MAX_ENTRIES: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CostModel {
    entries: BTreeMap<Key, Entry>,
}

/// What devices of one kind are called. Two that differ in what they can do differ in name.
pub fn model_of(device: &Device) -> &str {
    if device.name.is_empty() { &device.class } else { &device.name }
}

/// As keys name it.
pub fn kernel_name(kernel: &KernelRef) -> String {
    format!("{}@{}", kernel.name, kernel.version)
}

impl CostModel {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> + '_ {
        self.entries.iter()
    }

    /// Entries of one kernel, all footprints, classes and models.
    pub(crate) fn of_kernel<'a>(&'a self, kernel: &str) -> impl Iterator<Item = (&'a Key, &'a Entry)> + use<'a> {
        let from = Key { kernel: kernel.to_owned(), footprint: String::new(), class: 0, model: String::new() };
        let kernel = kernel.to_owned();
        self.entries.range(from..).take_while(move |(key, _)| key.kernel == kernel)
    }

    /// The entry of the key, made if need be. `None` for a key that cannot be written down.
    fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        if key.model.is_empty() || [&key.kernel, &key.footprint, &key.model].iter().any(|text| text.len() > MAX_TEXT) {
            return None;
        }
        if !self.entries.contains_key(&key) {
            self.make_room();
        }
        Some(self.entries.entry(key).or_default())
    }

    fn make_room(&mut self) {
        while self.entries.len() >= MAX_ENTRIES {
            let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else { return };
            self.entries.remove(&oldest);
        }
    }

    /// Puts what somebody brought in the place of what was known. It counts as used now.
    pub(crate) fn take_in(&mut self, brought: CostModel, index: u64) {
        for (key, mut entry) in brought.entries {
            if !self.entries.contains_key(&key) {
                self.make_room();
            }
            entry.imported(index);
            self.entries.insert(key, entry);
        }
    }

    pub fn to_wire(&self) -> Vec<CostRecord> {
        self.entries.iter().map(|(key, entry)| entry.to_wire(key)).collect()
    }

    pub fn from_wire(records: Vec<CostRecord>) -> Result<CostModel, String> {
        if records.len() > MAX_ENTRIES {
            return Err(format!("{} costs are more than the {MAX_ENTRIES} that are kept", records.len()));
        }
        let mut entries = BTreeMap::new();
        for record in records {
            let (key, entry) = Entry::from_wire(record)?;
            if entries.insert(key.clone(), entry).is_some() {
                return Err(format!(
                    "the cost of '{}' on '{}' with the same footprint and size class is there twice",
                    key.kernel, key.model
                ));
            }
        }
        Ok(CostModel { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut costs = CostModel::default();
        let key = |n: usize| Key { kernel: format!("k{n:05}@1"), footprint: String::new(), class: 0, model: "m".into() };
        for n in 0..MAX_ENTRIES + 10 {
            costs.entry(key(n)).expect("a key").learn(Sample { units: 1, ns: 1 }, 1, 1, n as u64);
            // The first one is used again and again.
            costs.entry(key(0)).expect("a key").used = n as u64;
        }
        assert_eq!(costs.len(), MAX_ENTRIES);
        assert!(costs.get(&key(0)).is_some() && costs.get(&key(1)).is_none() && costs.get(&key(MAX_ENTRIES + 9)).is_some());
        assert_eq!(CostModel::from_wire(costs.to_wire()), Ok(costs));
    }
}
