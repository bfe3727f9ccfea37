//! One thread per sample; whole rows per dispatch, so that a finished dispatch can be coloured while the next one runs.

use rayon::prelude::*;

use super::cpu::Escape;
use super::{PreparedMandelbrot, Row};
use crate::api::{GpuNeed, KernelError};
use crate::gpu::{Ahead, Dispatch, Dispatches, Gpu, Program, Running, words};

const GROUP_SIZE: u32 = 64;
/// Words per sample that the shader writes.
const ESCAPE_WORDS: usize = 3;
/// Iterations of one dispatch at most, where its rows allow: about a second on a small GPU, whose watchdog bites after two or more.
const ITERATIONS: u64 = 1 << 31;
/// Fewer samples would leave a large GPU idle.
const LEAST_SAMPLES: u64 = 1 << 16;
/// Dispatches that the device has at once: one runs while the host colours another.
const AHEAD: usize = 2;

/// The rows with these numbers, in this order.
pub(super) fn rows(gpu: &Gpu, kernel: &PreparedMandelbrot, numbers: &[u64]) -> Result<Vec<Row>, KernelError> {
    let per_row = kernel.view.samples_per_row();
    let rows_at_once = rows_at_once(gpu.batch_bytes(), per_row as u64, kernel.max_iterations) as usize;

    let columns = words(kernel.view.columns.iter().flat_map(|part| halves(*part)));
    let mut finished = Vec::with_capacity(numbers.len());
    let mut ahead = Ahead::new(AHEAD, |batch: &[u64], escapes: Vec<u32>| {
        let rows = batch.par_iter().zip(escapes.par_chunks(per_row * ESCAPE_WORDS));
        finished.par_extend(rows.map(|(number, words)| kernel.finish(*number, &samples_of(words))));
    });
    for batch in numbers.chunks(rows_at_once) {
        ahead.push(batch, start(gpu, kernel, &columns, batch)?)?;
    }
    ahead.finish()?;
    Ok(finished)
}

fn rows_at_once(batch_bytes: u64, samples_per_row: u64, max_iterations: u32) -> u64 {
    let by_memory = batch_bytes / (4 * ESCAPE_WORDS) as u64;
    let samples = (ITERATIONS / u64::from(max_iterations)).max(LEAST_SAMPLES).min(by_memory);
    (samples / samples_per_row).max(1)
}

/// Of a lease: the parts of the samples' coordinates, and what each sample comes to, twice.
pub(super) fn need(batch_bytes: u64, width: u64, antialias: u64, max_iterations: u32) -> GpuNeed {
    let samples_per_row = width * antialias * antialias;
    let per_row = 2 * (4 * ESCAPE_WORDS) as u64 * samples_per_row + 8 * antialias;
    let dispatches = Dispatches {
        at_once: AHEAD as u64 + 1,
        buffers: 5,
        fixed: 8 * width * antialias,
        per_task: 0,
        per_unit: per_row as f64,
        most: rows_at_once(batch_bytes, samples_per_row, max_iterations) * per_row,
        stays: 0,
    };
    dispatches.need()
}

fn start<'a>(gpu: &'a Gpu, kernel: &PreparedMandelbrot, columns: &[u8], batch: &[u64]) -> Result<Running<'a>, KernelError> {
    let lines = words(batch.iter().flat_map(|row| kernel.view.lines_of(*row)).flat_map(|part| halves(*part)));
    let samples = batch.len() * kernel.view.samples_per_row();
    let program =
        Program { name: "mandelbrot", wgsl: &[include_str!("mandelbrot.wgsl"), gpu.mul_wide()], constants: &[("group_size", GROUP_SIZE)] };
    gpu.start(&Dispatch {
        program,
        inputs: &[&[columns], &[&lines], &[&words([kernel.max_iterations])]],
        output_bytes: (4 * ESCAPE_WORDS * samples) as u64,
        groups: samples.div_ceil(GROUP_SIZE as usize) as u32,
    })
}

/// A coordinate as the shader reads it: low word, high word.
fn halves(part: i64) -> [u32; 2] {
    [part as u32, (part >> 32) as u32]
}

fn samples_of(words: &[u32]) -> Vec<Escape> {
    let (escapes, _) = words.as_chunks::<ESCAPE_WORDS>();
    escapes.iter().map(|&[iterations, x, y]| Escape { iterations, x: x as i32, y: y as i32 }).collect()
}
