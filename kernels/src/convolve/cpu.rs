//! The specification: for each pixel and channel the sum over its square, weight by weight.

use rayon::prelude::*;

use super::filter::Filter;
use super::picture::Picture;

pub(super) fn filter(filter: &Filter, picture: &Picture) -> Vec<[u8; 4]> {
    let mut filtered = picture.pixels.clone();
    if picture.width > 0 {
        filtered.par_chunks_mut(picture.width).enumerate().for_each(|(row, pixels)| filter_row(filter, picture, row, pixels));
    }
    filtered
}

fn filter_row(filter: &Filter, picture: &Picture, row: usize, pixels: &mut [[u8; 4]]) {
    let (radius, side) = (filter.radius, 2 * filter.radius + 1);
    let mut sums = vec![vec![[0i32; 4]; picture.width]; filter.squares];
    // A row of the image with its first and last pixel repeated.
    let mut padded = vec![[0u8; 4]; picture.width + 2 * radius];
    for (sums, square) in sums.iter_mut().zip(filter.weights.chunks_exact(side * side)) {
        for (down, weights) in square.chunks_exact(side).enumerate() {
            let line = (row + down).saturating_sub(radius).min(picture.height - 1);
            let line = &picture.pixels[line * picture.width..][..picture.width];
            padded[..radius].fill(line[0]);
            padded[radius..][..line.len()].copy_from_slice(line);
            padded[radius + line.len()..].fill(line[line.len() - 1]);
            for (across, weight) in weights.iter().enumerate() {
                for (sums, pixel) in sums.iter_mut().zip(&padded[across..]) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += weight * i32::from(*value));
                }
            }
        }
    }
    for (column, pixel) in pixels.iter_mut().enumerate() {
        let channel = |channel: usize| filter.value(sums.iter().map(|sums| sums[column][channel]));
        *pixel = [channel(0), channel(1), channel(2), pixel[3]];
    }
}
