//! Brings the lines of equal keys of two stages together.
//!
//! Shapes    left and right: runs of (key, lines), in task order, as `key_lines` makes them -> a CSV file with a heading: key, the columns of
//!           the left line, the columns of the right line. One row for each pair of a left and a right line of a key: for each left line, in
//!           task order and the order of its task's input, each right line in the same order. Keys rise (compared as bytes)
//!           `inner`: keys of both sides; `left`: every key of the left one; `full`: every key. Where a side has no line for a key,
//!           `missing_left` or `missing_right` stands for its columns
//! Limits    a part of at most 1 TiB; memory: the lines of one key, and a MiB; where there is no file to write to, the part
//! Agreement exact; no GPU twin: text of uneven length
//! Errors    a damaged run; a part that would be larger, with the key at which
//! Source    merge join: Graefe, Query Evaluation Techniques for Large Databases (ACM Computing Surveys, 1993), section 5.2

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::key_lines::fields::push_field;
use crate::params::Resolved;
use crate::pieces::{self, Pieces};
use crate::run::{Merge, Record};

pub struct Join;

/// Of a part: a key that joins everything with everything should not fill a disk.
const MAX_PART_BYTES: u64 = 1 << 40;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "join",
    version: 1,
    kind: Kind::Reduce,
    summary: "Joins the lines of two stages by key",
    accepts: Accepts::TwoShuffles,
    params: &[
        ParamSpec {
            name: "kind",
            kind: ParamType::Choice(&["inner", "left", "full"]),
            default: Some("inner"),
            doc: "which keys: of both sides, all of the left one, all",
        },
        ParamSpec { name: "columns", kind: ParamType::Text, default: Some("key,left,right"), doc: "the heading, as a line of CSV" },
        ParamSpec { name: "missing_left", kind: ParamType::Text, default: Some(""), doc: "the left columns where there is no left line" },
        ParamSpec {
            name: "missing_right",
            kind: ParamType::Text,
            default: Some(""),
            doc: "the right columns where there is no right line",
        },
    ],
    tallies: &["rows", "keys_of_both", "keys_left_only", "keys_right_only"],
    shuffles: false,
    formats: &["csv"],
    reduces_with: &[],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for Join {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn costless_params(&self) -> &'static [&'static str] {
        &["columns"]
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        if !matches!(stage.format.as_str(), "csv" | "") {
            return Err(KernelError::Param(format!("kernel 'join' writes csv, not '{}'", stage.format)));
        }
        for name in ["columns", "missing_left", "missing_right"] {
            if params.text(name).contains(['\n', '\r']) {
                return Err(KernelError::Param(format!("kernel 'join': parameter '{name}' must be one line")));
            }
        }
        Ok(Box::new(PreparedJoin {
            kind: match params.text("kind") {
                "left" => JoinKind::Left,
                "full" => JoinKind::Full,
                _ => JoinKind::Inner,
            },
            columns: params.text("columns").to_owned(),
            missing: [params.text("missing_left"), params.text("missing_right")].map(|text| text.as_bytes().to_vec()),
            limit: MAX_PART_BYTES,
        }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum JoinKind {
    Inner,
    Left,
    Full,
}

struct PreparedJoin {
    kind: JoinKind,
    columns: String,
    /// Of the left and the right side.
    missing: [Vec<u8>; 2],
    limit: u64,
}

/// The keys of one side with all of their lines.
struct Side<'a> {
    merge: Merge<'a>,
    next: Option<Record<'a>>,
}

impl<'a> Side<'a> {
    fn of(blocks: &[Block<'a>]) -> Result<Side<'a>, KernelError> {
        let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
        let next = merge.next_record()?;
        Ok(Side { merge, next })
    }

    /// All lines of the key, when it is the next one.
    fn take(&mut self, key: &[u8], lines: &mut Vec<&'a [u8]>) -> Result<(), KernelError> {
        lines.clear();
        while let Some(record) = self.next.filter(|record| record.key == key) {
            lines.extend(record.value.split(|byte| *byte == b'\n'));
            self.next = self.merge.next_record()?;
        }
        Ok(())
    }
}

impl Prepared for PreparedJoin {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        pieces::whole(|part| self.run_streamed(task, part))
    }

    /// The part goes out while it is made.
    fn memory(&self, _input_bytes: u64) -> u64 {
        TASK_BYTES
    }

    fn run_streamed(&self, task: &Task<'_>, part: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        let Input::Joined { left, right } = &task.input else {
            return Err(KernelError::Input("join reads shuffle blocks of two stages".into()));
        };
        let (mut left, mut right) = (Side::of(left)?, Side::of(right)?);
        let (mut left_lines, mut right_lines) = (Vec::new(), Vec::new());
        let mut table = Table::new(&self.columns, part);
        let (mut both, mut left_only, mut right_only, mut read) = (0, 0, 0, 0);
        loop {
            let key = match (left.next, right.next) {
                (Some(l), Some(r)) => l.key.min(r.key),
                (Some(one), None) | (None, Some(one)) => one.key,
                (None, None) => break,
            };
            left.take(key, &mut left_lines)?;
            right.take(key, &mut right_lines)?;
            read += (left_lines.len() + right_lines.len()) as u64;
            let is_wanted = match (left_lines.is_empty(), right_lines.is_empty()) {
                (false, false) => {
                    both += 1;
                    true
                }
                (false, true) => {
                    left_only += 1;
                    right_lines.push(&self.missing[1]);
                    self.kind != JoinKind::Inner
                }
                _ => {
                    right_only += 1;
                    left_lines.push(&self.missing[0]);
                    self.kind == JoinKind::Full
                }
            };
            if is_wanted {
                table.rows_of(key, &left_lines, &right_lines, self.limit)?;
            }
        }
        let tallies = vec![table.rows, both, left_only, right_only];
        let part = Some(table.into_part(&self.columns)?);
        Ok(TaskOutput { tallies, blocks: Vec::new(), part, records: Records { read, made: 0 } })
    }
}

struct Table<'a> {
    out: Pieces<'a>,
    /// Of the part so far.
    bytes: u64,
    rows: u64,
    preview: Vec<PreviewRow>,
}

impl<'a> Table<'a> {
    fn new(columns: &str, part: &'a mut dyn PartWriter) -> Table<'a> {
        let mut out = Pieces::new(part);
        out.bytes.extend_from_slice(columns.as_bytes());
        out.bytes.push(b'\n');
        Table { bytes: out.bytes.len() as u64, out, rows: 0, preview: Vec::new() }
    }

    fn rows_of(&mut self, key: &[u8], left: &[&[u8]], right: &[&[u8]], limit: u64) -> Result<(), KernelError> {
        let mut field = Vec::with_capacity(key.len());
        push_field(&mut field, key);
        let bytes = |lines: &[&[u8]]| lines.iter().map(|line| line.len() as u64).sum::<u64>();
        let (l, r) = (left.len() as u64, right.len() as u64);
        // Of each row the key, two commas and the line's end.
        let product = l.saturating_mul(r).saturating_mul(field.len() as u64 + 3);
        let more = product.saturating_add(bytes(left).saturating_mul(r)).saturating_add(bytes(right).saturating_mul(l));
        if more.saturating_add(self.bytes) > limit {
            let key = String::from_utf8_lossy(key);
            return Err(KernelError::Input(format!(
                "the part would be larger than {limit} bytes: key '{key}' joins {l} lines with {r}; use more partitions, or keys that fewer lines share"
            )));
        }
        self.bytes += more;
        for left in left {
            for right in right {
                for (n, piece) in [field.as_slice(), left, right].into_iter().enumerate() {
                    if n > 0 {
                        self.out.bytes.push(b',');
                    }
                    self.out.bytes.extend_from_slice(piece);
                }
                self.out.bytes.push(b'\n');
                self.out.row_ends()?;
                if self.preview.len() < PREVIEW_ROWS {
                    let cells = [key, left, right].map(|cell| String::from_utf8_lossy(cell).into_owned());
                    self.preview.push(PreviewRow { cells: cells.to_vec(), weight: 0 });
                }
            }
        }
        self.rows += l * r;
        Ok(())
    }

    fn into_part(self, columns: &str) -> Result<Part, KernelError> {
        self.out.finish()?;
        let mut headings: Vec<String> = columns.split(',').map(str::to_owned).collect();
        if headings.len() != 3 {
            // A side of several columns is one cell of the preview.
            headings = vec![headings[0].clone(), "left".to_owned(), "right".to_owned()];
        }
        Ok(Part { extension: "csv", rows: self.rows, columns: headings, preview: self.preview, ..Part::default() })
    }
}
