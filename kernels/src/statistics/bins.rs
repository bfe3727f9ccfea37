//! f4 of all sizes: those with one sign and one exponent are whole numbers of one unit, and are added as such.
//!
//! Nothing of an element needs to be known to choose its bin but its upper nine bits, so nothing is decided element by element. With f the
//! lower 23 bits, an element is `(2^23 + f) * 2^(place - 149)`, without the 2^23 for the smallest exponent. A bin counts its elements and adds
//! f and f^2; what the 2^23 adds to the sums follows from these. One accumulator for each exponent, folded at the end: Neal, Fast exact summation
//! using small and large superaccumulators (2015), the large one.

use super::State;
#[cfg(target_arch = "x86_64")]
use super::avx2;

/// Count in the upper 24 bits, the sum of f in the lower 40; the sum of f^2.
pub(super) type Bin = [u64; 2];
pub(super) const ONE: u64 = 1 << 40;
/// Elements beside each other go to different bins, so that equal ones do not wait for each other.
pub(super) const TABLES: usize = 4;
/// By the upper nine bits. The bins of one exponent lie together, in one line of the cache; all of them just fit the nearest one.
pub(super) type Tables = [[Bin; TABLES]; 512];
/// Elements that the words of a bin have room for: the sum of f stays below 2^40, that of f^2 below 2^63.
const MOST_OF_A_BIN: usize = 1 << 17;
/// Each table gets its part of them.
const MOST: usize = TABLES * MOST_OF_A_BIN;

pub(super) struct Bins {
    tables: Box<Tables>,
    elements: usize,
}

/// What is seen of a block on the way.
pub(super) struct Ends {
    pub(super) smallest: f32,
    pub(super) largest: f32,
    /// Bits without the sign.
    pub(super) largest_size: u32,
}

impl Bins {
    pub(super) fn new() -> Bins {
        Bins { tables: Box::new([[[0; 2]; TABLES]; 512]), elements: 0 }
    }

    /// Adds the finite ones of whole groups of elements, at most 2^16.
    pub(super) fn add(&mut self, state: &mut State, groups: &[[[u8; 4]; 16]], wide: bool) -> Ends {
        let elements = groups.len() * 16;
        assert!(elements <= 1 << 16);
        if self.elements + elements > MOST {
            self.give(state);
        }
        self.elements += elements;
        #[cfg(target_arch = "x86_64")]
        if wide {
            // SAFETY: the processor has AVX2 and FMA.
            return unsafe { avx2::bins(&mut self.tables, groups) };
        }
        let _ = wide;
        let mut ends = Ends { smallest: f32::INFINITY, largest: f32::NEG_INFINITY, largest_size: 0 };
        for group in groups {
            for (place, element) in group.iter().enumerate() {
                let bits = u32::from_le_bytes(*element);
                let (value, f) = (f32::from_bits(bits), u64::from(bits & 0x7f_ffff));
                ends.smallest = if value < ends.smallest { value } else { ends.smallest };
                ends.largest = if value > ends.largest { value } else { ends.largest };
                ends.largest_size = ends.largest_size.max(bits & 0x7fff_ffff);
                let bin = &mut self.tables[(bits >> 23) as usize][place % TABLES];
                bin[0] += ONE + f;
                bin[1] += f * f;
            }
        }
        ends
    }

    /// Passes on what has been added.
    pub(super) fn give(&mut self, state: &mut State) {
        if self.elements == 0 {
            return;
        }
        for (index, bins) in self.tables.iter_mut().enumerate() {
            let (mut count, mut sum, mut squares) = (0, 0, 0u128);
            for [first, second] in std::mem::take(bins) {
                count += first >> 40;
                sum += first & (ONE - 1);
                squares += u128::from(second);
            }
            let (negative, exponent) = (index >> 8 == 1, index as u32 & 0xff);
            // Infinities and NaN are counted elsewhere.
            if count == 0 || exponent == 0xff {
                continue;
            }
            let (sum, squares) = match exponent {
                0 => (sum, squares),
                _ => (sum + (count << 23), squares + (u128::from(sum) << 24) + (u128::from(count) << 46)),
            };
            let place = exponent.max(1) - 1;
            state.sum.add(if negative { -(sum as i64) } else { sum as i64 }, place);
            state.squares.add_unsigned(squares as u64, 2 * place);
            state.squares.add_unsigned((squares >> 64) as u64, 2 * place + 64);
        }
        self.elements = 0;
    }
}
