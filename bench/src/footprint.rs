//! What it costs to have the cluster and not use it.

use crate::sample::{noop, resident};
use raftwerk_tests::cluster::{Cluster, program};
use std::time::Instant;

pub fn run() -> anyhow::Result<()> {
    println!("## footprint");
    let cluster = Cluster::start(3, 1);
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    for process in cluster.schedulers.iter().chain(&cluster.workers) {
        println!("idle {}: {:.1} MiB resident", process.name, mib(resident(process.child.id()).0));
    }
    let worker = cluster.workers[0].child.id();
    // Children are listed under the thread that made them.
    let threads = std::fs::read_dir(format!("/proc/{worker}/task"))?.filter_map(Result::ok);
    let children: String = threads.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok()).collect();
    for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        println!("idle executor of worker-1: {:.1} MiB resident", mib(resident(child).0));
    }
    let file = cluster.job_file("one.toml", &noop(1, 0, 0));
    let started = Instant::now();
    let output = std::process::Command::new(program()).args(["-q", "run", &file, "--no-gpu"]).output()?;
    anyhow::ensure!(output.status.success(), "run failed: {}", String::from_utf8_lossy(&output.stderr));
    println!("`raftwerk run` of one task, new cluster to result and clean end: {:.2} s", started.elapsed().as_secs_f64());
    Ok(())
}
