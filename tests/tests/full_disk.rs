//! Disks that fill up, one role at a time. Each is a small tmpfs in a mount namespace of the test's own, so that nothing stays mounted
//! whatever becomes of the test. Where no namespace can be made the tests say `skipped`.

use raftwerk_tests::cluster::{Cluster, merged_rows, text};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the named test of this program again inside a mount namespace; `true` inside it.
fn inside_own_mounts(test: &str) -> bool {
    const INSIDE: &str = "RAFTWERK_TEST_OWN_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let may = |flags: &str| {
        let mut probe = Command::new("unshare");
        probe.args([flags, "--", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]);
        probe.output().is_ok_and(|output| output.status.success())
    };
    // Root in a container may be allowed only in a user namespace of its own.
    let Some(flags) = ["-m", "-Urm"].into_iter().find(|flags| may(flags)) else {
        println!("skipped: {test}: no mount namespace can be made here");
        return false;
    };
    let own = std::env::current_exe().expect("the path of this program");
    let status = Command::new("unshare")
        .args([flags, "--"])
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{test} failed inside its mount namespace");
    false
}

fn small_disk(at: &Path, size: &str) {
    std::fs::create_dir_all(at).expect("a mount point");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(at).output().expect("mount runs");
    assert!(mounted.status.success(), "{}", text(&mounted.stderr));
}

/// Takes all space that is left on the disk; what is removed later gives it back.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("ballast");
    let mut file = std::fs::File::create(&path).expect("a file");
    let piece = vec![b'x'; 64 << 10];
    for length in [piece.len(), 512, 1] {
        while file.write_all(&piece[..length]).is_ok() {}
    }
    path
}

/// So many different words that the shuffle data is about as long as the text.
fn write_words(dir: &Path, words: u32) {
    std::fs::create_dir_all(dir).expect("an input directory");
    let mut out = std::io::BufWriter::new(std::fs::File::create(dir.join("words.txt")).expect("an input file"));
    for word in 0..words {
        writeln!(out, "word-number-{word:08}").expect("written");
    }
}

fn word_count(input: &Path, output: &Path) -> String {
    format!(
        "[job]\nname = \"words\"\n[input]\nfiles = [\"{}/*.txt\"]\nsplit = \"64KiB\"\n[map]\nkernel = \"word_count\"\n[reduce]\npartitions = 3\n[output]\npath = \"{}\"\nif_exists = \"replace\"\n",
        input.display(),
        output.display()
    )
}

const FLAGS: [&str; 3] = ["--cpus", "1", "--no-gpu"];

#[test]
fn a_job_goes_elsewhere_when_a_workers_disk_is_full_and_fails_with_file_and_reason_when_there_is_no_other() {
    if !inside_own_mounts("a_job_goes_elsewhere_when_a_workers_disk_is_full_and_fails_with_file_and_reason_when_there_is_no_other") {
        return;
    }
    let mut cluster = Cluster::start(1, 0);
    let disk = cluster.path("worker-1");
    small_disk(&disk, "512k");
    cluster.add_worker(1, &FLAGS);
    cluster.add_worker(2, &FLAGS);
    cluster.wait_for_workers(2);
    let input = cluster.path("text");
    write_words(&input, 100_000);
    let out = cluster.path("out");
    let job = cluster.job_file("words.toml", &word_count(&input, &out));
    cluster.wait_done(cluster.submit(&job, &[]));
    assert_eq!(merged_rows(&out).len(), 100_000);

    cluster.workers[1].signal("TERM");
    assert_eq!(cluster.workers[1].wait(), Some(0));
    let alone = cluster.run(&["submit", "--wait", &job]);
    let said = text(&alone.stderr);
    assert_eq!(alone.status.code(), Some(3), "{said}");
    assert!(said.contains("No space left on device") && said.contains(&format!("{}/shuffle/", disk.display())), "{said}");

    // The worker is none the worse for it, and its disk is empty again.
    assert!(cluster.workers[0].child.try_wait().expect("a child").is_none(), "{}", cluster.workers[0].log());
    write_words(&input, 1000);
    cluster.wait_done(cluster.submit(&job, &[]));
    assert_eq!(merged_rows(&out).len(), 1000);
}

