//! Makes one sorted array of a partition's sorted pieces.
//!
//! Shapes    per task one record of sorted elements, see `radix_sort` -> an array \[n\] of the elements' type. Parts lie behind each other:
//!           part 0, 1, .. joined are the whole input, sorted
//! Limits    a partition in memory, twice
//! Agreement exact: stable, and tasks come in the order of their numbers, so elements with equal keys stand in their order in the input
//! Errors    tasks of different element types or payloads; a damaged record
//! Source    see `radix_sort`: sorting again costs two passes over memory, a merge of k pieces log2(k) comparisons per element

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::api::*;
use crate::gather;
use crate::npy::header as npy_header;
use crate::radix_sort::{SortElement, cpu};
use crate::run::Merge;

pub struct MergeSorted;

static DESCRIPTOR: Descriptor = gather::descriptor("merge_sorted", "Makes one sorted array of sorted pieces", &["values"], &["npy"]);

impl Kernel for MergeSorted {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        Ok(Box::new(PreparedMerge::default()))
    }

    /// Smaller ones first, as numbers; NaN, whose sign no text shows, last.
    fn compare_preview(&self, _params: &Params, a: &[String], b: &[String]) -> Ordering {
        let order = |a: &String, b: &String| match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.parse::<f64>().unwrap_or(f64::NAN).total_cmp(&b.parse::<f64>().unwrap_or(f64::NAN)),
        };
        a.iter().zip(b).map(|(a, b)| order(a, b)).find(|order| order.is_ne()).unwrap_or_else(|| a.cmp(b))
    }
}

#[derive(Default)]
struct PreparedMerge {
    space: cpu::Space,
}

impl Prepared for PreparedMerge {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let pieces = pieces(blocks)?;
        let (element, payload_bits) = pieces.tag.unwrap_or((SortElement::U4, 0));
        let part = match element {
            SortElement::U8 => {
                let mut values: Vec<u64> = join(&pieces.bytes, u64::from_le_bytes);
                if pieces.bytes.len() > 1 {
                    cpu::sort(&mut values, payload_bits, &self.space);
                }
                part(element, payload_bits, &values, u64::to_le_bytes)
            }
            SortElement::U4 | SortElement::F4 => {
                let mut values: Vec<u32> = join(&pieces.bytes, u32::from_le_bytes);
                if pieces.bytes.len() > 1 {
                    element.sort_words(&mut values, payload_bits, &self.space);
                }
                part(element, payload_bits, &values, u32::to_le_bytes)
            }
        };
        Ok(TaskOutput { tallies: vec![part.rows], blocks: Vec::new(), records: Records { read: part.rows, made: 0 }, part: Some(part) })
    }
}

#[derive(Default)]
struct Pieces<'a> {
    tag: Option<(SortElement, u32)>,
    /// In task order.
    bytes: Vec<&'a [u8]>,
}

fn pieces<'a>(blocks: &[Block<'a>]) -> Result<Pieces<'a>, KernelError> {
    let damaged = || KernelError::Failed("shuffle block is damaged: a record is not one of sorted elements".into());
    let mut pieces = Pieces::default();
    let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
    while let Some(record) = merge.next_record()? {
        let tag = SortElement::of_tag(record.key).ok_or_else(damaged)?;
        if *pieces.tag.get_or_insert(tag) != tag {
            let text = "the input has files of different element types; sorting is of one type: use a job for each";
            return Err(KernelError::Input(text.into()));
        }
        if !record.value.len().is_multiple_of(tag.0.size()) {
            return Err(damaged());
        }
        if !record.value.is_empty() {
            pieces.bytes.push(record.value);
        }
    }
    Ok(pieces)
}

fn join<T, const N: usize>(pieces: &[&[u8]], of_le: fn([u8; N]) -> T) -> Vec<T> {
    let mut values = Vec::with_capacity(pieces.iter().map(|bytes| bytes.len() / N).sum());
    pieces.iter().for_each(|bytes| values.extend(bytes.as_chunks::<N>().0.iter().map(|bytes| of_le(*bytes))));
    values
}

fn part<T: Copy + Into<u64>, const N: usize>(element: SortElement, payload_bits: u32, values: &[T], le: fn(T) -> [u8; N]) -> Part {
    let mut bytes = npy_header(&format!("<{}", element.name()), &format!("({},)", values.len()));
    bytes.reserve(N * values.len());
    values.iter().for_each(|value| bytes.extend_from_slice(&le(*value)));
    let row = |value: &T| {
        let bits: u64 = (*value).into();
        match (element, payload_bits) {
            (SortElement::F4, _) => vec![f32::from_bits(bits as u32).to_string()],
            (_, 0) => vec![bits.to_string()],
            _ => vec![(bits >> payload_bits).to_string(), (bits & ((1 << payload_bits) - 1)).to_string()],
        }
    };
    let columns: &[&str] = if payload_bits > 0 { &["key", "payload"] } else { &["value"] };
    Part {
        extension: "npy",
        rows: values.len() as u64,
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        // Of equal weight, so that parts show the smallest of all.
        preview: values.iter().take(PREVIEW_ROWS).map(|value| PreviewRow { cells: row(value), weight: 0 }).collect(),
        bytes,
    }
}
