//! Scans, counts, and writes one sorted run per partition.

use super::scan;
use super::table::{Memory, Slot, Table, Word};
use crate::key::partition_of_hash;
use crate::run::push_count;

pub(super) struct Counted {
    pub(super) lines: u64,
    pub(super) words: u64,
    /// Different ones.
    pub(super) distinct: u64,
    pub(super) blocks: Vec<Vec<u8>>,
}

/// Words between the prefetch of a slot and its use: enough to cover a main-memory access, few enough to stay in the first-level cache.
const BATCH: usize = 32;

/// Memory that one task leaves to the next.
#[derive(Default)]
pub(super) struct Scratch {
    table: Memory,
    /// By partition.
    rows: Vec<Vec<Row>>,
}

pub(super) fn count(text: &[u8], partitions: u32, scratch: &mut Scratch) -> Counted {
    let mut table = Table::new(text, std::mem::take(&mut scratch.table));
    let mut batch = [Word::default(); BATCH];
    let mut filled = 0;
    let mut words = 0;
    let newlines = scan::words(text, |start, length| {
        let word = Word::new(text, start, length);
        table.prefetch(&word);
        batch[filled] = word;
        filled += 1;
        if filled == BATCH {
            words += BATCH as u64;
            batch.iter().for_each(|word| table.add(word));
            filled = 0;
        }
    });
    words += filled as u64;
    batch[..filled].iter().for_each(|word| table.add(word));
    let unfinished_line = text.last().is_some_and(|last| *last != b'\n');
    let blocks = blocks(text, &table, partitions, &mut scratch.rows);
    let distinct = scratch.rows.iter().map(|rows| rows.len() as u64).sum();
    scratch.table = table.into_memory();
    Counted { lines: newlines + u64::from(unfinished_line), words, distinct, blocks }
}

/// A word on its way into a run. `prefix` sorts like the word's first 16 bytes.
#[derive(Clone, Copy)]
struct Row {
    prefix: u128,
    start: u32,
    length: u32,
    count: u32,
}

impl Row {
    fn of(slot: &Slot) -> Row {
        Row { prefix: slot.first.sort_prefix(), start: slot.start, length: slot.length, count: slot.count }
    }

    fn key<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start as usize..][..self.length as usize]
    }
}

fn blocks(text: &[u8], table: &Table<'_>, partitions: u32, rows: &mut Vec<Vec<Row>>) -> Vec<Vec<u8>> {
    rows.resize_with(partitions as usize, Vec::new);
    rows.iter_mut().for_each(Vec::clear);
    for slot in table.words() {
        rows[partition_of_hash(slot.hash, partitions) as usize].push(Row::of(slot));
    }
    rows.iter_mut().map(|rows| run(text, rows)).collect()
}

fn run(text: &[u8], rows: &mut [Row]) -> Vec<u8> {
    rows.sort_unstable_by_key(|row| row.prefix);
    // Words that agree in 16 bytes (or end in zero bytes) are neighbours now, in groups that are nearly always of one.
    for group in rows.chunk_by_mut(|a, b| a.prefix == b.prefix).filter(|group| group.len() > 1) {
        group.sort_unstable_by_key(|row| row.key(text));
    }
    let bytes: usize = rows.iter().map(|row| row.length as usize + 4).sum();
    let mut block = Vec::with_capacity(bytes);
    for row in rows {
        if row.length <= 16 {
            // The row holds the word, and the text at its place is rarely in a cache.
            push_count(&mut block, &row.prefix.to_be_bytes()[..row.length as usize], u64::from(row.count));
        } else {
            push_count(&mut block, row.key(text), u64::from(row.count));
        }
    }
    block
}
