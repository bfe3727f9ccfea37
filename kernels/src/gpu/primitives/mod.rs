//! Reduce and scan: the two passes over data that other GPU programs are built from.
//!
//! Shapes    values: u32\[n\] or u64\[n\] (low word first) -> reduce: one value; scan: values\[n\], each the combination of all before it
//! Limits    n up to what fits the host's memory: what exceeds a dispatch is cut, see [`Gpu::memory`]
//! Agreement exact: the operations are associative and commutative over integers (sums wrap), so no order can change the result
//! Errors    those of the device; a length that is not whole values
//! Source    reduce: Harris, Optimizing Parallel Reduction in CUDA (2007), without its tricks for old cards. Scan: reduce-then-scan of
//!           Merrill and Grimshaw, Parallel Scan for Stream Architectures (2009), with the tiles of Hillis and Steele, Data Parallel
//!           Algorithms (CACM 29(12), 1986)
//!
//! Identity and laws: sum 0, minimum the largest value, maximum 0. Reduce needs an associative and commutative operation, scan an
//! associative one.
//!
//! **No group ever waits for another.** Groups meet only between dispatches, so both end on every adapter, also on those that start a
//! group only when another one has ended. Scan by look-back (Merrill and Garland, Single-pass Parallel Prefix Scan with Decoupled
//! Look-back, 2016) moves 2 words per element instead of 3, but spins until earlier groups have written; WebGPU promises no such progress.
//!
//! ```text
//! reduce   read n                         bytes moved per element: 1.0 x the least possible, which is to read each value once
//! scan     read n, then read and write n                           1.5 x the least possible, which is to read and write each once
//! ```

#[cfg(test)]
mod tests;

use super::{Ahead, Gpu, Plan, Program, Slot, Use};
use crate::api::KernelError;

const GROUP_SIZE: u32 = 256;
/// Values of one group: enough that what the groups leave is nothing beside the values, and a hundred groups in 2 MiB.
const PER_GROUP: u32 = 4096;

/// Combines two values of a `Value` in the order of the workgroup's members; a text for programs of other kernels. They declare `Value`,
/// `combine` (associative and commutative) and `group_size`, a power of two.
pub(crate) const GROUP_REDUCE: &str = include_str!("group_reduce.wgsl");

/// What two values become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Of u32, modulo 2^32.
    SumU32,
    /// Of u64, modulo 2^64.
    SumU64,
    MinU32,
    MaxU32,
}

impl Operation {
    fn wgsl(self) -> &'static str {
        match self {
            Operation::SumU32 => include_str!("sum_u32.wgsl"),
            Operation::SumU64 => include_str!("sum_u64.wgsl"),
            Operation::MinU32 => include_str!("min_u32.wgsl"),
            Operation::MaxU32 => include_str!("max_u32.wgsl"),
        }
    }

    fn names(self) -> [&'static str; 2] {
        match self {
            Operation::SumU32 => ["reduce sum u32", "scan sum u32"],
            Operation::SumU64 => ["reduce sum u64", "scan sum u64"],
            Operation::MinU32 => ["reduce min u32", "scan min u32"],
            Operation::MaxU32 => ["reduce max u32", "scan max u32"],
        }
    }

    /// Bytes of a value.
    pub fn size(self) -> usize {
        if self == Operation::SumU64 { 8 } else { 4 }
    }

    pub fn identity(self) -> u64 {
        if self == Operation::MinU32 { u64::from(u32::MAX) } else { 0 }
    }

    pub fn combine(self, a: u64, b: u64) -> u64 {
        match self {
            Operation::SumU32 => u64::from((a as u32).wrapping_add(b as u32)),
            Operation::SumU64 => a.wrapping_add(b),
            Operation::MinU32 => a.min(b),
            Operation::MaxU32 => a.max(b),
        }
    }
}

/// Adds to the plan what combines all values in `slot`; the result is the one value in the slot that it returns.
pub(crate) fn reduce(plan: &mut Plan<'_>, operation: Operation, slot: Slot) -> Slot {
    let mut slot = slot;
    loop {
        let partials = reduce_once(plan, operation, slot);
        if plan.bytes(partials) <= operation.size() as u64 {
            return partials;
        }
        slot = partials;
    }
}

