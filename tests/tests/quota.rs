//! Workers whose room for shuffle data is used up, with real processes: work waits or goes elsewhere, and nothing fails.

use raftwerk_tests::cluster::{Cluster, merged_rows, text};
use serde_json::Value;
use std::io::Write;
use std::path::Path;

const ONE_CPU: [&str; 3] = ["--cpus", "1", "--no-gpu"];
const WITH_QUOTA: [&str; 5] = ["--cpus", "1", "--no-gpu", "--shuffle-quota", "64KiB"];

/// So many different words that the shuffle data is about as long as the text: 20 bytes each.
fn write_words(dir: &Path, words: u32) {
    std::fs::create_dir_all(dir).expect("an input directory");
    let mut out = std::io::BufWriter::new(std::fs::File::create(dir.join("words.txt")).expect("an input file"));
    (0..words).for_each(|word| writeln!(out, "word-number-{word:08}").expect("written"));
}

fn words(input: &Path, output: &Path, split: &str) -> String {
    format!(
        "[input]\nfiles = [\"{}/*.txt\"]\nsplit = \"{split}\"\n[map]\nkernel = \"word_count\"\n[reduce]\npartitions = 2\n[output]\npath = \"{}\"\n",
        input.display(),
        output.display()
    )
}

/// Why the worker is full, as `worker show` says it.
fn full(cluster: &Cluster, worker: &str) -> Option<String> {
    let view = cluster.json(&["worker", "show", worker]);
    view["load"]["full"].as_str().map(str::to_owned)
}

fn failed_attempts(view: &Value) -> u64 {
    view["stages"].as_array().expect("stages").iter().filter_map(|stage| stage["failed_attempts"].as_u64()).sum()
}

#[test]
fn work_goes_elsewhere_when_a_workers_quota_is_used_up() {
    let mut cluster = Cluster::start(1, 0);
    cluster.add_worker(1, &WITH_QUOTA);
    cluster.add_worker(2, &ONE_CPU);
    cluster.wait_for_workers(2);
    let (input, out) = (cluster.path("text"), cluster.path("out"));
    write_words(&input, 400_000);
    let view = cluster.wait_done(cluster.submit(&cluster.job_file("words.toml", &words(&input, &out, "256KiB")), &[]));
    assert_eq!(merged_rows(&out).len(), 400_000);
    assert_eq!(failed_attempts(&view), 0, "{view:#}");
    let said = cluster.workers[0].log();
    assert!(said.contains("--shuffle-quota is 65536"), "it was full in between: {said}");
    // One task is enough for its quota; a few more were under way by then.
    let shares = view["shares"].as_array().expect("shares").iter().filter(|s| s["stage"] == "map" && s["worker_name"] == "worker-1");
    let (tasks, all) = (shares.filter_map(|share| share["tasks"].as_u64()).sum::<u64>(), view["stages"][0]["tasks"].as_u64());
    assert!(tasks > 0 && Some(tasks * 3) < all, "{tasks} map tasks at the worker with the quota: {view:#}");
    cluster.until("there is room again", || full(&cluster, "worker-1").is_none());
}

#[test]
fn a_job_waits_without_a_failure_until_another_one_ends_and_gives_its_room_back() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let cluster = Cluster::with_fail_points(1, 1, &WITH_QUOTA, &["pause:reduce.fetch"]);
    let (large, small) = (cluster.path("large"), cluster.path("small"));
    write_words(&large, 20_000);
    write_words(&small, 100);
    let first = cluster.submit(&cluster.job_file("large.toml", &words(&large, &cluster.path("out-large"), "16MiB")), &[]);
    cluster.until("the first job's reduce stage began", || cluster.path("reduce.fetch").exists());
    cluster.until("the worker is full", || full(&cluster, "worker-1").is_some_and(|why| why.contains("--shuffle-quota is 65536")));
    let told = text(&cluster.run(&["worker", "show", "worker-1"]).stdout);
    assert!(told.contains("quota 64 KiB") && told.contains("full, so it gets no tasks"), "{told}");
    let second = cluster.submit(&cluster.job_file("small.toml", &words(&small, &cluster.path("out-small"), "16MiB")), &[]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let waiting = cluster.job(second);
    assert_eq!((&waiting["state"], &waiting["stages"][0]["accepted"]), (&"running".into(), &0.into()), "{waiting:#}");
    std::fs::write(cluster.path("reduce.fetch.go"), "").expect("go on");
    cluster.wait_done(first);
    let view = cluster.wait_done(second);
    assert_eq!(failed_attempts(&view), 0, "{view:#}");
    assert_eq!((merged_rows(&cluster.path("out-large")).len(), merged_rows(&cluster.path("out-small")).len()), (20_000, 100));
    cluster.until("there is room again", || full(&cluster, "worker-1").is_none());
}

/// Bytes of the files below a directory that no reader of this process holds open: what `du` would say.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(|entry| entry.ok().map(size)).sum()
}

/// Copies came in from every worker at once and were looked at one by one: at a quota of 1 MiB a worker's directory reached 4 MiB.
#[test]
fn copies_do_not_go_over_a_workers_quota_and_the_job_says_what_has_none() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    const QUOTA: u64 = 1 << 20;
    // Two tasks of 64 KiB of text each, about as much shuffle data, and a table of blocks.
    const LEASE: u64 = 256 << 10;
    let mut cluster = Cluster::with_fail_points(1, 0, &[], &["pause:reduce.fetch"]);
    for n in 1..=2 {
        cluster.add_worker(n, &["--cpus", "1", "--no-gpu", "--shuffle-quota", "1MiB"]);
    }
    cluster.add_worker(3, &ONE_CPU);
    cluster.wait_for_workers(3);
    let (input, out) = (cluster.path("text"), cluster.path("out"));
    write_words(&input, 250_000);
    let spec = words(&input, &out, "64KiB").replace("[map]\n", "[map]\nshuffle_replicas = 2\nmax_lease_tasks = 2\n");
    let job = cluster.submit(&cluster.job_file("words.toml", &spec), &[]);
    cluster.until("all map tasks are done", || cluster.path("reduce.fetch").exists());
    for n in 1..=2 {
        let there = bytes_below(&cluster.path(&format!("worker-{n}/shuffle")));
        assert!(there > QUOTA / 2 && there <= QUOTA + LEASE, "worker-{n} has {there} bytes of shuffle data");
    }
    let copies = &cluster.job(job)["shuffle_copies"][0];
    let (two, one) = (copies["two_places"].as_u64(), copies["one_place"].as_u64());
    // Each map task could lie twice only if the two had room for what the third has not made and for copies of what it has.
    assert!(two > Some(0) && one > Some(0), "{copies}");
    let told = text(&cluster.run(&["job", "show", &job.to_string()]).stdout);
    assert!(told.contains("had room to take a copy"), "{told}");
    std::fs::write(cluster.path("reduce.fetch.go"), "").expect("go on");
    let view = cluster.wait_done(job);
    assert_eq!(failed_attempts(&view), 0, "{view:#}");
    assert_eq!(merged_rows(&out).len(), 250_000);
}
