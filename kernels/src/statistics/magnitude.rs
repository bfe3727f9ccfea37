//! Whole numbers of any size, as far as the last step of the statistics needs them: a handful of operations on some hundred bits.

use std::cmp::Ordering;

/// A number of 32-bit digits, the least first, the last one not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Magnitude(Vec<u32>);

impl Magnitude {
    pub(crate) fn new(mut digits: Vec<u32>) -> Magnitude {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Magnitude(digits)
    }

    /// Little-endian bytes, without zeros at the end.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|digit| digit.to_le_bytes()).collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Magnitude {
        let digit = |chunk: &[u8]| chunk.iter().rev().fold(0, |digit, byte| digit << 8 | u32::from(*byte));
        Magnitude::new(bytes.chunks(4).map(digit).collect())
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> u32 {
        self.0.last().map_or(0, |last| 32 * self.0.len() as u32 - last.leading_zeros())
    }

    fn bit(&self, index: u32) -> bool {
        self.0.get(index as usize / 32).is_some_and(|digit| digit >> (index % 32) & 1 == 1)
    }

    pub(crate) fn add(&mut self, other: &Magnitude) {
        self.0.resize(self.0.len().max(other.0.len()) + 1, 0);
        let mut carry = 0;
        for (index, digit) in self.0.iter_mut().enumerate() {
            let sum = u64::from(*digit) + u64::from(other.0.get(index).copied().unwrap_or(0)) + carry;
            *digit = sum as u32;
            carry = sum >> 32;
        }
        *self = Magnitude::new(std::mem::take(&mut self.0));
    }

    /// Which is the larger, and by how much.
    pub(crate) fn difference(&self, other: &Magnitude) -> (Ordering, Magnitude) {
        let order = self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()));
        let (larger, smaller) = if order == Ordering::Less { (other, self) } else { (self, other) };
        let mut borrow = 0;
        let digits = larger.0.iter().enumerate().map(|(index, digit)| {
            let difference = i64::from(*digit) - i64::from(smaller.0.get(index).copied().unwrap_or(0)) - borrow;
            borrow = i64::from(difference < 0);
            difference as u32
        });
        (order, Magnitude::new(digits.collect()))
    }

    pub(crate) fn times(&self, other: &Magnitude) -> Magnitude {
        let mut product = vec![0u32; self.0.len() + other.0.len() + 1];
        for (i, a) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (j, b) in other.0.iter().enumerate() {
                // At most (2^32 - 1)^2 + 2 (2^32 - 1) = 2^64 - 1.
                let sum = u64::from(*a) * u64::from(*b) + u64::from(product[i + j]) + carry;
                product[i + j] = sum as u32;
                carry = sum >> 32;
            }
            product[i + other.0.len()] = carry as u32;
        }
        Magnitude::new(product)
    }

    /// `self / divisor * 2^-scale`, rounded once, to the nearest f64 and to the even one of two. The result must be a normal number: a
    /// sum of f4 or of their squares, over a count, always is.
    pub(crate) fn ratio(&self, divisor: u128, scale: i32) -> f64 {
        if self.is_zero() || divisor == 0 {
            return 0.0;
        }
        // The quotient gets 64 bits or more: 53 for the result, one to round by, and others that say whether there is more.
        let divisor_bits = 128 - divisor.leading_zeros();
        let shift = (64 + divisor_bits).saturating_sub(self.bits());
        let total = self.bits() + shift;
        let (mut quotient, mut started, mut rest, mut sticky, mut below) = (0u64, 0u32, 0u128, false, 0i32);
        for index in (0..total).rev() {
            let bit = index >= shift && self.bit(index - shift);
            let overflow = rest >> 127 == 1;
            rest = rest << 1 | u128::from(bit);
            let one = overflow || rest >= divisor;
            if one {
                rest = rest.wrapping_sub(divisor);
            }
            if started == 64 {
                // 64 bits are enough; the others only count as "more" or "not more".
                sticky |= one;
                below += 1;
            } else if one || started > 0 {
                quotient = quotient << 1 | u64::from(one);
                started += 1;
            }
        }
        sticky |= rest != 0;
        // Below the rounding position, so setting it can only turn "exactly half" into "more than half".
        let rounded = (quotient | u64::from(sticky)) as f64;
        scaled(rounded, below - shift as i32 - scale)
    }
}

