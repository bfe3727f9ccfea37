//! A power cut at any moment, a disk that is full or fails, and any flipped or missing byte.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftLogStorage;
use tempfile::TempDir;

use super::{Contents, Log, append, contents, entry, open};
use crate::raft::store::mark::Mark;
use crate::raft::store::sectors::{Disk, Failing, Op, SECTOR, apply};
use crate::raft::store::{Medium, RedbMedium, StoreError};
use crate::raft::types::{Vote, log_id};

const FILE: &str = "raft.redb";

/// A mark that says that `acknowledged` commits were.
fn mark(dir: &Path, acknowledged: u64) -> Mark {
    let path = dir.join("raft.mark");
    let _ = std::fs::remove_file(&path);
    Mark::open(&path).unwrap().acknowledge(acknowledged).unwrap();
    // As the next start finds it.
    Mark::open(&path).unwrap()
}

fn open_on(disk: &Disk, mark: Mark) -> Result<Log, StoreError> {
    let disk = disk.clone();
    RedbMedium::on(Path::new(FILE), mark, || Ok(disk)).and_then(|medium| open(Arc::new(medium)))
}

/// How much of all cases a test takes: one in so many, or every one with `RAFTWERK_THOROUGH=1`.
fn stride(otherwise: usize) -> usize {
    if std::env::var_os("RAFTWERK_THOROUGH").is_some() { 1 } else { otherwise }
}

/// What is written, one step per commit. The first commit of all is the identity.
#[derive(Clone, Copy, Debug)]
enum Step {
    Vote(u64),
    /// Term, first index, how many, bytes in each.
    Append(u64, u64, u64, usize),
    TruncateAfter(u64, u64),
    Purge(u64, u64),
}

const STEPS: [Step; 9] = [
    Step::Vote(1),
    Step::Append(1, 0, 3, 20),
    Step::Append(1, 3, 4, 3000),
    Step::Vote(2),
    Step::TruncateAfter(1, 4),
    Step::Append(2, 5, 2, 9000),
    Step::Purge(1, 3),
    Step::Append(2, 7, 1, 1),
    Step::Vote(3),
];

async fn take(log: &mut Log, step: Step) -> std::io::Result<()> {
    match step {
        Step::Vote(term) => log.save_vote(&Vote::new_committed(term, 1)).await,
        Step::Append(term, first, count, bytes) => {
            append(log, (first..first + count).map(|i| entry(term, i, &"x".repeat(bytes))).collect()).await
        }
        // Neither waits for the disk; the empty append after it does, and is part of the same commit or the next.
        Step::TruncateAfter(term, index) => {
            log.truncate_after(Some(log_id(term, index))).await?;
            append(log, Vec::new()).await
        }
        Step::Purge(term, index) => {
            log.purge(log_id(term, index)).await?;
            append(log, Vec::new()).await
        }
    }
}

/// The contents after each number of steps, without any fault.
async fn histories() -> Vec<Contents> {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_on(&Disk::default(), mark(dir.path(), 0)).unwrap();
    let mut histories = vec![contents(&mut log).await.unwrap()];
    for step in STEPS {
        take(&mut log, step).await.unwrap();
        histories.push(contents(&mut log).await.unwrap());
    }
    log.close().await;
    histories
}