#[test]
fn a_full_output_disk_fails_the_job_with_file_and_reason_and_leaves_nothing_there() {
    if !inside_own_mounts("a_full_output_disk_fails_the_job_with_file_and_reason_and_leaves_nothing_there") {
        return;
    }
    let cluster = Cluster::start(1, 2);
    let (input, disk) = (cluster.path("text"), cluster.path("results"));
    write_words(&input, 50_000);
    small_disk(&disk, "256k");
    let job = cluster.job_file("words.toml", &word_count(&input, &disk.join("out")));
    let failed = cluster.run(&["submit", "--wait", &job]);
    let said = text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(3), "{said}");
    assert!(said.contains("No space left on device") && said.contains(&format!("{}/out", disk.display())), "{said}");
    let left =
        || std::fs::read_dir(&disk).expect("the disk").filter_map(|entry| entry.ok().map(|entry| entry.file_name())).collect::<Vec<_>>();
    cluster.until("the staging directory to go", || left().is_empty());

    write_words(&input, 1000);
    cluster.wait_done(cluster.submit(&job, &[]));
    assert_eq!(merged_rows(&disk.join("out")).len(), 1000);
    assert_eq!(left(), ["out"]);
}

/// The cluster of `run` ends with its job, so nobody comes back for what was half-written.
#[test]
fn run_leaves_nothing_beside_an_output_for_which_there_is_no_room() {
    if !inside_own_mounts("run_leaves_nothing_beside_an_output_for_which_there_is_no_room") {
        return;
    }
    let cluster = Cluster::empty();
    let (input, disk) = (cluster.path("text"), cluster.path("results"));
    write_words(&input, 50_000);
    small_disk(&disk, "400k");
    let job = cluster.job_file("words.toml", &word_count(&input, &disk.join("out")));
    // Whether something is left is a matter of who is quicker; seen in one run of three.
    for _ in 0..6 {
        let failed = cluster.run(&["run", &job, "--no-gpu", "--cpus", "2"]);
        let said = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(3), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
        let left: Vec<_> = std::fs::read_dir(&disk).expect("the disk").map(|entry| entry.expect("an entry").file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_scheduler_whose_log_disk_is_full_stops_with_file_and_reason_and_goes_on_when_there_is_room() {
    if !inside_own_mounts("a_scheduler_whose_log_disk_is_full_stops_with_file_and_reason_and_goes_on_when_there_is_room") {
        return;
    }
    let mut cluster = Cluster::empty();
    let disk = cluster.path("scheduler-1");
    // Above --min-free-disk, or the job would be refused before the disk is full.
    small_disk(&disk, "320m");
    cluster.add_scheduler(1);
    cluster.add_worker(1, &FLAGS);
    cluster.wait_for_workers(1);
    let tasks = 30_000u64;
    let toml = format!(
        "[input]\nrange = {{ count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nmax_lease_tasks = 1\nparams = {{ sleep_us = 100 }}\n"
    );
    let job = cluster.submit(&cluster.job_file("noop.toml", &toml), &[]);
    cluster.until("tasks accepted", || cluster.accepted(job) > 100);
    let ballast = fill(&disk);
    assert_eq!(cluster.schedulers[0].wait(), Some(1), "{}", cluster.schedulers[0].log());
    let said = cluster.schedulers[0].log();
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error: in {said}"));
    assert!(error.contains(&disk.display().to_string()) && error.contains("No space left on device"), "{error}");

    std::fs::remove_file(ballast).expect("the ballast");
    cluster.restart_scheduler(0);
    let view = cluster.wait_done(job);
    let value = view["tallies"][0]["total"].as_str().expect("a total").to_owned();
    assert_eq!(value, (tasks * (tasks - 1) / 2).to_string(), "every task counts once");
}
