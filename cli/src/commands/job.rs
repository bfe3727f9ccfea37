//! `raftwerk job list | show | wait | cancel | result | drop | logs`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use raftwerk_proto::v1::{AttemptLog, JobState, JobView, WorkerLogs};
use serde_json::json;

use super::wait::{self, Patience};
use super::{download, published, stored};
use crate::client::{Cluster, ended};
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::table::{printable, printable_lines};
use crate::target::Target;
use crate::units::{counted, format_bytes};
use crate::views::names::Names;
use crate::views::{self, failures, kept};

#[derive(Subcommand, Debug)]
pub enum Job {
    /// List jobs, the newest first
    List(List),
    /// Show a job: state, stages, what it reads and writes, which device did how much
    Show(Id),
    /// Wait for a job's end and print its result
    Wait(Wait),
    /// Cancel a job
    Cancel(Id),
    /// Print the result of a job that is done, or bring it here
    Result(Whole),
    /// Delete what workers keep of the result of a job that has ended; the job's record stays
    Drop(Id),
    /// Print what the job's kernels wrote to stdout and stderr
    Logs(Id),
}

#[derive(Args, Debug)]
pub struct List {
    /// Only jobs of this namespace
    #[arg(long, value_name = "NAME", default_value = "")]
    namespace: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Args, Debug)]
pub struct Id {
    /// The number that `submit` printed
    #[arg(value_name = "JOB", value_parser = job_number)]
    job: u64,
}

#[derive(Args, Debug)]
pub struct Whole {
    /// The number that `submit` printed
    #[arg(value_name = "JOB")]
    job: u64,
    /// Bring the parts of the result into this directory, which must not exist or be empty
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Wait {
    /// The number that `submit` printed
    #[arg(value_name = "JOB", value_parser = job_number)]
    job: u64,
    #[command(flatten)]
    patience: Patience,
}

fn job_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a job is named by its number, as `submit` and `job list` print it".to_owned())
}

pub async fn job(console: &Console, target: &Target, command: Job) -> Outcome {
    let mut cluster = target.cluster()?;
    match command {
        Job::List(args) => list(console, &mut cluster, args).await,
        Job::Show(Id { job }) => show(console, &mut cluster, job).await,
        Job::Wait(Wait { job, patience }) => {
            let view = wait::until_end(console, &mut cluster, job, patience.contact_timeout).await?;
            wait::report(console, &view)
        }
        Job::Cancel(Id { job }) => cancel(console, &mut cluster, job).await,
        Job::Result(Whole { job, output }) => result(console, &mut cluster, job, output.as_deref()).await,
        Job::Drop(Id { job }) => drop_result(console, &mut cluster, job).await,
        Job::Logs(Id { job }) => logs(console, &mut cluster, job).await,
    }
}

async fn list(console: &Console, cluster: &mut Cluster, args: List) -> Outcome {
    let jobs = cluster.jobs(args.namespace, args.limit).await?;
    if console.is_json() {
        console.json(json!({"jobs": jobs.iter().map(views::job::to_json_in_list).collect::<Vec<_>>()}));
    } else {
        console.table(&views::job::list(&jobs));
    }
    Ok(())
}

async fn show(console: &Console, cluster: &mut Cluster, job: u64) -> Outcome {
    let view = cluster.job(job).await?;
    if console.is_json() {
        console.json(views::job::to_json(&view));
    } else {
        views::job::print(console, &view);
        if views::waits::stands_still(&view)
            && let Some(why) = views::waits::why(&view, &cluster.workers().await?)
        {
            console.line(format!("\nwaits: {}", crate::table::printable(&why)));
        }
    }
    Ok(())
}

async fn cancel(console: &Console, cluster: &mut Cluster, job: u64) -> Outcome {
    let view = cluster.cancel(job).await?;
    if console.is_json() {
        console.json(views::job::to_json(&view));
    } else {
        console.line(format!("job {job} is {}", views::job::state_name(view.state())));
    }
    Ok(())
}

async fn drop_result(console: &Console, cluster: &mut Cluster, job: u64) -> Outcome {
    let view = cluster.drop_result(job).await?;
    if console.is_json() {
        console.json(views::job::to_json(&view));
    } else {
        console.line(format!("nothing of the result of job {job} is kept any more"));
    }
    Ok(())
}

