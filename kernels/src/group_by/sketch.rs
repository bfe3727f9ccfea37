//! About how many different values there were, in bounded memory.
//!
//! Up to [`EXACT`] different hashes are kept as they are, and counted. More become a HyperLogLog of 4096 registers, whose standard error is
//! 1.04 / sqrt(4096) = 1.6 %. Which of the two it is depends on the set of hashes alone, and so does the estimate: neither the order of values nor
//! the cut into tasks shows.
//!
//! Source: Flajolet, Fusy, Gandouet, Meunier, HyperLogLog (AofA 2007); the estimator is that of Ertl, New cardinality estimation algorithms for
//! HyperLogLog sketches (arXiv:1702.01284), algorithm 6, which needs no tables and no logarithm: additions, products and square roots, which
//! IEEE 754 fixes to the bit.

use crate::api::KernelError;
use crate::run::{push_varint, take_varint};

/// Different hashes that are counted one by one.
const EXACT: usize = 512;
const BITS: u32 = 12;
const REGISTERS: usize = 1 << BITS;
/// Bits of a hash that are left for the rank; ranks go from 1 to one more.
const RANKS: usize = 64 - BITS as usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sketch {
    /// A hash table: 0 is a free place, and the hash 0 counts as 1.
    Few { slots: Vec<u64>, used: usize },
    /// Of each register the largest rank.
    Many(Box<[u8; REGISTERS]>),
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch::Few { slots: Vec::new(), used: 0 }
    }
}

impl Sketch {
    #[inline]
    pub(crate) fn add(&mut self, hash: u64) {
        match self {
            Sketch::Many(registers) => raise(registers, hash.max(1)),
            Sketch::Few { .. } => self.add_to_few(hash.max(1)),
        }
    }

    fn add_to_few(&mut self, hash: u64) {
        let Sketch::Few { slots, used } = self else { return };
        if !slots.is_empty() && put(slots, hash).is_some_and(|new| !new) {
            return;
        }
        if slots.is_empty() {
            *slots = vec![0; 8];
            put(slots, hash);
        }
        *used += 1;
        if *used > EXACT {
            let mut registers = Box::new([0; REGISTERS]);
            slots.iter().filter(|hash| **hash != 0).for_each(|hash| raise(&mut registers, *hash));
            *self = Sketch::Many(registers);
        } else if *used * 2 > slots.len() {
            let mut larger = vec![0; slots.len() * 2];
            slots.iter().filter(|hash| **hash != 0).for_each(|hash| {
                put(&mut larger, *hash);
            });
            *slots = larger;
        }
    }

    pub(crate) fn merge(&mut self, other: &Sketch) {
        match (&mut *self, other) {
            (_, Sketch::Few { slots, .. }) => slots.iter().filter(|hash| **hash != 0).for_each(|hash| self.add(*hash)),
            (Sketch::Many(own), Sketch::Many(other)) => own.iter_mut().zip(other.iter()).for_each(|(own, other)| *own = (*own).max(*other)),
            (Sketch::Few { slots, .. }, Sketch::Many(other)) => {
                let mut registers = other.clone();
                slots.iter().filter(|hash| **hash != 0).for_each(|hash| raise(&mut registers, *hash));
                *self = Sketch::Many(registers);
            }
        }
    }

    pub(crate) fn estimate(&self) -> u64 {
        match self {
            Sketch::Few { used, .. } => *used as u64,
            Sketch::Many(registers) => estimate(registers).round() as u64,
        }
    }

    /// The number of hashes and the hashes, rising; or [`EXACT`] + 1 and the registers.
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        match self {
            Sketch::Few { slots, used } => {
                let mut hashes: Vec<u64> = slots.iter().copied().filter(|hash| *hash != 0).collect();
                hashes.sort_unstable();
                push_varint(out, *used as u64);
                hashes.iter().for_each(|hash| out.extend(hash.to_le_bytes()));
            }
            Sketch::Many(registers) => {
                push_varint(out, EXACT as u64 + 1);
                out.extend_from_slice(&registers[..]);
            }
        }
    }

    pub(crate) fn take(bytes: &mut &[u8]) -> Result<Sketch, KernelError> {
        let damaged = || KernelError::Failed("shuffle block is damaged: no whole sketch".into());
        let count =
            take_varint(bytes).and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= EXACT + 1).ok_or_else(damaged)?;
        if count == EXACT + 1 {
            let (registers, rest) = bytes.split_first_chunk::<REGISTERS>().ok_or_else(damaged)?;
            *bytes = rest;
            if registers.iter().any(|rank| usize::from(*rank) > RANKS + 1) {
                return Err(damaged());
            }
            return Ok(Sketch::Many(Box::new(*registers)));
        }
        let (hashes, rest) = bytes.split_at_checked(count * 8).ok_or_else(damaged)?;
        *bytes = rest;
        let mut sketch = Sketch::default();
        hashes.as_chunks::<8>().0.iter().for_each(|hash| sketch.add(u64::from_le_bytes(*hash)));
        Ok(sketch)
    }
}

