//! Writes the lines that `grep` has found, each with its file and its number in the file.
//!
//! Shapes    one block per split, in task order -> text: `path:number:line` and \n for each line, files in the order of the input, lines as they stand
//!           in the file. All of a file is in one partition. Lines are numbered from 1
//! Limits    memory: some MiB beside the partition, which is mapped, and twice the longest lines; where there is no file to write to, the part
//! Agreement exact; no GPU twin: it copies bytes
//! Errors    damaged shuffle data. Behind a split that was set aside the number is `?`: nobody knows how many lines it has
//! Source    prefix sum over the newlines of the splits before

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::api::*;
use crate::gather;
use crate::grep::found::{Found, Lines};
use crate::pieces;
use crate::preview;

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

/// Newlines before the line that comes next; nothing behind a split that is not there.
type Number = Option<u64>;

/// Of found lines that one thread writes at once.
const PIECE_BYTES: usize = 128 << 10;
/// Pieces that wait at most, each twice: one is made while the one before goes out.
const MOST_PIECES: usize = 8;

struct PreparedLines;

impl Prepared for PreparedLines {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        pieces::whole(|part| self.run_streamed(task, part))
    }

    /// The part goes out while it is made.
    fn memory(&self, _input_bytes: u64) -> u64 {
        3 * TASK_BYTES
    }

    /// Where each split's numbers begin is known from the headers alone, so idle threads help: there is one such task for each file.
    fn run_streamed(&self, task: &Task<'_>, out: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        let mut part = Part { extension: "txt", columns: ["file", "line", "text"].map(str::to_owned).to_vec(), ..Part::default() };
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let mut walk = Walk { blocks: blocks.iter(), split: None, before: None };
        let at_once = (2 * rayon::current_num_threads()).min(MOST_PIECES);
        let (mut written, mut made) = (Vec::new(), Vec::new());
        loop {
            let mut pieces = Vec::with_capacity(at_once);
            while pieces.len() < at_once
                && let Some(piece) = walk.next_piece()?
            {
                part.show(&piece);
                pieces.push(piece);
            }
            written.resize_with(pieces.len(), Vec::new);
            let mut went_out = Ok(());
            rayon::in_place_scope(|scope| {
                for (piece, bytes) in pieces.iter().zip(&mut written) {
                    scope.spawn(move |_| piece.write(bytes));
                }
                went_out = made.iter().try_for_each(|bytes: &Vec<u8>| out.write(bytes));
            });
            went_out?;
            if pieces.is_empty() {
                return Ok(TaskOutput {
                    tallies: vec![part.rows],
                    blocks: Vec::new(),
                    records: Records { read: part.rows, made: 0 },
                    part: Some(part),
                });
            }
            std::mem::swap(&mut made, &mut written);
        }
    }
}

/// Found lines of one file, behind each other.
struct Piece<'a> {
    path: &'a str,
    number: Number,
    lines: Lines<'a>,
}

/// Goes through the splits in their order.
struct Walk<'t, 'a> {
    blocks: std::slice::Iter<'t, Block<'a>>,
    /// Where it is: a split, and the newlines up to the line found last.
    split: Option<(Found<'a>, Number)>,
    /// The file of the split before, its end and its newlines up to there.
    before: Option<(&'a str, u64, Number)>,
}

impl<'a> Walk<'_, 'a> {
    fn next_piece(&mut self) -> Result<Option<Piece<'a>>, KernelError> {
        loop {
            if let Some((found, number)) = &mut self.split {
                if let Some(lines) = found.take(PIECE_BYTES)? {
                    let behind = number.and_then(|number| number.checked_add(lines.passed?));
                    return Ok(Some(Piece { path: found.path, number: std::mem::replace(number, behind), lines }));
                }
                self.split = None;
            }
            let Some(block) = self.blocks.find(|block| !block.bytes.is_empty()) else { return Ok(None) };
            let found = Found::read(block.bytes)?;
            let starts_at = match self.before {
                Some((path, end, newlines)) if path == found.path => newlines.filter(|_| end == found.offset),
                _ => (found.offset == 0).then_some(0),
            };
            let newlines = starts_at.and_then(|newlines| newlines.checked_add(found.newlines));
            self.before = Some((found.path, found.offset.saturating_add(found.bytes), newlines));
            self.split = Some((found, starts_at));
        }
    }
}

impl<'a> Piece<'a> {
    /// Each line with its number.
    fn numbered(&self) -> impl Iterator<Item = (Number, &'a [u8])> {
        let mut newlines = self.number;
        self.lines.map(move |(gap, line)| {
            newlines = newlines.and_then(|newlines| newlines.checked_add(gap)?.checked_add(1));
            (newlines, line)
        })
    }

    /// In place of what was there.
    fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let begins = [self.path.as_bytes(), b":"].concat();
        out.reserve(self.lines.bytes() + self.lines.count as usize * (begins.len() + MOST_DIGITS + 2));
        let mut digits = [0; MOST_DIGITS];
        for (number, line) in self.numbered() {
            out.extend_from_slice(&begins);
            out.extend_from_slice(number.map_or(b"?", |number| decimal(number, &mut digits)));
            out.push(b':');
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
}

/// Of a u64.
const MOST_DIGITS: usize = 20;

fn decimal(mut number: u64, digits: &mut [u8; MOST_DIGITS]) -> &[u8] {
    let mut at = MOST_DIGITS;
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

impl Part {
    fn show(&mut self, piece: &Piece<'_>) {
        self.rows += piece.lines.count;
        for (number, line) in piece.numbered().take(PREVIEW_ROWS - self.preview.len().min(PREVIEW_ROWS)) {
            let number = number.map_or_else(|| "?".to_owned(), |number| number.to_string());
            self.preview.push(PreviewRow { cells: vec![piece.path.to_owned(), number, preview::line(line)], weight: 0 });
        }
    }
}
