//! Replicas removed and replaced, a lost majority, backup and restore, and a restart of everything, with jobs running.

use raftwerk_tests::cluster::{Cluster, Launch, Process, text, until_it_ends};
use serde_json::Value;
use std::process::Output;

const TASKS: u64 = 240;

/// A job that takes some seconds on a core; each task says its own number, so that the sum shows each was counted once.
fn slow_job(cluster: &Cluster) -> u64 {
    slow_job_of(cluster, TASKS)
}

fn slow_job_of(cluster: &Cluster, tasks: u64) -> u64 {
    let text = format!(
        "[job]\nname = \"slow\"\n[input]\nrange = {{ start = 0, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nparams = {{ sleep_us = 60000 }}\n"
    );
    let job = cluster.submit(&cluster.job_file("slow.toml", &text), &["--idempotency-key", "slow"]);
    cluster.until("some tasks accepted", || cluster.accepted(job) > 5);
    job
}

fn done_and_each_task_counted_once(cluster: &Cluster, job: u64) -> Value {
    done_and_each_counted_once(cluster, job, TASKS)
}

fn done_and_each_counted_once(cluster: &Cluster, job: u64, tasks: u64) -> Value {
    let view = cluster.wait_done(job);
    let tallies = view["tallies"].as_array().expect("tallies");
    let value = tallies.iter().find(|t| t["name"] == "value").expect("the sum of the tasks' numbers");
    assert_eq!(value["total"], (tasks * (tasks - 1) / 2).to_string(), "{view:#}");
    assert_eq!(view["stages"][0]["accepted"], tasks);
    view
}

fn replica_of(process: &Process) -> u64 {
    process.ready["replica"].as_u64().expect("a replica's number")
}

fn remove(cluster: &Cluster, replica: u64) -> Output {
    cluster.run(&["cluster", "remove", &replica.to_string()])
}

fn removed(cluster: &Cluster, replica: u64) {
    let output = remove(cluster, replica);
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), cluster.logs());
}

/// Replicas by number, and whether each answers.
fn members(cluster: &Cluster) -> Vec<(u64, bool)> {
    let view = cluster.json(&["cluster", "show"]);
    let replicas = view["replicas"].as_array().expect("replicas");
    replicas.iter().map(|r| (r["replica"].as_u64().expect("a number"), r["answers"] == true && r["voter"] == true)).collect()
}

fn all_answer(cluster: &Cluster, count: usize) {
    cluster.until(&format!("{count} voters answer"), || {
        let members = members(cluster);
        members.len() == count && members.iter().all(|(_, answers)| *answers)
    });
}

/// A further replica, through the one that leads.
fn join(cluster: &mut Cluster, n: usize) {
    let through = cluster.addresses[cluster.leader()].clone();
    let name = format!("scheduler-{n}");
    let mut args = ["scheduler", "start", "--listen", "127.0.0.1:0", "--name", &name, "--join", &through].map(String::from).to_vec();
    args.extend(["--data-dir".into(), cluster.path(&name).display().to_string()]);
    args.extend(["--token-file".into(), cluster.path("scheduler-1/join-token").display().to_string()]);
    let process = Process::launch(&name, &args, cluster.home.path(), &Launch::default());
    cluster.addresses.push(process.ready["address"].as_str().expect("an address").to_string());
    cluster.schedulers.push(process);
}

/// Starts a scheduler that must end by itself; its exit code and what it said.
fn ends(cluster: &Cluster, name: &str, more: &[&str]) -> (Option<i32>, String) {
    let dir = cluster.path(name).display().to_string();
    let mut args = vec!["scheduler", "start", "--listen", "127.0.0.1:0", "--name", name, "--data-dir", &dir];
    args.extend(more);
    until_it_ends(cluster.command(&args))
}

