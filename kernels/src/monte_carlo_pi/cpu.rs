//! The specification. Samples are drawn several at a time, which lets the compiler use vector instructions; the order is of no
//! consequence, since each is a function of its number.

use super::philox::philox;

const LANES: usize = 8;

pub(super) fn hits(seed: u64, start: u64, count: u64) -> u64 {
    let key = [seed as u32, (seed >> 32) as u32];
    let whole = count / LANES as u64;
    let mut hits = 0;
    for block in 0..whole {
        let first = start + block * LANES as u64;
        let mut lanes = [0u64; LANES];
        for (lane, hits) in lanes.iter_mut().enumerate() {
            *hits = hit(key, first.wrapping_add(lane as u64));
        }
        hits += lanes.iter().sum::<u64>();
    }
    // The caller has checked that the last number exists; the one after it may not.
    hits + (whole * LANES as u64..count).map(|index| hit(key, start.wrapping_add(index))).sum::<u64>()
}

/// 1 when x * x + y * y < 2^64.
#[inline(always)]
fn hit(key: [u32; 2], sample: u64) -> u64 {
    let [x, y, ..] = philox([sample as u32, (sample >> 32) as u32, 0, 0], key);
    let (xx, yy) = (u64::from(x) * u64::from(x), u64::from(y) * u64::from(y));
    u64::from(xx.checked_add(yy).is_some())
}
