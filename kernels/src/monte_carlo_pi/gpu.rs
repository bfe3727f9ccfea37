//! One work group counts the hits of one piece of a task; the host adds the pieces of each task.

use std::collections::VecDeque;

use crate::api::KernelError;
use crate::gpu::{Dispatch, Gpu, Piece, Program, pieces, words};
use crate::philox;

const GROUP_SIZE: u32 = 256;
/// Samples of one group: enough for each of its threads to repay its start.
const PIECE: u32 = GROUP_SIZE * 256;
/// Pieces of one dispatch, 2^29 samples: tens of milliseconds on a small GPU, which must answer its driver's watchdog in seconds.
const PIECES: usize = 1 << 13;
/// Dispatches that the device has at once: one runs while the host reads the other.
const AHEAD: usize = 2;

pub(super) fn hits(gpu: &Gpu, seed: u64, ranges: &[(u64, u64)]) -> Result<Vec<u64>, KernelError> {
    let mut hits = vec![0; ranges.len()];
    let mut running = VecDeque::new();
    let mut pieces = pieces(ranges.iter().map(|(_, count)| *count), PIECE).peekable();
    let mut collect = |(batch, run): (Vec<Piece>, crate::gpu::Running<'_>)| -> Result<(), KernelError> {
        for (piece, count) in batch.iter().zip(run.finish()?) {
            hits[piece.task] += u64::from(count);
        }
        Ok(())
    };
    while pieces.peek().is_some() {
        let batch: Vec<Piece> = pieces.by_ref().take(PIECES).collect();
        let list = words(batch.iter().flat_map(|piece| {
            let first = ranges[piece.task].0 + piece.start;
            [first as u32, (first >> 32) as u32, piece.count, 0]
        }));
        let program = Program {
            name: "monte_carlo_pi",
            wgsl: &[include_str!("monte_carlo_pi.wgsl"), philox::WGSL, gpu.mul_wide()],
            constants: &[("group_size", GROUP_SIZE)],
        };
        let key = words([seed as u32, (seed >> 32) as u32]);
        let groups = batch.len() as u32;
        let run = gpu.start(&Dispatch { program, inputs: &[&[&list], &[&key]], output_bytes: u64::from(groups) * 4, groups })?;
        running.push_back((batch, run));
        if running.len() > AHEAD {
            running.pop_front().map_or(Ok(()), &mut collect)?;
        }
    }
    running.into_iter().try_for_each(collect)?;
    Ok(hits)
}
