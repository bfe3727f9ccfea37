//! From the lowest digit up: each pass counts the digits of each group, scans the counts, and scatters. All passes are one submission.

use super::cpu::Space;
use super::{SortElement, Values, sorted as sorted_by_cpu};
use crate::api::{GpuNeed, KernelError};
use crate::gpu::primitives::{Operation, scan};
use crate::gpu::{Ahead, Dispatches, Gpu, Plan, Program, Use};

const GROUP_SIZE: u32 = 256;
/// Elements of one group. More would leave large GPUs idle on short inputs, fewer make the counts a load.
const PER_GROUP: u32 = 4096;
const DIGIT_BITS: u32 = 8;
/// Dispatches that the device has at once: one is copied while the other is sorted.
const AHEAD: usize = 1;

/// The elements of each task, sorted.
pub(super) fn sorted(gpu: &Gpu, payload_bits: u32, space: &Space, tasks: &[(SortElement, &[u8])]) -> Result<Vec<Values>, KernelError> {
    let mut all: Vec<(Values, usize)> = tasks.iter().map(|(element, _)| (empty(*element), 0)).collect();
    let mut ahead = Ahead::new(AHEAD, |task: usize, words| {
        let (values, chunks) = &mut all[task];
        append(values, words);
        *chunks += 1;
    });
    let longest = longest_chunk(gpu.batch_bytes()) as usize;
    for (task, (element, bytes)) in tasks.iter().enumerate() {
        for chunk in bytes.chunks(longest) {
            ahead.push(task, gpu.submit(&plan(*element, payload_bits, chunk))?)?;
        }
    }
    ahead.finish()?;
    // The chunks of a long task are sorted each for itself.
    let merge = |((values, chunks), (element, _)): ((Values, usize), &(SortElement, &[u8]))| {
        if chunks > 1 { sorted_by_cpu(*element, payload_bits, values, space) } else { values }
    };
    Ok(all.into_iter().zip(tasks).map(merge).collect())
}

/// Two copies of a chunk are on the device.
fn longest_chunk(batch_bytes: u64) -> u64 {
    (batch_bytes / 2 / 8 * 8).max(8)
}

/// Of a lease: two copies of a chunk, its counts, what the scan of each pass leaves, and the sorted chunk again. A lease of many short tasks takes
/// less: only two chunks are there together, and each task is one at least.
pub(super) fn need(batch_bytes: u64, element: SortElement, payload_bits: u32) -> GpuNeed {
    let group_bytes = u64::from(PER_GROUP) * element.size() as u64;
    let count_bytes = 4u64 << DIGIT_BITS;
    let passes = u64::from((8 * element.size() as u32).saturating_sub(payload_bits).div_ceil(DIGIT_BITS));
    let per_unit = 3.0 + count_bytes as f64 / group_bytes as f64;
    let dispatches = Dispatches {
        at_once: AHEAD as u64 + 1,
        buffers: 4 + 2 * passes,
        fixed: 0,
        per_task: count_bytes + 3 * 4,
        per_unit,
        most: (longest_chunk(batch_bytes) as f64 * per_unit) as u64 + count_bytes,
        stays: 0,
    };
    dispatches.need()
}

fn empty(element: SortElement) -> Values {
    if element.size() == 8 { Values::Longs(Vec::new()) } else { Values::Words(Vec::new()) }
}

fn append(values: &mut Values, mut words: Vec<u32>) {
    match values {
        Values::Words(values) if values.is_empty() => *values = words,
        Values::Words(values) => values.append(&mut words),
        Values::Longs(values) => {
            values.extend(words.as_chunks::<2>().0.iter().map(|[low, high]| u64::from(*low) | u64::from(*high) << 32));
        }
    }
}

pub(super) fn plan(element: SortElement, payload_bits: u32, bytes: &[u8]) -> Plan<'_> {
    let mut plan = Plan::default();
    let groups = ((bytes.len() / element.size()) as u64).div_ceil(PER_GROUP.into()) as u32;
    let mut values = plan.upload(&[bytes]);
    let mut sorted = plan.scratch(bytes.len() as u64);
    // Of each digit the counts of all groups, one digit behind the other.
    let counts = plan.scratch(4 * (u64::from(groups) << DIGIT_BITS));
    for digit in (payload_bits..8 * element.size() as u32).step_by(DIGIT_BITS as usize) {
        let constants = [
            ("group_size", GROUP_SIZE),
            ("per_group", PER_GROUP),
            ("words", element.size() as u32 / 4),
            ("digit_bit", digit),
            ("is_float", u32::from(element == SortElement::F4)),
        ];
        let digit_wgsl = include_str!("digit.wgsl");
        let count = Program { name: "radix_sort count", wgsl: &[digit_wgsl, include_str!("count.wgsl")], constants: &constants };
        plan.run(&count, &[Use::read(values), Use::write(counts)], groups);
        scan(&mut plan, Operation::SumU32, counts);
        let scatter = Program { name: "radix_sort scatter", wgsl: &[digit_wgsl, include_str!("scatter.wgsl")], constants: &constants };
        plan.run(&scatter, &[Use::read(values), Use::read(counts), Use::write(sorted)], groups);
        (values, sorted) = (sorted, values);
    }
    plan.result(values);
    plan
}