#[test]
fn a_lost_replica_is_replaced_while_a_job_runs_and_what_was_removed_stops() {
    let mut cluster = Cluster::start(3, 1);
    let job = slow_job(&cluster);
    let leader = cluster.leader();
    let [lost, other] = [1, 2].map(|n| (leader + n) % 3);
    let (lost_id, other_id) = (replica_of(&cluster.schedulers[lost]), replica_of(&cluster.schedulers[other]));
    cluster.schedulers[lost].kill();
    // At once, before the leader may have missed it.
    let wrong = remove(&cluster, other_id);
    let said = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(6), "{said}");
    assert!(said.contains("only 1 of 2 voters would answer") && said.contains(&format!("replica {lost_id} ")), "{said}");
    removed(&cluster, lost_id);
    removed(&cluster, lost_id); // again, as after a lost answer
    join(&mut cluster, 4);
    all_answer(&cluster, 3);

    // The lost one comes back with its old membership, and is told.
    let name = format!("scheduler-{}", lost + 1);
    let (code, said) = ends(&cluster, &name, &[]);
    assert_ne!(code, Some(0));
    assert!(said.contains(&format!("replica {lost_id} was taken out of the cluster")) && said.contains("--join"), "{said}");

    // The leader itself goes: it hands over, is taken out by its successor, and is told although it runs.
    let leader = cluster.leader();
    removed(&cluster, replica_of(&cluster.schedulers[leader]));
    assert_ne!(cluster.schedulers[leader].wait(), Some(0));
    assert!(cluster.schedulers[leader].log().contains("was taken out of the cluster"), "{}", cluster.schedulers[leader].log());
    all_answer(&cluster, 2);
    done_and_each_task_counted_once(&cluster, job);
    let unknown = remove(&cluster, 99);
    assert_eq!(unknown.status.code(), Some(7), "{}", text(&unknown.stderr));
}

#[test]
fn an_emptied_directory_does_not_start_under_its_old_identity() {
    let mut cluster = Cluster::start(3, 0);
    for index in [0, 1] {
        cluster.schedulers[index].signal("TERM");
        cluster.schedulers[index].wait();
        let name = format!("scheduler-{}", index + 1);
        let dir = cluster.path(&name);
        for file in ["raft.redb", "raft.mark", "raft-identity"] {
            std::fs::remove_file(dir.join(file)).expect("the log is removed");
        }
        let (code, said) = ends(&cluster, &name, &["--bootstrap"]);
        assert_eq!(code, Some(2), "{said}");
        let id = replica_of(&cluster.schedulers[index]);
        assert!(said.contains("its log is gone") && said.contains(&format!("raftwerk cluster remove {id}")), "{said}");
        assert!(!dir.join("raft.redb").exists());
        if index == 0 {
            removed(&cluster, id);
        }
    }
}

/// Its keys were overwritten by those of a new cluster before the log was found to be another's.
#[test]
fn a_log_without_its_identity_is_refused_and_everything_beside_it_stays_as_it_is() {
    let mut cluster = Cluster::start(1, 0);
    cluster.schedulers[0].signal("TERM");
    cluster.schedulers[0].wait();
    let dir = cluster.path("scheduler-1");
    let read = |name: &str| std::fs::read(dir.join(name)).expect("a file");
    let before = ["admin.pem", "join-token"].map(read);
    std::fs::rename(dir.join("identity"), cluster.path("identity-elsewhere")).expect("moved");
    for more in [&["--bootstrap"][..], &[], &["--restore", "/dev/null"]] {
        let (code, said) = ends(&cluster, "scheduler-1", more);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("the identity that goes with it is gone") && !said.contains("--bootstrap"), "{said}");
        assert!(["admin.pem", "join-token"].map(read) == before && !dir.join("identity").exists(), "{more:?}");
    }
    // Nor is a cluster begun where the log is gone as well, over what may be the last of its keys.
    let files = ["raft.redb", "raft.mark", "raft-identity"];
    files.iter().for_each(|name| std::fs::rename(dir.join(name), cluster.path(name)).expect("moved"));
    let (code, said) = ends(&cluster, "scheduler-1", &["--bootstrap"]);
    assert!(code == Some(2) && said.contains("would replace what is left of its keys"), "{said}");
    assert!(["admin.pem", "join-token"].map(read) == before && !dir.join("identity").exists());
    files.iter().for_each(|name| std::fs::rename(cluster.path(name), dir.join(name)).expect("moved back"));
    std::fs::rename(cluster.path("identity-elsewhere"), dir.join("identity")).expect("moved back");
    cluster.restart_scheduler(0);
}

