//! The worker's data directory: of one worker process at a time.
//!
//! ```text
//! <data dir>/lock            held by the running agent
//! <data dir>/identity/       key, certificate and CA, from joining
//! <data dir>/schedulers      addresses learnt from the cluster, one per line
//! <data dir>/shuffle/        data between stages; emptied at every start
//! <data dir>/results/        parts of results that stay on workers
//! <data dir>/brought/        the same that were kept for another cluster
//! ```
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

pub(crate) const IDENTITY: &str = "identity";

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{} is used by another worker process; a data directory belongs to one worker", .0.display())]
    Locked(PathBuf),
    #[error("cannot use the data directory {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// One writer of the list of schedulers at a time.
    writing: Mutex<()>,
    /// The lock lasts as long as this file is open.
    lock: File,
}

/// Said aloud: an executor that was forked a moment ago and has not begun its program yet holds a copy of the descriptor, and with it the lock.
impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl DataDir {
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source: io::Error| DataDirError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        // Absolute, since the agent hands paths around and its working directory is nobody's promise.
        let path = path.canonicalize().map_err(failed)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join("lock")).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, writing: Mutex::default(), lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::Locked(path)),
            Err(error) => Err(failed(error.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.path.join(IDENTITY)
    }

    /// Addresses of schedulers as the cluster has said last; a damaged or missing file only means to know fewer.
    pub(crate) fn known_schedulers(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path.join("schedulers")).unwrap_or_default();
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    pub(crate) fn remember_schedulers(&self, addresses: &[String]) -> io::Result<()> {
        // In one step: a list that is cut off would be believed.
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let unfinished = self.path.join("schedulers.tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all((addresses.join("\n") + "\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, self.path.join("schedulers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Locked(_))));
        first.remember_schedulers(&["a:1".into(), "b:2".into()]).unwrap();
        drop(first);
        assert_eq!(DataDir::open(dir.path()).unwrap().known_schedulers(), ["a:1", "b:2"]);
    }
}
