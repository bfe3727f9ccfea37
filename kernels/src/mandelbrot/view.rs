//! Which points of the plane the samples are, in fixed point: computed once, here, so that no twin derives them for itself.

use crate::params::Resolved;

/// Fraction bits of a coordinate.
pub(super) const FRACTION_BITS: u32 = 56;

pub(super) struct View {
    pub(super) width: usize,
    pub(super) height: u64,
    /// Samples per pixel in each direction.
    pub(super) antialias: usize,
    /// Real parts of the samples of a row, left to right.
    pub(super) columns: Vec<i64>,
    /// Imaginary parts of the rows of samples, top to bottom.
    pub(super) lines: Vec<i64>,
}

impl View {
    pub(super) fn new(params: &Resolved) -> View {
        let (width, height, antialias) = (params.u64("width"), params.u64("height"), params.u64("antialias"));
        let (across, down) = (width * antialias, height * antialias);
        let half_step = 2.0 / (params.f64("zoom") * across.max(down) as f64);
        let columns = (0..across).map(|column| point(params.f64("center_x"), 2 * column as i128 + 1 - across as i128, half_step));
        let lines = (0..down).map(|line| point(params.f64("center_y"), down as i128 - 1 - 2 * line as i128, half_step));
        View { width: width as usize, height, antialias: antialias as usize, columns: columns.collect(), lines: lines.collect() }
    }

    /// Samples that make one row of the image.
    pub(super) fn samples_per_row(&self) -> usize {
        self.columns.len() * self.antialias
    }

    /// The lines of samples that make one row of the image.
    pub(super) fn lines_of(&self, row: u64) -> &[i64] {
        &self.lines[row as usize * self.antialias..][..self.antialias]
    }
}

/// `center + half_steps * half_step`. With 64 more bits than the result has, since a step may be few units of it.
fn point(center: f64, half_steps: i128, half_step: f64) -> i64 {
    // Powers of two scale a float without rounding, and all of this stays below 2^124.
    let fine = |value: f64| (value * 2f64.powi(FRACTION_BITS as i32) * 2f64.powi(64)) as i128;
    ((fine(center) + half_steps * fine(half_step)) >> 64) as i64
}
