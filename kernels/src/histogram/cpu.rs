//! The specification: each value belongs to the last edge that is not above it ([`edges_reached`]). The rest is speed.

use std::ops::IndexMut;

use super::Counts;
use super::edges::{ElementType, Scale, is_nan, rank_of_f4};

/// Counters of the same bin, so that equal values in a row do not wait for each other.
const TABLES: usize = 4;
/// Counters are words, which no table reaches within so many bytes.
const STRETCH: usize = 1 << 30;

pub(super) fn count(scale: &Scale, bytes: &[u8]) -> Counts {
    // Values by the number of edges that are not above them: none is below the range, all of them is above it. Last, the invalid ones.
    let mut slots = vec![0u64; scale.edges.len() + 2];
    for stretch in bytes.chunks(STRETCH) {
        match scale.element {
            ElementType::U1 => {
                // There are only 256 different values: count those, and place each once.
                for (value, count) in count_bytes(stretch).into_iter().enumerate() {
                    slots[edges_reached(scale, value as u32)] += count;
                }
            }
            ElementType::U4 => match Even::new(scale) {
                // The upper byte, as it is for 256 bins over all of them.
                Some(Even { low: 0, shift: 24, edges: 256.. }) => count_elements(&mut slots, stretch, |bits| (bits >> 24) as usize + 1),
                Some(even) if even.low == 0 && u32::MAX >> even.shift < even.edges => {
                    count_elements(&mut slots, stretch, |bits| (bits >> even.shift) as usize + 1);
                }
                Some(even) => count_elements(&mut slots, stretch, |bits| even.slot(bits)),
                None => match &scale.straight {
                    Some(straight) => count_straight(&mut slots, stretch, |bits| straight.slot_of_u4(bits)),
                    None => {
                        let guess = Guess::new(scale);
                        count_elements(&mut slots, stretch, |bits| guess.slot(bits, f64::from(bits)));
                    }
                },
            },
            ElementType::F4 => match &scale.straight {
                Some(straight) => count_straight(&mut slots, stretch, |bits| straight.slot_of_f4(bits)),
                None => {
                    let (guess, invalid) = (Guess::new(scale), scale.edges.len() + 1);
                    count_elements(&mut slots, stretch, |bits| {
                        let slot = guess.slot(rank_of_f4(bits), f64::from(f32::from_bits(bits)));
                        if is_nan(bits) { invalid } else { slot }
                    });
                }
            },
        }
    }
    let invalid = slots.pop().unwrap_or(0);
    // Edges above every element are left out: no element is above them.
    slots.resize(scale.bins + 2, 0);
    let above = slots.pop().unwrap_or(0);
    let below = slots.remove(0);
    Counts { bins: slots, below, above, invalid }
}

fn count_bytes(bytes: &[u8]) -> [u64; 256] {
    let mut tables = [[0u32; 256]; TABLES];
    let (groups, rest) = bytes.as_chunks::<8>();
    for group in groups {
        // One load for eight values.
        let values = u64::from_le_bytes(*group);
        for index in 0..8 {
            tables[index % TABLES][usize::from((values >> (8 * index)) as u8)] += 1;
        }
    }
    rest.iter().for_each(|byte| tables[0][usize::from(*byte)] += 1);
    std::array::from_fn(|value| tables.iter().map(|table| u64::from(table[value])).sum())
}

/// Slots that have tables of a fixed length, whose indices need no check.
const FEW: usize = 512;

#[inline(always)]
fn count_elements(slots: &mut [u64], bytes: &[u8], slot: impl Fn(u32) -> usize) {
    if slots.len() <= FEW {
        let mut tables = [[0u32; FEW]; TABLES];
        count_into(&mut tables, bytes, |bits| slot(bits) & (FEW - 1));
        add(slots, &tables);
    } else {
        let mut tables: [Vec<u32>; TABLES] = std::array::from_fn(|_| vec![0; slots.len()]);
        count_into(&mut tables, bytes, slot);
        add(slots, &tables);
    }
}

#[inline(always)]
fn count_into<T: IndexMut<usize, Output = u32>>(tables: &mut [T; TABLES], bytes: &[u8], slot: impl Fn(u32) -> usize) {
    let (groups, rest) = bytes.as_chunks::<4>().0.as_chunks::<TABLES>();
    for group in groups {
        for (table, element) in tables.iter_mut().zip(group) {
            table[slot(u32::from_le_bytes(*element))] += 1;
        }
    }
    rest.iter().for_each(|element| tables[0][slot(u32::from_le_bytes(*element))] += 1);
}

