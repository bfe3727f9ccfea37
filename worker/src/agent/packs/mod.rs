//! Listings of very many files. The log has the digests of some packs of files, and no names: whoever sees the files can make a pack again, and knows by its digest
//! that it is the one.
//!
//! ```text
//! the listing     a b c d e f g ..            sorted by path, as every worker finds it
//! packs           [a b c d][e f g ..]..       4096 files each, with what a listing says of each; kept as DATA_DIR/packs/<SHA-256 of it>
//! the log         digest, files, bytes, tasks of each pack
//! a split         a pack, and which of its tasks: here they become ranges of files again
//! ```
//! Every worker is asked to list at submit, and keeps what it found; one that came later, or has lost it, lists when it gets its first task.
//!
//! [`pack`] is what a pack is, [`shelf`] the directory, and this file says when which of them is asked for.
mod pack;
mod shelf;

use super::listing;
use super::prepare::{Preparer, source};
use pack::{PACK_FILES, Sha, ranges};
use raftwerk_proto::{
    Wire, upload_path,
    v1::{FailureClass, Files, InputFile, InputListing, ListInputs, Split, StageInfo, stage_input::Source},
};
use shelf::Shelf;
use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Shorter listings of a job, all together, go into the log as they are: names are seen there, and nobody has to look for them.
const PACKED_FROM_BYTES: usize = 512 << 10;
/// A longer answer than this does not fit a message between agent and scheduler.
const ANSWER_BYTES: usize = raftwerk_transport::MAX_MESSAGE_BYTES - (64 << 10);
/// So long what was found to be different from what was there at submit is taken to be so still: the leases of a job would each list a million files.
const FAILED_FOR: Duration = Duration::from_secs(30);
/// So long a task waits for the listing that its worker makes for the submit of the same files: another worker was faster.
const UNDER_WAY_FOR: Duration = Duration::from_secs(60);

type Failure = (FailureClass, String);

pub(crate) struct Packs {
    shelf: Shelf,
    /// One lease at a time lists a million files; the others find what it has found.
    turn: tokio::sync::Mutex<()>,
    /// What is being listed for submits.
    under_way: Mutex<Vec<Files>>,
    /// One of these has ended.
    ended: Condvar,
    /// What could not be made again, and when.
    failed: Mutex<Vec<(Files, Instant, Failure)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is asked of a listing, and nothing of what was found.
fn asked(files: &Files) -> Files {
    Files { listing: Vec::new(), listed_files: 0, listed_bytes: 0, ..files.clone() }
}

/// Listings under way; they are not any more when this goes.
struct UnderWay<'a> {
    packs: &'a Packs,
    inputs: Vec<Files>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = locked(&self.packs.under_way);
        for input in &self.inputs {
            if let Some(at) = under_way.iter().position(|other| other == input) {
                under_way.swap_remove(at);
            }
        }
        self.packs.ended.notify_all();
    }
}

/// Why the splits of packs are not known.
enum Unknown {
    /// This pack is not here.
    Absent(Sha),
    Never(Failure),
}

