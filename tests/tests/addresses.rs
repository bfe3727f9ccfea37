//! All schedulers are replaced by ones at other addresses: workers and contexts that were told the first ones go on.

use raftwerk_tests::cluster::{Cluster, Launch, Process, text, until_it_ends};
use serde_json::Value;
use std::process::Output;

const TASKS: u64 = 300;

fn job(cluster: &Cluster, name: &str, tasks: u64, sleep_us: u64) -> u64 {
    let text = format!(
        "[job]\nname = \"{name}\"\n[input]\nrange = {{ start = 0, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nparams = {{ sleep_us = {sleep_us} }}\n"
    );
    cluster.submit(&cluster.job_file(&format!("{name}.toml"), &text), &[])
}

fn done_and_each_task_counted_once(cluster: &Cluster, job: u64, tasks: u64) {
    let view = cluster.wait_done(job);
    let tallies = view["tallies"].as_array().expect("tallies");
    let value = tallies.iter().find(|t| t["name"] == "value").expect("the sum of the tasks' numbers");
    assert_eq!(value["total"], (tasks * (tasks - 1) / 2).to_string(), "{view:#}");
    assert_eq!(view["stages"][0]["failed_attempts"], 0, "{view:#}");
}

/// By the context alone.
fn by_context(cluster: &Cluster, args: &[&str]) -> Output {
    cluster.command(args).env_remove("RAFTWERK_ADDRESS").env_remove("RAFTWERK_CREDENTIAL").output().expect("raftwerk runs")
}

