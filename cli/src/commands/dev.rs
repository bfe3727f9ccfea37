//! `raftwerk dev`: a cluster of separate processes on this machine.

mod child;
mod layout;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::child::{Child, Children};
use self::layout::Layout;
use super::signals;
use super::worker::MAX_CPUS;
use crate::client::Cluster;
use crate::console::Console;
use crate::contexts::{self, Context, Contexts};
use crate::credential::load_credential;
use crate::failure::{Exit, Failure, Outcome};
use crate::temporary::{self, Temporary};
use crate::units::counted;

/// For the workers' sessions to begin, after their devices are ready.
const REGISTRATION: Duration = Duration::from_secs(20);

/// For a connection to a cluster whose context would be replaced.
const ANSWER: Duration = Duration::from_millis(200);

/// How often a new scheduler gets another port.
const MAX_MOVES: u32 = 5;

#[derive(Args, Debug)]
pub struct Dev {
    /// Scheduler replicas: 1, 3 or 5
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = replica_count)]
    schedulers: u32,
    /// Workers
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Keep the cluster here and continue with it next time; without it the cluster is gone when this command ends
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// CPU cores that each worker offers; this machine's cores shared out evenly when not given
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=MAX_CPUS))]
    cpus_per_worker: Option<u32>,
    /// Offer no GPU
    #[arg(long)]
    no_gpu: bool,
    /// By which tasks of jobs that name no policy are placed
    #[arg(long, value_name = "NAME", value_parser = super::scheduler::policy_name, default_value = super::scheduler::default_policy())]
    policy: String,
    /// Name of the context that is written
    #[arg(long, value_name = "NAME", default_value = "dev", value_parser = super::context::context_name)]
    context_name: String,
}

fn replica_count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => Err("a cluster has 1, 3 or 5 replicas: an even number survives no more losses than one fewer".to_owned()),
    }
}

pub async fn dev(console: &Console, args: Dev) -> Outcome {
    let temporary = match &args.data_dir {
        Some(_) => None,
        None => Some(Temporary::make(temporary::DEV).map_err(|error| {
            Failure::new(Exit::Internal, error).context("cannot make a temporary directory").fix("set TMPDIR or give --data-dir")
        })?),
    };
    let dir = match (&args.data_dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => unreachable!("one of the two was just made"),
    };
    std::fs::create_dir_all(&dir).map_err(|error| Failure::new(Exit::BadUsage, error).context(format!("cannot make {}", dir.display())))?;
    let dir = dir.canonicalize().map_err(|error| Failure::new(Exit::BadUsage, error).context(format!("cannot open {}", dir.display())))?;

    let mut children = Children::default();
    let outcome = tokio::select! {
        outcome = live(console, &args, &dir, &mut children, temporary.as_ref()) => outcome,
        signal = signals::stop() => {
            console.note(format!("{signal}: stopping"));
            Ok(())
        }
    };
    children.stop(console).await;
    outcome
}

/// Starts the cluster and watches over it until the caller drops this.
async fn live(console: &Console, args: &Dev, dir: &Path, children: &mut Children, owned: Option<&Temporary>) -> Outcome {
    temporary::tidy_up(console, true).await;
    let temporary = owned.is_some();
    if temporary {
        name_is_free(&args.context_name, &[]).await?;
    }
    let mut layout = Layout::open(dir, args.schedulers, args.workers, temporary)?;
    start_schedulers(console, args, &mut layout, children).await?;
    let context = Context { addresses: layout.addresses(), credential: layout.scheduler_dir(1).join(raftwerk_scheduler::ADMIN_FILE) };
    if temporary {
        // Somebody else may have been faster meanwhile. What answers at an address of this cluster is this cluster, whoever was there once.
        name_is_free(&args.context_name, &layout.addresses()).await?;
    }
    let _written = WrittenContext::write(&args.context_name, context.clone(), owned)?;
    start_workers(console, args, &layout, children).await?;
    let mut cluster = Cluster::new(layout.addresses(), load_credential(&context.credential)?, REGISTRATION);
    if !cluster.wait_for_workers(args.workers as usize, REGISTRATION).await? {
        console.note("not every worker has reached the schedulers yet; `raftwerk worker list` shows which");
    }
    announce(console, args, &context, dir, temporary);
    children.watch(console).await;
    Err(Failure::say(Exit::Internal, "every process of the cluster has ended"))
}

