//! How good predictions were: their relative errors counted by size, of leases that were predicted before they were learnt from.

/// Upper ends of the classes in permille, about a factor of 1.4 apart; the last class has none.
const ENDS: [u64; 15] = [10, 20, 30, 50, 70, 100, 140, 200, 280, 400, 560, 800, 1_100, 1_600, 2_500];
pub const CLASSES: usize = ENDS.len() + 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores([u64; CLASSES]);

/// |observed - predicted| / predicted, in permille.
pub fn error_permille(observed_ns: u64, predicted_ns: u64) -> u64 {
    let error = u128::from(observed_ns.abs_diff(predicted_ns)) * 1000 / u128::from(predicted_ns.max(1));
    u64::try_from(error).unwrap_or(u64::MAX)
}

impl Scores {
    pub fn add(&mut self, error_permille: u64) {
        let class = ENDS.partition_point(|end| *end <= error_permille);
        self.0[class] = self.0[class].saturating_add(1);
    }

    pub fn merge(&mut self, other: &Scores) {
        self.0.iter_mut().zip(other.0).for_each(|(own, more)| *own = own.saturating_add(more));
    }

    /// Predictions scored.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The median of the errors in permille, to the precision of the classes; nothing without a score. Beyond the last end it is that end.
    pub fn median_permille(&self) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let (mut below, mut start) = (0u64, 0);
        for (class, n) in self.0.iter().enumerate() {
            let end = ENDS.get(class).copied().unwrap_or(start);
            // The middle one lies in here, as far in as its place among those of the class.
            if below.saturating_add(*n) >= count.div_ceil(2) {
                let inside = u128::from(count.div_ceil(2) - below) * u128::from(end - start) / u128::from((*n).max(1));
                return Some(start + inside as u64);
            }
            below = below.saturating_add(*n);
            start = end;
        }
        Some(start)
    }

    pub fn to_wire(self) -> Vec<u64> {
        let used = self.0.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
        self.0[..used].to_vec()
    }

    /// Nothing when there are more classes than this build has.
    pub fn from_wire(counts: &[u64]) -> Option<Scores> {
        let mut scores = Scores::default();
        scores.0.get_mut(..counts.len())?.copy_from_slice(counts);
        Some(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_found_to_the_precision_of_its_class() {
        let mut scores = Scores::default();
        assert_eq!(scores.median_permille(), None);
        for error in [5, 40, 45, 900, u64::MAX] {
            scores.add(error);
        }
        let median = scores.median_permille().expect("a median");
        assert!((30..=50).contains(&median), "{median}");
        assert_eq!(Scores::from_wire(&scores.to_wire()), Some(scores));
        assert_eq!(Scores::from_wire(&[1; CLASSES + 1]), None);
    }

    #[test]
    fn sums_that_overflow_do_not() {
        let mut scores = Scores::from_wire(&[u64::MAX; CLASSES]).expect("as many classes");
        scores.add(3);
        scores.merge(&scores.clone());
        scores.median_permille();
        assert_eq!(error_permille(u64::MAX, 0), u64::MAX);
        assert_eq!(error_permille(150, 100), 500);
    }
}
