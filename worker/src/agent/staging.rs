//! Prepared parts: files in the staging directory beside the output, durable before they are reported.
//!
//! ```text
//! /data/out                                       what readers see, after publishing
//! /data/out.raftwerk-tmp-<cluster>-<job>/         staging, on the same file system so that one rename publishes it
//!     part-00003.csv.<lease>                      one attempt's part; attempts of one task never share a name
//!     part-00003.csv                              the accepted attempt's part, once publishing has begun
//! /data/out.raftwerk-tmp-<cluster>-<job>-claim-*  the same under the name of one publisher, right before the rename; after an exchange,
//!                                                 the output that was replaced
//! ```
use super::part_file::{self, PartFiles};
use raftwerk_proto::v1::{BlockRange, OutputPart};
use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::lease::LeaseKey;

/// Letters of the cluster's name in a staging directory: two clusters that share a file system count their jobs from one, both.
const CLUSTER_LETTERS: usize = 12;
/// After the name of a staging directory that a publisher has claimed.
const CLAIM: &str = "-claim-";
/// Shorter parts are read again before they are published, whoever wrote them.
const LARGE_BYTES: u64 = 1 << 20;
/// Ended jobs that are remembered.
const RELEASED_JOBS: usize = 4096;

/// Leases whose parts are written at once: several keep a disk's flushes going, many only compete.
pub(crate) const PARTS_AT_ONCE: usize = 16;

pub(crate) struct Staging {
    cluster: String,
    /// Directories this agent has written to, by job.
    dirs: Mutex<HashMap<u64, PathBuf>>,
    /// Jobs that have ended: a part that is still being written for one must not bring its directory back.
    released: Mutex<BTreeSet<u64>>,
    /// Parts that this process has written and flushed, by job and staged name: what they are, and as what the file system knew them then.
    own: Mutex<HashMap<u64, OwnParts>>,
}

/// By staged name: checksum and file.
type OwnParts = HashMap<String, (u32, Known)>;

/// A file that has not been touched is known by this: whoever writes to it, or puts another one in its place, changes some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    file: (u64, u64),
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Known {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Staging {
    pub(crate) fn new(cluster: &str) -> Self {
        Self { cluster: letters(cluster), dirs: Mutex::default(), released: Mutex::default(), own: Mutex::default() }
    }

    /// The staging directory of a job's output.
    pub(crate) fn dir(&self, output: &Path, job: u64) -> PathBuf {
        let mut name = output.file_name().map_or_else(OsString::new, OsString::from);
        name.push(format!(".raftwerk-tmp-{}-{job}", self.cluster));
        output.with_file_name(name)
    }

    /// A name for the staging directory that only one attempt to publish knows.
    pub(crate) fn claim_name(&self, dir: &Path) -> PathBuf {
        with_suffix(dir, &format!("{CLAIM}{:016x}", getrandom::u64().unwrap_or_default()))
    }

    /// Claims of this staging directory, whoever made them.
    pub(crate) fn claims(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let Some(parent) = dir.parent() else { return Ok(Vec::new()) };
        let prefix = with_suffix(dir, CLAIM);
        let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
        let entries = match fs::read_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut claims = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(prefix) {
                claims.push(entry.path());
            }
        }
        Ok(claims)
    }

    /// This agent works on the job's staging directory, and so has to clean up after it.
    pub(crate) fn touches(&self, job: u64, dir: &Path) {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner).insert(job, dir.to_owned());
    }

    /// Puts a lease's parts there. When this returns they are on disk under the names it sets.
    pub(crate) fn prepare(
        &self,
        output: &Path,
        job: u64,
        lease: LeaseKey,
        files: &PartFiles,
        parts: &mut [OutputPart],
        ranges: &[BlockRange],
    ) -> Result<(), (PathBuf, io::Error)> {
        let dir = self.dir(output, job);
        if self.is_released(job) {
            return Err((dir, io::Error::other("the job has ended")));
        }
        fs::create_dir_all(&dir).map_err(|error| (dir.clone(), error))?;
        self.touches(job, &dir);
        for part in parts.iter_mut() {
            let Some(range) = ranges.iter().find(|range| range.task == u64::from(part.partition)) else {
                return Err((dir, io::Error::other(format!("the executor did not say where part {} is", part.partition))));
            };
            part.staged_name = format!("{}.{lease}", part.name);
            let path = dir.join(&part.staged_name);
            let placed = files.of(part.partition).and_then(|file| part_file::place(file, range, part.crc32c, &path));
            if self.is_released(job) {
                // Whoever released it may have removed the directory before this part came into it.
                let _ = fs::remove_dir_all(&dir);
                return Err((dir, io::Error::other("the job has ended")));
            }
            placed.map_err(|error| (path.clone(), error))?;
            let known = fs::metadata(&path).map_err(|error| (path, error))?;
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.entry(job).or_default().insert(part.staged_name.clone(), (part.crc32c, Known::of(&known)));
        }
        crate::fail_point::reach("prepare.written");
        sync_dir(&dir).map_err(|error| (dir, error))
    }

    /// Whether the part in this directory is a large one that this process has written and flushed, and that nobody has touched since. Reading it once more would
    /// mostly show what the page cache has kept of it, and take as long as writing it took.
    pub(crate) fn is_untouched(&self, dir: &Path, job: u64, part: &OutputPart) -> bool {
        if part.bytes < LARGE_BYTES {
            return false;
        }
        let there = fs::metadata(dir.join(&part.staged_name)).ok().map(|metadata| Known::of(&metadata));
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let known = own.get(&job).and_then(|parts| parts.get(&part.staged_name));
        known.is_some_and(|(crc32c, known)| *crc32c == part.crc32c && known.bytes == part.bytes && there == Some(*known))
    }

    /// Whether a claim holds what was prepared for this job, and not the output that was replaced by it.
    fn is_ours(&self, claim: &Path, job: u64) -> bool {
        let manifest = fs::read(claim.join(super::publish::MANIFEST)).ok();
        let manifest = manifest.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok()).unwrap_or_default();
        manifest["job"] == job && manifest["cluster"].as_str().is_some_and(|cluster| letters(cluster) == self.cluster)
    }

    fn is_released(&self, job: u64) -> bool {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).contains(&job)
    }

    /// Removes what the job left behind; nothing when it was published.
    pub(crate) fn release(&self, job: u64) -> io::Result<()> {
        {
            // Job numbers only grow, so the oldest can go: nothing is written for them any more.
            let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.insert(job);
            while released.len() > RELEASED_JOBS {
                released.pop_first();
            }
        }
        self.own.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
        let Some(dir) = self.dirs.lock().unwrap_or_else(PoisonError::into_inner).remove(&job) else { return Ok(()) };
        for claim in self.claims(&dir)? {
            if self.is_ours(&claim, job) {
                fs::remove_dir_all(&claim)?;
            } else {
                // A replaced output: only its own files go.
                super::destination::remove_replaced(&claim)?;
            }
        }
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

pub(super) fn letters(cluster: &str) -> String {
    cluster.chars().filter(char::is_ascii_alphanumeric).take(CLUSTER_LETTERS).collect()
}

fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    dir.with_file_name(name)
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
