//! No-op tasks per second, the log durable on three replicas.

use crate::sample::{Sample, assert_sum, noop, resident, seconds};
use raftwerk_tests::cluster::Cluster;

pub fn run(runs: usize) -> anyhow::Result<()> {
    println!("## no-op tasks per second: 3 durable replicas, 2 workers with 1 core each");
    for (what, tasks, lease) in [
        ("leases as long as placement likes", 1_000_000, 0),
        ("leases of at most 16 tasks", 1_000_000, 16),
        ("one-task leases", 100_000, 1),
    ] {
        let cluster = Cluster::start(3, 2);
        let file = cluster.job_file("noop.toml", &noop(tasks, 0, lease));
        let idle: Vec<u64> = cluster.schedulers.iter().map(|s| resident(s.child.id()).0).collect();
        cluster.wait_done(cluster.submit(&file, &[]));
        let growth = cluster.schedulers.iter().zip(idle).map(|(s, b)| resident(s.child.id()).1.saturating_sub(b)).max().unwrap_or(0);
        let log_before = cluster.json(&["cluster", "show"])["log_bytes_written"].as_u64().unwrap_or(0);
        let mut rates = Vec::new();
        let mut leases = 0;
        for _ in 0..runs {
            let job = cluster.wait_done(cluster.submit(&file, &[]));
            assert_sum(&job, tasks);
            rates.push(tasks as f64 / seconds(&job));
            leases = job["stages"][0]["leases"].as_u64().unwrap_or(0);
        }
        let rates = Sample::new(rates);
        let log_after = cluster.json(&["cluster", "show"])["log_bytes_written"].as_u64().unwrap_or(0);
        println!(
            "{what}: {tasks} tasks in {leases} leases: median {:.0}/s (min {:.0}, max {:.0}, {runs} runs); log {:.1} MB a run and replica; a scheduler's memory peaked {:.1} MB above idle in the first run",
            rates.median(),
            rates.min(),
            rates.max(),
            (log_after - log_before) as f64 / runs as f64 / 1e6,
            growth as f64 / 1e6
        );
    }
    Ok(())
}
