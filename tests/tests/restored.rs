//! Results that stay on workers, in a cluster that began with a backup of theirs.

use raftwerk_tests::cluster::{Cluster, Launch, Process, merged_rows, text, until_it_ends};
use raftwerk_tests::words::{expected_rows, word_count, write_text};
use serde_json::Value;
use std::path::Path;

const ONE_CPU: [&str; 3] = ["--cpus", "1", "--no-gpu"];

fn on_workers(input: &Path, copies: u32) -> String {
    format!("{}copies = {copies}\n", word_count(input, Path::new("worker:"), 4))
}

fn bring(cluster: &Cluster, job: u64, to: &Path) -> (Option<i32>, String) {
    let output = cluster.run(&["job", "result", &job.to_string(), "--output", &to.display().to_string()]);
    (output.status.code(), text(&output.stderr))
}

/// A cluster that begins with the backup, and its only scheduler.
fn restored(old: &Cluster, backup: &str) -> (Cluster, Process) {
    let mut new = Cluster::empty();
    let dir = new.path("scheduler-1").display().to_string();
    let args = ["scheduler", "start", "--listen", "127.0.0.1:0", "--name", "restored", "--data-dir", &dir, "--restore", backup];
    let scheduler = Process::launch("restored", &args.map(String::from), old.home.path(), &Launch::default());
    new.addresses.push(scheduler.ready["address"].as_str().expect("an address").to_string());
    (new, scheduler)
}

/// Numbers of the old cluster's jobs that a worker has brought and nobody has asked for.
fn orphans(cluster: &Cluster, worker: &str) -> Vec<u64> {
    let view = cluster.json(&["worker", "show", worker]);
    view["load"]["orphans"]["jobs"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

#[test]
fn results_on_workers_come_with_their_workers_into_a_restored_cluster() {
    let mut old = Cluster::start(1, 2);
    let input = old.path("text");
    let expected = expected_rows(&write_text(&input));
    let run = |copies: u32| {
        let job = old.submit(&old.job_file("words.toml", &on_workers(&input, copies)), &[]);
        old.wait_done(job);
        job
    };
    let (twice, once) = (run(2), run(1));
    let backup = old.path("cluster.backup").display().to_string();
    old.json(&["cluster", "backup", &backup]);
    let younger = run(1);
    let home = old.home.path().to_path_buf();
    let files = |worker: &str, below: &str, job: u64| {
        std::fs::read_dir(home.join(worker).join(below).join(job.to_string())).map_or(0, |entries| entries.count())
    };
    let of_younger: Vec<usize> = ["worker-1", "worker-2"].map(|worker| files(worker, "results", younger)).to_vec();
    assert!(of_younger.iter().sum::<usize>() >= 4, "four parts on two workers: {of_younger:?}");
    let old_cluster = old.json(&["cluster", "show"])["cluster"].as_str().expect("a name").to_owned();
    old.schedulers[0].signal("KILL");
    old.workers.iter().for_each(|worker| worker.signal("KILL"));
    old.schedulers.clear();
    old.workers.clear();

    let (new, _scheduler) = restored(&old, &backup);
    let (code, said) = bring(&new, twice, &new.path("nothing"));
    assert!(code == Some(9) && said.contains("--bring-results"), "{code:?} {said}");
    let token = new.path("scheduler-1/join-token").display().to_string();
    let args = |worker: &str, more: &[&str]| -> Vec<String> {
        let dir = old.path(worker).display().to_string();
        // The records of the old cluster's workers are still there.
        let name = format!("new-{worker}");
        let fixed = ["worker", "start", "--name", &name, "--join", &new.addresses[0], "--token-file", &token, "--data-dir", &dir];
        fixed.iter().chain(&ONE_CPU).chain(more).map(|word| word.to_string()).collect()
    };
    let plain = args("worker-1", &[]);
    let (code, said) = until_it_ends(new.command(&plain.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(code != Some(0) && said.contains("add --bring-results"), "{code:?} {said}");
    assert!(files("worker-1", "results", twice) > 0, "nothing was touched");
    let mut workers: Vec<Process> = ["worker-1", "worker-2"]
        .iter()
        .map(|worker| Process::launch(worker, &args(worker, &["--bring-results"]), old.home.path(), &Launch::default()))
        .collect();
    new.wait_for_workers(2);

    for job in [twice, once] {
        let out = new.path(&format!("out-{job}"));
        new.until("all parts are known to be here", || bring(&new, job, &out).0 == Some(0));
        assert_eq!(merged_rows(&out), expected);
        let view = new.job(job);
        let keepers = view["parts"].as_array().expect("parts").iter().flat_map(|part| part["workers"].as_array().expect("workers"));
        assert!(keepers.filter_map(Value::as_u64).any(|worker| worker > 1000), "workers of the new cluster keep it: {view:#}");
    }
    // The backup does not know the last job.
    let named = |n: usize| orphans(&new, &format!("new-worker-{}", n + 1)).contains(&younger);
    new.until("orphans are named", || (0..2).all(|n| named(n) == (of_younger[n] > 0)));
    let holder = if of_younger[0] > 0 { "new-worker-1" } else { "new-worker-2" };
    let shown = text(&new.run(&["worker", "show", holder]).stdout);
    assert!(shown.contains("orphans: ") && shown.contains("jobs of that cluster: "), "{shown}");

    // Numbers of jobs of the new cluster never name what was brought; it stays, also when the worker starts again, as before.
    let again = new.submit(&new.job_file("words.toml", &on_workers(&input, 1)), &[]);
    new.wait_done(again);
    for process in &mut workers {
        process.signal("TERM");
        assert_eq!(process.wait(), Some(0), "{}", process.log());
        Cluster::restart(process, old.home.path());
    }
    new.wait_for_workers(2);
    new.until("everything is here again", || bring(&new, twice, &new.path("once-more")).0 == Some(0));
    let left: Vec<usize> = ["worker-1", "worker-2"].map(|worker| files(worker, &format!("brought/{old_cluster}"), younger)).to_vec();
    assert_eq!(left, of_younger);
}
