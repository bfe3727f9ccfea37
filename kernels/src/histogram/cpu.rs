//! The specification: each value belongs to the last edge that is not above it.

use super::Counts;
use super::edges::{ElementType, Scale, is_nan, rank_of_f4};

pub(super) fn count(scale: &Scale, bytes: &[u8]) -> Counts {
    // Values by the number of edges that are not above them: none is below the range, all of them is above it.
    let mut by_edges = vec![0u64; scale.bins + 2];
    let mut invalid = 0;
    match scale.element {
        ElementType::U1 => {
            // There are only 256 different values: count those, and place each once.
            let mut by_value = [0u64; 256];
            bytes.iter().for_each(|byte| by_value[usize::from(*byte)] += 1);
            for (value, count) in by_value.iter().enumerate() {
                by_edges[edges_reached(scale, value as u32, 0)] += count;
            }
        }
        ElementType::U4 => {
            let guess = Guess::new(scale);
            for value in elements(bytes) {
                by_edges[edges_reached(scale, value, guess.edges(f64::from(value)))] += 1;
            }
        }
        ElementType::F4 => {
            let guess = Guess::new(scale);
            for bits in elements(bytes) {
                if is_nan(bits) {
                    invalid += 1;
                } else {
                    by_edges[edges_reached(scale, rank_of_f4(bits), guess.edges(f64::from(f32::from_bits(bits))))] += 1;
                }
            }
        }
    }
    let above = by_edges.pop().unwrap_or(0);
    let below = by_edges.remove(0);
    Counts { bins: by_edges, below, above, invalid }
}

fn elements(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|element| u32::from_le_bytes(*element))
}

/// How many edges are not above the value, searched from a guess: right whatever the guess is, quick when it is near.
#[inline(always)]
fn edges_reached(scale: &Scale, rank: u32, guess: usize) -> usize {
    let edges = &scale.edges[..];
    let mut reached = guess.min(edges.len());
    while reached > 0 && edges[reached - 1] > rank {
        reached -= 1;
    }
    while reached < edges.len() && edges[reached] <= rank {
        reached += 1;
    }
    reached
}

/// Where a value belongs if floats were exact.
struct Guess {
    low: f64,
    per_unit: f64,
}

impl Guess {
    fn new(scale: &Scale) -> Guess {
        Guess { low: scale.low, per_unit: scale.bins as f64 / (scale.high - scale.low) }
    }

    /// At most one off for finite values; saturates at both ends.
    #[inline(always)]
    fn edges(&self, value: f64) -> usize {
        ((value - self.low) * self.per_unit + 1.0) as usize
    }
}
