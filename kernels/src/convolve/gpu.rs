//! One thread per pixel; bands of rows per dispatch, each with the rows above and below that its pixels look at. The bands of all images of a
//! call follow one another, so that the device computes one while the host brings the next.

use super::filter::Filter;
use super::picture::Picture;
use crate::api::{GpuNeed, KernelError};
use crate::gpu::{Ahead, Dispatch, Dispatches, Gpu, Program, Running, words};

const GROUP_SIZE: u32 = 256;
/// Products of one dispatch at most, where a row allows: well under a second on a small GPU.
const PRODUCTS: u64 = 1 << 31;
/// Dispatches that the device has at once: one runs while the host reads another.
const AHEAD: usize = 2;

pub(super) fn filter(gpu: &Gpu, filter: &Filter, pictures: &mut [Picture]) -> Result<(), KernelError> {
    let weights = words(filter.weights.iter().map(|weight| *weight as u32));
    let mut filtered: Vec<Vec<[u8; 4]>> = pictures.iter().map(|picture| Vec::with_capacity(picture.pixels.len())).collect();
    let mut ahead = Ahead::new(AHEAD, |image: usize, words| filtered[image].extend(words.into_iter().map(u32::to_le_bytes)));
    for (image, picture) in pictures.iter().enumerate() {
        let rows = rows_of_band(gpu, filter, picture.width)?;
        for first in (0..picture.height).step_by(rows) {
            ahead.push(image, start(gpu, filter, &weights, picture, first, rows.min(picture.height - first))?)?;
        }
    }
    ahead.finish()?;
    pictures.iter_mut().zip(filtered).for_each(|(picture, filtered)| picture.pixels = filtered);
    Ok(())
}

/// As many as one dispatch may hold by its memory and should hold by its time; at least one.
fn rows_of_band(gpu: &Gpu, filter: &Filter, width: usize) -> Result<usize, KernelError> {
    let row_bytes = 4 * width as u64;
    let by_memory = (gpu.batch_bytes() / row_bytes).saturating_sub(2 * filter.radius as u64);
    if by_memory == 0 {
        return Err(KernelError::Memory(format!("{}: {} rows of {width} pixels do not fit", gpu.report().name, 2 * filter.radius + 1)));
    }
    let by_time = PRODUCTS / (row_bytes * filter.weights.len() as u64);
    Ok(by_memory.min(by_time.max(1)) as usize)
}

/// Wider images take more, by the rows around a band.
const USUAL_WIDTH: u64 = 1 << 16;

/// Of a lease, however many files it has: how large their images are, a file's length does not tell. Bands with the rows around them, and what
/// they become, twice.
pub(super) fn need(batch_bytes: u64, filter: &Filter) -> GpuNeed {
    let band = (4 * (PRODUCTS / (4 * filter.weights.len() as u64))).max(4 * USUAL_WIDTH).min(batch_bytes);
    let around = 4 * 2 * filter.radius as u64 * USUAL_WIDTH;
    let each = (band + around).min(batch_bytes) + 2 * band + 4 * filter.weights.len() as u64;
    let need = Dispatches { at_once: AHEAD as u64 + 1, buffers: 5, fixed: each, ..Dispatches::default() }.need();
    GpuNeed { most: None, ..need }
}

fn start<'g>(
    gpu: &'g Gpu,
    filter: &Filter,
    weights: &[u8],
    picture: &Picture,
    first: usize,
    rows: usize,
) -> Result<Running<'g>, KernelError> {
    let (width, radius) = (picture.width, filter.radius);
    let line = |line: usize| picture.pixels[line * width..][..width].as_flattened();
    // Beyond the border the nearest row is repeated, here; the shader does it for columns.
    let lines: Vec<&[u8]> = (first..first + rows + 2 * radius).map(|at| line(at.saturating_sub(radius).min(picture.height - 1))).collect();
    let numbers = [filter.squares as u32, u32::from(filter.sizes), filter.divisor as u32, filter.bias as u32];
    let shape = words([width as u32, rows as u32, radius as u32].into_iter().chain(numbers));
    let pixels = width * rows;
    gpu.start(&Dispatch {
        program: Program { name: "convolve", wgsl: &[include_str!("convolve.wgsl")], constants: &[("group_size", GROUP_SIZE)] },
        inputs: &[&lines, &[weights], &[&shape]],
        output_bytes: 4 * pixels as u64,
        groups: pixels.div_ceil(GROUP_SIZE as usize) as u32,
    })
}
