//! Real processes on real sockets.

use raftwerk_tests::cluster::{Cluster, merged_rows, text};
use raftwerk_tests::words::{expected_rows, word_count, write_text};
use std::time::Duration;

fn noop(tasks: u64, sleep_us: u64) -> String {
    format!(
        "[job]\nname = \"noop\"\n[input]\nrange = {{ start = 0, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nparams = {{ sleep_us = {sleep_us} }}\n"
    )
}

fn pi(device: &str) -> String {
    format!(
        "[job]\nname = \"pi\"\n[input]\nrange = {{ start = 0, count = 200003, tasks = 17 }}\n[map]\nkernel = \"monte_carlo_pi\"\ndevice = \"{device}\"\n"
    )
}

fn tally(job: &serde_json::Value, name: &str) -> u128 {
    let tallies = job["tallies"].as_array().expect("tallies");
    let total = tallies.iter().find(|t| t["name"] == name).unwrap_or_else(|| panic!("no tally {name}: {job:#}"));
    total["total"].as_str().expect("a decimal").parse().expect("a number")
}

fn sum_to(n: u64) -> u128 {
    u128::from(n) * u128::from(n - 1) / 2
}

#[test]
fn counting_words_gives_the_same_rows_for_1_or_16_partitions_and_1_or_3_workers() {
    let mut cluster = Cluster::start(1, 1);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    for (name, partitions) in [("one", 1), ("sixteen", 16)] {
        let out = cluster.path(name);
        let job = cluster.submit(&cluster.job_file("words.toml", &word_count(&input, &out, partitions)), &[]);
        let view = cluster.wait_done(job);
        assert_eq!(merged_rows(&out), expected, "{partitions} partitions");
        assert_eq!(view["parts"].as_array().map(Vec::len), Some(partitions as usize));
        assert!(out.join("manifest.json").exists());
    }
    cluster.add_worker(2, &["--cpus", "1", "--no-gpu"]);
    cluster.add_worker(3, &["--cpus", "1", "--no-gpu"]);
    cluster.wait_for_workers(3);
    let out = cluster.path("three-workers");
    let job = cluster.submit(&cluster.job_file("words.toml", &word_count(&input, &out, 5)), &[]);
    let view = cluster.wait_done(job);
    assert_eq!(merged_rows(&out), expected);
    let map_workers = view["shares"].as_array().expect("shares").iter().filter(|s| s["stage"] == "map").count();
    assert!(map_workers >= 2, "the shuffle never crossed workers: {:#}", view["shares"]);
    assert_eq!(std::fs::read(cluster.path("one/part-00000.csv")).expect("a part").split(|b| *b == b'\n').next(), Some(&b"word,count"[..]));
}

#[test]
fn every_task_counts_once_when_leader_and_worker_are_killed() {
    let mut cluster = Cluster::start(3, 2);
    let tasks = 2000;
    let job = cluster.submit(&cluster.job_file("noop.toml", &noop(tasks, 2000)), &[]);
    let waiting = cluster.command(&["-q", "job", "wait", &job.to_string()]).spawn().expect("job wait starts");
    cluster.until("some tasks accepted", || cluster.accepted(job) > 50);
    let leader = cluster.leader();
    cluster.schedulers[leader].kill();
    cluster.until("progress under the next leader", || cluster.accepted(job) > 200);
    cluster.workers[0].kill();
    let status = waiting.wait_with_output().expect("job wait ends").status;
    assert_eq!(status.code(), Some(0), "`job wait` survives a change of leader");
    let view = cluster.job(job);
    assert_eq!(view["state"], "done");
    assert_eq!(tally(&view, "value"), sum_to(tasks));
}

#[test]
fn a_job_ends_after_all_schedulers_died_together() {
    let mut cluster = Cluster::start(3, 1);
    let tasks = 1500;
    let job = cluster.submit(&cluster.job_file("noop.toml", &noop(tasks, 2000)), &[]);
    cluster.until("some tasks accepted", || cluster.accepted(job) > 50);
    for scheduler in &mut cluster.schedulers {
        scheduler.kill();
    }
    std::thread::sleep(Duration::from_millis(300));
    cluster.restart_all_schedulers();
    let view = cluster.wait_done(job);
    assert_eq!(tally(&view, "value"), sum_to(tasks));
}

#[test]
fn map_output_lost_with_its_worker_is_made_again() {
    let mut cluster = Cluster::start(1, 3);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let out = cluster.path("out");
    let job = cluster.submit(&cluster.job_file("words.toml", &word_count(&input, &out, 3)), &[]);
    cluster.until("map tasks accepted", || cluster.accepted(job) > 0);
    cluster.workers[1].kill();
    cluster.wait_done(job);
    assert_eq!(merged_rows(&out), expected);
}

