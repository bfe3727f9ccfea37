//! Writes the first line of each key.
//!
//! Shapes    runs of (key, line), in task order, as `dedup` makes them -> text: one line for each key, by rising keys (compared as bytes).
//!           An empty line in a record stands for the key itself; tallies rows, repeated: lines left out because an earlier split had the key
//! Limits    memory: a MiB beside the partition, which is mapped; where there is no file to write to, the part
//! Agreement exact: runs come in the order of their tasks; no GPU twin: it copies bytes
//! Errors    a damaged run
//! Source    merging: Knuth, The Art of Computer Programming 3, section 5.4.1

use crate::api::*;
use crate::gather;
use crate::pieces::{self, Pieces};
use crate::preview;
use crate::run::Merge;

pub struct FirstLines;

static DESCRIPTOR: Descriptor = gather::descriptor("first_lines", "Writes the first line of each key", &["rows", "repeated"], &["txt"]);

impl Kernel for FirstLines {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        Ok(Box::new(PreparedLines))
    }
}

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
        let mut merge = Merge::new(gather::blocks(&DESCRIPTOR, task)?.iter().map(|block| block.bytes))?;
        let (mut rows, mut repeated, mut preview) = (0, 0, Vec::new());
        let mut out = Pieces::new(part);
        let mut before: Option<&[u8]> = None;
        while let Some(record) = merge.next_record()? {
            if before == Some(record.key) {
                repeated += 1;
                continue;
            }
            before = Some(record.key);
            let line = if record.value.is_empty() { record.key } else { record.value };
            out.bytes.extend_from_slice(line);
            out.bytes.push(b'\n');
            out.row_ends()?;
            rows += 1;
            if preview.len() < PREVIEW_ROWS {
                preview.push(PreviewRow { cells: vec![preview::line(line)], weight: 0 });
            }
        }
        out.finish()?;
        let part = Part { extension: "txt", rows, columns: vec!["line".into()], preview, ..Part::default() };
        Ok(TaskOutput {
            tallies: vec![rows, repeated],
            blocks: Vec::new(),
            part: Some(part),
            records: Records { read: rows + repeated, made: 0 },
        })
    }
}
