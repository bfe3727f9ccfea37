//! Puts lines under a key, so that a later stage can bring those of equal keys together.
//!
//! Shapes    text: u8\[n\], whole lines -> runs of (key, lines), one per partition; tallies lines and headings. The key is one column of
//!           the line; the lines of a key follow each other in the order of the input, joined by \n. They are written as CSV whatever they were
//!           separated by, so that whoever reads them need not know. A \r before the \n is left out, and so are empty lines
//! Limits    the split in memory, twice
//! Agreement exact; no GPU twin: text of uneven length
//! Errors    a line without the key's column; a quotation mark that is not closed on its line
//! Source    CSV: RFC 4180, but for line breaks inside a field. A quotation mark means something only where the separator is a comma

pub(crate) mod fields;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::api::*;
use crate::key;
use crate::params::Resolved;
use crate::run::push_record;
use fields::{SEPARATOR, Separator, split_off};

pub struct KeyLines;

/// Of a line in a message.
const SHOWN: usize = 60;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "key_lines",
    version: 1,
    kind: Kind::Map,
    summary: "Puts the lines of a table under one of their columns",
    accepts: Accepts::Text,
    params: &[
        ParamSpec { name: "column", kind: ParamType::U64 { min: 1, max: 1_000_000 }, default: Some("1"), doc: "the key's column, from 1" },
        SEPARATOR,
        ParamSpec {
            name: "value",
            kind: ParamType::Choice(&["line", "rest"]),
            default: Some("line"),
            doc: "what is kept of a line: all of it, or the columns beside the key",
        },
        ParamSpec { name: "heading", kind: ParamType::Text, default: Some(""), doc: "lines that read like this are left out" },
    ],
    tallies: &["lines", "headings"],
    shuffles: true,
    formats: &[],
    reduces_with: &["join"],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for KeyLines {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn costless_params(&self) -> &'static [&'static str] {
        &["heading"]
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        Ok(Box::new(PreparedLines {
            column: params.u64("column") as usize - 1,
            separator: Separator::named(params.text("separator")),
            whole_line: params.text("value") == "line",
            heading: params.text("heading").as_bytes().to_vec(),
            partitions: stage.partitions.max(1),
        }))
    }
}

struct PreparedLines {
    /// From 0.
    column: usize,
    separator: Separator,
    whole_line: bool,
    heading: Vec<u8>,
    partitions: u32,
}

/// A line with its key, before it is sorted.
struct Keyed<'a> {
    partition: u32,
    key: Cow<'a, [u8]>,
    value: Cow<'a, [u8]>,
}

impl Prepared for PreparedLines {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Text(text) = task.input else {
            return Err(KernelError::Input("key_lines reads text".into()));
        };
        let (mut lines, mut headings) = (0, 0);
        let mut keyed: Vec<Keyed<'_>> = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            if line == self.heading.as_slice() {
                headings += 1;
                continue;
            }
            lines += 1;
            let (key, value) =
                split_off(line, self.separator, self.column, self.whole_line).map_err(|problem| refused(text, line, &problem))?;
            keyed.push(Keyed { partition: key::partition(&key, self.partitions), key, value });
        }
        // Stable: lines of one key stay in the order of the input.
        keyed.sort_by(|a, b| (a.partition, &a.key).cmp(&(b.partition, &b.key)));
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        let mut value = Vec::new();
        for same in keyed.chunk_by(|a, b| a.partition == b.partition && a.key == b.key) {
            let [first, rest @ ..] = same else { continue };
            value.clear();
            value.extend_from_slice(&first.value);
            for next in rest {
                value.push(b'\n');
                value.extend_from_slice(&next.value);
            }
            push_record(&mut blocks[first.partition as usize], &first.key, &value);
        }
        let records = Records { read: lines + headings, made: lines };
        Ok(TaskOutput { tallies: vec![lines, headings], blocks, part: None, records })
    }
}

/// What is wrong with a line, which is a slice of the task's text.
pub(crate) fn refused(text: &[u8], line: &[u8], problem: &str) -> KernelError {
    let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
    let goes_on = if line.len() > SHOWN { ".." } else { "" };
    let at = line.as_ptr().addr() - text.as_ptr().addr();
    KernelError::Line { at, message: format!("line '{shown}{goes_on}': {problem}") }
}