#[test]
fn the_same_idempotency_key_is_the_same_job() {
    let cluster = Cluster::start(1, 1);
    let file = cluster.job_file("noop.toml", &noop(10, 0));
    let first = cluster.submit(&file, &["--idempotency-key", "k"]);
    assert_eq!(cluster.submit(&file, &["--idempotency-key", "k"]), first);
    let other = cluster.job_file("other.toml", &noop(11, 0));
    let output = cluster.run(&["submit", &other, "--idempotency-key", "k"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&format!("job {first}")), "{}", text(&output.stderr));
}

#[test]
fn jobs_fail_cancel_and_log_as_told() {
    let cluster = Cluster::start(1, 1);
    let failing = cluster.job_file("failing.toml", &noop(10, 0).replace("sleep_us = 0", "fail_task = \"3\""));
    let output = cluster.run(&["submit", "--wait", &failing]);
    assert_eq!(output.status.code(), Some(3), "a failed job: {}", text(&output.stderr));
    assert!(text(&output.stderr).contains("task 3"), "{}", text(&output.stderr));

    let slow = cluster.submit(&cluster.job_file("slow.toml", &noop(1000, 1_000_000)), &[]);
    cluster.until("leases", || cluster.job(slow)["stages"][0]["leased"].as_u64() > Some(0));
    let waiting = cluster.command(&["-q", "job", "wait", &slow.to_string()]).spawn().expect("job wait starts");
    assert!(cluster.run(&["job", "cancel", &slow.to_string()]).status.success());
    assert_eq!(waiting.wait_with_output().expect("it ends").status.code(), Some(4), "a cancelled job");

    let printing = cluster.submit(&cluster.job_file("print.toml", &noop(3, 0).replace("sleep_us = 0", "print = \"yes\"")), &[]);
    cluster.wait_done(printing);
    let logs = cluster.run(&["job", "logs", &printing.to_string()]);
    assert!(text(&logs.stdout).contains("task 2"), "{}{}", text(&logs.stdout), text(&logs.stderr));
}

