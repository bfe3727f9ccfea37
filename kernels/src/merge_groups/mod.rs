//! Puts together what all splits have seen of each group and writes one table, sorted by the groups' keys.
//!
//! Shapes    records of `group_by` -> a table with the columns of `by` and `aggregate`, as CSV with a heading or as JSON lines. Keys sort as
//!           bytes, column by column: "10" comes before "9". Each partition is a sorted part of its own
//! Limits    memory: one group at a time, and the part as a whole
//! Agreement exact; no GPU twin. Tasks are added in their order; see `group_by` for what order can change (nothing, for decimals of 18 digits)
//! Errors    a damaged record; a sum beyond 38 digits
//! Source    merging: Knuth, The Art of Computer Programming 3, section 5.4.1; CSV: RFC 4180, with \n line ends; JSON lines: jsonlines.org
//!
//! A group without a value has an empty cell (JSON: null) for sum, min, max and mean, as in SQL. Decimals are written without zeros at their end.

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::cells::{push_csv, push_json};
use crate::gather;
use crate::group_by::{Group, PARAMS, Plan, key_cells};
use crate::params::Resolved;
use crate::run::Merge;

pub struct MergeGroups;

static DESCRIPTOR: Descriptor = Descriptor {
    params: &PARAMS,
    ..gather::descriptor(
        "merge_groups",
        "Adds what all splits have seen of each group; one table sorted by key",
        &["groups"],
        &["csv", "jsonl"],
    )
};

impl Kernel for MergeGroups {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let plan = Plan::parse(DESCRIPTOR.name, params.text("by"), params.text("aggregate"))?;
        match stage.format.as_str() {
            "csv" | "" => Ok(Box::new(PreparedMerge { plan, json: false })),
            "jsonl" => Ok(Box::new(PreparedMerge { plan, json: true })),
            other => Err(KernelError::Param(format!("kernel 'merge_groups' writes csv or jsonl, not '{other}'"))),
        }
    }
}

struct PreparedMerge {
    plan: Plan,
    json: bool,
}

impl Prepared for PreparedMerge {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
        let mut out = Table { plan: &self.plan, json: self.json, bytes: Vec::new(), rows: 0, preview: Vec::new() };
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
        let extension = if self.json { "jsonl" } else { "csv" };
        let part = Part { extension, bytes: out.bytes, rows: out.rows, columns: self.plan.headings.clone(), preview: out.preview };
        Ok(TaskOutput { tallies: vec![part.rows], blocks: Vec::new(), part: Some(part) })
    }
}

struct Table<'a> {
    plan: &'a Plan,
    json: bool,
    bytes: Vec<u8>,
    rows: u64,
    /// Falling number of rows, then rising key.
    preview: Vec<PreviewRow>,
}

impl Table<'_> {
    fn heading(&mut self) {
        if !self.json {
            self.csv_row(self.plan.headings.iter().map(|heading| heading.as_bytes()));
        }
    }

    fn row(&mut self, key: &[u8], group: &Group) -> Result<(), KernelError> {
        let damaged = || KernelError::Input("shuffle block is damaged: a key has other columns than the job".into());
        let keys = key_cells(key, self.plan.keys.len()).ok_or_else(damaged)?;
        let cells: Vec<Option<String>> = self.plan.outputs.iter().map(|output| group.cell(*output)).collect();
        if self.json {
            self.json_row(&keys, &cells);
        } else {
            let cells = cells.iter().map(|cell| cell.as_deref().unwrap_or_default().as_bytes());
            self.csv_row(keys.iter().map(Vec::as_slice).chain(cells));
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
