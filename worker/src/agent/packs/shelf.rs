//! Packs on this worker's disk, and the last few of them in memory.
//!
//! ```text
//! <data dir>/packs/<SHA-256, hexadecimal>     a pack; the time of last change says when it was last written or read
//!                 /<SHA-256>.<random>.half    one on its way here
//! ```
//! Nothing is flushed: one that a power failure has damaged is found by its digest, and made again.

use super::locked;
use super::pack::{PACK_FILES, Sha, entry, hex, pack_of, sha_of};
use raftwerk_proto::Wire;
use raftwerk_proto::v1::{Files, InputFile};
use std::{
    collections::{HashSet, VecDeque},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::SystemTime,
};

const HALF: &str = ".half";
/// Packs in memory, some megabytes. Tasks come in order, so that few are enough.
const LOADED: usize = 8;
/// Bytes of packs on disk: some eight million names of a hundred bytes. Those that nobody has read or written for longest go first, and are made again
/// if they are needed. A worker does not know of which jobs they are, so it keeps them beyond these.
const KEPT_BYTES: u64 = 1 << 30;

pub(super) struct Shelf {
    dir: PathBuf,
    loaded: Mutex<VecDeque<(Sha, Arc<Vec<InputFile>>)>>,
    pub(super) kept_bytes: u64,
}

impl Shelf {
    /// Removes what a process that died has left half written.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("packs");
        fs::create_dir_all(&dir)?;
        for found in fs::read_dir(&dir)? {
            let found = found?;
            if found.file_name().as_encoded_bytes().ends_with(HALF.as_bytes()) {
                fs::remove_file(found.path())?;
            }
        }
        Ok(Self { dir, loaded: Mutex::default(), kept_bytes: KEPT_BYTES })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, digest: &Sha) -> PathBuf {
        self.dir.join(hex(digest))
    }

    /// Keeps a listing; what the log has of it, a line for each pack. `files` says how the files are cut.
    ///
    /// # Errors
    /// The disk does not take it. Nothing new is left there then: what little room there is others need more.
    pub(super) fn keep(&self, listing: Vec<InputFile>, files: &Files) -> io::Result<Vec<InputFile>> {
        let (mut entries, mut own, mut fresh) = (Vec::new(), HashSet::new(), Vec::new());
        let mut listing = listing.into_iter();
        loop {
            let some: Vec<InputFile> = listing.by_ref().take(PACK_FILES).collect();
            if some.is_empty() {
                break;
            }
            let pack = pack_of(some);
            let bytes = pack.to_wire();
            let digest = sha_of(&bytes);
            match self.write(&digest, &bytes) {
                Ok(true) => fresh.push(self.path(&digest)),
                Ok(false) => {}
                Err(error) => {
                    fresh.iter().for_each(|path| drop(fs::remove_file(path)));
                    return Err(error);
                }
            }
            own.insert(self.path(&digest));
            entries.push(entry(&pack.listing, digest, files));
        }
        if let Err(error) = self.drop_old(&own) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove listings that nobody has needed for long");
        }
        Ok(entries)
    }

    /// Whether it was not there before. One that is there is written again, because it may be damaged.
    fn write(&self, digest: &Sha, bytes: &[u8]) -> io::Result<bool> {
        let (path, random) = (self.path(digest), getrandom::u64().map_err(io::Error::other)?);
        let half = self.dir.join(format!("{}.{random:016x}{HALF}", hex(digest)));
        let was_there = path.exists();
        let written = File::create_new(&half).and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&half, &path));
        match written {
            Ok(()) => Ok(!was_there),
            Err(error) => {
                let _ = fs::remove_file(&half);
                Err(error)
            }
        }
    }

    /// `own`: what was written a moment ago, which stays however long it is.
    fn drop_old(&self, own: &HashSet<PathBuf>) -> io::Result<()> {
        let (mut all, mut bytes) = (Vec::new(), 0);
        for found in fs::read_dir(&self.dir)? {
            let found = found?;
            // Another thread may have removed it, or gives it its name.
            let Ok(metadata) = found.metadata() else { continue };
            bytes += metadata.len();
            if !own.contains(&found.path()) && !found.file_name().as_encoded_bytes().ends_with(HALF.as_bytes()) {
                all.push((metadata.modified()?, metadata.len(), found.path()));
            }
        }
        all.sort();
        for (_, length, path) in all {
            if bytes <= self.kept_bytes {
                break;
            }
            // Of two threads that are here one finds it gone.
            if fs::remove_file(&path).is_ok() {
                tracing::debug!(path = %path.display(), "removed a pack that nobody has read for long");
            }
            bytes -= length;
        }
        Ok(())
    }

    /// In memory, or else on disk; there one that is not what its name says is removed.
    pub(super) fn find(&self, digest: Sha) -> Option<Arc<Vec<InputFile>>> {
        if let Some((_, pack)) = locked(&self.loaded).iter().find(|(of, _)| *of == digest) {
            return Some(pack.clone());
        }
        let path = self.path(&digest);
        let bytes = fs::read(&path).ok()?;
        let pack = Some(&bytes).filter(|bytes| sha_of(bytes) == digest).and_then(|bytes| Files::from_wire_slice(bytes).ok());
        let Some(pack) = pack.map(|pack| Arc::new(pack.listing)) else {
            tracing::warn!(path = %path.display(), "a pack of a listing is damaged; it is made again");
            let _ = fs::remove_file(&path);
            return None;
        };
        // It is of use; if that cannot be written down, it is older than it should be.
        let _ = File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        let mut loaded = locked(&self.loaded);
        if loaded.iter().all(|(of, _)| *of != digest) {
            loaded.truncate(LOADED - 1);
            loaded.push_front((digest, pack.clone()));
        }
        Some(pack)
    }

    #[cfg(test)]
    pub(super) fn forget_loaded(&self) {
        locked(&self.loaded).clear();
    }
}
