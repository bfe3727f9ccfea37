//! A line through the costs of leases: a fixed part, and a part per unit.
//!
//! Medians instead of least squares (Theil 1950; Sen, Journal of the American Statistical Association 63, 1968): a first lease that
//! compiles shaders, or one that shared its machine, is an outlier of a factor of ten, which moves a mean for a long time and a median not
//! at all. And the noise of a run time grows with it, which least squares would have to be told.

/// One lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub units: u64,
    pub ns: u64,
}

/// `fixed_ns` + units * `per_unit_fs` / 10^6 nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub fixed_ns: u64,
    /// Femtoseconds: a GPU does more than a million million of the smallest units in a second.
    pub per_unit_fs: u64,
}

const FS_PER_NS: u128 = 1_000_000;
/// A lease of a day and a half; what is longer is taken for that long, so that no sum overflows.
pub const MAX_NS: u64 = 1 << 47;

impl Line {
    /// Device time of a lease of so many units.
    pub fn at(self, units: u64) -> u64 {
        let variable = u128::from(self.per_unit_fs) * u128::from(units) / FS_PER_NS;
        narrow(u128::from(self.fixed_ns).saturating_add(variable))
    }
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// The lower of the two in the middle.
fn median(values: &mut [i128]) -> Option<i128> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable(middle).1)
}

/// Femtoseconds per unit. Of any lease of less than two hours in 64 bits, which is many times quicker, and a line has hundreds of them.
fn rate(ns: i128, units: u64) -> i128 {
    const FITS: u128 = (i64::MAX as u128) / FS_PER_NS;
    match (i64::try_from(ns), i64::try_from(units)) {
        (Ok(ns), Ok(units)) if u128::from(ns.unsigned_abs()) <= FITS => i128::from(ns * FS_PER_NS as i64 / units),
        _ => ns.saturating_mul(FS_PER_NS as i128) / i128::from(units),
    }
}

