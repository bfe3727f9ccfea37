//! Count, smallest, largest, sum, mean and variance of all elements, exactly.
//!
//! Shapes    values: u1, u4 or f4 \[n\] -> one record per task, for `merge_statistics`; tallies values (not NaN) and invalid (NaN), which sum to n
//! Limits    fewer than 2^64 elements; no others: sums are kept in 640 bits of fixed point
//! Agreement exact: smallest and largest are compared as integers in the values' order; sums and sums of squares are integers, in units
//!           of 2^-149 and 2^-298 for f4, and nothing is rounded before all tasks are added, so that neither the device, nor the order,
//!           nor the cut into splits can show. -0.0 equals 0.0
//! Errors    another element type. NaN is counted in `invalid`, infinities are in `values` and apart from the sums
//! Source    Kulisch, Computer Arithmetic and Validity (2013), chapter 8: long accumulators. Blocks of f4 in f64: see cpu.rs. On a GPU:
//!           the fixed-point windows of Collange, Defour, Graillat, Iakymchuk, Numerical reproducibility for the parallel reduction on
//!           multi- and many-core architectures (Parallel Computing 49, 2015), with what lies outside added by carries

#[cfg(target_arch = "x86_64")]
mod avx2;
mod bins;
mod cpu;
mod fixed;
mod gpu;
mod magnitude;
mod record;
#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gpu::{BATCH_BYTES, Gpu};
use crate::histogram::ElementType;
use crate::listed::{one_type, wrong_type_of_task};
use crate::params::Resolved;
use fixed::Fixed;
pub(crate) use magnitude::Magnitude;
pub(crate) use record::Moments;

pub struct Statistics;

/// f4 are whole numbers of 2^-149.
pub(crate) const SCALE: u32 = 149;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "statistics",
    version: 1,
    kind: Kind::Map,
    summary: "Count, smallest, largest, sum, mean and variance, exactly",
    accepts: Accepts::Npy(&["u1", "u4", "f4"]),
    params: &[],
    tallies: &["values", "invalid"],
    shuffles: true,
    formats: &[],
    reduces_with: &["merge_statistics"],
    reduce_defaults: &[],
    gpu: true,
    agreement: Agreement::Exact,
};

impl Kernel for Statistics {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn standard(&self) -> Option<Standard> {
        Some(Standard { params: &[], input: StandardInput::Npy { dtype: "f4", bytes: 256 << 20, split: 4 << 20 } })
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        Resolved::new(&DESCRIPTOR, &stage.params)?;
        Ok(Box::new(PreparedStatistics { partitions: stage.partitions.max(1) }))
    }

    fn gpu_memory(&self, _params: &Params, input: Option<&ListedInput>) -> Option<GpuNeed> {
        let listed = input.and_then(|input| element_of(input.files.first()?.dtype.as_bytes()));
        // Groups write most for f4.
        Some(gpu::need(BATCH_BYTES, listed.unwrap_or(ElementType::F4)))
    }

    fn check_listed(&self, _params: &Params, input: &ListedInput) -> Result<(), InputProblem> {
        one_type(input, "statistics are")
    }
}

struct PreparedStatistics {
    partitions: u32,
}

/// What one task has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    count: u64,
    invalid: u64,
    above: u64,
    below: u64,
    smallest: u32,
    largest: u32,
    sum: Fixed,
    squares: Fixed,
}

impl Default for State {
    fn default() -> State {
        let sum = Fixed::default();
        State { count: 0, invalid: 0, above: 0, below: 0, smallest: u32::MAX, largest: 0, squares: sum.clone(), sum }
    }
}

impl State {
    fn moments(&self) -> Moments {
        let (below_zero, size) = self.sum.value();
        let (positive, negative) = if below_zero { (Magnitude::default(), size) } else { (size, Magnitude::default()) };
        let State { count, invalid, above, below, smallest, largest, .. } = *self;
        Moments { count, invalid, above, below, smallest, largest, positive, negative, squares: self.squares.value().1 }
    }
}

impl Prepared for PreparedStatistics {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let (element, bytes) = input(task)?;
        Ok(self.output(element, &cpu::state(element, bytes)))
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        let inputs = tasks.iter().map(input).collect::<Result<Vec<_>, _>>()?;
        let mut outputs = vec![TaskOutput::default(); tasks.len()];
        for element in ELEMENTS {
            let chosen: Vec<usize> = (0..tasks.len()).filter(|&index| inputs[index].0 == element).collect();
            let bytes: Vec<&[u8]> = chosen.iter().map(|&index| inputs[index].1).collect();
            for (index, state) in chosen.iter().zip(gpu::states(gpu, element, &bytes)?) {
                outputs[*index] = self.output(element, &state);
            }
        }
        Ok(outputs)
    }
}

const ELEMENTS: [ElementType; 3] = [ElementType::U1, ElementType::U4, ElementType::F4];

/// The element type with this name in a record.
pub(crate) fn element_of(key: &[u8]) -> Option<ElementType> {
    ELEMENTS.into_iter().find(|element| element.name().as_bytes() == key)
}

fn input<'a>(task: &Task<'a>) -> Result<(ElementType, &'a [u8]), KernelError> {
    let Input::Elements { dtype, bytes } = task.input else {
        return Err(KernelError::Input("statistics reads the elements of .npy files".into()));
    };
    let element = element_of(dtype.as_bytes()).ok_or_else(|| wrong_type_of_task(&Statistics, dtype))?;
    if !bytes.len().is_multiple_of(element.size()) {
        return Err(KernelError::Input(format!("{} bytes are no whole number of {dtype} elements", bytes.len())));
    }
    Ok((element, bytes))
}

impl PreparedStatistics {
    fn output(&self, element: ElementType, state: &State) -> TaskOutput {
        // One table has all numbers, so there is one partition; `merge_statistics` refuses more.
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        state.moments().push(&mut blocks[0], element.name().as_bytes());
        TaskOutput { tallies: vec![state.count, state.invalid], blocks, part: None, records: Records { read: 0, made: 1 } }
    }
}
