//! Publishing an output: the second phase, decided in the log, carried out here; repeatable at every step.
//!
//! ```text
//! every part is read (but for large ones that this process wrote itself and nobody has touched since) and compared with what was reported -> accepted parts get their final names -> manifest.json -> fsync
//!   -> staging is claimed: renamed to a name that only this attempt knows -> everything else in it goes
//!   -> ONE rename: the claim becomes the output -> fsync of the parent
//! ```
//! Readers see the old output or the new one, never a mixture. Asked again, a step that is done is recognised by what it left. The claim is
//! a fence: of two publishers, one of which a leader had given up too early, the slower one finds its directory gone and changes nothing.
use super::{
    destination,
    listing::output_path,
    staging::{Staging, sync_dir},
};
use crate::fail_point;
use raftwerk_proto::v1::{IfExists, LostPart, OutputPart, Publish, PublishReport};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

pub(super) const MANIFEST: &str = "manifest.json";
/// Bytes of a part read at once while it is checked.
const CHECK_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("`{0}` is not an output this worker can publish: only file:///absolute/path")]
    Url(String),
    #[error("the manifest is not JSON with `job` and `cluster`")]
    Manifest,
    #[error("{0}")]
    InTheWay(String),
    /// Another worker may see them: the output must be on a file system that all workers share.
    #[error("{}, prepared by worker {worker}, {} (in {}; {} of its parts are lost or not seen here). An output must lie on a file system that all workers share", .lost[0].staged_name, .lost[0].reason, dir.display(), lost.len())]
    PartsLost { lost: Vec<LostPart>, worker: u64, dir: PathBuf },
    #[error("cannot publish {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl PublishError {
    /// Whether asking again, here or elsewhere, can help.
    fn retryable(&self) -> bool {
        match self {
            Self::Url(_) | Self::Manifest | Self::InTheWay(_) => false,
            Self::PartsLost { .. } | Self::Io { .. } => true,
        }
    }
}

