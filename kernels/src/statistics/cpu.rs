//! The specification is [`State::add`], element by element. Everything else here gives the same state faster: it sums blocks in machine
//! numbers where it can show that nothing is rounded.
//!
//! For f4: let the finite elements other than zero of a block have exponents `least..=most`, so that all are multiples of
//! `2^(least - 23)` below `2^(most + 1)`, and let the block have 2^10 elements and `most - least <= 19`. Then in f64, whose numbers are
//! exact as long as they are multiples of some 2^q up to 2^(q + 53):
//!
//! - every sum of elements is a multiple of `2^(least - 23)` up to `2^(most + 11)`: at most 19 + 34 = 53 bits;
//! - a square is exact (48 bits). It is cut into a multiple of `2^k`, `k = 2 most - 41`, and the rest of at most `2^(k - 1)`: sums of the
//!   former are multiples of 2^k up to 2^(2 most + 12), 53 bits; sums of the latter are multiples of 2^(2 least - 46) up to 2^(k + 9),
//!   2 (most - least) + 14 = 52 bits or less.
//!
//! The cut adds and subtracts 2^(52 + k), whose last bit is 2^k (Dekker 1971; Rump, Ogita, Oishi, Accurate floating-point summation,
//! SIAM J. Sci. Comput. 31(1), 2008). A block with NaN, infinities or more spread goes element by element.

use super::State;
use crate::histogram::{ElementType, is_nan, rank_of_f4};

/// Elements of a block: what the bounds above allow; 4 KiB, read twice from the nearest cache.
const BLOCK: usize = 1 << 10;
const SPREAD: u32 = 19;

pub(super) fn state(element: ElementType, bytes: &[u8]) -> State {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { state_avx2(element, bytes) };
    }
    state_portable(element, bytes)
}

/// The same code with registers twice as wide, which is what its speed hangs on.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn state_avx2(element: ElementType, bytes: &[u8]) -> State {
    state_portable(element, bytes)
}

#[inline(always)]
fn state_portable(element: ElementType, bytes: &[u8]) -> State {
    let mut state = State::default();
    // Loops, not closures: a closure is a function of its own, compiled for any processor.
    match element {
        ElementType::U1 => {
            for block in bytes.chunks(BLOCK * 4) {
                u1(&mut state, block);
            }
        }
        ElementType::U4 => {
            for block in bytes.as_chunks::<4>().0.chunks(BLOCK) {
                u4(&mut state, block);
            }
        }
        ElementType::F4 => {
            for block in bytes.as_chunks::<4>().0.chunks(BLOCK) {
                f4(&mut state, block);
            }
        }
    }
    state
}

impl State {
    /// Adds one element: the specification.
    pub(super) fn add(&mut self, element: ElementType, bits: u32) {
        if element != ElementType::F4 {
            self.rank(bits, bits, 1);
            self.sum.add_unsigned(u64::from(bits), 0);
            self.squares.add_unsigned(u64::from(bits) * u64::from(bits), 0);
            return;
        }
        if is_nan(bits) {
            self.invalid += 1;
            return;
        }
        self.rank(rank_of_f4(bits), rank_of_f4(bits), 1);
        let (negative, size) = (bits >> 31 == 1, bits & 0x7fff_ffff);
        if size == INFINITY {
            *(if negative { &mut self.below } else { &mut self.above }) += 1;
            return;
        }
        // mantissa * 2^(place - 149)
        let place = (size >> 23).max(1) - 1;
        let mantissa = i64::from(if size >> 23 > 0 { size & 0x7f_ffff | 0x80_0000 } else { size });
        self.sum.add(if negative { -mantissa } else { mantissa }, place);
        self.squares.add(mantissa * mantissa, 2 * place);
    }

    /// Notes `count` elements between these ranks.
    #[inline(always)]
    pub(super) fn rank(&mut self, smallest: u32, largest: u32, count: u64) {
        self.smallest = self.smallest.min(smallest);
        self.largest = self.largest.max(largest);
        self.count += count;
    }
}

const INFINITY: u32 = 0x7f80_0000;

#[inline(always)]
fn u1(state: &mut State, block: &[u8]) {
    let (mut sum, mut squares, mut smallest, mut largest) = (0u32, 0u32, u8::MAX, 0u8);
    for &value in block {
        sum += u32::from(value);
        squares += u32::from(value) * u32::from(value); // 4096 * 255^2 < 2^29
        smallest = smallest.min(value);
        largest = largest.max(value);
    }
    state.rank(smallest.into(), largest.into(), block.len() as u64);
    state.sum.add_unsigned(sum.into(), 0);
    state.squares.add_unsigned(squares.into(), 0);
}

