//! `raftwerk cluster show | remove | backup`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use crate::client::Cluster;
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::target::Target;
use crate::units::{counted, format_bytes};
use crate::views;

#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// Show replicas, leader, term, and the positions of log and snapshot
    Show,
    /// Take a replica out of the cluster for good
    ///
    /// Refused when the replicas that stay and answer would be no majority. To replace a lost replica, take it out and join a new one in an
    /// empty directory; its number is never used again.
    Remove {
        /// Number of the replica, as in `cluster show`
        #[arg(value_parser = replica_number)]
        replica: u64,
    },
    /// Write everything the cluster knows of its jobs into a file
    ///
    /// The file holds jobs, their results in the state and idempotency keys, with everything acknowledged before the command. It holds no
    /// key and no certificate: a restore makes a new cluster, which machines join anew.
    Backup {
        /// File to make; it must not exist
        file: PathBuf,
    },
}

fn replica_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a replica is named by its number, as `cluster show` prints it".to_owned())
}

pub async fn cluster(console: &Console, target: &Target, command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Show => {
            let survey = target.cluster()?.survey().await?;
            if console.is_json() {
                console.json(views::cluster::to_json(&survey));
            } else {
                views::cluster::print(console, &survey);
            }
            Ok(())
        }
        ClusterCommand::Remove { replica } => {
            target.cluster()?.remove_replica(replica).await?;
            if console.is_json() {
                console.json(json!({"replica": replica, "removed": true}));
            } else {
                console.note(format!(
                    "replica {replica} is out of the cluster; if it runs, it stops by itself, and its data directory is of no use"
                ));
            }
            Ok(())
        }
        ClusterCommand::Backup { file } => backup(console, target.cluster()?, &file).await,
    }
}

async fn backup(console: &Console, mut cluster: Cluster, file: &Path) -> Outcome {
    // A link counts, also one that leads nowhere: it would be replaced.
    if file.symlink_metadata().is_ok() {
        return Err(Failure::say(Exit::BadUsage, format!("{} exists already", file.display())).fix("give a file that does not"));
    }
    let bytes = cluster.backup().await?;
    let checked = raftwerk_scheduler::check_backup(file, &bytes);
    let (of, index, jobs) = checked.map_err(|why| Failure::say(Exit::Internal, format!("the backup arrived damaged: {why}")))?;
    write_whole(file, &bytes).map_err(|e| Failure::new(Exit::BadUsage, e).context(format!("cannot write {}", file.display())))?;
    if console.is_json() {
        console.json(json!({"file": file, "cluster": of, "applied_index": index, "jobs": jobs, "bytes": bytes.len()}));
    } else {
        console.note(format!(
            "{}: {} of cluster {of} as of log entry {index}, {}",
            file.display(),
            counted(jobs as u64, "job"),
            format_bytes(bytes.len() as u64)
        ));
    }
    Ok(())
}

/// The file appears whole and on disk, or not at all. For its owner only: job specs may say where data lies.
fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let unfinished = file.with_file_name(name);
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished).and_then(|mut out| {
        out.write_all(bytes)?;
        out.sync_all()?;
        std::fs::rename(&unfinished, file)
    });
    if let Err(e) = written {
        let _ = std::fs::remove_file(&unfinished);
        return Err(e);
    }
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
