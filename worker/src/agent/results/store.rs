//! Parts of results on this worker's disk.
//!
//! ```text
//! <data dir>/results/<job>/part-00003.csv.<lease>              one attempt's part, flushed before it is reported
//!                         /part-00003.csv.<lease>.<n>.half     a copy on its way here
//! ```
//! Nothing else is needed to find them again: a job's record names its parts, their checksums and their keepers, and this process may end and
//! another one go on. What no record names is deleted when the job ends (attempts that were not accepted), or when the worker next
//! connects (results dropped while it was away).
use super::{brought::Brought, inventory::Inventory};
use crate::{
    agent::{
        part_file::{self, PartFiles},
        staging::sync_dir,
    },
    lease::LeaseKey,
};
use raftwerk_proto::v1::{BlockRange, KeptParts, OutputPart};
use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub(super) const HALF: &str = ".half";
/// Longest name of a part; ours have some forty letters.
const NAME_BYTES: usize = 200;

pub(crate) struct ResultStore {
    dir: PathBuf,
    /// What lies here, by job.
    bytes: Mutex<BTreeMap<u64, u64>>,
    halves: AtomicU64,
    brought: Brought,
    inventory: Inventory,
}

impl ResultStore {
    /// Finds what earlier processes kept, and removes copies that they did not finish.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("results");
        fs::create_dir_all(&dir)?;
        let mut bytes = BTreeMap::new();
        for job in fs::read_dir(&dir)? {
            let job = job?;
            let Some(number) = job.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let mut sum = 0;
            for part in fs::read_dir(job.path())? {
                let part = part?;
                if part.file_name().as_encoded_bytes().ends_with(HALF.as_bytes()) {
                    fs::remove_file(part.path())?;
                } else {
                    sum += part.metadata()?.len();
                }
            }
            bytes.insert(number, sum);
        }
        let (bytes, brought) = (Mutex::new(bytes), Brought::open(data_dir)?);
        Ok(Self { dir, bytes, halves: AtomicU64::new(0), brought, inventory: Inventory::default() })
    }

    pub(crate) fn brought(&self) -> &Brought {
        &self.brought
    }

    pub(crate) fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Moves a part that lies elsewhere in the data directory, flushed and checked, to where it is kept.
    pub(super) fn take_in(&self, job: u64, from: &Path, to: &Path, bytes: u64) -> io::Result<()> {
        fs::create_dir_all(self.job_dir(job))?;
        fs::rename(from, to)?;
        *self.counted().entry(job).or_default() += bytes;
        sync_dir(&self.job_dir(job)).and_then(|()| sync_dir(&self.dir))
    }

    fn counted(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs of which something lies here.
    pub(crate) fn jobs(&self) -> Vec<u64> {
        self.counted().keys().copied().collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.counted().values().sum()
    }

    fn job_dir(&self, job: u64) -> PathBuf {
        self.dir.join(job.to_string())
    }

    /// Where a part lies if it lies here; nowhere when the name is none of ours: it comes over the network.
    pub(crate) fn path(&self, job: u64, name: &str) -> Option<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let ours =
            !name.is_empty() && name.len() <= NAME_BYTES && !name.starts_with('.') && !name.ends_with(HALF) && name.bytes().all(plain);
        ours.then(|| self.job_dir(job).join(name))
    }

    /// Puts a lease's parts there. When this returns they are on disk under the names it sets.
    pub(crate) fn prepare(
        &self,
        job: u64,
        lease: LeaseKey,
        files: &PartFiles,
        parts: &mut [OutputPart],
        ranges: &[BlockRange],
    ) -> Result<(), (PathBuf, io::Error)> {
        let dir = self.job_dir(job);
        fs::create_dir_all(&dir).map_err(|error| (dir.clone(), error))?;
        for part in parts.iter_mut() {
            let Some(range) = ranges.iter().find(|range| range.task == u64::from(part.partition)) else {
                return Err((dir, io::Error::other(format!("the executor did not say where part {} is", part.partition))));
            };
            part.staged_name = format!("{}.{lease}", part.name);
            let path = self.path(job, &part.staged_name).ok_or_else(|| (dir.clone(), io::Error::other("a part has a strange name")))?;
            let placed = files.of(part.partition).and_then(|file| part_file::place(file, range, part.crc32c, &path));
            if let Err(error) = placed {
                let _ = fs::remove_file(&path);
                return Err((path, error));
            }
            *self.counted().entry(job).or_default() += range.bytes;
            self.inventory.has(job, part.partition, &part.staged_name, (part.bytes, part.crc32c));
        }
        // The directory of the job may be new as well.
        sync_dir(&dir).and_then(|()| sync_dir(&self.dir)).map_err(|error| (dir, error))
    }

    /// A file for a copy on its way here.
    pub(crate) fn begin(&self, job: u64, name: &str) -> io::Result<(PathBuf, File)> {
        let path = self.path(job, name).ok_or_else(|| io::Error::other("a part has a strange name"))?;
        fs::create_dir_all(self.job_dir(job))?;
        let mut half = path.into_os_string();
        half.push(format!(".{}{HALF}", self.halves.fetch_add(1, Ordering::Relaxed)));
        let half = PathBuf::from(half);
        let file = File::options().read(true).write(true).create_new(true).open(&half)?;
        Ok((half, file))
    }

    /// The copy is whole and flushed: it gets its name.
    pub(crate) fn finish(&self, job: u64, name: &str, half: &Path) -> io::Result<()> {
        let path = self.path(job, name).ok_or_else(|| io::Error::other("a part has a strange name"))?;
        let before = fs::metadata(&path).map_or(0, |there| there.len());
        fs::rename(half, &path)?;
        let after = fs::metadata(&path)?.len();
        let mut counted = self.counted();
        let sum = counted.entry(job).or_default();
        *sum = sum.saturating_sub(before).saturating_add(after);
        drop(counted);
        sync_dir(&self.job_dir(job)).and_then(|()| sync_dir(&self.dir))
    }

    /// The job has ended: everything goes that is not to be kept. A copy on its way here is not touched: whoever asked for it wants it.
    pub(crate) fn release(&self, kept: &KeptParts) -> io::Result<()> {
        if kept.all {
            return Ok(());
        }
        self.inventory.release(kept);
        let dir = self.job_dir(kept.job);
        if kept.names.is_empty() {
            self.counted().remove(&kept.job);
            return match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let names: HashSet<&str> = kept.names.iter().map(String::as_str).collect();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| !names.contains(name) && !name.ends_with(HALF)) {
                let bytes = entry.metadata()?.len();
                fs::remove_file(entry.path())?;
                let mut counted = self.counted();
                let sum = counted.entry(kept.job).or_default();
                *sum = sum.saturating_sub(bytes);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn prepared(store: &ResultStore, job: u64, index: u64, text: &str) -> OutputPart {
        let source = tempfile::tempfile().unwrap();
        source.write_all_at(text.as_bytes(), 0).unwrap();
        let bytes = text.len() as u64;
        let mut parts =
            [OutputPart { name: "part-00000.csv".into(), bytes, crc32c: crc32c::crc32c(text.as_bytes()), ..OutputPart::default() }];
        let lease = LeaseKey { epoch: 0, index, position: 0 };
        let files = PartFiles { lease: Some(source.into()), ..PartFiles::default() };
        store.prepare(job, lease, &files, &mut parts, &[BlockRange { bytes, ..BlockRange::default() }]).unwrap();
        parts[0].clone()
    }

    #[test]
    fn parts_outlive_the_process_and_half_copies_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultStore::open(dir.path()).unwrap();
        let part = prepared(&store, 7, 5, "result");
        let (half, _) = store.begin(7, "part-00001.csv.0-5-1").unwrap();
        let again = ResultStore::open(dir.path()).unwrap();
        assert!(!half.exists());
        assert_eq!((again.jobs(), again.bytes()), (vec![7], 6));
        assert_eq!(fs::read(again.path(7, &part.staged_name).unwrap()).unwrap(), b"result");
    }

    #[test]
    fn attempts_that_were_not_accepted_go_with_the_jobs_end_and_the_rest_when_nobody_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultStore::open(dir.path()).unwrap();
        let (rejected, accepted) = (prepared(&store, 7, 5, "rejected"), prepared(&store, 7, 6, "accepted!"));
        let there = |part: &OutputPart| store.path(7, &part.staged_name).unwrap().exists();
        store.release(&KeptParts { job: 7, all: true, names: Vec::new() }).unwrap();
        assert!(there(&rejected) && there(&accepted));
        store.release(&KeptParts { job: 7, all: false, names: vec![accepted.staged_name.clone()] }).unwrap();
        assert_eq!((there(&rejected), there(&accepted), store.bytes()), (false, true, 9));
        store.release(&KeptParts { job: 7, ..KeptParts::default() }).unwrap();
        assert_eq!((there(&accepted), store.bytes(), store.jobs()), (false, 0, vec![]));
        store.release(&KeptParts { job: 8, ..KeptParts::default() }).unwrap();
    }

    #[test]
    fn a_name_never_leads_out_of_the_jobs_directory() {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultStore::open(dir.path()).unwrap();
        for name in ["", ".", "..", "../../identity/key.pem", "/etc/passwd", "a/b", "x.half", "a\0b", ".hidden"] {
            assert_eq!(store.path(1, name), None, "{name:?}");
        }
        assert!(store.path(1, "part-00000.csv.0-5-1").is_some());
    }
}
