//! Parts of results that this worker kept for another cluster, before it joined this one with the same data directory.
//!
//! ```text
//! <data dir>/brought/<cluster>/<job>/part-00003.csv.<lease>
//! ```
//! A cluster that was restored from a backup knows the jobs of the old one and asks for the parts that its records name: they are compared with the
//! recorded checksum and move to the results kept here. What nobody asks for stays where it is: the backup may be older than the job, and
//! numbers of another cluster's jobs mean nothing here. Nothing in there is ever deleted by this program.
use super::store::{HALF, ResultStore};
use crate::agent::publish;
use raftwerk_proto::v1::PartToKeep;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub(crate) const BROUGHT: &str = "brought";

pub(crate) struct Brought {
    dir: PathBuf,
    /// Bytes of what still lies there, by job; jobs of two clusters may have one number.
    jobs: Mutex<BTreeMap<u64, u64>>,
}

impl Brought {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join(BROUGHT);
        let mut jobs = BTreeMap::new();
        for cluster in entries(&dir)? {
            for job in entries(&cluster)? {
                let Some(number) = job.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) else { continue };
                let bytes = entries(&job)?.iter().map(|part| part.metadata().map_or(0, |found| found.len())).sum::<u64>();
                if bytes > 0 {
                    *jobs.entry(number).or_default() += bytes;
                }
            }
        }
        Ok(Self { dir, jobs: Mutex::new(jobs) })
    }

    fn counted(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Jobs of which something lies there.
    pub(crate) fn jobs(&self) -> Vec<u64> {
        self.counted().keys().copied().collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.counted().values().sum()
    }
}

/// Puts what the data directory keeps of results out of the way, before it becomes that of a worker of another cluster.
pub(crate) fn put_aside(data_dir: &Path, cluster: &str) -> io::Result<()> {
    let results = data_dir.join("results");
    let any = entries(&results)?.iter().any(|job| entries(job).is_ok_and(|parts| !parts.is_empty()));
    if !any {
        return Ok(());
    }
    let brought = data_dir.join(BROUGHT);
    fs::create_dir_all(&brought)?;
    // The name comes from a certificate, and is for a person.
    let plain: String = cluster.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(100).collect();
    let free = (1u32..).map(|n| brought.join(if n == 1 { plain.clone() } else { format!("{plain}.{n}") })).find(|path| !path.exists());
    fs::rename(&results, free.unwrap_or(brought.join("results")))?;
    File::open(&brought)?.sync_all()?;
    File::open(data_dir)?.sync_all()
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        entries => entries?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

impl ResultStore {
    /// Makes a brought part one that is kept here, if it is there as it was made.
    pub(crate) fn adopt(&self, job: u64, part: &PartToKeep) -> io::Result<bool> {
        let brought = self.brought();
        if !brought.counted().contains_key(&job) {
            return Ok(false);
        }
        // Says that the name is harmless.
        let Some(here) = self.path(job, &part.staged_name).filter(|_| !part.staged_name.ends_with(HALF)) else { return Ok(false) };
        for cluster in entries(&brought.dir)? {
            let there = cluster.join(job.to_string()).join(&part.staged_name);
            let Ok(file) = File::open(&there) else { continue };
            if publish::checksum(file, part.bytes)? != (part.bytes, part.crc32c) {
                tracing::warn!(job, part = part.staged_name, "a part of another cluster's result is damaged: {}", there.display());
                continue;
            }
            self.take_in(job, &there, &here, part.bytes)?;
            let mut counted = brought.counted();
            if let Some(left) = counted.get_mut(&job) {
                *left = left.saturating_sub(part.bytes);
                if *left == 0 {
                    counted.remove(&job);
                }
            }
            tracing::info!(job, part = part.staged_name, "a part that was kept for another cluster is kept for this one");
            return Ok(true);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::KeptParts;

    fn part(name: &str, text: &str) -> PartToKeep {
        PartToKeep { staged_name: name.into(), bytes: text.len() as u64, crc32c: crc32c::crc32c(text.as_bytes()), ..PartToKeep::default() }
    }

    #[test]
    fn what_a_record_names_is_taken_in_and_the_rest_stays_whatever_is_released() {
        let dir = tempfile::tempdir().unwrap();
        for (job, name, text) in [(7, "part-0", "right"), (7, "part-1", "other"), (9, "part-0", "orphan")] {
            let place = dir.path().join("results").join(job.to_string());
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(name), text).unwrap();
        }
        put_aside(dir.path(), "c-old/../x").unwrap();
        put_aside(dir.path(), "c-old/../x").unwrap();
        let store = ResultStore::open(dir.path()).unwrap();
        assert_eq!((store.jobs(), store.brought().jobs(), store.brought().bytes()), (vec![], vec![7, 9], 16));
        assert!(!store.adopt(7, &part("part-0", "wrong")).unwrap(), "another checksum");
        assert!(!store.adopt(7, &part("../9/part-0", "orphan")).unwrap(), "a name that leads elsewhere");
        assert!(!store.adopt(8, &part("part-0", "right")).unwrap());
        assert!(store.adopt(7, &part("part-0", "right")).unwrap());
        assert_eq!(fs::read(store.path(7, "part-0").unwrap()).unwrap(), b"right");
        store.release(&KeptParts { job: 9, ..KeptParts::default() }).unwrap();
        store.release(&KeptParts { job: 7, ..KeptParts::default() }).unwrap();
        assert_eq!((store.bytes(), store.brought().jobs(), store.brought().bytes()), (0, vec![7, 9], 11));
        let again = ResultStore::open(dir.path()).unwrap();
        assert_eq!((again.brought().jobs(), again.brought().bytes()), (vec![7, 9], 11));
        assert_eq!(fs::read(dir.path().join("brought/c-old____x/9/part-0")).unwrap(), b"orphan");
    }
}