#[test]
fn a_log_that_is_not_named_and_an_identity_that_is_damaged_say_how_to_go_on() {
    let mut cluster = Cluster::start(1, 0);
    cluster.schedulers[0].signal("TERM");
    cluster.schedulers[0].wait();
    let dir = cluster.path("scheduler-1");
    std::fs::remove_file(dir.join("raft-identity")).expect("removed");
    let (code, said) = ends(&cluster, "scheduler-1", &[]);
    assert!(
        code == Some(2) && said.contains("raft-identity, which says in words whose it is, is gone") && said.contains("`touch "),
        "{said}"
    );
    std::fs::write(dir.join("raft-identity"), "").expect("touched");
    let certificate = dir.join("identity/identity.crt");
    let whole = std::fs::read(&certificate).expect("a certificate");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&certificate, damaged).expect("written");
    let (code, said) = ends(&cluster, "scheduler-1", &[]);
    assert!(code == Some(2) && said.contains("identity.crt is damaged") && said.contains("raftwerk cluster remove"), "{said}");
    assert!(!said.contains("join again"), "it would be refused: {said}");
    std::fs::write(&certificate, whole).expect("written");
    cluster.restart_scheduler(0);
}

#[test]
fn a_survivor_of_a_lost_majority_goes_on_in_a_new_epoch_and_nobody_else_does() {
    let mut cluster = Cluster::start(3, 1);
    let old_token = std::fs::read_to_string(cluster.path("scheduler-1/join-token")).expect("a token");
    let job = slow_job(&cluster);
    for process in &mut cluster.schedulers {
        process.kill();
    }
    let recover = |n: usize, yes: bool| {
        let dir = cluster.path(&format!("scheduler-{n}")).display().to_string();
        let mut args = vec!["-o", "json", "scheduler", "recover", "--data-dir", &dir];
        args.extend(yes.then_some("--yes"));
        let output = cluster.run(&args);
        let view: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
        (output, view)
    };
    // All three are looked at, nothing is changed, and the one with most of the log survives.
    let furthest = (1..=3).max_by_key(|n| {
        let (output, view) = recover(*n, false);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("nothing was changed"));
        assert_eq!(view["others"].as_array().map(Vec::len), Some(2));
        (view["last_log_term"].as_u64(), view["last_log_index"].as_u64())
    });
    let survivor = furthest.expect("three of them");
    let (output, view) = recover(survivor, true);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(view["recovered"], true);
    cluster.restart_survivor(survivor - 1);
    // Where it was before: the workers and contexts look there.
    assert_eq!(cluster.schedulers[survivor - 1].ready["address"], *cluster.addresses[survivor - 1]);
    cluster.until("the survivor leads alone", || members(&cluster) == [(replica_of(&cluster.schedulers[survivor - 1]), true)]);
    // It leads before the entry that begins the epoch is on its disk.
    cluster.until("the new epoch has begun", || cluster.json(&["cluster", "show"])["epoch"] == 1);
    done_and_each_task_counted_once(&cluster, job);

    // The others come back with a majority of the old membership, and are told at the first word.
    for n in (1..=3).filter(|n| *n != survivor) {
        let (code, said) = ends(&cluster, &format!("scheduler-{n}"), &[]);
        assert_ne!(code, Some(0));
        assert!(said.contains("was taken out of the cluster"), "{said}");
    }
    // The old token opens nothing, the new one does.
    std::fs::write(cluster.path("old-token"), old_token).expect("written");
    let address = cluster.addresses[survivor - 1].clone();
    let join = |token: &str| ["--join".to_string(), address.clone(), "--token-file".into(), cluster.path(token).display().to_string()];
    let (code, said) = ends(&cluster, "scheduler-4", &join("old-token").each_ref().map(String::as_str));
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("the join token is wrong"), "{said}");
    let dir = cluster.path("scheduler-5").display().to_string();
    let mut args =
        ["scheduler", "start", "--listen", "127.0.0.1:0", "--name", "scheduler-5", "--data-dir", &dir].map(String::from).to_vec();
    args.extend(join(&format!("scheduler-{survivor}/join-token")));
    let fifth = Process::launch("scheduler-5", &args, cluster.home.path(), &Launch::default());
    assert!(replica_of(&fifth) > 1000, "numbers that lost entries may have given away are left out");
    cluster.until("two voters", || members(&cluster).len() == 2);
}

