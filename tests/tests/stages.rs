//! Jobs of several stages, with real processes: words of two texts are counted, brought under their words, joined, and joined again.

use raftwerk_tests::cluster::{Cluster, merged_rows, text};
use raftwerk_tests::words::write_text;
use std::collections::BTreeMap;
use std::path::Path;

type Counts = BTreeMap<Vec<u8>, u64>;

/// Two texts, the second one of fewer words, and their counts.
fn texts(cluster: &Cluster) -> [Counts; 2] {
    let first = write_text(&cluster.path("a"));
    std::fs::create_dir_all(cluster.path("b")).expect("an input directory");
    let mut second = Counts::new();
    let mut words = String::new();
    for n in 0..20_000u64 {
        let word = format!("w{}", n * n % 1301);
        words.push_str(&word);
        words.push(if n % 9 == 0 { '\n' } else { ' ' });
        *second.entry(word.into_bytes()).or_default() += 1;
    }
    std::fs::write(cluster.path("b/words.txt"), words).expect("an input file");
    [first, second]
}

fn job(cluster: &Cluster, out: &Path) -> String {
    let home = cluster.home.path().display();
    let mut text = format!(
        "[job]\nname = \"compare\"\n[input.a]\nfiles = [\"{home}/a/*.txt\"]\nsplit = \"16KiB\"\n[input.b]\nfiles = [\"{home}/b/*.txt\"]\nsplit = \"16KiB\"\n"
    );
    for (side, partitions) in [("a", 3), ("b", 2)] {
        text.push_str(&format!(
            "[[stage]]\nname = \"count-{side}\"\nkernel = \"word_count\"\ninputs = [\"{side}\"]\n\
             [[stage]]\nname = \"sum-{side}\"\nkernel = \"sum_by_key\"\ninputs = [\"count-{side}\"]\npartitions = {partitions}\n\
             [[stage]]\nname = \"keyed-{side}\"\nkernel = \"key_lines\"\ninputs = [\"sum-{side}\"]\nparams = {{ heading = \"word,count\", value = \"rest\" }}\n"
        ));
    }
    text.push_str(&format!(
        "[[stage]]\nname = \"both\"\nkernel = \"join\"\ninputs = [\"keyed-a\", \"keyed-b\"]\npartitions = 4\n\
         params = {{ kind = \"full\", missing_left = \"0\", missing_right = \"0\", columns = \"word,a,b\" }}\n\
         [output]\npath = \"{}\"\n",
        out.display()
    ));
    text
}

fn expected([a, b]: &[Counts; 2]) -> Vec<Vec<u8>> {
    let mut all: Vec<&Vec<u8>> = a.keys().chain(b.keys()).collect();
    all.sort();
    all.dedup();
    let count = |of: &Counts, word: &Vec<u8>| of.get(word).copied().unwrap_or(0).to_string().into_bytes();
    let row = |word: &Vec<u8>| [word.as_slice(), &count(a, word), &count(b, word)].join(&b',');
    let mut rows: Vec<Vec<u8>> = all.into_iter().map(row).collect();
    rows.sort();
    rows
}

fn stages(view: &serde_json::Value) -> Vec<(String, u64)> {
    let one = |stage: &serde_json::Value| (stage["name"].as_str().expect("a name").to_owned(), stage["tasks"].as_u64().expect("a number"));
    view["stages"].as_array().expect("stages").iter().map(one).collect()
}

#[test]
fn two_texts_are_counted_and_joined_by_word_in_one_job_of_seven_stages() {
    let cluster = Cluster::start(1, 2);
    let counts = texts(&cluster);
    let out = cluster.path("out");
    let job = cluster.submit(&cluster.job_file("compare.toml", &job(&cluster, &out)), &[]);
    let view = cluster.wait_done(job);
    assert_eq!(merged_rows(&out), expected(&counts));
    let shown = stages(&view);
    let names: Vec<&str> = shown.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["count-a", "sum-a", "keyed-a", "count-b", "sum-b", "keyed-b", "both"]);
    assert_eq!([1, 2, 4, 5, 6].map(|stage| shown[stage].1), [3, 3, 2, 2, 4], "a task for each part, and for each partition");
    let page = text(&cluster.run(&["job", "show", &job.to_string()]).stdout);
    for line in ["keyed-a: reads the parts of stage sum-a", "both: reads stages keyed-a and keyed-b", "sum-a: reads stage count-a"] {
        assert!(page.contains(line), "{page}");
    }
    let log = std::fs::read_to_string(out.join("manifest.json")).expect("a manifest");
    assert!(log.contains("part-00003.csv"), "{log}");
}

