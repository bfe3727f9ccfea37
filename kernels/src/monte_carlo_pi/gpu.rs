//! One work group counts the hits of one piece of a task; the host adds the pieces of each task.

use crate::api::{GpuNeed, KernelError};
use crate::gpu::{Ahead, Dispatch, Dispatches, Gpu, INDEX_PIECE, PIECE_GROUP, Piece, Program, pieces, words};
use crate::philox;

const GROUP_SIZE: u32 = 256;
/// Samples of one group: enough for each of its threads to repay its start.
const PIECE: u32 = GROUP_SIZE * 256;
/// Pieces of one dispatch, 2^29 samples: tens of milliseconds on a small GPU, which must answer its driver's watchdog in seconds.
const PIECES: usize = 1 << 13;
/// Dispatches that the device has at once: one runs while the host reads the other.
const AHEAD: usize = 2;

/// Of a lease: the list of pieces, and the hits of each twice.
pub(super) fn need() -> GpuNeed {
    let per_piece = 16 + 2 * 4;
    let dispatches = Dispatches {
        at_once: AHEAD as u64 + 1,
        buffers: 4,
        fixed: 8,
        per_task: per_piece,
        per_unit: per_piece as f64 / f64::from(PIECE),
        most: PIECES as u64 * per_piece,
        stays: 0,
    };
    dispatches.need()
}

pub(super) fn hits(gpu: &Gpu, seed: u64, ranges: &[(u64, u64)]) -> Result<Vec<u64>, KernelError> {
    let mut hits = vec![0; ranges.len()];
    let mut pieces = pieces(ranges.iter().map(|(_, count)| *count), PIECE).peekable();
    let mut ahead = Ahead::new(AHEAD, |batch: Vec<Piece>, counts| {
        batch.iter().zip(counts).for_each(|(piece, count)| hits[piece.task] += u64::from(count));
    });
    while pieces.peek().is_some() {
        let batch: Vec<Piece> = pieces.by_ref().take(PIECES).collect();
        let list = words(batch.iter().flat_map(|piece| {
            let first = ranges[piece.task].0 + piece.start;
            [first as u32, (first >> 32) as u32, piece.count, 0]
        }));
        let program = Program {
            name: "monte_carlo_pi",
            wgsl: &[include_str!("monte_carlo_pi.wgsl"), INDEX_PIECE, PIECE_GROUP, philox::WGSL, gpu.mul_wide()],
            constants: &[("group_size", GROUP_SIZE)],
        };
        let key = words([seed as u32, (seed >> 32) as u32]);
        let groups = batch.len() as u32;
        let run = gpu.start(&Dispatch { program, inputs: &[&[&list], &[&key]], output_bytes: u64::from(groups) * 4, groups })?;
        ahead.push(batch, run)?;
    }
    ahead.finish()?;
    Ok(hits)
}
