//! `raftwerk worker start | list | show | drain | release`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use raftwerk_core::device_match::{MAX_LABELS, label_problem};
use raftwerk_proto::v1::WorkerView;
use raftwerk_worker::agent::DataDirError;
use raftwerk_worker::{DeviceSelection, DiskLimits, JoinError, ListenError, WorkerConfig, WorkerError};
use serde_json::json;

use super::join::{TokenFlags, peer_name};
use super::scheduler::OTHER_LISTEN;
use super::{executor, ready, signals};
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::job_file::hint;
use crate::target::Target;
use crate::units::{counted, parse_address, parse_bytes, parse_duration, parse_listen};
use crate::views;
use crate::views::names::numbered;

/// More threads than any machine has cores; a slip of the finger should not start a hundred thousand.
pub const MAX_CPUS: i64 = 1024;

#[derive(Subcommand, Debug)]
pub enum Worker {
    /// Start a worker with this machine's devices and run it until SIGTERM or Ctrl-C
    Start(Box<Start>),
    /// List the workers
    List(Target),
    /// Show a worker: devices, limits, load, memory
    Show(Which),
    /// Give a worker no new work: what it holds it finishes
    ///
    /// Lasts until `worker release`, or until the worker's process starts anew. Drain a worker and wait until it holds no leases, and nothing has
    /// to run twice when it stops.
    Drain(Which),
    /// End the quarantine of a worker and of its devices, or its drain
    Release(Which),
}

/// Which devices of this machine are offered.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Devices")]
pub struct DeviceFlags {
    /// Offer so many CPU cores; 0 offers no CPU device
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=MAX_CPUS))]
    pub cpus: Option<u32>,
    /// Offer no GPU
    #[arg(long)]
    pub no_gpu: bool,
    /// Offer at most so much memory, as in 4GiB
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// Offer only this device: a class (cpu, discrete, integrated, software) or a part of its name (repeatable)
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
}

/// What an executor takes before it has a task.
const LEAST_MEMORY: u64 = 32 << 20;

fn memory(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        bytes if bytes < LEAST_MEMORY => Err("a device needs 32MiB at least".to_owned()),
        bytes => Ok(bytes),
    }
}

/// An executor is looked at once a second.
fn patience(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        patience if patience < Duration::from_secs(2) => Err("less than 2s cannot be told from a busy machine".to_owned()),
        patience => Ok(patience),
    }
}

impl DeviceFlags {
    pub fn selection(&self) -> DeviceSelection {
        DeviceSelection { cpus: self.cpus, no_gpu: self.no_gpu, memory_bytes: self.memory, only: self.device.clone() }
    }
}

#[derive(Args, Debug)]
pub struct Start {
    /// Scheduler addresses, separated by commas
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, value_delimiter = ',', required = true)]
    join: Vec<String>,
    #[command(flatten)]
    token: TokenFlags,
    /// Directory of the worker's identity and shuffle data; of one worker only
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of this worker, for people; the host's name when not given
    #[arg(long, value_name = "NAME", value_parser = peer_name)]
    name: Option<String>,
    /// Address to listen at for other workers that fetch shuffle data; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_listen, default_value = "127.0.0.1:0")]
    listen: String,
    /// Address under which other workers reach this one, when it differs from the one it listens at
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    advertise: Option<String>,
    /// Take no more tasks that leave data here, and no more uploads, when shuffle data, results and uploads take so much, as in 50GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    shuffle_quota: Option<u64>,
    /// The same when less than this is free on the disk of the data directory
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "0")]
    min_free_disk: u64,
    /// How other workers send shuffle data to this one: lz4 where the network is slower than a core compresses
    #[arg(long, value_name = "HOW", value_parser = ["none", "lz4"], default_value = "none")]
    shuffle_compression: String,
    /// End an executor when a task of it shows no progress for so long, as in 10m; when not given, by what such tasks have taken: twenty times as
    /// long, at least 1m, and 30m while nothing is known
    #[arg(long, value_name = "DURATION", value_parser = patience)]
    task_patience: Option<Duration>,
    /// In the data directory of a worker of another cluster: join this one, and bring the results kept there into it, as far as it knows their jobs
    /// (after `scheduler start --restore`); needs the join token of this cluster
    #[arg(long)]
    bring_results: bool,
    /// Something jobs may require or prefer of this worker, as in zone=a (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    devices: DeviceFlags,
    /// End when standard input closes (for a parent process that must not leave this one behind)
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

