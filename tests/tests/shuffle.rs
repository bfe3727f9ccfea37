//! Shuffle data and the loss of its holders, with real processes: what runs again is what was lost, and with copies nothing is.

use raftwerk_tests::cluster::{Cluster, Process, merged_rows};
use raftwerk_tests::words::{expected_rows, word_count, write_text};
use serde_json::Value;

const ONE_CPU: [&str; 3] = ["--cpus", "1", "--no-gpu"];

/// Tasks of the map stage that were run and accepted, by worker.
fn mapped(view: &Value, worker: Option<&str>) -> u64 {
    let shares = view["shares"].as_array().expect("shares").iter();
    let of_worker = shares.filter(|share| share["stage"] == "map" && worker.is_none_or(|name| share["worker_name"] == name));
    of_worker.map(|share| share["tasks"].as_u64().unwrap_or(0)).sum()
}

/// Stops the reduce stage before its first fetch, kills workers there, and lets it go on. The view before and after.
fn lose_holders(workers: usize, replicas: &str, kill: impl Fn(&Value) -> Vec<String>) -> (Value, Value) {
    let mut cluster = Cluster::with_fail_points(1, workers, &ONE_CPU, &["pause:reduce.fetch"]);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let out = cluster.path("out");
    let toml = word_count(&input, &out, 3).replace("[reduce]", &format!("{replicas}[reduce]\nmax_lease_tasks = 1"));
    let job = cluster.submit(&cluster.job_file("words.toml", &toml), &[]);
    cluster.until("the reduce stage began", || cluster.path("reduce.fetch").exists());
    let before = cluster.job(job);
    assert_eq!(before["stages"][0]["state"], "complete", "{before:#}");
    for name in kill(&before) {
        let process: &mut Process = cluster.workers.iter_mut().find(|process| process.name == name).expect("a worker of that name");
        process.kill();
        cluster.until("the loss is seen", || {
            let workers = cluster.json(&["worker", "list"]);
            workers["workers"].as_array().is_some_and(|all| all.iter().any(|w| w["name"] == name.as_str() && w["liveness"] == "lost"))
        });
    }
    std::fs::write(cluster.path("reduce.fetch.go"), "").expect("go on");
    let after = cluster.wait_done(job);
    assert_eq!(merged_rows(&out), expected);
    (before, after)
}

/// The worker with the most map tasks.
fn busiest(view: &Value) -> Vec<String> {
    let shares = view["shares"].as_array().expect("shares").iter().filter(|share| share["stage"] == "map");
    let busiest = shares.max_by_key(|share| share["tasks"].as_u64()).expect("a share");
    vec![busiest["worker_name"].as_str().expect("a name").to_owned()]
}

#[test]
fn exactly_the_map_output_that_was_lost_is_made_again() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let (before, after) = lose_holders(3, "", busiest);
    let lost = mapped(&before, Some(&busiest(&before)[0]));
    let tasks = before["stages"][0]["tasks"].as_u64().expect("tasks");
    assert!(0 < lost && lost < tasks, "the work was shared: {before:#}");
    assert_eq!(mapped(&after, None), tasks + lost, "{after:#}");
    let map = &after["stages"][0];
    assert_eq!((&map["generation"], &map["fenced"], &map["failed_attempts"]), (&2.into(), &0.into(), &0.into()));
    for (once, again) in before["tallies"].as_array().expect("tallies").iter().zip(after["tallies"].as_array().expect("tallies")) {
        assert!(once["stage"] != "map" || once == again, "counted once: {once} {again}");
    }
    let (counted, reduced) = (&map["counters"], &after["stages"][1]["counters"]);
    assert_eq!(counted, &before["stages"][0]["counters"], "counted once");
    assert!(counted["records_in"].as_u64() > Some(0) && counted["bytes_in"].as_u64() > Some(0), "{counted}");
    for (made, read) in [("records_out", "records_in"), ("bytes_out", "bytes_in")] {
        assert_eq!(counted[made], reduced[read], "all that map tasks made was read once: {after:#}");
    }
    let parts = after["parts"].as_array().expect("parts");
    let sum = |what: &str| parts.iter().map(|part| part[what].as_u64().unwrap_or(0)).sum::<u64>();
    assert_eq!((&reduced["records_out"], &reduced["bytes_out"]), (&sum("rows").into(), &sum("bytes").into()), "{after:#}");
}

