//! Sorted runs: what `sort` writes for one partition, and `merge_runs` merges. Items may be equal, unlike the records of [`crate::run`].
//!
//! ```text
//! +------------------+------------------+------------------+------------------+------+------+----
//! | record length    | key offset       | key length       | 1: descending    | item | item | ..
//! | u32 le, 0: lines | u32 le           | u32 le, 0: all   | u32 le           |      |      |
//! +------------------+------------------+------------------+------------------+------+------+----
//! ```
//! An item is a record, or a line with its newline, as it was read. An empty run is zero bytes. The header says in which order the items are, so that a
//! merge in another order is refused and never wrong.

mod merge;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::ops::Range;

use crate::api::{KernelError, ParamSpec, ParamType};
use crate::key::Words;
use crate::params::Resolved;

pub(crate) use merge::Merge;

pub(crate) const HEADER_BYTES: usize = 16;

/// Bytes of a key in [`Order::prefix`].
const PREFIX_BYTES: usize = 15;
/// In the last byte of a prefix: the key goes on behind it.
const LONGER: u8 = PREFIX_BYTES as u8 + 1;

/// Farther into an item no key begins or ends.
const LONGEST: u64 = 1 << 30;

pub(crate) const KEY_OFFSET: ParamSpec = ParamSpec {
    name: "key_offset",
    kind: ParamType::U64 { min: 0, max: LONGEST },
    default: Some("0"),
    doc: "first byte of the key within a record or line",
};
pub(crate) const KEY_BYTES: ParamSpec = ParamSpec {
    name: "key_bytes",
    kind: ParamType::U64 { min: 0, max: LONGEST },
    default: Some("0"),
    doc: "length of the key; 0: up to the end of the record or line",
};
pub(crate) const ORDER: ParamSpec = ParamSpec {
    name: "order",
    kind: ParamType::Choice(&["ascending", "descending"]),
    default: Some("ascending"),
    doc: "by rising or by falling keys",
};

/// What is compared of an item, and which of two comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Length of each item; 0: lines.
    pub(crate) record: u32,
    pub(crate) key_offset: u32,
    /// 0: all that follows.
    pub(crate) key_bytes: u32,
    pub(crate) descending: bool,
}

impl Order {
    /// From complete parameters; refuses a key that reaches out of its record.
    pub(crate) fn new(params: &Resolved, record: u32) -> Result<Order, KernelError> {
        let (key_offset, key_bytes) = (params.u64("key_offset"), params.u64("key_bytes"));
        let end = key_offset + key_bytes.max(1);
        if record > 0 && end > u64::from(record) {
            return Err(KernelError::Param(format!(
                "the key ('key_offset' {key_offset}, 'key_bytes' {key_bytes}) reaches byte {end}, but a record has {record}"
            )));
        }
        // Both are at most LONGEST.
        let descending = params.text("order") == "descending";
        Ok(Order { record, key_offset: key_offset as u32, key_bytes: key_bytes as u32, descending })
    }

    pub(crate) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let words = [self.record, self.key_offset, self.key_bytes, u32::from(self.descending)];
        header.as_chunks_mut::<4>().0.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        header
    }

    /// The items of a run that is in this order. Not empty.
    pub(crate) fn items<'a>(&self, run: &'a [u8]) -> Result<&'a [u8], KernelError> {
        let damaged = || KernelError::Failed("shuffle block is damaged: it is no sorted run".into());
        let (header, items) = run.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
        if header != self.header() {
            return Err(KernelError::Param(
                "the runs were sorted in another way than they are to be merged: give key and order to the map stage alone".into(),
            ));
        }
        let whole = match self.record {
            0 => items.ends_with(b"\n"),
            record => items.len().is_multiple_of(record as usize),
        };
        if items.is_empty() || !whole { Err(damaged()) } else { Ok(items) }
    }

    /// Where the key lies in an item. A line's end, `\n` or `\r\n`, is no part of it; of a line that is too short there is less of a key, or none.
    #[inline]
    pub(crate) fn key_range(&self, item: &[u8]) -> Range<usize> {
        let length = if self.record > 0 { item.len() } else { without_end(item).len() };
        let start = (self.key_offset as usize).min(length);
        match self.key_bytes as usize {
            0 => start..length,
            bytes => start..(start + bytes).min(length),
        }
    }

    #[inline]
    pub(crate) fn key<'a>(&self, item: &'a [u8]) -> &'a [u8] {
        &item[self.key_range(item)]
    }

    /// Which of two keys, or two ends of keys that are equal up to there, comes first.
    #[inline]
    pub(crate) fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.descending { b.cmp(a) } else { a.cmp(b) }
    }

    /// A number that decides which of two items comes first, unless it is equal: the first bytes of the key, padded with zeros, and how many of them
    /// there are. Equal prefixes of keys that do not go on ([`Order::goes_on`]) mean equal keys.
    #[inline]
    pub(crate) fn prefix(&self, item: &[u8]) -> u128 {
        let key = self.key_range(item);
        let length = key.len();
        let prefix = Words::first(item, key.start, length.min(PREFIX_BYTES)).sort_prefix() | length.min(LONGER.into()) as u128;
        if self.descending { !prefix } else { prefix }
    }

    #[inline]
    pub(crate) fn goes_on(&self, prefix: u128) -> bool {
        let last = prefix as u8;
        (if self.descending { !last } else { last }) == LONGER
    }

    /// Orders two items of equal prefix whose keys go on.
    pub(crate) fn compare_rest(&self, a: &[u8], b: &[u8]) -> Ordering {
        self.compare(self.rest(a), self.rest(b))
    }

    fn rest<'a>(&self, item: &'a [u8]) -> &'a [u8] {
        self.key(item).get(PREFIX_BYTES..).unwrap_or_default()
    }
}

/// A line without its newline, and without a carriage return before that.
#[inline]
pub(crate) fn without_end(line: &[u8]) -> &[u8] {
    match line {
        [line @ .., b'\r', b'\n'] | [line @ .., b'\n'] => line,
        line => line,
    }
}