#[derive(Args, Debug)]
pub struct Which {
    /// The worker's number or name
    #[arg(value_name = "WORKER")]
    worker: String,
    #[command(flatten)]
    target: Target,
}

fn label(text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=') else { return Err("write it as KEY=VALUE, as in zone=a".to_owned()) };
    match label_problem(key, value) {
        None => Ok((key.to_owned(), value.to_owned())),
        Some(problem) => Err(problem),
    }
}

fn labels(given: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        let earlier = labels.insert(key.clone(), value.clone());
        if let Some(earlier) = earlier.filter(|earlier| *earlier != value) {
            let message = format!("--label {key}={value}: label {key} is {earlier} already");
            return Err(Failure::say(Exit::BadUsage, message).fix("a worker has one value for each key"));
        }
    }
    if labels.len() > MAX_LABELS {
        let message = format!("{} labels are given with --label; a worker has at most {MAX_LABELS}", labels.len());
        return Err(Failure::say(Exit::BadUsage, message));
    }
    Ok(labels)
}

pub async fn start(console: &Console, args: Start) -> Outcome {
    let name = args.name.unwrap_or_else(host_name);
    let token = args.token.token()?;
    // Without it the worker would go on in its old cluster, beside whoever took its place there.
    if args.bring_results && token.is_none() {
        return Err(Failure::say(Exit::BadUsage, "--bring-results joins another cluster, and its join token is not given")
            .fix("add --token-file FILE with the file `join-token` in the data directory of that cluster's first scheduler"));
    }
    let config = WorkerConfig {
        name: name.clone(),
        data_dir: args.data_dir,
        schedulers: args.join,
        token,
        listen: args.listen,
        advertise: args.advertise,
        devices: args.devices.selection(),
        labels: labels(args.label)?,
        disk: DiskLimits { quota_bytes: args.shuffle_quota, min_free_bytes: args.min_free_disk },
        compress_shuffle: args.shuffle_compression == "lz4",
        task_patience: args.task_patience,
        bring_results: args.bring_results,
        executor_program: executor::program()?,
        executor_args_prefix: executor::args_prefix(),
    };
    let stop = signals::stop_or_stdin(args.until_stdin_closes);
    tokio::pin!(stop);
    // Joining goes on for as long as the cluster is away, so it must heed the signals too.
    let started = tokio::select! {
        started = raftwerk_worker::start(config) => started,
        signal = &mut stop => {
            console.note(format!("{signal}: worker {name} stops before it has joined"));
            return Ok(());
        }
    };
    let mut running = started.map_err(|error| refused_start(error).context(format!("worker {name} cannot start")))?;
    ready::worker(console, &name, running.id(), &running.address());
    let outcome = tokio::select! {
        ended = running.wait() => ended.map_err(|error| ended_by_itself(error).context(format!("worker {name} stopped"))),
        signal = &mut stop => {
            console.note(format!("{signal}: worker {name} stops"));
            Ok(())
        }
    };
    running.stop().await;
    outcome
}

pub fn refused_start(error: anyhow::Error) -> Failure {
    let fix = match error.downcast_ref::<DataDirError>() {
        Some(DataDirError::Locked { .. }) => Some("stop that process, or give this one a --data-dir of its own"),
        _ if error.is::<ListenError>() => Some(OTHER_LISTEN),
        _ if lacks_devices(&error) => {
            Some("`raftwerk doctor` shows the devices of this machine; --cpus, --no-gpu and --device say which of them are offered")
        }
        _ => None,
    };
    let failure = Failure::new(exit_of(&error), error);
    match fix {
        Some(fix) => failure.fix(fix),
        None => failure,
    }
}

/// The worker crate has no type for it.
fn lacks_devices(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains("no device to offer"))
}

fn ended_by_itself(error: WorkerError) -> Failure {
    match error {
        WorkerError::Refused(_) => Failure::new(Exit::Refused, error),
        WorkerError::Unreachable(_) => Failure::new(Exit::Refused, error).fix(
            "give --join an address of a scheduler of the cluster that the data directory belongs to; or, to work for another cluster, an empty \
             --data-dir and that cluster's --token-file (with --bring-results the results kept here come along)",
        ),
        WorkerError::Died => Failure::new(Exit::Internal, error),
    }
}

