//! Slots by arithmetic alone: one multiplication says where a value belongs, and that is shown to be right for every value there is.
//!
//! The slots that the edges say rise with the value, and so does what [`Straight::slot`] computes: each of its operations is rounded, and rounding
//! never turns an order around. So if the two agree at every edge and at the last value before it, and at the least and the greatest value, they agree
//! everywhere. Edges for which that does not come out even with a small push (one at zero in the middle of a range, say, before which lie numbers
//! nearer to it than to anything else) are left to the loop that looks each value up.

use super::edges::{ElementType, Scale, is_nan};

#[derive(Debug)]
pub(super) struct Straight {
    low: f64,
    per_unit: f64,
    push: f64,
    /// Of the last bin, or of what is above all.
    last: f64,
    /// Where NaN is counted.
    invalid: u32,
}

/// By how much a quotient may have come out too low.
const PUSHES: [f64; 6] = [
    0.0,
    1.0 / (1u64 << 44) as f64,
    1.0 / (1u64 << 40) as f64,
    1.0 / (1u64 << 36) as f64,
    1.0 / (1u64 << 32) as f64,
    1.0 / (1u64 << 28) as f64,
];
/// The rank that would be that of -0.0, which has the one of 0.0.
const NOBODYS: u32 = 0x7fff_ffff;

impl Straight {
    /// If it is right everywhere.
    pub(super) fn new(scale: &Scale) -> Option<Straight> {
        let edges = u32::try_from(scale.edges.len()).ok().filter(|edges| *edges > 0)?;
        let with = |push: f64| Straight {
            low: scale.low,
            per_unit: scale.bins as f64 / (scale.high - scale.low),
            push,
            last: f64::from(edges - 1),
            invalid: edges + 1,
        };
        PUSHES.into_iter().map(with).find(|straight| straight.is_right(scale))
    }

    fn is_right(&self, scale: &Scale) -> bool {
        let (least, most) = match scale.element {
            ElementType::U1 => (0, u32::from(u8::MAX)),
            ElementType::U4 => (0, u32::MAX),
            ElementType::F4 => (0x007f_ffff, 0xff80_0000),
        };
        let is_float = scale.element == ElementType::F4;
        let before = |edge: &u32| match edge.checked_sub(1)? {
            NOBODYS if is_float => Some(NOBODYS - 1),
            rank => (rank >= least).then_some(rank),
        };
        let ranks = scale.edges.iter().copied().chain(scale.edges.iter().filter_map(before)).chain([least, most]);
        let agrees = |rank: u32| {
            let value = if is_float { f64::from(f4_of_rank(rank)) } else { f64::from(rank) };
            self.slot(value) as usize == scale.edges.partition_point(|edge| *edge <= rank)
        };
        ranks.into_iter().all(agrees)
    }

    /// How many edges are not above the value, which is not NaN.
    #[inline(always)]
    fn slot(&self, value: f64) -> u32 {
        let place = (value - self.low) * self.per_unit + self.push;
        // NaN becomes 0 too.
        let place = if place > 0.0 { place } else { 0.0 };
        let place = if place < self.last { place } else { self.last };
        // SAFETY: it lies between 0 and a number of edges, which is an i32.
        let slot = unsafe { place.to_int_unchecked::<i32>() } as u32 + 1;
        if value >= self.low { slot } else { 0 }
    }

    #[inline(always)]
    pub(super) fn slot_of_u4(&self, bits: u32) -> u32 {
        self.slot(f64::from(bits))
    }

    #[inline(always)]
    pub(super) fn slot_of_f4(&self, bits: u32) -> u32 {
        let slot = self.slot(f64::from(f32::from_bits(bits)));
        if is_nan(bits) { self.invalid } else { slot }
    }
}

fn f4_of_rank(rank: u32) -> f32 {
    f32::from_bits(if rank >> 31 == 1 { rank ^ 1 << 31 } else { !rank })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::edges::rank_of_f4;
    use crate::testing::random;

    #[test]
    fn ranks_are_turned_back() {
        for value in [f32::NEG_INFINITY, f32::MIN, -1.5, -f32::from_bits(1), 0.0, f32::from_bits(1), 7.25, f32::MAX, f32::INFINITY] {
            assert_eq!(f4_of_rank(rank_of_f4(value.to_bits())), value);
        }
    }

    #[test]
    fn ordinary_bins_are_found_by_arithmetic_alone() {
        let of = |element, bins, low, high| Straight::new(&Scale::new(element, bins, low, high)).is_some();
        assert!(of(ElementType::F4, 256, 0.0, 256.0) && of(ElementType::F4, 100, 0.0, 1.0) && of(ElementType::F4, 256, 200.0, 340.0));
        assert!(of(ElementType::U4, 256, 0.0, 4e9) && of(ElementType::U4, 7, 3.0, 1e6) && of(ElementType::U4, 4096, 0.0, 4_294_967_296.0));
        assert!(!of(ElementType::F4, 2, -1.0, 1.0), "just before the middle edge lie numbers that are nothing beside 1");
    }

    /// At the edges and near them, where it could be wrong, and anywhere.
    #[test]
    fn it_is_right_wherever_it_says_so() {
        let mut random = random("it_is_right_wherever_it_says_so");
        let mut straight_ones = 0;
        for round in 0..400 {
            let float = round % 2 == 0;
            let (a, b) = (random.next() as u32, random.next() as u32);
            let number = |bits: u32| if float { f64::from(f32::from_bits(bits >> 1 & !(1 << 29))) } else { f64::from(bits) };
            let (low, high) = (number(a).min(number(b)), number(a).max(number(b)));
            if !(low < high && high.is_finite()) {
                continue;
            }
            let element = if float { ElementType::F4 } else { ElementType::U4 };
            let scale = Scale::new(element, 1 + random.below(600) as usize, low, high);
            let Some(straight) = Straight::new(&scale) else { continue };
            straight_ones += 1;
            let near = scale.edges.iter().flat_map(|edge| (0..5).map(|off| edge.wrapping_add(off).wrapping_sub(2)));
            let ranks: Vec<u32> = near.chain((0..500).map(|_| random.next() as u32)).collect();
            for rank in ranks {
                let (bits, slot) = match float {
                    true => (f4_of_rank(rank).to_bits(), straight.slot_of_f4(f4_of_rank(rank).to_bits())),
                    false => (rank, straight.slot_of_u4(rank)),
                };
                let exact = match float {
                    true if is_nan(bits) => scale.edges.len() + 1,
                    true => scale.edges.partition_point(|edge| *edge <= rank_of_f4(bits)),
                    false => scale.edges.partition_point(|edge| *edge <= bits),
                };
                assert_eq!(slot as usize, exact, "{bits:#x} of {low}..{high}");
            }
        }
        assert!(straight_ones > 50, "{straight_ones}");
    }
}
