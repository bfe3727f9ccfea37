//! Neighbouring releases in one cluster, a rolling upgrade with a job running, and releases that are too far apart.
//!
//! The former release is this build standing in for it, which debug builds can: it says, writes and refuses what that one did. A real one is taken
//! instead when it is at hand: `RAFTWERK_FORMER_PROGRAM=PATH cargo test -p raftwerk-tests --test upgrade`.

use raftwerk_tests::cluster::{Cluster, Launch, merged_rows, text, until_it_ends};
use raftwerk_tests::words::{expected_rows, word_count, write_text};
use serde_json::Value;
use std::process::Stdio;

const TASKS: u64 = 400;
const ONE_CORE: [&str; 3] = ["--cpus", "1", "--no-gpu"];
/// The format that came with this release.
const FORMAT: u64 = 3;

/// This build as one that speaks `protocol` and the one before it.
fn stand_in_for(protocol: u32) -> Launch {
    if !cfg!(debug_assertions) {
        panic!("only debug builds stand in for others; take a real program with RAFTWERK_FORMER_PROGRAM");
    }
    Launch { env: vec![("RAFTWERK_STAND_IN_FOR".into(), protocol.to_string())], ..Launch::default() }
}

fn former() -> Launch {
    match std::env::var_os("RAFTWERK_FORMER_PROGRAM") {
        Some(program) => Launch { program: Some(program.into()), ..Launch::default() },
        None => stand_in_for(1),
    }
}

fn noop(cluster: &Cluster, name: &str, tasks: u64, sleep_us: u64) -> String {
    let text = format!(
        "[job]\nname = \"{name}\"\n[input]\nrange = {{ start = 0, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nparams = {{ sleep_us = {sleep_us} }}\n"
    );
    cluster.job_file(&format!("{name}.toml"), &text)
}

fn done_and_each_task_counted_once(cluster: &Cluster, job: u64, tasks: u64) -> Value {
    let view = cluster.wait_done(job);
    let tallies = view["tallies"].as_array().expect("tallies");
    let value = tallies.iter().find(|t| t["name"] == "value").expect("the sum of the tasks' numbers");
    assert_eq!(value["total"], (tasks * (tasks - 1) / 2).to_string(), "{view:#}");
    assert_eq!(view["stages"][0]["failed_attempts"], 0, "{view:#}");
    view
}

fn log_format(cluster: &Cluster) -> u64 {
    cluster.json(&["cluster", "show"])["log_format"].as_u64().unwrap_or(0)
}

fn all_answer(cluster: &Cluster, count: usize) {
    cluster.until(&format!("{count} voters answer"), || {
        let view = cluster.json(&["cluster", "show"]);
        let replicas = view["replicas"].as_array().expect("replicas");
        replicas.len() == count && replicas.iter().all(|r| r["answers"] == true && r["voter"] == true)
    });
}

/// Nothing is written any more, and all replicas have the same state.
fn equal_states(cluster: &Cluster) {
    let mut seen = Value::Null;
    cluster.until("equal positions", || {
        seen = cluster.json(&["cluster", "show"]);
        let replicas = seen["replicas"].as_array().expect("replicas");
        replicas.iter().all(|r| r["applied_index"] == replicas[0]["applied_index"])
    });
    let replicas = seen["replicas"].as_array().expect("replicas");
    assert!(replicas.iter().all(|r| r["state_hash"] == replicas[0]["state_hash"]), "{seen:#}");
}

/// Starts a process that must end by itself; its exit code and what it said.
fn ends(cluster: &Cluster, launch: &Launch, args: &[&str]) -> (Option<i32>, String) {
    let mut command = cluster.command(args);
    if let Some(program) = &launch.program {
        let mut other = std::process::Command::new(program);
        other.args(args).envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).stdin(Stdio::null());
        command = other;
    }
    command.envs(launch.env.iter().cloned());
    until_it_ends(command)
}

#[test]
fn a_cluster_is_upgraded_process_by_process_while_a_job_runs() {
    let mut cluster = Cluster::empty();
    for n in 1..=3 {
        cluster.launch_scheduler(n, &former());
    }
    for n in 1..=2 {
        cluster.launch_worker(n, &ONE_CORE, &former());
    }
    cluster.wait_for_workers(2);
    let job = cluster.submit(&noop(&cluster, "slow", TASKS, 60_000), &[]);
    cluster.until("some tasks accepted", || cluster.accepted(job) > 5);
    let home = cluster.home.path().to_path_buf();

    for index in 0..2 {
        Cluster::replace(&mut cluster.schedulers[index], &home, &Launch::default());
        all_answer(&cluster, 3);
    }
    // A replica of the new release leads one of the former release, and does not write what that one could not read.
    while cluster.leader() == 2 {
        // It hands over when it stops.
        Cluster::replace(&mut cluster.schedulers[2], &home, &former());
        all_answer(&cluster, 3);
    }
    let before = cluster.accepted(job);
    cluster.until("the job goes on", || cluster.accepted(job) > before + 5);
    assert!(log_format(&cluster) < FORMAT);
    let too_early = cluster.run(&["worker", "drain", "worker-1"]);
    let said = text(&too_early.stderr);
    assert_eq!(too_early.status.code(), Some(6), "{said}");
    assert!(said.contains("not before every replica runs this release"), "{said}");
    let shown = text(&cluster.run(&["cluster", "show"]).stdout);
    let behind = cluster.schedulers[2].ready["replica"].as_u64().expect("a number");
    assert!(shown.contains(&format!("log format 2, not {FORMAT} yet: replica {behind} has not said")), "{shown}");

    Cluster::replace(&mut cluster.schedulers[2], &home, &Launch::default());
    all_answer(&cluster, 3);
    cluster.until("the new format", || log_format(&cluster) == FORMAT);
    for index in 0..2 {
        Cluster::replace(&mut cluster.workers[index], &home, &Launch::default());
        cluster.wait_for_workers(2);
    }
    assert!(cluster.accepted(job) < TASKS, "the job ended before the upgrade did, so this has shown little");
    done_and_each_task_counted_once(&cluster, job, TASKS);
    equal_states(&cluster);

    // What only the new format can say.
    cluster.json(&["worker", "drain", "worker-1"]);
    let drained = |cluster: &Cluster| cluster.json(&["worker", "show", "worker-1"])["drained"] == true;
    assert!(drained(&cluster));
    let one = cluster.submit(&noop(&cluster, "one", 40, 1_000), &[]);
    let view = done_and_each_task_counted_once(&cluster, one, 40);
    let shares = view["shares"].as_array().expect("which device did how much");
    assert!(!shares.is_empty() && shares.iter().all(|share| share["worker_name"] == "worker-2"), "{view:#}");
    cluster.json(&["worker", "release", "worker-1"]);
    assert!(!drained(&cluster));
}

