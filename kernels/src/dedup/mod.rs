//! Keeps one line of those that are equal, or equal in one column: the first of the input.
//!
//! Shapes    text: u8\[n\], whole lines -> runs of (key, line), one per partition; tallies lines, repeated: those left out within their split.
//!           The key is the line, or one column of it, without the line's end (\n or \r\n). Where it is the line, the record's value is empty.
//!           With a column, empty lines are left out; without, the empty line is one like every other
//! Limits    memory: some 60 bytes for each distinct key of a split, beside the split and its output
//! Agreement exact: which of equal keys is kept follows from split and place; no GPU twin: text of uneven length
//! Errors    a line without the key's column; a quotation mark that is not closed on its line
//! Source    combining in the map task: Dean and Ghemawat, MapReduce (OSDI 2004), section 4.3

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::api::*;
use crate::key;
use crate::key_lines::fields::{SEPARATOR, Separator, key_of};
use crate::key_lines::refused;
use crate::keyed::{Key, KeyMap};
use crate::params::Resolved;
use crate::run::push_record;

pub struct Dedup;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "dedup",
    version: 1,
    kind: Kind::Map,
    summary: "Keeps the first of equal lines, or of lines with equal keys",
    accepts: Accepts::Text,
    params: &[
        ParamSpec {
            name: "column",
            kind: ParamType::U64 { min: 0, max: 1_000_000 },
            default: Some("0"),
            doc: "the key's column, from 1; 0: the whole line",
        },
        SEPARATOR,
    ],
    tallies: &["lines", "repeated"],
    shuffles: true,
    formats: &[],
    reduces_with: &["first_lines"],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for Dedup {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let column = (params.u64("column") as usize).checked_sub(1);
        Ok(Box::new(PreparedDedup { column, separator: Separator::named(params.text("separator")), partitions: stage.partitions.max(1) }))
    }
}

struct PreparedDedup {
    /// From 0.
    column: Option<usize>,
    separator: Separator,
    partitions: u32,
}

impl Prepared for PreparedDedup {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Text(text) = task.input else {
            return Err(KernelError::Input("dedup reads text".into()));
        };
        let mut lines = 0;
        // Keys that do not stand in the text as they are, because quotation marks were taken out of them, live here; first all are made, then borrowed.
        let mut keyed: Vec<(Cow<'_, [u8]>, &[u8])> = Vec::new();
        let mut first: KeyMap<'_, &[u8]> = KeyMap::default();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(column) = self.column else {
                lines += 1;
                first.entry(Key(line)).or_default();
                continue;
            };
            if line.is_empty() {
                continue;
            }
            lines += 1;
            let key = key_of(line, self.separator, column).map_err(|problem| refused(text, line, &problem))?;
            match key {
                Cow::Borrowed(key) => {
                    first.entry(Key(key)).or_insert(line);
                }
                owned => keyed.push((owned, line)),
            }
        }
        // Of a borrowed and an owned key the earlier line stays: both are slices of one text.
        for (key, line) in &keyed {
            let kept = first.entry(Key(key)).or_insert(line);
            if line.as_ptr() < kept.as_ptr() {
                *kept = line;
            }
        }
        let mut distinct: Vec<(&[u8], &[u8])> = first.into_iter().map(|(Key(key), line)| (key, line)).collect();
        let records = Records { read: lines, made: distinct.len() as u64 };
        let repeated = lines - records.made;
        distinct.sort_unstable();
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        for (key, line) in distinct {
            push_record(&mut blocks[key::partition(key, self.partitions) as usize], key, line);
        }
        Ok(TaskOutput { tallies: vec![lines, repeated], blocks, part: None, records })
    }
}
