//! Sorts records or lines: with `merge_runs` a total order over all parts (a TeraSort).
//!
//! Shapes    u8\[n\], whole records or whole lines -> per partition one sorted run, see `sorted_run`; tallies records, bytes.
//!           The survey of the input gives the keys at which the partitions are cut: partition p holds what lies between the cuts p - 1 and p
//! Limits    a split is smaller than 4 GiB and has fewer than 2^32 items; 16 bytes of memory for each item of a split (20 of a line), and its output;
//!           4096 partitions; of sampled keys the first 64 bytes cut
//! Agreement exact: by the bytes of the key, equal keys by their place in the input (split, then offset); no GPU twin, since keys are compared once
//!           per byte that is moved
//! Errors    a split of 4 GiB or more; records of another length than the job says
//! Source    range partitioning by a sample: O'Malley, TeraByte Sort on Apache Hadoop (2008). Sorting prefixes with indices instead of records:
//!           Nyberg et al., AlphaSort (SIGMOD 1994)

mod cpu;
mod cuts;
#[cfg(test)]
mod tests;

use crate::api::*;
use crate::params::Resolved;
use crate::sorted_run::{KEY_BYTES, KEY_OFFSET, ORDER, Order};
use cuts::Cuts;

/// Their cuts, of 64 bytes each, are part of the job's spec.
const MAX_PARTITIONS: u32 = 4096;

pub struct Sort;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "sort",
    version: 1,
    kind: Kind::Map,
    summary: "Sorts fixed-size records or lines of text by a range of their bytes",
    accepts: Accepts::AnyOf(&[Accepts::Text, Accepts::Records]),
    params: &[KEY_OFFSET, KEY_BYTES, ORDER],
    tallies: &["records", "bytes"],
    shuffles: true,
    formats: &[],
    reduces_with: &["merge_runs"],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for Sort {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, stage: &StageContext, samples: &[&[u8]]) -> Result<Vec<u8>, KernelError> {
        let order = order(stage)?;
        Ok(Cuts::of_samples(&order, samples, stage.partitions).encode())
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let (order, partitions) = (order(stage)?, stage.partitions.max(1));
        let cuts = Cuts::decode(&order, &stage.survey, partitions)?;
        Ok(Box::new(PreparedSort { order, cuts, partitions: partitions as usize }))
    }
}

fn order(stage: &StageContext) -> Result<Order, KernelError> {
    if stage.partitions > MAX_PARTITIONS {
        return Err(KernelError::Param(format!("sort makes at most {MAX_PARTITIONS} partitions, not {}", stage.partitions)));
    }
    Order::new(&Resolved::new(&DESCRIPTOR, &stage.params)?, stage.record_bytes)
}

struct PreparedSort {
    order: Order,
    cuts: Cuts,
    partitions: usize,
}

impl Prepared for PreparedSort {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let input = |text: String| KernelError::Input(text);
        let (bytes, record) = match task.input {
            Input::Records { record_bytes, bytes } => (bytes, record_bytes),
            Input::Text(bytes) => (bytes, 0),
            _ => return Err(input("sort reads records or text".into())),
        };
        if record != self.order.record as usize {
            return Err(input(format!("the input has records of {record} bytes where the job says {}", self.order.record)));
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(input(format!("sort takes splits smaller than 4 GiB, not {} bytes; set a smaller split size", bytes.len())));
        }
        let (records, blocks) = match record {
            0 => cpu::runs(&cpu::Lines::new(bytes), &self.order, &self.cuts, self.partitions),
            record => cpu::runs(&cpu::Records { record, bytes }, &self.order, &self.cuts, self.partitions),
        };
        let tallies = vec![records, bytes.len() as u64];
        Ok(TaskOutput { tallies, blocks, part: None, records: Records { read: records, made: records } })
    }

    /// Entries, and the runs that are gathered from them. How many lines there are nobody knows before.
    fn memory(&self, input_bytes: u64) -> u64 {
        let runs = input_bytes.saturating_add(TASK_BYTES);
        match self.order.record {
            0 => input_bytes.saturating_mul(2).saturating_add(runs),
            record => (input_bytes / u64::from(record)).saturating_mul(size_of::<u128>() as u64).saturating_add(runs),
        }
    }
}
