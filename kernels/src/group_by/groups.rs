//! The groups of one task: from a key to its number, in one probe of a hash table for most rows.
//!
//! Open addressing with linear probing over slots of 24 bytes. A key of at most 12 bytes is its own Arrow view, so that it is compared as two words and
//! no text is touched; of a longer one the slot has length, first bytes and hash, and the text decides. Keys are copied once for each group.

use crate::api::KernelError;
use crate::key;
use raftwerk_formats::TextArray;

/// Longest key that a view holds itself.
const INLINE: usize = 12;

#[derive(Clone, Copy)]
struct Slot {
    /// Length and first bytes of the key, as in its view.
    low: u64,
    /// The other bytes of a short key, the hash of a long one.
    high: u64,
    group: u32,
    hash: u32,
}

/// No group has this number.
const FREE: u32 = u32::MAX;
const EMPTY: Slot = Slot { low: 0, high: 0, group: FREE, hash: 0 };
/// 24 KiB, within the first-level cache.
const LEAST_SLOTS: usize = 1 << 10;

pub(super) struct Groups {
    slots: Vec<Slot>,
    /// A key's home is the upper bits of its hash: `hash >> shift`.
    shift: u32,
    /// Keys one after the other, and where each ends.
    keys: Vec<u8>,
    ends: Vec<usize>,
}

impl Groups {
    pub(super) fn new() -> Groups {
        Groups { slots: vec![EMPTY; LEAST_SLOTS], shift: 32 - LEAST_SLOTS.ilog2(), keys: Vec::new(), ends: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn key(&self, group: usize) -> &[u8] {
        let start = if group == 0 { 0 } else { self.ends[group - 1] };
        &self.keys[start..self.ends[group]]
    }

    /// The groups of all rows of a column, appended to `found`.
    pub(super) fn of_column(&mut self, column: &TextArray, found: &mut Vec<u32>) -> Result<(), KernelError> {
        let buffers = column.data_buffers();
        for view in column.views().iter() {
            let (low, high) = (*view as u64, (*view >> 64) as u64);
            let length = low as u32 as usize;
            let group = if length <= INLINE {
                self.find(low, high, short_hash(low, high), || view.to_le_bytes()[4..4 + length].to_vec())?
            } else {
                // Buffer and offset are the halves of the upper word.
                let offset = (high >> 32) as usize;
                let key = buffers.get(high as u32 as usize).and_then(|buffer| buffer.get(offset..offset + length));
                self.find_long(low, key.unwrap_or_default())?
            };
            found.push(group);
        }
        Ok(())
    }

    /// The group of a key that no view names.
    pub(super) fn of_key(&mut self, key: &[u8]) -> Result<u32, KernelError> {
        let mut first = [0; 16];
        let shown = key.len().min(if key.len() <= INLINE { INLINE } else { 4 });
        first[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        first[4..4 + shown].copy_from_slice(&key[..shown]);
        let words = u128::from_le_bytes(first);
        let (low, high) = (words as u64, (words >> 64) as u64);
        if key.len() <= INLINE { self.find(low, high, short_hash(low, high), || key.to_vec()) } else { self.find_long(low, key) }
    }

    #[inline(always)]
    fn find(&mut self, low: u64, high: u64, hash: u32, key: impl FnOnce() -> Vec<u8>) -> Result<u32, KernelError> {
        let mask = self.slots.len() - 1;
        let mut at = (hash >> self.shift) as usize;
        loop {
            let slot = &self.slots[at & mask];
            if slot.low == low && slot.high == high && slot.group != FREE {
                return Ok(slot.group);
            }
            if slot.group == FREE {
                return self.insert(at & mask, Slot { low, high, group: FREE, hash }, &key());
            }
            at += 1;
        }
    }

    #[inline(never)]
    fn find_long(&mut self, low: u64, key: &[u8]) -> Result<u32, KernelError> {
        let high = key::hash(key);
        let hash = (high >> 32) as u32;
        let mask = self.slots.len() - 1;
        let mut at = (hash >> self.shift) as usize;
        loop {
            let slot = self.slots[at & mask];
            if slot.group == FREE {
                return self.insert(at & mask, Slot { low, high, group: FREE, hash }, key);
            }
            if slot.low == low && slot.high == high && self.key(slot.group as usize) == key {
                return Ok(slot.group);
            }
            at += 1;
        }
    }

    #[cold]
    #[inline(never)]
    fn insert(&mut self, at: usize, slot: Slot, key: &[u8]) -> Result<u32, KernelError> {
        let group = u32::try_from(self.ends.len()).ok().filter(|group| *group != FREE);
        let group = group.ok_or_else(|| KernelError::Input("a split has more than 4 billion groups; make the splits smaller".into()))?;
        self.slots[at] = Slot { group, ..slot };
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        // Half full at most: a probe then meets 1.5 slots on average, and an absent key 2.5.
        if self.ends.len() * 2 > self.slots.len() && self.shift > 0 {
            self.grow();
        }
        Ok(group)
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * if self.shift >= 2 { 4 } else { 2 };
        self.shift = 32 - slots.ilog2();
        let mask = slots - 1;
        let before = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for slot in before.into_iter().filter(|slot| slot.group != FREE) {
            let mut at = (slot.hash >> self.shift) as usize;
            while self.slots[at & mask].group != FREE {
                at += 1;
            }
            self.slots[at & mask] = slot;
        }
    }
}

/// Of a key that is two words; nothing outside the task sees it.
#[inline(always)]
fn short_hash(low: u64, high: u64) -> u32 {
    let product = u128::from(low ^ 0x9e37_79b9_7f4a_7c15) * u128::from(high ^ 0xbf58_476d_1ce4_e5b9);
    let mixed = (product as u64) ^ ((product >> 64) as u64);
    // Once more, for short keys of which the upper word is nothing.
    (mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) as u32
}
