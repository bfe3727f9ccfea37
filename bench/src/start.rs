//! From the start of a process to its first task, told by the task itself: the kernel prints a line, and the worker's log passes it on at once.

use crate::sample::Sample;
use anyhow::Context;
use raftwerk_tests::cluster::{Cluster, program};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What the log of a worker says at this level is what its kernels print.
const LOG: (&str, &str) = ("RAFTWERK_LOG", "raftwerk_worker::output=debug");

pub fn run(runs: usize) -> anyhow::Result<()> {
    println!("## start to first task, {runs} runs");
    let cluster = Cluster::start(1, 1);
    let one = cluster.job_file("one.toml", &printing(1, 0));
    let embedded = repeat(runs, || {
        let mut command = Command::new(program());
        command.args(["-q", "run", &one, "--no-gpu"]);
        let (seconds, mut child) = first_task(command)?;
        anyhow::ensure!(child.0.wait()?.success(), "`raftwerk run` failed");
        Ok(seconds)
    })?;
    print("`raftwerk run`, from its start", &embedded);

    // More than the workers can do in the time; small leases leave something for one that comes later.
    let many = cluster.job_file("many.toml", &printing(1_000_000, 5_000));
    let job = cluster.submit(&many, &[]).to_string();
    cluster.until("the job to run", || cluster.json(&["job", "show", &job])["stages"][0]["accepted"].as_u64() > Some(0));
    let dir = cluster.path("late-worker");
    let worker = || {
        let mut command = Command::new(program());
        command.args(["worker", "start", "--name", "late", "--cpus", "1", "--no-gpu", "--join", &cluster.addresses[0]]);
        command.arg("--token-file").arg(cluster.path("scheduler-1/join-token")).arg("--data-dir").arg(&dir);
        let (seconds, child) = first_task(command)?;
        drop(child);
        Ok(seconds)
    };
    let new = repeat(runs, || {
        if dir.exists() {
            std::fs::remove_dir_all(&dir).context("the data directory of the run before")?;
        }
        worker()
    })?;
    print("a worker that joins a running cluster, from its start", &new);
    print("a worker that comes back, from its start", &repeat(runs, worker)?);
    anyhow::ensure!(cluster.run(&["-q", "job", "cancel", &job]).status.success(), "the job cannot be cancelled");
    Ok(())
}

fn repeat(runs: usize, mut measure: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<Sample> {
    (0..runs).map(|_| measure()).collect::<anyhow::Result<Vec<f64>>>().map(Sample::new)
}

fn print(what: &str, sample: &Sample) {
    println!("{what}: median {:.0} ms ({:.0} - {:.0})", sample.median() * 1e3, sample.min() * 1e3, sample.max() * 1e3);
}

/// A child that is killed with this value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the command and reads its log until a task has printed. What it logs after that is read by nobody and goes nowhere.
fn first_task(mut command: Command) -> anyhow::Result<(f64, Killed)> {
    command.env(LOG.0, LOG.1).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = Killed(command.spawn()?);
    let mut lines = BufReader::new(child.0.stderr.take().context("a pipe")?).lines();
    let mut seen = Vec::new();
    while let Some(line) = lines.next().transpose()? {
        if line.contains("task ") && line.contains(" at index ") {
            let seconds = started.elapsed().as_secs_f64();
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((seconds, child));
        }
        seen.push(line);
    }
    anyhow::bail!("it ran no task; it said {seen:#?}")
}

fn printing(tasks: u64, sleep_us: u64) -> String {
    format!(
        "[input]\nrange = {{ count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nmax_lease_tasks = 4\nparams = {{ print = \"yes\", sleep_us = {sleep_us} }}\n"
    )
}
