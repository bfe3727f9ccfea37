//! A pack: files of a listing that follow one another, and where the splits of its tasks are.

use raftwerk_proto::{
    file_split, file_splits,
    v1::{Files, InputFile, Split},
};
use sha2::{Digest, Sha256};

/// Files of a pack: some hundred kilobytes, of which a task's worker reads all to find its own.
pub(super) const PACK_FILES: usize = 4096;

/// Of the bytes of a pack.
pub(super) type Sha = [u8; 32];

pub(super) fn sha_of(bytes: &[u8]) -> Sha {
    Sha256::digest(bytes).into()
}

pub(super) fn hex(digest: &Sha) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files and nothing of the job, so that jobs that read the same files have the same packs.
pub(super) fn pack_of(listing: Vec<InputFile>) -> Files {
    Files { listing, ..Files::default() }
}

/// What the log has of a pack. The path is that of its first file, for people. `files` says how they are cut.
pub(super) fn entry(listing: &[InputFile], digest: Sha, files: &Files) -> InputFile {
    let sum = |of: fn(&InputFile) -> u64| listing.iter().map(of).fold(0, u64::saturating_add);
    InputFile {
        path: listing.first().map(|file| file.path.clone()).unwrap_or_default(),
        bytes: sum(|file| file.bytes),
        data_offset: sum(|file| file.data_offset.min(file.bytes)),
        version: digest.iter().take(8).fold(0, |version, byte| version << 8 | u64::from(*byte)),
        // Compressed files of any kind: releases that do not know them must not take the job.
        compression: listing.iter().map(|file| &file.compression).find(|with| !with.is_empty()).cloned().unwrap_or_default(),
        pack_sha256: digest.to_vec().into(),
        pack_files: listing.len() as u64,
        pack_tasks: listing.iter().map(|file| file_splits(files, file)).fold(0, u64::saturating_add),
        ..InputFile::default()
    }
}

/// The tasks of a pack that a split names, as ranges of its files; `None` when it has not so many.
pub(super) fn ranges(listing: &[InputFile], files: &Files, split: &Split) -> Option<Vec<Split>> {
    let end = split.offset.checked_add(split.pack_tasks)?;
    let (mut splits, mut before) = (Vec::new(), 0u64);
    for file in listing {
        let after = before.saturating_add(file_splits(files, file));
        for task in split.offset.max(before)..end.min(after) {
            let (offset, bytes) = file_split(files, file, task - before);
            splits.push(Split { file: Some(file.clone()), offset, bytes, pack_tasks: 0 });
        }
        before = after;
        if before >= end {
            return Some(splits);
        }
    }
    None
}