/// Puts a hash into a table that has room; whether it is new. `None` never comes of tables that are at most half full.
fn put(slots: &mut [u64], hash: u64) -> Option<bool> {
    let mask = slots.len() - 1;
    let home = (hash >> 32) as usize;
    for step in 0..slots.len() {
        let slot = &mut slots[(home + step) & mask];
        if *slot == hash {
            return Some(false);
        }
        if *slot == 0 {
            *slot = hash;
            return Some(true);
        }
    }
    None
}

fn raise(registers: &mut [u8; REGISTERS], hash: u64) {
    let register = (hash >> (64 - BITS)) as usize;
    let rank = ((hash << BITS) | 1 << (BITS - 1)).leading_zeros() as u8 + 1;
    registers[register] = registers[register].max(rank);
}

fn estimate(registers: &[u8; REGISTERS]) -> f64 {
    let mut counts = [0u32; RANKS + 2];
    registers.iter().for_each(|rank| counts[usize::from(*rank).min(RANKS + 1)] += 1);
    let all = REGISTERS as f64;
    let mut z = all * tau(1.0 - f64::from(counts[RANKS + 1]) / all);
    for rank in (1..=RANKS).rev() {
        z = 0.5 * (z + f64::from(counts[rank]));
    }
    z += all * sigma(f64::from(counts[0]) / all);
    std::f64::consts::LOG2_E / 2.0 * all * all / z
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    fn of(hashes: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::default();
        hashes.into_iter().for_each(|hash| sketch.add(hash));
        sketch
    }

    #[test]
    fn few_values_are_counted_and_many_estimated() {
        let mut random = random("few_values_are_counted_and_many_estimated");
        for count in [0usize, 1, 7, 8, 9, 100, 511, 512, 513, 2_000, 30_000, 400_000] {
            let hashes: Vec<u64> = (0..count).map(|_| random.next()).collect();
            let estimate = of(hashes.iter().chain(&hashes).copied()).estimate() as f64;
            // Five standard errors: one run in two million fails by chance.
            let bound = if count <= EXACT { 0.0 } else { 5.0 * 1.04 / 64.0 * count as f64 };
            assert!((estimate - count as f64).abs() <= bound, "{count}: {estimate}");
        }
    }

    #[test]
    fn neither_order_nor_cut_shows() {
        let mut random = random("neither_order_nor_cut_shows");
        for count in [10usize, 500, 700, 5_000] {
            let hashes: Vec<u64> = (0..count).map(|_| random.next()).collect();
            let whole = of(hashes.iter().copied());
            let mut merged = Sketch::default();
            for piece in hashes.chunks(1 + random.below(count as u64) as usize).rev() {
                let mut bytes = Vec::new();
                of(piece.iter().rev().copied()).push(&mut bytes);
                let mut rest = &bytes[..];
                merged.merge(&Sketch::take(&mut rest).unwrap());
                assert!(rest.is_empty());
            }
            let bytes = |sketch: &Sketch| {
                let mut bytes = Vec::new();
                sketch.push(&mut bytes);
                bytes
            };
            assert_eq!(bytes(&merged), bytes(&whole));
            assert_eq!(merged.estimate(), whole.estimate());
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut random = random("damaged_bytes_are_refused");
        for _ in 0..500 {
            let length = random.below(5000) as usize;
            let bytes = random.bytes(length);
            let _ = Sketch::take(&mut &bytes[..]);
        }
        assert!(Sketch::take(&mut &[3u8, 0, 0][..]).is_err());
    }
}
