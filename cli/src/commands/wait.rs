//! Waiting for a job's end, for `submit --wait`, `job wait` and `run`.

use std::time::Duration;

use raftwerk_proto::v1::{JobState, JobView};

use super::signals;
use crate::client::{Cluster, Standstill};
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::progress::Progress;
use crate::remedy::says_full;
use crate::units::parse_duration;
use crate::views::{counters, result};

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

/// Prints what the job made: nothing, for people, when it made nothing. One that failed by its input shows the records that are to blame.
pub fn show(console: &Console, view: &JobView) {
    if console.is_json() {
        console.json(result::to_json(view));
    } else if view.state() == JobState::Done {
        result::print(console, view);
    } else if view.state() == JobState::Failed && !view.bad_records.is_empty() {
        counters::print_bad(console, view);
    }
}

/// The end of a job as an outcome of this command, on a cluster that can be asked for more.
pub fn verdict(view: &JobView) -> Outcome {
    ending(view).map_err(|failure| match view.state() {
        JobState::Done => failure.fix(format!("raftwerk job show {} says why", view.job)),
        JobState::Failed => match next_step(view.job, &view.cause) {
            Some(step) => failure.fix(step),
            None => failure,
        },
        _ => failure,
    })
}

/// What to do about a failure; nothing where the cause says it itself.
fn next_step(job: u64, cause: &str) -> Option<String> {
    if cause.contains("input changed while the job runs") {
        return Some("submit it again when the input stays as it is".to_owned());
    }
    if says_full(cause) {
        return Some(
            "make room on that disk of the worker (`raftwerk worker list` tells which machine it is), and submit the job again".to_owned(),
        );
    }
    // No kernel had a part in it.
    let is_about_jobs = cause.starts_with("publishing: ") || cause.starts_with("it was to start after job ");
    (!is_about_jobs).then(|| format!("raftwerk job logs {job} shows what its kernels printed"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_named_only_where_a_kernel_can_have_said_why() {
        assert!(next_step(7, "task 3 of map was set aside: no such column").unwrap().contains("job logs 7"));
        assert!(next_step(7, "task 3 of map was set aside: input changed while the job runs: /a").unwrap().starts_with("submit it again"));
        assert!(
            next_step(7, "task 3 of map failed 4 times, the last time with: /d/x: No space left on device")
                .unwrap()
                .starts_with("make room")
        );
        assert_eq!(next_step(7, "publishing: the output /out exists already; choose another, or remove it"), None);
        assert_eq!(next_step(7, "it was to start after job 6, which was cancelled"), None);
    }
}
