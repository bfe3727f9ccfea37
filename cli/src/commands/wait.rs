//! Waiting for a job's end, for `submit --wait`, `job wait` and `run`.

use std::time::Duration;

use raftwerk_proto::v1::{JobState, JobView};

use super::signals;
use crate::client::{Cluster, Standstill};
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::progress::Progress;
use crate::units::parse_duration;
use crate::views::result;

#[derive(clap::Args, Clone, Debug)]
pub struct Patience {
    /// While waiting: how long to look for a replica after contact was lost
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub contact_timeout: Duration,
}

/// Follows the job to its end, with progress. Ctrl-C stops the waiting, never the job.
pub async fn until_end(console: &Console, cluster: &mut Cluster, job: u64, patience: Duration) -> Result<JobView, Failure> {
    let mut progress = Progress::new(console);
    let outcome = tokio::select! {
        outcome = cluster.follow(job, patience, |sighting| progress.on(sighting)) => Some(outcome),
        _ = signals::stop() => None,
    };
    progress.finish();
    match outcome {
        Some(Ok(view)) => Ok(view),
        Some(Err(Standstill::Refused(error))) => Err(error.into()),
        Some(Err(error @ Standstill::ContactLost(..))) => {
            Err(Failure::new(Exit::ContactLost, error).fix(format!("when the cluster is back: raftwerk job wait {job}")))
        }
        None => Err(Failure::say(Exit::Interrupted, format!("stopped waiting; job {job} goes on"))
            .fix(format!("raftwerk job wait {job}, or raftwerk job cancel {job}"))),
    }
}

/// Prints what became of the job; the exit code says it too.
pub fn report(console: &Console, view: &JobView) -> Outcome {
    show(console, view);
    verdict(view)
}

/// Prints what the job made: nothing, for people, when it made nothing.
pub fn show(console: &Console, view: &JobView) {
    if console.is_json() {
        console.json(result::to_json(view));
    } else if view.state() == JobState::Done {
        result::print(console, view);
    }
}

/// The end of a job as an outcome of this command, on a cluster that can be asked for more.
pub fn verdict(view: &JobView) -> Outcome {
    ending(view).map_err(|failure| match view.state() {
        JobState::Done => failure.fix(format!("raftwerk job show {} says why", view.job)),
        JobState::Failed => failure.fix(format!("raftwerk job logs {} shows what its kernels printed", view.job)),
        _ => failure,
    })
}

/// The same without a word about what to do next.
pub fn ending(view: &JobView) -> Outcome {
    let job = view.job;
    match view.state() {
        JobState::Failed => Err(Failure::say(Exit::JobFailed, format!("job {job} failed: {}", view.cause))),
        JobState::Cancelled => Err(Failure::say(Exit::JobCancelled, format!("job {job} was cancelled"))),
        _ if !view.set_aside.is_empty() => {
            let tasks = crate::views::job::set_aside_text(view);
            Err(Failure::say(Exit::SetAside, format!("job {job} is done without the tasks that were set aside: {tasks}")))
        }
        _ => Ok(()),
    }
}