async fn result(console: &Console, cluster: &mut Cluster, job: u64, output: Option<&Path>) -> Outcome {
    let view = cluster.job(job).await?;
    if !ended(&view) {
        let state = views::job::state_name(view.state());
        return Err(Failure::say(Exit::Refused, format!("job {job} has no result yet: it is {state}"))
            .fix(format!("wait for it with: raftwerk job wait {job}")));
    }
    if view.state() != JobState::Done {
        return wait::verdict(&view);
    }
    if !kept::is_on_workers(&view) {
        return match output {
            Some(directory) => {
                let id = cluster.identity().cluster();
                let brought = match stored::place(&view) {
                    Some(url) => stored::bring(&view, url, id, directory).await?,
                    None => published::bring(&view, id, directory)?,
                };
                say_brought(console, &view, directory, &brought)
            }
            None => wait::report(console, &view),
        };
    }
    if let Some(directory) = output {
        return bring(console, cluster, view, directory).await;
    }
    let workers = cluster.workers().await?;
    wait::show(console, &view);
    if !console.is_json() && !view.parts.is_empty() && !kept::was_dropped(&view) {
        console.line("");
        console.table(&kept::table(&view, &workers));
    }
    let away: Vec<String> = kept::away(&view, &workers).map(|part| kept::away_text(job, part, &workers, |_| None)).collect();
    if !away.is_empty() {
        return Err(Failure::say(Exit::ResultAway, format!("parts of the result of job {job} are away:\n    {}", away.join("\n    ")))
            .fix(kept::away_fix(kept::away(&view, &workers), |_, _| false)));
    }
    wait::verdict(&view)
}

async fn bring(console: &Console, cluster: &mut Cluster, view: JobView, directory: &Path) -> Outcome {
    if kept::was_dropped(&view) {
        return Err(Failure::say(Exit::NotFound, format!("the result of job {} was dropped", view.job)).fix("submit the job again"));
    }
    let brought = download::download(cluster, view.clone(), directory).await?;
    say_brought(console, &view, directory, &brought)
}

fn say_brought(console: &Console, view: &JobView, directory: &Path, brought: &download::Brought) -> Outcome {
    let download::Brought { parts, bytes } = *brought;
    if console.is_json() {
        console.json(json!({"job": view.job, "directory": directory.display().to_string(), "parts": parts, "bytes": bytes}));
    } else {
        console.line(format!("{}: {}, {}", directory.display(), counted(parts as u64, "part"), format_bytes(bytes)));
    }
    wait::verdict(view)
}

async fn logs(console: &Console, cluster: &mut Cluster, job: u64) -> Outcome {
    let workers = cluster.logs(job).await?;
    let view = cluster.job(job).await?;
    if console.is_json() {
        console.json(json!({
            "job": job, "workers": workers.iter().map(worker_json).collect::<Vec<_>>(),
            "failures": view.failures.iter().map(failures::to_json).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    let names = Names::of(workers.iter().map(|worker| (worker.worker, worker.worker_name.as_str())));
    for worker in &workers {
        let name = printable(names.get(worker.worker));
        for log in &worker.logs {
            console.line(format!("==> {name} device {} {}", log.device, attempt(log)));
            let text = printable_lines(&log.text);
            console.line(text.trim_end_matches('\n'));
            if log.truncated {
                console.line("... the rest was cut off");
            }
        }
        if !worker.error.is_empty() {
            console.note(format!("no logs from worker {name}: {}", printable(&worker.error)));
        }
    }
    if workers.iter().all(|worker| worker.logs.is_empty() && worker.error.is_empty()) {
        console.note(format!("nothing is kept that the kernels of job {job} printed (a worker keeps it until it ends)"));
    }
    // What an executor was killed by it could not print.
    if !view.failures.is_empty() {
        console.note("attempts that failed lately:");
        view.failures.iter().for_each(|failed| console.note(format!("  {}", failures::line(failed))));
    }
    Ok(())
}

fn attempt(log: &AttemptLog) -> String {
    let lease = log.lease.unwrap_or_default();
    let last = log.first_task + log.task_count.max(1) - 1;
    let tasks = if last == log.first_task { format!("task {last}") } else { format!("tasks {}-{last}", log.first_task) };
    format!("stage {} {tasks} lease {}-{}-{}", log.stage, lease.epoch, lease.index, lease.position)
}

fn worker_json(worker: &WorkerLogs) -> serde_json::Value {
    let log = |log: &AttemptLog| {
        json!({
            "stage": log.stage, "first_task": log.first_task, "task_count": log.task_count, "device": log.device, "text": log.text,
            "truncated": log.truncated,
            "lease": log.lease.map(|lease| format!("{}-{}-{}", lease.epoch, lease.index, lease.position)),
        })
    };
    json!({
        "worker": worker.worker, "worker_name": worker.worker_name, "logs": worker.logs.iter().map(log).collect::<Vec<_>>(),
        "error": if worker.error.is_empty() { serde_json::Value::Null } else { worker.error.clone().into() },
    })
}
