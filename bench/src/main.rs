//! Measures a whole cluster of real processes on this machine: three durable replicas, two workers with one core each.
//!
//! `cargo build --release -p raftwerk -p raftwerk-bench && target/release/raftwerk-bench all`
//! prints every figure with what it means. Nothing is asserted: see `bench/README.md` for goals and past runs.

mod failover;
mod footprint;
mod gpu_report;
mod latency;
mod losses;
mod plain_loop;
mod planning;
mod sample;
mod sessions;
mod shuffle;
mod simulated;
mod start;
mod straggler;
mod throttled;
mod throughput;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// No-op tasks per second: long leases, 16-task leases, one-task leases
    Throughput {
        /// Runs of each; the median is printed with its range
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// One-task jobs: submit to done, over one open connection and through the command line
    Latency {
        #[arg(long, default_value_t = 500)]
        tries: usize,
        #[arg(long, default_value_t = 3)]
        replicas: usize,
    },
    /// kill -9 of the leader and of a worker during a job
    Failover {
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// kill -9 of the leader and of one of eight workers together: the job's time against what the lost capacity explains
    Losses {
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// One of four workers runs 20 ms of every second: the job's time against one without it, and what is run a second time
    Straggler {
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// Thousands of worker sessions: CPU of a heartbeat, and all of them coming back at once
    Sessions {
        #[arg(long, default_value_t = 2_000)]
        count: u64,
        /// How long the steady state is measured
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Drive the leader loop alone with so many sessions instead, without processes and network
        #[arg(long, value_name = "COUNT", conflicts_with = "count")]
        simulated: Option<u64>,
    },
    /// Memory of idle processes, and the time of a whole `raftwerk run`
    Footprint,
    /// From the start of `raftwerk run`, and of a worker on a running cluster, to its first task
    Start {
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// CPU of planning and applying per granted lease, and of one planning round, with thousands of virtual devices
    Planning {
        #[arg(long, default_value_t = 10_000)]
        devices: u64,
        #[arg(long, default_value_t = 10_000_000)]
        tasks: u64,
        /// Policies, separated by commas
        #[arg(long, value_delimiter = ',', default_value = "model")]
        policy: Vec<String>,
    },
    /// Two CPU workers throttled to unequal speed on one compute-bound job, against each alone; needs writable control groups, exit code 77 without
    Throttled {
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Random points of a run; ten million take about a fifth of a second on a core
        #[arg(long, default_value_t = 300_000_000)]
        samples: u64,
    },
    /// Each kernel's GPU twin beside what the device does at most, beside the CPU twin, and both on one job; as Markdown
    GpuReport {
        #[command(flatten)]
        options: gpu_report::Options,
    },
    /// Jobs against their kernels called in a plain loop over the same files: word count, grep, sort, group by
    Loop {
        #[command(flatten)]
        options: plain_loop::Options,
    },
    /// Shuffle data from one worker to another over loopback, against one stream of rustls with the same cipher suite
    Shuffle {
        #[arg(long, default_value_t = 5)]
        runs: usize,
        #[arg(long, default_value_t = 1024)]
        mib: u64,
        /// Length of a block in KiB
        #[arg(long, default_value_t = 256)]
        block: u64,
        /// As workers with `--shuffle-compression lz4` do
        #[arg(long)]
        lz4: bool,
    },
    /// Everything above but `throttled`, `loop`, `shuffle` and the GPU report
    All,
}

fn main() -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("note: a debug build; its figures say nothing");
    }
    match Cli::parse().what {
        What::Throughput { runs } => throughput::run(runs),
        What::Latency { tries, replicas } => latency::run(tries, replicas),
        What::Failover { runs } => failover::run(runs),
        What::Losses { runs } => losses::run(runs),
        What::Straggler { runs } => straggler::run(runs),
        What::Sessions { seconds, simulated: Some(count), .. } => simulated::run(count, seconds),
        What::Sessions { count, seconds, simulated: None } => sessions::run(count, seconds),
        What::Footprint => footprint::run(),
        What::Start { runs } => start::run(runs),
        What::Planning { devices, tasks, policy } => planning::run(devices, tasks, &policy),
        What::Throttled { runs, samples } => throttled::run(runs, samples),
        What::GpuReport { options } => gpu_report::run(&options),
        What::Loop { options } => plain_loop::run(&options),
        What::Shuffle { runs, mib, block, lz4 } => shuffle::run(runs, mib, block, lz4),
        What::All => {
            footprint::run()?;
            start::run(5)?;
            throughput::run(5)?;
            latency::run(500, 3)?;
            failover::run(5)?;
            losses::run(5)?;
            straggler::run(5)?;
            sessions::run(2_000, 20)?;
            simulated::run(10_000, 20)?;
            planning::run(10_000, 10_000_000, &["model".to_owned()])
        }
    }
}
