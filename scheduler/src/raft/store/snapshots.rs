//! Snapshot files. A file appears under its name only when it is complete and on disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use openraft::type_config::AsyncRuntime;
use raftwerk_proto::v1 as pb;

use super::StoreError;
use super::record::{Kind, Seal};
use crate::raft::convert::{snapshot_meta_from_pb, snapshot_meta_to_pb};
use crate::raft::types::SnapshotMeta;

/// The newest, and one more so that a person has something to look at when the newest is damaged.
const KEPT: usize = 2;
const SUFFIX: &str = ".snap";

enum Place {
    Directory(PathBuf),
    #[cfg(any(test, feature = "sim"))]
    Memory(super::MemoryMedium),
}

pub struct SnapshotStore {
    seal: Seal,
    place: Place,
    /// A snapshot is saved by the task that built it and by the one that installs the leader's; one at a time.
    saving: Mutex<()>,
}

impl SnapshotStore {
    /// Snapshots in the folder `dir`, which is made if need be. Files that an interrupted save left are removed.
    pub fn open(cluster: &str, dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
            let path = entry.map_err(StoreError::io("list", dir))?.path();
            if path.extension().is_some_and(|x| x == "tmp") {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(SnapshotStore { seal: Seal::new(cluster), place: Place::Directory(dir.to_owned()), saving: Mutex::default() })
    }

    #[cfg(any(test, feature = "sim"))]
    pub fn in_memory(cluster: &str, medium: super::MemoryMedium) -> Self {
        SnapshotStore { seal: Seal::new(cluster), place: Place::Memory(medium), saving: Mutex::default() }
    }

    /// Makes the snapshot durable and the newest, unless it is already there.
    pub fn save(&self, meta: &SnapshotMeta, state: &Bytes) -> Result<(), StoreError> {
        let _saving = self.saving.lock().unwrap_or_else(|e| e.into_inner());
        let name = name(meta);
        let mut names = self.names()?;
        if names.contains(&name) {
            return Ok(());
        }
        let body = pb::RaftSnapshot { meta: Some(snapshot_meta_to_pb(meta)), state: state.clone() };
        self.put(&name, self.seal.write(Kind::Snapshot, &body))?;
        names.push(name);
        names.sort();
        names.iter().rev().skip(KEPT).try_for_each(|old| self.remove(old))
    }

    /// The newest snapshot. One that cannot be read is an error: an older one may reach back to where the log no longer begins.
    pub fn newest(&self) -> Result<Option<(SnapshotMeta, Bytes)>, StoreError> {
        let _saving = self.saving.lock().unwrap_or_else(|e| e.into_inner());
        let Some(newest) = self.names()?.pop() else { return Ok(None) };
        let (file, record) = self.get(&newest)?;
        let body: pb::RaftSnapshot = self.seal.read(Kind::Snapshot, &record, &file, &|| "the snapshot".into())?;
        drop(record);
        let meta = body.meta.as_ref().ok_or_else(|| StoreError::damaged(&file, "the snapshot says not what it holds"))?;
        let meta = snapshot_meta_from_pb(meta).map_err(|e| StoreError::damaged(&file, e.to_string()))?;
        if name(&meta) != newest {
            return Err(StoreError::damaged(&file, "the snapshot is another one than its name says"));
        }
        Ok(Some((meta, body.state)))
    }

    /// The first index that the newest snapshot does not hold, by its name; 0 without a snapshot.
    pub(in crate::raft) fn covered(&self) -> Result<u64, StoreError> {
        let Some(newest) = self.names()?.pop() else { return Ok(0) };
        let index = newest.trim_end_matches(SUFFIX).split_once('-').and_then(|(_, index)| index.parse::<u64>().ok());
        index.map(|index| index + 1).ok_or_else(|| StoreError::damaged(&self.place().join(newest), "its name is not a term and an index"))
    }

    /// What to name in an error.
    pub(in crate::raft) fn place(&self) -> &Path {
        match &self.place {
            Place::Directory(dir) => dir,
            #[cfg(any(test, feature = "sim"))]
            Place::Memory(_) => Path::new("snapshots"),
        }
    }

    /// Runs `f`, which blocks, where it holds up nothing; in simulation there is nothing but the one thread.
    pub fn off_thread<Rt: AsyncRuntime, T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = io::Result<T>> + Send + 'static {
        let directory = matches!(self.place, Place::Directory(_));
        async move { if directory { Rt::spawn_blocking(f).await } else { Ok(f()) } }
    }

    /// Oldest first.
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = match &self.place {
            Place::Directory(dir) => fs::read_dir(dir)
                .and_then(|entries| entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>())
                .map_err(StoreError::io("list", dir))?,
            #[cfg(any(test, feature = "sim"))]
            Place::Memory(medium) => medium.snapshots()?.into_iter().map(|(name, _)| name).collect(),
        };
        names.retain(|name| name.ends_with(SUFFIX));
        names.sort();
        Ok(names)
    }

    fn get(&self, name: &str) -> Result<(PathBuf, Vec<u8>), StoreError> {
        match &self.place {
            Place::Directory(dir) => {
                let file = dir.join(name);
                let bytes = fs::read(&file).map_err(StoreError::io("read", &file))?;
                Ok((file, bytes))
            }
            #[cfg(any(test, feature = "sim"))]
            Place::Memory(medium) => {
                let bytes = medium.snapshots()?.into_iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes).unwrap_or_default();
                Ok((PathBuf::from(name), bytes))
            }
        }
    }

    fn put(&self, name: &str, record: Vec<u8>) -> Result<(), StoreError> {
        match &self.place {
            Place::Directory(dir) => {
                let file = dir.join(name);
                let unfinished = dir.join(format!("{name}.tmp"));
                let mut handle = File::create(&unfinished).map_err(StoreError::io("create", &unfinished))?;
                handle.write_all(&record).map_err(StoreError::io("write", &unfinished))?;
                // The content must be on disk before the name is: a crash in between would leave a named file of zeros.
                handle.sync_all().map_err(StoreError::io("flush", &unfinished))?;
                fs::rename(&unfinished, &file).map_err(StoreError::io("rename into", &file))?;
                sync_directory(dir)
            }
            #[cfg(any(test, feature = "sim"))]
            Place::Memory(medium) => medium.put_snapshot(name, record),
        }
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match &self.place {
            Place::Directory(dir) => {
                let file = dir.join(name);
                fs::remove_file(&file).map_err(StoreError::io("remove", &file))
            }
            #[cfg(any(test, feature = "sim"))]
            Place::Memory(medium) => medium.remove_snapshot(name),
        }
    }
}

/// Sorts by term, then index.
fn name(meta: &SnapshotMeta) -> String {
    let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    format!("{term:020}-{index:020}{SUFFIX}")
}

pub(super) fn sync_directory(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(StoreError::io("flush the directory", dir))
}
