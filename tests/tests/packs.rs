//! Jobs over so many files that the log has digests of packs of them, with real processes: who holds the packs may die, and who lacks them finds them again.

use raftwerk_tests::cluster::{Cluster, Launch, merged_rows, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILES: u64 = 12_000;
/// Of a task each, of six bytes each.
const BYTES: u64 = FILES * 6;
const ONE_CPU: [&str; 3] = ["--cpus", "1", "--no-gpu"];

fn name(number: u64) -> String {
    format!("{:03}/{number:0100}.txt", number / 100)
}

/// Their names alone would not fit a log entry.
fn many_files(cluster: &Cluster) -> PathBuf {
    let input = cluster.path("many");
    for number in 0..FILES {
        if number % 100 == 0 {
            std::fs::create_dir_all(input.join(format!("{:03}", number / 100))).expect("a directory");
        }
        std::fs::write(input.join(name(number)), format!("word{}\n", number % 10)).expect("a file");
    }
    input
}

fn words(cluster: &Cluster, input: &Path, out: &str) -> String {
    let text = format!(
        "[job]\nname = \"{out}\"\n[input]\nfiles = [\"{}\"]\n[map]\nkernel = \"word_count\"\n[output]\npath = \"{}\"\n",
        input.display(),
        cluster.path(out).display()
    );
    cluster.job_file(&format!("{out}.toml"), &text)
}

fn assert_counted(cluster: &Cluster, out: &str) {
    let expected: Vec<Vec<u8>> = (0..10).map(|word| format!("word{word},{}", FILES / 10).into_bytes()).collect();
    assert_eq!(merged_rows(&cluster.path(out)), expected);
}

fn packs(cluster: &Cluster, worker: usize) -> usize {
    std::fs::read_dir(cluster.path(&format!("worker-{worker}/packs"))).map_or(0, Iterator::count)
}

fn cause(cluster: &Cluster, job: u64) -> String {
    assert!(!cluster.run(&["job", "wait", &job.to_string()]).status.success());
    cluster.job(job)["cause"].as_str().expect("a cause").to_owned()
}

#[test]
fn a_job_over_very_many_files_outlives_everybody_who_knows_their_names() {
    let mut cluster = Cluster::with_worker_flags(1, 1, &ONE_CPU);
    let input = many_files(&cluster);
    // A drained worker lists files, and gets no task.
    cluster.json(&["worker", "drain", "worker-1"]);
    let written = |cluster: &Cluster| cluster.json(&["cluster", "show"])["log_bytes_written"].as_u64().expect("bytes");
    let before = written(&cluster);
    let job = cluster.submit(&words(&cluster, &input, "out"), &[]);
    let entry = written(&cluster) - before;
    assert!(entry < 64 << 10, "{entry} bytes of log for {FILES} files");
    assert_eq!(packs(&cluster, 1), 3);

    // All of it starts again, and finds in log and packs what was submitted.
    cluster.workers[0].kill();
    cluster.restart_all_schedulers();
    let view = cluster.job(job);
    let listed = &view["stages"][0]["inputs"][0];
    assert_eq!((&listed["file_count"], &listed["bytes"]), (&FILES.into(), &BYTES.into()), "{listed:#}");
    let of_packs: Option<Vec<u64>> =
        listed["files"].as_array().map(|packs| packs.iter().filter_map(|pack| pack["files"].as_u64()).collect());
    assert_eq!(of_packs, Some(vec![4096, 4096, 3808]), "{listed:#}");
    assert_eq!(listed["files"][1]["path"], input.join(name(4096)).display().to_string());
    let shown = text(&cluster.run(&["job", "show", &job.to_string()]).stdout);
    assert!(shown.contains("(12,000 files, listed in packs)"), "{shown}");

    // A worker that nobody has asked lists the files itself, and dies with what it has done.
    cluster.launch_worker(2, &ONE_CPU, &Launch::default());
    cluster.until("packs of worker-2", || packs(&cluster, 2) == 3);
    cluster.workers[1].kill();
    assert!(cluster.workers[1].log().contains("listing the input of a job again"));
    assert_eq!(cluster.job(job)["state"], "running", "it was faster than the test");
    cluster.restart_worker(0);
    cluster.json(&["worker", "release", "worker-1"]);
    let view = cluster.wait_done(job);
    assert_eq!((&view["stages"][0]["tasks"], &view["stages"][0]["accepted"]), (&FILES.into(), &FILES.into()), "one task for each file");
    assert_counted(&cluster, "out");
    assert!(!cluster.workers[0].log().contains("listing the input of a job again"), "its packs were on its disk");
}

#[test]
fn files_that_come_later_are_not_read_and_packs_that_are_lost_then_fail_the_job_with_the_reason() {
    let mut cluster = Cluster::with_worker_flags(1, 1, &ONE_CPU);
    let input = many_files(&cluster);
    cluster.json(&["worker", "drain", "worker-1"]);
    let job = cluster.submit(&words(&cluster, &input, "first"), &[]);
    let more = input.join("000").join("0-more.txt");
    std::fs::write(&more, "word0\n").expect("another file");

    // One that comes now cannot know which files were meant. It is not asked again, and the other one goes on.
    cluster.launch_worker(2, &ONE_CPU, &Launch::default());
    let failed = |view: &Value| view["stages"][0]["failed_attempts"].as_u64().unwrap_or(0) > 0;
    cluster.until("a failed attempt", || failed(&cluster.job(job)));
    cluster.json(&["worker", "release", "worker-1"]);
    cluster.wait_done(job);
    assert_counted(&cluster, "first");
    let log = cluster.workers[1].log();
    assert_eq!(log.matches("listing the input of a job again").count(), 1, "{log}");
    cluster.workers[1].kill();

    // A job waits for one that may come back; of this one the cluster is to know that it is gone.
    let liveness = |cluster: &Cluster| cluster.json(&["worker", "list"])["workers"][1]["liveness"].clone();
    cluster.until("the death of worker-2", || liveness(&cluster) == "lost");

    // Nobody has the packs of the next job any more, and nobody can make them.
    cluster.json(&["worker", "drain", "worker-1"]);
    let job = cluster.submit(&words(&cluster, &input, "second"), &[]);
    cluster.workers[0].kill();
    std::fs::remove_dir_all(cluster.path("worker-1/packs")).expect("packs to remove");
    std::fs::remove_file(&more).expect("a file to remove");
    cluster.restart_worker(0);
    cluster.json(&["worker", "release", "worker-1"]);
    let said = cause(&cluster, job);
    for part in [
        "no worker is left that can run it",
        "other files match",
        "on worker worker-1 than matched when the job was submitted",
        "submit the job again",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.contains(&input.display().to_string()), "{said}");

    // The files of now make a job that goes; one that changes while it runs is found, by whoever knows what was listed.
    let job = cluster.submit(&words(&cluster, &input, "third"), &[]);
    cluster.wait_done(job);
    assert_counted(&cluster, "third");
    cluster.json(&["worker", "drain", "worker-1"]);
    let job = cluster.submit(&words(&cluster, &input, "fourth"), &[]);
    let changed = input.join(name(11_111));
    std::fs::write(&changed, "another word\n").expect("another content");
    cluster.json(&["worker", "release", "worker-1"]);
    let said = cause(&cluster, job);
    assert!(said.contains(&format!("input changed while the job runs: {}", changed.display())), "{said}");
}

#[test]
fn a_leader_that_dies_while_very_many_files_are_listed_leaves_one_job_and_its_client_hears_of_it() {
    let mut cluster = Cluster::with_worker_flags(3, 1, &ONE_CPU);
    let input = many_files(&cluster);
    let file = words(&cluster, &input, "out");
    let leader = cluster.leader();
    let submit =
        cluster.command(&["-o", "json", "-q", "submit", &file]).stdout(std::process::Stdio::piped()).spawn().expect("raftwerk starts");
    std::thread::sleep(Duration::from_millis(60));
    cluster.schedulers[leader].kill();
    let output = submit.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let job = told["job"].as_u64().expect("a job number");
    cluster.wait_done(job);
    assert_counted(&cluster, "out");
    let jobs = cluster.json(&["job", "list"]);
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "{jobs:#}");
    cluster.restart_dead();
}
