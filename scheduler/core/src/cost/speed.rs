//! How much slower than others of its model one device is: throttled by a limit, a temperature, a neighbour. What 1 is, see `gauge`.
//!
//! An average that forgets (exponential smoothing), quick when several leases in a row say the same and slow otherwise, in the manner of
//! Trigg and Leach (Exponential smoothing with an adaptive response rate, Operational Research Quarterly 18, 1967): one lease that had to
//! wait for something says little, a third one in a row that took three times as long says that the device is three times slower.

/// As its model says.
pub const ORDINARY: u64 = 1000;
const SLOWEST: u64 = 1_000_000;
const FASTEST: u64 = 1;
/// Leases in a row beyond this ratio to what was expected, in permille, mean a change; noise of fifteen percent is seldom twice beyond it.
const ASTRAY: (u64, u64) = (800, 1250);
/// A single lease counts as if it were off by no more than this.
const CLAMP: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Of the time that the model's line says; above 1000 is slower.
    pub permille: u64,
    pub samples: u64,
    /// Leases in a row far above (positive) or far below what was expected.
    pub astray: i32,
}

impl Default for Speed {
    fn default() -> Self {
        Speed { permille: ORDINARY, samples: 0, astray: 0 }
    }
}

impl Speed {
    /// What the device needs for what its model needs `ns` for.
    pub fn of(self, ns: u64) -> u64 {
        u64::try_from(u128::from(ns) * u128::from(self.permille) / u128::from(ORDINARY)).unwrap_or(u64::MAX)
    }

    /// What a device of that speed would have needed.
    pub fn as_if(self, ns: u64, permille: u64) -> u64 {
        u64::try_from(u128::from(ns) * u128::from(permille) / u128::from(self.permille.max(1))).unwrap_or(u64::MAX)
    }

    /// The model's line says `after_ns` instead of `before_ns`, and the device is as fast as before.
    pub fn rebase(&mut self, before_ns: u64, after_ns: u64) {
        let permille = u128::from(self.permille) * u128::from(before_ns.max(1)) / u128::from(after_ns.max(1));
        self.permille = u64::try_from(permille).unwrap_or(SLOWEST).clamp(FASTEST, SLOWEST);
    }

    /// A lease took `observed_ns`, and the model's line says `line_ns`.
    pub fn learn(&mut self, observed_ns: u64, line_ns: u64) {
        let ratio = u128::from(observed_ns) * u128::from(ORDINARY) / u128::from(line_ns.max(1));
        let ratio = u64::try_from(ratio).unwrap_or(SLOWEST).clamp(FASTEST, SLOWEST);
        let now = self.permille.clamp(FASTEST, SLOWEST);
        // Both at most 10^6, so that nothing below overflows.
        let against = ratio * ORDINARY / now;
        self.astray = match against {
            high if high > ASTRAY.1 => self.astray.max(0).saturating_add(1),
            low if low < ASTRAY.0 => self.astray.min(0).saturating_sub(1),
            _ => 0,
        };
        let (seen, weight) = if self.astray.unsigned_abs() >= 2 {
            (ratio, 2)
        } else {
            // The first leases are averaged with the ordinary speed as one of them.
            (ratio.clamp(now / CLAMP, now * CLAMP), self.samples.saturating_add(2).min(8))
        };
        let moved = (i128::from(seen) - i128::from(now)) / i128::from(weight);
        self.permille = u64::try_from(i128::from(now) + moved).unwrap_or(now).clamp(FASTEST, SLOWEST);
        self.samples = self.samples.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise that is the same every time, about fifteen percent.
    fn noisy(ns: u64, n: u64) -> u64 {
        ns * (850 + (n * 7919 + 13) % 301) / 1000
    }

    #[test]
    fn a_device_that_becomes_three_times_slower_is_followed_within_a_few_leases() {
        let mut speed = Speed::default();
        for n in 0..50 {
            speed.learn(noisy(1_000_000, n), 1_000_000);
        }
        assert!((900..1100).contains(&speed.permille), "{speed:?}");
        for n in 0..4 {
            speed.learn(noisy(3_000_000, n), 1_000_000);
        }
        assert!((2_300..3_600).contains(&speed.permille), "{speed:?}");
        for n in 0..6 {
            speed.learn(noisy(1_000_000, n), 1_000_000);
        }
        assert!((850..1350).contains(&speed.permille), "{speed:?}");
    }

    #[test]
    fn one_lease_that_had_to_wait_changes_little() {
        let mut speed = Speed::default();
        (0..20).for_each(|_| speed.learn(1_000, 1_000));
        speed.learn(100_000, 1_000);
        assert!(speed.permille < 1_200, "{speed:?}");
        (0..4).for_each(|_| speed.learn(1_000, 1_000));
        assert!(speed.permille < 1_100, "{speed:?}");
    }

    #[test]
    fn absurd_numbers_stay_within_bounds() {
        let mut speed = Speed { permille: u64::MAX, samples: u64::MAX - 1, astray: i32::MAX };
        for (observed, line) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (0, 0)] {
            for _ in 0..20 {
                speed.learn(observed, line);
                assert!((FASTEST..=SLOWEST).contains(&speed.permille));
                speed.of(u64::MAX);
                speed.as_if(u64::MAX, u64::MAX);
                speed.rebase(observed, line);
                assert!((FASTEST..=SLOWEST).contains(&speed.permille));
            }
        }
        let mut stuck = Speed { permille: 0, ..Speed::default() };
        stuck.learn(5, 5);
        assert!(stuck.as_if(7, ORDINARY) > 0);
    }
}
