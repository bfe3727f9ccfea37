//! A simulated disk: records in memory, which outlive the replica that wrote them.
//!
//! A commit becomes durable at its end, after the simulated time of a flush. A killed replica's commits that had not ended are lost, and
//! it can write nothing more.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use raftwerk_planted::Bug;
use raftwerk_proto::v1 as pb;

use super::StoreError;
use super::medium::{Medium, Visit, Write, meta};
use super::record::{Kind, Seal};
use super::torn::{Records, torn};

/// How a write goes wrong. The process is told that it failed either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// Any of its sectors are there. What the next start makes of them is left to redb as it ships (`store/torn.rs`). Of a snapshot nothing is there,
    /// because it gets its name last.
    Torn,
    /// It is there: the transaction was complete when the error came. Of a snapshot nothing is, because it gets its name last.
    Kept,
}

/// A bit that changed by itself.
#[derive(Clone, Debug)]
pub struct Flip {
    pub what: String,
    pub bit: u64,
}

#[derive(Default)]
struct Contents {
    log: BTreeMap<u64, Vec<u8>>,
    meta: BTreeMap<&'static str, Vec<u8>>,
    snapshots: BTreeMap<String, Vec<u8>>,
    /// Counts starts: only the newest may write.
    generation: u64,
    failure: Option<String>,
    next_write: Option<WriteFault>,
    torn: Torn,
    flush: Duration,
    commits: u64,
    /// The last writes of a disk that lies about them ([`Bug::SkipFsync`]), newest last: what was there before.
    unflushed: VecDeque<Undo>,
}

/// What became of commits that were torn.
#[derive(Clone, Debug, Default)]
pub struct Torn {
    pub cut_off: u64,
    pub whole: u64,
    /// Why it was neither, which redb promises not to do.
    pub neither: Option<String>,
}

/// What a commit replaced.
#[derive(Default)]
struct Undo {
    log: Vec<(u64, Option<Vec<u8>>)>,
    meta: Vec<(&'static str, Option<Vec<u8>>)>,
}

/// Commits that a lying disk still holds in its cache.
const CACHED_COMMITS: usize = 20;

/// One replica's disk.
#[derive(Clone)]
pub struct MemoryDisk {
    file: Arc<PathBuf>,
    contents: Arc<Mutex<Contents>>,
}

impl MemoryDisk {
    /// `name` is what errors call it.
    pub fn new(name: &str, flush: Duration) -> Self {
        MemoryDisk { file: Arc::new(name.into()), contents: Arc::new(Mutex::new(Contents { flush, ..Contents::default() })) }
    }

    /// A medium for one start of a replica. Media of earlier starts stop working.
    pub fn medium(&self) -> MemoryMedium {
        let mut contents = self.lock();
        contents.generation += 1;
        MemoryMedium { disk: self.clone(), generation: contents.generation }
    }

    /// What a power cut does: nothing that is still on its way arrives.
    pub fn cut_power(&self) {
        let mut contents = self.lock();
        contents.generation += 1;
        while let Some(undo) = contents.unflushed.pop_back() {
            for (index, record) in undo.log.into_iter().rev() {
                match record {
                    Some(record) => contents.log.insert(index, record),
                    None => contents.log.remove(&index),
                };
            }
            for (name, record) in undo.meta.into_iter().rev() {
                match record {
                    Some(record) => contents.meta.insert(name, record),
                    None => contents.meta.remove(name),
                };
            }
        }
    }

    /// The next write goes wrong, and with it every later one until [`MemoryDisk::mend`].
    pub fn fail_next_write(&self, how: WriteFault) {
        self.lock().next_write = Some(how);
    }

    /// Writes succeed again, for the next start of the replica.
    pub fn mend(&self) {
        let mut contents = self.lock();
        (contents.failure, contents.next_write) = (None, None);
    }

    /// Flips one bit of everything that lies here: the `bit`th, counted round. `None` when nothing does.
    pub fn flip(&self, bit: u64) -> Option<Flip> {
        let mut contents = self.lock();
        let Contents { log, meta, snapshots, .. } = &mut *contents;
        let log = log.iter_mut().map(|(index, record)| (format!("log entry {index}"), record));
        let meta = meta.iter_mut().map(|(name, record)| (format!("the {name}"), record));
        let snapshots = snapshots.iter_mut().map(|(name, record)| (format!("snapshot {name}"), record));
        let mut records: Vec<(String, &mut Vec<u8>)> = log.chain(meta).chain(snapshots).collect();
        let total: u64 = records.iter().map(|(_, record)| record.len() as u64 * 8).sum();
        let mut bit = bit % total.max(1);
        for (what, record) in &mut records {
            let bits = record.len() as u64 * 8;
            if bit < bits {
                record[(bit / 8) as usize] ^= 1 << (bit % 8);
                return Some(Flip { what: what.clone(), bit });
            }
            bit -= bits;
        }
        None
    }

