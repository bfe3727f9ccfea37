//! Executors that hang: stopped, or in a task that never ends, on the only worker there is.

use raftwerk_tests::cluster::{Cluster, text};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Long for a busy machine, short for a test.
const PATIENT: [&str; 5] = ["--cpus", "1", "--no-gpu", "--task-patience", "6s"];

fn one_worker() -> Cluster {
    let mut cluster = Cluster::start(1, 0);
    cluster.add_worker(1, &PATIENT);
    cluster.wait_for_workers(1);
    cluster
}

fn noop(tasks: u64, sleep_us: u64, job: &str) -> String {
    format!(
        "[job]\nname = \"noop\"\n{job}[input]\nrange = {{ start = 0, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\n\
         params = {{ sleep_us = {sleep_us} }}\nmax_lease_tasks = 4\n"
    )
}

fn total(job: &Value) -> u128 {
    job["tallies"][0]["total"].as_str().expect("a decimal").parse().expect("a number")
}

/// The processes that the worker has started and that run now.
fn executors(worker: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let of_worker = |process: &u32| {
        let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).unwrap_or_default();
        // The command's name is in brackets and may hold anything; state and parent come behind it.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok()) == Some(worker)
    };
    processes.filter_map(|p| p.file_name().to_str()?.parse::<u32>().ok()).filter(of_worker).collect()
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args([format!("-{name}"), process.to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill -{name} {process}");
}

#[test]
fn a_stopped_executor_of_the_only_worker_does_not_hold_the_job() {
    let cluster = one_worker();
    let tasks = 60;
    let job = cluster.submit(&cluster.job_file("noop.toml", &noop(tasks, 100_000, "")), &[]);
    cluster.until("it has begun", || cluster.accepted(job) > 0);
    let stopped = executors(cluster.workers[0].child.id());
    let [executor] = stopped[..] else { panic!("one executor: {stopped:?}") };
    signal("STOP", executor);
    let view = cluster.wait_done(job);
    assert_eq!(total(&view), u128::from(tasks * (tasks - 1) / 2));
    let said = cluster.workers[0].log();
    assert!(said.contains("no sign of progress for") && said.contains("(patience: 6 s)"), "{said}");
    assert_ne!(executors(cluster.workers[0].child.id()), [executor], "another one has taken its place");
    assert!(view["stages"][0]["failed_attempts"].as_u64() > Some(0), "it was charged: {view:#}");
}

#[test]
fn a_job_whose_task_never_ends_fails_with_the_evidence() {
    let cluster = one_worker();
    // A minute a task is for ever, for a worker that has six seconds of patience.
    let output = cluster.run(&["submit", "--wait", &cluster.job_file("noop.toml", &noop(1, 60_000_000, "max_attempts = 2\n"))]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no sign of progress for") && said.contains("on task 0 of lease"), "{said}");
}

#[test]
fn an_agent_that_stood_still_does_not_end_executors_that_went_on() {
    let cluster = one_worker();
    let (tasks, worker) = (6, cluster.workers[0].child.id());
    let job = cluster.submit(&cluster.job_file("noop.toml", &noop(tasks, 3_000_000, "")), &[]);
    cluster.until("it has begun", || cluster.accepted(job) > 0);
    let before = executors(worker);
    cluster.workers[0].signal("STOP");
    // Longer than its patience, shorter than its leases.
    std::thread::sleep(Duration::from_millis(8_500));
    cluster.workers[0].signal("CONT");
    let view = cluster.wait_done(job);
    assert_eq!(total(&view), u128::from(tasks * (tasks - 1) / 2));
    assert_eq!(executors(worker), before, "{}", cluster.workers[0].log());
    assert!(!cluster.workers[0].log().contains("no sign of progress"), "{}", cluster.workers[0].log());
}
