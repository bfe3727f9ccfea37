//! Counts values into bins of equal width.
//!
//! Shapes    values: u1, u4 or f4 \[n\] -> runs of (bin, count); tallies values, below, above, invalid (they sum to n with the bins'
//!           counts: values counts those that fell into a bin). Bin i holds low + i * w <= value < low + (i + 1) * w with
//!           w = (high - low) / bins; the range is half open, so `high` itself is above. Task 0 writes a record for every bin, the
//!           others for bins with values, so that the summed table has all bins
//! Limits    bins <= 4096 (16 KiB of workgroup memory, what every GPU has); low and high are finite
//! Agreement exact: the edges are made once in Rust in f64, rounded up to the next value of the element type and compared as integers
//!           in the values' order; -0.0 equals 0.0
//! Errors    low >= high; another element type. NaN is counted in `invalid`, infinities are below or above
//! Source    order-preserving float bits: Herf, Radix tricks (2001)

mod cpu;
mod edges;
mod gpu;
mod straight;
#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gpu::{BATCH_BYTES, Gpu};
use crate::key;
use crate::listed::wrong_type_of_task;
use crate::params::Resolved;
use crate::run::push_count;
use edges::Scale;
pub(crate) use edges::{ElementType, is_nan, rank_of_f4};

pub struct Histogram;

const MOST_BINS: u64 = 4096;
/// Beyond the largest f4, so that any f4 can lie in a bin.
const LIMIT: f64 = 4e38;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "histogram",
    version: 1,
    kind: Kind::Map,
    summary: "Counts values into bins of equal width",
    accepts: Accepts::Npy(&["u1", "u4", "f4"]),
    params: &[
        ParamSpec { name: "bins", kind: ParamType::U64 { min: 1, max: MOST_BINS }, default: Some("256"), doc: "number of bins" },
        ParamSpec { name: "low", kind: ParamType::F64 { min: -LIMIT, max: LIMIT }, default: Some("0"), doc: "lower end of the first bin" },
        ParamSpec {
            name: "high",
            kind: ParamType::F64 { min: -LIMIT, max: LIMIT },
            default: Some("256"),
            doc: "upper end of the last bin, not in it",
        },
    ],
    tallies: &["values", "below", "above", "invalid"],
    shuffles: true,
    formats: &[],
    reduces_with: &["sum_by_key"],
    reduce_defaults: &[("key_name", "bin"), ("value_name", "count"), ("key_type", "u64")],
    gpu: true,
    agreement: Agreement::Exact,
};

impl Kernel for Histogram {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn standard(&self) -> Option<Standard> {
        Some(Standard { params: &[], input: StandardInput::Npy { dtype: "u1", bytes: 256 << 20, split: 4 << 20 } })
    }

    fn gpu_memory(&self, params: &Params, _input: Option<&ListedInput>) -> Option<GpuNeed> {
        let params = Resolved::new(&DESCRIPTOR, params).ok()?;
        Some(gpu::need(BATCH_BYTES, params.u64("bins") as usize))
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let (low, high) = (params.f64("low"), params.f64("high"));
        if low >= high {
            return Err(KernelError::Param(format!("kernel 'histogram': parameter 'low' = {low} must be less than 'high' = {high}")));
        }
        let bins = params.u64("bins") as usize;
        let scales = [ElementType::U1, ElementType::U4, ElementType::F4].map(|element| Scale::new(element, bins, low, high));
        Ok(Box::new(PreparedHistogram { scales, partitions: stage.partitions.max(1) }))
    }
}

struct PreparedHistogram {
    /// By element type; what a file holds is known only when it is read.
    scales: [Scale; 3],
    partitions: u32,
}

/// What one task counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    bins: Vec<u64>,
    below: u64,
    above: u64,
    invalid: u64,
}

impl Prepared for PreparedHistogram {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let (scale, bytes) = self.input(task)?;
        Ok(self.output(task.number, &cpu::count(scale, bytes)))
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        let inputs = tasks.iter().map(|task| self.input(task)).collect::<Result<Vec<_>, _>>()?;
        let mut outputs = vec![TaskOutput::default(); tasks.len()];
        // Nearly always all tasks have one type; a job over mixed files takes a pass for each.
        for scale in &self.scales {
            let chosen: Vec<usize> = (0..tasks.len()).filter(|&index| inputs[index].0.element == scale.element).collect();
            let bytes: Vec<&[u8]> = chosen.iter().map(|&index| inputs[index].1).collect();
            for (index, counts) in chosen.iter().zip(gpu::count(gpu, scale, &bytes)?) {
                outputs[*index] = self.output(tasks[*index].number, &counts);
            }
        }
        Ok(outputs)
    }
}

impl PreparedHistogram {
    fn input<'a>(&self, task: &Task<'a>) -> Result<(&Scale, &'a [u8]), KernelError> {
        let Input::Elements { dtype, bytes } = task.input else {
            return Err(KernelError::Input("histogram reads the elements of .npy files".into()));
        };
        let scale = self.scales.iter().find(|scale| scale.element.name() == dtype);
        let scale = scale.ok_or_else(|| wrong_type_of_task(&Histogram, dtype))?;
        if !bytes.len().is_multiple_of(scale.element.size()) {
            return Err(KernelError::Input(format!("{} bytes are no whole number of {dtype} elements", bytes.len())));
        }
        Ok((scale, bytes))
    }

    fn output(&self, task: u64, counts: &Counts) -> TaskOutput {
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        let mut records = Records::default();
        for (bin, &count) in counts.bins.iter().enumerate() {
            if count > 0 || task == 0 {
                records.made += 1;
                let key = key::of_u64(bin as u64);
                push_count(&mut blocks[key::partition(&key, self.partitions) as usize], &key, count);
            }
        }
        let tallies = vec![counts.bins.iter().sum(), counts.below, counts.above, counts.invalid];
        TaskOutput { tallies, blocks, part: None, records }
    }
}
