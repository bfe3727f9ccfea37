//! Sorts the elements of a split and cuts them into partitions by ranges of keys; `merge_sorted` makes the sorted whole of them.
//!
//! Shapes    values: u4, u8 or f4 \[n\] -> per partition one record of its elements, sorted; tally values = n
//! Limits    a split in memory, twice
//! Agreement exact: elements are compared as integers in the values' order, and those with equal keys keep their order in the input, that
//!           is (split, offset). A partition follows from the key alone. f4 are in the total order of IEEE 754: -NaN, -inf .. -0.0, 0.0 ..
//!           inf, NaN
//! Errors    low > high; payload bits of f4, or as many as an element has; another element type
//! Source    CPU: see cpu.rs. GPU: Satish, Harris, Garland, Designing Efficient Sorting Algorithms for Manycore GPUs (IPDPS 2009): from the
//!           lowest digit up, each pass counts, scans, and scatters; see scatter.wgsl for the order within a group

pub mod cpu;
mod element;
mod gpu;
#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gpu::{BATCH_BYTES, Gpu};
use crate::listed::{one_type, wrong_type_of_task};
use crate::params::Resolved;
use crate::run::push_varint;
use cpu::Space;
pub(crate) use element::SortElement;
use element::{Bounds, Range};

pub struct RadixSort;

/// Beyond the largest f4.
const LIMIT: f64 = 4e38;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "radix_sort",
    version: 1,
    kind: Kind::Map,
    summary: "Sorts numbers, with a payload in their low bits if wanted",
    accepts: Accepts::Npy(&["u4", "u8", "f4"]),
    params: &[
        ParamSpec {
            name: "payload_bits",
            kind: ParamType::U64 { min: 0, max: 63 },
            default: Some("0"),
            doc: "so many low bits of an element travel with it and are not compared",
        },
        ParamSpec {
            name: "low",
            kind: ParamType::F64 { min: -LIMIT, max: LIMIT },
            default: Some("0"),
            doc: "where the partitions' even shares begin; with high = low, all values of the type are shared",
        },
        ParamSpec {
            name: "high",
            kind: ParamType::F64 { min: -LIMIT, max: LIMIT },
            default: Some("0"),
            doc: "where the partitions' even shares end; what lies outside goes to the first and the last one",
        },
    ],
    tallies: &["values"],
    shuffles: true,
    formats: &[],
    reduces_with: &["merge_sorted"],
    reduce_defaults: &[],
    gpu: true,
    agreement: Agreement::Exact,
};

impl Kernel for RadixSort {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn standard(&self) -> Option<Standard> {
        Some(Standard { params: &[], input: StandardInput::Npy { dtype: "u4", bytes: 128 << 20, split: 2 << 20 } })
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let (low, high) = (params.f64("low"), params.f64("high"));
        if low > high {
            return Err(KernelError::Param(format!("kernel 'radix_sort': low = {low} is above high = {high}")));
        }
        let range = (low < high).then_some(Range { low, high });
        let payload_bits = params.u64("payload_bits") as u32;
        let partitions = stage.partitions.max(1);
        let bounds = SortElement::ALL.map(|element| Bounds::new(element, range, payload_bits, partitions));
        Ok(Box::new(PreparedSort { bounds, payload_bits, space: Space::default() }))
    }

    fn gpu_memory(&self, params: &Params, input: Option<&ListedInput>) -> Option<GpuNeed> {
        let params = Resolved::new(&DESCRIPTOR, params).ok()?;
        let listed = input.and_then(|input| SortElement::named(&input.files.first()?.dtype));
        // Counts are most for short elements.
        Some(gpu::need(BATCH_BYTES, listed.unwrap_or(SortElement::U4), params.u64("payload_bits") as u32))
    }

    fn check_listed(&self, params: &Params, input: &ListedInput) -> Result<(), InputProblem> {
        one_type(input, "sorting is")?;
        let element = input.files.first().and_then(|file| SortElement::named(&file.dtype));
        // Said better where the parameters themselves are checked.
        let (Some(element), Ok(params)) = (element, Resolved::new(&DESCRIPTOR, params)) else { return Ok(()) };
        check_payload(params.u64("payload_bits") as u32, element)
    }
}

/// Whether an element has bits to spare for a payload, and some that are left for the key.
fn check_payload(payload_bits: u32, element: SortElement) -> Result<(), InputProblem> {
    let bits = 8 * element.size() as u32;
    if payload_bits > 0 && element == SortElement::F4 {
        return Err(InputProblem::new("payload_bits go with u4 and u8: an f4 has no bits to spare", "set payload_bits = 0"));
    }
    if payload_bits >= bits {
        let message = format!("payload_bits = {payload_bits} leaves no key in the {bits} bits of {}", element.name());
        return Err(InputProblem::new(message, format!("set payload_bits to less than {bits}")));
    }
    Ok(())
}