pub(crate) fn answer(staging: &Staging, request: &Publish) -> PublishReport {
    match publish(staging, request) {
        Ok(()) => {
            fail_point::reach("publish.done");
            PublishReport { job: request.job, ..PublishReport::default() }
        }
        Err(error) => {
            let (message, retryable) = (error.to_string(), error.retryable());
            let lost = if let PublishError::PartsLost { lost, .. } = error { lost } else { Vec::new() };
            PublishReport { job: request.job, error: message, retryable, lost }
        }
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PublishError {
    let path = path.to_owned();
    move |source| PublishError::Io { path, source }
}

fn publish(staging: &Staging, request: &Publish) -> Result<(), PublishError> {
    let spec = request.output.clone().unwrap_or_default();
    let output = output_path(&spec.url).filter(|path| path.file_name().is_some()).ok_or_else(|| PublishError::Url(spec.url.clone()))?;
    let manifest: Value = serde_json::from_str(&request.manifest_json).map_err(|_| PublishError::Manifest)?;
    let dir = staging.dir(&output, request.job);
    staging.touches(request.job, &dir);
    fail_point::reach("publish.asked");
    if is_of(&output, &manifest)? {
        return clean_up(staging, &dir);
    }
    let replace = spec.if_exists() == IfExists::Replace;
    if let Some(problem) = destination::problem(&output, replace) {
        return Err(PublishError::InTheWay(problem));
    }
    for claim in staging.claims(&dir).map_err(io_error(&dir))? {
        take_back(&claim, &dir, &manifest)?;
    }
    let doubtful: Vec<&OutputPart> = request.parts.iter().filter(|part| !staging.is_untouched(&dir, request.job, part)).collect();
    let lost = check_parts(&dir, &doubtful);
    if let Some(first) = lost.first() {
        if is_of(&output, &manifest)? {
            return clean_up(staging, &dir); // another publisher was quicker
        }
        let worker = request.parts.iter().find(|part| part.partition == first.partition).map_or(0, |part| part.worker);
        return Err(PublishError::PartsLost { lost, worker, dir });
    }
    fail_point::reach("publish.checked");
    if request.parts.is_empty() {
        fs::create_dir_all(&dir).map_err(io_error(&dir))?;
    }
    settle_parts(&dir, &request.parts)?;
    fail_point::reach("publish.settled");
    write_manifest(&dir, &request.manifest_json).map_err(io_error(&dir.join(MANIFEST)))?;
    sync_dir(&dir).map_err(io_error(&dir))?;
    fail_point::reach("publish.manifest");
    let claim = staging.claim_name(&dir);
    fs::rename(&dir, &claim).map_err(io_error(&dir))?;
    fail_point::reach("publish.claimed");
    remove_others(&claim, &request.parts)?;
    sync_dir(&claim).map_err(io_error(&claim))?;
    swap(&claim, &output, replace)?;
    fail_point::reach("publish.swapped");
    if let Some(parent) = output.parent() {
        sync_dir(parent).map_err(io_error(parent))?;
    }
    clean_up(staging, &dir)
}

/// The output is in place; what an exchange left behind is the replaced one.
fn clean_up(staging: &Staging, dir: &Path) -> Result<(), PublishError> {
    for claim in staging.claims(dir).map_err(io_error(dir))? {
        destination::remove_replaced(&claim).map_err(io_error(&claim))?;
    }
    Ok(())
}

/// Whether the output there is this job's: same job, same cluster.
fn is_of(output: &Path, manifest: &Value) -> Result<bool, PublishError> {
    let id = |manifest: &Value| Some((manifest.get("job")?.clone(), manifest.get("cluster")?.clone()));
    let ours = id(manifest).ok_or(PublishError::Manifest)?;
    let there = fs::read(output.join(MANIFEST)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    Ok(there.as_ref().and_then(id) == Some(ours))
}

/// A publisher died, or was given up, between its claim and the swap: what it had goes back to where parts are looked for. A claim that
/// holds the output replaced by a swap has another manifest and stays.
fn take_back(claim: &Path, dir: &Path, manifest: &Value) -> Result<(), PublishError> {
    if !is_of(claim, manifest)? {
        return Ok(());
    }
    match fs::rename(claim, dir) {
        // Somebody prepared into a new staging directory meanwhile: part by part then.
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
            for entry in fs::read_dir(claim).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(io_error(claim))? {
                fs::rename(entry.path(), dir.join(entry.file_name())).map_err(io_error(&entry.path()))?;
            }
            fs::remove_dir(claim).map_err(io_error(claim))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // its publisher went on
        other => other.map_err(io_error(claim)),
    }
}

/// Parts that are not there as they were reported: every byte is read.
fn check_parts(dir: &Path, parts: &[&OutputPart]) -> Vec<LostPart> {
    let lost = |part: &OutputPart| {
        let reason = wrong_with(dir, part)?;
        tracing::warn!(part = part.name, attempt = part.staged_name, reason, "a decided part is not as it was prepared");
        Some(LostPart { partition: part.partition, staged_name: part.staged_name.clone(), reason })
    };
    parts.iter().copied().filter_map(lost).collect()
}

fn wrong_with(dir: &Path, part: &OutputPart) -> Option<String> {
    // A repeat after a crash finds the part under its final name.
    let file = match File::open(dir.join(&part.staged_name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(dir.join(&part.name)),
        other => other,
    };
    match file.and_then(|file| checksum(file, part.bytes)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing".into()),
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok((bytes, _)) if bytes != part.bytes => Some(format!("has {bytes} bytes instead of {}", part.bytes)),
        Ok((_, crc)) if crc != part.crc32c => Some(format!("is damaged: its checksum is {crc:08x}, not {:08x}", part.crc32c)),
        Ok(_) => None,
    }
}

/// Length and CRC-32C; of a file of another length than expected, the length alone.
pub(crate) fn checksum(mut file: File, expected: u64) -> io::Result<(u64, u32)> {
    let bytes = file.metadata()?.len();
    if bytes != expected {
        return Ok((bytes, 0));
    }
    let (mut buffer, mut crc, mut read) = (vec![0; CHECK_BYTES.min(bytes as usize).max(1)], 0, 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((read, crc)),
            n => {
                crc = crc32c::crc32c_append(crc, &buffer[..n]);
                read += n as u64;
            }
        }
    }
}

fn settle_parts(dir: &Path, parts: &[OutputPart]) -> Result<(), PublishError> {
    for part in parts {
        let prepared = dir.join(&part.staged_name);
        match fs::rename(&prepared, dir.join(&part.name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // settled before, and just checked
            other => other.map_err(io_error(&prepared))?,
        }
    }
    Ok(())
}

/// Attempts that were not accepted. After the claim nobody can put another file in by the old name.
fn remove_others(claim: &Path, parts: &[OutputPart]) -> Result<(), PublishError> {
    let keep: HashSet<&str> = parts.iter().map(|part| part.name.as_str()).chain([MANIFEST]).collect();
    for entry in fs::read_dir(claim).map_err(io_error(claim))? {
        let entry = entry.map_err(io_error(claim))?;
        if !entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
            remove(&entry.path()).map_err(io_error(&entry.path()))?;
        }
    }
    Ok(())
}

/// Under its name it is always whole: another publisher may make the directory visible at any moment.
fn write_manifest(dir: &Path, text: &str) -> io::Result<()> {
    let half = dir.join(format!("{MANIFEST}.{:016x}", getrandom::u64().unwrap_or_default()));
    let mut file = File::create(&half)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&half, dir.join(MANIFEST))
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
    use crate::{agent::part_file::PartFiles, lease::LeaseKey};
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
            let range = BlockRange { bytes, ..BlockRange::default() };
            let files = PartFiles { lease: Some(source.into()), ..PartFiles::default() };
            self.staging.prepare(&self.output(), job, lease, &files, &mut parts, &[range]).unwrap();
            let output = OutputSpec {
                url: format!("file://{}", self.output().display()),
                format: "csv".into(),
                if_exists: if_exists.into(),
                copies: 0,
            };
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
        assert_eq!((report.lost[0].staged_name.as_str(), report.lost[0].reason.as_str()), ("part-00001.csv.0-9-9", "is missing"));
    }

    #[test]
    fn a_damaged_part_is_named_and_nothing_becomes_visible() {
        let bench = Bench::new();
        let damage = [("shorter", b"te".to_vec()), ("other bytes", b"tex!".to_vec()), ("longer", b"text text".to_vec())];
        for (job, (what, bytes)) in (1..).zip(damage) {
            let request = bench.prepared(job, 10, "text", IfExists::Error);
            let staged = bench.staging.dir(&bench.output(), job).join(&request.parts[0].staged_name);
            fs::write(&staged, bytes).unwrap();
            let report = answer(&bench.staging, &request);
            assert_eq!(report.lost.len(), 1, "{what}: {report:?}");
            assert!(!bench.output().exists(), "{what}");
            // The part is made again by another attempt, and the bad one does not come along.
            let again = bench.prepared(job, 11, "text", IfExists::Error);
            assert_eq!(answer(&bench.staging, &again).error, "", "{what}");
            assert_eq!(bench.files().len(), 2, "{what}");
            fs::remove_dir_all(bench.output()).unwrap();
        }
    }

    #[test]
    fn a_large_part_of_ones_own_is_read_again_if_somebody_touched_it() {
        let bench = Bench::new();
        let text = "text".repeat(300_000);
        let request = bench.prepared(1, 10, &text, IfExists::Error);
        let dir = bench.staging.dir(&bench.output(), 1);
        let staged = dir.join(&request.parts[0].staged_name);
        assert!(bench.staging.is_untouched(&dir, 1, &request.parts[0]));
        let others = Staging::new("c-1");
        assert!(!others.is_untouched(&dir, 1, &request.parts[0]), "another process has not written it");
        let as_accepted = OutputPart { crc32c: 7, ..request.parts[0].clone() };
        assert!(!bench.staging.is_untouched(&dir, 1, &as_accepted), "nor is it the part that was accepted");
        // A file system's clock may tick every few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs::File::options().write(true).open(&staged).unwrap().write_all_at(b"x", 999_999).unwrap();
        assert!(!bench.staging.is_untouched(&dir, 1, &request.parts[0]));
        assert!(answer(&bench.staging, &request).lost[0].reason.contains("damaged"));
        let again = bench.prepared(1, 11, &text, IfExists::Error);
        assert_eq!(answer(&bench.staging, &again).error, "");
        assert_eq!(fs::metadata(bench.output().join("part-00000.csv")).unwrap().len(), text.len() as u64);
        bench.staging.release(1).unwrap();
        assert!(!bench.staging.is_untouched(&bench.output(), 1, &again.parts[0]), "nothing is known of a job that has ended");
    }

    #[test]
    fn a_part_damaged_after_it_was_settled_is_found_too() {
        let bench = Bench::new();
        let request = bench.prepared(1, 10, "text", IfExists::Error);
        let dir = bench.staging.dir(&bench.output(), 1);
        fs::rename(dir.join(&request.parts[0].staged_name), dir.join("part-00000.csv")).unwrap();
        fs::write(dir.join("part-00000.csv"), "tex!").unwrap();
        assert!(answer(&bench.staging, &request).lost[0].reason.contains("damaged"));
    }

    #[test]
    fn a_claim_left_by_a_publisher_that_died_is_taken_back() {
        for also_prepared in [false, true] {
            let bench = Bench::new();
            let request = bench.prepared(1, 10, "text", IfExists::Error);
            let dir = bench.staging.dir(&bench.output(), 1);
            settle_parts(&dir, &request.parts).unwrap();
            write_manifest(&dir, &request.manifest_json).unwrap();
            fs::rename(&dir, bench.staging.claim_name(&dir)).unwrap();
            if also_prepared {
                bench.prepared(1, 12, "too late", IfExists::Error);
            }
            assert_eq!(answer(&bench.staging, &request).error, "");
            assert_eq!(bench.files().len(), 2, "{:?}", bench.files());
            assert_eq!(bench.siblings(), 1);
        }
    }

    #[test]
    fn of_two_publishers_the_slower_one_changes_nothing() {
        let bench = Bench::new();
        assert_eq!(answer(&bench.staging, &bench.prepared(1, 10, "old", IfExists::Error)).error, "");
        let request = bench.prepared(2, 20, "new", IfExists::Replace);
        let dir = bench.staging.dir(&bench.output(), 2);
        // The slower one stands right before its exchange when the other one takes over.
        settle_parts(&dir, &request.parts).unwrap();
        write_manifest(&dir, &request.manifest_json).unwrap();
        let slow = bench.staging.claim_name(&dir);
        fs::rename(&dir, &slow).unwrap();
        assert_eq!(answer(&bench.staging, &request).error, "");
        assert!(swap(&slow, &bench.output(), true).is_err(), "its directory is gone");
        assert_eq!(bench.files()[1].1, "new");
        assert_eq!(bench.siblings(), 1);
    }
}
