//! A stable, parallel radix sort.
//!
//! Long slices are distributed by the highest ten bits in which they differ, all threads at once: each counts a stretch and then moves
//! its elements to places that no other thread has. The buckets are sorted side by side, each in a core's own cache: by its highest bits,
//! in two passes from the lower digit to the higher, and then the few elements that still agree by what is left. So data goes through
//! memory about twice, however wide the keys are.
//!
//! Source: Knuth, The Art of Computer Programming 3, section 5.2.5; distribution through small buffers: Satish et al., Fast Sort on CPUs and
//! GPUs (SIGMOD 2010), section 3; from the highest digit down to what fits the cache: Wassenberg and Sanders, Engineering a Multi-core
//! Radix Sort (Euro-Par 2011)

use std::ops::{BitAnd, BitOr};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

/// What can be sorted.
pub trait Key: Copy + Default + Send + Sync + Into<u64> + BitAnd<Output = Self> + BitOr<Output = Self> {
    const BITS: u32;
    /// Copies of this type that [`Space`] keeps.
    fn kept(space: &Space) -> &Mutex<Vec<Vec<Self>>>;
}

impl Key for u32 {
    const BITS: u32 = 32;

    fn kept(space: &Space) -> &Mutex<Vec<Vec<u32>>> {
        &space.words
    }
}

impl Key for u64 {
    const BITS: u32 = 64;

    fn kept(space: &Space) -> &Mutex<Vec<Vec<u64>>> {
        &space.longs
    }
}

/// Memory for the copies that sorting needs, used again: getting it from the system anew takes a fifth of the time of a sort.
#[derive(Debug, Default)]
pub struct Space {
    words: Mutex<Vec<Vec<u32>>>,
    longs: Mutex<Vec<Vec<u64>>>,
}

impl Space {
    fn take<T: Key>(&self, length: usize) -> Vec<T> {
        let kept = T::kept(self).lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut copy = kept.unwrap_or_default();
        if copy.len() < length {
            // Not grown: what is in it would be copied.
            copy = vec![T::default(); length];
        }
        copy
    }

    fn give_back<T: Key>(&self, copy: Vec<T>) {
        T::kept(self).lock().unwrap_or_else(PoisonError::into_inner).push(copy);
    }
}

/// The bits of a digit of a distribution: 1024 buckets, whose buffers a core's own cache holds.
const BUCKET_BITS: u32 = 10;
const BUCKETS: usize = 1 << BUCKET_BITS;
/// The bits of a digit within the cache: many, since the number of passes counts most; few, where counting digits would cost more than moving.
const LONG_DIGIT: u32 = 11;
const SHORT_DIGIT: u32 = 8;
const LONG: usize = 4096;
/// Bytes that a core sorts within its own cache, together with as many to move them to.
const CACHED_BYTES: usize = 256 << 10;
/// Shorter stretches are not worth another thread.
const STRETCH: usize = 1 << 15;
/// Fewer are sorted by insertion.
const FEW: usize = 48;
/// What one write to memory takes.
const LINE_BYTES: usize = 64;

/// Sorts by the bits from `low` on; elements that agree in them keep their order.
pub fn sort<T: Key>(values: &mut [T], low: u32, space: &Space) {
    let mut other = space.take(values.len());
    let length = values.len();
    sort_bits(values, &mut other[..length], low, T::BITS, false);
    space.give_back(other);
}

/// `count` bits from bit `low` on.
#[inline(always)]
fn digit<T: Key>(value: T, low: u32, count: u32) -> usize {
    (value.into() >> low) as usize & ((1 << count) - 1)
}

