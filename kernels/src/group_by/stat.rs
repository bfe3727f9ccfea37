//! What a column of numbers comes to in one group: exactly for decimals, in compensated f64 for the rest.

use crate::canonical_f64;
use crate::statistics::Magnitude;

/// Count, sum, least and most of numbers. Decimals are counted in units of 10^-scale; the scale is known to whoever has the column.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stat {
    pub(super) sum: i128,
    pub(super) least: i128,
    pub(super) most: i128,
    /// Of decimals.
    pub(super) values: u64,
    pub(super) floats: Option<Box<Floats>>,
}

impl Stat {
    /// Adds a decimal; whether the sum has left 128 bits.
    #[inline(always)]
    pub(super) fn add(&mut self, value: i128) -> bool {
        let first = self.values == 0;
        self.values += 1;
        self.least = if first || value < self.least { value } else { self.least };
        self.most = if first || value > self.most { value } else { self.most };
        let (sum, overflow) = self.sum.overflowing_add(value);
        self.sum = sum;
        overflow
    }

    #[inline(never)]
    pub(super) fn add_float(&mut self, value: f64) {
        self.floats.get_or_insert_default().add(value);
    }

    /// Counts in units `power` times as fine; `None` if they do not fit.
    #[must_use]
    pub(super) fn refine(&mut self, power: i128) -> Option<()> {
        self.sum = self.sum.checked_mul(power)?;
        self.least = self.least.checked_mul(power)?;
        self.most = self.most.checked_mul(power)?;
        Some(())
    }

    /// Adds what a later task has seen, in the same units.
    #[must_use]
    pub(super) fn merge(&mut self, other: &Stat) -> Option<()> {
        if other.values > 0 {
            let first = self.values == 0;
            self.least = if first { other.least } else { self.least.min(other.least) };
            self.most = if first { other.most } else { self.most.max(other.most) };
            self.values = self.values.checked_add(other.values)?;
            self.sum = self.sum.checked_add(other.sum)?;
        }
        if let Some(floats) = &other.floats {
            self.floats.get_or_insert_default().merge(floats)?;
        }
        Some(())
    }

    fn count(&self) -> u128 {
        u128::from(self.values) + self.floats.as_ref().map_or(0, |floats| u128::from(floats.count))
    }

    fn float_sum(&self, scale: u8) -> f64 {
        decimal(self.sum, 1, scale) + self.floats.as_ref().map_or(0.0, |floats| floats.total())
    }

    /// Nothing, if there is no value.
    pub(crate) fn sum(&self, scale: u8) -> Option<String> {
        match &self.floats {
            None if self.values == 0 => None,
            None => Some(digits(self.sum, scale)),
            Some(_) => Some(text(self.float_sum(scale))),
        }
    }

    /// Rounded once if all values are decimals.
    pub(crate) fn mean(&self, scale: u8) -> Option<String> {
        match &self.floats {
            None if self.values == 0 => None,
            None => Some(text(decimal(self.sum, self.count(), scale))),
            Some(_) => Some(text(self.float_sum(scale) / self.count() as f64)),
        }
    }

    pub(crate) fn least(&self, scale: u8) -> Option<String> {
        self.extreme(self.least, scale, self.floats.as_ref().map(|floats| floats.least), |float, decimal| float < decimal)
    }

    pub(crate) fn most(&self, scale: u8) -> Option<String> {
        self.extreme(self.most, scale, self.floats.as_ref().map(|floats| floats.most), |float, decimal| float > decimal)
    }

    fn extreme(&self, own: i128, scale: u8, float: Option<f64>, wins: impl Fn(f64, f64) -> bool) -> Option<String> {
        match float {
            None if self.values == 0 => None,
            Some(float) if self.values == 0 || wins(float, decimal(own, 1, scale)) => Some(text(float)),
            _ => Some(digits(own, scale)),
        }
    }
}

/// Numbers that are no decimals of 18 digits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Floats {
    pub(super) count: u64,
    pub(super) sum: f64,
    /// What was lost in the additions to `sum`.
    pub(super) lost: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Default for Floats {
    fn default() -> Floats {
        Floats { count: 0, sum: 0.0, lost: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY }
    }
}

impl Floats {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        self.accumulate(value);
    }

    /// Neumaier's addition: the error of the sum stays at some two units in its last place, unless terms cancel to less than 10^-16 of their size.
    fn accumulate(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
    }

    fn merge(&mut self, other: &Floats) -> Option<()> {
        self.count = self.count.checked_add(other.count)?;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        self.accumulate(other.sum);
        self.lost += other.lost;
        Some(())
    }

    fn total(&self) -> f64 {
        let total = self.sum + self.lost;
        // Beyond the range of f64 the lost part says nothing.
        if total.is_nan() { self.sum } else { total }
    }
}

/// `value * 10^-scale / count`, rounded once.
fn decimal(value: i128, count: u128, scale: u8) -> f64 {
    let size = Magnitude::from(value.unsigned_abs()).ratio(count * 10u128.pow(scale.into()), 0);
    if value < 0 { -size } else { size }
}

fn text(value: f64) -> String {
    if value.is_finite() { canonical_f64(value) } else { value.to_string() }
}

/// A decimal without zeros at its end.
pub(crate) fn digits(value: i128, scale: u8) -> String {
    let (mut size, mut scale) = (value.unsigned_abs(), usize::from(scale));
    while scale > 0 && size.is_multiple_of(10) {
        size /= 10;
        scale -= 1;
    }
    let sign = if value < 0 { "-" } else { "" };
    let text = format!("{size:0width$}", width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_without_needless_zeros() {
        assert_eq!(
            [digits(-1230, 2), digits(5, 3), digits(0, 4), digits(100, 2), digits(7, 0), digits(-1, 1)],
            ["-12.3", "0.005", "0", "1", "7", "-0.1"]
        );
    }

    #[test]
    fn a_mean_is_rounded_once() {
        let mut stat = Stat::default();
        [1, 1, 2].into_iter().for_each(|tenths| assert!(!stat.add(tenths)));
        assert_eq!(stat.mean(1).unwrap(), (0.4f64 / 3.0).to_string());
        assert_eq!((stat.sum(1).unwrap(), stat.least(1).unwrap(), stat.most(1).unwrap()), ("0.4".into(), "0.1".into(), "0.2".into()));
        assert_eq!((Stat::default().sum(0), Stat::default().mean(0), Stat::default().least(0)), (None, None, None));
    }

    #[test]
    fn floats_and_decimals_come_together_at_the_end() {
        let mut stat = Stat::default();
        assert!(!stat.add(15));
        [1e30, 1.0, -1e30].into_iter().for_each(|value| stat.add_float(value));
        assert_eq!((stat.sum(1).unwrap(), stat.mean(1).unwrap()), ("2.5".into(), "0.625".into()));
        assert_eq!((stat.least(1).unwrap(), stat.most(1).unwrap()), ("-1e30".into(), "1e30".into()));
        let mut large = Stat::default();
        [f64::MAX, f64::MAX].into_iter().for_each(|value| large.add_float(value));
        assert_eq!(large.sum(0).unwrap(), "inf");
    }

    #[test]
    fn what_leaves_128_bits_is_told() {
        let mut stat = Stat { sum: i128::MAX, values: 1, ..Stat::default() };
        assert!(stat.clone().add(1));
        assert_eq!(stat.refine(10), None);
        let mut other = Stat { sum: i128::MAX, values: 1, ..Stat::default() };
        assert_eq!(other.merge(&Stat { sum: 1, values: 1, ..Stat::default() }), None);
    }
}