#[test]
fn a_backup_begins_a_new_cluster_with_the_old_jobs() {
    let mut cluster = Cluster::start(1, 1);
    let quick = "[job]\nname = \"quick\"\n[input]\nrange = { start = 0, count = 40, tasks = 4 }\n[map]\nkernel = \"noop\"\n";
    let first = cluster.submit(&cluster.job_file("quick.toml", quick), &[]);
    cluster.wait_done(first);
    let job = slow_job(&cluster);
    let file = cluster.path("cluster.backup").display().to_string();
    let made = cluster.json(&["cluster", "backup", &file]);
    assert_eq!(made["jobs"], 2);
    let again = cluster.run(&["cluster", "backup", &file]);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again.stderr));
    cluster.schedulers[0].kill();
    cluster.workers[0].kill();

    // A damaged backup leaves the directory empty, an intact one can still be restored there.
    let mut bytes = std::fs::read(&file).expect("the backup");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 16;
    std::fs::write(cluster.path("damaged"), &bytes).expect("written");
    let damaged = cluster.path("damaged").display().to_string();
    let (code, said) = ends(&cluster, "restored", &["--restore", &damaged]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("fails its checksum"), "{said}");

    let dir = cluster.path("restored").display().to_string();
    let args = ["scheduler", "start", "--listen", "127.0.0.1:0", "--name", "restored", "--data-dir", &dir, "--restore", &file];
    let restored = Process::launch("restored", &args.map(String::from), cluster.home.path(), &Launch::default());
    let mut new = Cluster::empty();
    new.addresses.push(restored.ready["address"].as_str().expect("an address").to_string());
    std::fs::create_dir_all(new.path("scheduler-1")).expect("made");
    for name in ["admin.pem", "join-token"] {
        std::fs::copy(cluster.path("restored").join(name), new.path("scheduler-1").join(name)).expect("copied");
    }
    new.until("the new epoch", || new.json(&["cluster", "show"])["epoch"] == 1);
    assert_eq!(new.job(first)["state"], "done");
    let same = std::fs::read_to_string(cluster.path("slow.toml")).expect("the job file");
    assert_eq!(new.submit(&new.job_file("slow.toml", &same), &["--idempotency-key", "slow"]), job, "the key still names its job");
    new.add_worker(1, &["--cpus", "1", "--no-gpu"]);
    done_and_each_task_counted_once(&new, job);
    // Into a directory that holds a replica nothing is restored.
    let (code, said) = ends(&cluster, "restored", &["--restore", &file]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("holds a replica already"), "{said}");
    let other = new.submit(&new.job_file("quick.toml", quick), &[]);
    assert!(other > 1000, "numbers given away after the backup are left out");
    new.wait_done(other);
}

#[test]
fn everything_restarts_one_by_one_and_no_task_of_the_running_job_fails() {
    let mut cluster = Cluster::start(3, 2);
    // Twice as much as the upgrade of as many processes has: it must outlast five restarts on a busy machine.
    let tasks = 800;
    let job = slow_job_of(&cluster, tasks);
    for index in 0..3 {
        cluster.schedulers[index].signal("TERM");
        assert_eq!(cluster.schedulers[index].wait(), Some(0), "{}", cluster.schedulers[index].log());
        cluster.restart_scheduler(index);
        all_answer(&cluster, 3);
    }
    for index in 0..2 {
        cluster.workers[index].signal("TERM");
        assert_eq!(cluster.workers[index].wait(), Some(0), "{}", cluster.workers[index].log());
        cluster.restart_worker(index);
        cluster.wait_for_workers(2);
    }
    assert!(cluster.accepted(job) < tasks, "the job ended before the last restart did, so this has shown little");
    let view = done_and_each_counted_once(&cluster, job, tasks);
    assert_eq!(view["stages"][0]["failed_attempts"], 0, "{view:#}");
}

