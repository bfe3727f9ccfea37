//! Puts together what all splits have seen of each group and writes one table, sorted by the groups' keys.
//!
//! Shapes    records of `group_by` -> a table with the columns of `by` and `aggregate`, as CSV with a heading, JSON lines, Arrow or Parquet. Keys sort as
//!           bytes, column by column: "10" comes before "9". Each partition is a sorted part of its own
//! Limits    memory: one group at a time, and the part as a whole
//! Agreement exact; no GPU twin. Tasks are added in their order; see `group_by` for what order can change (nothing, for decimals of 18 digits)
//! Errors    a damaged record; a sum beyond 38 digits; in Arrow and Parquet, a key that is not UTF-8. There numbers are the nearest f64
//! Source    merging: Knuth, The Art of Computer Programming 3, section 5.4.1; CSV: RFC 4180, with \n line ends; JSON lines: jsonlines.org
//!
//! A group without a value has an empty cell (JSON: null) for sum, min, max and mean, as in SQL. Decimals are written without zeros at their end.

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::cells::{push_csv, push_json};
use crate::gather;
use crate::group_by::{Group, Output, PARAMS, Plan, key_cells};
use crate::params::Resolved;
use crate::run::Merge;
use crate::table_form::{FORMS, Form};
use raftwerk_formats::{Cell, TableWriter};

pub struct MergeGroups;

static DESCRIPTOR: Descriptor = Descriptor {
    params: &PARAMS,
    ..gather::descriptor("merge_groups", "Adds what all splits have seen of each group; one table sorted by key", &["groups"], &FORMS)
};

impl Kernel for MergeGroups {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let plan = Plan::parse(DESCRIPTOR.name, params.text("by"), params.text("aggregate"))?;
        Ok(Box::new(PreparedMerge { plan, form: Form::of(DESCRIPTOR.name, &stage.format)? }))
    }
}

struct PreparedMerge {
    plan: Plan,
    form: Form,
}

impl Prepared for PreparedMerge {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
        let mut out = Table::new(&self.plan, self.form)?;
        out.heading();
        let mut current: Option<(&[u8], Group)> = None;
        while let Some(record) = merge.next_record()? {
            match &mut current {
                Some((key, group)) if *key == record.key => group.add(&self.plan, record.value)?,
                _ => {
                    let mut group = Group::new(&self.plan);
                    group.add(&self.plan, record.value)?;
                    if let Some((key, group)) = current.replace((record.key, group)) {
                        out.row(key, &group)?;
                    }
                }
            }
        }
        if let Some((key, group)) = current {
            out.row(key, &group)?;
        }
        let bytes = match out.columns {
            Some(columns) => columns.finish().map_err(KernelError::of_table)?,
            None => out.bytes,
        };
        let columns = self.plan.headings.clone();
        let part = Part { extension: self.form.extension(), bytes, rows: out.rows, columns, preview: out.preview };
        Ok(TaskOutput { tallies: vec![part.rows], blocks: Vec::new(), part: Some(part), records: Records { read: merge.taken(), made: 0 } })
    }
}

struct Table<'a> {
    plan: &'a Plan,
    form: Form,
    bytes: Vec<u8>,
    /// Instead of bytes, where the form is a file of columns.
    columns: Option<TableWriter>,
    rows: u64,
    /// Falling number of rows, then rising key.
    preview: Vec<PreviewRow>,
}

impl<'a> Table<'a> {
    fn new(plan: &'a Plan, form: Form) -> Result<Table<'a>, KernelError> {
        let cells = plan.keys.iter().map(|_| Cell::Text).chain(plan.outputs.iter().map(|output| match output {
            Output::Rows | Output::Filled(_) | Output::Distinct(_) => Cell::Count,
            Output::Sum(_) | Output::Min(_) | Output::Max(_) | Output::Mean(_) => Cell::Number,
        }));
        let columns = match form {
            Form::Columns(kind) => Some(TableWriter::new(kind, plan.headings.iter().cloned().zip(cells)).map_err(KernelError::of_table)?),
            Form::Csv | Form::Jsonl => None,
        };
        Ok(Table { plan, form, bytes: Vec::new(), columns, rows: 0, preview: Vec::new() })
    }

    fn heading(&mut self) {
        if self.form == Form::Csv {
            self.csv_row(self.plan.headings.iter().map(|heading| heading.as_bytes()));
        }
    }

    fn row(&mut self, key: &[u8], group: &Group) -> Result<(), KernelError> {
        let damaged = || KernelError::Failed("shuffle block is damaged: a key has other columns than the job".into());
        let keys = key_cells(key, self.plan.keys.len()).ok_or_else(damaged)?;
        let cells: Vec<Option<String>> = self.plan.outputs.iter().map(|output| group.cell(*output)).collect();
        let texts = cells.iter().map(|cell| cell.as_deref().unwrap_or_default().as_bytes());
        let texts = keys.iter().map(Vec::as_slice).chain(texts);
        if let Some(columns) = &mut self.columns {
            columns.push(texts).map_err(KernelError::of_table)?;
        } else if self.form == Form::Jsonl {
            self.json_row(&keys, &cells);
        } else {
            self.csv_row(texts);
        }
        self.rows += 1;
        // Of equal numbers the first to come has the smaller key and stays.
        if self.preview.len() < PREVIEW_ROWS || group.rows > self.preview[PREVIEW_ROWS - 1].weight {
            let texts = keys.iter().map(|cell| String::from_utf8_lossy(cell).into_owned());
            let cells = texts.chain(cells.into_iter().map(Option::unwrap_or_default)).collect();
            let at = self.preview.partition_point(|better| better.weight >= group.rows);
            self.preview.insert(at, PreviewRow { cells, weight: group.rows });
            self.preview.truncate(PREVIEW_ROWS);
        }
        Ok(())
    }

    fn csv_row<'c>(&mut self, cells: impl Iterator<Item = &'c [u8]>) {
        let start = self.bytes.len();
        for (index, cell) in cells.enumerate() {
            if index > 0 {
                self.bytes.push(b',');
            }
            push_csv(&mut self.bytes, cell);
        }
        if self.bytes.len() == start {
            // One empty cell; a line without anything would be no row.
            self.bytes.extend(b"\"\"");
        }
        self.bytes.push(b'\n');
    }

    fn json_row(&mut self, keys: &[Vec<u8>], cells: &[Option<String>]) {
        let out = &mut self.bytes;
        for (index, heading) in self.plan.headings.iter().enumerate() {
            out.push(if index == 0 { b'{' } else { b',' });
            push_json(out, heading.as_bytes());
            out.push(b':');
            match (keys.get(index), index.checked_sub(keys.len()).and_then(|index| cells[index].as_deref())) {
                (Some(key), _) => push_json(out, key),
                // Numbers, except those beyond the range of f64.
                (None, Some(number)) if number.parse::<f64>().is_ok_and(f64::is_finite) => out.extend(number.bytes()),
                _ => out.extend(b"null"),
            }
        }
        out.extend(b"}\n");
    }
}
