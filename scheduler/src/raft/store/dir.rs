//! The data directory: one process at a time, one replica for ever.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::database::Unmarked;
use super::snapshots::sync_directory;
use super::{RedbMedium, StoreError};

/// Says in words whose the directory is, and that the database has been made.
const IDENTITY: &str = "raft-identity";
const DATABASE: &str = "raft.redb";
const SNAPSHOTS: &str = "snapshots";

/// A data directory held by this process until it is dropped.
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

/// Said aloud: a child that was forked a moment ago and has not begun its program yet holds a copy of the descriptor, and with it the lock.
impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl DataDir {
    /// Makes the directory if need be and takes it.
    pub fn take(path: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(path).map_err(StoreError::io("create", path))?;
        let file = path.join("LOCK");
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file).map_err(StoreError::io("open", &file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.read_to_string(&mut pid);
                let pid = pid.trim();
                return Err(StoreError::InUse {
                    dir: path.to_owned(),
                    pid: if pid.is_empty() { "unknown".into() } else { pid.to_owned() },
                });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &file)(e)),
        }
        // For the message above; the lock itself is the kernel's and ends with the process.
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(StoreError::io("write", &file))?;
        Ok(DataDir { path: path.to_owned(), lock })
    }

    /// Whether a log was made in this directory.
    pub fn holds_log(path: &Path) -> bool {
        path.join(IDENTITY).exists()
    }

    /// The same, also when only a part of it is left. An identity is written before any of it.
    pub fn holds_any_log(path: &Path) -> bool {
        Self::holds_log(path) || path.join(DATABASE).exists()
    }

    pub fn snapshots(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }

    /// Opens the database. Call [`DataDir::seal`] once it is known to be this replica's.
    pub fn database(&self) -> Result<RedbMedium, StoreError> {
        self.database_with(Unmarked::Refuse)
    }

    /// The same, perhaps also when it has lost its mark.
    pub fn database_with(&self, unmarked: Unmarked) -> Result<RedbMedium, StoreError> {
        let first_start = !self.path.join(IDENTITY).exists();
        RedbMedium::open_with(&self.path.join(DATABASE), first_start, unmarked)
    }

    /// From now on a missing database is damage.
    pub fn seal(&self, cluster: &str, node: u64) -> Result<(), StoreError> {
        let file = self.path.join(IDENTITY);
        let text = format!("cluster {cluster}\nreplica {node}\n");
        match fs::read(&file) {
            Ok(there) if there == text.as_bytes() => return Ok(()),
            // The database has just said whose it is; a person who has lost the identity reads it here.
            Ok(_) => tracing::warn!("{} did not say whose the log is; it is written anew", file.display()),
            Err(_) => {}
        }
        let unfinished = self.path.join(format!("{IDENTITY}.tmp"));
        File::create(&unfinished)
            .and_then(|mut f| {
                f.write_all(text.as_bytes())?;
                f.sync_all()
            })
            .map_err(StoreError::io("write", &unfinished))?;
        fs::rename(&unfinished, &file).map_err(StoreError::io("rename into", &file))?;
        sync_directory(&self.path)
    }
}
