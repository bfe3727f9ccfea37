//! The specification is [`State::add`], element by element. Everything else here gives the same state faster: it sums blocks in machine
//! numbers where it can show that nothing is rounded.
//!
//! Blocks of f4 go one of three ways, the quickest that is exact. Columns of one kind of thing mostly have blocks whose elements are whole
//! numbers of one unit, of 29 bits: these are integers (avx2.rs), and one pass tries it with the unit of the block before. Then f64, below. What
//! has NaN, infinities or more spread is added by exponent (bins.rs).
//!
//! For f64: let the finite elements other than zero of a block have exponents `least..=most`, so that all are multiples of
//! `2^(least - 23)` below `2^(most + 1)`, and let the block have 2^10 elements and `most - least <= 19`. Then in f64, whose numbers are
//! exact as long as they are multiples of some 2^q up to 2^(q + 53):
//!
//! - every sum of elements is a multiple of `2^(least - 23)` up to `2^(most + 11)`: at most 19 + 34 = 53 bits;
//! - a square is exact (48 bits). It is cut into a multiple of `2^k`, `k = 2 most - 41`, and the rest of at most `2^(k - 1)`: sums of the
//!   former are multiples of 2^k up to 2^(2 most + 12), 53 bits; sums of the latter are multiples of 2^(2 least - 46) up to 2^(k + 9),
//!   2 (most - least) + 14 = 52 bits or less.
//!
//! The cut adds and subtracts 2^(52 + k), whose last bit is 2^k (Dekker 1971; Rump, Ogita, Oishi, Accurate floating-point summation,
//! SIAM J. Sci. Comput. 31(1), 2008).

use super::State;
#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::bins::Bins;
use crate::histogram::{ElementType, is_nan, rank_of_f4};

/// Elements of a block: what the bounds above allow; 4 KiB, read twice from the nearest cache.
const BLOCK: usize = 1 << 10;
const SPREAD: u32 = 19;
/// Elements of a block of integers: sums of a lane's squares, or of their halves, stay far below what it holds.
const INTEGER_BLOCK: usize = 1 << 16;

pub(super) fn state(element: ElementType, bytes: &[u8]) -> State {
    let mut state = State::default();
    let wide = is_wide();
    match element {
        ElementType::U1 => bytes.chunks(INTEGER_BLOCK).for_each(|block| u1(&mut state, block, wide)),
        ElementType::U4 => bytes.as_chunks::<4>().0.chunks(INTEGER_BLOCK).for_each(|block| u4(&mut state, block, wide)),
        ElementType::F4 => {
            let mut floats = Floats { wide, most: None, mixed: false, wait: 0, spread_left: 0, spread_run: 0, bins: Bins::new() };
            bytes.as_chunks::<4>().0.chunks(BLOCK).for_each(|block| floats.add(&mut state, block));
            floats.bins.give(&mut state);
        }
    }
    state
}

/// Whether the processor has what avx2.rs needs.
fn is_wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    let wide = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let wide = false;
    wide
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

fn u1(state: &mut State, block: &[u8], wide: bool) {
    #[cfg(target_arch = "x86_64")]
    if wide {
        let (groups, rest) = block.as_chunks();
        // SAFETY: the processor has AVX2 and FMA.
        note_bytes(state, &unsafe { avx2::bytes(groups) }, block.len() - rest.len());
        note_bytes(state, &bytes(rest), rest.len());
        return;
    }
    let _ = wide;
    note_bytes(state, &bytes(block), block.len());
}

/// What a block of u1 amounts to.
pub(super) struct Bytes {
    pub(super) smallest: u8,
    pub(super) largest: u8,
    pub(super) sum: u64,
    pub(super) squares: u64,
}

fn bytes(values: &[u8]) -> Bytes {
    let mut all = Bytes { smallest: u8::MAX, largest: 0, sum: 0, squares: 0 };
    for &value in values {
        all.sum += u64::from(value);
        all.squares += u64::from(u32::from(value) * u32::from(value));
        all.smallest = all.smallest.min(value);
        all.largest = all.largest.max(value);
    }
    all
}

fn note_bytes(state: &mut State, all: &Bytes, count: usize) {
    if count == 0 {
        return; // its smallest would be that of bytes, not that of nothing
    }
    state.rank(all.smallest.into(), all.largest.into(), count as u64);
    state.sum.add_unsigned(all.sum, 0);
    state.squares.add_unsigned(all.squares, 0);
}

