//! Finds the lines that match a pattern, and how many newlines each split has, so that lines can be numbered afterwards.
//!
//! Shapes    text: u8\[n\], whole lines of a file -> for the partition of the file one block; tallies lines, matches, bytes.
//!           A line ends at \n, which is not part of it (a \r before it is); the last one may lack its newline
//! Limits    the expression takes at most 16 MiB compiled; memory: the lines found in a split
//! Agreement exact; no GPU twin: literal search runs at the speed of memory on the CPU
//! Errors    an expression that cannot be read or is too large, at submit
//! Source    Gallant, regex-automata and ripgrep (2016 ..); numbering by counts of newlines and a prefix sum over splits

pub(crate) mod found;
mod pattern;
#[cfg(test)]
mod tests;

use crate::api::*;
use crate::key;
use crate::params::Resolved;
use found::Writer;
use pattern::{Pattern, Searcher};

pub struct Grep;

const YES: [&str; 2] = ["no", "yes"];

static DESCRIPTOR: Descriptor = Descriptor {
    name: "grep",
    version: 1,
    kind: Kind::Map,
    summary: "Finds lines that match a regular expression",
    accepts: Accepts::PlacedText,
    params: &[
        ParamSpec { name: "pattern", kind: ParamType::Text, default: None, doc: "regular expression, in the syntax of Rust's regex crate" },
        ParamSpec {
            name: "literal",
            kind: ParamType::Choice(&YES),
            default: Some("no"),
            doc: "take the pattern as it is, not as an expression",
        },
        ParamSpec { name: "ignore_case", kind: ParamType::Choice(&YES), default: Some("no"), doc: "letters match in upper and lower case" },
        ParamSpec { name: "invert", kind: ParamType::Choice(&YES), default: Some("no"), doc: "find the lines that do not match" },
    ],
    tallies: &["lines", "matches", "bytes"],
    shuffles: true,
    formats: &[],
    reduces_with: &["matching_lines"],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for Grep {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let yes = |name| params.text(name) == "yes";
        let pattern = Pattern::new(params.text("pattern"), yes("literal"), yes("ignore_case"))
            .map_err(|error| KernelError::Param(format!("kernel 'grep': parameter 'pattern' cannot be used: {error}")))?;
        Ok(Box::new(PreparedGrep { pattern, invert: yes("invert"), partitions: stage.partitions.max(1) }))
    }
}

struct PreparedGrep {
    pattern: Pattern,
    invert: bool,
    partitions: u32,
}

/// Searched, and counted while it is still in the cache.
const PIECE_BYTES: usize = 128 << 10;

impl Prepared for PreparedGrep {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::PlacedText { path, offset, bytes } = task.input else {
            return Err(KernelError::Input("grep reads text".into()));
        };
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        if bytes.is_empty() {
            return Ok(TaskOutput { tallies: vec![0; 3], blocks, ..TaskOutput::default() });
        }
        let mut writer = Writer::new(path);
        let mut pattern = self.pattern.searcher();
        let mut rest = bytes;
        while !rest.is_empty() {
            let end =
                rest.get(PIECE_BYTES..).and_then(|behind| memchr::memchr(b'\n', behind)).map_or(rest.len(), |at| PIECE_BYTES + at + 1);
            let (piece, behind) = rest.split_at(end);
            self.search(&mut pattern, piece, &mut writer);
            rest = behind;
        }
        let (newlines, matches) = (writer.newlines(), writer.lines());
        let lines = newlines + u64::from(!bytes.ends_with(b"\n"));
        blocks[key::partition(path.as_bytes(), self.partitions) as usize] = writer.finish(offset, bytes.len() as u64);
        let records = Records { read: lines, made: matches };
        Ok(TaskOutput { tallies: vec![lines, matches, bytes.len() as u64], blocks, part: None, records })
    }
}

impl PreparedGrep {
    /// Whole lines, the last one possibly without its newline.
    fn search(&self, pattern: &mut Searcher<'_>, piece: &[u8], writer: &mut Writer) {
        // What is behind `at` has been neither counted nor written.
        let mut at = 0;
        while let Some((start, end)) = pattern.next_line(piece, at) {
            match self.invert {
                true => writer.all(&piece[at..start]),
                false => writer.skip(newlines(&piece[at..start])),
            }
            let behind = (end + 1).min(piece.len());
            match self.invert {
                true => writer.skip((behind - end) as u64),
                false => writer.line(&piece[start..end], behind > end),
            }
            at = behind;
            if at == piece.len() {
                return;
            }
        }
        match self.invert {
            true => writer.all(&piece[at..]),
            false => writer.skip(newlines(&piece[at..])),
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
