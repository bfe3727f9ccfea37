//! The body: prefixes with indices are sorted, then the items are gathered once, straight into the runs of their partitions.
//!
//! ```text
//! entry, u128:  | 11 bytes of the key | how many there are, 12: more follow | index of the item, u32 |
//! ```
//! Entries differ in their index at least, so they have one order, and an unstable sort gives it: equal keys stay in the order of the input. Falling
//! order is that of the complement of all but the index.

use super::cuts::Cuts;
use crate::key::Words;
use crate::sorted_run::{HEADER_BYTES, Order};

/// Bytes of a key in an entry.
const CHUNK: usize = 11;
const LONGER: u128 = CHUNK as u128 + 1;
/// Chunks that are looked at before keys are compared as a whole: longer common beginnings would be sorted once per chunk.
const CHUNKS: usize = 6;
/// Groups of equal chunks up to this are compared as a whole at once.
const FEW: usize = 8;

/// Items of a split, in its order.
pub(super) trait Items {
    fn count(&self) -> usize;
    fn item(&self, index: u32) -> &[u8];
}

/// At least one byte each.
pub(super) struct Records<'a> {
    pub(super) record: usize,
    pub(super) bytes: &'a [u8],
}

impl Items for Records<'_> {
    fn count(&self) -> usize {
        self.bytes.len() / self.record
    }

    #[inline]
    fn item(&self, index: u32) -> &[u8] {
        let start = index as usize * self.record;
        &self.bytes[start..start + self.record]
    }
}

/// Lines with their ends; the last may have none.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    /// Where lines begin, and the end of the text.
    starts: Vec<u32>,
}

impl<'a> Lines<'a> {
    /// Of a text of less than 4 GiB.
    pub(super) fn new(text: &'a [u8]) -> Lines<'a> {
        let mut starts = Vec::with_capacity(text.len() / 32 + 2);
        starts.push(0);
        starts.extend(memchr::memchr_iter(b'\n', text).map(|newline| newline as u32 + 1));
        // What follows the last newline, if anything does.
        if starts.last() != Some(&(text.len() as u32)) {
            starts.push(text.len() as u32);
        }
        Lines { text, starts }
    }
}

impl Items for Lines<'_> {
    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    #[inline]
    fn item(&self, index: u32) -> &[u8] {
        let index = index as usize;
        &self.text[self.starts[index] as usize..self.starts[index + 1] as usize]
    }
}

/// How many items there are, and one run for each partition.
pub(super) fn runs(items: &impl Items, order: &Order, cuts: &Cuts, partitions: usize) -> (u64, Vec<Vec<u8>>) {
    let mut entries: Vec<u128> = (0..items.count() as u32).map(|index| entry(items, order, index, 0)).collect();
    sort(&mut entries, items, order, 0);
    let mut rest = entries.as_slice();
    let mut runs = Vec::with_capacity(partitions);
    for cut in cuts.keys() {
        let before = rest.partition_point(|entry| order.compare(order.key(items.item(*entry as u32)), cut).is_lt());
        runs.push(run(&rest[..before], items, order));
        rest = &rest[before..];
    }
    runs.push(run(rest, items, order));
    // Fewer cuts than there could be: of an empty input, or none was taken.
    runs.resize(partitions, Vec::new());
    (entries.len() as u64, runs)
}

#[inline]
fn entry(items: &impl Items, order: &Order, index: u32, chunk: usize) -> u128 {
    let item = items.item(index);
    let key = order.key_range(item);
    let start = (key.start + chunk * CHUNK).min(key.end);
    let left = key.end - start;
    let bytes = Words::first(item, start, left.min(CHUNK)).sort_prefix();
    let ordered = (bytes >> 32) | (left as u128).min(LONGER);
    let ordered = if order.descending { !ordered << 32 } else { ordered << 32 };
    ordered | u128::from(index)
}

fn sort(entries: &mut [u128], items: &impl Items, order: &Order, chunk: usize) {
    entries.sort_unstable();
    let goes_on = |entry: u128| {
        let bytes = (entry >> 32) as u8;
        u128::from(if order.descending { !bytes } else { bytes }) == LONGER
    };
    for group in entries.chunk_by_mut(|a, b| a >> 32 == b >> 32) {
        if group.len() == 1 || !goes_on(group[0]) {
            continue;
        }
        if group.len() <= FEW || chunk + 1 == CHUNKS {
            // They are in the order of their indices, which a stable sort keeps.
            let from = (chunk + 1) * CHUNK;
            let rest = |entry: &u128| order.key(items.item(*entry as u32)).get(from..).unwrap_or_default();
            group.sort_by(|a, b| order.compare(rest(a), rest(b)));
        } else {
            group.iter_mut().for_each(|one| *one = entry(items, order, *one as u32, chunk + 1));
            sort(group, items, order, chunk + 1);
        }
    }
}

/// The items of these entries behind each other; a line that lacks its newline gets one.
fn run(entries: &[u128], items: &impl Items, order: &Order) -> Vec<u8> {
    if entries.is_empty() {
        return Vec::new();
    }
    let item = |entry: &u128| items.item(*entry as u32);
    let bytes: usize = match order.record as usize {
        // One more, for the newline that may be missing.
        0 => entries.iter().map(|entry| item(entry).len()).sum::<usize>() + 1,
        record => entries.len() * record,
    };
    let mut run = Vec::with_capacity(HEADER_BYTES + bytes);
    run.extend_from_slice(&order.header());
    for entry in entries {
        let item = item(entry);
        run.extend_from_slice(item);
        if order.record == 0 && !item.ends_with(b"\n") {
            run.push(b'\n');
        }
    }
    run
}
