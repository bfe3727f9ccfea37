//! An accumulator that rounds nothing: a fixed-point number wide enough for every sum of f4 and of their squares.
//!
//! ```text
//! limbs[i] counts units of 2^(32 i - SCALE):   ..  | limb 1 | limb 0 |        limbs overlap: each has 128 bits and a sign, so that
//!                                                    32 bits  32 bits         a number is added by one shift and one addition
//! ```
//! Source: Kulisch, Computer Arithmetic and Validity (2013), chapter 8, with the carries put off to the end.

use super::magnitude::Magnitude;

/// Bits up to 640: squares of f4 reach bit 2 * (149 + 128), and 2^64 of them 64 bits more.
const LIMBS: usize = 20;

/// A sum of integers times powers of two. Each addition uses at most 96 of a limb's bits, so 2^31 of them fit in any case; tasks are
/// cut far below that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fixed {
    limbs: [i128; LIMBS],
}

impl Fixed {
    /// Adds `value * 2^bit`.
    #[inline(always)]
    pub(super) fn add(&mut self, value: i64, bit: u32) {
        self.limbs[bit as usize / 32] += i128::from(value) << (bit % 32);
    }

    #[inline(always)]
    pub(super) fn add_unsigned(&mut self, value: u64, bit: u32) {
        self.limbs[bit as usize / 32] += i128::from(value) << (bit % 32);
    }

    /// Adds a float that is a whole number of 2^-scale, exactly.
    pub(super) fn add_f64(&mut self, value: f64, scale: u32) {
        if value == 0.0 {
            return;
        }
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7ff) as i32;
        // No sum of f4 or of their squares is that near zero.
        debug_assert!(exponent > 0 && value.is_finite());
        let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
        let zeros = mantissa.trailing_zeros();
        let bit = exponent - 1075 + zeros as i32 + scale as i32;
        debug_assert!(bit >= 0, "{value} is no multiple of 2^-{scale}");
        let mantissa = (mantissa >> zeros) as i64;
        self.add(if value < 0.0 { -mantissa } else { mantissa }, bit.max(0) as u32);
    }

    /// Whether it is below zero, and its size in units of 2^-scale.
    pub(super) fn value(&self) -> (bool, Magnitude) {
        match digits(self.limbs.iter().copied()) {
            Some(digits) => (false, Magnitude::new(digits)),
            None => (true, Magnitude::new(digits(self.limbs.iter().map(|limb| -limb)).unwrap_or_default())),
        }
    }
}

/// The limbs with their carries passed on; `None` if the number is below zero.
fn digits(limbs: impl Iterator<Item = i128>) -> Option<Vec<u32>> {
    let mut carry = 0i128;
    let mut digits: Vec<u32> = Vec::with_capacity(LIMBS + 4);
    for limb in limbs.chain([0; 4]) {
        let sum = limb + carry;
        digits.push(sum as u32);
        carry = sum >> 32;
    }
    // Four digits more than the limbs hold every carry: what is left is the sign.
    (carry == 0).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn additions_in_any_order_give_one_number() {
        let mut random = random("additions_in_any_order");
        for _ in 0..50 {
            let mut terms: Vec<(i64, u32)> = (0..100).map(|_| (random.next() as i64, random.below(500) as u32)).collect();
            let mut sum = Fixed::default();
            terms.iter().for_each(|(value, bit)| sum.add(*value, *bit));
            let first = sum.value();
            terms.sort();
            let mut sum = Fixed::default();
            terms.iter().for_each(|(value, bit)| sum.add(*value, *bit));
            assert_eq!(sum.value(), first);
            terms.iter().for_each(|(value, bit)| sum.add(value.wrapping_neg(), *bit));
            assert_eq!(sum.value(), (false, Magnitude::default()));
        }
    }

    #[test]
    fn the_sign_and_the_carries_are_right() {
        let mut sum = Fixed::default();
        sum.add(-1, 500);
        sum.add(1, 0);
        let (negative, size) = sum.value();
        assert!(negative);
        let mut other = Fixed::default();
        (0..500).for_each(|bit| other.add(1, bit)); // 2^500 - 1
        assert_eq!(other.value(), (false, size));
    }

    #[test]
    fn floats_are_added_exactly() {
        let mut sum = Fixed::default();
        [1e30, 2f64.powi(-149), -1e30, 3.5, -3.5].iter().for_each(|value| sum.add_f64(*value, 149));
        assert_eq!(sum.value(), (false, Magnitude::new(vec![1])));
    }
}
