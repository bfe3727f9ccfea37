//! One work group prices one piece of a task and sums it; the host adds the pieces of each task.

use super::{Market, Priced};
use crate::api::{GpuNeed, KernelError};
use crate::gpu::{Ahead, Dispatch, Dispatches, Gpu, INDEX_PIECE, PIECE_GROUP, Piece, Program, Running, pieces, words};
use crate::philox;

const GROUP_SIZE: u32 = 256;
/// Options of one group: enough for each of its threads to repay its start, and few enough that no sum of halves leaves 32 bits.
const PIECE: u32 = GROUP_SIZE * 64;
/// Words of sums per piece.
const SUMS: usize = 4;
/// Options of one dispatch at most, where no price is written: tens of milliseconds on a small GPU.
const OPTIONS: u64 = 1 << 27;
/// Dispatches that the device has at once: one runs while the host reads another.
const AHEAD: usize = 2;

pub(super) fn price(gpu: &Gpu, market: &Market, ranges: &[(u64, u64)], keep: bool) -> Result<Vec<Priced>, KernelError> {
    let rows = |count: u64| Vec::with_capacity(if keep { 2 * count as usize } else { 0 });
    let mut priced: Vec<Priced> = ranges.iter().map(|(_, count)| Priced { rows: rows(*count), ..Priced::default() }).collect();
    let at_once = pieces_at_once(gpu.batch_bytes(), keep) as usize;
    let mut pieces = pieces(ranges.iter().map(|(_, count)| *count), PIECE).peekable();
    let mut ahead = Ahead::new(AHEAD, |batch: Vec<Piece>, results| {
        let (sums, mut prices) = results.split_at(SUMS * batch.len());
        for (piece, sums) in batch.iter().zip(sums.as_chunks::<SUMS>().0) {
            let task = &mut priced[piece.task];
            let [calls_low, puts_low, calls_high, puts_high] = sums.map(u64::from);
            task.calls += calls_low + (calls_high << 16);
            task.puts += puts_low + (puts_high << 16);
            if keep {
                let (own, rest) = prices.split_at(2 * piece.count as usize);
                task.rows.extend(own.iter().map(|bits| f32::from_bits(*bits)));
                prices = rest;
            }
        }
    });
    while pieces.peek().is_some() {
        let batch: Vec<Piece> = pieces.by_ref().take(at_once).collect();
        let run = start(gpu, market, ranges, &batch, keep)?;
        ahead.push(batch, run)?;
    }
    ahead.finish()?;
    Ok(priced)
}

fn pieces_at_once(batch_bytes: u64, keep: bool) -> u64 {
    let by_memory = if keep { batch_bytes / 8 } else { OPTIONS };
    (OPTIONS.min(by_memory) / u64::from(PIECE)).max(1)
}

/// Of a lease: the list of pieces, the market, and sums and prices twice.
pub(super) fn need(batch_bytes: u64, keep: bool) -> GpuNeed {
    let per_piece = 16 + 2 * 4 * SUMS as u64;
    let per_option = if keep { 16 } else { 0 };
    let dispatches = Dispatches {
        at_once: AHEAD as u64 + 1,
        buffers: 4,
        fixed: 48,
        per_task: per_piece,
        per_unit: per_option as f64 + per_piece as f64 / f64::from(PIECE),
        most: pieces_at_once(batch_bytes, keep) * (per_piece + per_option * u64::from(PIECE)),
        stays: 0,
    };
    dispatches.need()
}

fn start<'a>(gpu: &'a Gpu, market: &Market, ranges: &[(u64, u64)], batch: &[Piece], keep: bool) -> Result<Running<'a>, KernelError> {
    let mut place = (SUMS * batch.len()) as u32;
    let list = words(batch.iter().flat_map(|piece| {
        let first = ranges[piece.task].0 + piece.start;
        let own = place;
        place += if keep { 2 * piece.count } else { 0 };
        [first as u32, (first >> 32) as u32, piece.count, own]
    }));
    let ends = |between: super::Between| [between.low.to_bits(), between.span.to_bits()];
    let market = [
        [market.seed as u32, (market.seed >> 32) as u32],
        ends(market.spot),
        ends(market.strike),
        ends(market.years),
        [market.rate.to_bits(), market.drift.to_bits()],
        [market.volatility.to_bits(), 0],
    ];
    let program = Program {
        name: "black_scholes",
        wgsl: &[include_str!("black_scholes.wgsl"), INDEX_PIECE, PIECE_GROUP, philox::WGSL, gpu.mul_wide()],
        constants: &[("group_size", GROUP_SIZE), ("keep", u32::from(keep))],
    };
    let inputs: &[&[&[u8]]] = &[&[&list], &[&words(market.into_iter().flatten())]];
    gpu.start(&Dispatch { program, inputs, output_bytes: 4 * u64::from(place), groups: batch.len() as u32 })
}
