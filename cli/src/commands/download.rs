//! `raftwerk job result JOB --output DIR`: brings a result that lies on workers to this machine, whole or not at all.
//!
//! ```text
//! parts from the workers that keep them --> DIR.raftwerk-tmp-*/ , each compared with the checksum of the job's record and flushed
//!     --> manifest.json --> one rename: DIR
//! ```
//! A worker that dies in the middle costs what was on the wire: the next keeper goes on where it left off.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raftwerk_proto::v1::worker_data_client::WorkerDataClient;
use raftwerk_proto::v1::{FetchPartRequest, JobView, OutputPart, WorkerView};
use raftwerk_transport::{Identity, MAX_MESSAGE_BYTES, PeerKind, connect_lazy, plain_error, plain_status};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

use super::signals;
use crate::client::Cluster;
use crate::failure::{Exit, Failure};
use crate::views::kept;

/// Parts fetched at once.
const AT_ONCE: usize = 4;
/// A worker that sends nothing for this long is given up, for this round.
const SILENCE: Duration = Duration::from_secs(10);
/// Rounds over all keepers in which not one byte came; in between a worker may come back, or another get a copy.
const FRUITLESS_ROUNDS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
const MANIFEST: &str = "manifest.json";

/// What was brought.
pub struct Brought {
    pub parts: usize,
    pub bytes: u64,
}

/// One part on its way.
struct Partial {
    part: OutputPart,
    path: PathBuf,
    file: File,
    bytes: u64,
    crc: u32,
    /// Who gave something of what is in the file.
    from: BTreeSet<u64>,
    /// Who has nothing that helps, and why.
    hopeless: BTreeMap<u64, String>,
    /// What came of the others in this round.
    reasons: BTreeMap<u64, String>,
}

/// Where workers are, and channels to them.
#[derive(Clone)]
struct Ways {
    identity: Identity,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

/// A directory that goes away unless it becomes the result.
pub(super) struct Staging {
    pub(super) path: PathBuf,
    /// Says to others that somebody is at work here; it ends with the process.
    _lock: File,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Made by this process under a name of its own.
        let _ = fs::remove_dir_all(&self.path);
    }
}

pub async fn download(cluster: &mut Cluster, view: JobView, to: &Path) -> Result<Brought, Failure> {
    tokio::select! {
        outcome = whole(cluster, view, to) => outcome,
        signal = signals::stop() => Err(Failure::say(Exit::Interrupted, format!("{signal}: nothing was written to {}", to.display()))),
    }
}

async fn whole(cluster: &mut Cluster, mut view: JobView, to: &Path) -> Result<Brought, Failure> {
    let to = &destination(to)?;
    check_destination(to)?;
    check_names(&view)?;
    let staging = stage(to).map_err(|error| cannot_write(to, &error))?;
    let ways = Ways { identity: cluster.identity().clone(), channels: Arc::default() };
    let begin = |part: &OutputPart| {
        let path = staging.path.join(&part.name);
        let file = File::options().write(true).create_new(true).open(&path).map_err(|error| cannot_write(&path, &error))?;
        Ok::<_, Failure>(Partial {
            part: part.clone(),
            path,
            file,
            bytes: 0,
            crc: 0,
            from: BTreeSet::new(),
            hopeless: BTreeMap::new(),
            reasons: BTreeMap::new(),
        })
    };
    let mut missing: Vec<Partial> = Vec::new();
    for part in &view.parts {
        missing.push(begin(part)?);
    }
    let (parts, bytes) = (view.parts.len(), view.parts.iter().map(|part| part.bytes).sum());
    let mut fruitless = 0;
    let mut workers = cluster.workers().await?;
    loop {
        let before: u64 = missing.iter().map(|partial| partial.bytes).sum::<u64>() + missing.len() as u64;
        let left = missing.len();
        missing = round(&ways, view.job, missing, &workers).await?;
        if missing.is_empty() {
            break;
        }
        let after: u64 = missing.iter().map(|partial| partial.bytes).sum::<u64>() + missing.len() as u64;
        fruitless = if missing.len() < left || after > before { 0 } else { fruitless + 1 };
        if fruitless == FRUITLESS_ROUNDS || missing.iter().all(|partial| nobody_is_left(partial, &workers)) {
            return Err(away(view.job, &missing, &workers));
        }
        tokio::time::sleep(PAUSE).await;
        // A worker that came back may listen elsewhere, and another one may have a copy by now.
        workers = cluster.workers().await?;
        view = cluster.job(view.job).await?;
        for partial in &mut missing {
            if let Some(part) = view.parts.iter().find(|part| part.staged_name == partial.part.staged_name) {
                (partial.part.worker, partial.part.copy_workers) = (part.worker, part.copy_workers.clone());
                partial.part.gone_at.clone_from(&part.gone_at);
            }
        }
    }
    finish(&staging, &view, cluster.identity().cluster(), to).map_err(|error| cannot_write(to, &error))?;
    Ok(Brought { parts, bytes })
}