/// Sorts what is in `from` by the bits `low..high`, in which alone it differs. The result is in `from`, or in `other` if `moved`.
fn sort_bits<T: Key>(from: &mut [T], other: &mut [T], low: u32, high: u32, moved: bool) {
    let mut is_moved = false;
    if from.len() <= FEW {
        insert(from, low);
    } else {
        let high = high.min(highest_difference(from));
        if high > low {
            if size_of_val(from) > CACHED_BYTES {
                return from_highest(from, other, low, high, moved);
            }
            // A second digit of a few bits would have a few counters, and elements in a row would wait for each other at them.
            let short = from.len() < LONG || (LONG_DIGIT < high - low && high - low <= 2 * SHORT_DIGIT);
            is_moved = if short {
                in_cache::<T, SHORT_DIGIT, { 1 << SHORT_DIGIT }>(from, other, low, high)
            } else {
                in_cache::<T, LONG_DIGIT, { 1 << LONG_DIGIT }>(from, other, low, high)
            };
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
    let of = |values: &[T]| values.iter().fold((first, first), |(any, all), value| (any | *value, all & *value));
    let (any, all) = if values.len() <= STRETCH {
        of(values)
    } else {
        values.par_chunks(STRETCH).map(of).reduce(|| (first, first), |a, b| (a.0 | b.0, a.1 & b.1))
    };
    u64::BITS - (any.into() ^ all.into()).leading_zeros()
}

/// By two digits of `COUNT` bits below `high`, the lower one first; then those that agree in both by the others. Whether the result is
/// in `other`.
fn in_cache<T: Key, const COUNT: u32, const VALUES: usize>(from: &mut [T], other: &mut [T], low: u32, high: u32) -> bool {
    let below = high.saturating_sub(2 * COUNT).max(low);
    // Where one digit reaches `high`, there is no other: its first bit may be the 64th.
    let (above, digits) = if below + COUNT < high { (below + COUNT, 2) } else { (below, 1) };
    let mut counts = [[0u32; VALUES]; 2];
    for value in from.iter() {
        counts[0][digit(*value, below, COUNT)] += 1;
        counts[1][digit(*value, above, COUNT)] += 1;
    }
    let (mut source, mut target, mut moved) = (from, other, false);
    for (index, counts) in counts.iter_mut().enumerate().take(digits) {
        let at = below + COUNT * index as u32;
        if source.first().is_some_and(|value| counts[digit(*value, at, COUNT)] as usize == source.len()) {
            continue; // all have this digit
        }
        let mut next = 0;
        for count in counts.iter_mut() {
            next += std::mem::replace(count, next);
        }
        for value in source.iter() {
            let place = &mut counts[digit(*value, at, COUNT)];
            target[*place as usize] = *value;
            *place += 1;
        }
        (source, target, moved) = (target, source, !moved);
    }
    if below > low {
        let (mut sorted, mut space) = (source, target);
        while let Some(first) = sorted.first() {
            let key = (*first).into() >> below;
            let length = sorted.iter().position(|value| (*value).into() >> below != key).unwrap_or(sorted.len());
            let (run, run_space);
            (run, sorted) = sorted.split_at_mut(length);
            (run_space, space) = space.split_at_mut(length);
            if length > 1 {
                sort_bits(run, run_space, low, below, false);
            }
        }
    }
    moved
}

/// Distributes by the bits below `high`, then sorts the buckets.
fn from_highest<T: Key>(from: &mut [T], other: &mut [T], low: u32, high: u32, moved: bool) {
    let at = high.saturating_sub(BUCKET_BITS).max(low);
    let stretch = from.len().div_ceil(rayon::current_num_threads()).max(STRETCH);
    let counts: Vec<Vec<usize>> = from.par_chunks(stretch).map(|stretch| count(stretch, at)).collect();
    distribute(from, other, stretch, &counts, at);

    let sizes = (0..BUCKETS).map(|bucket| counts.iter().map(|counts| counts[bucket]).sum::<usize>());
    let (mut from, mut other, mut buckets) = (from, other, Vec::with_capacity(BUCKETS));
    for size in sizes {
        let (a, b);
        (a, from) = from.split_at_mut(size);
        (b, other) = other.split_at_mut(size);
        buckets.push((b, a));
    }
    buckets.into_par_iter().for_each(|(bucket, space)| sort_bits(bucket, space, low, at, !moved));
}

fn count<T: Key>(stretch: &[T], at: u32) -> Vec<usize> {
    // Two tables, so that equal digits in a row do not wait for each other.
    let mut counts = [[0u32; BUCKETS]; 2];
    let mut all = vec![0; BUCKETS];
    for stretch in stretch.chunks(1 << 30) {
        let (pairs, rest) = stretch.as_chunks::<2>();
        for [a, b] in pairs {
            counts[0][digit(*a, at, BUCKET_BITS)] += 1;
            counts[1][digit(*b, at, BUCKET_BITS)] += 1;
        }
        rest.iter().for_each(|value| counts[0][digit(*value, at, BUCKET_BITS)] += 1);
        for (bucket, all) in all.iter_mut().enumerate() {
            *all += std::mem::take(&mut counts[0][bucket]) as usize + std::mem::take(&mut counts[1][bucket]) as usize;
        }
    }
    all
}

/// Moves the elements to `other`: by digit, those of a digit in the order of the stretches and within.
fn distribute<T: Key>(from: &[T], other: &mut [T], stretch: usize, counts: &[Vec<usize>], at: u32) {
    let mut targets: Vec<Vec<&mut [T]>> = counts.iter().map(|_| Vec::with_capacity(BUCKETS)).collect();
    let mut rest = other;
    for bucket in 0..BUCKETS {
        for (targets, counts) in targets.iter_mut().zip(counts) {
            let (own, behind) = rest.split_at_mut(counts[bucket]);
            targets.push(own);
            rest = behind;
        }
    }
    from.par_chunks(stretch).zip(targets).for_each(|(stretch, mut targets)| distribute_stretch(stretch, &mut targets, at));
}

/// Elements on their way to one bucket.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line<T>([T; LINE_BYTES / 4]);

/// Through a buffer of one line per digit: memory is written in whole lines, and not read for it first.
fn distribute_stretch<T: Key>(stretch: &[T], targets: &mut [&mut [T]], at: u32) {
    let line = LINE_BYTES / size_of::<T>();
    let mut lines: Vec<Line<T>> = targets.iter().map(|_| Line([T::default(); LINE_BYTES / 4])).collect();
    // Where a buffer begins and ends. The first one is shorter, so that the next lines are lines of memory.
    let mut begin: Vec<u8> = targets.iter().map(|target| (target.as_ptr().addr() / size_of::<T>() % line) as u8).collect();
    let mut end = begin.clone();
    for &value in stretch {
        let bucket = digit(value, at, BUCKET_BITS);
        let (buffer, end) = (&mut lines[bucket].0, &mut end[bucket]);
        buffer[usize::from(*end) % (LINE_BYTES / 4)] = value;
        *end += 1;
        if usize::from(*end) == line {
            let begin = std::mem::take(&mut begin[bucket]);
            let own = advance(&mut targets[bucket], line - usize::from(begin));
            if begin == 0 {
                put_line(own, &buffer[..line]);
            } else {
                own.copy_from_slice(&buffer[usize::from(begin)..line]);
            }
            *end = 0;
        }
    }
    for (bucket, target) in targets.iter_mut().enumerate() {
        let rest = &lines[bucket].0[usize::from(begin[bucket])..usize::from(end[bucket])];
        advance(target, rest.len()).copy_from_slice(rest);
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has it. What was written past the caches is seen by others before this function returns.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// The next elements of a target, which are no longer in it.
#[inline(always)]
fn advance<'a, T>(target: &mut &'a mut [T], length: usize) -> &'a mut [T] {
    let (own, behind) = std::mem::take(target).split_at_mut(length);
    *target = behind;
    own
}

/// Writes a whole line, which begins where a line of memory does.
#[inline(always)]
fn put_line<T: Key>(target: &mut [T], line: &[T]) {
    #[cfg(target_arch = "x86_64")]
    if size_of_val(target) == LINE_BYTES && size_of_val(line) == LINE_BYTES && target.as_ptr().addr().is_multiple_of(16) {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        let (to, of) = (target.as_mut_ptr().cast::<__m128i>(), line.as_ptr().cast::<__m128i>());
        for quarter in 0..LINE_BYTES / 16 {
            // SAFETY: both have 64 bytes, as was just seen, and the target is aligned to what is written at once.
            unsafe { _mm_stream_si128(to.add(quarter), _mm_loadu_si128(of.add(quarter))) };
        }
        return;
    }
    target.copy_from_slice(line);
}