/// `value * 2^exponent` for results that are normal numbers, where each step is exact.
fn scaled(mut value: f64, mut exponent: i32) -> f64 {
    while exponent != 0 {
        let step = exponent.clamp(-512, 512);
        value *= f64::from_bits(((1023 + step) as u64) << 52);
        exponent -= step;
    }
    value
}

impl From<u128> for Magnitude {
    fn from(value: u128) -> Magnitude {
        Magnitude::new((0..4).map(|index| (value >> (32 * index)) as u32).collect())
    }
}

/// The number as digits for a person.
impl std::fmt::Display for Magnitude {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mut digits, mut groups) = (self.0.clone(), Vec::new());
        while !digits.is_empty() {
            let mut rest = 0u64;
            for digit in digits.iter_mut().rev() {
                let value = rest << 32 | u64::from(*digit);
                *digit = (value / 1_000_000_000) as u32;
                rest = value % 1_000_000_000;
            }
            groups.push(rest);
            digits = Magnitude::new(digits).0;
        }
        write!(f, "{}", groups.pop().unwrap_or(0))?;
        groups.iter().rev().try_for_each(|group| write!(f, "{group:09}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn operations_are_those_of_128_bits_where_these_suffice() {
        let mut random = random("operations_are_those_of_128_bits");
        for _ in 0..2000 {
            let shifts = [random.below(64), random.below(64)];
            let (a, b) = (random.next() >> shifts[0], random.next() >> shifts[1]);
            let (wide_a, wide_b) = (u128::from(a), u128::from(b));
            let (x, y) = (Magnitude::from(wide_a), Magnitude::from(wide_b));
            assert_eq!(x.times(&y), Magnitude::from(wide_a * wide_b));
            assert_eq!(x.times(&y).to_string(), (wide_a * wide_b).to_string());
            let mut sum = x.clone();
            sum.add(&y);
            assert_eq!(sum, Magnitude::from(wide_a + wide_b));
            assert_eq!(x.difference(&y), (a.cmp(&b), Magnitude::from(u128::from(a.abs_diff(b)))));
            assert_eq!(Magnitude::from_bytes(&sum.to_bytes()), sum);
        }
        assert_eq!(Magnitude::default().to_string(), "0");
    }

    /// Rounding to nearest is what the processor does, where operands are exact.
    #[test]
    fn ratios_are_rounded_as_division_is() {
        let mut random = random("ratios_are_rounded_as_division_is");
        for _ in 0..5000 {
            let shifts = [random.below(53), random.below(53)];
            let (a, b) = ((random.next() >> 11 >> shifts[0]).max(1), (random.next() >> 11 >> shifts[1]).max(1));
            assert_eq!(Magnitude::from(u128::from(a)).ratio(u128::from(b), 0), a as f64 / b as f64, "{a} / {b}");
            assert_eq!(Magnitude::from(u128::from(a)).ratio(u128::from(b), 149), a as f64 / b as f64 * 2f64.powi(-149), "{a} / {b}");
            let wide = u128::from(random.next()) << 64 | u128::from(random.next());
            assert_eq!(Magnitude::from(wide).ratio(1, 0), wide as f64, "{wide}");
            assert_eq!(Magnitude::from(wide).ratio(wide, 0), 1.0);
        }
        assert_eq!(Magnitude::from(3).ratio(u128::MAX, 0), 3.0 / u128::MAX as f64);
        assert_eq!(Magnitude::default().ratio(3, 0), 0.0);
    }

    #[test]
    fn halves_go_to_the_even_neighbour_unless_there_is_more() {
        let half = (1u128 << 53) + 1; // between 2^53 and 2^53 + 2
        assert_eq!(Magnitude::from(half).ratio(1, 0), 2f64.powi(53));
        assert_eq!(Magnitude::from(half * 3 + 1).ratio(3, 0), 2f64.powi(53) + 2.0);
        // One bit, five hundred places further down.
        let mut long = Magnitude::from(half).times(&Magnitude::new([vec![0; 16], vec![1]].concat()));
        long.add(&Magnitude::from(1));
        assert_eq!(long.ratio(1, 512), 2f64.powi(53) + 2.0);
    }
}