#[test]
fn a_replica_that_is_not_told_where_to_listen_stays_where_it_was_and_says_the_same_address() {
    let cluster = Cluster::empty();
    let dir = cluster.path("s").display().to_string();
    let start = |more: &[&str]| {
        let args: Vec<String> =
            ["scheduler", "start", "--name", "s", "--data-dir", &dir].iter().chain(more).map(|w| w.to_string()).collect();
        let mut process = Process::launch("s", &args, cluster.home.path(), &Launch::default());
        process.signal("TERM");
        assert_eq!(process.wait(), Some(0), "{}", process.log());
        process.ready["address"].as_str().expect("an address").to_owned()
    };
    let first = start(&["--bootstrap", "--listen", "127.0.0.1:0"]);
    assert_eq!(start(&[]), first);
    assert_eq!(start(&["--listen", &first, "--advertise", "scheduler.example:7300"]), "scheduler.example:7300");
    assert_eq!(start(&[]), "scheduler.example:7300");
    assert_eq!(start(&["--listen", &first]), first, "what it was told before belongs to the address before");
    assert_eq!(start(&[]), first);
}

#[test]
fn a_worker_that_cannot_listen_or_is_given_a_schedulers_directory_says_so_and_leaves_nothing_there() {
    let mut cluster = Cluster::start(1, 1);
    cluster.workers[0].signal("TERM");
    assert_eq!(cluster.workers[0].wait(), Some(0), "{}", cluster.workers[0].log());
    let start = |dir: &str, more: &[&str]| {
        let dir = cluster.path(dir).display().to_string();
        let mut args = vec!["worker", "start", "--join", &cluster.addresses[0], "--data-dir", &dir];
        args.extend(more);
        until_it_ends(cluster.command(&args))
    };
    // An address for documentation, which no machine has.
    let (code, said) = start("worker-1", &["--listen", "192.0.2.1:0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("cannot listen on 192.0.2.1:0") && said.contains("--listen"), "{said}");
    let (code, said) = start("scheduler-1", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the identity of a scheduler"), "{said}");
    assert!(!cluster.path("scheduler-1/lock").exists() && cluster.path("scheduler-1/LOCK").exists());
}

#[test]
fn a_job_says_why_it_waits_when_every_worker_is_held_back() {
    let cluster = Cluster::start(1, 1);
    cluster.json(&["worker", "drain", "worker-1"]);
    let quick = "[job]\nname = \"quick\"\n[input]\nrange = { start = 0, count = 40, tasks = 4 }\n[map]\nkernel = \"noop\"\n";
    let job = cluster.submit(&cluster.job_file("quick.toml", quick), &[]).to_string();
    let shown = cluster.run(&["job", "show", &job]);
    assert!(
        text(&shown.stdout).contains("waits: worker ") && text(&shown.stdout).contains("(worker-1) is drained"),
        "{}",
        text(&shown.stdout)
    );
    let said = cluster.path("said");
    let file = std::fs::File::create(&said).expect("a file");
    let mut waiting =
        cluster.command(&["job", "wait", &job]).stdout(std::process::Stdio::null()).stderr(file).spawn().expect("raftwerk runs");
    let so_far = || std::fs::read_to_string(&said).unwrap_or_default();
    cluster.until("the one who waits hears why", || so_far().contains("the job waits: worker "));
    assert!(!so_far().contains(" left"), "nothing runs, so nobody knows how long: {}", so_far());
    cluster.json(&["worker", "release", "worker-1"]);
    assert!(waiting.wait().expect("it ends").success(), "{}", so_far());
    let dropped = cluster.run(&["job", "drop", &job]);
    assert_eq!(dropped.status.code(), Some(6));
    assert!(text(&dropped.stderr).contains("has no output that could be dropped"), "{}", text(&dropped.stderr));
}