#[test]
fn a_worker_that_dies_between_two_stages_takes_nothing_with_it() {
    // Whoever is first to read a part dies over it, with the parts and the shuffle data that it holds.
    let mut cluster = Cluster::with_fail_points(1, 3, &["--cpus", "1", "--no-gpu"], &["kill:part.fetch"]);
    let counts = texts(&cluster);
    let out = cluster.path("out");
    let job = cluster.submit(&cluster.job_file("compare.toml", &job(&cluster, &out)), &[]);
    cluster.until("a worker has died", || cluster.path("part.fetch").exists());
    let view = cluster.wait_done(job);
    assert_eq!(cluster.restart_dead(), 1, "one of them died");
    assert_eq!(merged_rows(&out), expected(&counts), "{:#}", view["stages"]);
}

#[test]
fn when_the_only_worker_dies_whatever_is_needed_is_made_again_from_the_input_on() {
    let mut cluster = Cluster::with_fail_points(1, 1, &["--cpus", "1", "--no-gpu"], &["kill:part.fetch"]);
    let counts = texts(&cluster);
    let out = cluster.path("out");
    let job = cluster.submit(&cluster.job_file("compare.toml", &job(&cluster, &out)), &[]);
    cluster.until("the worker has died", || cluster.path("part.fetch").exists());
    cluster.workers[0].child.wait().expect("it ends");
    cluster.restart_worker(0);
    let view = cluster.wait_done(job);
    assert_eq!(merged_rows(&out), expected(&counts));
    let generation = |stage: usize| view["stages"][stage]["generation"].as_u64().expect("a number");
    let first = if generation(0) > 1 { 0 } else { 3 };
    assert!(generation(first) > 1 && generation(first + 1) > 1, "parts were lost, and what they were made from: {:#}", view["stages"]);
}

#[test]
fn a_job_file_whose_stages_do_not_go_together_is_refused_before_anything_runs() {
    let cluster = Cluster::start(1, 1);
    std::fs::create_dir_all(cluster.path("a")).expect("a directory");
    let file = cluster
        .job_file("compare.toml", &job(&cluster, &cluster.path("out")).replace("[\"keyed-a\", \"keyed-b\"]", "[\"keyed-a\", \"sum-b\"]"));
    let output = cluster.run(&["submit", &file]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("is read by nobody") || said.contains("put a stage with a map kernel between them"), "{said}");
}

#[test]
fn a_job_starts_after_others_also_when_the_scheduler_dies_meanwhile() {
    let mut cluster = Cluster::start(1, 1);
    let noop = |tasks: u64, sleep_us: u64| {
        format!("[input]\nrange = {{ count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nparams = {{ sleep_us = {sleep_us} }}\n")
    };
    let slow = cluster.job_file("slow.toml", &noop(1500, 2000));
    let first = cluster.submit(&slow, &["--idempotency-key", "first"]);
    let quick = cluster.job_file("quick.toml", &noop(10, 0));
    let follower = cluster.submit(&quick, &["--after", "first"]);
    let doomed = cluster.submit(&quick, &["--after", &follower.to_string()]);
    let view = cluster.job(follower);
    assert_eq!((&view["state"], &view["waiting_for"][0]), (&"running".into(), &first.into()), "{view:#}");
    assert_eq!(view["stages"][0]["leases"], 0);
    let list = text(&cluster.run(&["job", "list"]).stdout);
    assert!(list.contains("waiting"), "{list}");
    cluster.schedulers[0].kill();
    cluster.restart_all_schedulers();
    let cancelled = cluster.run(&["job", "cancel", &doomed.to_string()]);
    assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
    let view = cluster.wait_done(follower);
    let before = cluster.job(first);
    assert_eq!(before["state"], "done");
    assert_eq!(view["waiting_for"].as_array().map(Vec::len), Some(0));
    // What comes after a job that was cancelled is refused, unless it is to start however that ended.
    let refused = cluster.run(&["submit", &quick, "--after", &doomed.to_string()]);
    assert!(text(&refused.stderr).contains("was cancelled, so this one would never start"), "{}", text(&refused.stderr));
    assert_eq!(refused.status.code(), Some(6));
    // And what comes after a job that there is not is not found.
    for unknown in ["99999", "no-such-key"] {
        let refused = cluster.run(&["submit", &quick, "--after", unknown]);
        assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains(unknown), "{}", text(&refused.stderr));
    }
    let last = cluster.submit(&quick, &["--after", &doomed.to_string(), "--after-any"]);
    cluster.wait_done(last);
}
