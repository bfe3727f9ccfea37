//! Counts how often each word occurs.
//!
//! Shapes    text: u8\[n\], whole lines -> runs of (word, count), one per partition; tallies lines, words, bytes.
//!           A word is a maximal run of bytes that are not ASCII white space (space, \t, \n, \x0b, \x0c, \r). Bytes need not be UTF-8;
//!           nothing is folded or stripped. The last line counts also without its newline
//! Limits    a split is smaller than 4 GiB; at most some 130 bytes of memory per distinct word of a split,
//!           kept for the next task of the stage
//! Agreement exact; no GPU twin, since hashing words of uneven length is bound by memory latency that CPUs hide better
//! Errors    a split of 4 GiB or more
//! Source    combining in the map task: Dean and Ghemawat, MapReduce (OSDI 2004), section 4.3

mod cpu;
mod scan;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::*;
use crate::params::Resolved;

pub struct WordCount;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "word_count",
    version: 1,
    kind: Kind::Map,
    summary: "Counts how often each white-space separated word occurs",
    accepts: Accepts::Text,
    params: &[],
    tallies: &["lines", "words", "bytes"],
    shuffles: true,
    formats: &[],
    reduces_with: &["sum_by_key"],
    reduce_defaults: &[("key_name", "word"), ("value_name", "count"), ("key_type", "text")],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for WordCount {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn standard(&self) -> Option<Standard> {
        Some(Standard { params: &[], input: StandardInput::Text { bytes: 64 << 20, split: 1 << 20 } })
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        Resolved::new(&DESCRIPTOR, &stage.params)?;
        Ok(Box::new(PreparedWordCount { partitions: stage.partitions.max(1), spare: Mutex::default() }))
    }
}

struct PreparedWordCount {
    partitions: u32,
    /// Memory of finished tasks; as many as ran at once, freed with the stage.
    spare: Mutex<Vec<cpu::Scratch>>,
}

impl PreparedWordCount {
    fn spare(&self) -> MutexGuard<'_, Vec<cpu::Scratch>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prepared for PreparedWordCount {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Text(text) = task.input else {
            return Err(KernelError::Input("word_count reads text".into()));
        };
        if u32::try_from(text.len()).is_err() {
            return Err(KernelError::Input(format!(
                "word_count takes splits smaller than 4 GiB, not {} bytes; set a smaller split size",
                text.len()
            )));
        }
        let mut scratch = self.spare().pop().unwrap_or_default();
        let counted = cpu::count(text, self.partitions, &mut scratch);
        self.spare().push(scratch);
        let records = Records { read: counted.lines, made: counted.distinct };
        Ok(TaskOutput { tallies: vec![counted.lines, counted.words, text.len() as u64], blocks: counted.blocks, part: None, records })
    }
}
