//! A filter as whole numbers, the same on every machine.
//!
//! ```text
//! value = (sum of weight * neighbour + bias) / divisor, rounded down, held within 0 ..= 255;  bias = divisor / 2 + offset * divisor
//! ```
//! so the exact quotient is rounded to the nearest whole number, halves up. With two squares of weights (`sobel`), and for `laplacian`, the
//! sizes of the sums are added instead.

/// Weights lie in squares of so many pixels to each side of the middle at most.
pub(super) const MOST_RADIUS: usize = 15;
/// The weights of a square, by their size, sum to no more than this: with values of 8 bits, all sums fit 32 bits.
pub(super) const MOST_WEIGHT: i64 = 1 << 22;

/// One or two squares of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) radius: usize,
    /// Row by row; the middle one is of the pixel itself. Squares one behind the other.
    pub(super) weights: Vec<i32>,
    pub(super) squares: usize,
    /// What is below zero counts by its size.
    pub(super) sizes: bool,
    pub(super) divisor: i32,
    pub(super) bias: i32,
}

impl Filter {
    fn of(radius: usize, weights: Vec<i32>, divisor: i32) -> Filter {
        Filter { radius, weights, squares: 1, sizes: false, divisor, bias: divisor / 2 }
    }

    /// Each pixel of the square counts alike.
    pub(super) fn mean(radius: usize) -> Filter {
        let count = (2 * radius + 1).pow(2);
        Filter::of(radius, vec![1; count], count as i32)
    }

    /// The normal distribution's density, cut at three standard deviations.
    pub(super) fn gaussian(sigma: f64) -> Filter {
        /// What all weights sum to.
        const ONE: i32 = 1 << 16;
        let radius = (3.0 * sigma).ceil() as usize;
        let along: Vec<f64> = (0..=2 * radius)
            .map(|place| {
                let away = place.abs_diff(radius) as f64;
                exp(-away * away / (2.0 * sigma * sigma))
            })
            .collect();
        let sum: f64 = along.iter().sum();
        let weight = |down: f64, across: f64| (down * across / (sum * sum) * f64::from(ONE)).round() as i32;
        let mut weights: Vec<i32> = along.iter().flat_map(|down| along.iter().map(move |across| weight(*down, *across))).collect();
        // What rounding has lost or gained goes to the middle, or a white image would come out grey.
        let total: i32 = weights.iter().sum();
        let middle = weights.len() / 2;
        weights[middle] += ONE - total;
        Filter::of(radius, weights, ONE)
    }

    /// Twice the image less its blur.
    pub(super) fn sharpen(sigma: f64) -> Filter {
        let mut filter = Filter::gaussian(sigma);
        filter.weights.iter_mut().for_each(|weight| *weight = -*weight);
        let middle = filter.weights.len() / 2;
        filter.weights[middle] += 2 * filter.divisor;
        filter
    }

    /// The slope across and the slope down, their sizes added.
    pub(super) fn sobel() -> Filter {
        let weights = vec![-1, 0, 1, -2, 0, 2, -1, 0, 1, -1, -2, -1, 0, 0, 0, 1, 2, 1];
        Filter { squares: 2, sizes: true, ..Filter::of(1, weights, 1) }
    }

    /// How much a pixel differs from those around it.
    pub(super) fn laplacian() -> Filter {
        Filter { sizes: true, ..Filter::of(1, vec![-1, -1, -1, -1, 8, -1, -1, -1, -1], 1) }
    }

    /// Whole numbers as the user wrote them: rows by semicolons, numbers by spaces or commas. `divisor` 0 is their sum, or 1 if that is not
    /// above 0.
    pub(super) fn taps(text: &str, divisor: u64) -> Result<Filter, String> {
        let rows: Vec<&str> = text.split(';').map(str::trim).collect();
        let side = rows.len();
        if text.trim().is_empty() {
            return Err("must be given for filter 'taps', such as '0 -1 0; -1 5 -1; 0 -1 0'".into());
        }
        if side.is_multiple_of(2) || side > 2 * MOST_RADIUS + 1 {
            return Err(format!("has {side} rows; an odd number up to {} is wanted, so that there is a middle one", 2 * MOST_RADIUS + 1));
        }
        let mut weights = Vec::with_capacity(side * side);
        for (index, row) in rows.iter().enumerate() {
            let before = weights.len();
            for word in row.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
                let weight: i32 = word.parse().map_err(|_| format!("must be whole numbers, not '{word}'"))?;
                weights.push(weight);
            }
            if weights.len() - before != side {
                return Err(format!(
                    "has {} in row {} of {side}; the weights are a square",
                    crate::counted((weights.len() - before) as u64, "number"),
                    index + 1
                ));
            }
        }
        let size: i64 = weights.iter().map(|weight| i64::from(*weight).abs()).sum();
        if size > MOST_WEIGHT {
            return Err(format!("sums to {size} by the weights' sizes; at most {MOST_WEIGHT} keeps within 32 bits"));
        }
        let sum: i32 = weights.iter().sum();
        let divisor = if divisor > 0 { divisor as i32 } else { sum.max(1) };
        Ok(Filter::of(side / 2, weights, divisor))
    }

    /// Adds `offset` to every value.
    pub(super) fn with_offset(self, offset: u64) -> Filter {
        Filter { bias: self.divisor / 2 + offset as i32 * self.divisor, ..self }
    }

    /// The value for the sums of the squares.
    #[inline(always)]
    pub(super) fn value(&self, sums: impl Iterator<Item = i32>) -> u8 {
        let sum: i32 = sums.map(|sum| if self.sizes { sum.abs() } else { sum }).sum();
        // Below zero the quotient is held at zero anyway.
        ((sum + self.bias).max(0) / self.divisor).min(255) as u8
    }
}