fn refused(to: &Path, what: &str) -> Failure {
    Failure::say(Exit::BadUsage, format!("{} {what}", to.display())).fix("name a directory that does not exist, or an empty one")
}

/// Where the result goes: of a link, to what it leads to.
pub(super) fn destination(to: &Path) -> Result<PathBuf, Failure> {
    let Ok(own) = to.canonicalize() else {
        return if to.file_name().is_some() { Ok(to.to_owned()) } else { Err(refused(to, "is no name of a directory to make")) };
    };
    // Its place would be taken by another one, and whoever is in it would not see that.
    if std::env::current_dir().and_then(|dir| dir.canonicalize()).is_ok_and(|current| current == own) {
        return Err(Failure::say(Exit::BadUsage, format!("{} is the current directory, which cannot be replaced", to.display()))
            .fix("name one in it, as in --output ./result"));
    }
    Ok(own)
}

/// Only a directory that is empty, or not there, becomes a result.
pub(super) fn check_destination(to: &Path) -> Result<(), Failure> {
    let refused = |what: &str| refused(to, what);
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_write(to, &error)),
        Ok(metadata) if !metadata.is_dir() => Err(refused("exists and is not a directory")),
        Ok(_) => match fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused("exists and is not empty")),
            Err(error) => Err(cannot_write(to, &error)),
        },
    }
}

pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::say(Exit::BadUsage, format!("cannot write {}: {error}", path.display()))
}

/// What comes over the network becomes file names.
pub(super) fn check_names(view: &JobView) -> Result<(), Failure> {
    let names: BTreeSet<&str> = view.parts.iter().map(|part| part.name.as_str()).collect();
    if names.len() != view.parts.len() || !names.iter().all(|name| is_plain(name)) {
        return Err(Failure::say(Exit::Internal, format!("the parts of job {} have names that are no file names", view.job)));
    }
    Ok(())
}

/// A file name comes over the network; it must not lead elsewhere.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && !name.starts_with('.') && name != MANIFEST && name.bytes().all(plain)
}

pub(super) fn stage(to: &Path) -> io::Result<Staging> {
    let name = to.file_name().ok_or_else(|| io::Error::other("it has no name of its own"))?;
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let mut prefix = name.to_owned();
    prefix.push(".raftwerk-tmp-");
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    remove_abandoned(parent, prefix.as_encoded_bytes());
    let mut own = prefix;
    own.push(format!("{:016x}", getrandom::u64().map_err(io::Error::other)?));
    let path = to.with_file_name(own);
    fs::create_dir(&path)?;
    let lock = File::open(&path)?;
    // Where locks are not known, what a killed process leaves stays there.
    let _ = lock.try_lock();
    Ok(Staging { path, _lock: lock })
}

/// Between a directory and its lock there is a moment.
const SETTLED: Duration = Duration::from_secs(60);

/// Removes what a download into the same place left when it was killed.
fn remove_abandoned(parent: &Path, prefix: &[u8]) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.as_encoded_bytes().strip_prefix(prefix) else { continue };
        // A worker's staging directory has another end.
        let ours = rest.len() == 16 && rest.iter().all(u8::is_ascii_hexdigit) && entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_old = || entry.metadata().and_then(|data| data.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > SETTLED));
        if ours && is_old() && File::open(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Tries every part at every keeper once; what is left.
async fn round(ways: &Ways, job: u64, missing: Vec<Partial>, workers: &[WorkerView]) -> Result<Vec<Partial>, Failure> {
    let mut waiting = missing.into_iter();
    let mut under_way: JoinSet<Result<Option<Partial>, Failure>> = JoinSet::new();
    let mut left = Vec::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(partial) = waiting.next()
        {
            let places = places(&partial.part, workers);
            under_way.spawn(bring(ways.clone(), job, partial, places));
        }
        match under_way.join_next().await {
            None => break,
            Some(Ok(outcome)) => left.extend(outcome?),
            Some(Err(error)) => return Err(Failure::new(Exit::Internal, error)),
        }
    }
    left.sort_by_key(|partial| partial.part.partition);
    Ok(left)
}