#[test]
fn with_a_second_copy_the_loss_of_a_worker_costs_no_map_task() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let (before, after) = lose_holders(3, "shuffle_replicas = 2\n", busiest);
    let tasks = before["stages"][0]["tasks"].as_u64().expect("tasks");
    let copies = &before["shuffle_copies"][0];
    assert_eq!((&copies["two_places"], &copies["one_place"]), (&tasks.into(), &0.into()), "{before:#}");
    assert!(mapped(&before, Some(&busiest(&before)[0])) > 0);
    let map = &after["stages"][0];
    assert_eq!((mapped(&after, None), &map["generation"], &map["leases"]), (tasks, &1.into(), &before["stages"][0]["leases"]));
    assert_eq!(
        after["shuffle_copies"][0]["two_places"].as_u64().unwrap_or(0) + after["shuffle_copies"][0]["one_place"].as_u64().unwrap_or(0),
        tasks
    );
}

#[test]
fn alone_a_worker_finishes_without_copies_and_the_report_says_so() {
    let cluster = Cluster::start(1, 1);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let out = cluster.path("out");
    let toml = word_count(&input, &out, 2).replace("[reduce]", "shuffle_replicas = 2\n[reduce]");
    let job = cluster.submit(&cluster.job_file("words.toml", &toml), &[]);
    let view = cluster.wait_done(job);
    assert_eq!(merged_rows(&out), expected);
    assert_eq!(
        (&view["shuffle_copies"][0]["two_places"], &view["shuffle_copies"][0]["one_place"]),
        (&0.into(), &view["stages"][0]["tasks"])
    );
    let said = cluster.run(&["job", "result", &job.to_string()]);
    assert!(raftwerk_tests::cluster::text(&said.stdout).contains("at one only"), "{}", raftwerk_tests::cluster::text(&said.stdout));
}

#[test]
fn a_lost_second_copy_is_made_again_and_the_next_loss_costs_nothing_either() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let mut cluster = Cluster::with_fail_points(1, 3, &ONE_CPU, &["pause:reduce.fetch"]);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let out = cluster.path("out");
    // One reduce task: of several, those that end first would show that the waiting one is late, and another worker would take it.
    let toml = word_count(&input, &out, 1).replace("[reduce]", "shuffle_replicas = 2\n[reduce]\nmax_lease_tasks = 1");
    let job = cluster.submit(&cluster.job_file("words.toml", &toml), &[]);
    cluster.until("the reduce stage began", || cluster.path("reduce.fetch").exists());
    let before = cluster.job(job);
    let tasks = before["stages"][0]["tasks"].as_u64().expect("tasks");
    // The one that waits there keeps the job from its end.
    let others: Vec<String> = cluster
        .workers
        .iter()
        .filter(|worker| !worker.log().contains("a fail point is reached"))
        .map(|worker| worker.name.clone())
        .collect();
    assert_eq!(others.len(), 2);
    for name in others.iter().map(String::as_str) {
        cluster.until("every task has two places", || cluster.job(job)["shuffle_copies"][0]["two_places"] == tasks);
        cluster.workers.iter_mut().find(|process| process.name == name).expect("a worker of that name").kill();
        cluster.until("the loss is seen", || {
            let workers = cluster.json(&["worker", "list"]);
            workers["workers"].as_array().is_some_and(|all| all.iter().any(|w| w["name"] == name && w["liveness"] == "lost"))
        });
    }
    std::fs::write(cluster.path("reduce.fetch.go"), "").expect("go on");
    let after = cluster.wait_done(job);
    assert_eq!(merged_rows(&out), expected);
    assert_eq!((mapped(&after, None), &after["stages"][0]["generation"]), (tasks, &1.into()), "no map task ran again: {after:#}");
}

/// One worker asks for compressed data, the other does not, and a third knows nothing of it: what they fetch from each other is the same.
#[test]
fn workers_that_want_shuffle_data_compressed_go_together_with_those_that_do_not() {
    let mut cluster = Cluster::with_worker_flags(1, 2, &["--cpus", "1", "--no-gpu", "--shuffle-compression", "lz4"]);
    cluster.add_worker(3, &ONE_CPU);
    cluster.wait_for_workers(3);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let out = cluster.path("out");
    let view = cluster.wait_done(cluster.submit(&cluster.job_file("words.toml", &word_count(&input, &out, 6)), &[]));
    assert_eq!(merged_rows(&out), expected);
    assert_eq!(view["stages"][1]["failed_attempts"], 0, "{view:#}");
}