#[test]
fn bad_submissions_are_refused_with_their_reason_and_leave_nothing() {
    let cluster = Cluster::start(1, 2);
    let missing = cluster.path("nowhere");
    let cases = [
        (word_count(&missing, &cluster.path("o"), 1), 6, vec!["worker-1", "worker-2", "nowhere"]),
        (pi("discrete"), 6, vec!["discrete", "worker-1", "worker-2"]),
        (noop(10, 0).replace("[map]", "[map]\ndevice = \"discrete\""), 2, vec!["discrete", "no GPU twin"]),
        (noop(10, 0).replace("\"noop\"\nparams", "\"noob\"\nparams"), 2, vec!["noob", "noop"]),
        (word_count(&missing, &cluster.path("o"), 0), 2, vec!["partitions"]),
    ];
    for (toml, code, words) in cases {
        let output = cluster.run(&["submit", &cluster.job_file("bad.toml", &toml)]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{toml}\n{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }
    assert_eq!(cluster.json(&["job", "list"])["jobs"].as_array().map(Vec::len), Some(0));
}

#[test]
fn an_output_that_exists_is_never_touched_unless_asked() {
    let cluster = Cluster::start(1, 1);
    let (input, out) = (cluster.path("text"), cluster.path("out"));
    let expected = expected_rows(&write_text(&input));
    std::fs::create_dir_all(&out).expect("a directory");
    std::fs::write(out.join("precious"), "mine").expect("a file");
    let toml = word_count(&input, &out, 2);
    let output = cluster.run(&["submit", &cluster.job_file("words.toml", &toml)]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert!(out.join("precious").exists());
    let replace = toml.replace("format = \"csv\"", "format = \"csv\"\nif_exists = \"replace\"");
    let output = cluster.run(&["submit", &cluster.job_file("words.toml", &replace)]);
    assert_eq!(output.status.code(), Some(6), "a stranger's directory is never replaced: {}", text(&output.stderr));
    assert!(out.join("precious").exists() && text(&output.stderr).contains("not replaced"));
    std::fs::remove_file(out.join("precious")).expect("the file can go");
    cluster.wait_done(cluster.submit(&cluster.job_file("words.toml", &replace), &[]));
    cluster.wait_done(cluster.submit(&cluster.job_file("words.toml", &replace), &[]));
    assert_eq!(merged_rows(&out), expected);
    let left: Vec<_> = std::fs::read_dir(cluster.home.path()).expect("home").filter_map(|e| e.ok()).map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains("raftwerk-tmp")), "left over: {left:?}");
}

/// The survivor of three went on naming the dead leader.
#[test]
fn without_a_majority_no_leader_is_named_and_what_is_missing_is_said() {
    let mut cluster = Cluster::start(3, 0);
    let leader = cluster.leader();
    let view = cluster.json(&["cluster", "show"]);
    assert_eq!(view["majority"], true, "{view:#}");
    assert!(view["replicas"].as_array().expect("replicas").iter().all(|r| r["answers"] == true && r["applied_index"].is_u64()), "{view:#}");
    let survivor = (0..3).find(|index| *index != leader).expect("another");
    for index in (0..3).filter(|index| *index != survivor) {
        cluster.schedulers[index].kill();
    }
    let view = cluster.json(&["cluster", "show"]);
    assert!(view["leader"].is_null() && view["majority"] == false, "{view:#}");
    let replicas = view["replicas"].as_array().expect("replicas");
    assert!(replicas.iter().all(|r| r["leader"] == false), "{view:#}");
    for replica in replicas {
        let alive = replica["address"].as_str() == Some(cluster.addresses[survivor].as_str());
        assert_eq!(replica["answers"], alive, "{view:#}");
        assert_eq!(replica["error"].is_null(), alive, "{view:#}");
    }
    let said = text(&cluster.run(&["cluster", "show"]).stdout);
    assert!(said.contains("no leader known") && said.contains("1 of 3 answer, which is no majority (2)"), "{said}");
    assert_eq!(said.matches("nothing listens there").count(), if view["last_leader"].is_null() { 2 } else { 3 }, "{said}");
}

#[test]
fn processes_end_cleanly_on_sigterm_and_continue_where_they_were() {
    let mut cluster = Cluster::start(1, 1);
    let job = cluster.submit(&cluster.job_file("noop.toml", &noop(100, 0)), &[]);
    cluster.wait_done(job);
    cluster.workers[0].signal("TERM");
    assert_eq!(cluster.workers[0].wait(), Some(0), "{}", cluster.workers[0].log());
    cluster.schedulers[0].signal("TERM");
    assert_eq!(cluster.schedulers[0].wait(), Some(0), "{}", cluster.schedulers[0].log());
    cluster.restart_scheduler(0);
    cluster.restart_worker(0);
    assert_eq!(cluster.job(job)["state"], "done");
    let again = cluster.submit(&cluster.job_file("noop.toml", &noop(100, 0)), &[]);
    assert_eq!(tally(&cluster.wait_done(again), "value"), sum_to(100));
}

#[test]
fn strangers_and_wrong_tokens_get_nothing() {
    let cluster = Cluster::start(1, 1);
    let other = Cluster::start(1, 0);
    let mut command = cluster.command(&["job", "list"]);
    command.env("RAFTWERK_CREDENTIAL", other.path("scheduler-1/admin.pem"));
    let output = command.output().expect("raftwerk runs");
    assert_eq!(output.status.code(), Some(6), "another cluster's credential: {}", text(&output.stderr));
    let dir = cluster.path("stranger");
    let token = other.path("scheduler-1/join-token");
    let output = cluster.run(&[
        "worker",
        "start",
        "--join",
        &cluster.addresses[0],
        "--token-file",
        &token.display().to_string(),
        "--data-dir",
        &dir.display().to_string(),
        "--no-gpu",
        "--cpus",
        "1",
    ]);
    assert_ne!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("cluster"), "{}", text(&output.stderr));
}

#[test]
fn a_data_directory_serves_one_process_of_one_cluster() {
    let cluster = Cluster::start(1, 1);
    let dir = cluster.path("scheduler-1").display().to_string();
    let start = ["scheduler", "start", "--name", "second", "--data-dir", &dir, "--bootstrap", "--listen"];
    // Port 0 means the port that this directory had before, which its owner holds: neither that nor a free port gets further than the lock.
    for listen in ["127.0.0.1:0".to_owned(), free_address()] {
        let second = cluster.run(&[&start[..], &[&listen]].concat());
        let said = text(&second.stderr);
        assert_eq!(second.status.code(), Some(2), "{said}");
        assert!(said.contains(&dir) && said.contains("in use by another process"), "{listen}: {said}");
        assert!(!said.contains("cannot listen"), "{said}");
    }
    let dir = cluster.path("worker-1").display().to_string();
    let second = cluster.run(&["worker", "start", "--data-dir", &dir, "--join", &cluster.addresses[0], "--no-gpu", "--cpus", "1"]);
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(
        said.contains(&dir) && said.contains("used by another worker process (pid ") && said.contains("fix: stop that process"),
        "{said}"
    );
}

/// Where nobody listens at the moment.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").to_string()
}
