//! `raftwerk run`: one job on a cluster that lives as long as the job.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use raftwerk_proto::v1::{JobState, JobView};
use raftwerk_scheduler::leader::OR_WAIT;

use super::submit::{self, JobFlags};
use super::worker::DeviceFlags;
use super::{signals, wait};
use crate::client::{CallError, Cluster, Standstill, ended};
use crate::console::Console;
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure, Outcome};
use crate::job_file::{Loaded, Named, Patches};
use crate::progress::Progress;
use crate::temporary::{self, Temporary};
use crate::uploads::{self, Upload};

/// The embedded scheduler cannot move elsewhere: a minute without contact means that this machine is in trouble.
pub const CONTACT: Duration = Duration::from_secs(60);

/// Its devices are ready when this begins; what is left is one handshake on loopback.
pub const REGISTRATION: Duration = Duration::from_secs(20);

/// For the cancellation of a job that a signal stops, and for the worker to remove what it had written of the output.
const CANCEL: Duration = Duration::from_secs(3);
const RELEASE: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    job: JobFlags,
    #[command(flatten)]
    devices: DeviceFlags,
    /// Keep the cluster's data directory (log, shuffle data, the executors' output) and say where it is
    #[arg(long)]
    keep: bool,
}

pub async fn run(console: &Console, args: Run) -> Outcome {
    // The job file comes first: nobody wants to wait for a cluster to hear about a typing error.
    let mut loaded = args.job.load(Patches::default())?;
    let spec = &mut loaded.spec;
    // Nobody else will ever come.
    spec.wait_for_devices = false;
    if spec.output.as_ref().is_some_and(|output| output.url == raftwerk_proto::OUTPUT_ON_WORKERS) {
        return Err(Failure::say(
            Exit::BadUsage,
            "the cluster of `run` ends with its job, and so does what its worker would keep of the result",
        )
        .fix("name a directory with --output DIR, or submit the job to a cluster that stays"));
    }
    if spec.after.is_some() {
        return Err(Failure::say(Exit::BadUsage, "the cluster of `run` has no job that this one could start after")
            .fix("take `after` out of the job file, or submit the job to the cluster that has the other one"));
    }
    submit::note_rows_that_nobody_keeps(console, spec);
    let upload = uploads::gather(console, spec).await?;
    temporary::tidy_up(console, false).await;
    let dir = Temporary::make(temporary::RUN).map_err(|error| {
        Failure::new(Exit::Internal, error).context("cannot make a temporary directory").fix("set TMPDIR to a directory with room")
    })?;
    let view = on_embedded_cluster(console, dir.path(), &args.devices, loaded, upload).await;
    if args.keep {
        console.note(format!("the cluster's data is kept in {}", dir.keep().display()));
    } else if let Err(error) = dir.close() {
        console.note(format!("the temporary directory could not be removed: {error}"));
    }
    let view = view?;
    wait::show(console, &view);
    // No hint at `job logs`: the cluster that had them is gone.
    wait::ending(&view)
}

async fn on_embedded_cluster(
    console: &Console,
    dir: &Path,
    devices: &DeviceFlags,
    loaded: Loaded,
    upload: Option<Upload>,
) -> Result<JobView, Failure> {
    let mut cluster = tokio::select! {
        started = Embedded::start(dir, devices.selection()) => started?,
        _ = signals::stop() => return Err(Failure::say(Exit::JobCancelled, "stopped before the job began")),
    };
    let mut client = match cluster.client() {
        Ok(client) => client,
        Err(failure) => {
            cluster.stop().await;
            return Err(failure);
        }
    };
    let mut progress = Progress::new(console);
    let output = loaded.spec.output.as_ref().and_then(|output| output.url.strip_prefix("file://")).map(PathBuf::from);
    let writes = loaded.spec.output.is_some();
    let mut stopped = false;
    let outcome = tokio::select! {
        outcome = to_the_end(console, &mut client, loaded, upload, &mut progress) => outcome,
        failure = cluster.broke() => Err(failure),
        signal = signals::stop() => {
            stopped = true;
            Err(Failure::say(Exit::JobCancelled, format!("{signal}: the job was stopped with its cluster")))
        }
    };
    progress.finish();
    let ended = outcome.as_ref().is_ok_and(|view| view.state() != JobState::Done);
    if stopped {
        cancel(&mut client, writes).await;
    } else if ended && writes {
        // The worker has just heard that the job failed.
        tokio::time::sleep(RELEASE).await;
    }
    let name = cluster.name().to_owned();
    cluster.stop().await;
    if let (true, Some(output)) = (stopped || ended || outcome.is_err(), output) {
        sweep(&output, &name);
    }
    outcome
}

