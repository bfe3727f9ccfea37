//! The worker's data directory: of one worker process at a time.
//!
//! ```text
//! <data dir>/lock            held by the running agent, holds its pid
//! <data dir>/identity/       key, certificate and CA, from joining
//! <data dir>/schedulers      addresses learnt from the cluster, one per line
//! <data dir>/shuffle/        data between stages; emptied at every start
//! <data dir>/results/        parts of results that stay on workers
//! <data dir>/brought/        the same that were kept for another cluster
//! ```
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

pub(crate) const IDENTITY: &str = "identity";

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{} is used by another worker process (pid {pid}); a data directory belongs to one worker", path.display())]
    Locked { path: PathBuf, pid: String },
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
        let mut lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("lock")).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let _ = lock.read_to_string(&mut pid);
                let pid = pid.trim();
                let pid = if pid.is_empty() { "unknown" } else { pid }.to_owned();
                return Err(DataDirError::Locked { path, pid });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // For the message above; the lock itself is the kernel's and ends with the process. A full disk is no reason not to start.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path, writing: Mutex::default(), lock })
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
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(&refused, DataDirError::Locked { pid, .. } if *pid == std::process::id().to_string()), "{refused}");
        first.remember_schedulers(&["a:1".into(), "b:2".into()]).unwrap();
        drop(first);
        assert_eq!(DataDir::open(dir.path()).unwrap().known_schedulers(), ["a:1", "b:2"]);
    }
}