/// What a block of u4 amounts to. Its squares exceed 64 bits; their halves do not.
pub(super) struct Integers {
    pub(super) smallest: u32,
    pub(super) largest: u32,
    pub(super) sum: u64,
    pub(super) low: u64,
    pub(super) high: u64,
}

fn u4(state: &mut State, block: &[[u8; 4]], wide: bool) {
    let (groups, rest) = block.as_chunks::<LANES>();
    #[cfg(target_arch = "x86_64")]
    if wide {
        // SAFETY: the processor has AVX2 and FMA.
        note_integers(state, &unsafe { avx2::integers(groups) }, block.len() - rest.len());
        note_integers(state, &integers(rest), rest.len());
        return;
    }
    let _ = (groups, rest, wide);
    note_integers(state, &integers(block), block.len());
}

fn integers(values: &[[u8; 4]]) -> Integers {
    let mut all = Integers { smallest: u32::MAX, largest: 0, sum: 0, low: 0, high: 0 };
    for bytes in values {
        let value = u32::from_le_bytes(*bytes);
        let square = u64::from(value) * u64::from(value);
        all.sum += u64::from(value);
        all.low += square & 0xffff_ffff;
        all.high += square >> 32;
        all.smallest = all.smallest.min(value);
        all.largest = all.largest.max(value);
    }
    all
}

fn note_integers(state: &mut State, all: &Integers, count: usize) {
    state.rank(all.smallest, all.largest, count as u64);
    state.sum.add_unsigned(all.sum, 0);
    state.squares.add_unsigned(all.low, 0);
    state.squares.add_unsigned(all.high, 32);
}

/// Accumulators beside each other, for the processor's wide registers.
const LANES: usize = 16;

/// Blocks of f4, one after the other.
struct Floats {
    wide: bool,
    /// The largest exponent of the block before, if this one is worth a try.
    most: Option<u32>,
    /// Whether that had elements of both signs, or small ones.
    mixed: bool,
    /// Blocks that are not tried, after one that was in vain.
    wait: u32,
    /// Blocks that are taken to be of all sizes without being looked at: that costs a part of what adding them does, and what they are is rarely
    /// news. And how many the next such block announces.
    spread_left: u32,
    spread_run: u32,
    bins: Bins,
}

/// Exponents for which [`Floats::integers`] scales by a normal number of 1 or more, so that nothing small can vanish on the way.
const SCALED: std::ops::RangeInclusive<u32> = 28..=155;
/// A try costs about as much as the f64 that follow it.
const WAIT: u32 = 32;
/// Between the exponents of elements that are whole numbers of 29 bits.
const INTEGER_SPREAD: u32 = 5;

impl Floats {
    fn add(&mut self, state: &mut State, block: &[[u8; 4]]) {
        let (groups, []) = block.as_chunks::<LANES>() else { return one_by_one(state, block) };
        if self.integers(state, groups) {
            return;
        }
        if self.spread_left > 0 {
            self.spread_left -= 1;
            self.of_all_sizes(state, block, groups);
            return;
        }
        let survey = survey(groups, self.wide);
        let exponent = |size: u32| (size >> 23).max(1);
        let (most, least) = (exponent(survey.largest_size), exponent(survey.least_size));
        let spread = most - least.min(most);
        self.expect(most, spread, survey.smallest <= 0.0 && survey.largest >= 0.0);
        if survey.largest_size >= INFINITY || spread > SPREAD {
            // The more blocks were like this one, the more are taken to be.
            self.spread_left = self.spread_run;
            self.spread_run = (2 * self.spread_run + 1).min(WAIT);
            if self.spread_left > 0 {
                self.most = None;
            }
            self.of_all_sizes(state, block, groups);
            return;
        }
        self.spread_run = 0;
        state.rank(rank_of_f4(survey.smallest.to_bits()), rank_of_f4(survey.largest.to_bits()), block.len() as u64);
        if survey.largest_size > 0 {
            let [sum, upper, lower] = sums(groups, most, self.wide);
            state.sum.add_f64(sum, super::SCALE);
            state.squares.add_f64(upper, 2 * super::SCALE);
            state.squares.add_f64(lower, 2 * super::SCALE);
        }
    }

