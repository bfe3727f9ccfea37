//! The specification: iterate z -> z * z + c from 0 until |z| >= 8, in fixed point.

use super::view::{FRACTION_BITS, View};

/// How a sample left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escape {
    /// The first n with |z_n| >= 8, or `max_iterations` when there is none below it.
    pub(super) iterations: u32,
    /// The upper halves of the parts of that z (24 fraction bits), for smooth colours; 0 when it did not escape.
    pub(super) x: i32,
    pub(super) y: i32,
}

/// 2 would do to decide; 8 makes the smooth count smooth.
const RADIUS: u64 = 8 << FRACTION_BITS;
const RADIUS_SQUARED: u64 = 64 << FRACTION_BITS;

pub(super) fn row(view: &View, row: u64, max_iterations: u32) -> Vec<Escape> {
    let lines = view.lines_of(row).iter();
    lines.flat_map(|line| view.columns.iter().map(|column| escape(*column, *line, max_iterations))).collect()
}

pub(super) fn escape(cx: i64, cy: i64, max_iterations: u32) -> Escape {
    let (mut x, mut y) = (0i64, 0i64);
    // In exact arithmetic a point seen twice never escapes: it repeats. (Brent: compare with the point at the last power of two.)
    let (mut seen, mut next_seen) = ((0, 0), 1);
    for iterations in 0..max_iterations {
        // Below the radius no sum or square here exceeds 128, the largest number of this format.
        let far = x.unsigned_abs() >= RADIUS || y.unsigned_abs() >= RADIUS;
        let (xx, yy) = if far { (RADIUS_SQUARED, 0) } else { (square(x), square(y)) };
        if xx + yy >= RADIUS_SQUARED {
            return Escape { iterations, x: (x >> 32) as i32, y: (y >> 32) as i32 };
        }
        let xy_twice = square(x + y) as i64 - (xx + yy) as i64;
        (x, y) = (xx as i64 - yy as i64 + cx, xy_twice + cy);
        if (x, y) == seen {
            break;
        }
        if iterations + 1 == next_seen {
            seen = (x, y);
            next_seen *= 2;
        }
    }
    Escape { iterations: max_iterations, x: 0, y: 0 }
}

fn square(value: i64) -> u64 {
    let value = u128::from(value.unsigned_abs());
    ((value * value) >> FRACTION_BITS) as u64
}