/// One value for each [`PER_GROUP`] values.
fn reduce_once(plan: &mut Plan<'_>, operation: Operation, slot: Slot) -> Slot {
    let groups = groups_of(plan, operation, slot);
    let partials = plan.scratch(u64::from(groups) * operation.size() as u64);
    let program = Program {
        name: operation.names()[0],
        wgsl: &[include_str!("reduce.wgsl"), GROUP_REDUCE, operation.wgsl()],
        constants: &[("group_size", GROUP_SIZE), ("per_group", PER_GROUP)],
    };
    plan.run(&program, &[Use::read(slot), Use::write(partials)], groups);
    partials
}

fn groups_of(plan: &Plan<'_>, operation: Operation, slot: Slot) -> u32 {
    (plan.bytes(slot) / operation.size() as u64).div_ceil(u64::from(PER_GROUP)) as u32
}

/// Adds to the plan what replaces each value in `slot` by the combination of all before it (exclusive; the first becomes the identity).
pub(crate) fn scan(plan: &mut Plan<'_>, operation: Operation, slot: Slot) {
    let groups = groups_of(plan, operation, slot);
    let single = groups <= 1;
    // Where each group begins: what the groups before it amount to.
    let offsets = if single {
        plan.zeros(operation.size() as u64)
    } else {
        let partials = reduce_once(plan, operation, slot);
        scan(plan, operation, partials);
        partials
    };
    let program = Program {
        name: operation.names()[1],
        wgsl: &[include_str!("scan.wgsl"), operation.wgsl()],
        constants: &[("group_size", GROUP_SIZE), ("per_group", PER_GROUP), ("single", single.into())],
    };
    plan.run(&program, &[Use::read(offsets), Use::update(slot)], groups);
}

impl Gpu {
    /// All values combined; the identity if there are none.
    pub fn reduce(&self, operation: Operation, values: &[u8]) -> Result<u64, KernelError> {
        let mut all = operation.identity();
        self.in_batches(
            operation,
            values,
            |plan, slot| reduce(plan, operation, slot),
            |_, words| {
                all = operation.combine(all, value(words));
            },
        )?;
        Ok(all)
    }

    /// Each value replaced by the combination of all before it.
    pub fn scan(&self, operation: Operation, values: &[u8]) -> Result<Vec<u64>, KernelError> {
        let (mut scanned, mut before) = (Vec::with_capacity(values.len() / operation.size()), operation.identity());
        let program = |plan: &mut Plan<'_>, slot| {
            scan(plan, operation, slot);
            slot
        };
        self.in_batches(operation, values, program, |batch, words| {
            let values = words.chunks_exact(operation.size() / 4).map(value);
            scanned.extend(values.map(|value| operation.combine(before, value)));
            // The batches do not know of each other; the last value of one is missing in what its scan gave.
            let own = batch.rchunks_exact(operation.size()).next().map_or(operation.identity(), bytes_of);
            before = operation.combine(scanned.last().copied().unwrap_or(before), own);
        })?;
        Ok(scanned)
    }

    /// Runs a plan over batches that fit the device, two at once: one is copied while the other is computed.
    fn in_batches<'v>(
        &self,
        operation: Operation,
        values: &'v [u8],
        add: impl Fn(&mut Plan<'v>, Slot) -> Slot,
        mut take: impl FnMut(&'v [u8], &[u32]),
    ) -> Result<(), KernelError> {
        if !values.len().is_multiple_of(operation.size()) {
            return Err(KernelError::Input(format!("{} bytes are no whole number of values", values.len())));
        }
        let longest = (self.batch_bytes() as usize / operation.size()).max(1) * operation.size();
        let mut ahead = Ahead::new(1, |batch, words: Vec<u32>| take(batch, &words));
        for batch in values.chunks(longest) {
            let mut plan = Plan::default();
            let slot = plan.upload(&[batch]);
            let result = add(&mut plan, slot);
            plan.result(result);
            ahead.push(batch, self.submit(&plan)?)?;
        }
        ahead.finish()
    }
}

/// A value of one word or two.
fn value(words: &[u32]) -> u64 {
    words.iter().rev().fold(0, |value, word| value << 32 | u64::from(*word))
}

fn bytes_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
