//! Publishing an output: the second phase, decided in the log, carried out here; repeatable at every step.
//!
//! ```text
//! accepted parts get their final names -> everything else in staging goes -> manifest.json -> fsync of files and directory
//!   -> ONE rename: staging becomes the output -> fsync of the parent
//! ```
//! Readers see the old output or the new one, never a mixture. Asked again, a step that is done is recognised by what it left.
use super::{
    destination,
    listing::output_path,
    staging::{Staging, sync_dir},
};
use raftwerk_proto::v1::{IfExists, OutputPart, Publish, PublishReport};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("`{0}` is not an output this worker can publish: only file:///absolute/path")]
    Url(String),
    #[error("the manifest is not JSON with `job` and `cluster`")]
    Manifest,
    #[error("{0}")]
    InTheWay(String),
    /// Another worker may see it: the output must be on a file system that all workers share.
    #[error("part {name}, prepared by worker {worker}, is not in {}; an output must lie on a file system that all workers share", dir.display())]
    PartMissing { name: String, worker: u64, dir: PathBuf },
    #[error("cannot publish {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl PublishError {
    /// Whether asking again, here or elsewhere, can help.
    fn retryable(&self) -> bool {
        match self {
            Self::Url(_) | Self::Manifest | Self::InTheWay(_) => false,
            Self::PartMissing { .. } | Self::Io { .. } => true,
        }
    }
}

pub(crate) fn answer(staging: &Staging, request: &Publish) -> PublishReport {
    match publish(staging, request) {
        Ok(()) => PublishReport { job: request.job, ..PublishReport::default() },
        Err(error) => PublishReport { job: request.job, error: error.to_string(), retryable: error.retryable() },
    }
}

fn publish(staging: &Staging, request: &Publish) -> Result<(), PublishError> {
    let spec = request.output.clone().unwrap_or_default();
    let output = output_path(&spec.url).filter(|path| path.file_name().is_some()).ok_or_else(|| PublishError::Url(spec.url.clone()))?;
    let manifest: Value = serde_json::from_str(&request.manifest_json).map_err(|_| PublishError::Manifest)?;
    let dir = staging.dir(&output, request.job);
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| PublishError::Io { path, source }
    };
    if is_of(&output, &manifest)? {
        // Published before; what an exchange left behind is the replaced output.
        return destination::remove_replaced(&dir).map_err(io_error(&dir));
    }
    let replace = spec.if_exists() == IfExists::Replace;
    if let Some(problem) = destination::problem(&output, replace) {
        return Err(PublishError::InTheWay(problem));
    }
    fs::create_dir_all(&dir).map_err(io_error(&dir))?;
    settle_parts(&dir, &request.parts)?;
    write_manifest(&dir.join(MANIFEST), &request.manifest_json).map_err(io_error(&dir.join(MANIFEST)))?;
    sync_dir(&dir).map_err(io_error(&dir))?;
    swap(&dir, &output, replace)?;
    if let Some(parent) = output.parent() {
        sync_dir(parent).map_err(io_error(parent))?;
    }
    destination::remove_replaced(&dir).map_err(io_error(&dir))
}

/// Whether the output there is this job's: same job, same cluster.
fn is_of(output: &Path, manifest: &Value) -> Result<bool, PublishError> {
    let id = |manifest: &Value| Some((manifest.get("job")?.clone(), manifest.get("cluster")?.clone()));
    let ours = id(manifest).ok_or(PublishError::Manifest)?;
    let there = fs::read(output.join(MANIFEST)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    Ok(there.as_ref().and_then(id) == Some(ours))
}

fn settle_parts(dir: &Path, parts: &[OutputPart]) -> Result<(), PublishError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| PublishError::Io { path, source }
    };
    let mut keep: HashSet<&str> = HashSet::from([MANIFEST]);
    for part in parts {
        let name = part.name.as_str();
        let (prepared, settled) = (dir.join(&part.staged_name), dir.join(name));
        match fs::rename(&prepared, &settled) {
            // A repeat after a crash finds the part under its final name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let there = fs::metadata(&settled).is_ok_and(|metadata| metadata.len() == part.bytes);
                if !there {
                    return Err(PublishError::PartMissing { name: name.into(), worker: part.worker, dir: dir.into() });
                }
            }
            other => other.map_err(io_error(&prepared))?,
        }
        keep.insert(name);
    }
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let entry = entry.map_err(io_error(dir))?;
        if !entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
            remove(&entry.path()).map_err(io_error(&entry.path()))?;
        }
    }
    Ok(())
}

