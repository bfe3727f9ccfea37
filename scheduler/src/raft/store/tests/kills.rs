//! A process killed at every system call that changes its data directory.
//!
//! The test starts itself again as the writer, under `strace`, which kills it at the n-th of the given calls, for every n. System calls
//! that change no file need no kill: between them the disk is the same. Where there is no `strace`, [`super::crash`] still fails every
//! single write and flush of the database.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{CLUSTER, append, contents, entry};
use crate::raft::fault::Fault;
use crate::raft::store::{DataDir, LogStore, SnapshotStore, StoreError};
use crate::raft::types::{SnapshotMeta, StoredMembership, Vote, log_id};
use openraft::storage::RaftLogStorage;

const WRITER: &str = "RAFTWERK_TEST_WRITER";
/// After each round: vote `round`, entries up to and without `3 * round`, purged up to `3 * round - 4`, and a snapshot up to there.
const ROUNDS: u64 = 4;

type Log = super::Log;

fn open(dir: &Path) -> Result<(DataDir, Log, SnapshotStore), StoreError> {
    let dir = DataDir::take(dir)?;
    let log = LogStore::open(Arc::new(dir.database()?), CLUSTER, 1, Fault::default())?;
    dir.seal(CLUSTER, 1)?;
    let snapshots = SnapshotStore::open(CLUSTER, &dir.snapshots())?;
    Ok((dir, log, snapshots))
}

fn snapshot(round: u64) -> (SnapshotMeta, Bytes) {
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 3 * round - 4)), last_membership: StoredMembership::default() };
    (meta, format!("state of round {round}").into())
}

/// Not a test unless it is started by one.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(WRITER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let acknowledge = |what: &str, round: u64| println!("ack {what} {round}");
        let (_dir, mut log, snapshots) = open(Path::new(&dir)).unwrap();
        for round in 1..=ROUNDS {
            log.save_vote(&Vote::new_committed(round, 1)).await.unwrap();
            acknowledge("vote", round);
            append(&mut log, (3 * round - 3..3 * round).map(|i| entry(1, i, &format!("entry {i}"))).collect()).await.unwrap();
            acknowledge("entries", round);
            if round > 1 {
                let (meta, state) = snapshot(round);
                snapshots.save(&meta, &state).unwrap();
                acknowledge("snapshot", round);
                log.purge(log_id(1, 3 * round - 4)).await.unwrap();
                append(&mut log, Vec::new()).await.unwrap();
                acknowledge("purge", round);
            }
        }
        log.close().await;
        acknowledge("close", ROUNDS);
    });
}

#[derive(Default)]
struct Acknowledged {
    vote: u64,
    entries: u64,
    snapshot: u64,
    purge: u64,
    closed: bool,
}

/// Runs the writer in `dir` until strace kills it at call number `n` of `calls`.
fn killed(dir: &Path, calls: &str, n: u32) -> Acknowledged {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:signal=KILL:when={n}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "raft::store::tests::kills::writer", "--nocapture", "--test-threads=1"])
        .env(WRITER, dir)
        .output()
        .unwrap();
    let mut acknowledged = Acknowledged::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        // The harness writes the name of the test before the first of these, on the same line.
        let Some((_, line)) = line.split_once("ack ") else { continue };
        let (what, round) = line.split_once(' ').unwrap();
        let round = round.parse().unwrap();
        match what {
            "vote" => acknowledged.vote = round,
            "entries" => acknowledged.entries = round,
            "snapshot" => acknowledged.snapshot = round,
            "purge" => acknowledged.purge = round,
            "close" => acknowledged.closed = true,
            other => panic!("{other}"),
        }
    }
    assert!(acknowledged.closed || !output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    acknowledged
}

async fn check(dir: &Path, acknowledged: &Acknowledged) {
    let (_dir, mut log, snapshots) = open(dir).unwrap();
    let found = contents(&mut log).await.unwrap();
    let vote = found.vote.map_or(0, |v| v.leader_id.term);
    assert!((acknowledged.vote..=acknowledged.vote + 1).contains(&vote), "vote {vote}");
    // An append that was not acknowledged is there whole or not at all.
    let next = found.entries.last().map(|e| e.log_id.index).or(found.purged.map(|id| id.index)).map_or(0, |i| i + 1);
    assert!([3 * acknowledged.entries, 3 * acknowledged.entries + 3].contains(&next), "the log ends before {next}");
    for entry_found in &found.entries {
        let index = entry_found.log_id.index;
        assert_eq!(*entry_found, entry(1, index, &format!("entry {index}")));
    }
    let purged = found.purged.map_or(0, |id| id.index);
    let of_round = |round: u64| if round == 0 { 0 } else { 3 * round - 4 };
    assert!(purged >= of_round(acknowledged.purge), "purged {purged}");
    let newest = snapshots.newest().unwrap();
    let covered = newest.as_ref().and_then(|(meta, _)| meta.last_log_id).map_or(0, |id| id.index);
    assert!(covered >= of_round(acknowledged.snapshot) && covered >= purged, "snapshot {covered}, purged {purged}");
    if let Some((meta, state)) = newest {
        assert_eq!((meta, state), snapshot(covered.div_ceil(3) + 1));
    }
    log.close().await;
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_process_killed_at_any_write_loses_nothing_it_acknowledged() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: there is no strace on this machine");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let mut kills = 0;
    // strace counts per thread. The first set is what the log's thread does, the second what its caller does with files and snapshots.
    for calls in ["pwrite64,fdatasync,ftruncate", "openat,write,fsync,rename,unlink,mkdir,pwrite64,fdatasync,ftruncate"] {
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            let acknowledged = killed(&data, calls, n);
            // A line that another test's thread, which has no subscriber, is the first to reach is taken for one that nobody wants.
            tracing::callsite::rebuild_interest_cache();
            runtime.block_on(check(&data, &acknowledged));
            if acknowledged.closed {
                break;
            }
            kills += 1;
        }
    }
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let cut = logged.lines().filter(|line| line.contains("cut off a write that was under way")).count();
    println!("{kills} kills; {cut} times an unacknowledged write was cut off and logged");
    assert!(kills > 60, "{kills}");
    assert!(cut > 5, "{cut}\n{logged}");
}
