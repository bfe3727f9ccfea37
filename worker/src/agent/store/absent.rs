//! In place of all of it, in a build without the feature `object-stores`: whoever names an object hears what to build.
use super::{Listed, StoreError, StoredResultError};
use crate::{
    agent::{
        part_file::PartFiles,
        prepare::{Prepared, Preparer, failure},
    },
    lease::LeaseKey,
};
use raftwerk_formats::Columnar;
use raftwerk_proto::v1::{BlockRange, FailureClass, Files, InputFile, OutputPart, Publish, PublishReport, Split, StageInfo};
use std::{fs::File, os::fd::OwnedFd, path::PathBuf};

pub(crate) fn list(pattern: &str) -> Result<Vec<Listed>, StoreError> {
    Err(StoreError::NotBuilt(pattern.into()))
}

pub(crate) fn describe(object: &Listed, _files: &Files) -> Result<InputFile, StoreError> {
    Err(StoreError::NotBuilt(object.url.clone()))
}

pub(crate) fn ends(files: &[InputFile], _kind: Columnar) -> Result<Vec<File>, StoreError> {
    files.first().map_or_else(|| Ok(Vec::new()), |file| Err(StoreError::NotBuilt(file.path.clone())))
}

pub(crate) fn head(url: &str, _bytes: usize) -> Result<Vec<u8>, StoreError> {
    Err(StoreError::NotBuilt(url.into()))
}

pub(crate) fn read_all(ranges: Vec<(String, u64, u64)>) -> Result<Vec<Vec<u8>>, StoreError> {
    ranges.into_iter().map(|(url, _, _)| Err(StoreError::NotBuilt(url))).collect()
}

pub(crate) fn output_problem(url: &str) -> Result<(), StoreError> {
    Err(StoreError::NotBuilt(url.into()))
}

pub(crate) struct Objects;

impl Objects {
    pub(crate) fn new(_worker: &str, _cluster: &str, _dir: PathBuf, _memory: Option<u64>) -> Self {
        Self
    }

    pub(crate) fn prepare(
        &self,
        url: &str,
        _job: u64,
        _lease: LeaseKey,
        _files: &PartFiles,
        _parts: &mut [OutputPart],
        _ranges: &[BlockRange],
    ) -> Result<(), StoreError> {
        Err(StoreError::NotBuilt(url.into()))
    }

    pub(crate) fn publish(&self, request: &Publish) -> PublishReport {
        let error = StoreError::NotBuilt(request.output.as_ref().map_or_else(String::new, |output| output.url.clone()));
        PublishReport { job: request.job, error: error.to_string(), retryable: true, ..PublishReport::default() }
    }

    pub(crate) fn release(&self, _job: u64) {}
}

impl Preparer {
    pub(in crate::agent) async fn fetch_objects(
        &self,
        first_task: u64,
        splits: &[Split],
        _stage: &StageInfo,
        tell: &impl Fn(Prepared) -> bool,
    ) -> bool {
        let url = splits.first().and_then(|split| split.file.as_ref()).map_or("", |file| &file.path);
        let error = StoreError::NotBuilt(url.into());
        tell(Prepared::Failed(vec![failure(first_task, splits.len() as u64, error.class(), error.to_string())]))
    }

    pub(in crate::agent) async fn open_object(&self, file: &InputFile) -> Result<OwnedFd, (FailureClass, String)> {
        let error = StoreError::NotBuilt(file.path.clone());
        Err((error.class(), error.to_string()))
    }
}

/// Never made.
pub enum StoredResult {}

impl StoredResult {
    /// # Errors
    /// [`StoredResultError::NotBuilt`], always.
    #[allow(clippy::unused_async, reason = "as in builds with stores, where it asks one")]
    pub async fn open(url: &str, _cluster: &str, _job: u64, _parts: &[OutputPart]) -> Result<Self, StoredResultError> {
        Err(StoredResultError::NotBuilt(url.into()))
    }

    /// # Errors
    /// None: there is no such value.
    #[allow(clippy::unused_async, reason = "as in builds with stores, where it asks one")]
    pub async fn bring(&self, _part: &OutputPart, _to: &mut File) -> Result<(), StoredResultError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::listing;
    use raftwerk_proto::v1::{Files, ListInputs};

    #[test]
    fn a_build_without_stores_says_so_where_an_object_is_named() {
        let files = Files { patterns: vec!["s3://logs/*.txt".into()], format: "text".into(), ..Files::default() };
        let input = ListInputs { inputs: vec![files], ..ListInputs::default() };
        let output = ListInputs { output_url: "s3://results/out".into(), ..ListInputs::default() };
        for (request, url) in [(input, "s3://logs/*.txt"), (output, "s3://results/out")] {
            let said = listing::answer(request, "anna").error;
            assert!(said.contains(url) && said.contains("`--features object-stores`"), "{said}");
        }
    }
}
