//! Writes the files that map tasks made, one part for each.
//!
//! Shapes    per partition one record (number of the map task, its file) -> the file as it is. A job has as many partitions as map tasks,
//!           which the scheduler counts when the input is listed ([`Kernel::partition_per_task`]); part p is the file of task p
//! Limits    memory: a file
//! Agreement exact; no GPU twin: it copies bytes
//! Errors    none or several files in one partition, or that of another task; damaged shuffle data
//! Source    -

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gather;
use crate::key;
use crate::png_file::PngHeader;
use crate::run::Reader;

pub struct FilePerTask;

static DESCRIPTOR: Descriptor =
    gather::descriptor("file_per_task", "Writes the file that each map task made as a part of its own", &["files"], &["png"]);

impl Kernel for FilePerTask {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        Ok(Box::new(PreparedFilePerTask))
    }

    fn partition_per_task(&self) -> bool {
        true
    }
}

struct PreparedFilePerTask;

impl Prepared for PreparedFilePerTask {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let input = |text: String| KernelError::Input(text);
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let mut records = blocks.iter().flat_map(|block| Reader::new(block.bytes));
        let record = records.next().ok_or_else(|| input(format!("map task {} left no file", task.number)))??;
        if key::to_u64(record.key) != Some(task.number) {
            return Err(input(format!("partition {} holds the file of another map task", task.number)));
        }
        if records.next().is_some() {
            return Err(input(format!("partition {} holds more than one file", task.number)));
        }
        let header = PngHeader::read(record.value).map_err(|problem| input(format!("the file of map task {}: {problem}", task.number)))?;
        let cells = vec![task.number.to_string(), format!("{} x {}", header.width, header.height), gather::sized(record.value.len())];
        let part = Part {
            extension: "png",
            bytes: record.value.to_vec(),
            rows: u64::from(header.height),
            columns: vec!["image".into(), "pixels".into(), "size".into()],
            // Of equal weight, so that parts are shown in their order.
            preview: vec![PreviewRow { cells, weight: 0 }],
        };
        Ok(TaskOutput { tallies: vec![1], blocks: Vec::new(), part: Some(part), records: Records { read: 1, made: 0 } })
    }
}
