//! A leader that has lost its majority cannot know whether another leads by now. It keeps nobody.

use raftwerk_tests::cluster::Cluster;
use std::time::{Duration, Instant};

/// One task, longer than the lease time (10 s) by as much as a busy machine may need.
const LONG: &str = "[input]\nrange = { start = 0, count = 1, tasks = 1 }\n[map]\nkernel = \"noop\"\nparams = { sleep_us = 30000000 }\n";

#[test]
fn a_worker_stops_by_itself_when_its_leader_hears_no_majority() {
    let cluster = Cluster::start(3, 1);
    let job = cluster.submit(&cluster.job_file("long.toml", LONG), &[]);
    let leased = || cluster.job(job)["stages"][0]["leased"].as_u64() == Some(1);
    cluster.until("the task runs", leased);
    let leader = cluster.leader();
    let followers = || (0..3).filter(|index| *index != leader).map(|index| &cluster.schedulers[index]);
    // The leader answers whoever asks, and nothing is proposed: no report is due for half a minute.
    followers().for_each(|follower| follower.signal("STOP"));
    let began = Instant::now();
    let said = || cluster.workers[0].log();
    cluster.until("the worker stops its task", || said().contains("no leader has answered for the lease time"));
    let stopped = began.elapsed();
    cluster.until("and what it was doing", || said().contains("is ended with its executor"));
    assert!(stopped < Duration::from_secs(20), "{stopped:?}");
    followers().for_each(|follower| follower.signal("CONT"));
    cluster.until("the task is leased again", leased);
    let stage = &cluster.job(job)["stages"][0];
    assert_eq!((stage["failed_attempts"].as_u64(), stage["accepted"].as_u64()), (Some(0), Some(0)), "nobody is blamed: {stage:#}");
    assert!(cluster.run(&["job", "cancel", &job.to_string()]).status.success());
}