/// Every platter that the disk may hold when power goes after the first `upto` operations: what was flushed is there; of what was not, any
/// part, sector by sector. All combinations where they are few, and otherwise the telling ones: prefixes, all but one, only one, torn.
fn images(ops: &[Op], upto: usize) -> Vec<Vec<u8>> {
    let flushed = ops[..upto].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
    let mut base = Vec::new();
    ops[..flushed].iter().for_each(|op| apply(&mut base, op));
    let open: Vec<&Op> = ops[flushed..upto].iter().filter(|op| matches!(op, Op::Write { .. } | Op::SetLen(_))).collect();
    let platter = |kept: &dyn Fn(usize) -> bool, torn: Option<(usize, bool)>| {
        let mut bytes = base.clone();
        // The file is at least as long as what was written to it: a write beyond the end makes it longer.
        for (at, op) in open.iter().enumerate() {
            match op {
                Op::SetLen(_) if kept(at) => apply(&mut bytes, op),
                Op::Write { offset, data } if kept(at) || torn.is_some_and(|t| t.0 == at) => {
                    let half = (data.len() / 2).next_multiple_of(SECTOR).min(data.len());
                    let part = match torn {
                        Some((torn, front)) if torn == at => {
                            if front {
                                0..half
                            } else {
                                half..data.len()
                            }
                        }
                        _ => 0..data.len(),
                    };
                    let start = *offset as usize + part.start;
                    if bytes.len() < start + part.len() {
                        bytes.resize(start + part.len(), 0);
                    }
                    bytes[start..start + part.len()].copy_from_slice(&data[part]);
                }
                _ => {}
            }
        }
        bytes
    };
    let mut images = Vec::new();
    if open.len() <= 6 {
        images.extend((0..1u32 << open.len()).map(|mask| platter(&|at| mask >> at & 1 == 1, None)));
    } else {
        images.extend((0..=open.len()).map(|n| platter(&|at| at < n, None)));
        images.extend((0..open.len()).map(|n| platter(&|at| at != n, None)));
        images.extend((0..open.len()).map(|n| platter(&|at| at == n, None)));
    }
    for n in 0..open.len() {
        for front in [true, false] {
            images.push(platter(&|at| at < n, Some((n, front))));
            images.push(platter(&|at| at != n, Some((n, front))));
        }
    }
    images.sort_unstable();
    images.dedup();
    images
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_at_any_moment_everything_acknowledged_is_there() {
    let histories = histories().await;
    let dir: TempDir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    // A database gets its name when it is whole, so no cut falls into its making.
    RedbMedium::on(Path::new(FILE), mark(dir.path(), 0), || Ok(disk.clone())).unwrap().close();
    let made = disk.ops().len();
    let mut log = open_on(&disk, mark(dir.path(), 0)).unwrap();
    disk.acknowledge(0);
    for (at, step) in STEPS.into_iter().enumerate() {
        take(&mut log, step).await.unwrap();
        disk.acknowledge(at as u64 + 1);
    }
    let ops = disk.ops();
    log.close().await;

    let mut opened = 0;
    for upto in made..=ops.len() {
        let acknowledged = ops[..upto].iter().rev().find_map(|op| if let Op::Acknowledged(n) = op { Some(*n) } else { None });
        // The strictest mark that can be on the disk: it says that the identity and every acknowledged step are there.
        let commits = acknowledged.map_or(0, |n| n + 1);
        for platter in images(&ops, upto).into_iter().step_by(stride(4)) {
            let after = Disk::of(platter);
            let mut log = match open_on(&after, mark(dir.path(), commits)) {
                Ok(log) => log,
                Err(e) => panic!("cut after operation {upto} of {}, {acknowledged:?} steps acknowledged: {e}", ops.len()),
            };
            let found = contents(&mut log).await.unwrap();
            log.close().await;
            let acknowledged = acknowledged.unwrap_or(0) as usize;
            // A step that was under way may be there or not.
            let allowed = &histories[acknowledged..histories.len().min(acknowledged + 2)];
            assert!(
                allowed.iter().any(|h| h.entries == found.entries && h.vote == found.vote && h.purged == found.purged),
                "cut after operation {upto}, {acknowledged} steps acknowledged: {found:?}"
            );
            opened += 1;
        }
    }
    println!("{} operations, {opened} images opened", ops.len());
    assert!(opened > 200, "{opened}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_power_cut_during_recovery_loses_nothing_either() {
    let histories = histories().await;
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut log = open_on(&disk, mark(dir.path(), 0)).unwrap();
    for step in STEPS {
        take(&mut log, step).await.unwrap();
    }
    let unclean = disk.bytes();
    log.close().await;
    let recovering = Disk::of(Vec::new());
    apply_all(&recovering, &unclean);
    let before = recovering.ops().len();
    let log = open_on(&recovering, mark(dir.path(), STEPS.len() as u64 + 1)).unwrap();
    log.close().await;
    let ops = recovering.ops();
    assert!(ops.len() > before, "recovery writes nothing, so there is nothing to cut");
    for upto in before..=ops.len() {
        for platter in images(&ops, upto) {
            let mut log = open_on(&Disk::of(platter), mark(dir.path(), STEPS.len() as u64 + 1)).unwrap();
            assert_eq!(&contents(&mut log).await.unwrap().entries, &histories[STEPS.len()].entries);
            log.close().await;
        }
    }
}

/// Puts `bytes` on the disk, flushed.
fn apply_all(disk: &Disk, bytes: &[u8]) {
    use redb::StorageBackend;
    disk.set_len(bytes.len() as u64).unwrap();
    disk.write(0, bytes).unwrap();
    disk.sync_data().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_or_failing_disk_stops_the_log_with_its_reason_and_nothing_is_lost() {
    let histories = histories().await;
    let dir = tempfile::tempdir().unwrap();
    for (errno, text) in [(28, "No space left on device"), (5, "Input/output error")] {
        let mut failed = 0;
        for after in 0.. {
            let disk = Disk::default();
            let mut log = open_on(&disk, mark(dir.path(), 0)).unwrap();
            disk.fail(Some(Failing { after, errno }));
            let mut done = 0;
            let mut why = None;
            for step in STEPS {
                if let Err(e) = take(&mut log, step).await {
                    why = Some(e.to_string());
                    break;
                }
                done += 1;
            }
            if let Some(why) = &why {
                assert!(why.contains(FILE) && why.contains(text), "{why}");
                // What the disk holds is unknown now, so nothing more is written.
                let again = take(&mut log, Step::Vote(9)).await.unwrap_err().to_string();
                assert!(again.contains("an earlier write failed"), "{again}");
                failed += 1;
            }
            log.close().await;
            // Space was made, and the process starts again, on the same mark.
            disk.fail(None);
            let path = dir.path().join("raft.mark");
            let mut log = open_on(&disk, Mark::open(&path).unwrap()).unwrap();
            let found = contents(&mut log).await.unwrap();
            let allowed = &histories[done..histories.len().min(done + 2)];
            assert!(allowed.iter().any(|h| h.entries == found.entries && h.vote == found.vote), "failed after {after}: {found:?}");
            take(&mut log, Step::Vote(9)).await.unwrap();
            log.close().await;
            if why.is_none() {
                break;
            }
        }
        assert!(failed > 20, "only {failed} operations failed");
    }
}

/// A store of a few records as a process that was killed leaves it, and its contents.
async fn small_store(dir: &Path) -> (Vec<u8>, u64, Contents) {
    let disk = Disk::default();
    let mut log = open_on(&disk, mark(dir, 0)).unwrap();
    let steps = [Step::Vote(1), Step::Append(1, 0, 3, 20), Step::Purge(1, 0), Step::Append(1, 3, 2, 20)];
    for step in steps {
        take(&mut log, step).await.unwrap();
    }
    let (bytes, contents) = (disk.bytes(), contents(&mut log).await.unwrap());
    log.close().await;
    (bytes, steps.len() as u64 + 1, contents)
}

fn same(a: &Contents, b: &Contents) -> bool {
    a.entries == b.entries && a.vote == b.vote && a.purged == b.purged
}

/// Opens the platter with each of the bytes flipped that opening, reading and writing the intact one ever asks for; the others can change
/// nothing. What opens must hold the intact contents, and hold them still, with what is added, after it was written to and opened again.
/// `RAFTWERK_THOROUGH=1` takes each of these bytes, otherwise one in 61 beyond redb's header.
async fn flip_bytes(dir: &Path, bytes: &[u8], commits: u64, intact: &Contents) -> usize {
    const HEADER: usize = 320;
    let disk = Disk::of(bytes.to_vec());
    let use_it = async |mut log: Log, disk: &Disk| -> Result<(Contents, Contents), String> {
        let before = contents(&mut log).await.map_err(|e| e.to_string())?;
        for index in 5..7 {
            let added = take(&mut log, Step::Append(1, index, 1, 20)).await;
            if let Err(why) = added {
                log.close().await;
                return Err(why.to_string());
            }
        }
        log.close().await;
        let mut log = open_on(disk, Mark::open(&dir.join("raft.mark")).unwrap()).map_err(|e| e.to_string())?;
        let after = contents(&mut log).await.map_err(|e| e.to_string())?;
        log.close().await;
        Ok((before, after))
    };
    let (before, longer) = use_it(open_on(&disk, mark(dir, commits)).unwrap(), &disk).await.unwrap();
    assert!(same(&before, intact) && longer.entries.len() == intact.entries.len() + 2);
    let places = disk.places_read();
    let stride = stride(61);
    let (header, rest) = places.split_at(places.partition_point(|place| *place < HEADER));
    let (mut found, mut late, mut harmless) = (0, 0, 0);
    for &place in header.iter().chain(rest.iter().step_by(stride)).filter(|place| **place < bytes.len()) {
        let mut damaged = bytes.to_vec();
        damaged[place] ^= 1 << (place % 8);
        let disk = Disk::of(damaged);
        let text = match open_on(&disk, mark(dir, commits)) {
            Err(e) => {
                found += 1;
                e.to_string()
            }
            Ok(log) => match use_it(log, &disk).await {
                Err(text) => {
                    late += 1;
                    text
                }
                Ok((before, after)) => {
                    assert!(same(&before, intact), "a flipped bit in byte {place} went unnoticed: {before:?}");
                    assert!(same(&after, &longer), "a flipped bit in byte {place} spoiled what was written later: {after:?}");
                    harmless += 1;
                    continue;
                }
            },
        };
        assert!(text.contains(FILE), "byte {place}: {text}");
    }
    println!("{} of {} bytes matter; {found} flips found at once, {late} later, {harmless} without effect", places.len(), bytes.len());
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_byte_of_a_killed_store_is_found_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, commits, intact) = small_store(dir.path()).await;
    assert!(flip_bytes(dir.path(), &bytes, commits, &intact).await > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_byte_of_a_closed_store_is_found_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, commits, intact) = small_store(dir.path()).await;
    let disk = Disk::of(bytes);
    open_on(&disk, mark(dir.path(), commits)).unwrap().close().await;
    assert!(flip_bytes(dir.path(), &disk.bytes(), commits, &intact).await > 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_cut_short_anywhere_is_found_or_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, commits, intact) = small_store(dir.path()).await;
    let page = 4096;
    let places = (1..1024).chain((1024..bytes.len()).step_by(page)).chain((page..bytes.len()).step_by(page).map(|p| p - 1));
    let mut found = 0;
    for length in places {
        match open_on(&Disk::of(bytes[..length].to_vec()), mark(dir.path(), commits)) {
            Err(e) => {
                found += 1;
                assert!(e.to_string().contains(FILE), "cut at {length}: {e}");
            }
            Ok(mut log) => {
                assert!(same(&contents(&mut log).await.unwrap(), &intact), "cut at {length}");
                log.close().await;
            }
        }
    }
    assert!(found > 1000, "{found}");
    let Err(StoreError::Damaged { .. }) = open_on(&Disk::default(), mark(dir.path(), commits)) else {
        panic!("an emptied database passed for a new one")
    };
}

#[test]
fn every_flipped_or_missing_byte_of_the_mark_is_found() {
    let dir = tempfile::tempdir().unwrap();
    drop(mark(dir.path(), 7));
    let path = dir.path().join("raft.mark");
    let bytes = std::fs::read(&path).unwrap();
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (place % 8);
        std::fs::write(&path, &damaged).unwrap();
        assert!(matches!(Mark::open(&path), Err(StoreError::Damaged { .. })), "byte {place}");
        if place > 0 {
            std::fs::write(&path, &bytes[..place]).unwrap();
            assert!(matches!(Mark::open(&path), Err(StoreError::Damaged { .. })), "cut at {place}");
        }
    }
}
