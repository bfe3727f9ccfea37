//! A simulated disk: records in memory, which outlive the replica that wrote them.
//!
//! A commit becomes durable at its end, after the simulated time of a flush. A killed replica's commits that had not ended are lost, and
//! it can write nothing more.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::StoreError;
use super::medium::{Medium, Visit, Write};

#[derive(Default)]
struct Contents {
    log: BTreeMap<u64, Vec<u8>>,
    meta: BTreeMap<&'static str, Vec<u8>>,
    snapshots: BTreeMap<String, Vec<u8>>,
    /// Counts starts: only the newest may write.
    generation: u64,
    failure: Option<String>,
    flush: Duration,
}

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
        self.lock().generation += 1;
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
        match &contents.failure {
            Some(why) => Err(StoreError::io("write", &self.disk.file)(std::io::Error::other(why.clone()))),
            None => Ok(contents),
        }
    }

    pub(super) fn snapshots(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(self.contents()?.snapshots.iter().map(|(name, bytes)| (name.clone(), bytes.clone())).collect())
    }

    pub(super) fn put_snapshot(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.writable()?.snapshots.insert(name.to_owned(), bytes);
        Ok(())
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
        for write in writes {
            match write {
                Write::Entry { index, record } => {
                    contents.log.insert(*index, record.clone());
                }
                Write::Remove(range) => contents.log.retain(|index, _| !range.contains(index)),
                Write::Meta { name, record } => {
                    contents.meta.insert(name, record.clone());
                }
            }
        }
        Ok(())
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