struct PreparedSort {
    /// By element type; what a file holds is known only when it is read.
    bounds: [Bounds; 3],
    payload_bits: u32,
    space: Space,
}

/// Elements of one task as they lie in the file, in words of their size.
#[derive(Debug)]
enum Values {
    Words(Vec<u32>),
    Longs(Vec<u64>),
}

impl Prepared for PreparedSort {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let (bounds, bytes) = self.input(task)?;
        Ok(self.output(task.number, bounds, &sorted(bounds.element, self.payload_bits, values(bounds.element, bytes), &self.space)))
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        let inputs = tasks.iter().map(|task| self.input(task)).collect::<Result<Vec<_>, _>>()?;
        let sources: Vec<_> = inputs.iter().map(|(bounds, bytes)| (bounds.element, *bytes)).collect();
        let sorted = gpu::sorted(gpu, self.payload_bits, &self.space, &sources)?;
        Ok(tasks.iter().zip(inputs).zip(sorted).map(|((task, (bounds, _)), values)| self.output(task.number, bounds, &values)).collect())
    }
}

/// The elements of a file.
fn values(element: SortElement, bytes: &[u8]) -> Values {
    if element.size() == 8 {
        Values::Longs(bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    } else {
        Values::Words(bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }
}

/// The specification: elements in the order of their keys, stable.
fn sorted(element: SortElement, payload_bits: u32, mut values: Values, space: &Space) -> Values {
    match &mut values {
        Values::Longs(values) => cpu::sort(values, payload_bits, space),
        Values::Words(values) => element.sort_words(values, payload_bits, space),
    }
    values
}

impl PreparedSort {
    fn input<'a>(&self, task: &Task<'a>) -> Result<(&Bounds, &'a [u8]), KernelError> {
        let Input::Elements { dtype, bytes } = task.input else {
            return Err(KernelError::Input("radix_sort reads the elements of .npy files".into()));
        };
        let bounds = self.bounds.iter().find(|bounds| bounds.element.name() == dtype);
        let bounds = bounds.ok_or_else(|| wrong_type_of_task(&RadixSort, dtype))?;
        let size = bounds.element.size();
        if !bytes.len().is_multiple_of(size) {
            return Err(KernelError::Input(format!("{} bytes are no whole number of {dtype} elements", bytes.len())));
        }
        check_payload(self.payload_bits, bounds.element)
            .map_err(|problem| KernelError::Input(format!("{}; fix: {}", problem.message, problem.fix)))?;
        Ok((bounds, bytes))
    }

    fn output(&self, task: u64, bounds: &Bounds, values: &Values) -> TaskOutput {
        let (blocks, count) = match values {
            Values::Words(values) => (self.blocks(task, bounds, values, u32::to_le_bytes), values.len()),
            Values::Longs(values) => (self.blocks(task, bounds, values, u64::to_le_bytes), values.len()),
        };
        TaskOutput { tallies: vec![count as u64], blocks, part: None, records: Records { read: 0, made: count as u64 } }
    }

    /// A record for each partition that got elements. Task 0 writes all, so that a partition without elements still has a type.
    fn blocks<T: Copy + Into<u64>, const N: usize>(&self, task: u64, bounds: &Bounds, values: &[T], le: fn(T) -> [u8; N]) -> Vec<Vec<u8>> {
        let tag = bounds.element.tag(self.payload_bits);
        let mut rest = values;
        let mut blocks = Vec::with_capacity(bounds.ends.len() + 1);
        for partition in 0..=bounds.ends.len() {
            // The last one gets what is left.
            let end = bounds
                .ends
                .get(partition)
                .map_or(rest.len(), |end| rest.partition_point(|value| bounds.element.rank((*value).into()) >> self.payload_bits < *end));
            let (own, behind) = rest.split_at(end);
            rest = behind;
            let mut block = Vec::new();
            if task == 0 || !own.is_empty() {
                block.reserve(N * own.len() + tag.len() + 16);
                push_varint(&mut block, tag.len() as u64);
                block.extend_from_slice(tag.as_bytes());
                push_varint(&mut block, (N * own.len()) as u64);
                own.iter().for_each(|value| block.extend_from_slice(&le(*value)));
            }
            blocks.push(block);
        }
        blocks
    }
}
