//! One work group counts one piece of a task in its own memory and adds the result to the task's counters on the device.

use super::Counts;
use super::edges::{ElementType, Scale};
use crate::api::{GpuNeed, KernelError};
use crate::gpu::{Ahead, Dispatches, ELEMENT, Gpu, PIECE_GROUP, Piece, Plan, Program, Use, pieces, words};

const GROUP_SIZE: u32 = 256;
/// Least input of one group.
const PIECE_BYTES: usize = 64 << 10;
/// A group's input is so many times what it moves besides: the edges that it reads and the counters that it adds to.
const PIECE_RATIO: usize = 20;
/// Dispatches that the device has at once: one runs while the host fills the next.
const AHEAD: usize = 2;
/// Of a piece in the list.
const PIECE_WORDS_BYTES: u64 = 16;
/// A task's counters: its bins, then below, above, invalid.
const OTHERS: usize = 3;

/// Some pieces of consecutive tasks, and where their counts go.
pub(super) struct Batch {
    pieces: Vec<Piece>,
    first_task: usize,
}

pub(super) fn count(gpu: &Gpu, scale: &Scale, tasks: &[&[u8]]) -> Result<Vec<Counts>, KernelError> {
    let mut counts = vec![Counts { bins: vec![0; scale.bins], ..Counts::default() }; tasks.len()];
    let mut ahead = Ahead::new(AHEAD, |batch: Batch, results: Vec<u32>| {
        for (task, words) in results.chunks_exact(scale.bins + OTHERS).enumerate() {
            add(&mut counts[batch.first_task + task], words);
        }
    });
    for batch in batches(gpu, scale, tasks) {
        let run = gpu.submit(&plan(gpu, scale, tasks, &batch))?;
        ahead.push(batch, run)?;
    }
    ahead.finish()?;
    Ok(counts)
}

/// Of a lease: values, the list of their pieces, edges, and each task's counters twice.
pub(super) fn need(batch_bytes: u64, bins: usize) -> GpuNeed {
    let (edge_bytes, counter_bytes) = (4 * (bins + 1), 4 * (bins + OTHERS));
    let piece_bytes = PIECE_BYTES.max(PIECE_RATIO * (edge_bytes + 2 * counter_bytes)) as u64;
    let most_pieces = (batch_bytes / piece_bytes).max(1);
    let per_task = PIECE_WORDS_BYTES + 2 * counter_bytes as u64;
    let dispatches = Dispatches {
        at_once: AHEAD as u64 + 1,
        buffers: 5,
        fixed: edge_bytes as u64,
        per_task: per_task + 4,
        per_unit: 1.0 + PIECE_WORDS_BYTES as f64 / piece_bytes as f64,
        most: most_pieces * (piece_bytes + per_task + 4),
        stays: 0,
    };
    dispatches.need()
}

/// As many pieces per dispatch as its input and its counters allow. No dispatch holds 2^32 values, so its counters are words.
pub(super) fn batches(gpu: &Gpu, scale: &Scale, tasks: &[&[u8]]) -> Vec<Batch> {
    let piece_bytes = PIECE_BYTES.max(PIECE_RATIO * own_bytes(scale)).next_multiple_of(4);
    let most_pieces = (gpu.batch_bytes() / piece_bytes as u64).max(1) as usize;
    let most_tasks = (gpu.batch_bytes() / 4 / (4 * (scale.bins + OTHERS)) as u64).max(1) as usize;
    let longest = (piece_bytes / scale.element.size()) as u32;
    let elements = tasks.iter().map(|bytes| (bytes.len() / scale.element.size()) as u64);
    let mut batches: Vec<Batch> = Vec::new();
    for piece in pieces(elements, longest) {
        match batches.last_mut() {
            Some(batch) if batch.pieces.len() < most_pieces && piece.task - batch.first_task < most_tasks => batch.pieces.push(piece),
            _ => batches.push(Batch { first_task: piece.task, pieces: vec![piece] }),
        }
    }
    batches
}

/// What a group moves besides its values: edges, and counters to and fro.
fn own_bytes(scale: &Scale) -> usize {
    4 * scale.edges.len() + 2 * 4 * (scale.bins + OTHERS)
}

pub(super) fn plan<'a>(gpu: &Gpu, scale: &Scale, tasks: &[&'a [u8]], batch: &Batch) -> Plan<'a> {
    let size = scale.element.size();
    let mut parts = Vec::with_capacity(batch.pieces.len());
    let mut list = Vec::with_capacity(4 * batch.pieces.len());
    let mut first_word = 0;
    for piece in &batch.pieces {
        let part = &tasks[piece.task][piece.start as usize * size..][..piece.count as usize * size];
        list.extend([first_word, piece.count, (piece.task - batch.first_task) as u32, 0]);
        first_word += part.len().div_ceil(4) as u32;
        parts.push(part);
    }
    // A buffer is never empty: an edge that is not counted stands for none.
    let edges = words(scale.edges.iter().copied().chain(scale.edges.is_empty().then_some(0)));
    let element = match scale.element {
        ElementType::U1 => 0,
        ElementType::U4 => 1,
        ElementType::F4 => 2,
    };
    let (edge_count, groups) = (scale.edges.len(), batch.pieces.len() as u64);
    // In the group's own memory where that holds edges and bins; else each value searches the device's, through its caches.
    let fits = 4 * (edge_count + 1 + scale.bins) <= gpu.report().workgroup_memory_bytes as usize;
    let (search, edge_bytes) = if fits {
        (include_str!("edges_of_group.wgsl"), groups * edges.len() as u64)
    } else {
        let values: u64 = batch.pieces.iter().map(|piece| u64::from(piece.count)).sum();
        (include_str!("edges_of_device.wgsl"), values * 4 * u64::from(usize::BITS - edge_count.leading_zeros()))
    };
    let program = Program {
        name: "histogram",
        wgsl: &[ELEMENT, include_str!("histogram.wgsl"), search, PIECE_GROUP],
        constants: &[("group_size", GROUP_SIZE), ("bins", scale.bins as u32), ("edge_count", edge_count as u32), ("element", element)],
    };
    let last_task = batch.pieces.last().map_or(batch.first_task, |piece| piece.task);
    let counters = (last_task - batch.first_task + 1) * (scale.bins + OTHERS);

    let mut plan = Plan::default();
    let list = plan.upload_bytes(words(list));
    let values = plan.upload(&parts);
    let edges = plan.upload_bytes(edges);
    let output = plan.zeros(4 * counters as u64);
    let counted = groups * 4 * (scale.bins + OTHERS) as u64;
    let uses = [Use::read(list), Use::read(values), Use::read(edges).moving(edge_bytes), Use::update(output).moving(counted)];
    plan.run(&program, &uses, batch.pieces.len() as u32);
    plan.result(output);
    plan
}

fn add(counts: &mut Counts, words: &[u32]) {
    let (bins, others) = words.split_at(counts.bins.len());
    counts.bins.iter_mut().zip(bins).for_each(|(count, more)| *count += u64::from(*more));
    counts.below += u64::from(others[0]);
    counts.above += u64::from(others[1]);
    counts.invalid += u64::from(others[2]);
}