fn context_addresses(cluster: &Cluster) -> Vec<String> {
    let output = by_context(cluster, &["-o", "json", "context", "show"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
    let mut addresses: Vec<String> =
        shown["addresses"].as_array().expect("addresses").iter().map(|a| a.as_str().expect("an address").to_owned()).collect();
    addresses.sort();
    addresses
}

fn voters(cluster: &Cluster) -> usize {
    let view = cluster.json(&["cluster", "show"]);
    view["replicas"].as_array().expect("replicas").iter().filter(|r| r["answers"] == true && r["voter"] == true).count()
}

#[test]
fn workers_and_contexts_follow_when_every_scheduler_is_replaced() {
    let mut cluster = Cluster::start(3, 1);
    let first = cluster.addresses.clone();
    let credential = cluster.path("scheduler-1/admin.pem").display().to_string();
    let added = by_context(&cluster, &["context", "add", "mine", "--address", &first.join(","), "--credential", &credential]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    let slow = job(&cluster, "slow", TASKS, 60_000);
    cluster.until("some tasks accepted", || cluster.accepted(slow) > 5);

    for index in 0..3 {
        cluster.add_scheduler(index + 4);
        cluster.until("one more voter", || voters(&cluster) == 4);
        let old = cluster.schedulers[index].ready["replica"].as_u64().expect("a number").to_string();
        let removed = by_context(&cluster, &["cluster", "remove", &old]);
        assert!(removed.status.success(), "{}\n{}", text(&removed.stderr), cluster.logs());
        // Told by the first one that it speaks to; it need not be heard of any more.
        cluster.schedulers[index].kill();
        cluster.until("three voters", || voters(&cluster) == 3);
        // Any command that misses one of its addresses asks for the others.
        let listed = by_context(&cluster, &["worker", "list"]);
        assert!(listed.status.success(), "{}", text(&listed.stderr));
    }
    assert!(cluster.accepted(slow) < TASKS, "the job ended before the schedulers were replaced, so this has shown little");
    let mut now = cluster.addresses[3..].to_vec();
    now.sort();
    by_context(&cluster, &["cluster", "show"]);
    assert_eq!(context_addresses(&cluster), now);
    done_and_each_task_counted_once(&cluster, slow, TASKS);
    let mut noted = Vec::new();
    cluster.until("the worker has noted the new addresses", || {
        let text = std::fs::read_to_string(cluster.path("worker-1/schedulers")).unwrap_or_default();
        noted = text.lines().map(str::to_owned).collect();
        noted.sort();
        noted == now
    });

    // Its command line still names the first ones; its data directory knows better.
    let worker = cluster.workers[0].ready["worker"].clone();
    cluster.restart_worker(0);
    assert_eq!(cluster.workers[0].ready["worker"], worker);
    cluster.wait_for_workers(1);
    let again = job(&cluster, "again", 40, 1_000);
    done_and_each_task_counted_once(&cluster, again, 40);

    // A context that cannot be written is no reason to fail.
    std::fs::write(
        cluster.path("contexts.toml"),
        format!("current = \"mine\"\n[contexts.mine]\naddresses = [\"{}\", \"{}\"]\ncredential = \"{credential}\"\n", first[0], now[0]),
    )
    .expect("written");
    let file = std::fs::File::open(cluster.path("contexts.toml")).expect("the contexts");
    let mut command = cluster.command(&["cluster", "show"]);
    command.env_remove("RAFTWERK_ADDRESS").env_remove("RAFTWERK_CREDENTIAL");
    // Readable, and no file can be made beside it.
    let shown = command.env("RAFTWERK_CONFIG", "/proc/self/fd/0").stdin(file).output().expect("raftwerk runs");
    assert!(shown.status.success(), "{}", text(&shown.stderr));
}

/// A scheduler and a worker that was also given an address where nobody listens, which it is thus free to try for ever.
fn with_a_dead_address() -> Cluster {
    let mut cluster = Cluster::start(1, 0);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").to_string();
    let real = cluster.addresses[0].clone();
    cluster.addresses.push(nobody);
    cluster.add_worker(1, &["--cpus", "1", "--no-gpu"]);
    cluster.addresses = vec![real];
    cluster.wait_for_workers(1);
    cluster
}

/// It skipped the leader that it had left for as long as it knew any other address, and so never came back.
#[test]
fn a_worker_returns_to_the_only_scheduler_after_its_restart_although_it_knows_another_address() {
    let mut cluster = with_a_dead_address();
    cluster.schedulers[0].signal("TERM");
    assert_eq!(cluster.schedulers[0].wait(), Some(0), "{}", cluster.schedulers[0].log());
    cluster.restart_scheduler(0);
    cluster.wait_for_workers(1);
    let again = job(&cluster, "again", 20, 1_000);
    done_and_each_task_counted_once(&cluster, again, 20);
}

#[test]
fn a_worker_returns_to_the_only_scheduler_that_stood_still_although_it_knows_another_address() {
    let cluster = with_a_dead_address();
    cluster.schedulers[0].signal("STOP");
    let left = || cluster.workers[0].log().contains("leaving this scheduler");
    cluster.until("the worker has left the silent leader", left);
    cluster.schedulers[0].signal("CONT");
    let registered = || cluster.workers[0].log().matches("registered with the cluster").count() >= 2;
    cluster.until("the worker has come back", registered);
    let again = job(&cluster, "again", 20, 1_000);
    done_and_each_task_counted_once(&cluster, again, 20);
}

/// It asked the follower for ever, although that said at every answer who leads.
#[test]
fn a_worker_joins_through_a_replica_that_does_not_lead() {
    let mut cluster = Cluster::start(3, 0);
    let all = cluster.addresses.clone();
    let leader = cluster.leader();
    for (number, follower) in (0..3).filter(|index| *index != leader).enumerate() {
        cluster.addresses = vec![all[follower].clone()];
        // Returns when the worker is ready, and so has an identity.
        cluster.add_worker(number + 1, &["--cpus", "1", "--no-gpu"]);
        let log = cluster.workers[number].log();
        assert!(!log.contains("does not lead"), "being sent on is no failure: {log}");
    }
    cluster.addresses = all;
    cluster.wait_for_workers(2);
    let through = job(&cluster, "through", 20, 1_000);
    done_and_each_task_counted_once(&cluster, through, 20);
}

/// It was silent about it while its own cluster was there, and tried for ever when that was gone.
#[test]
fn a_worker_that_is_sent_to_another_cluster_says_whose_it_is_and_ends_when_its_own_is_gone() {
    let mut own = Cluster::start(1, 1);
    let other = Cluster::start(1, 0);
    let dir = own.path("worker-1").display().to_string();
    let start = || {
        let mut command = other.command(&["worker", "start", "--cpus", "1", "--no-gpu", "--name", "w", "--data-dir", &dir]);
        command.args(["--join", &other.addresses[0]]);
        command
    };
    own.workers[0].signal("TERM");
    assert_eq!(own.workers[0].wait(), Some(0), "{}", own.workers[0].log());
    // Its own cluster is there: that is where it works.
    let args: Vec<String> = start().get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    own.workers[0] = Process::launch("worker-1", &args, own.home.path(), &Launch::default());
    own.wait_for_workers(1);
    let said = || own.workers[0].log().contains("belongs to another cluster and is not used");
    own.until("the worker has said whose it is", said);
    assert!(own.workers[0].log().contains(&other.addresses[0]), "{}", own.workers[0].log());
    own.workers[0].signal("TERM");
    assert_eq!(own.workers[0].wait(), Some(0), "{}", own.workers[0].log());

    own.schedulers[0].kill();
    let (code, said) = until_it_ends(start());
    assert_eq!(code, Some(6), "{said}");
    for words in ["is the data directory of a worker of cluster", &other.addresses[0], &own.addresses[0], "\nfix: give --join an address"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(other.json(&["worker", "list"])["workers"].as_array().map(Vec::len), Some(0));
}
