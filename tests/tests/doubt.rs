//! A client that cannot know what became of its request says so, in time, and says how to find out.

use raftwerk_tests::cluster::{Cluster, text};
use std::time::{Duration, Instant};

const JOB: &str = "[input]\nrange = { start = 0, count = 4, tasks = 4 }\n[map]\nkernel = \"noop\"\n";

#[test]
fn a_submit_without_a_majority_ends_in_time_in_doubt_and_its_key_finds_the_job() {
    let cluster = Cluster::start(3, 1);
    let file = cluster.job_file("noop.toml", JOB);
    let leader = cluster.leader();
    let followers = || (0..3).filter(|index| *index != leader).map(|index| &cluster.schedulers[index]);
    followers().for_each(|follower| follower.signal("STOP"));
    let began = Instant::now();
    let refused = cluster.run(&["submit", &file, "--timeout", "3s"]);
    let took = began.elapsed();
    followers().for_each(|follower| follower.signal("CONT"));
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("it is not known whether job `noop` was submitted"), "{said}");
    // A minute is for listing input, by a replica that shows that it leads.
    assert!(took < Duration::from_secs(40), "{took:?}: {said}");

    let key = said.split("--idempotency-key \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("no key: {said}"));
    cluster.until("a job with that key", || cluster.run(&["submit", &file, "--idempotency-key", key]).status.success());
    let jobs = cluster.json(&["job", "list"]);
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "however often it was sent: {jobs:#}");
    cluster.wait_done(jobs["jobs"][0]["job"].as_u64().expect("a number"));
}

#[test]
fn what_was_never_sent_was_not_submitted() {
    let mut cluster = Cluster::start(1, 0);
    let file = cluster.job_file("noop.toml", JOB);
    cluster.schedulers[0].kill();
    let refused = cluster.run(&["submit", &file, "--timeout", "1s"]);
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(5) && said.contains("job `noop` was not submitted"), "{said}");
}