/// The line through the samples. What they cannot tell, because all leases were about as long, stays as it was.
pub fn fit(samples: &[Sample], before: Line) -> Line {
    let mut sorted: Vec<Sample> = samples.iter().filter(|s| s.units > 0).map(|s| Sample { ns: s.ns.min(MAX_NS), ..*s }).collect();
    sorted.sort_unstable_by_key(|s| (s.units, s.ns));
    let (Some(least), Some(fixed_at_most)) = (sorted.first().copied(), sorted.iter().map(|s| s.ns).min()) else { return before };
    // Pairs a factor of two apart: the slope between neighbours is noise.
    let mut slopes: Vec<i128> = Vec::new();
    for (n, small) in sorted.iter().enumerate() {
        for large in &sorted[n + 1..] {
            if large.units / 2 >= small.units {
                slopes.push(rate(i128::from(large.ns) - i128::from(small.ns), large.units - small.units));
            }
        }
    }
    let fixed_ns = match median(&mut slopes) {
        Some(slope) => {
            let slope = slope.max(0);
            // Of the short third, where it is the larger part of the whole.
            let short = &sorted[..sorted.len().div_ceil(3)];
            let mut rests: Vec<i128> =
                short.iter().map(|s| i128::from(s.ns) - slope.saturating_mul(i128::from(s.units)) / FS_PER_NS as i128).collect();
            median(&mut rests).unwrap_or(0).max(0)
        }
        None => i128::from(before.fixed_ns),
    };
    // No lease is done before its fixed part is.
    let fixed_ns = fixed_ns.min(i128::from(fixed_at_most));
    // Of the long half, where the rest is the larger part.
    let long = &sorted[sorted.len() / 2..];
    let mut rates: Vec<i128> = long.iter().map(|s| rate((i128::from(s.ns) - fixed_ns).max(0), s.units)).collect();
    let per_unit = median(&mut rates).unwrap_or_else(|| rate(i128::from(least.ns), least.units)).max(0);
    // Nothing is for nothing: a cost of zero would ask for a lease without end.
    let per_unit_fs = u64::try_from(per_unit).unwrap_or(u64::MAX).max(1);
    Line { fixed_ns: u64::try_from(fixed_ns).unwrap_or(0), per_unit_fs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(line: Line, sizes: impl IntoIterator<Item = (u64, i64)>) -> Vec<Sample> {
        // Noise in permille.
        sizes
            .into_iter()
            .map(|(units, noise)| Sample { units, ns: (line.at(units) as i128 * i128::from(1000 + noise) / 1000) as u64 })
            .collect()
    }

    #[test]
    fn exact_costs_give_the_exact_line() {
        let line = Line { fixed_ns: 5_000_000, per_unit_fs: 250_000_000 };
        let fitted = fit(&samples(line, [(10, 0), (100, 0), (1000, 0), (5000, 0)]), Line::default());
        assert!(fitted.fixed_ns.abs_diff(line.fixed_ns) < 10 && fitted.per_unit_fs.abs_diff(line.per_unit_fs) < 1_000, "{fitted:?}");
    }

    #[test]
    fn one_lease_that_compiled_shaders_moves_nothing() {
        let line = Line { fixed_ns: 100_000, per_unit_fs: 50_000 };
        let mut all = samples(line, (0..11).map(|n| (1000 << n, 0)));
        all.insert(0, Sample { units: 1000, ns: 700_000_000 });
        let fitted = fit(&all, Line::default());
        assert!(fitted.at(1_000_000).abs_diff(line.at(1_000_000)) < line.at(1_000_000) / 20, "{fitted:?}");
    }

    #[test]
    fn leases_of_one_length_leave_the_fixed_part_as_it_was() {
        let line = Line { fixed_ns: 2_000, per_unit_fs: 1_000_000_000 };
        let fitted = fit(&samples(line, [(100, 0), (110, 0), (120, 0)]), line);
        assert_eq!(fitted.fixed_ns, 2_000);
        assert!(fitted.per_unit_fs.abs_diff(1_000_000_000) < 20_000_000, "{fitted:?}");
        assert_eq!(fit(&[], line), line);
    }

    proptest! {
        /// Fifteen percent of noise on every lease, leases of very different length.
        #[test]
        fn fixed_part_and_rate_are_found_under_noise(
            fixed_ns in 0u64..20_000_000,
            per_unit_fs in 1_000u64..1_000_000_000_000,
            noise in prop::collection::vec(-150i64..=150, 24),
        ) {
            let line = Line { fixed_ns, per_unit_fs };
            // From a twentieth of the fixed part to fifty times it, or what is the same without one.
            let base = (u128::from(fixed_ns.max(1_000_000)) * FS_PER_NS / u128::from(per_unit_fs) / 20).max(1) as u64;
            let sizes = noise.iter().enumerate().map(|(n, noise)| (base << (n % 11), *noise));
            let fitted = fit(&samples(line, sizes.collect::<Vec<_>>()), Line::default());
            for n in 0..11 {
                let (found, real) = (fitted.at(base << n), line.at(base << n));
                // The noise of leases a few times as long hides a fixed part that is small beside them.
                let hidden = line.at(base << 3) / 8;
                prop_assert!(found.abs_diff(real) <= real / 5 + hidden + 2, "{line:?} {fitted:?} at {}: {found} {real}", base << n);
            }
            prop_assert!(fitted.per_unit_fs.abs_diff(per_unit_fs) <= per_unit_fs / 6 + 1, "{line:?} {fitted:?}");
        }

        /// A log that was applied with the slow division must give the same line.
        #[test]
        fn the_quick_division_is_the_slow_one(ns in any::<i64>(), shift in 0u32..64, units in prop_oneof![1u64..100, 1u64..]) {
            let ns = i128::from(ns >> shift);
            prop_assert_eq!(rate(ns, units), ns.saturating_mul(FS_PER_NS as i128) / i128::from(units));
        }

        #[test]
        fn absurd_leases_neither_panic_nor_cost_nothing(
            all in prop::collection::vec((prop_oneof![0u64..4, any::<u64>(), Just(u64::MAX)], prop_oneof![0u64..4, any::<u64>(), Just(u64::MAX)]), 0..30),
            before in (any::<u64>(), any::<u64>()),
            units in any::<u64>(),
        ) {
            let all: Vec<Sample> = all.into_iter().map(|(units, ns)| Sample { units, ns }).collect();
            let line = fit(&all, Line { fixed_ns: before.0, per_unit_fs: before.1 });
            line.at(units);
            prop_assert!(line.per_unit_fs > 0 || all.iter().all(|s| s.units == 0));
        }
    }
}