fn write_manifest(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The atomic act.
fn swap(staged: &Path, output: &Path, replace: bool) -> Result<(), PublishError> {
    let rename = |flags| renameat_with(CWD, staged, CWD, output, flags);
    let failed = |error: rustix::io::Errno| PublishError::Io { path: output.to_owned(), source: error.into() };
    use rustix::io::Errno;
    match rename(RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if replace => rename(RenameFlags::EXCHANGE).map_err(failed),
        Err(Errno::EXIST) => Err(in_the_way(output)),
        // A file system without the flags (some network ones). A plain rename refuses to replace a directory that has files.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if replace && output.exists() {
                return replace_in_two_steps(staged, output);
            }
            match rename(RenameFlags::empty()) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => Err(in_the_way(output)),
                other => other.map_err(failed),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

fn in_the_way(output: &Path) -> PublishError {
    let problem = destination::problem(output, false);
    PublishError::InTheWay(problem.unwrap_or_else(|| format!("the output {} came and went meanwhile", output.display())))
}

/// Without an exchange there is a moment with no output at all; never one with a mixture.
fn replace_in_two_steps(staged: &Path, output: &Path) -> Result<(), PublishError> {
    let failed = |source| PublishError::Io { path: output.to_owned(), source };
    tracing::warn!(output = %output.display(), "this file system cannot exchange directories; the old output is moved away first");
    let mut name = staged.file_name().unwrap_or_default().to_owned();
    name.push("-old");
    let old = staged.with_file_name(name);
    destination::remove_replaced(&old).map_err(failed)?;
    fs::rename(output, &old).map_err(failed)?;
    fs::rename(staged, output).map_err(failed)?;
    destination::remove_replaced(&old).map_err(failed)
}

/// Removes a file or directory; nothing there is fine.
fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseKey;
    use raftwerk_proto::v1::{BlockRange, OutputSpec};
    use std::os::unix::fs::FileExt;

    struct Bench {
        root: tempfile::TempDir,
        staging: Staging,
    }

    impl Bench {
        fn new() -> Self {
            Self { root: tempfile::tempdir().unwrap(), staging: Staging::new("c-1") }
        }

        fn output(&self) -> PathBuf {
            self.root.path().join("deep/out")
        }

        /// Prepares one part with this text and asks for its publishing.
        fn prepared(&self, job: u64, index: u64, text: &str, if_exists: IfExists) -> Publish {
            let source = tempfile::tempfile().unwrap();
            source.write_all_at(text.as_bytes(), 0).unwrap();
            let bytes = text.len() as u64;
            let crc32c = crc32c::crc32c(text.as_bytes());
            let mut parts = vec![OutputPart { name: "part-00000.csv".into(), bytes, crc32c, ..OutputPart::default() }];
            let lease = LeaseKey { epoch: 0, index, position: 0 };
            let range = BlockRange { task: 0, offset: 0, bytes };
            self.staging.prepare(&self.output(), job, lease, &source, &mut parts, &[range]).unwrap();
            let output =
                OutputSpec { url: format!("file://{}", self.output().display()), format: "csv".into(), if_exists: if_exists.into() };
            Publish {
                job,
                output: Some(output),
                parts,
                manifest_json: format!("{{\"job\":{job},\"cluster\":\"c-1\",\"parts\":[{{\"name\":\"part-00000.csv\"}}]}}"),
            }
        }

        fn files(&self) -> Vec<(String, String)> {
            let mut files: Vec<_> = fs::read_dir(self.output())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
                .collect();
            files.sort();
            files
        }

        fn siblings(&self) -> usize {
            fs::read_dir(self.output().parent().unwrap()).unwrap().count()
        }
    }

    #[test]
    fn the_accepted_attempt_is_published_and_others_vanish() {
        let bench = Bench::new();
        bench.prepared(1, 10, "rejected", IfExists::Error);
        let accepted = bench.prepared(1, 11, "accepted", IfExists::Error);
        assert_eq!(answer(&bench.staging, &accepted).error, "");
        let expected = [("manifest.json".into(), accepted.manifest_json.clone()), ("part-00000.csv".into(), "accepted".into())];
        assert_eq!(bench.files(), expected);
        assert_eq!(bench.siblings(), 1, "no staging directory is left");
    }

    #[test]
    fn publishing_again_succeeds_and_changes_nothing() {
        let bench = Bench::new();
        let request = bench.prepared(1, 10, "text", IfExists::Error);
        assert_eq!(answer(&bench.staging, &request).error, "");
        let before = bench.files();
        assert_eq!(answer(&bench.staging, &request).error, "");
        assert_eq!(bench.files(), before);
    }

    #[test]
    fn a_repeat_after_a_crash_half_way_finishes() {
        let bench = Bench::new();
        let request = bench.prepared(1, 10, "text", IfExists::Error);
        let dir = bench.staging.dir(&bench.output(), 1);
        fs::rename(dir.join(&request.parts[0].staged_name), dir.join("part-00000.csv")).unwrap();
        fs::write(dir.join(MANIFEST), "half").unwrap();
        assert_eq!(answer(&bench.staging, &request).error, "");
        assert_eq!(bench.files()[1].1, "text");
    }

    #[test]
    fn an_output_of_somebody_else_is_an_error_for_good() {
        let bench = Bench::new();
        fs::create_dir_all(bench.output()).unwrap();
        let report = answer(&bench.staging, &bench.prepared(1, 10, "text", IfExists::Error));
        assert!(report.error.contains("exists already") && !report.retryable, "{report:?}");
        bench.staging.release(1).unwrap();
        assert_eq!(bench.siblings(), 1);
    }

    #[test]
    fn the_same_job_number_of_another_cluster_is_somebody_else() {
        let bench = Bench::new();
        fs::create_dir_all(bench.output()).unwrap();
        fs::write(bench.output().join(MANIFEST), "{\"job\":1,\"cluster\":\"c-2\"}").unwrap();
        assert!(answer(&bench.staging, &bench.prepared(1, 10, "text", IfExists::Error)).error.contains("exists already"));
    }

    #[test]
    fn replacing_exchanges_the_directories() {
        let bench = Bench::new();
        assert_eq!(answer(&bench.staging, &bench.prepared(1, 10, "old", IfExists::Error)).error, "");
        let request = bench.prepared(2, 20, "new", IfExists::Replace);
        assert_eq!(answer(&bench.staging, &request).error, "");
        assert_eq!(bench.files()[1].1, "new");
        assert_eq!(bench.siblings(), 1, "the old output is gone");
        assert_eq!(answer(&bench.staging, &request).error, "");
    }

    #[test]
    fn a_part_on_another_machine_is_worth_asking_elsewhere() {
        let bench = Bench::new();
        let mut request = bench.prepared(1, 10, "text", IfExists::Error);
        request.parts[0].name = "part-00001.csv".into();
        request.parts[0].staged_name = "part-00001.csv.0-9-9".into();
        request.parts[0].worker = 4;
        let report = answer(&bench.staging, &request);
        assert!(report.retryable && report.error.contains("prepared by worker 4"), "{report:?}");
    }
}
