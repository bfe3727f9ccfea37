//! Shuffle blocks: what a map task writes for one partition and a reduce task merges.
//!
//! A block is a **run**: records with strictly rising keys (compared as bytes), one after the other, no header, no padding. An empty
//! run is zero bytes. Lengths are LEB128 varints of at most 10 bytes, shortest form not required when reading.
//!
//! ```text
//! +------------+-----------+--------------+-------------+------------+----
//! | key length | key bytes | value length | value bytes | key length | ..
//! | varint     |           | varint       |             |            |
//! +------------+-----------+--------------+-------------+------------+----
//! ```
//! Integrity is the business of whoever moves the bytes (they carry a checksum); the reader still never panics on arbitrary bytes.
//! A count is a varint in the value bytes, see [`count_value`].

use crate::api::KernelError;
use crate::key::Words;

/// One key and its value, borrowed from the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Appends a LEB128 varint.
#[inline]
pub fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends one record. Keys must rise strictly; the merge checks it.
pub fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    push_varint(out, key.len() as u64);
    out.extend_from_slice(key);
    push_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends one record whose value is a count.
#[inline]
pub fn push_count(out: &mut Vec<u8>, key: &[u8], count: u64) {
    push_varint(out, key.len() as u64);
    out.extend_from_slice(key);
    push_varint(out, varint_len(count));
    push_varint(out, count);
}

fn varint_len(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

/// Takes a varint off the front of `bytes`; `None` when it is cut short or larger than 64 bits.
#[inline]
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    take_long_varint(bytes)
}

fn take_long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the one bit that is left.
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// The count in a value made by [`push_count`].
#[inline]
pub fn count_value(mut value: &[u8]) -> Result<u64, KernelError> {
    match take_varint(&mut value) {
        Some(count) if value.is_empty() => Ok(count),
        _ => Err(KernelError::Failed("shuffle record: the value is not a count".into())),
    }
}

/// Reads the records of one run in order. After an error it yields nothing more.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(run: &'a [u8]) -> Reader<'a> {
        Reader { rest: run }
    }

    #[inline]
    fn take_field(&mut self) -> Option<&'a [u8]> {
        let mut rest = self.rest;
        let length = usize::try_from(take_varint(&mut rest)?).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(field)
    }

    #[inline]
    fn take_record(&mut self) -> Option<Record<'a>> {
        Some(Record { key: self.take_field()?, value: self.take_field()? })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Record<'a>, KernelError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let left = self.rest.len();
        match self.take_record() {
            Some(record) => Some(Ok(record)),
            None => {
                self.rest = &[];
                Some(Err(KernelError::Failed(format!("shuffle block is damaged: no whole record in its last {left} bytes"))))
            }
        }
    }
}

/// Merges runs: records by rising key, those with equal keys in the order of the runs. A loser tree: each step replays one path of
/// log2(runs) comparisons, nearly all decided by the 16-byte prefix. (Knuth, The Art of Computer Programming 3, section 5.4.1)
pub struct Merge<'a> {
    heads: Vec<Head<'a>>,
    /// Inner nodes of a complete binary tree over the heads: the loser of each match. Node 0 holds the overall winner.
    losers: Vec<u32>,
    taken: u64,
}

struct Head<'a> {
    /// Which of the runs it reads.
    run: usize,
    /// `None`: this run is at its end and loses against every other.
    record: Option<Record<'a>>,
    prefix: u128,
    reader: Reader<'a>,
}

impl<'a> Head<'a> {
    #[inline]
    fn advance(&mut self) -> Result<(), KernelError> {
        let Some(record) = self.reader.next().transpose()? else {
            self.record = None;
            return Ok(());
        };
        let prefix = Words::first(record.key, 0, record.key.len()).sort_prefix();
        let rises = match self.record {
            None => true,
            Some(before) => prefix > self.prefix || (prefix == self.prefix && record.key > before.key),
        };
        if !rises {
            return Err(KernelError::Failed("shuffle block is damaged: its keys do not rise".into()));
        }
        self.prefix = prefix;
        self.record = Some(record);
        Ok(())
    }
}

impl<'a> Merge<'a> {
    pub fn new(runs: impl IntoIterator<Item = &'a [u8]>) -> Result<Merge<'a>, KernelError> {
        let mut heads = Vec::new();
        for (number, run) in runs.into_iter().enumerate().filter(|(_, run)| !run.is_empty()) {
            let mut head = Head { run: number, record: None, prefix: 0, reader: Reader::new(run) };
            head.advance()?;
            heads.push(head);
        }
        let mut merge = Merge { losers: vec![0; heads.len().max(1)], heads, taken: 0 };
        if !merge.heads.is_empty() {
            merge.losers[0] = merge.play(1);
        }
        Ok(merge)
    }

    /// Plays all matches below `node` and returns the winner. Leaves are the nodes `heads.len()..2 * heads.len()`.
    fn play(&mut self, node: usize) -> u32 {
        let leaves = self.heads.len();
        if node >= leaves {
            return (node - leaves) as u32;
        }
        let (left, right) = (self.play(2 * node), self.play(2 * node + 1));
        let (winner, loser) = if self.before(left, right) { (left, right) } else { (right, left) };
        self.losers[node] = loser;
        winner
    }

    #[inline]
    fn before(&self, left: u32, right: u32) -> bool {
        let (a, b) = (&self.heads[left as usize], &self.heads[right as usize]);
        match (a.record, b.record) {
            (Some(_), Some(_)) if a.prefix != b.prefix => a.prefix < b.prefix,
            (Some(x), Some(y)) => (x.key, left) < (y.key, right),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => left < right,
        }
    }

    /// The next record, or `None` at the end of all runs.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record<'a>>, KernelError> {
        Ok(self.next_with_run()?.map(|(_, record)| record))
    }

    /// The same, and of which run it is: 0 is the first that was given, empty ones count.
    #[inline]
    pub fn next_with_run(&mut self) -> Result<Option<(usize, Record<'a>)>, KernelError> {
        if self.heads.is_empty() {
            return Ok(None);
        }
        let mut winner = self.losers[0];
        let Head { run, record, .. } = self.heads[winner as usize];
        let Some(record) = record else { return Ok(None) };
        self.heads[winner as usize].advance()?;
        let mut node = (winner as usize + self.heads.len()) / 2;
        while node > 0 {
            if self.before(self.losers[node], winner) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        self.losers[0] = winner;
        self.taken += 1;
        Ok(Some((run, record)))
    }

    /// Records handed out so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Records of all runs: those handed out, and those that nobody has asked for, which are read for it.
    pub fn count(self) -> Result<u64, KernelError> {
        let mut count = self.taken;
        for head in self.heads {
            count += u64::from(head.record.is_some());
            for record in head.reader {
                record?;
                count += 1;
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