impl Packs {
    /// # Errors
    /// The directory cannot be made, or what a process that died has left half written cannot be removed.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            shelf: Shelf::open(data_dir)?,
            turn: tokio::sync::Mutex::default(),
            under_way: Mutex::default(),
            ended: Condvar::new(),
            failed: Mutex::default(),
        })
    }

    /// Answers a submit with `list`, and with long listings as packs, which are here when this returns. Blocks.
    pub(crate) fn answer(&self, request: ListInputs, worker: &str, list: impl FnOnce(ListInputs) -> InputListing) -> InputListing {
        let inputs: Vec<Files> = request.inputs.iter().map(asked).collect();
        locked(&self.under_way).extend(inputs.iter().cloned());
        let _under_way = UnderWay { packs: self, inputs };
        self.packed(list(request), worker)
    }

    fn packed(&self, mut answer: InputListing, worker: &str) -> InputListing {
        let total: usize = answer.inputs.iter().map(Wire::wire_bytes).sum();
        let each = if total > PACKED_FROM_BYTES { PACKED_FROM_BYTES / answer.inputs.len().max(1) } else { usize::MAX };
        for files in &mut answer.inputs {
            // A job names uploads, and workers have them by other names: nobody could list them again.
            if files.wire_bytes() <= each || files.listing.iter().any(|file| upload_path(&file.path).is_some()) {
                continue;
            }
            let listing = std::mem::take(&mut files.listing);
            match self.shelf.keep(listing, files) {
                Ok(entries) => files.listing = entries,
                Err(error) => {
                    let error = format!("worker {worker} cannot keep a long listing in {}: {error}", self.shelf.dir().display());
                    return InputListing { request: answer.request, error, ..InputListing::default() };
                }
            }
        }
        if answer.wire_bytes() > ANSWER_BYTES {
            let counted = |file: &InputFile| file.pack_files.max(1);
            let files: u64 = answer.inputs.iter().flat_map(|files| &files.listing).map(counted).sum();
            let input_problem = format!("the patterns match {files} files, more than one job can list; put small files together");
            return InputListing { request: answer.request, input_problem, ..InputListing::default() };
        }
        answer
    }

    /// The splits with those of packs as ranges of files, in the same order; `files` says how these are cut.
    fn unpacked(&self, splits: Vec<Split>, files: &Files) -> Result<Vec<Split>, Unknown> {
        if splits.iter().all(|split| split.pack_tasks == 0) {
            return Ok(splits);
        }
        let mut unpacked = Vec::new();
        for split in splits {
            if split.pack_tasks == 0 {
                unpacked.push(split);
                continue;
            }
            let protocol = |what: &str| Unknown::Never((FailureClass::Fatal, format!("protocol error: {what}")));
            let digest = split.file.as_ref().and_then(|file| Sha::try_from(&file.pack_sha256[..]).ok());
            let digest = digest.ok_or_else(|| protocol("a pack without a digest"))?;
            let pack = self.shelf.find(digest).ok_or(Unknown::Absent(digest))?;
            unpacked.extend(ranges(&pack, files, &split).ok_or_else(|| protocol("tasks that a pack does not have"))?);
        }
        Ok(unpacked)
    }

    /// Makes a pack that is not here, or says why it cannot be. Lists all that the job reads, for seconds if that is a million files.
    async fn make_again(self: &Arc<Self>, digest: Sha, files: Files, worker: String) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let packs = self.clone();
        let made = raftwerk_transport::tasks::blocking(move || packs.list_again(digest, &asked(&files), &worker)).await;
        made.unwrap_or_else(|error| Err((FailureClass::Worker, error.to_string())))
    }

    fn list_again(&self, digest: Sha, files: &Files, worker: &str) -> Result<(), Failure> {
        let is_under_way = |under_way: &mut Vec<Files>| under_way.iter().any(|other| asks_for_the_same(other, files));
        let waited = self.ended.wait_timeout_while(locked(&self.under_way), UNDER_WAY_FOR, is_under_way);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        if self.shelf.find(digest).is_some() {
            return Ok(());
        }
        let mut failed = locked(&self.failed);
        failed.retain(|(_, at, _)| at.elapsed() < FAILED_FOR);
        if let Some((_, _, said)) = failed.iter().find(|(other, _, _)| other == files) {
            return Err(said.clone());
        }
        drop(failed);
        let made = self.list_now(digest, files, worker);
        if let Err(said) = &made {
            locked(&self.failed).push((files.clone(), Instant::now(), said.clone()));
        }
        made
    }

    fn list_now(&self, digest: Sha, files: &Files, worker: &str) -> Result<(), Failure> {
        let at_fault = |message: String| (FailureClass::Worker, message);
        tracing::info!(patterns = ?files.patterns, "listing the input of a job again");
        let mut again = listing::list(files.clone(), worker)
            .map_err(|error| at_fault(format!("worker {worker} cannot list the input of the job: {error}")))?;
        let listing = std::mem::take(&mut again.listing);
        let entries = self
            .shelf
            .keep(listing, &again)
            .map_err(|error| at_fault(format!("worker {worker} cannot keep a long listing in {}: {error}", self.shelf.dir().display())))?;
        if entries.iter().any(|entry| entry.pack_sha256[..] == digest) {
            return Ok(());
        }
        Err(at_fault(format!(
            "other files match '{}' on worker {worker} than matched when the job was submitted, and it does not have the listing of then; submit the job again for the files of now",
            files.patterns.join("', '")
        )))
    }
}

/// Whether one listing answers both. What the listing found may stand in the job since, and how a job reads what is listed does not matter.
fn asks_for_the_same(one: &Files, other: &Files) -> bool {
    one.patterns == other.patterns && one.format == other.format && one.compression == other.compression
}

impl Preparer {
    /// The splits as ranges of files, also where the log has nothing but packs of these.
    pub(super) async fn files_of(&self, splits: Vec<Split>, stage: &StageInfo) -> Result<Vec<Split>, Failure> {
        // More than once only if what was made is gone again before it is read.
        const TRIES: u32 = 3;
        let Some(Source::Files(files)) = source(stage).filter(|_| splits.iter().any(|split| split.pack_tasks > 0)) else {
            return Ok(splits);
        };
        let mut tries = 0;
        loop {
            let (packs, wanted, rules) = (self.packs.clone(), splits.clone(), files.clone());
            let unpacked = self.on_disk(move || packs.unpacked(wanted, &rules)).await;
            match unpacked.map_err(|error| (FailureClass::Worker, error.to_string()))? {
                Ok(splits) => return Ok(splits),
                Err(Unknown::Never(failure)) => return Err(failure),
                Err(Unknown::Absent(_)) if tries == TRIES => {
                    return Err((FailureClass::Worker, "a pack of a listing does not stay on the disk".into()));
                }
                // Not on the threads that open files: those of other jobs would wait for it.
                Err(Unknown::Absent(digest)) => self.packs.make_again(digest, files.clone(), self.name.clone()).await?,
            }
            tries += 1;
        }
    }
}

/// Splits that are looked up and opened together: those of files, or a bounded number of one pack. A lease may have so many small files that their
/// names alone would take a hundred megabytes.
pub(super) fn pieces(splits: &[Split]) -> impl Iterator<Item = Vec<Split>> {
    let cut = |splits: &[Split]| -> Vec<Vec<Split>> {
        match splits {
            [split] if split.pack_tasks > 0 => {
                let starts = (0..split.pack_tasks).step_by(PACK_FILES);
                let piece = |start: u64| {
                    let pack_tasks = (split.pack_tasks - start).min(PACK_FILES as u64);
                    vec![Split { offset: split.offset + start, pack_tasks, ..split.clone() }]
                };
                starts.map(piece).collect()
            }
            files => vec![files.to_vec()],
        }
    };
    splits.chunk_by(|a, b| a.pack_tasks == 0 && b.pack_tasks == 0).flat_map(cut)
}

/// How many tasks the splits are.
pub(super) fn tasks_of(splits: &[Split]) -> u64 {
    splits.iter().map(|split| split.pack_tasks.max(1)).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests;
