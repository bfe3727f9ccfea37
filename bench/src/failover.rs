//! kill -9 during a job: how long until tasks are accepted again or the worker is declared lost, and whether every task counted once. Attempts that ran
//! in vain are not counted here: only results that arrived and were refused.

use crate::sample::{Sample, assert_sum, noop, seconds};
use raftwerk_tests::cluster::Cluster;
use std::time::Instant;

const TASKS: u64 = 2_000;
const SLEEP_US: u64 = 2_000;

pub fn run(runs: usize) -> anyhow::Result<()> {
    println!("## kill -9 during a job of {TASKS} tasks of {} ms: 3 durable replicas, 2 workers with 1 core each", SLEEP_US / 1000);
    let quiet = {
        let cluster = Cluster::start(3, 2);
        seconds(&cluster.wait_done(cluster.submit(&cluster.job_file("noop.toml", &noop(TASKS, SLEEP_US, 0)), &[])))
    };
    println!("undisturbed: {quiet:.2} s");
    for victim in ["leader", "worker"] {
        let (mut gaps, mut totals, mut refused) = (Vec::new(), Vec::new(), 0);
        for _ in 0..runs {
            let mut cluster = Cluster::start(3, 2);
            let job = cluster.submit(&cluster.job_file("noop.toml", &noop(TASKS, SLEEP_US, 0)), &[]);
            cluster.until("tasks accepted", || cluster.accepted(job) > 200);
            if victim == "leader" {
                let leader = cluster.leader();
                cluster.schedulers[leader].kill();
            } else {
                cluster.workers[0].kill();
            }
            gaps.push(gap(&cluster, job, victim));
            let view = cluster.wait_done(job);
            assert_sum(&view, TASKS);
            totals.push(seconds(&view));
            refused += view["stages"][0]["fenced"].as_u64().unwrap_or(0);
        }
        let (gaps, totals) = (Sample::new(gaps), Sample::new(totals));
        println!(
            "{victim} killed: {} after median {:.2} s (max {:.2} s); job {:.2} s (max {:.2} s); {refused} results refused as second ones; the sum was exact in all {runs} runs",
            if victim == "leader" { "next accepted task" } else { "declared lost" },
            gaps.median(),
            gaps.max(),
            totals.median(),
            totals.max()
        );
    }
    Ok(())
}

/// Seconds until a client sees a task accepted under a new leader, or the dead worker declared lost (its tasks are ready from then on).
fn gap(cluster: &Cluster, job: u64, victim: &str) -> f64 {
    let killed = Instant::now();
    if victim == "leader" {
        let before = cluster.accepted(job);
        cluster.until("progress", || cluster.accepted(job) > before);
    } else {
        cluster.until("the worker is lost", || {
            let workers = cluster.json(&["worker", "list"]);
            workers["workers"].as_array().is_some_and(|w| w.iter().any(|w| w["liveness"] == "lost"))
        });
    }
    killed.elapsed().as_secs_f64()
}
