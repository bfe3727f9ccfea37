//! Puts together the best rows of all splits and writes the best of them as one table.
//!
//! Shapes    records of `top_k` -> a table with at most k rows, best first, as CSV with a heading, as JSON lines of strings, or as Arrow or Parquet, of
//!           which all columns are text
//! Limits    one partition
//! Agreement exact; no GPU twin. The order is total: by number, split and place, so that order of merging cannot show
//! Errors    more than one partition; a damaged record; in Arrow and Parquet, a cell that is not UTF-8
//! Source    merging: Knuth, The Art of Computer Programming 3, section 5.4.1; CSV: RFC 4180, with \n line ends; JSON lines: jsonlines.org

use crate::api::*;
use crate::cells::{push_csv, push_json};
use crate::gather;
use crate::run::{Merge, take_varint};
use crate::table_form::{FORMS, Form};
use crate::top_k::{Asked, PARAMS};
use raftwerk_formats::{Cell, TableWriter};

pub struct MergeTop;

static DESCRIPTOR: Descriptor =
    Descriptor { params: &PARAMS, ..gather::descriptor("merge_top", "Takes the best rows of all splits; one table", &["rows"], &FORMS) };

impl Kernel for MergeTop {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let asked = Asked::new(&DESCRIPTOR, &stage.params)?;
        if stage.tasks > 1 {
            return Err(KernelError::Param(format!("kernel 'merge_top' writes one table, not {}: set partitions = 1", stage.tasks)));
        }
        let form = Form::of(DESCRIPTOR.name, &stage.format)?;
        Ok(Box::new(PreparedMerge { asked, form }))
    }
}

struct PreparedMerge {
    asked: Asked,
    form: Form,
}

impl Prepared for PreparedMerge {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
        let mut part = Part { extension: self.form.extension(), columns: self.asked.columns.clone(), ..Part::default() };
        let mut columns = match self.form {
            Form::Columns(kind) => {
                let columns = self.asked.columns.iter().map(|name| (name.clone(), Cell::Text));
                Some(TableWriter::new(kind, columns).map_err(KernelError::of_table)?)
            }
            Form::Csv | Form::Jsonl => None,
        };
        if self.form == Form::Csv {
            let names: Vec<&[u8]> = self.asked.columns.iter().map(|name| name.as_bytes()).collect();
            self.row(&mut part.bytes, &names);
        }
        while part.rows < self.asked.k as u64
            && let Some(record) = merge.next_record()?
        {
            let damaged = || KernelError::Failed("shuffle block is damaged: a row has other cells than the job".into());
            let cells = cells(record.value).filter(|cells| cells.len() == self.asked.columns.len()).ok_or_else(damaged)?;
            match &mut columns {
                Some(columns) => columns.push(cells.iter().copied()).map_err(KernelError::of_table)?,
                None => self.row(&mut part.bytes, &cells),
            }
            if part.preview.len() < PREVIEW_ROWS {
                // Falling weights keep the rows in this order.
                let texts = cells.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
                part.preview.push(PreviewRow { cells: texts, weight: (PREVIEW_ROWS - part.preview.len()) as u64 });
            }
            part.rows += 1;
        }
        if let Some(columns) = columns {
            part.bytes = columns.finish().map_err(KernelError::of_table)?;
        }
        // Also those behind the first k: the task was given them.
        let read = merge.count()?;
        Ok(TaskOutput { tallies: vec![part.rows], blocks: Vec::new(), part: Some(part), records: Records { read, made: 0 } })
    }
}

impl PreparedMerge {
    fn row(&self, out: &mut Vec<u8>, cells: &[&[u8]]) {
        let json = self.form == Form::Jsonl;
        if let ([cell], false) = (cells, json)
            && cell.is_empty()
        {
            // A line without anything would be no row.
            return out.extend(b"\"\"\n");
        }
        for (index, (cell, name)) in cells.iter().zip(&self.asked.columns).enumerate() {
            if json {
                out.push(if index == 0 { b'{' } else { b',' });
                push_json(out, name.as_bytes());
                out.push(b':');
                push_json(out, cell);
            } else {
                if index > 0 {
                    out.push(b',');
                }
                push_csv(out, cell);
            }
        }
        out.extend(if json { &b"}\n"[..] } else { b"\n" });
    }
}

fn cells(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut cells = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let (cell, rest) = bytes.split_at_checked(length)?;
        cells.push(cell);
        bytes = rest;
    }
    Some(cells)
}
