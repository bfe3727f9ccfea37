//! A stable, parallel radix sort.
//!
//! Long slices are distributed by the highest eight bits in which they differ, all threads at once: each counts a stretch and then moves
//! its elements to places that no other thread has. The 256 buckets are sorted side by side; one that fits a core's own cache by its
//! remaining bits, from the lowest up. So data goes through memory about twice, however wide the keys are.
//!
//! Source: Knuth, The Art of Computer Programming 3, section 5.2.5; distribution through small buffers: Satish et al., Fast Sort on CPUs and
//! GPUs (SIGMOD 2010), section 3; from the highest digit down to what fits the cache: Wassenberg and Sanders, Engineering a Multi-core
//! Radix Sort (Euro-Par 2011)

use std::ops::{BitAnd, BitOr};

use rayon::prelude::*;

/// What can be sorted.
pub trait Key: Copy + Default + Send + Sync + Into<u64> + BitAnd<Output = Self> + BitOr<Output = Self> {
    const BITS: u32;
    /// The eight bits from bit `low` on.
    fn digit(self, low: u32) -> usize;
}

impl Key for u32 {
    const BITS: u32 = 32;

    #[inline(always)]
    fn digit(self, low: u32) -> usize {
        (self >> low) as usize & 0xff
    }
}

impl Key for u64 {
    const BITS: u32 = 64;

    #[inline(always)]
    fn digit(self, low: u32) -> usize {
        (self >> low) as usize & 0xff
    }
}

/// Values of a digit.
const DIGITS: usize = 256;
/// Bytes that a core sorts within its own cache, together with as many to move them to.
const CACHED_BYTES: usize = 384 << 10;
/// Shorter stretches are not worth another thread.
const STRETCH: usize = 1 << 15;
/// Fewer are sorted by insertion.
const FEW: usize = 48;
/// What one write to memory takes.
const LINE_BYTES: usize = 64;

/// Sorts by the bits from `low` on; elements that agree in them keep their order.
pub fn sort<T: Key>(values: &mut [T], low: u32) {
    let mut other = vec![T::default(); values.len()];
    sort_bits(values, &mut other, low, T::BITS, false);
}

/// Sorts what is in `from` by the bits `low..high`, in which alone it differs. The result is in `from`, or in `other` if `moved`.
fn sort_bits<T: Key>(from: &mut [T], other: &mut [T], low: u32, high: u32, moved: bool) {
    let mut is_moved = false;
    if from.len() <= FEW {
        insert(from, low);
    } else if size_of_val(from) <= CACHED_BYTES {
        is_moved = from_lowest(from, other, low, high);
    } else {
        let high = high.min(highest_difference(from));
        if high > low {
            return from_highest(from, other, low, high, moved);
        }
    }
    match (is_moved, moved) {
        (false, true) => other.copy_from_slice(from),
        (true, false) => from.copy_from_slice(other),
        _ => {}
    }
}

fn insert<T: Key>(values: &mut [T], low: u32) {
    for index in 1..values.len() {
        let value = values[index];
        let key = value.into() >> low;
        let mut place = index;
        while place > 0 && values[place - 1].into() >> low > key {
            values[place] = values[place - 1];
            place -= 1;
        }
        values[place] = value;
    }
}

/// One more than the highest bit in which two of them differ; 0 if all are equal.
fn highest_difference<T: Key>(values: &[T]) -> u32 {
    let Some(&first) = values.first() else { return 0 };
    let fold = |(any, all): (T, T), value: &T| (any | *value, all & *value);
    let (any, all) = (values.par_chunks(STRETCH))
        .map(|stretch| stretch.iter().fold((first, first), fold))
        .reduce(|| (first, first), |a, b| (a.0 | b.0, a.1 & b.1));
    u64::BITS - (any.into() ^ all.into()).leading_zeros()
}

