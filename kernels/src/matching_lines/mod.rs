//! Writes the lines that `grep` has found, each with its file and its number in the file.
//!
//! Shapes    one block per split, in task order -> text: `path:number:line` and \n for each line, files in the order of the input, lines as they stand
//!           in the file. All of a file is in one partition. Lines are numbered from 1
//! Limits    memory: a MiB beside the partition, which is mapped; where there is no file to write to, the part
//! Agreement exact; no GPU twin: it copies bytes
//! Errors    damaged shuffle data. Behind a split that was set aside the number is `?`: nobody knows how many lines it has
//! Source    prefix sum over the newlines of the splits before

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::api::*;
use crate::gather;
use crate::grep::found::Found;
use crate::pieces::{self, Pieces};

pub struct MatchingLines;

static DESCRIPTOR: Descriptor =
    gather::descriptor("matching_lines", "Writes found lines with their file and line number", &["matches"], &["txt"]);

impl Kernel for MatchingLines {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        Ok(Box::new(PreparedLines))
    }

    /// By file and number.
    fn compare_preview(&self, _params: &Params, a: &[String], b: &[String]) -> Ordering {
        let place = |cells: &[String]| (cells.first().cloned(), cells.get(1).and_then(|number| number.parse::<u64>().ok()));
        place(a).cmp(&place(b))
    }
}

/// Of the line that comes next; nothing behind a split that is not there.
type Number = Option<u64>;

struct PreparedLines;

impl Prepared for PreparedLines {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        pieces::whole(|part| self.run_streamed(task, part))
    }

    /// The part goes out while it is made.
    fn memory(&self, _input_bytes: u64) -> u64 {
        TASK_BYTES
    }

    fn run_streamed(&self, task: &Task<'_>, part: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        let mut out = Pieces::new(part);
        let mut part = Part { extension: "txt", columns: ["file", "line", "text"].map(str::to_owned).to_vec(), ..Part::default() };
        // The file of the split before, its end and its newlines up to there.
        let mut before: Option<(&str, u64, Number)> = None;
        for block in gather::blocks(&DESCRIPTOR, task)?.iter().filter(|block| !block.bytes.is_empty()) {
            let mut found = Found::read(block.bytes)?;
            let starts_at = match before {
                Some((path, end, newlines)) if path == found.path => newlines.filter(|_| end == found.offset),
                _ => (found.offset == 0).then_some(0),
            };
            let mut number = starts_at;
            while let Some((gap, line)) = found.next_line()? {
                number = number.and_then(|number| number.checked_add(gap)?.checked_add(1));
                part.line(&mut out.bytes, found.path, number, line);
                out.row_ends()?;
            }
            let newlines = starts_at.and_then(|newlines| newlines.checked_add(found.newlines));
            before = Some((found.path, found.offset.saturating_add(found.bytes), newlines));
        }
        out.finish()?;
        Ok(TaskOutput { tallies: vec![part.rows], blocks: Vec::new(), records: Records { read: part.rows, made: 0 }, part: Some(part) })
    }
}

impl Part {
    fn line(&mut self, out: &mut Vec<u8>, path: &str, number: Number, line: &[u8]) {
        let number = number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        for piece in [path.as_bytes(), b":", number.as_bytes(), b":", line, b"\n"] {
            out.extend_from_slice(piece);
        }
        self.rows += 1;
        if self.preview.len() < PREVIEW_ROWS {
            // No more than a person reads, of a line that may have megabytes.
            let text = String::from_utf8_lossy(&line[..line.len().min(PREVIEW_BYTES)]).into_owned();
            self.preview.push(PreviewRow { cells: vec![path.to_owned(), number, text], weight: 0 });
        }
    }
}

const PREVIEW_BYTES: usize = 300;