/// Keepers with their addresses; those that are alive first, lost ones not at all.
fn places(part: &OutputPart, workers: &[WorkerView]) -> Vec<(u64, String)> {
    let mut found: Vec<&WorkerView> = kept::keepers(part)
        .filter(|keeper| !kept::is_gone_at(part, *keeper))
        .filter_map(|keeper| workers.iter().find(|worker| worker.worker == keeper && worker.liveness != "lost"))
        .collect();
    found.sort_by_key(|worker| worker.liveness != "alive");
    found.into_iter().map(|worker| (worker.worker, worker.address.clone())).collect()
}

async fn bring(ways: Ways, job: u64, mut partial: Partial, places: Vec<(u64, String)>) -> Result<Option<Partial>, Failure> {
    partial.reasons.clear();
    for (worker, address) in places {
        if partial.hopeless.contains_key(&worker) {
            continue;
        }
        match pull(&ways, job, &mut partial, worker, &address).await {
            Ok(()) => {}
            Err(Trouble::Here(error)) => return Err(cannot_write(&partial.path, &error)),
            Err(Trouble::Gone(reason)) => {
                partial.hopeless.insert(worker, reason);
                continue;
            }
            Err(Trouble::Away(reason)) => {
                partial.reasons.insert(worker, reason);
                continue;
            }
        }
        if (partial.bytes, partial.crc) == (partial.part.bytes, partial.part.crc32c) {
            partial.file.sync_all().map_err(|error| cannot_write(&partial.path, &error))?;
            return Ok(None);
        }
        let wrong = format!("its copy is damaged ({} bytes with checksum {:08x})", partial.bytes, partial.crc);
        // When several had a hand in it, it is not known who gave what is wrong: from the beginning, one at a time.
        if partial.from.len() == 1 {
            partial.hopeless.insert(worker, wrong);
        }
        partial.restart().map_err(|error| cannot_write(&partial.path, &error))?;
    }
    Ok(Some(partial))
}

enum Trouble {
    /// The worker answered, and does not have it.
    Gone(String),
    Away(String),
    Here(io::Error),
}

impl Partial {
    fn restart(&mut self) -> io::Result<()> {
        (self.bytes, self.crc) = (0, 0);
        self.from.clear();
        self.file.set_len(0)?;
        io::Seek::rewind(&mut self.file)
    }
}

/// What is missing at the end of the file; ends with the stream, whatever came.
async fn pull(ways: &Ways, job: u64, partial: &mut Partial, worker: u64, address: &str) -> Result<(), Trouble> {
    let silent = |_| Trouble::Away(format!("nothing came from {address} for {} s", SILENCE.as_secs()));
    let failed = |status: tonic::Status| match status.code() {
        Code::NotFound | Code::DataLoss => Trouble::Gone(status.message().to_owned()),
        _ => Trouble::Away(format!("{address}: {}", plain_status(&status))),
    };
    let channel = ways.channel(address).map_err(Trouble::Away)?;
    let mut client = WorkerDataClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let request = FetchPartRequest { job, staged_name: partial.part.staged_name.clone(), offset: partial.bytes };
    let response = tokio::time::timeout(SILENCE, client.fetch_part(request)).await.map_err(silent)?;
    let mut pieces = response.map_err(failed)?.into_inner();
    while let Some(piece) = tokio::time::timeout(SILENCE, pieces.message()).await.map_err(silent)?.map_err(failed)? {
        partial.file.write_all(&piece.data).map_err(Trouble::Here)?;
        partial.crc = crc32c::crc32c_append(partial.crc, &piece.data);
        partial.bytes += piece.data.len() as u64;
        partial.from.insert(worker);
        if partial.bytes > partial.part.bytes {
            break;
        }
    }
    // An empty part is whole without a piece.
    partial.from.insert(worker);
    Ok(())
}