/// Removes staging directories of this very cluster, which nobody else will do now: a part that was being written when the worker removed
/// the directory may have brought it back, and the worker's end may have come before its removal.
fn sweep(output: &Path, cluster: &str) {
    let letters: String = cluster.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    let (Some(parent), Some(name)) = (output.parent(), output.file_name()) else { return };
    let prefix = format!("{}.raftwerk-tmp-{letters}-", name.to_string_lossy());
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let entry_name = entry.file_name();
        let Some(job) = entry_name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
        // Behind a claim may be an output of somebody else's that was about to be replaced.
        if job.bytes().all(|byte| byte.is_ascii_digit()) || made_by(&entry.path(), cluster) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the manifest there is one of this cluster.
fn made_by(dir: &Path, cluster: &str) -> bool {
    let manifest = std::fs::read(dir.join("manifest.json")).ok();
    let manifest = manifest.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    manifest.is_some_and(|manifest| manifest["cluster"] == cluster)
}

/// Ends the job before its cluster ends, so that nothing half-written stays beside the output. Whatever goes wrong here is no reason to
/// keep somebody waiting who has asked for the end.
async fn cancel(client: &mut Cluster, writes: bool) {
    let cancelled = async {
        // There is one job at most. The list knows it also when the signal came before the answer to the submission.
        for job in client.jobs(String::new(), 1).await?.iter().map(|view| view.job) {
            let mut view = client.cancel(job).await?;
            while !ended(&view) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                view = client.job(job).await?;
            }
        }
        Ok::<_, CallError>(())
    };
    let in_time = tokio::time::timeout(CANCEL, cancelled).await;
    if writes && matches!(in_time, Ok(Ok(()))) {
        tokio::time::sleep(RELEASE).await;
    }
}

async fn to_the_end(
    console: &Console,
    client: &mut Cluster,
    loaded: Loaded,
    upload: Option<Upload>,
    progress: &mut Progress,
) -> Result<JobView, Failure> {
    let Loaded { spec, named } = loaded;
    // A submit asks the workers which files there are, so one of them must be there.
    if !client.wait_for_workers(1, REGISTRATION).await? {
        return Err(Failure::say(Exit::Internal, "the embedded worker did not reach its scheduler"));
    }
    if let Some(upload) = &upload {
        // To the one worker there is: what comes through a pipe is here and nowhere else, and a copy of a file is read as the file is.
        uploads::bring(console, client, upload).await?;
    }
    let name = spec.name.clone();
    let reply = client.submit(spec, submit::random_key()?).await.map_err(|error| refused(error, &name, &named))?;
    client.follow(reply.job, CONTACT, |sighting| progress.on(sighting)).await.map_err(|error| match error {
        Standstill::Refused(error) => error.into(),
        error @ Standstill::ContactLost(..) => Failure::new(Exit::ContactLost, error),
    })
}

/// To wait for devices is good advice in a cluster to which some may come.
fn refused(error: CallError, name: &str, named: &Named) -> Failure {
    match &error {
        CallError::Refused(status) => match status.message().strip_suffix(OR_WAIT) {
            Some(reason) => Failure::say(Exit::Refused, reason)
                .fix("`raftwerk doctor` shows what this machine offers; submit the job to a cluster that has such devices"),
            None => submit::refusal(error, name, named),
        },
        _ => submit::refusal(error, name, named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_submit_takes_is_not_advised() {
        let said = |message: &str| {
            let status = tonic::Status::failed_precondition(message);
            refused(CallError::Refused(Box::new(status)), "words", &Named::default()).lines().join("\n")
        };
        let short = said(&format!("no device can run it\n  nearest: worker 1{OR_WAIT}"));
        assert!(short.starts_with("error: no device can run it\n  nearest: worker 1\nfix: `raftwerk doctor`"), "{short}");
        assert_eq!(said("the output exists"), "error: job `words` was not submitted\n  caused by: the output exists");
    }

    #[test]
    fn a_sweep_takes_what_this_cluster_staged_and_nothing_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, manifest: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("part-00000.csv.1-1"), "half").unwrap();
            std::fs::write(dir.path().join(name).join("manifest.json"), manifest).unwrap();
        };
        let ours = r#"{"cluster": "rw-0123456789abcdef", "job": 1}"#;
        make("out.raftwerk-tmp-rw0123456789-1", "{}");
        make("out.raftwerk-tmp-rw0123456789-1-claim-aa", ours);
        let kept = [
            ("out", "{}"),
            ("out.raftwerk-tmp-rwffff456789-1", "{}"),
            // The output that this one replaced.
            ("out.raftwerk-tmp-rw0123456789-1-claim-bb", r#"{"cluster": "rw-older", "job": 7}"#),
            ("other.raftwerk-tmp-rw0123456789-1", ours),
        ];
        kept.iter().for_each(|(name, manifest)| make(name, manifest));
        sweep(&dir.path().join("out"), "rw-0123456789abcdef");
        let mut left: Vec<String> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut expected = kept.map(|(name, _)| name.to_owned());
        expected.sort();
        assert_eq!(left, expected);
    }
}
