//! What is known under one key, and what keys are.

use super::fit::{Line, Sample, fit};
use super::score::{Scores, error_permille};
use raftwerk_proto::v1::{CostRecord, CostSample};

/// Leases before a line is believed: as many as StarPU asks for (Augonnet, Thibault, Namyst, Wacrenier: StarPU, Concurrency and
/// Computation 23, 2011).
pub const BELIEVED: u64 = 10;
/// Leases that a line goes through. A third of them are the shortest, from which the fixed part comes.
pub const WINDOW: usize = 24;
/// Of the mean error: a tenth of it comes from the last lease.
const SPREAD_WEIGHT: i128 = 10;
/// An error counts as ten times the prediction at the most.
pub(super) const SPREAD_MAX: u64 = 10_000;
/// Longest text of a key. A name or footprint that is longer is refused where it comes from a person, and not learnt otherwise.
pub const MAX_TEXT: usize = 200;
pub const MAX_CLASS: u32 = 63;

/// Sorted so that all models of one stage stand together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// "name@version".
    pub kernel: String,
    /// The parameters that matter for the cost.
    pub footprint: String,
    /// Of one task and not of a lease: it is the same for a whole stage, so that leases of all lengths are on one line, which tells
    /// their fixed part from the rest.
    pub class: u32,
    /// Of the device.
    pub model: String,
}

/// The class of tasks of so many units: whole powers of two.
pub fn size_class(units_per_task: u64) -> u32 {
    units_per_task.max(1).ilog2()
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub line: Line,
    pub samples: u64,
    pub spread_permille: u64,
    pub scores: Scores,
    /// Oldest first.
    window: Vec<Sample>,
    /// Log index of the last lease; what was used longest ago makes room.
    pub used: u64,
    /// Whose leases these all were; worker 0 when they were of several devices.
    teacher: (u64, u32),
}

impl Entry {
    pub fn is_believed(&self) -> bool {
        self.samples >= BELIEVED
    }

    /// Whether the line says something about this device that it did not say itself: others have taught it, or so much was learnt that a
    /// difference is news.
    pub fn can_judge(&self, worker: u64, device: u32) -> bool {
        self.samples > 0 && (self.is_believed() || self.teacher != (worker, device))
    }

    /// Workers of another cluster are nobody here.
    pub fn imported(&mut self, index: u64) {
        self.used = index;
        self.teacher = (0, 0);
    }

    pub fn taught_by(&mut self, worker: u64, device: u32) {
        if self.samples == 0 {
            self.teacher = (worker, device);
        } else if self.teacher != (worker, device) {
            self.teacher = (0, 0);
        }
    }

    /// Compares the prediction with what came, then learns from it. `predicted_ns` is of that very device, `sample` as if it were ordinary.
    pub fn learn(&mut self, sample: Sample, observed_ns: u64, predicted_ns: u64, index: u64) {
        if self.samples > 0 {
            let error = error_permille(observed_ns, predicted_ns);
            if self.is_believed() {
                self.scores.add(error);
            }
            let (error, spread) = (i128::from(error.min(SPREAD_MAX)), i128::from(self.spread_permille));
            let weight = SPREAD_WEIGHT.min(i128::from(self.samples));
            self.spread_permille = u64::try_from(spread + (error - spread) / weight).unwrap_or(0);
        }
        if self.window.len() >= WINDOW {
            self.make_room();
        }
        self.window.push(sample);
        self.line = fit(&self.window, self.line);
        self.samples = self.samples.saturating_add(1);
        self.used = index;
    }

    /// The oldest of those lengths that there are most of goes: leases of other lengths, which tell the fixed part, are rare and stay.
    fn make_room(&mut self) {
        let mut counts = [0usize; 64];
        let octave = |s: &Sample| s.units.max(1).ilog2() as usize;
        self.window.iter().for_each(|s| counts[octave(s)] += 1);
        let most = counts.iter().max().copied().unwrap_or(0);
        let oldest = self.window.iter().position(|s| counts[octave(s)] == most).unwrap_or(0);
        self.window.remove(oldest);
    }

