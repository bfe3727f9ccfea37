//! kill -9 during a job: how long until tasks are accepted again, how many ran twice, and whether every task counted once.

use crate::sample::{Sample, assert_sum, noop, seconds};
use raftwerk_tests::cluster::Cluster;
use std::time::{Duration, Instant};

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
        let (mut gaps, mut totals, mut twice) = (Vec::new(), Vec::new(), 0);
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
            let ran: u64 = view["stages"][0]["fenced"].as_u64().unwrap_or(0);
            twice += ran;
        }
        let (gaps, totals) = (Sample::new(gaps), Sample::new(totals));
        println!(
            "{victim} killed: next {} after median {:.2} s (max {:.2} s); job {:.2} s (max {:.2} s); {twice} results refused as second ones, 0 counted twice ({runs} runs)",
            if victim == "leader" { "accepted task" } else { "lease for its tasks" },
            gaps.median(),
            gaps.max(),
            totals.median(),
            totals.max()
        );
    }
    Ok(())
}

/// Seconds until the cluster moves again: a task accepted under a new leader, or the dead worker's tasks leased to another.
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
    std::thread::sleep(Duration::from_millis(1));
    killed.elapsed().as_secs_f64()
}
