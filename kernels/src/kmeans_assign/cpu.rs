//! The specification: of each point the distance from every centroid, in integers; the first of the least wins.

use super::{Model, Partial};

/// Centroids that one point is compared with at once: two registers of eight lanes.
const WIDTH: usize = 16;

/// One coordinate of so many centroids.
pub(super) type Panel = [i32; WIDTH];

/// The centroids as the loops want them: for each sixteen of them dimension by dimension. What fills the last sixteen is never looked at.
pub(super) fn panels(model: &Model) -> Vec<Panel> {
    let (clusters, columns) = (model.clusters(), model.columns());
    let place = |cluster: usize, column: usize| match cluster < clusters {
        true => i32::from(model.centroids[cluster * columns + column]),
        false => 0,
    };
    let panel = |first: usize, column: usize| std::array::from_fn(|lane| place(first + lane, column));
    (0..clusters).step_by(WIDTH).flat_map(|first| (0..columns).map(move |column| panel(first, column))).collect()
}

pub(super) fn assign(model: &Model, panels: &[Panel], numbers: &[f32]) -> Partial {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { assign_avx2(model, panels, numbers) };
    }
    assign_all(model, panels, numbers)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn assign_avx2(model: &Model, panels: &[Panel], numbers: &[f32]) -> Partial {
    assign_all(model, panels, numbers)
}

#[inline(always)]
fn assign_all(model: &Model, panels: &[Panel], numbers: &[f32]) -> Partial {
    let (clusters, columns) = (model.clusters(), model.columns());
    let mut partial = Partial::new(clusters, columns);
    let mut places = vec![0u16; columns];
    if clusters == 0 {
        // The first round has found no point that is finite.
        partial.invalid = (numbers.len() / columns.max(1)) as u64;
        return partial;
    }
    for point in numbers.chunks_exact(columns) {
        if !model.grid.places(point, &mut places) {
            partial.invalid += 1;
            continue;
        }
        let (nearest, distance) = nearest(&places, panels, clusters);
        partial.counts[nearest] += 1;
        partial.objective += u128::from(distance);
        partial.sums[nearest * columns..].iter_mut().zip(&places).for_each(|(sum, place)| *sum += u64::from(*place));
    }
    partial
}

/// The first of the nearest centroids, and its squared distance.
#[inline(always)]
fn nearest(places: &[u16], panels: &[Panel], clusters: usize) -> (usize, u64) {
    let mut best = (0, u64::MAX);
    for (block, panel) in panels.chunks_exact(places.len()).enumerate() {
        // A square has up to 32 bits. Its halves are added up apart, so that 65,536 of them fit words: twice the lanes of 64-bit sums.
        let (mut low, mut high) = ([0u32; WIDTH], [0u32; WIDTH]);
        for (place, centroids) in places.iter().zip(panel) {
            for lane in 0..WIDTH {
                let difference = i32::from(*place) - centroids[lane];
                let square = difference.wrapping_mul(difference) as u32;
                low[lane] += square & 0xffff;
                high[lane] += square >> 16;
            }
        }
        let first = block * WIDTH;
        for lane in 0..WIDTH.min(clusters - first) {
            let distance = u64::from(low[lane]) + (u64::from(high[lane]) << 16);
            if distance < best.1 {
                best = (first + lane, distance);
            }
        }
    }
    best
}