#[inline(always)]
fn u4(state: &mut State, block: &[[u8; 4]]) {
    let (mut sum, mut low, mut high, mut smallest, mut largest) = (0u64, 0u64, 0u64, u32::MAX, 0u32);
    for bytes in block {
        let value = u32::from_le_bytes(*bytes);
        let square = u64::from(value) * u64::from(value);
        sum += u64::from(value);
        // A block's squares exceed 64 bits; their halves do not.
        low += square & 0xffff_ffff;
        high += square >> 32;
        smallest = smallest.min(value);
        largest = largest.max(value);
    }
    state.rank(smallest, largest, block.len() as u64);
    state.sum.add_unsigned(sum, 0);
    state.squares.add_unsigned(low, 0);
    state.squares.add_unsigned(high, 32);
}

/// Accumulators beside each other, for the processor's wide registers.
const LANES: usize = 16;

#[inline(always)]
fn f4(state: &mut State, block: &[[u8; 4]]) {
    let (groups, []) = block.as_chunks::<LANES>() else { return one_by_one(state, block) };
    let survey = survey(groups);
    let exponent = |size: u32| (size >> 23).max(1);
    let (most, least) = (exponent(survey.largest_size), exponent(survey.least_size));
    if survey.largest_size >= INFINITY || most - least.min(most) > SPREAD {
        return one_by_one(state, block);
    }
    state.rank(rank_of_f4(survey.smallest.to_bits()), rank_of_f4(survey.largest.to_bits()), block.len() as u64);
    if survey.largest_size > 0 {
        let [sum, upper, lower] = sums(groups, most);
        state.sum.add_f64(sum, super::SCALE);
        state.squares.add_f64(upper, 2 * super::SCALE);
        state.squares.add_f64(lower, 2 * super::SCALE);
    }
}

#[inline(never)]
fn one_by_one(state: &mut State, block: &[[u8; 4]]) {
    block.iter().for_each(|bytes| state.add(ElementType::F4, u32::from_le_bytes(*bytes)));
}

struct Survey {
    smallest: f32,
    largest: f32,
    /// Bits without the sign.
    largest_size: u32,
    /// Of those that are not zero; [`u32::MAX`] if there is none.
    least_size: u32,
}

#[inline(always)]
fn survey(groups: &[[[u8; 4]; LANES]]) -> Survey {
    let (mut smallest, mut largest) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let (mut largest_size, mut least_size) = ([0u32; LANES], [u32::MAX; LANES]);
    for group in groups {
        for lane in 0..LANES {
            let bits = u32::from_le_bytes(group[lane]);
            let (value, size) = (f32::from_bits(bits), bits & 0x7fff_ffff);
            // Not `min` and `max`, which take care of NaN: a block that has one is not summed from this.
            smallest[lane] = if value < smallest[lane] { value } else { smallest[lane] };
            largest[lane] = if value > largest[lane] { value } else { largest[lane] };
            largest_size[lane] = largest_size[lane].max(size);
            // One less, so that zero becomes the largest.
            least_size[lane] = least_size[lane].min(size.wrapping_sub(1));
        }
    }
    let least_size = least_size.into_iter().min().unwrap_or(u32::MAX);
    Survey {
        smallest: smallest.into_iter().fold(f32::INFINITY, f32::min),
        largest: largest.into_iter().fold(f32::NEG_INFINITY, f32::max),
        largest_size: largest_size.into_iter().max().unwrap_or(0),
        least_size: least_size.saturating_add(1),
    }
}

/// The sum of the elements and that of their squares in two parts, all exact.
#[inline(always)]
fn sums(groups: &[[[u8; 4]; LANES]], most: u32) -> [f64; 3] {
    // 52 + k with k = 2 (most - 127) - 41, as the exponent of an f64: between 780 and 1288.
    let cut = f64::from_bits(u64::from(2 * most + 780) << 52);
    const HALF: usize = LANES / 2;
    let mut accumulators = [[0f64; HALF]; 3];
    for group in groups {
        let [sum, upper, lower] = &mut accumulators;
        for half in [0, HALF] {
            for lane in 0..HALF {
                let value = f64::from(f32::from_le_bytes(group[half + lane]));
                let square = value * value;
                let rounded = (square + cut) - cut;
                sum[lane] += value;
                upper[lane] += rounded;
                lower[lane] += square - rounded;
            }
        }
    }
    accumulators.map(|lanes| lanes.iter().sum())
}