/// Elements whose slots are computed side by side.
const LINE: usize = 32;

/// The same for slots that arithmetic finds, of as many elements at once as the processor's registers hold.
#[inline(always)]
fn count_straight(slots: &mut [u64], bytes: &[u8], slot: impl Fn(u32) -> u32) {
    if slots.len() > FEW {
        return count_elements(slots, bytes, |bits| slot(bits) as usize);
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { count_lines_avx2(slots, bytes, slot) };
    }
    count_lines(slots, bytes, slot);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn count_lines_avx2(slots: &mut [u64], bytes: &[u8], slot: impl Fn(u32) -> u32) {
    count_lines(slots, bytes, slot);
}

#[inline(always)]
fn count_lines(slots: &mut [u64], bytes: &[u8], slot: impl Fn(u32) -> u32) {
    let mut tables = [[0u32; FEW]; TABLES];
    let (lines, rest) = bytes.as_chunks::<4>().0.as_chunks::<LINE>();
    let mut found = [0u32; LINE];
    for line in lines {
        found.iter_mut().zip(line).for_each(|(found, element)| *found = slot(u32::from_le_bytes(*element)));
        for group in found.as_chunks::<TABLES>().0 {
            tables.iter_mut().zip(group).for_each(|(table, slot)| table[*slot as usize & (FEW - 1)] += 1);
        }
    }
    rest.iter().for_each(|element| tables[0][slot(u32::from_le_bytes(*element)) as usize & (FEW - 1)] += 1);
    add(slots, &tables);
}

fn add(slots: &mut [u64], tables: &[impl AsRef<[u32]>]) {
    for table in tables {
        slots.iter_mut().zip(table.as_ref()).for_each(|(slot, count)| *slot += u64::from(*count));
    }
}

/// How many edges are not above the value.
fn edges_reached(scale: &Scale, rank: u32) -> usize {
    scale.edges.partition_point(|edge| *edge <= rank)
}

/// Edges of u4 that are the same power of two apart, as those of 256 bins over all u4 are.
struct Even {
    low: u32,
    shift: u32,
    edges: u32,
}

impl Even {
    fn new(scale: &Scale) -> Option<Even> {
        let low = *scale.edges.first()?;
        let width = scale.edges.get(1).map_or(1, |edge| edge.wrapping_sub(low));
        let even = width.is_power_of_two() && scale.edges.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == width);
        even.then(|| Even { low, shift: width.trailing_zeros(), edges: scale.edges.len() as u32 })
    }

    #[inline(always)]
    fn slot(&self, value: u32) -> usize {
        if value < self.low { 0 } else { ((value - self.low) >> self.shift).min(self.edges - 1) as usize + 1 }
    }
}

/// Where a value belongs if floats were exact, checked against the edges beside it.
struct Guess<'a> {
    scale: &'a Scale,
    low: f64,
    per_unit: f64,
    /// The last slot.
    last: f64,
    /// For each slot the smallest rank in it, and how many there are: none in one between equal edges.
    fence: Vec<[u32; 2]>,
}

impl Guess<'_> {
    fn new(scale: &Scale) -> Guess<'_> {
        let starts = [0].into_iter().chain(scale.edges.iter().copied());
        let ends = scale.edges.iter().map(|edge| u64::from(*edge)).chain([1 << 32]);
        // All of u4 in one slot is one more than fits; the largest rank is then searched for.
        let length = |start, end: u64| u32::try_from(end - u64::from(start)).unwrap_or(u32::MAX);
        let fence = starts.zip(ends).map(|(start, end)| [start, length(start, end)]).collect();
        Guess { scale, low: scale.low, per_unit: scale.bins as f64 / (scale.high - scale.low), last: scale.edges.len() as f64, fence }
    }

    /// At most one off for finite values, and right whatever the guess is.
    #[inline(always)]
    fn slot(&self, rank: u32, value: f64) -> usize {
        // No branch depends on the value: where many lie outside the range, each would be guessed wrong half of the time.
        let guess = ((value - self.low) * self.per_unit + 1.0).clamp(0.0, self.last) as u32 as usize;
        let [start, length] = self.fence[guess];
        if rank.wrapping_sub(start) < length { guess } else { self.search(rank) }
    }

    #[cold]
    fn search(&self, rank: u32) -> usize {
        edges_reached(self.scale, rank)
    }
}