/// Replicas that continue come first and together, since they have no leader before most of them run. New ones follow one by one: the
/// first makes the cluster, and each of the others joins a cluster that works.
async fn start_schedulers(console: &Console, args: &Dev, layout: &mut Layout, children: &mut Children) -> Outcome {
    let (new, continuing): (Vec<u32>, Vec<u32>) = (1..=args.schedulers).partition(|number| layout.is_new(*number));
    for number in continuing {
        children.starting(start_scheduler(number, &args.policy, layout)?);
    }
    children.all_ready(console).await?;
    for number in new {
        let mut moves = 0;
        loop {
            layout.release(number);
            children.starting(start_scheduler(number, &args.policy, layout)?);
            match children.all_ready(console).await {
                Ok(()) => break,
                // Between the release and the start, somebody else took it.
                Err(_) if moves < MAX_MOVES && layout.lost_port(number) => {
                    layout.move_port(number)?;
                    moves += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(())
}

/// A temporary cluster takes its context away with it, and must not do that to a cluster that still runs.
async fn name_is_free(name: &str, own: &[String]) -> Outcome {
    let contexts = Contexts::load(&contexts::place()?).map_err(|error| Failure::new(Exit::BadUsage, error))?;
    let Some(context) = contexts.contexts.get(name) else { return Ok(()) };
    for address in context.addresses.iter().filter(|address| !own.contains(address)) {
        if let Ok(Ok(_)) = tokio::time::timeout(ANSWER, tokio::net::TcpStream::connect(address)).await {
            return Err(Failure::say(Exit::BadUsage, format!("the context `{name}` belongs to a cluster that runs, at {address}"))
                .fix("give --context-name OTHER"));
        }
    }
    Ok(())
}

fn start_scheduler(number: u32, policy: &str, layout: &Layout) -> Result<Child, Failure> {
    let name = format!("scheduler-{number}");
    let data_dir = layout.scheduler_dir(number).display().to_string();
    let listen = layout.address(number);
    let mut line = vec!["scheduler", "start", "--name", &name, "--data-dir", &data_dir, "--listen", &listen, "--policy", policy];
    let (first, token_file) = (layout.address(1), layout.token_file().display().to_string());
    match (number, layout.is_new(number)) {
        (1, _) => line.push("--bootstrap"),
        (_, true) => line.extend(["--join", &first, "--token-file", &token_file]),
        (_, false) => {}
    }
    Child::start(&name, &line, layout)
}

async fn start_workers(console: &Console, args: &Dev, layout: &Layout, children: &mut Children) -> Outcome {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let cpus = args.cpus_per_worker.unwrap_or((cores / args.workers).clamp(1, MAX_CPUS as u32)).to_string();
    let join = layout.addresses().join(",");
    let token_file = layout.token_file().display().to_string();
    for number in 1..=args.workers {
        let name = format!("worker-{number}");
        let data_dir = layout.worker_dir(number).display().to_string();
        let mut line = vec!["worker", "start", "--name", &name, "--data-dir", &data_dir, "--join", &join, "--token-file", &token_file];
        line.extend(["--cpus", cpus.as_str()]);
        if args.no_gpu {
            line.push("--no-gpu");
        }
        children.starting(Child::start(&name, &line, layout)?);
    }
    children.all_ready(console).await
}

fn announce(console: &Console, args: &Dev, context: &Context, dir: &Path, temporary: bool) {
    if console.is_json() {
        console.json_line(json!({
            "ready": "dev", "context": args.context_name, "addresses": context.addresses, "credential": context.credential, "data_dir": dir,
        }));
        return;
    }
    let kept = if temporary { "gone when this command ends" } else { "kept; the same --data-dir continues" };
    console.line(format!(
        "the cluster runs: {}, {}, context `{}`
  addresses   {}
  credential  {}
  data, logs  {} ({kept})
in another terminal:
  raftwerk submit --wait examples/pi.toml
  raftwerk cluster show
  raftwerk worker list
Ctrl-C stops it",
        counted(args.schedulers.into(), "scheduler"),
        counted(args.workers.into(), "worker"),
        args.context_name,
        context.addresses.join(","),
        context.credential.display(),
        dir.display()
    ));
}

/// The context on disk. That of a temporary cluster goes when the cluster goes, and the former current one comes back.
struct WrittenContext {
    name: String,
    context: Context,
    former: Option<String>,
    temporary: bool,
}

impl WrittenContext {
    fn write(name: &str, context: Context, owned: Option<&Temporary>) -> Result<Self, Failure> {
        let file = contexts::place()?;
        let former = Contexts::load(&file).map_err(|error| Failure::new(Exit::BadUsage, error))?.current;
        if let Some(owned) = owned {
            let doing = || format!("cannot write in {}", owned.path().display());
            owned.note(name, former.as_deref()).map_err(|error| Failure::new(Exit::Internal, error).context(doing()))?;
        }
        contexts::write(name, context.clone())?;
        Ok(Self { name: name.to_owned(), context, former, temporary: owned.is_some() })
    }
}

impl Drop for WrittenContext {
    fn drop(&mut self) {
        if self.temporary {
            // It names a directory that is about to vanish; a leftover is confusing, not harmful.
            let _ = contexts::forget(&self.name, &self.context, self.former.as_deref());
        }
    }
}
