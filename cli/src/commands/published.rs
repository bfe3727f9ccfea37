//! `raftwerk job result JOB --output DIR` for a result that was published to a directory: one that this machine sees too is copied, of any other it is
//! said where the result lies and how to fetch it from there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use raftwerk_proto::v1::{JobView, OutputPart};

use super::download::{Brought, Staging, cannot_write, check_destination, check_names, destination, finish, stage};
use crate::failure::{Exit, Failure};

const PIECE_BYTES: usize = 1 << 20;

pub fn bring(view: &JobView, cluster: &str, to: &Path) -> Result<Brought, Failure> {
    let job = view.job;
    let Some(output) = &view.spec.as_ref().and_then(|spec| spec.output.clone()) else {
        return Err(Failure::say(Exit::BadUsage, format!("job {job} has no output: what it counts is its whole result"))
            .fix(format!("`raftwerk job result {job}` prints it")));
    };
    let lies = format!("the result of job {job} lies in {}", output.url.strip_prefix("file://").unwrap_or(&output.url));
    let Some(from) = output.url.strip_prefix("file://").map(PathBuf::from).filter(|from| from.is_dir()) else {
        let from = output.url.strip_prefix("file://").unwrap_or(&output.url);
        return Err(Failure::say(Exit::NotFound, format!("{lies}, as the workers see it, and this machine sees no such directory"))
            .fix(format!("copy it from a machine that does: scp -r MACHINE:{from} {}", to.display())));
    };
    let to = &destination(to)?;
    check_destination(to)?;
    check_names(view)?;
    let staging = stage(to).map_err(|error| cannot_write(to, &error))?;
    for part in &view.parts {
        copy(part, &from, &staging)?;
    }
    finish(&staging, view, cluster, to).map_err(|error| cannot_write(to, &error))?;
    Ok(Brought { parts: view.parts.len(), bytes: view.parts.iter().map(|part| part.bytes).sum() })
}

/// What lies there may have changed since it was published: each part is compared with the job's record.
fn copy(part: &OutputPart, from: &Path, staging: &Staging) -> Result<(), Failure> {
    let (from, to) = (from.join(&part.name), staging.path.join(&part.name));
    let unreadable =
        |error: io::Error| Failure::say(Exit::NotFound, format!("cannot read {}: {error}", from.display())).fix("submit the job again");
    let (mut source, mut target) =
        (File::open(&from).map_err(unreadable)?, File::create_new(&to).map_err(|error| cannot_write(&to, &error))?);
    let (mut bytes, mut crc, mut buffer) = (0, 0, vec![0; PIECE_BYTES]);
    loop {
        let read = match source.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            read => read,
        };
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        bytes += read as u64;
        target.write_all(&buffer[..read]).map_err(|error| cannot_write(&to, &error))?;
    }
    if (bytes, crc) != (part.bytes, part.crc32c) {
        let message = format!(
            "{} is not what the job made: {bytes} bytes with checksum {crc:08x} instead of {} with {:08x}",
            from.display(),
            part.bytes,
            part.crc32c
        );
        return Err(Failure::say(Exit::NotFound, message).fix("submit the job again, into another directory"));
    }
    target.sync_all().map_err(|error| cannot_write(&to, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{JobSpec, OutputSpec};
    use std::fs;

    fn view(url: String) -> JobView {
        let part = OutputPart { name: "part-00000.csv".into(), bytes: 6, crc32c: crc32c::crc32c(b"result"), ..OutputPart::default() };
        let spec = JobSpec { output: Some(OutputSpec { url, ..OutputSpec::default() }), ..JobSpec::default() };
        JobView { job: 7, spec: Some(spec), parts: vec![part], ..JobView::default() }
    }

    #[test]
    fn a_directory_that_is_seen_here_is_copied_and_compared_with_the_jobs_record() {
        let dir = tempfile::tempdir().unwrap();
        let (out, to) = (dir.path().join("out"), dir.path().join("here"));
        fs::create_dir(&out).unwrap();
        fs::write(out.join("part-00000.csv"), "result").unwrap();
        let view = view(format!("file://{}", out.display()));
        assert_eq!(bring(&view, "rw", &to).ok().map(|brought| (brought.parts, brought.bytes)), Some((1, 6)));
        assert_eq!(fs::read(to.join("part-00000.csv")).unwrap(), b"result");
        assert!(to.join("manifest.json").exists());
        fs::write(out.join("part-00000.csv"), "resulT").unwrap();
        let said = bring(&view, "rw", &dir.path().join("again")).err().unwrap().lines().join("\n");
        assert!(said.contains("is not what the job made") && !dir.path().join("again").exists(), "{said}");
    }

    #[test]
    fn of_a_directory_that_is_not_seen_here_it_is_said_how_to_fetch_it() {
        let said = |url: &str| bring(&view(url.into()), "rw", Path::new("here")).err().unwrap().lines().join("\n");
        assert!(said("file:///no/such/out").contains("scp -r MACHINE:/no/such/out here"));
        let none = JobView { job: 7, ..JobView::default() };
        assert!(bring(&none, "rw", Path::new("here")).err().unwrap().lines()[0].contains("no output"));
    }
}