    /// Adds a block of anything.
    fn of_all_sizes(&mut self, state: &mut State, block: &[[u8; 4]], groups: &[[[u8; 4]; LANES]]) {
        let ends = self.bins.add(state, groups, self.wide);
        let mut invalid = 0;
        if ends.largest_size >= INFINITY {
            invalid = block.iter().filter(|bytes| is_nan(u32::from_le_bytes(**bytes))).count();
            let infinite = |bits: u32| block.iter().filter(|bytes| u32::from_le_bytes(**bytes) == bits).count() as u64;
            state.invalid += invalid as u64;
            state.above += infinite(INFINITY);
            state.below += infinite(INFINITY | 1 << 31);
        }
        if invalid < block.len() {
            let (smallest, largest) = (ends.smallest.to_bits(), ends.largest.to_bits());
            state.rank(rank_of_f4(smallest), rank_of_f4(largest), (block.len() - invalid) as u64);
        }
    }

    /// Whether the next block may be one of integers, from what this one was. Many columns have one unit and any size: hundredths, or what
    /// random generators make.
    fn expect(&mut self, most: u32, spread: u32, both_signs: bool) {
        if self.most.take().is_some() && spread > INTEGER_SPREAD {
            self.wait = WAIT;
        } else {
            self.wait = self.wait.saturating_sub(1);
        }
        if SCALED.contains(&most) && (spread <= INTEGER_SPREAD || self.wait == 0) {
            (self.most, self.mixed) = (Some(most), spread > INTEGER_SPREAD || both_signs);
        }
    }

    /// Adds the block if its elements are whole numbers of 29 bits in the unit of the block before.
    fn integers(&self, state: &mut State, groups: &[[[u8; 4]; LANES]]) -> bool {
        let Some(most) = self.most.filter(|_| self.wide && groups.len() == BLOCK / LANES) else { return false };
        // 2^(155 - most), which brings what has the exponent `most` below 2^29.
        let scale = f32::from_bits((282 - most) << 23);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2 and FMA.
        if let Some(all) = unsafe { avx2::scaled(groups, scale, self.mixed) } {
            // The unit is 2^(most - 155) = 2^(most - 6 - 149), or its square.
            let unit = most - 6;
            let value = |number: i32| rank_of_f4((number as f32 / scale).to_bits());
            state.rank(value(all.smallest), value(all.largest), (LANES * groups.len()) as u64);
            state.sum.add(all.sum, unit);
            state.squares.add_unsigned(all.squares as u64, 2 * unit);
            state.squares.add_unsigned((all.squares >> 64) as u64, 2 * unit + 64);
            return true;
        }
        let _ = (state, scale);
        false
    }
}

#[inline(never)]
fn one_by_one(state: &mut State, block: &[[u8; 4]]) {
    block.iter().for_each(|bytes| state.add(ElementType::F4, u32::from_le_bytes(*bytes)));
}

/// What a block of f4 amounts to that are whole numbers.
#[cfg(target_arch = "x86_64")]
pub(super) struct Scaled {
    pub(super) smallest: i32,
    pub(super) largest: i32,
    pub(super) sum: i64,
    pub(super) squares: u128,
}

pub(super) struct Survey {
    pub(super) smallest: f32,
    pub(super) largest: f32,
    /// Bits without the sign.
    pub(super) largest_size: u32,
    /// Of those that are not zero; [`u32::MAX`] if there is none.
    pub(super) least_size: u32,
}

fn survey(groups: &[[[u8; 4]; LANES]], wide: bool) -> Survey {
    #[cfg(target_arch = "x86_64")]
    if wide {
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe { avx2::survey(groups) };
    }
    let _ = wide;
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
fn sums(groups: &[[[u8; 4]; LANES]], most: u32, wide: bool) -> [f64; 3] {
    // 52 + k with k = 2 (most - 127) - 41, as the exponent of an f64: between 782 and 1288.
    let cut = f64::from_bits(u64::from(2 * most + 780) << 52);
    #[cfg(target_arch = "x86_64")]
    if wide {
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe { avx2::sums(groups, cut) };
    }
    let _ = wide;
    let mut accumulators = [[0f64; LANES]; 3];
    for group in groups {
        let [sum, upper, lower] = &mut accumulators;
        for lane in 0..LANES {
            let value = f64::from(f32::from_le_bytes(group[lane]));
            let square = value * value;
            let rounded = (square + cut) - cut;
            sum[lane] += value;
            upper[lane] += rounded;
            lower[lane] += square - rounded;
        }
    }
    accumulators.map(|lanes| lanes.iter().sum())
}
