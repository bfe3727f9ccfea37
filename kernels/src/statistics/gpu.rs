//! One work group sums one piece of a task exactly and writes what it found; the host adds the pieces of a task.

use super::State;
use crate::api::{GpuNeed, KernelError};
use crate::gpu::primitives::GROUP_REDUCE;
use crate::gpu::{Ahead, Dispatches, ELEMENT, Gpu, PIECE_GROUP, Piece, Plan, Program, Use, pieces, words};
use crate::histogram::ElementType;

const GROUP_SIZE: u32 = 256;
/// Elements of one group: the shader holds sixteen per member, and its sums are wide enough for so many.
const PIECE: u32 = 16 * GROUP_SIZE;
/// Dispatches that the device has at once: one runs while the host fills the next.
const AHEAD: usize = 2;
/// What a group writes, see statistics.wgsl: its window and the sums in it.
const WINDOW_WORDS: usize = 12;
/// Limbs of the sums outside the window, each a word and its carries: 9 of positive elements, 9 of negative ones, 18 of squares.
const SIDE: usize = 9;
const OUTSIDE_WORDS: usize = 2 * 4 * SIDE;

pub(super) fn states(gpu: &Gpu, element: ElementType, tasks: &[&[u8]]) -> Result<Vec<State>, KernelError> {
    let mut states = vec![State::default(); tasks.len()];
    let all: Vec<Piece> = pieces(tasks.iter().map(|bytes| (bytes.len() / element.size()) as u64), PIECE).collect();
    let mut ahead = Ahead::new(AHEAD, |batch: &[Piece], results: Vec<u32>| {
        for (piece, words) in batch.iter().zip(results.chunks_exact(words_of(element))) {
            add(&mut states[piece.task], element, piece.count, words);
        }
    });
    let at_once = (gpu.batch_bytes() / (u64::from(PIECE) * element.size() as u64)).max(1) as usize;
    for batch in all.chunks(at_once) {
        ahead.push(batch, gpu.submit(&plan(gpu, element, tasks, batch))?)?;
    }
    ahead.finish()?;
    Ok(states)
}

/// Of a lease: values, the list of their pieces, and what each group writes, twice.
pub(super) fn need(batch_bytes: u64, element: ElementType) -> GpuNeed {
    let piece_bytes = u64::from(PIECE) * element.size() as u64;
    let per_piece = 8 + 2 * 4 * words_of(element) as u64;
    let dispatches = Dispatches {
        at_once: AHEAD as u64 + 1,
        buffers: 4,
        fixed: 0,
        per_task: per_piece + 4,
        per_unit: 1.0 + per_piece as f64 / piece_bytes as f64,
        most: (batch_bytes / piece_bytes).max(1) * (piece_bytes + per_piece),
        stays: 0,
    };
    dispatches.need()
}

fn words_of(element: ElementType) -> usize {
    if element == ElementType::F4 { WINDOW_WORDS + OUTSIDE_WORDS } else { WINDOW_WORDS }
}

pub(super) fn plan<'a>(gpu: &Gpu, element: ElementType, tasks: &[&'a [u8]], batch: &[Piece]) -> Plan<'a> {
    let size = element.size();
    let (mut parts, mut list, mut first_word) = (Vec::with_capacity(batch.len()), Vec::with_capacity(2 * batch.len()), 0);
    for piece in batch {
        let part = &tasks[piece.task][piece.start as usize * size..][..piece.count as usize * size];
        list.extend([first_word, piece.count]);
        first_word += part.len().div_ceil(4) as u32;
        parts.push(part);
    }
    let program = Program {
        name: "statistics",
        wgsl: &[ELEMENT, include_str!("statistics.wgsl"), PIECE_GROUP, GROUP_REDUCE, gpu.mul_wide()],
        constants: &[
            ("group_size", GROUP_SIZE),
            ("element", ELEMENT_NUMBERS.iter().position(|other| *other == element).unwrap_or(0) as u32),
            ("words_per_piece", words_of(element) as u32),
        ],
    };
    let mut plan = Plan::default();
    let list = plan.upload_bytes(words(list));
    let values = plan.upload(&parts);
    let results = plan.scratch(4 * (batch.len() * words_of(element)) as u64);
    plan.run(&program, &[Use::read(list), Use::read(values), Use::write(results)], batch.len() as u32);
    plan.result(results);
    plan
}

/// As the shader numbers them.
const ELEMENT_NUMBERS: [ElementType; 3] = [ElementType::U1, ElementType::U4, ElementType::F4];

/// Adds what one group found.
fn add(state: &mut State, element: ElementType, count: u32, words: &[u32]) {
    let (&[base, invalid, above, below, smallest, largest], rest) = words.split_first_chunk().expect("a group writes its window");
    let wide = |index: usize| u64::from(rest[index]) | u64::from(rest[index + 1]) << 32;
    state.count += u64::from(count - invalid);
    state.invalid += u64::from(invalid);
    state.above += u64::from(above);
    state.below += u64::from(below);
    state.smallest = state.smallest.min(smallest);
    state.largest = state.largest.max(largest);
    state.sum.add(wide(0) as i64, base);
    state.squares.add_unsigned(wide(2), 2 * base);
    state.squares.add_unsigned(wide(4), 2 * base + 64);
    if element == ElementType::F4 {
        let limb = |index: usize| wide(6 + 2 * index) as i64; // far below 2^63: a few thousand words
        for index in 0..SIDE {
            let bit = 32 * index as u32;
            state.sum.add(limb(index), bit);
            state.sum.add(-limb(SIDE + index), bit);
        }
        (0..2 * SIDE).for_each(|index| state.squares.add(limb(2 * SIDE + index), 32 * index as u32));
    }
}
