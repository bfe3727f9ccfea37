//! `raftwerk run`: one job on a cluster that lives as long as the job.

use std::time::Duration;

use clap::Args;
use raftwerk_proto::v1::{JobSpec, JobView};

use super::submit::{self, JobFlags};
use super::worker::DeviceFlags;
use super::{signals, wait};
use crate::client::{Cluster, Standstill};
use crate::console::Console;
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure, Outcome};
use crate::progress::Progress;

/// The embedded scheduler cannot move elsewhere: a minute without contact means that this machine is in trouble.
const CONTACT: Duration = Duration::from_secs(60);

/// Its devices are ready when this begins; what is left is one handshake on loopback.
const REGISTRATION: Duration = Duration::from_secs(20);

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
    let spec = args.job.spec()?;
    let dir = tempfile::Builder::new().prefix("raftwerk-run-").tempdir().map_err(|error| {
        Failure::new(Exit::Internal, error).context("cannot make a temporary directory").fix("set TMPDIR to a directory with room")
    })?;
    let view = on_embedded_cluster(console, dir.path(), &args.devices, spec).await;
    if args.keep {
        console.note(format!("the cluster's data is kept in {}", dir.keep().display()));
    } else if let Err(error) = dir.close() {
        console.note(format!("the temporary directory could not be removed: {error}"));
    }
    wait::report(console, &view?)
}

async fn on_embedded_cluster(console: &Console, dir: &std::path::Path, devices: &DeviceFlags, spec: JobSpec) -> Result<JobView, Failure> {
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
    let outcome = tokio::select! {
        outcome = to_the_end(&mut client, spec, &mut progress) => outcome,
        failure = cluster.broke() => Err(failure),
        signal = signals::stop() => Err(Failure::say(Exit::JobCancelled, format!("{signal}: the job was stopped with its cluster"))),
    };
    progress.finish();
    cluster.stop().await;
    outcome
}

async fn to_the_end(client: &mut Cluster, spec: JobSpec, progress: &mut Progress) -> Result<JobView, Failure> {
    // A submit asks the workers which files there are, so one of them must be there.
    if !client.wait_for_workers(1, REGISTRATION).await? {
        return Err(Failure::say(Exit::Internal, "the embedded worker did not reach its scheduler"));
    }
    let reply = client.submit(spec, submit::random_key()?).await?;
    client.follow(reply.job, CONTACT, |sighting| progress.on(sighting)).await.map_err(|error| match error {
        Standstill::Refused(error) => error.into(),
        error @ Standstill::ContactLost(..) => Failure::new(Exit::ContactLost, error),
    })
}