    pub fn to_wire(&self, key: &Key) -> CostRecord {
        CostRecord {
            kernel: key.kernel.clone(),
            footprint: key.footprint.clone(),
            size_class: key.class,
            model: key.model.clone(),
            fixed_ns: self.line.fixed_ns,
            per_unit_fs: self.line.per_unit_fs,
            samples: self.samples,
            spread_permille: self.spread_permille,
            scores: self.scores.to_wire(),
            window: self.window.iter().map(|s| CostSample { units: s.units, ns: s.ns }).collect(),
            used_index: self.used,
            teacher_worker: self.teacher.0,
            teacher_device: self.teacher.1,
        }
    }

    /// What does not fit together is told by name.
    pub fn from_wire(record: CostRecord) -> Result<(Key, Entry), String> {
        let teacher = (record.teacher_worker, record.teacher_device);
        let CostRecord {
            kernel,
            footprint,
            size_class,
            model,
            fixed_ns,
            per_unit_fs,
            samples,
            spread_permille,
            scores,
            window,
            used_index,
            ..
        } = record;
        let name = format!("the cost of '{kernel}' on '{model}'");
        if !kernel.split_once('@').is_some_and(|(name, version)| !name.is_empty() && version.parse::<u32>().is_ok()) {
            return Err(format!("{name}: the kernel must be named as NAME@VERSION"));
        }
        if model.is_empty() {
            return Err(format!("{name} names no model of a device"));
        }
        if [&kernel, &footprint, &model].iter().any(|text| text.len() > MAX_TEXT) {
            return Err(format!("{name}: kernel, footprint and model have at most {MAX_TEXT} bytes each"));
        }
        if size_class > MAX_CLASS {
            return Err(format!("{name}: size class {size_class} is above {MAX_CLASS}"));
        }
        if samples == 0 || per_unit_fs == 0 {
            return Err(format!("{name} has no samples, or costs nothing per unit"));
        }
        if window.len() > WINDOW || window.iter().any(|s| s.units == 0) {
            return Err(format!("{name}: its window has more than {WINDOW} leases, or one without units"));
        }
        let scores = Scores::from_wire(&scores).ok_or_else(|| format!("{name} has more classes of scores than this build knows"))?;
        let window = window.into_iter().map(|s| Sample { units: s.units, ns: s.ns }).collect();
        let line = Line { fixed_ns, per_unit_fs };
        Ok((
            Key { kernel, footprint, class: size_class, model },
            Entry { line, samples, spread_permille, scores, window, used: used_index, teacher },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(leases: &[(u64, u64)]) -> Entry {
        let mut entry = Entry::default();
        for (n, (units, ns)) in leases.iter().enumerate() {
            let predicted = entry.line.at(*units);
            entry.learn(Sample { units: *units, ns: *ns }, *ns, predicted, n as u64);
        }
        entry
    }

    #[test]
    fn nothing_is_believed_or_scored_before_enough_leases() {
        let few = learnt(&[(100, 1_000); 9]);
        assert!(!few.is_believed() && few.scores.count() == 0);
        let enough = learnt(&[(100, 1_000); 12]);
        assert!(enough.is_believed());
        assert_eq!((enough.scores.count(), enough.spread_permille), (2, 0));
        assert!(enough.scores.median_permille().is_some_and(|median| median < 10));
    }

    #[test]
    fn the_window_is_bounded_and_keeps_rare_lengths() {
        let mut leases = vec![(1, 1_000_001)];
        leases.extend([(1_000, 2_000_000); 100]);
        let entry = learnt(&leases);
        assert_eq!((entry.window.len(), entry.samples), (WINDOW, 101));
        assert_eq!(entry.line.fixed_ns, 999_000);
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let key = Key { kernel: "k@1".into(), footprint: "bins=7".into(), class: 20, model: "m".into() };
        let entry = learnt(&[(1, 5), (2, 7), (400, 70)]);
        assert_eq!(Entry::from_wire(entry.to_wire(&key)), Ok((key.clone(), entry.clone())));
        for spoil in [
            |r: &mut CostRecord| r.kernel = "k".into(),
            |r: &mut CostRecord| r.model.clear(),
            |r: &mut CostRecord| r.size_class = 64,
            |r: &mut CostRecord| r.samples = 0,
            |r: &mut CostRecord| r.footprint = "f".repeat(MAX_TEXT + 1),
            |r: &mut CostRecord| r.window = vec![CostSample { units: 1, ns: 1 }; WINDOW + 1],
        ] {
            let mut record = entry.to_wire(&key);
            spoil(&mut record);
            assert!(Entry::from_wire(record.clone()).is_err(), "{record:?}");
        }
    }
}
