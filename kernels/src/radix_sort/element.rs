//! What is sorted, in which order, and where partitions end.

use super::cpu::{self, Space};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SortElement {
    U4,
    U8,
    F4,
}

impl SortElement {
    pub(super) const ALL: [SortElement; 3] = [SortElement::U4, SortElement::U8, SortElement::F4];

    pub(crate) fn name(self) -> &'static str {
        match self {
            SortElement::U4 => "u4",
            SortElement::U8 => "u8",
            SortElement::F4 => "f4",
        }
    }

    pub(super) fn named(name: &str) -> Option<SortElement> {
        SortElement::ALL.into_iter().find(|element| element.name() == name)
    }

    pub(crate) fn size(self) -> usize {
        if self == SortElement::U8 { 8 } else { 4 }
    }

    /// The key of a shuffle record: what its elements are and how many of their bits are not compared.
    pub(super) fn tag(self, payload_bits: u32) -> String {
        format!("{} {payload_bits}", self.name())
    }

    /// The element type and the payload bits in the key of a shuffle record.
    pub(crate) fn of_tag(tag: &[u8]) -> Option<(SortElement, u32)> {
        let (name, payload_bits) = std::str::from_utf8(tag).ok()?.split_once(' ')?;
        let element = SortElement::named(name)?;
        let payload_bits = payload_bits.parse().ok().filter(|bits| (*bits as usize) < 8 * element.size())?;
        Some((element, payload_bits))
    }

    /// An integer that orders like the element does.
    pub(crate) fn rank(self, bits: u64) -> u64 {
        if self == SortElement::F4 { u64::from(rank_of_f4(bits as u32)) } else { bits }
    }

    /// Sorts elements of four bytes.
    pub(crate) fn sort_words(self, values: &mut [u32], payload_bits: u32, space: &Space) {
        if self == SortElement::F4 {
            values.iter_mut().for_each(|bits| *bits = rank_of_f4(*bits));
            cpu::sort(values, 0, space);
            values.iter_mut().for_each(|rank| *rank = f4_of_rank(*rank));
        } else {
            cpu::sort(values, payload_bits, space);
        }
    }

    /// Ranks are below this.
    fn ranks(self) -> u128 {
        1 << (8 * self.size())
    }
}

/// Herf, Radix tricks (2001). All floats differ, also zeros and NaN: this is the total order of IEEE 754.
fn rank_of_f4(bits: u32) -> u32 {
    bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
}

fn f4_of_rank(rank: u32) -> u32 {
    rank ^ ((!rank as i32 >> 31) as u32 | 1 << 31)
}

/// The values that partitions share evenly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) low: f64,
    pub(super) high: f64,
}

/// How elements of one type are cut into partitions.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) element: SortElement,
    /// For each partition but the last the key (a rank without its payload bits) that it ends before. Rising.
    pub(super) ends: Vec<u64>,
}

impl Bounds {
    pub(super) fn new(element: SortElement, range: Option<Range>, payload_bits: u32, partitions: u32) -> Bounds {
        let end = |partition: u32| {
            let rank = match range {
                None => element.ranks() * u128::from(partition) / u128::from(partitions),
                Some(Range { low, high }) => rank_at_or_above(element, low + (high - low) * f64::from(partition) / f64::from(partitions)),
            };
            // Up to a whole key: elements that agree in it must not be parted. Too many payload bits are refused with the input.
            rank.div_ceil(1 << payload_bits).min(u64::MAX.into()) as u64
        };
        Bounds { element, ends: (1..partitions).map(end).collect() }
    }
}

/// The rank of the smallest element that is not below the value; one beyond the last rank if all are.
fn rank_at_or_above(element: SortElement, value: f64) -> u128 {
    if element == SortElement::F4 {
        let nearest = value as f32;
        let at_or_above = if f64::from(nearest) < value { nearest.next_up() } else { nearest };
        return rank_of_f4(at_or_above.to_bits()).into();
    }
    // Saturates at both ends; a float below 2^128 is a u128.
    (value.ceil() as u128).min(element.ranks())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_all_floats_and_lead_back() {
        let rising = [
            -f32::NAN,
            f32::NEG_INFINITY,
            f32::MIN,
            -1.0,
            -f32::from_bits(1),
            -0.0,
            0.0,
            f32::from_bits(1),
            1.0,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
        ];
        assert!(rising.windows(2).all(|pair| rank_of_f4(pair[0].to_bits()) < rank_of_f4(pair[1].to_bits())));
        assert!(rising.iter().all(|value| f4_of_rank(rank_of_f4(value.to_bits())) == value.to_bits()));
    }

    #[test]
    fn partitions_share_the_range_evenly() {
        let ends = |element, range, payload_bits, partitions| Bounds::new(element, range, payload_bits, partitions).ends;
        assert_eq!(ends(SortElement::U4, None, 0, 4), [1 << 30, 2 << 30, 3 << 30]);
        assert_eq!(ends(SortElement::U8, None, 0, 2), [1 << 63]);
        assert_eq!(ends(SortElement::U8, None, 32, 4), [1 << 30, 2 << 30, 3 << 30]);
        assert_eq!(ends(SortElement::U4, Some(Range { low: 0.0, high: 100.0 }), 0, 4), [25, 50, 75]);
        assert_eq!(ends(SortElement::U4, Some(Range { low: -100.0, high: 1e12 }), 4, 2), [1 << 28]);
        let halves = ends(SortElement::F4, Some(Range { low: -1.0, high: 3.0 }), 0, 2);
        assert_eq!(halves, [u64::from(rank_of_f4(1f32.to_bits()))]);
        assert!(ends(SortElement::U4, None, 0, 1).is_empty());
    }

    #[test]
    fn tags_lead_back() {
        assert_eq!(SortElement::of_tag(b"u8 32"), Some((SortElement::U8, 32)));
        assert_eq!(SortElement::of_tag(SortElement::F4.tag(0).as_bytes()), Some((SortElement::F4, 0)));
        for wrong in [&b"u8"[..], b"u8 64", b"u4 32", b"i4 0", b"u4 -1", b"\xff 0"] {
            assert_eq!(SortElement::of_tag(wrong), None);
        }
    }
}