/// Who has to do something about it: the person who typed the command, or the one who runs the cluster.
fn exit_of(error: &anyhow::Error) -> Exit {
    if lacks_devices(error) {
        return Exit::Refused;
    }
    match error.downcast_ref::<JoinError>() {
        Some(JoinError::Refused { .. } | JoinError::OtherCluster { .. }) => Exit::Refused,
        Some(JoinError::Answer { .. }) => Exit::Internal,
        Some(_) => Exit::BadUsage,
        None if error.is::<DataDirError>() || error.is::<ListenError>() => Exit::BadUsage,
        None => Exit::Internal,
    }
}

pub async fn worker(console: &Console, command: Worker) -> Outcome {
    match command {
        Worker::Start(args) => start(console, *args).await,
        Worker::List(target) => {
            let workers = target.cluster()?.workers().await?;
            if console.is_json() {
                console.json(json!({"workers": workers.iter().map(views::worker::to_json).collect::<Vec<_>>()}));
            } else {
                console.table(&views::worker::list(&workers));
            }
            Ok(())
        }
        Worker::Drain(which) => drain(console, which).await,
        Worker::Release(which) => release(console, which).await,
        Worker::Show(Which { worker, target }) => {
            let workers = target.cluster()?.workers().await?;
            let view = pick(&workers, &worker)?;
            if console.is_json() {
                console.json(views::worker::to_json(view));
            } else {
                views::worker::print(console, view);
            }
            Ok(())
        }
    }
}

async fn drain(console: &Console, Which { worker, target }: Which) -> Outcome {
    let mut cluster = target.cluster()?;
    let workers = cluster.workers().await?;
    let view = pick(&workers, &worker)?;
    cluster.drain_worker(view.worker).await?;
    if console.is_json() {
        console.json(json!({"worker": view.worker, "drained": true}));
    } else {
        let leases: u64 = view.device_loads.iter().map(|load| load.leases).sum();
        console.note(format!("worker {} ({}) gets no new work; it holds {}", view.worker, view.name, counted(leases, "lease")));
    }
    Ok(())
}

async fn release(console: &Console, Which { worker, target }: Which) -> Outcome {
    let mut cluster = target.cluster()?;
    let workers = cluster.workers().await?;
    let view = pick(&workers, &worker)?;
    cluster.release_worker(view.worker).await?;
    let held_back = view.drained || !view.quarantines.is_empty();
    if console.is_json() {
        console.json(json!({"worker": view.worker, "released": held_back}));
    } else if !held_back {
        console.note(format!("worker {} ({}) was not in quarantine and not drained", view.worker, view.name));
    } else {
        console.note(format!("worker {} ({}) gets work again", view.worker, view.name));
    }
    Ok(())
}

/// By number, or by a name that only one worker has.
fn pick<'a>(workers: &'a [WorkerView], wanted: &str) -> Result<&'a WorkerView, Failure> {
    if let Some(view) = workers.iter().find(|view| view.worker.to_string() == wanted) {
        return Ok(view);
    }
    let is_called = |view: &&WorkerView| view.name == wanted || numbered(&view.name, view.worker) == wanted;
    let named: Vec<&WorkerView> = workers.iter().filter(is_called).collect();
    match named.as_slice() {
        [view] => Ok(view),
        [] => {
            let names: Vec<&str> = workers.iter().map(|view| view.name.as_str()).collect();
            Err(Failure::say(Exit::NotFound, format!("there is no worker `{wanted}`")).fix(hint(wanted, &names)))
        }
        several => {
            let numbers: Vec<String> = several.iter().map(|view| view.worker.to_string()).collect();
            Err(Failure::say(Exit::BadUsage, format!("{} workers are called `{wanted}`", several.len()))
                .fix(format!("name one by its number: {} (`raftwerk worker list` tells where each of them is)", numbers.join(", "))))
        }
    }
}

fn host_name() -> String {
    let from_system = std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    from_system.filter(|name| !name.is_empty()).or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "worker".to_owned())
}
