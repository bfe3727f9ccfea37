//! What should lie here of results, as far as this process knows, and whether it does.
//!
//! ```text
//! made here, or fetched: known, and as it was made
//! a leader says what the log has of this worker (at every connection) --> there, with its length? --no--+
//!                                                                     --> read, once per process: the checksum? --no--+--> the leader is told
//! a reader comes for it                                               --> missing, or not as it was made -------------+
//! ```
//! What this process does not know of nobody counts on, or the leader has yet to say it.
use super::store::ResultStore;
use crate::{
    agent::{edge::EdgeInput, publish},
    session::Input,
};
use raftwerk_proto::v1::{CheckParts, KeptParts, LostPart, PartToKeep, PartsMissing};
use rustix::io::Errno;
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// How a part is not as it was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong(String);

impl Wrong {
    #[cfg(feature = "flight")]
    pub(super) fn reason(&self) -> &str {
        &self.0
    }

    /// Nothing when the error says more about this process than about the part.
    pub(super) fn of(error: &io::Error) -> Option<Wrong> {
        let ours = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM));
        (!ours).then(|| match error.kind() {
            io::ErrorKind::NotFound => Wrong("it is not there".into()),
            _ => Wrong(format!("it cannot be read: {error}")),
        })
    }
}

/// Bytes and checksum, as found and as they should be.
pub(super) fn unlike(found: (u64, u32), expected: (u64, u32)) -> Wrong {
    Wrong(match found.0 == expected.0 {
        true => format!("it is damaged: its checksum is {:08x} instead of {:08x}", found.1, expected.1),
        false => format!("it is damaged: it has {} bytes instead of {}", found.0, expected.0),
    })
}

struct Known {
    partition: u32,
    bytes: u64,
    crc32c: u32,
    /// By this process, or written by it.
    compared: bool,
}

#[derive(Default)]
pub(crate) struct Inventory {
    known: Mutex<BTreeMap<u64, HashMap<String, Known>>>,
    /// One part at a time is read to be compared: jobs want the disk too.
    reading: tokio::sync::Mutex<()>,
}

impl Inventory {
    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, HashMap<String, Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part lies here as it was made.
    pub(super) fn has(&self, job: u64, partition: u32, name: &str, (bytes, crc32c): (u64, u32)) {
        self.known().entry(job).or_default().insert(name.to_owned(), Known { partition, bytes, crc32c, compared: true });
    }

    fn should_have(&self, job: u64, part: &PartToKeep) {
        let PartToKeep { partition, bytes, crc32c, .. } = *part;
        let known = Known { partition, bytes, crc32c, compared: false };
        self.known().entry(job).or_default().entry(part.staged_name.clone()).or_insert(known);
    }

    /// Bytes and checksum, if it should be here.
    pub(super) fn expected(&self, job: u64, name: &str) -> Option<(u64, u32)> {
        self.known().get(&job)?.get(name).map(|known| (known.bytes, known.crc32c))
    }

    fn is_to_be_compared(&self, job: u64, name: &str) -> bool {
        self.known().get(&job).and_then(|parts| parts.get(name)).is_some_and(|known| !known.compared)
    }

    fn compared(&self, job: u64, name: &str) {
        if let Some(known) = self.known().get_mut(&job).and_then(|parts| parts.get_mut(name)) {
            known.compared = true;
        }
    }

    /// What the leader is to be told of a part that is not as it should be; nothing when nobody needs it any more. Should the leader ask for it again, it
    /// is read again: somebody may have put it back.
    pub(super) fn wrong(&self, job: u64, name: &str, Wrong(reason): Wrong) -> Option<PartsMissing> {
        let mut known = self.known();
        let part = known.get_mut(&job)?.get_mut(name)?;
        part.compared = false;
        tracing::warn!(job, part = name, reason, "a part of a result that is kept here is lost");
        Some(PartsMissing { job, parts: vec![LostPart { partition: part.partition, staged_name: name.to_owned(), reason }] })
    }

    pub(super) fn release(&self, kept: &KeptParts) {
        let mut known = self.known();
        if kept.names.is_empty() {
            known.remove(&kept.job);
        } else if let Some(parts) = known.get_mut(&kept.job) {
            parts.retain(|name, _| kept.names.contains(name));
        }
    }
}

/// Tells the session, and so the leader.
pub(crate) fn to_session(edge: &mpsc::UnboundedSender<EdgeInput>) -> impl Fn(PartsMissing) + Send + use<> {
    let edge = edge.clone();
    move |missing| {
        let _ = edge.send(EdgeInput::Session(Input::PartsMissing(missing)));
    }
}

