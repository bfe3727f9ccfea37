//! Draws lines or records by chance, each with the same probability, without putting any back.
//!
//! Shapes    u8\[n\], whole lines or whole records -> one block of (key, item); tallies items, drawn.
//!           Every item has a random number; drawn are those whose number is below `share`, and of these the `count` with the least numbers
//!           (0: all). With a count the key is (number, task, place in the split), without it (task, place): 8 bytes each, big-endian.
//!           Tasks that follow each other share a partition, so that parts joined are in the order of the input
//! Limits    a count of at most 1,000,000, and then one partition; memory: the items drawn from a split
//! Agreement exact: the number of an item follows from `seed`, its task and its place in the split. Another size of splits draws others; no GPU
//!           twin: a sample moves next to nothing
//! Errors    none of its own
//! Source    bottom-k sampling: Cohen and Kaplan, Summarizing Data Using Bottom-k Sketches (PODC 2007). Numbers: Philox, see `philox.rs`

#[cfg(test)]
mod tests;

use std::collections::BinaryHeap;

use crate::api::*;
use crate::params::Resolved;
use crate::philox::philox;
use crate::run::push_record;

pub struct Sample;

/// Also of the reduce kernel, which inherits it.
pub(crate) const COUNT: ParamSpec = ParamSpec {
    name: "count",
    kind: ParamType::U64 { min: 0, max: 1_000_000 },
    default: Some("1000"),
    doc: "how many are drawn, if there are so many; 0: all that the share takes",
};

static DESCRIPTOR: Descriptor = Descriptor {
    name: "sample",
    version: 1,
    kind: Kind::Map,
    summary: "Draws lines or records by chance",
    accepts: Accepts::AnyOf(&[Accepts::Text, Accepts::Records]),
    params: &[
        COUNT,
        ParamSpec {
            name: "share",
            kind: ParamType::F64 { min: 0.0, max: 1.0 },
            default: Some("1"),
            doc: "with which probability one is taken, before the count is applied",
        },
        ParamSpec { name: "seed", kind: ParamType::U64 { min: 0, max: u64::MAX }, default: Some("0"), doc: "another one draws others" },
    ],
    tallies: &["items", "drawn"],
    shuffles: true,
    formats: &[],
    reduces_with: &["merge_sample"],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for Sample {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn costless_params(&self) -> &'static [&'static str] {
        &["seed"]
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        // Exact: a share is at most 1, and 2^64 times it rounds to a number of 65 bits.
        let below = (params.f64("share") * 2f64.powi(64)) as u128;
        Ok(Box::new(PreparedSample {
            count: params.u64("count") as usize,
            below,
            seed: params.u64("seed"),
            tasks: stage.tasks.max(1),
            partitions: stage.partitions.max(1),
        }))
    }
}

struct PreparedSample {
    /// 0: all.
    count: usize,
    /// Numbers below are drawn.
    below: u128,
    seed: u64,
    tasks: u64,
    partitions: u32,
}

impl Prepared for PreparedSample {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        match task.input {
            Input::Text(text) => Ok(self.draw(task.number, text.split_inclusive(|byte| *byte == b'\n'))),
            Input::Records { record_bytes, bytes } => Ok(self.draw(task.number, bytes.chunks_exact(record_bytes.max(1)))),
            _ => Err(KernelError::Input("sample reads text or records".into())),
        }
    }
}

impl PreparedSample {
    fn number(&self, task: u64, place: u64) -> u64 {
        let words = |number: u64| [number as u32, (number >> 32) as u32];
        let ([a, b], [c, d]) = (words(place), words(task));
        let [low, high, ..] = philox([a, b, c, d], words(self.seed));
        u64::from(high) << 32 | u64::from(low)
    }

    fn draw<'a>(&self, task: u64, items: impl Iterator<Item = &'a [u8]>) -> TaskOutput {
        let mut seen = 0;
        let mut all: Vec<(u64, &[u8])> = Vec::new();
        // The largest number on top: it goes when a smaller one comes.
        let mut least: BinaryHeap<(u64, u64, &[u8])> = BinaryHeap::new();
        for (place, item) in items.enumerate() {
            let place = place as u64;
            seen += 1;
            let number = self.number(task, place);
            if u128::from(number) >= self.below {
                continue;
            }
            if self.count == 0 {
                all.push((place, item));
            } else if least.len() < self.count {
                least.push((number, place, item));
            } else if least.peek().is_some_and(|top| number < top.0) {
                least.pop();
                least.push((number, place, item));
            }
        }
        let mut block = Vec::new();
        let drawn = all.len() + least.len();
        for (place, item) in all {
            push_record(&mut block, &[task.to_be_bytes(), place.to_be_bytes()].concat(), item);
        }
        for (number, place, item) in least.into_sorted_vec() {
            push_record(&mut block, &[number.to_be_bytes(), task.to_be_bytes(), place.to_be_bytes()].concat(), item);
        }
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        let partition = u128::from(task) * u128::from(self.partitions) / u128::from(self.tasks.max(task + 1));
        blocks[partition as usize] = block;
        let records = Records { read: seen, made: drawn as u64 };
        TaskOutput { tallies: vec![seen, drawn as u64], blocks, part: None, records }
    }
}