/// e^x for -50 <= x <= 0 by its series, halved until that is short: the library's own may differ in the last bit between machines.
fn exp(x: f64) -> f64 {
    let small = x / 1024.0;
    let series = (1..12).rev().fold(1.0, |sum, n| 1.0 + small / f64::from(n) * sum);
    (0..10).fold(series, |power, _| power * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(filter: &Filter) -> i32 {
        filter.weights.iter().sum()
    }

    #[test]
    fn weights_sum_to_one_or_to_nothing() {
        for sigma in [0.3, 0.5, 1.0, 2.0, 3.7, 5.0] {
            let (blur, sharp) = (Filter::gaussian(sigma), Filter::sharpen(sigma));
            assert_eq!((sum(&blur), sum(&sharp)), (blur.divisor, sharp.divisor));
            assert!(blur.weights.iter().all(|weight| *weight >= 0), "{sigma}");
        }
        assert_eq!(Filter::gaussian(5.0).radius, MOST_RADIUS);
        assert_eq!((sum(&Filter::mean(3)), Filter::mean(3).divisor), (49, 49));
        assert_eq!((sum(&Filter::sobel()), sum(&Filter::laplacian())), (0, 0));
    }

    /// Sums, their bias and the sum of two sizes stay within 32 bits.
    #[test]
    fn nothing_overflows() {
        let size = |filter: &Filter| filter.weights.iter().map(|weight| i64::from(*weight).abs()).sum::<i64>();
        let most = [Filter::mean(MOST_RADIUS), Filter::gaussian(0.3), Filter::sharpen(5.0), Filter::sobel(), Filter::laplacian()];
        assert!(most.iter().all(|filter| size(filter) <= MOST_WEIGHT));
        assert!(255 * MOST_WEIGHT + (255 * MOST_WEIGHT + MOST_WEIGHT / 2) <= i64::from(i32::MAX));
        let filter = Filter::taps(&format!("{MOST_WEIGHT}"), MOST_WEIGHT as u64).unwrap().with_offset(255);
        assert_eq!(filter.value([255 * MOST_WEIGHT as i32].into_iter()), 255);
        assert!(Filter::taps(&format!("{}", MOST_WEIGHT + 1), 1).is_err());
    }

    #[test]
    fn quotients_are_rounded_to_the_nearest_and_halves_up() {
        let thirds = Filter::taps("1", 3).unwrap();
        let halves = Filter::taps("1", 2).unwrap();
        let values = |filter: &Filter| [-3, -1, 0, 1, 2, 3, 4, 5].map(|sum| filter.value([sum].into_iter()));
        assert_eq!(values(&thirds), [0, 0, 0, 0, 1, 1, 1, 2]);
        assert_eq!(values(&halves), [0, 0, 0, 1, 1, 2, 2, 3]);
        assert_eq!(values(&halves.with_offset(10)), [9, 10, 10, 11, 11, 12, 12, 13]);
    }

    #[test]
    fn taps_are_read_and_what_is_none_is_told() {
        let filter = Filter::taps(" 0 -1 0; -1,5,-1;0 -1  0 ", 0).unwrap();
        assert_eq!((filter.radius, filter.divisor, filter.bias), (1, 1, 0));
        assert_eq!(filter.weights, [0, -1, 0, -1, 5, -1, 0, -1, 0]);
        assert_eq!(Filter::taps("2", 0).unwrap().divisor, 2);
        assert_eq!(Filter::taps("-2", 0).unwrap().divisor, 1);
        for (text, expected) in [
            ("", "must be given"),
            ("1 2; 3 4", "has 2 rows"),
            ("1 2 3; 4 5 6; 7 8", "has 2 numbers in row 3 of 3"),
            ("1 2 3; 4 x 6; 7 8 9", "not 'x'"),
            ("9999999999", "must be whole numbers"),
            ("2147483647", "at most 4194304"),
            (&vec!["0"; 33].join(";"), "has 33 rows"),
        ] {
            let message = Filter::taps(text, 0).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn the_series_is_the_exponential() {
        for x in [0.0, -0.1, -1.0, -4.5, -50.0] {
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-11, "{x}");
        }
    }
}
