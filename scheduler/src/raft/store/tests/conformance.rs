//! openraft's own tests of a store, and what they leave out.

use std::sync::Arc;
use std::time::Duration;

use openraft::impls::TokioRuntime;
use openraft::storage::RaftLogStorage;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use tempfile::TempDir;

use super::{CLUSTER, Log, append, contents, entry, open};
use crate::raft::fault::Fault;
use crate::raft::state_machine::Machine;
use crate::raft::store::{MemoryDisk, REPLICATION_BYTES, RedbMedium, SnapshotStore};
use crate::raft::tests::Chain;
use crate::raft::types::{Types, Vote, log_id};

type C = Types<Chain, TokioRuntime>;

struct OnDisk;

impl StoreBuilder<C, Log, Machine<Chain, TokioRuntime>, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, Log, Machine<Chain, TokioRuntime>), StorageError<C>> {
        let dir = tempfile::tempdir().unwrap();
        let log = open(Arc::new(RedbMedium::open(&dir.path().join("raft.redb"), true).unwrap())).unwrap();
        let snapshots = SnapshotStore::open(CLUSTER, dir.path()).unwrap();
        Ok((dir, log, Machine::new(CLUSTER, Arc::new(snapshots), Fault::default())))
    }
}

struct InMemory;

impl StoreBuilder<C, Log, Machine<Chain, TokioRuntime>> for InMemory {
    async fn build(&self) -> Result<((), Log, Machine<Chain, TokioRuntime>), StorageError<C>> {
        let medium = MemoryDisk::new("disk", Duration::from_micros(10)).medium();
        let snapshots = SnapshotStore::in_memory(CLUSTER, medium.clone());
        Ok(((), open(Arc::new(medium)).unwrap(), Machine::new(CLUSTER, Arc::new(snapshots), Fault::default())))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_on_disk_is_what_openraft_expects() {
    Suite::test_all(OnDisk).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_is_what_openraft_expects() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reopened_log_is_the_log_that_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("raft.redb");
    let mut log = open(Arc::new(RedbMedium::open(&file, true).unwrap())).unwrap();
    log.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    append(&mut log, (0..9000).map(|i| entry(3, i, &format!("entry {i}"))).collect()).await.unwrap();
    log.truncate_after(Some(log_id(3, 8499))).await.unwrap();
    append(&mut log, (8500..9500).map(|i| entry(4, i, &format!("other entry {i}"))).collect()).await.unwrap();
    log.save_committed(Some(log_id(4, 9000))).await.unwrap();
    // Its rows go in several transactions; some may remain at the close.
    log.purge(log_id(3, 8000)).await.unwrap();
    let mut before = contents(&mut log).await.unwrap();
    log.close().await;

    let mut log = open(Arc::new(RedbMedium::open(&file, false).unwrap())).unwrap();
    before.committed = Some(log_id(4, 9000));
    assert_eq!(contents(&mut log).await.unwrap(), before);
    assert_eq!(before.entries.len(), 1499);
    append(&mut log, vec![entry(4, 9500, "and on")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_too_old_for_memory_are_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(Arc::new(RedbMedium::open(&dir.path().join("raft.redb"), true).unwrap())).unwrap();
    let text = "x".repeat(1 << 20);
    for index in 0..40 {
        append(&mut log, vec![entry(1, index, &text)]).await.unwrap(); // more than memory keeps
    }
    let all = log.try_get_log_entries(0..40).await.unwrap();
    assert_eq!(all.iter().map(|e| e.log_id.index).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    // From the disk, over the border, and from memory: one message holds what fits.
    for start in 0..40 {
        let some = log.limited_get_log_entries(start, 40).await.unwrap();
        assert_eq!(some.len(), REPLICATION_BYTES >> 20);
        assert_eq!(some[0], all[start as usize]);
    }
    // Cut back to before what is in memory.
    log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    append(&mut log, vec![entry(2, 5, "new")]).await.unwrap();
    let cut = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(cut.len(), 6);
    assert_eq!(cut[5], entry(2, 5, "new"));
}