impl Ways {
    fn channel(&self, address: &str) -> Result<Channel, String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = connect_lazy(address, &self.identity, PeerKind::Worker).map_err(|error| plain_error(&error))?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Whether every keeper of the part is lost, or does not have it.
fn nobody_is_left(partial: &Partial, workers: &[WorkerView]) -> bool {
    places(&partial.part, workers).iter().all(|(worker, _)| partial.hopeless.contains_key(worker))
}

/// Names each part with its keepers and what is wrong with each.
fn away(job: u64, missing: &[Partial], workers: &[WorkerView]) -> Failure {
    const SHOWN: usize = 5;
    let one = |partial: &Partial| {
        let why = |worker: u64| partial.hopeless.get(&worker).or_else(|| partial.reasons.get(&worker)).cloned();
        kept::away_text(job, &partial.part, workers, why)
    };
    let mut lines: Vec<String> = missing.iter().take(SHOWN).map(one).collect();
    if missing.len() > SHOWN {
        lines.push(format!("and {} more parts", missing.len() - SHOWN));
    }
    let found_out = |part: &OutputPart, worker: u64| {
        let partial = missing.iter().find(|partial| partial.part.partition == part.partition);
        partial.is_some_and(|partial| partial.hopeless.contains_key(&worker))
    };
    Failure::say(Exit::ResultAway, format!("the result of job {job} cannot be brought here:\n    {}", lines.join("\n    ")))
        .fix(kept::away_fix(missing.iter().map(|partial| &partial.part), found_out))
}

/// The manifest, and the one rename that makes the directory visible.
pub(super) fn finish(staging: &Staging, view: &JobView, cluster: &str, to: &Path) -> io::Result<()> {
    let manifest = serde_json::to_string_pretty(&raftwerk_scheduler::document::manifest(view, cluster)).map_err(io::Error::other)?;
    let mut file = File::create_new(staging.path.join(MANIFEST))?;
    file.write_all(manifest.as_bytes())?;
    file.sync_all()?;
    File::open(&staging.path)?.sync_all()?;
    // An empty directory is replaced; one that has got files meanwhile is not.
    fs::rename(&staging.path, to)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_or_empty_directory_becomes_a_result() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir(at("full")).unwrap();
        fs::write(at("full/precious"), "x").unwrap();
        assert!(check_destination(&at("new")).is_ok() && check_destination(&at("empty")).is_ok());
        assert!(check_destination(&at("full")).is_err() && check_destination(&at("full/precious")).is_err());
    }

    #[test]
    fn a_link_leads_to_the_directory_that_becomes_the_result_and_the_current_one_does_not_become_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir(at("empty")).unwrap();
        std::os::unix::fs::symlink("empty", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        assert_eq!(destination(&at("link")).unwrap(), at("empty"));
        assert_eq!(destination(&at("new")).unwrap(), at("new"));
        assert!(check_destination(&destination(&at("dangling")).unwrap()).is_err(), "the link would be replaced");
        for wrong in [Path::new("."), &at("new/.."), Path::new("")] {
            let lines = destination(wrong).unwrap_err().lines();
            assert!(lines.last().unwrap().starts_with("fix: name "), "{wrong:?}: {lines:?}");
        }
    }

    #[test]
    fn a_part_has_a_plain_name() {
        assert!(is_plain("part-00000.csv"));
        for name in ["", ".", "..", "../x", "/x", "a/b", ".ssh", "manifest.json", "a\nb"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn what_a_killed_download_left_goes_with_the_next_one_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, age: Duration| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            let opened = File::open(&path).unwrap();
            opened.set_modified(std::time::SystemTime::now() - age).unwrap();
            opened
        };
        make("out.raftwerk-tmp-00000000000000aa", SETTLED * 2);
        make("out.raftwerk-tmp-00000000000000bb", Duration::ZERO);
        make("out.raftwerk-tmp-rw0123456789-1", SETTLED * 2);
        make("other.raftwerk-tmp-00000000000000cc", SETTLED * 2);
        let at_work = make("out.raftwerk-tmp-00000000000000dd", SETTLED * 2);
        at_work.try_lock().unwrap();
        drop(stage(&dir.path().join("out")).unwrap());
        let mut left: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "other.raftwerk-tmp-00000000000000cc",
                "out.raftwerk-tmp-00000000000000bb",
                "out.raftwerk-tmp-00000000000000dd",
                "out.raftwerk-tmp-rw0123456789-1"
            ]
        );
    }

    #[test]
    fn a_download_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let staging = stage(&dir.path().join("deep/out")).unwrap();
        fs::write(staging.path.join("part"), "half").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 0);
    }
}
