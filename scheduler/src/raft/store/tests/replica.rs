//! A whole replica on a disk that is full, fails or has lost something: it stops, says why, and goes on when it can.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftwerk_transport::{Authority, PeerKind};
use tempfile::TempDir;

use super::CLUSTER;
use crate::raft::offline;
use crate::raft::store::mark::Mark;
use crate::raft::store::sectors::{Disk, Failing};
use crate::raft::store::{DataDir, RedbMedium, SnapshotStore};
use crate::raft::tests::Chain;
use crate::raft::{Network, OpenError, RaftConfig, Replica, Storage};

const PATIENCE: Duration = Duration::from_secs(60);

/// The only replica of a cluster: its log on `disk`, or in the folder if there is none.
async fn start(dir: &TempDir, disk: Option<&Disk>) -> Result<Replica<Chain>, OpenError> {
    let (authority, _) = Authority::create(CLUSTER).unwrap();
    let identity = authority.issue(PeerKind::Scheduler, 1, "replica-1").unwrap();
    let config = RaftConfig::new(CLUSTER, 1, "replica-1", "127.0.0.1:1", dir.path());
    let data = DataDir::take(dir.path())?;
    let medium = match disk {
        Some(disk) => RedbMedium::on(Path::new("raft.redb"), Mark::open(&dir.path().join("raft.mark"))?, || Ok(disk.clone()))?,
        None => data.database()?,
    };
    let snapshots = SnapshotStore::open(CLUSTER, &data.snapshots())?;
    let storage = Storage { medium: Arc::new(medium), snapshots, dir: Some(data) };
    let replica = Replica::start(config, storage, Network::new(1, identity)).await?;
    replica.bootstrap().await.unwrap();
    Ok(replica)
}

async fn leads(replica: &Replica<Chain>) {
    let mut leadership = replica.leadership();
    tokio::time::timeout(PATIENCE, leadership.wait_for(|l| l.leading.is_some())).await.unwrap().unwrap();
}

async fn propose(replica: &Replica<Chain>, count: usize) {
    for _ in 0..count {
        replica.propose(Bytes::from_static(b"entry")).await.unwrap();
    }
}

async fn stops(replica: &Replica<Chain>) -> String {
    let why = tokio::time::timeout(PATIENCE, replica.fatal()).await.expect("the replica stops");
    replica.shutdown().await;
    why
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_log_stops_the_replica_until_there_is_space() {
    for (errno, text) in [(28, "No space left on device"), (5, "Input/output error")] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let replica = start(&dir, Some(&disk)).await.unwrap();
        leads(&replica).await;
        propose(&replica, 20).await;
        disk.fail(Some(Failing { after: 1, errno }));
        let refused = replica.propose(Bytes::from_static(b"too much")).await.unwrap_err().to_string();
        assert!(refused.contains("raft.redb") && refused.contains(text), "{refused}");
        let why = stops(&replica).await;
        assert!(why.contains("raft.redb") && why.contains(text), "{why}");
        disk.fail(None);
        let replica = start(&dir, Some(&disk)).await.unwrap();
        leads(&replica).await;
        let entries = replica.state().read().unwrap().entries;
        assert!((20..=21).contains(&entries), "{entries}"); // the one that was not acknowledged may have arrived
        propose(&replica, 5).await;
        replica.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_a_snapshot_stops_the_replica_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let replica = start(&dir, None).await.unwrap();
    leads(&replica).await;
    propose(&replica, 19).await;
    // The status lags behind; the answer to a proposal does not.
    let (applied, _) = replica.propose(Bytes::from_static(b"entry")).await.unwrap();
    // The device that is always full lies where the next snapshot will be written.
    let name = format!("{:020}-{:020}.snap.tmp", replica.status().term, applied);
    std::os::unix::fs::symlink("/dev/full", dir.path().join("snapshots").join(&name)).unwrap();
    replica.trigger_snapshot().await.unwrap();
    let why = stops(&replica).await;
    assert!(why.contains(&name) && why.contains("No space left on device"), "{why}");

    // Starting again removes what is unfinished, and with it the full device.
    let replica = start(&dir, None).await.unwrap();
    leads(&replica).await;
    assert_eq!(replica.state().read().unwrap().entries, 20);
    replica.trigger_snapshot().await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while replica.status().snapshot == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the snapshot is made");
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_does_not_start_on_what_it_cannot_read_and_says_how_to_repair_it() {
    let dir = tempfile::tempdir().unwrap();
    let replica = start(&dir, None).await.unwrap();
    leads(&replica).await;
    propose(&replica, 20).await;
    replica.trigger_snapshot().await.unwrap();
    let purged = async {
        loop {
            let status = replica.status();
            if status.snapshot > 0 {
                replica.trigger_purge(status.snapshot).await.unwrap();
            }
            if status.purged > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, purged).await.expect("the log is dropped");
    propose(&replica, 3).await;
    replica.shutdown().await;

    let snapshots = dir.path().join("snapshots");
    let snapshot = std::fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap().path();
    let intact = std::fs::read(&snapshot).unwrap();
    let refusal = async || match start(&dir, None).await {
        Err(e) => e.to_string(),
        Ok(_) => panic!("started"),
    };
    let mut damaged = intact.clone();
    damaged[40] ^= 4;
    std::fs::write(&snapshot, damaged).unwrap();
    let why = refusal().await;
    assert!(why.contains(".snap is damaged") && why.contains("raftwerk cluster remove"), "{why}");
    // The log before it is gone, so a lost snapshot is no empty state.
    std::fs::remove_file(&snapshot).unwrap();
    let why = refusal().await;
    assert!(why.contains("snapshot") && why.contains("raftwerk cluster remove"), "{why}");
    std::fs::write(&snapshot, intact).unwrap();
    std::fs::write(dir.path().join("raft.mark"), b"rwmark 1 something else entirely").unwrap();
    let why = refusal().await;
    assert!(why.contains("raft.mark is damaged") && why.contains("raftwerk cluster remove"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_has_lost_its_mark_is_used_only_when_an_operator_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let replica = start(&dir, None).await.unwrap();
    leads(&replica).await;
    propose(&replica, 3).await;
    replica.shutdown().await;
    let path = dir.path().join("raft.mark");
    let mark = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // Said again at the second start: the first one leaves nothing that could pass for the file.
    for _ in 0..2 {
        let why = start(&dir, None).await.err().expect("refused").to_string();
        assert!(why.contains("raft.mark is missing") && why.contains("raftwerk scheduler recover"), "{why}");
    }
    std::fs::write(&path, &mark).unwrap();
    start(&dir, None).await.expect("it was put back").shutdown().await;

    std::fs::write(&path, []).unwrap();
    let why = offline::survey::<Chain>(dir.path(), CLUSTER, 1).await.expect_err("looking changes nothing").to_string();
    assert!(why.contains("raft.mark is missing"), "{why}");
    let found = offline::recover::<Chain>(dir.path(), CLUSTER, 1, |_| Bytes::from_static(b"a new epoch")).await.unwrap();
    assert!(found.last_log_index >= 3, "{found:?}");
    let replica = start(&dir, None).await.unwrap();
    leads(&replica).await;
    assert_eq!(replica.state().read().unwrap().entries, 4);
    replica.shutdown().await;
}