/// First whether all is there, then, one after another, whether it is as it was made.
pub(crate) async fn check(store: Arc<ResultStore>, request: CheckParts, tell: impl Fn(PartsMissing) + Send) {
    let job = request.job;
    let shared = store.clone();
    let look = move || {
        let mut missing = PartsMissing { job, parts: Vec::new() };
        for part in &request.parts {
            shared.inventory().should_have(job, part);
            if let Some(wrong) = without_reading(&shared, job, part) {
                missing.parts.extend(shared.inventory().wrong(job, &part.staged_name, wrong).into_iter().flat_map(|told| told.parts));
            }
        }
        let gone: Vec<&String> = missing.parts.iter().map(|part| &part.staged_name).collect();
        let rest: Vec<PartToKeep> = request.parts.iter().filter(|part| !gone.contains(&&part.staged_name)).cloned().collect();
        (missing, rest)
    };
    let Ok((missing, rest)) = raftwerk_transport::tasks::blocking(look).await else { return };
    if !missing.parts.is_empty() {
        tell(missing);
    }
    for part in rest {
        let _turn = store.inventory().reading.lock().await;
        let PartToKeep { staged_name, bytes, crc32c, .. } = part;
        // It may have been compared since, or be needed no more.
        if !store.inventory().is_to_be_compared(job, &staged_name) {
            continue;
        }
        let Some(path) = store.path(job, &staged_name) else { continue };
        let found = raftwerk_transport::tasks::blocking(move || publish::checksum(File::open(path)?, bytes)).await;
        let wrong = match found {
            Ok(Ok(found)) if found == (bytes, crc32c) => {
                store.inventory().compared(job, &staged_name);
                continue;
            }
            Ok(Ok(found)) => Some(unlike(found, (bytes, crc32c))),
            Ok(Err(error)) => Wrong::of(&error),
            Err(_) => None,
        };
        wrong.and_then(|wrong| store.inventory().wrong(job, &staged_name, wrong)).into_iter().for_each(&tell);
    }
}

fn without_reading(store: &ResultStore, job: u64, part: &PartToKeep) -> Option<Wrong> {
    let path = store.path(job, &part.staged_name)?;
    match fs::metadata(path) {
        Ok(found) => (found.len() != part.bytes).then(|| unlike((found.len(), 0), (part.bytes, part.crc32c))),
        Err(error) => Wrong::of(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::FetchPartRequest;

    fn part(partition: u32, text: &str) -> PartToKeep {
        let crc32c = crc32c::crc32c(text.as_bytes());
        PartToKeep { partition, staged_name: format!("part-{partition}"), bytes: text.len() as u64, crc32c, sources: Vec::new() }
    }

    /// A worker's store with job 7, whose parts are given with what lies on disk.
    fn store(parts: &[(PartToKeep, Option<&str>)]) -> (tempfile::TempDir, Arc<ResultStore>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("results/7")).unwrap();
        for (part, text) in parts {
            text.iter().for_each(|text| fs::write(dir.path().join("results/7").join(&part.staged_name), text).unwrap());
        }
        let store = Arc::new(ResultStore::open(dir.path()).unwrap());
        (dir, store)
    }

    async fn checked(store: &Arc<ResultStore>, parts: &[PartToKeep]) -> Vec<(u32, String)> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let request = CheckParts { job: 7, parts: parts.to_vec() };
        check(store.clone(), request, move |missing: PartsMissing| sender.send(missing).unwrap()).await;
        receiver.into_iter().flat_map(|missing| missing.parts).map(|part| (part.partition, part.reason)).collect()
    }

    #[tokio::test]
    async fn what_is_missing_shorter_or_altered_is_told_and_nothing_else() {
        let parts = ["right", "missing", "short", "altered"].iter().zip(0..).map(|(text, n)| part(n, text)).collect::<Vec<_>>();
        let on_disk = [Some("right"), None, Some("shor"), Some("altEred")];
        let (dir, store) = store(&parts.iter().cloned().zip(on_disk).collect::<Vec<_>>());
        let told = checked(&store, &parts).await;
        assert_eq!(told.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(
            told[0].1.contains("not there") && told[1].1.contains("4 bytes instead of 5") && told[2].1.contains("checksum"),
            "{told:?}"
        );
        // Every leader is told, and what was put back is believed again.
        fs::write(dir.path().join("results/7/part-1"), "missing").unwrap();
        assert_eq!(checked(&store, &parts).await.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [2, 3]);
        // What was read once is not read again, by this process.
        fs::write(dir.path().join("results/7/part-0"), "wrong").unwrap();
        assert!(checked(&store, &parts[..1]).await.is_empty());
        store.release(&KeptParts { job: 7, ..KeptParts::default() }).unwrap();
        assert_eq!(store.inventory().wrong(7, "part-3", Wrong(String::new())), None, "nobody needs it any more");
    }

    #[tokio::test]
    async fn a_reader_finds_what_is_wrong_and_the_leader_hears_of_it() {
        let parts = [part(0, "whole"), part(1, "damaged"), part(2, "longer"), part(3, "missing")];
        let on_disk = [Some("whole"), Some("dAmaged"), Some("longer than it was"), None];
        let (_dir, store) = store(&parts.iter().cloned().zip(on_disk).collect::<Vec<_>>());
        let read = async |store: &Arc<ResultStore>, name: &str, offset: u64| {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let request = FetchPartRequest { job: 7, staged_name: name.into(), offset };
            let pieces = super::super::service::stream(store.clone(), request, false, move |missing| sender.send(missing).unwrap()).await;
            if let Ok(mut pieces) = pieces {
                while pieces.recv().await.is_some() {}
            }
            // The sender goes when the whole was read.
            let mut told = Vec::new();
            while let Some(missing) = receiver.recv().await {
                told.extend(missing.parts.into_iter().map(|part| part.partition));
            }
            told
        };
        assert!(read(&store, "part-1", 0).await.is_empty(), "nobody has said yet what it should be");
        parts.iter().for_each(|part| store.inventory().should_have(7, part));
        assert!(read(&store, "part-0", 0).await.is_empty() && read(&store, "part-0", 3).await.is_empty());
        assert_eq!(read(&store, "part-1", 0).await, [1]);
        assert!(read(&store, "part-1", 3).await.is_empty(), "a part of it says nothing");
        assert_eq!(read(&store, "part-2", 0).await[0], 2);
        assert_eq!(read(&store, "part-3", 0).await, [3]);
        assert!(read(&store, "part-4", 0).await.is_empty(), "an unknown name");
    }
}
