//! Finds for each word the files that have it, and how often.
//!
//! Shapes    text: u8\[n\], whole lines of a file -> runs of (word, count), one per partition, each with a first record of the empty key whose value is the
//!           file's name; tallies lines, words, bytes. A word is a longest run of bytes that are not ASCII white space (`blanks`), or
//!           of ASCII letters, digits and bytes from 0x80 on (`letters`), which are the letters of other scripts in UTF-8
//! Limits    memory: some 60 bytes for each distinct word of a split, and the split once more where case is ignored
//! Agreement exact; no GPU twin: hashing words of uneven length is bound by memory latency
//! Errors    none of its own
//! Source    Dean and Ghemawat, MapReduce (OSDI 2004), section 2.3

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::api::*;
use crate::key;
use crate::keyed::{Key, KeyMap};
use crate::params::Resolved;
use crate::run::{push_count, push_record};

pub struct InvertedIndex;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "inverted_index",
    version: 1,
    kind: Kind::Map,
    summary: "Finds for each word the files that have it, and how often",
    accepts: Accepts::PlacedText,
    params: &[
        ParamSpec {
            name: "words",
            kind: ParamType::Choice(&["blanks", "letters"]),
            default: Some("blanks"),
            doc: "what ends a word: white space, or all but letters and digits",
        },
        ParamSpec {
            name: "ignore_case",
            kind: ParamType::Choice(&["no", "yes"]),
            default: Some("no"),
            doc: "ASCII letters become small ones",
        },
    ],
    tallies: &["lines", "words", "bytes"],
    shuffles: true,
    formats: &[],
    reduces_with: &["merge_postings"],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for InvertedIndex {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let letters = params.text("words") == "letters";
        let in_word = std::array::from_fn(|byte| match byte as u8 {
            byte if letters => byte.is_ascii_alphanumeric() || byte >= 0x80,
            byte => !byte.is_ascii_whitespace() && byte != 0x0b,
        });
        let ignore_case = params.text("ignore_case") == "yes";
        Ok(Box::new(PreparedIndex { in_word, ignore_case, partitions: stage.partitions.max(1) }))
    }
}

struct PreparedIndex {
    in_word: [bool; 256],
    ignore_case: bool,
    partitions: u32,
}

impl Prepared for PreparedIndex {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::PlacedText { path, bytes, .. } = task.input else {
            return Err(KernelError::Input("inverted_index reads text".into()));
        };
        let text = if self.ignore_case { Cow::Owned(bytes.to_ascii_lowercase()) } else { Cow::Borrowed(bytes) };
        let mut words = 0;
        let mut counts: KeyMap<'_, u64> = KeyMap::default();
        for word in text.split(|byte| !self.in_word[usize::from(*byte)]).filter(|word| !word.is_empty()) {
            words += 1;
            *counts.entry(Key(word)).or_default() += 1;
        }
        let mut counts: Vec<(&[u8], u64)> = counts.into_iter().map(|(Key(word), count)| (word, count)).collect();
        counts.sort_unstable();
        let made = counts.len() as u64;
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        for (word, count) in counts {
            let block = &mut blocks[key::partition(word, self.partitions) as usize];
            if block.is_empty() {
                push_record(block, b"", path.as_bytes());
            }
            push_count(block, word, count);
        }
        let newlines = memchr::memchr_iter(b'\n', bytes).count() as u64;
        let lines = newlines + u64::from(!bytes.is_empty() && !bytes.ends_with(b"\n"));
        Ok(TaskOutput { tallies: vec![lines, words, bytes.len() as u64], blocks, part: None, records: Records { read: lines, made } })
    }
}
