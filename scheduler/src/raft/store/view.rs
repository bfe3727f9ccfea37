//! What the log store knows without reading the disk: the marks, and the newest entries decoded.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::raft::types::{Entry, EntryPayload, LogId, Vote};

/// Newest entries kept in memory, so that replication and apply do not read back what was just written.
const TAIL_BYTES: usize = 32 << 20;

pub(super) struct View {
    pub vote: Option<Vote>,
    /// The last entry removed from the front.
    pub purged: Option<LogId>,
    /// The last entry of the log, or `purged` when the log is empty.
    pub last: Option<LogId>,
    /// As it was when the store was opened.
    pub committed: Option<LogId>,
    /// The index of the first entry of the log, or the one the first entry gets.
    first: u64,
    tail: VecDeque<Entry>,
    /// The index of the first entry in `tail`, or the one the next entry gets.
    tail_first: u64,
    tail_bytes: usize,
    /// Everything before this index is on disk as it is here.
    flushed_next: u64,
    /// Counts truncations: a flush that was begun before one says nothing about the entries put in place since.
    pub epoch: u64,
}

impl View {
    /// The view of a log whose entries are all on disk; give it the newest of them with [`View::remember`].
    pub fn new(vote: Option<Vote>, purged: Option<LogId>, committed: Option<LogId>) -> Self {
        let next = next_index(&purged);
        View {
            vote,
            purged,
            last: purged,
            committed,
            first: next,
            tail: VecDeque::new(),
            tail_first: next,
            tail_bytes: 0,
            flushed_next: next,
            epoch: 0,
        }
    }

    /// Takes in an entry that was read from the disk, in order.
    pub fn remember(&mut self, entry: Entry) {
        let next = entry.log_id.index + 1;
        self.push(entry);
        self.flushed_next = next;
        self.evict();
    }

    pub fn push(&mut self, entry: Entry) {
        if self.last.is_none() {
            // openraft's own logs begin with entry 0, those of its store tests with entry 1.
            (self.first, self.tail_first, self.flushed_next) = (entry.log_id.index, entry.log_id.index, entry.log_id.index);
        }
        debug_assert!(self.last.is_none_or(|last| last.index + 1 == entry.log_id.index), "the log must have no hole");
        self.last = Some(entry.log_id);
        self.tail_bytes += size(&entry);
        self.tail.push_back(entry);
    }

    /// Drops everything after `last` and returns the first index dropped.
    pub fn truncate_after(&mut self, last: Option<LogId>) -> u64 {
        let from = next_index(&last);
        if from >= next_index(&self.last) {
            return from; // there is nothing after it
        }
        while self.tail.back().is_some_and(|e| e.log_id.index >= from) {
            self.tail_bytes -= self.tail.pop_back().map_or(0, |e| size(&e));
        }
        self.tail_first = self.tail_first.min(from);
        self.flushed_next = self.flushed_next.min(from);
        self.last = last.max(self.purged);
        self.epoch += 1;
        from
    }

    /// Drops everything up to `upto`, which may lie beyond the end: a snapshot then stands for the whole log.
    pub fn purge(&mut self, upto: LogId) {
        while self.tail.front().is_some_and(|e| e.log_id.index <= upto.index) {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |e| size(&e));
        }
        self.tail_first = self.tail_first.max(upto.index + 1);
        self.flushed_next = self.flushed_next.max(upto.index + 1);
        self.purged = self.purged.max(Some(upto));
        self.first = self.first.max(upto.index + 1);
        self.last = self.last.max(self.purged);
    }

    /// Everything appended in `epoch` before `next` is on disk.
    pub fn flushed(&mut self, epoch: u64, next: u64) {
        if epoch == self.epoch {
            self.flushed_next = self.flushed_next.max(next);
            self.evict();
        }
    }

    /// The indexes of `start..end` that the log holds.
    pub fn clamp(&self, start: u64, end: u64) -> (u64, u64) {
        (start.max(self.first), end.min(next_index(&self.last)))
    }

    /// The entries of `start..end` that are in memory, oldest first, until `limit` bytes are passed; and the index they start at.
    pub fn recent(&self, start: u64, end: u64, limit: usize) -> (u64, Vec<Entry>) {
        let first = start.max(self.tail_first);
        if first >= end {
            return (end.max(start), Vec::new());
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.tail.iter().skip((first - self.tail_first) as usize).take((end - first) as usize) {
            if bytes >= limit {
                break;
            }
            bytes += size(entry);
            entries.push(entry.clone());
        }
        (first, entries)
    }

    /// Entries not on disk yet are never evicted: nothing else holds them.
    fn evict(&mut self) {
        while self.tail_bytes > TAIL_BYTES && self.tail_first < self.flushed_next {
            let Some(entry) = self.tail.pop_front() else { break };
            self.tail_bytes -= size(&entry);
            self.tail_first += 1;
        }
    }
}

pub(super) fn next_index(id: &Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

/// Roughly what an entry takes in memory and in a message.
pub(super) fn size(entry: &Entry) -> usize {
    const FIXED: usize = 64;
    FIXED
        + match &entry.payload {
            EntryPayload::Normal(payload) => Bytes::len(&payload.0),
            EntryPayload::Blank => 0,
            EntryPayload::Membership(_) => 512,
        }
}
