//! Bin edges as integers that order like the values, so that comparing is the same operation on every device.

use super::straight::Straight;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    U1,
    U4,
    F4,
}

impl ElementType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ElementType::U1 => "u1",
            ElementType::U4 => "u4",
            ElementType::F4 => "f4",
        }
    }

    pub(crate) fn size(self) -> usize {
        if self == ElementType::U1 { 1 } else { 4 }
    }
}

/// Bins for one element type.
#[derive(Debug)]
pub(super) struct Scale {
    pub(super) element: ElementType,
    pub(super) bins: usize,
    pub(super) low: f64,
    pub(super) high: f64,
    /// For each of the bins + 1 edges the rank of the smallest element that is not below it. Edges above every element are left
    /// out, so there may be fewer. Rising, not always strictly: bins narrower than the elements are apart stay empty.
    pub(super) edges: Vec<u32>,
    /// Instead of a look at the edges, where it gives the same.
    pub(super) straight: Option<Straight>,
}

impl Scale {
    pub(super) fn new(element: ElementType, bins: usize, low: f64, high: f64) -> Scale {
        let edge = |index: usize| match index {
            0 => low,
            _ if index == bins => high, // what the user wrote, unrounded
            _ => low + (high - low) * index as f64 / bins as f64,
        };
        let edges = (0..=bins).map_while(|index| rank_at_or_above(element, edge(index))).collect();
        let scale = Scale { element, bins, low, high, edges, straight: None };
        // Of u1 there are only 256 different values, which are placed one by one.
        let straight = if element == ElementType::U1 { None } else { Straight::new(&scale) };
        Scale { straight, ..scale }
    }
}

/// The rank of an f4: an integer that orders like the number, the same for both zeros. Not for NaN.
pub(crate) fn rank_of_f4(bits: u32) -> u32 {
    const SIGN: u32 = 1 << 31;
    match bits {
        SIGN => SIGN,
        _ if bits & SIGN == 0 => bits | SIGN,
        _ => !bits,
    }
}

pub(crate) fn is_nan(bits: u32) -> bool {
    bits << 1 > 0xff00_0000
}

fn rank_at_or_above(element: ElementType, edge: f64) -> Option<u32> {
    match element {
        // Infinity is an element, so every edge has one at or above it.
        ElementType::F4 => Some(rank_of_f4(f4_at_or_above(edge).to_bits())),
        ElementType::U1 | ElementType::U4 => {
            let largest = if element == ElementType::U1 { f64::from(u8::MAX) } else { f64::from(u32::MAX) };
            let rounded = edge.ceil().max(0.0);
            (rounded <= largest).then_some(rounded as u32)
        }
    }
}

fn f4_at_or_above(edge: f64) -> f32 {
    // Rounds to nearest, which may be one step too low.
    let nearest = edge as f32;
    if f64::from(nearest) < edge { nearest.next_up() } else { nearest }
}
