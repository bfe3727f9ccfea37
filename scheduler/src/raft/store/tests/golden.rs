//! The bytes of format 1, as the first version wrote them. They are replayed, and written again the same.
//!
//! A test that fails here has changed the format: keep reading the old one, give the new one another number, and add its files.
//! `RAFTWERK_WRITE_GOLDEN=1 cargo test -p raftwerk-scheduler golden` writes the files of a new format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftwerk_proto::v1 as pb;

use super::{CLUSTER, entry};
use crate::raft::convert::{entry_to_pb, log_id_to_pb, snapshot_meta_to_pb, vote_to_pb};
use crate::raft::sim;
use crate::raft::store::medium::{Medium, Write, meta};
use crate::raft::store::record::{Kind, Seal};
use crate::raft::store::{MemoryDisk, SnapshotStore, StoreError};
use crate::raft::tests::Chain;
use crate::raft::types::{Entry, EntryPayload, Membership, Node, SnapshotMeta, StoredMembership, Vote, log_id};
use crate::raft::{RaftConfig, Replica, StateMachine, Storage};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/raft/v1")
}

fn membership() -> Membership {
    let node = Node { name: "replica-1".into(), address: "127.0.0.1:7070".into() };
    Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)])).unwrap()
}

/// Entries 0 to 2 are in the snapshot, the rest in the log.
fn snapshot() -> (SnapshotMeta, Chain) {
    let mut chain = Chain::empty(CLUSTER);
    chain.apply(2, b"before the snapshot").unwrap();
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 2)), last_membership: StoredMembership::new(Some(log_id(0, 0)), membership()) };
    (meta, chain)
}

fn entries() -> Vec<Entry> {
    vec![
        entry(1, 3, "after the snapshot"),
        Entry { log_id: log_id(4, 4), payload: EntryPayload::Blank },
        Entry { log_id: log_id(4, 5), payload: EntryPayload::Membership(membership()) },
        entry(4, 6, ""),
        entry(4, 7, "not known to be committed"),
    ]
}

/// Name and bytes of every file.
fn files() -> Vec<(String, Vec<u8>)> {
    let seal = Seal::new(CLUSTER);
    let mut files = vec![
        ("identity".to_owned(), seal.write(Kind::Identity, &pb::RaftIdentity { cluster: CLUSTER.into(), node: 1 })),
        ("vote".to_owned(), seal.write(Kind::Vote, &vote_to_pb(&Vote::new_committed(4, 1)))),
        ("purged".to_owned(), seal.write(Kind::LogId, &log_id_to_pb(&log_id(1, 2)))),
        ("committed".to_owned(), seal.write(Kind::LogId, &log_id_to_pb(&log_id(4, 6)))),
    ];
    for entry in entries() {
        files.push((format!("entry-{}", entry.log_id.index), seal.write(Kind::Entry, &entry_to_pb(&entry))));
    }
    let (meta, chain) = snapshot();
    let body = pb::RaftSnapshot { meta: Some(snapshot_meta_to_pb(&meta)), state: Bytes::from(chain.snapshot()) };
    files.push(("00000000000000000001-00000000000000000002.snap".to_owned(), seal.write(Kind::Snapshot, &body)));
    files
}

fn golden(name: &str) -> Vec<u8> {
    let file = folder().join(name);
    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

#[test]
fn format_1_is_written_as_ever() {
    if std::env::var_os("RAFTWERK_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        files().iter().for_each(|(name, bytes)| std::fs::write(folder().join(name), bytes).unwrap());
    }
    for (name, bytes) in files() {
        assert_eq!(golden(&name), bytes, "{name}");
    }
}

#[test]
fn a_replica_starts_from_the_golden_log_and_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let name = "00000000000000000001-00000000000000000002.snap";
    std::fs::write(dir.path().join(name), golden(name)).unwrap();
    let disk = MemoryDisk::new("golden", Duration::ZERO);
    let medium = disk.medium();
    let metas = [meta::IDENTITY, meta::VOTE, meta::PURGED, meta::COMMITTED];
    let mut writes: Vec<Write> = metas.iter().map(|name| Write::Meta { name, record: golden(name) }).collect();
    writes.extend((3..=7).map(|index| Write::Entry { index, record: golden(&format!("entry-{index}")) }));
    medium.commit(&writes).unwrap();

    sim::run(1, async {
        let (meta, state) = SnapshotStore::open(CLUSTER, dir.path()).unwrap().newest().unwrap().unwrap();
        assert_eq!(meta, snapshot().0);
        let snapshots = SnapshotStore::in_memory(CLUSTER, medium.clone());
        snapshots.save(&meta, &state).unwrap();
        let config = RaftConfig::new(CLUSTER, 1, "replica-1", "127.0.0.1:7070", "");
        let network = sim::SimNetwork::new(1);
        let storage = Storage { medium: Arc::new(medium), snapshots, dir: None };
        let replica = Replica::<Chain, sim::SimRuntime>::start(config, storage, network.link(1)).await.unwrap();
        let mut expected = snapshot().1;
        expected.apply(3, b"after the snapshot").unwrap();
        expected.apply(6, b"").unwrap();
        assert_eq!(*replica.state().read().unwrap(), expected);
        // It is alone, so it elects itself; the entry not known to be committed is committed then.
        replica.leadership_watch().wait_for(|l| l.leading.is_some()).await.unwrap();
        expected.apply(7, b"not known to be committed").unwrap();
        assert_eq!(*replica.state().read().unwrap(), expected);
        assert!(replica.leadership_watch().current().leading.unwrap().term > 4, "a term outlived a process");
    });
}

#[test]
fn another_format_another_cluster_and_a_changed_byte_are_told_apart() {
    let seal = Seal::new(CLUSTER);
    let read = |seal: &Seal, record: &[u8]| {
        seal.read::<pb::RaftVote>(Kind::Vote, record, Path::new("raft.redb"), &|| "the vote".into()).map_err(|e| e.to_string())
    };
    let record = golden("vote");
    assert_eq!(read(&seal, &record), Ok(vote_to_pb(&Vote::new_committed(4, 1))));
    let mut newer = record.clone();
    newer[0] = 2;
    assert_eq!(
        read(&seal, &newer).unwrap_err(),
        "the vote in raft.redb has format 2, this version reads format 1. Run the version that wrote it, or a newer one"
    );
    assert!(read(&Seal::new("shed"), &record).unwrap_err().starts_with("raft.redb belongs to another cluster"));
    let mut changed = record.clone();
    changed[16] ^= 4;
    assert!(read(&seal, &changed).unwrap_err().starts_with("raft.redb is damaged: the vote fails its checksum"));
    let of_entry = seal.read::<pb::RaftEntry>(Kind::Entry, &record, Path::new("raft.redb"), &|| "it".into());
    assert!(matches!(of_entry, Err(StoreError::Damaged { .. })));
}
