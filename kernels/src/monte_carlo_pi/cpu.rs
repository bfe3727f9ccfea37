//! The specification: one sample after the other.

use crate::philox::philox;

pub(super) fn hits(seed: u64, start: u64, count: u64) -> u64 {
    let key = [seed as u32, (seed >> 32) as u32];
    // The caller has checked that the last number exists; the sum itself may be 2^64.
    (0..count).map(|index| u64::from(hit(key, start.wrapping_add(index)))).sum()
}

#[inline(always)]
fn hit(key: [u32; 2], sample: u64) -> bool {
    let [x, y, ..] = philox([sample as u32, (sample >> 32) as u32, 0, 0], key);
    let (x, y) = (u64::from(x), u64::from(y));
    (x * x).checked_add(y * y).is_some()
}
