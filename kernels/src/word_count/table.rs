//! A hash table from words to counts, made for one thing: few cache misses per word.
//!
//! Open addressing with linear probing, one 32-byte slot per word, two slots per cache line. The slot holds the word's first 16 bytes,
//! so that only longer words (a few in a hundred) are compared in the text. The words themselves stay in the text they came from:
//! nothing is copied. A general map keeps control bytes and entries apart, which costs a second miss for every rare word.

use crate::key::{Words, hash_with_first};

/// A word of the text and where it is to be counted.
#[derive(Clone, Copy, Default)]
pub(super) struct Word {
    first: Words,
    start: u32,
    length: u32,
    hash: u32,
}

impl Word {
    #[inline(always)]
    pub(super) fn new(text: &[u8], start: usize, length: usize) -> Word {
        let first = Words::first(text, start, length);
        // The upper half: the partition is made of the same bits.
        let hash = (hash_with_first(first, &text[start..start + length]) >> 32) as u32;
        Word { first, start: start as u32, length: length as u32, hash }
    }
}

/// A slot in use has `count > 0`.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
pub(super) struct Slot {
    pub(super) first: Words,
    pub(super) start: u32,
    pub(super) length: u32,
    pub(super) hash: u32,
    pub(super) count: u32,
}

const _: () = assert!(size_of::<Slot>() == 32);

/// What remains of a table for the next one.
#[derive(Default)]
pub(super) struct Memory(Vec<Slot>);

/// 128 KiB: within the second-level cache, and texts of few words never leave it.
const LEAST_SLOTS: usize = 1 << 12;

/// A short text gets no table that takes longer to clear than the text takes to read.
fn most_slots(text: &[u8]) -> usize {
    (text.len() / size_of::<Slot>()).next_power_of_two().max(LEAST_SLOTS)
}

pub(super) struct Table<'a> {
    text: &'a [u8],
    slots: Vec<Slot>,
    /// A word's home is the upper bits of its hash: `hash >> shift`.
    shift: u32,
    used: usize,
    limit: usize,
}

impl<'a> Table<'a> {
    /// An empty table in the memory of an earlier one, as large as that one had become: the next split of an input has about as
    /// many words. Fresh memory for every task would cost as much as the counting, for the kernel clears each page of it.
    pub(super) fn new(text: &'a [u8], memory: Memory) -> Table<'a> {
        let slots = memory.0.len().clamp(LEAST_SLOTS, most_slots(text));
        Table::with_slots(text, slots, memory.0)
    }

    fn with_slots(text: &'a [u8], slots: usize, mut memory: Vec<Slot>) -> Table<'a> {
        memory.clear();
        memory.resize(slots, Slot::default());
        // Linear probing gets slow beyond this: at 7/10 an absent word takes 6 probes, at 9/10 it takes 50.
        let limit = slots / 10 * 7;
        Table { text, slots: memory, shift: 32 - slots.ilog2(), used: 0, limit }
    }

    pub(super) fn into_memory(self) -> Memory {
        Memory(self.slots)
    }

    /// Starts loading the word's home slot; worth a main-memory access when some other work lies between this and [`Table::add`].
    #[inline(always)]
    pub(super) fn prefetch(&self, word: &Word) {
        #[cfg(target_arch = "x86_64")]
        if let Some(slot) = self.slots.get((word.hash >> self.shift) as usize) {
            // SAFETY: SSE belongs to every x86-64 processor; a prefetch has no effect on memory.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(slot).cast()) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = word;
    }

    #[inline(always)]
    pub(super) fn add(&mut self, word: &Word) {
        let mask = self.slots.len() - 1;
        let mut at = (word.hash >> self.shift) as usize;
        loop {
            let slot = &mut self.slots[at & mask];
            if slot.count == 0 {
                break;
            }
            if slot.first == word.first && slot.length == word.length && (word.length <= 16 || same_rest(self.text, slot.start, word)) {
                slot.count += 1;
                return;
            }
            at += 1;
        }
        self.slots[at & mask] = Slot { first: word.first, start: word.start, length: word.length, hash: word.hash, count: 1 };
        self.used += 1;
        if self.used > self.limit {
            self.grow();
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        // Texts have fewer than 2^32 bytes, so fewer than 2^31 words: 32 bits of home always suffice.
        let factor = if self.slots.len() < 1 << 20 { 4 } else { 2 };
        let mut larger = Table::with_slots(self.text, self.slots.len() * factor, Vec::new());
        let mask = larger.slots.len() - 1;
        // Slots are in the order of their homes, so that this streams through both tables.
        for slot in self.words() {
            let mut at = (slot.hash >> larger.shift) as usize;
            while larger.slots[at & mask].count > 0 {
                at += 1;
            }
            larger.slots[at & mask] = *slot;
        }
        larger.used = self.used;
        *self = larger;
    }

    /// All words with their counts, in no order that matters.
    pub(super) fn words(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.count > 0)
    }
}

#[inline(never)]
fn same_rest(text: &[u8], start: u32, word: &Word) -> bool {
    let rest = |start: u32| &text[start as usize + 16..(start as usize + word.length as usize)];
    rest(start) == rest(word.start)
}
