//! Files for what compressed input holds: without a name, so that they vanish with whoever uses them. The agent makes them, because an executor
//! opens nothing; the executor fills them, because what comes out of a stranger's file must not be able to hurt the agent.
use super::{room::DiskLimits, shuffle::fetch::nameless_file};
use raftwerk_proto::v1::{FailureClass, InputFile, Scratch};
use std::{fs::File, path::PathBuf};

pub(super) struct ScratchFiles {
    pub(super) dir: PathBuf,
    pub(super) limits: DiskLimits,
}

/// Whether tasks of this file need one.
pub(super) fn is_needed(file: Option<&InputFile>) -> bool {
    file.is_some_and(|file| !file.compression.is_empty())
}

impl ScratchFiles {
    /// An empty one, and how full it may get: as full as the worker's own data may, and never so full that the disk has less left than it shall.
    pub(super) fn create(&self) -> Result<(File, Scratch), (FailureClass, String)> {
        let file = nameless_file(&self.dir).map_err(|error| {
            let message = format!("cannot create a file in {} for what a compressed input holds: {error}", self.dir.display());
            (FailureClass::Worker, message)
        })?;
        let most_bytes = self.limits.quota_bytes.unwrap_or_default();
        Ok((file, Scratch { descriptor: 0, most_bytes, min_free_bytes: self.limits.min_free_bytes }))
    }
}
