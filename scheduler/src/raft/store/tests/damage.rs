//! Bytes that changed on the disk: found, or without effect.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftLogStorage;

use super::{CLUSTER, Contents, append, contents, entry, open};
use crate::raft::store::{RedbMedium, SnapshotStore, StoreError};
use crate::raft::types::{SnapshotMeta, StoredMembership, Vote, log_id};

async fn written(file: &Path) -> Contents {
    let mut log = open(Arc::new(RedbMedium::open(file, true).unwrap())).unwrap();
    log.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    for index in 0..60 {
        append(&mut log, vec![entry(3, index, &format!("entry {index}"))]).await.unwrap();
    }
    log.save_committed(Some(log_id(3, 50))).await.unwrap();
    log.purge(log_id(3, 9)).await.unwrap();
    append(&mut log, (60..70).map(|i| entry(3, i, "last")).collect()).await.unwrap();
    log.close().await;
    let mut log = open(Arc::new(RedbMedium::open(file, false).unwrap())).unwrap();
    let contents = contents(&mut log).await.unwrap();
    log.close().await;
    contents
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_log_is_found_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("raft.redb");
    let intact = written(&file).await;
    let (bytes, mark) = (std::fs::read(&file).unwrap(), std::fs::read(file.with_extension("mark")).unwrap());
    // All of redb's header, and a prime stride over the rest, most of which is free pages.
    const HEADER: usize = 320;
    let places = (0..HEADER).chain((HEADER..bytes.len()).step_by(1021));
    let (mut found, mut harmless) = (0, 0);
    let damaged_file = dir.path().join("damaged.redb");
    for place in places {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (place % 8);
        std::fs::write(&damaged_file, &damaged).unwrap();
        std::fs::write(damaged_file.with_extension("mark"), &mark).unwrap();
        let opened = RedbMedium::open(&damaged_file, false).and_then(|medium| open(Arc::new(medium)));
        match opened {
            Err(e) => {
                found += 1;
                assert!(e.to_string().contains("damaged.redb"), "{e}");
            }
            Ok(mut log) => {
                assert_eq!(contents(&mut log).await.unwrap(), intact, "a flipped bit in byte {place} went unnoticed");
                log.close().await;
                harmless += 1;
            }
        }
    }
    println!("{} bytes: {found} flips found, {harmless} without effect", bytes.len());
    assert!(found > 10 && harmless > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_record_is_found_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("raft.redb");
    written(&file).await;
    let bytes = std::fs::read(&file).unwrap();
    // A record of the log lies in one piece; the payload `entry 33` marks one.
    let places: Vec<usize> = bytes.windows(8).enumerate().filter(|(_, w)| *w == b"entry 33").map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for bit in 0..64 {
        let mut damaged = bytes.clone();
        // Copies in free pages too: only the live one counts, and which it is redb knows.
        places.iter().for_each(|place| damaged[place + bit / 8] ^= 1 << (bit % 8));
        std::fs::write(&file, &damaged).unwrap();
        let why = RedbMedium::open(&file, false).and_then(|medium| open(Arc::new(medium))).err().expect("the damage is found").to_string();
        assert!(why.contains("raft.redb is damaged") && why.contains("To repair:") && why.contains("raftwerk cluster remove"), "{why}");
    }
}

#[test]
fn a_damaged_snapshot_is_named_and_not_passed_over_for_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(CLUSTER, dir.path()).unwrap();
    let meta = |index| SnapshotMeta { last_log_id: Some(log_id(2, index)), last_membership: StoredMembership::default() };
    for index in [10, 20, 30] {
        store.save(&meta(index), &format!("state at {index}").into()).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    let (newest, state) = store.newest().unwrap().unwrap();
    assert_eq!((newest, &state[..]), (meta(30), &b"state at 30"[..]));

    let file = dir.path().join("00000000000000000002-00000000000000000030.snap");
    let bytes = std::fs::read(&file).unwrap();
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (place % 8);
        std::fs::write(&file, &damaged).unwrap();
        let why = store.newest().unwrap_err();
        match (place, &why) {
            (0 | 1, StoreError::UnknownFormat { .. }) => {}
            (_, StoreError::Damaged { .. }) => assert!(why.to_string().contains("0030.snap"), "{why}"),
            (_, other) => panic!("byte {place}: {other}"),
        }
    }
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(store.newest(), Err(StoreError::Damaged { .. })));
}

#[test]
fn an_interrupted_save_leaves_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("00000000000000000002-00000000000000000030.snap.tmp"), b"half").unwrap();
    let store = SnapshotStore::open(CLUSTER, dir.path()).unwrap();
    assert!(store.newest().unwrap().is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