    /// The vote that lies here, as term and whom for.
    pub fn vote(&self, cluster: &str) -> Option<(u64, u64)> {
        let record = self.lock().meta.get(meta::VOTE).cloned()?;
        let vote: pb::RaftVote = Seal::new(cluster).read(Kind::Vote, &record, &self.file, &|| "the vote".into()).ok()?;
        Some((vote.term, vote.node))
    }

    /// What became of torn commits since this was asked last.
    pub fn take_torn(&self) -> Torn {
        std::mem::take(&mut self.lock().torn)
    }

    /// Transactions so far.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// Every later write fails with this text.
    pub fn fail_writes(&self, why: &str) {
        self.lock().failure = Some(why.to_owned());
    }

    pub fn set_flush(&self, flush: Duration) {
        self.lock().flush = flush;
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Contents {
    /// Begins a write; says how it goes wrong, if it does.
    fn begin_write(&mut self) -> Option<WriteFault> {
        let fault = self.next_write.take();
        if fault.is_some() {
            self.failure = Some("Input/output error".to_owned());
        }
        fault
    }

    /// Puts there what a start finds after this commit was torn; where is drawn from how many there were.
    fn tear(&mut self, file: &Path, writes: &[Write]) {
        let before = Records { log: std::mem::take(&mut self.log), meta: std::mem::take(&mut self.meta) };
        let found = torn(file, before.clone(), writes, self.commits).unwrap_or_else(|error| {
            self.torn.neither = Some(error.to_string());
            before.clone()
        });
        if found == before {
            self.torn.cut_off += 1;
        } else {
            self.torn.whole += 1;
        }
        (self.log, self.meta) = (found.log, found.meta);
    }
}

#[derive(Clone)]
pub struct MemoryMedium {
    disk: MemoryDisk,
    generation: u64,
}

impl MemoryMedium {
    fn contents(&self) -> Result<MutexGuard<'_, Contents>, StoreError> {
        let contents = self.disk.lock();
        if contents.generation == self.generation { Ok(contents) } else { Err(StoreError::Closed { file: self.disk.file.to_path_buf() }) }
    }

    fn writable(&self) -> Result<MutexGuard<'_, Contents>, StoreError> {
        let contents = self.contents()?;
        self.fail_if_told(contents)
    }

    fn fail_if_told<'a>(&self, contents: MutexGuard<'a, Contents>) -> Result<MutexGuard<'a, Contents>, StoreError> {
        match &contents.failure {
            Some(why) => Err(StoreError::io("write", &self.disk.file)(std::io::Error::other(why.clone()))),
            None => Ok(contents),
        }
    }

    pub(super) fn snapshots(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(self.contents()?.snapshots.iter().map(|(name, bytes)| (name.clone(), bytes.clone())).collect())
    }

    pub(super) fn put_snapshot(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let mut contents = self.writable()?;
        let fault = contents.begin_write();
        // It gets its name when it is whole, and an error comes before that.
        if fault.is_none() {
            contents.snapshots.insert(name.to_owned(), bytes);
        }
        self.fail_if_told(contents).map(drop)
    }

    pub(super) fn remove_snapshot(&self, name: &str) -> Result<(), StoreError> {
        self.writable()?.snapshots.remove(name);
        Ok(())
    }
}

impl Medium for MemoryMedium {
    fn file(&self) -> &Path {
        &self.disk.file
    }

    fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.contents()?.meta.get(name).cloned())
    }

    fn scan(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for (index, record) in self.contents()?.log.range(range) {
            if !visit(*index, record)? {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut contents = self.writable()?;
        if contents.begin_write() == Some(WriteFault::Torn) {
            contents.tear(&self.disk.file, writes);
            return self.fail_if_told(contents).map(drop);
        }
        contents.commits += 1;
        let mut undo = Undo::default();
        for write in writes {
            match write {
                Write::Entry { index, record } => undo.log.push((*index, contents.log.insert(*index, record.clone()))),
                Write::Remove(range) => {
                    let range = range.start..range.end.max(range.start);
                    let removed: Vec<u64> = contents.log.range(range).map(|(index, _)| *index).collect();
                    for index in removed {
                        undo.log.push((index, contents.log.remove(&index)));
                    }
                }
                Write::Meta { name, record } => undo.meta.push((name, contents.meta.insert(name, record.clone()))),
            }
        }
        if raftwerk_planted::on(Bug::SkipFsync) {
            contents.unflushed.push_back(undo);
            let flushed = contents.unflushed.len().saturating_sub(CACHED_COMMITS);
            contents.unflushed.drain(..flushed);
        }
        self.fail_if_told(contents).map(drop)
    }

    fn close(&self) {
        let mut contents = self.disk.lock();
        if contents.generation == self.generation {
            contents.generation += 1;
        }
    }

    fn simulated_flush(&self) -> Option<Duration> {
        Some(self.disk.lock().flush)
    }
}
