//! Writes for each word the files that have it.
//!
//! Shapes    runs of `inverted_index`, in task order -> CSV with the heading word,file,count: one row for each word and file, words rising (compared as
//!           bytes), files in the order of the input; or JSON lines, one for each word: {"word":..,"files":\[{"file":..,"count":..},..\]}
//! Limits    memory: a MiB and the files of one word, beside the partition, which is mapped; where there is no file to write to, the part
//! Agreement exact: a file's tasks follow each other; counts are u64; no GPU twin: it copies bytes
//! Errors    a damaged run; a count beyond 64 bits
//! Source    merging: Knuth, The Art of Computer Programming 3, section 5.4.1; CSV: RFC 4180, with \n line ends; JSON lines: jsonlines.org

use std::cmp::Reverse;

use crate::api::*;
use crate::cells::{push_csv, push_json};
use crate::gather;
use crate::pieces::{self, Pieces};
use crate::run::{Merge, count_value};

pub struct MergePostings;

static DESCRIPTOR: Descriptor = gather::descriptor(
    "merge_postings",
    "Writes for each word the files that have it, and how often",
    &["words", "postings"],
    &["csv", "jsonl"],
);

impl Kernel for MergePostings {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        Ok(Box::new(PreparedMerge { json: stage.format == "jsonl" }))
    }
}

struct PreparedMerge {
    json: bool,
}

impl Prepared for PreparedMerge {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        pieces::whole(|part| self.run_streamed(task, part))
    }

    /// The part goes out while it is made.
    fn memory(&self, _input_bytes: u64) -> u64 {
        TASK_BYTES
    }

    fn run_streamed(&self, task: &Task<'_>, part: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        let damaged = |what: &str| KernelError::Failed(format!("shuffle block is damaged: {what}"));
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
        let mut files: Vec<Option<&[u8]>> = vec![None; blocks.len()];
        let mut postings = Postings { json: self.json, out: Pieces::new(part), words: 0, rows: 0, best: Vec::new() };
        if !self.json {
            postings.out.bytes.extend_from_slice(b"word,file,count\n");
        }
        let mut read = 0;
        let mut word: &[u8] = b"";
        let mut found: Vec<(&[u8], u64)> = Vec::new();
        while let Some((run, record)) = merge.next_with_run()? {
            let file = files.get_mut(run).ok_or_else(|| damaged("a run too many"))?;
            if record.key.is_empty() {
                *file = Some(record.value);
                continue;
            }
            read += 1;
            let file = file.ok_or_else(|| damaged("it does not begin with the name of its file"))?;
            if record.key != word {
                postings.write(word, &found)?;
                word = record.key;
                found.clear();
            }
            let count = count_value(record.value)?;
            match found.last_mut() {
                Some((last, sum)) if *last == file => {
                    let text = || KernelError::Input(format!("the count of '{}' exceeds 64 bits", String::from_utf8_lossy(word)));
                    *sum = sum.checked_add(count).ok_or_else(text)?;
                }
                _ => found.push((file, count)),
            }
        }
        postings.write(word, &found)?;
        let Postings { out, words, rows, best, json } = postings;
        out.finish()?;
        let preview = best.into_iter().map(|(Reverse(weight), cells)| PreviewRow { cells, weight }).collect();
        let columns = ["word", "file", "count"].map(str::to_owned).to_vec();
        let part = Part {
            extension: if json { "jsonl" } else { "csv" },
            rows: if json { words } else { rows },
            columns,
            preview,
            ..Part::default()
        };
        Ok(TaskOutput { tallies: vec![words, rows], blocks: Vec::new(), part: Some(part), records: Records { read, made: 0 } })
    }
}

struct Postings<'a> {
    json: bool,
    out: Pieces<'a>,
    words: u64,
    rows: u64,
    /// The largest counts; equal ones by word and file, as the rows of different parts are compared.
    best: Vec<(Reverse<u64>, Vec<String>)>,
}

impl Postings<'_> {
    fn write(&mut self, word: &[u8], files: &[(&[u8], u64)]) -> Result<(), KernelError> {
        if files.is_empty() {
            return Ok(());
        }
        self.words += 1;
        if self.json {
            self.out.bytes.extend_from_slice(b"{\"word\":");
            push_json(&mut self.out.bytes, word);
            self.out.bytes.extend_from_slice(b",\"files\":[");
        }
        for (index, (file, count)) in files.iter().enumerate() {
            let out = &mut self.out.bytes;
            if self.json {
                out.extend_from_slice(if index == 0 { &b"{\"file\":"[..] } else { &b",{\"file\":"[..] });
                push_json(out, file);
                out.extend_from_slice(format!(",\"count\":{count}}}").as_bytes());
            } else {
                push_csv(out, word);
                out.push(b',');
                push_csv(out, file);
                out.extend_from_slice(format!(",{count}\n").as_bytes());
            }
            self.offer(word, file, *count);
            self.rows += 1;
        }
        if self.json {
            self.out.bytes.extend_from_slice(b"]}\n");
        }
        self.out.row_ends()
    }

    fn offer(&mut self, word: &[u8], file: &[u8], count: u64) {
        if self.best.len() == PREVIEW_ROWS && self.best.last().is_some_and(|(Reverse(least), _)| count < *least) {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let row = (Reverse(count), vec![text(word), text(file), count.to_string()]);
        let at = self.best.partition_point(|better| *better <= row);
        self.best.insert(at, row);
        self.best.truncate(PREVIEW_ROWS);
    }
}