#[test]
fn two_releases_hold_the_same_state_and_the_upgrade_can_be_taken_back_until_it_is_complete() {
    let mut cluster = Cluster::empty();
    for launch in [former(), Launch::default(), former()] {
        cluster.launch_scheduler(cluster.schedulers.len() + 1, &launch);
    }
    cluster.launch_worker(1, &ONE_CORE, &former());
    // A worker of the new release may come first, too.
    cluster.launch_worker(2, &ONE_CORE, &Launch::default());
    cluster.wait_for_workers(2);
    let home = cluster.home.path().to_path_buf();
    for (round, launch) in [former(), Launch::default(), former()].iter().enumerate() {
        Cluster::replace(&mut cluster.schedulers[1], &home, launch);
        all_answer(&cluster, 3);
        let job = cluster.submit(&noop(&cluster, &format!("round-{round}"), 60, 1_000), &[]);
        done_and_each_task_counted_once(&cluster, job, 60);
        equal_states(&cluster);
    }
    assert!(log_format(&cluster) < FORMAT);
    // Each of the two workers fetches what the other one has written.
    let (input, out) = (cluster.path("text"), cluster.path("out"));
    let expected = expected_rows(&write_text(&input));
    let words = cluster.submit(&cluster.job_file("words.toml", &word_count(&input, &out, 4)), &[]);
    cluster.wait_done(words);
    assert_eq!(merged_rows(&out), expected);
}

#[test]
fn what_is_too_old_or_too_new_is_refused_with_both_versions() {
    let mut cluster = Cluster::start(1, 0);
    cluster.until("a cluster begins with the newest format", || log_format(&cluster) == FORMAT);
    let address = cluster.addresses[0].clone();
    let token = cluster.path("scheduler-1/join-token").display().to_string();
    let join = |cluster: &Cluster, kind: &str, name: &str, launch: &Launch| {
        let dir = cluster.path(name).display().to_string();
        ends(
            cluster,
            launch,
            &[kind, "start", "--listen", "127.0.0.1:0", "--name", name, "--data-dir", &dir, "--join", &address, "--token-file", &token],
        )
    };
    let refused = |(code, said): (Option<i32>, String), both: [&str; 2]| {
        assert_eq!(code, Some(6), "{said}");
        assert!(both.iter().all(|version| said.contains(version)), "{said}");
    };
    refused(join(&cluster, "scheduler", "former", &former()), ["entries of format 4", "reads up to format 2"]);
    refused(join(&cluster, "scheduler", "next-but-one", &stand_in_for(4)), ["protocols 1 to 2", "protocols 3 to 4"]);
    refused(join(&cluster, "worker", "ancient", &stand_in_for(0)), ["protocols 1 to 2", "protocol 0"]);

    // Neighbours are no strangers. The former worker joined already; its next release but one is not let into the session.
    for (n, launch) in [former(), stand_in_for(3)].iter().enumerate() {
        cluster.launch_worker(n + 1, &ONE_CORE, launch);
    }
    cluster.wait_for_workers(2);
    let job = cluster.submit(&noop(&cluster, "neighbours", 60, 1_000), &[]);
    done_and_each_task_counted_once(&cluster, job, 60);
    cluster.workers[0].kill();
    refused(join(&cluster, "worker", "worker-1", &stand_in_for(4)), ["protocols 1 to 2", "protocols 3 to 4"]);

    // The way back is closed: the log has what the former release does not read.
    cluster.schedulers[0].signal("TERM");
    assert_eq!(cluster.schedulers[0].wait(), Some(0));
    let dir = cluster.path("scheduler-1").display().to_string();
    let (code, said) = ends(&cluster, &former(), &["scheduler", "start", "--name", "scheduler-1", "--data-dir", &dir]);
    // A real one of before did not know that its release is the trouble, and ended with 1.
    assert!(matches!(code, Some(6 | 1)), "{said}");
    assert!(said.contains("has format 4") && said.contains("reads up to"), "{said}");
}
