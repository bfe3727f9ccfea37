//! f4 of all sizes: those with one sign and one exponent are whole numbers of one unit, and are added as such.
//!
//! Nothing of an element needs to be known to choose its bin but its upper nine bits, so nothing is decided element by element. With f the
//! lower 23 bits, an element is `(2^23 + f) * 2^(place - 149)`, without the 2^23 for the smallest exponent. A bin counts its elements and adds
//! f and f^2; what the 2^23 adds to the sums follows from these.

use super::State;

/// Elements that the words of a bin have room for: their count stays below 2^24, the sum of f below 2^40, that of f^2 below 2^62.
const MOST: usize = 1 << 16;
/// Count in the upper 24 bits, the sum of f in the lower 40; the sum of f^2.
type Bin = [u64; 2];
const ONE: u64 = 1 << 40;
/// Elements beside each other go to different tables, so that equal ones do not wait for each other.
const TABLES: usize = 2;

pub(super) struct Bins {
    tables: Box<[[Bin; 512]; TABLES]>,
    elements: usize,
}

impl Bins {
    pub(super) fn new() -> Bins {
        Bins { tables: Box::new([[[0; 2]; 512]; TABLES]), elements: 0 }
    }

    /// Adds the finite ones among at most 2^16 elements.
    pub(super) fn add(&mut self, state: &mut State, block: &[[u8; 4]]) {
        assert!(block.len() <= MOST);
        if self.elements + block.len() > MOST {
            self.give(state);
        }
        self.elements += block.len();
        let [even, odd] = &mut *self.tables;
        let (pairs, rest) = block.as_chunks::<TABLES>();
        for [first, second] in pairs {
            note(even, *first);
            note(odd, *second);
        }
        rest.iter().for_each(|element| note(even, *element));
    }

    /// Passes on what has been added.
    pub(super) fn give(&mut self, state: &mut State) {
        if self.elements == 0 {
            return;
        }
        for (index, bin) in self.tables.iter_mut().flat_map(|table| table.iter_mut().enumerate()) {
            let [first, squares] = std::mem::take(bin);
            let (count, sum) = (first >> 40, first & (ONE - 1));
            let (negative, exponent) = (index >> 8 == 1, index as u32 & 0xff);
            // Infinities and NaN are counted elsewhere.
            if count == 0 || exponent == 0xff {
                continue;
            }
            let (sum, squares) = match exponent {
                0 => (sum, squares),
                _ => (sum + (count << 23), squares + (sum << 24) + (count << 46)),
            };
            let place = exponent.max(1) - 1;
            state.sum.add(if negative { -(sum as i64) } else { sum as i64 }, place);
            state.squares.add_unsigned(squares, 2 * place);
        }
        self.elements = 0;
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn note(table: &mut [Bin; 512], element: [u8; 4]) {
    let bits = u32::from_le_bytes(element);
    let bin = &mut table[(bits >> 23) as usize];
    let f = u64::from(bits & 0x7f_ffff);
    bin[0] += ONE + f;
    bin[1] += f * f;
}

/// The same with both words of a bin in one register, by SSE2, which every x86-64 has: half as many loads and stores.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn note(table: &mut [Bin; 512], element: [u8; 4]) {
    use std::arch::x86_64::*;
    let bits = u32::from_le_bytes(element);
    let bin = std::ptr::from_mut(&mut table[(bits >> 23) as usize]).cast::<__m128i>();
    // SAFETY: SSE2 is part of x86-64, and 16 bytes are read from and written to a bin of as many; any alignment will do.
    unsafe {
        let f = _mm_cvtsi32_si128((bits & 0x7f_ffff) as i32);
        let more = _mm_add_epi64(_mm_unpacklo_epi64(f, _mm_mul_epu32(f, f)), _mm_set_epi64x(0, ONE as i64));
        _mm_storeu_si128(bin, _mm_add_epi64(_mm_loadu_si128(bin), more));
    }
}
