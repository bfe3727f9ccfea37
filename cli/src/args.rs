//! The command line as a whole, and the way to each command.

use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::commands::{self, cluster, context, costs, dev, doctor, job, kernels, namespace, run, scheduler, simulate, submit, worker};
use crate::console::{Console, Format};
use crate::failure::{Exit, Failure, Outcome};
use crate::logging;
use crate::target::Target;

const EXIT_CODES: &str = "\
Exit codes:
  0  done            1  unexpected error     2  bad usage or bad job file   3  the job failed
  4  job cancelled   5  cluster unreachable  6  refused by the cluster      7  not found
  8  job done, but with tasks set aside      9  parts of a result lie on no worker that answers
  130  Ctrl-C while waiting (the job goes on)";

/// One MapReduce cluster of CPUs and GPUs that survives the loss of any machine
#[derive(Parser, Debug)]
#[command(name = "raftwerk", version, after_help = EXIT_CODES, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes, before or after its name.
#[derive(Args, Debug)]
struct Global {
    /// Output on stdout: tables for people, or JSON documents
    #[arg(short = 'o', long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// No progress and no notes on stderr
    #[arg(short, long, global = true)]
    quiet: bool,
    /// More diagnostics on stderr; twice for still more (RAFTWERK_LOG gives finer control)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a job on a cluster inside this process, on this machine's CPU and GPUs
    Run(run::Run),
    /// Start a cluster of separate processes on this machine, for trying things out
    Dev(dev::Dev),
    /// Submit a job to a cluster
    Submit {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        args: submit::SubmitArgs,
    },
    /// List, show, wait for and cancel jobs
    Job {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        command: job::Job,
    },
    /// Start, list, show, drain and release workers
    Worker {
        #[command(subcommand)]
        command: worker::Worker,
    },
    /// Start scheduler replicas, or recover one after the majority is lost
    Scheduler {
        #[command(subcommand)]
        command: scheduler::Scheduler,
    },
    /// Show the cluster's replicas
    Cluster {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Show what leases have cost so far, on which model of device, and how well that predicts
    Costs {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        command: Option<costs::CostsCommand>,
    },
    /// Name clusters and choose one
    Context {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        command: context::ContextCommand,
    },
    /// Show what namespaces have had, and say what they may have
    Namespace {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        command: namespace::NamespaceCommand,
    },
    /// List and describe kernels
    Kernels {
        #[command(subcommand)]
        command: kernels::Kernels,
    },
    /// Show what this machine would offer as a worker, without a cluster
    Doctor(doctor::Doctor),
    /// Run jobs on virtual devices in virtual time, by the scheduler's own decisions, and compare policies
    Simulate(simulate::Simulate),
}

impl Command {
    /// What is logged without `-v`: servers tell what they do, commands speak through their output.
    fn is_server(&self) -> bool {
        matches!(self, Self::Scheduler { .. } | Self::Worker { command: worker::Worker::Start(_) })
    }

    /// Whether the command moves so much data that it wants more than one thread. A scheduler does not: see decision 0007.
    fn is_busy(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Dev(_) | Self::Doctor(_) | Self::Worker { command: worker::Worker::Start(_) })
    }
}

pub fn run(cli: Cli) -> ExitCode {
    let console = Console::new(cli.global.format, cli.global.quiet);
    let wrong = logging::start(match (cli.command.is_server(), cli.global.verbose) {
        (false, 0) => "error",
        // Raft says at `info` what only its developers want to know.
        (true, 0) => "info,openraft=error",
        (_, 1) => "info,openraft=info,raftwerk=debug,raftwerk_scheduler=debug,raftwerk_worker=debug",
        _ => "debug",
    });
    if let Some(wrong) = wrong {
        console.note(wrong);
    }
    let outcome = start(&console, cli.command);
    match outcome.and_then(|()| console.close()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn start(console: &Console, command: Command) -> Outcome {
    let mut builder =
        if command.is_busy() { tokio::runtime::Builder::new_multi_thread() } else { tokio::runtime::Builder::new_current_thread() };
    let runtime =
        builder.enable_all().build().map_err(|error| Failure::new(Exit::Internal, error).context("cannot start the async runtime"))?;
    let outcome = runtime.block_on(dispatch(console, command));
    // Whatever still runs is detached work, such as a name lookup that nobody waits for any more.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(console: &Console, command: Command) -> Outcome {
    match command {
        Command::Run(args) => commands::run::run(console, args).await,
        Command::Dev(args) => dev::dev(console, args).await,
        Command::Submit { target, args } => submit::submit(console, &target, args).await,
        Command::Job { target, command } => job::job(console, &target, command).await,
        Command::Worker { command } => worker::worker(console, command).await,
        Command::Scheduler { command } => scheduler::scheduler(console, command).await,
        Command::Cluster { target, command } => cluster::cluster(console, &target, command).await,
        Command::Costs { target, command } => costs::costs(console, &target, command).await,
        Command::Context { target, command } => context::context(console, &target, command),
        Command::Namespace { target, command } => namespace::namespace(console, &target, command).await,
        Command::Kernels { command } => kernels::kernels(console, command),
        Command::Doctor(args) => doctor::doctor(console, args).await,
        Command::Simulate(args) => simulate::simulate(console, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
