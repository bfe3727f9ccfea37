//! Files that only this machine has, for a job on a cluster: `--upload FILE`, or `upload:FILE` wherever a job file names input.
//!
//! ```text
//! files   which files, and what they hold: their SHA-256 says what the upload is called
//! places  two workers that hold it, before the job is submitted       bar   how far that is, on stderr
//! ```
//! What is hashed is what is sent: a worker compares, so that a file that changes meanwhile is an error and never half of each.

mod bar;
mod files;
mod places;

use std::sync::Arc;

use raftwerk_proto::UPLOAD_SCHEME;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{JobSpec, UploadManifest};
use serde_json::{Value, json};

use crate::client::Cluster;
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::units::format_bytes;
use files::Local;
pub use places::Placed;

/// The name of what comes from standard input, and how it is asked for.
const STDIN: &str = "stdin";
pub const FROM_STDIN: &str = "-";

/// Everything that one submission brings.
pub struct Upload {
    manifest: UploadManifest,
    /// As the manifest has them.
    files: Arc<Vec<Local>>,
    bytes: u64,
}

impl Upload {
    fn summary(&self) -> String {
        let count = self.files.len();
        let what = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        format!("{what}, {}", format_bytes(self.bytes))
    }

    pub fn to_json(&self, placed: Option<&Placed>) -> Value {
        let workers: Vec<u64> = placed.iter().flat_map(|placed| &placed.holders).map(|holder| holder.worker).collect();
        json!({"id": self.manifest.id, "files": self.files.len(), "bytes": self.bytes, "workers": workers})
    }
}

/// Reads what the spec says that this machine shall bring, and names it there as workers will have it. None when there is nothing of that kind.
pub async fn gather(console: &Console, spec: &mut JobSpec) -> Result<Option<Upload>, Failure> {
    let wanted: Vec<String> = patterns(spec).filter(|pattern| pattern.starts_with(UPLOAD_SCHEME)).cloned().collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    let bar = bar::Bar::new(console, "reading");
    let shared = bar.clone();
    let read = raftwerk_transport::tasks::blocking(move || files::read(&wanted, &shared)).await;
    bar.finish();
    let files::Found { mut files, by_pattern } = read.map_err(|error| Failure::new(Exit::Internal, error))??;
    let mut hashed: Vec<_> = files.iter().map(|file| file.hashed.clone()).collect();
    let manifest = raftwerk_worker::upload::manifest(&mut hashed).map_err(|refusal| Failure::new(Exit::BadUsage, refusal))?;
    // As the manifest has put them.
    files.sort_by_key(|file| hashed.iter().position(|hashed| hashed.name == file.hashed.name));
    for stage in &mut spec.stages {
        for input in &mut stage.inputs {
            if let Some(Source::Files(listed)) = &mut input.source {
                let named = listed.patterns.iter().flat_map(|pattern| match by_pattern.get(pattern) {
                    Some(names) => names.iter().map(|name| format!("{UPLOAD_SCHEME}{}/{name}", manifest.id)).collect(),
                    None => vec![pattern.clone()],
                });
                listed.patterns = named.collect();
            }
        }
    }
    let bytes = raftwerk_worker::upload::bytes(&manifest);
    Ok(Some(Upload { manifest, files: Arc::new(files), bytes }))
}

fn patterns(spec: &JobSpec) -> impl Iterator<Item = &String> {
    let inputs = spec.stages.iter().flat_map(|stage| &stage.inputs);
    let files = inputs.filter_map(|input| match &input.source {
        Some(Source::Files(files)) => Some(files),
        _ => None,
    });
    files.flat_map(|files| &files.patterns)
}

/// Brings it to the one worker of a cluster that ends with the job.
pub async fn bring(console: &Console, cluster: &mut Cluster, upload: &Upload) -> Result<(), Failure> {
    places::place(console, cluster, upload).await.map(|_| ())
}

/// Brings it to workers of the cluster. When this returns, at least one of them holds all of it on its disk, and two where there are two.
pub async fn place(console: &Console, cluster: &mut Cluster, upload: &Upload) -> Result<Placed, Failure> {
    let placed = places::place(console, cluster, upload).await?;
    let names: Vec<&str> = placed.holders.iter().map(|holder| holder.name.as_str()).collect();
    let verb = if placed.sent { "uploaded" } else { "already there" };
    console.note(format!("{verb}: {} (upload {}), held by {}", upload.summary(), upload.manifest.id, names.join(" and ")));
    if let Some(why) = &placed.alone {
        console.note(format!("there is one copy only ({why}): if that worker is lost before the job has read it, the job fails"));
    }
    Ok(placed)
}