/// Digit by digit from the lowest; whether the result is in `other`.
fn from_lowest<T: Key>(from: &mut [T], other: &mut [T], low: u32, high: u32) -> bool {
    let digits = high.saturating_sub(low).div_ceil(8) as usize;
    let mut counts = [[0u32; DIGITS]; 8];
    let counts = &mut counts[..digits];
    for value in from.iter() {
        for (digit, counts) in counts.iter_mut().enumerate() {
            counts[value.digit(low + 8 * digit as u32)] += 1;
        }
    }
    let (mut source, mut target, mut moved) = (from, other, false);
    for (digit, counts) in counts.iter_mut().enumerate() {
        let low = low + 8 * digit as u32;
        if source.first().is_some_and(|value| counts[value.digit(low)] as usize == source.len()) {
            continue; // all have this digit
        }
        let mut next = 0;
        for count in counts.iter_mut() {
            next += std::mem::replace(count, next);
        }
        for value in source.iter() {
            let place = &mut counts[value.digit(low)];
            target[*place as usize] = *value;
            *place += 1;
        }
        (source, target, moved) = (target, source, !moved);
    }
    moved
}

/// Distributes by the eight bits below `high`, then sorts the buckets.
fn from_highest<T: Key>(from: &mut [T], other: &mut [T], low: u32, high: u32, moved: bool) {
    let digit = high.saturating_sub(8).max(low);
    let stretch = from.len().div_ceil(rayon::current_num_threads()).max(STRETCH);
    let counts: Vec<[usize; DIGITS]> = from.par_chunks(stretch).map(|stretch| count(stretch, digit)).collect();
    distribute(from, other, stretch, &counts, digit);

    let sizes = (0..DIGITS).map(|value| counts.iter().map(|counts| counts[value]).sum::<usize>());
    let (mut from, mut other, mut buckets) = (from, other, Vec::with_capacity(DIGITS));
    for size in sizes {
        let (a, b);
        (a, from) = from.split_at_mut(size);
        (b, other) = other.split_at_mut(size);
        buckets.push((b, a));
    }
    buckets.into_par_iter().for_each(|(bucket, space)| sort_bits(bucket, space, low, digit, !moved));
}

fn count<T: Key>(stretch: &[T], digit: u32) -> [usize; DIGITS] {
    // Two tables, so that equal digits in a row do not wait for each other.
    let mut counts = [[0usize; DIGITS]; 2];
    let (pairs, rest) = stretch.as_chunks::<2>();
    for [a, b] in pairs {
        counts[0][a.digit(digit)] += 1;
        counts[1][b.digit(digit)] += 1;
    }
    rest.iter().for_each(|value| counts[0][value.digit(digit)] += 1);
    std::array::from_fn(|value| counts[0][value] + counts[1][value])
}

/// Moves the elements to `other`: by digit, those of a digit in the order of the stretches and within.
fn distribute<T: Key>(from: &[T], other: &mut [T], stretch: usize, counts: &[[usize; DIGITS]], digit: u32) {
    let mut targets: Vec<Vec<&mut [T]>> = counts.iter().map(|_| Vec::with_capacity(DIGITS)).collect();
    let mut rest = other;
    for value in 0..DIGITS {
        for (targets, counts) in targets.iter_mut().zip(counts) {
            let (own, behind) = rest.split_at_mut(counts[value]);
            targets.push(own);
            rest = behind;
        }
    }
    from.par_chunks(stretch).zip(targets).for_each(|(stretch, mut targets)| distribute_stretch(stretch, &mut targets, digit));
}

/// Through a buffer of one line per digit: memory is written in whole lines, and few pages are open at once.
fn distribute_stretch<T: Key>(stretch: &[T], targets: &mut [&mut [T]], digit: u32) {
    const MOST: usize = LINE_BYTES / 4;
    let line = LINE_BYTES / size_of::<T>();
    let mut buffers = [[T::default(); MOST]; DIGITS];
    let mut filled = [0u8; DIGITS];
    for &value in stretch {
        let digit = value.digit(digit);
        let (buffer, filled) = (&mut buffers[digit], &mut filled[digit]);
        buffer[usize::from(*filled) % MOST] = value;
        *filled += 1;
        if usize::from(*filled) == line {
            put(&mut targets[digit], &buffer[..line]);
            *filled = 0;
        }
    }
    for ((buffer, filled), target) in buffers.iter().zip(filled).zip(targets) {
        put(target, &buffer[..usize::from(filled)]);
    }
}

#[inline(always)]
fn put<T: Key>(target: &mut &mut [T], values: &[T]) {
    let (own, behind) = std::mem::take(target).split_at_mut(values.len());
    own.copy_from_slice(values);
    *target = behind;
}
