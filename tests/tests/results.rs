//! Results that stay on workers, with real processes whose data directories nobody shares.

use raftwerk_tests::cluster::{Cluster, merged_rows, text};
use raftwerk_tests::words::{expected_rows, word_count, write_text};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

const ONE_CPU: [&str; 3] = ["--cpus", "1", "--no-gpu"];

/// A job whose result has so many copies on workers.
fn on_workers(input: &Path, partitions: u32, copies: u32) -> String {
    format!("{}copies = {copies}\n", word_count(input, Path::new("worker:"), partitions))
}

/// By part: who keeps it, as the job's record says.
fn keepers(cluster: &Cluster, job: u64) -> Vec<Vec<u64>> {
    let view = cluster.job(job);
    let parts = view["parts"].as_array().expect("parts").iter();
    parts.map(|part| part["workers"].as_array().expect("workers").iter().filter_map(Value::as_u64).collect()).collect()
}

fn number_of(cluster: &Cluster, name: &str) -> u64 {
    let workers = cluster.json(&["worker", "list"]);
    let found = workers["workers"].as_array().and_then(|all| all.iter().find(|w| w["name"] == name).and_then(|w| w["worker"].as_u64()));
    found.expect("a worker of that name")
}

fn until_lost(cluster: &Cluster, name: &str) {
    cluster.until("the loss is seen", || {
        let workers = cluster.json(&["worker", "list"]);
        workers["workers"].as_array().is_some_and(|all| all.iter().any(|w| w["name"] == name && w["liveness"] == "lost"))
    });
}

/// Files of the job's result in a worker's data directory.
fn files_at(cluster: &Cluster, worker: &str, job: u64) -> Vec<PathBuf> {
    let dir = cluster.path(worker).join("results").join(job.to_string());
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn bring(cluster: &Cluster, job: u64, to: &Path) -> (Option<i32>, String) {
    let output = cluster.run(&["job", "result", &job.to_string(), "--output", &to.display().to_string()]);
    (output.status.code(), text(&output.stderr))
}

#[test]
fn with_two_copies_the_death_of_a_keeper_costs_nothing() {
    let mut cluster = Cluster::start(3, 2);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let job = cluster.submit(&cluster.job_file("words.toml", &on_workers(&input, 4, 2)), &[]);
    cluster.wait_done(job);
    let both = keepers(&cluster, job);
    assert!(both.len() == 4 && both.iter().all(|keepers| keepers.len() == 2 && keepers[0] != keepers[1]), "{both:?}");
    let said = cluster.run(&["job", "result", &job.to_string()]);
    assert!(said.status.success() && text(&said.stdout).contains("2 of 2"), "{}", text(&said.stdout));

    cluster.workers[0].kill();
    // At once: the cluster may not know of the death yet.
    let out = cluster.path("here/out");
    assert_eq!(bring(&cluster, job, &out).0, Some(0));
    assert_eq!(merged_rows(&out), expected);
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).expect("a manifest")).expect("JSON");
    assert_eq!((manifest["job"].as_u64(), manifest["parts"].as_array().map(Vec::len)), (Some(job), Some(4)));
    let siblings = std::fs::read_dir(cluster.path("here")).expect("the directory").count();
    assert_eq!(siblings, 1, "nothing is left beside it");

    let (code, said) = bring(&cluster, job, &out);
    assert!(code == Some(2) && said.contains("is not empty"), "{said}");
    assert_eq!(merged_rows(&out), expected, "what was there is untouched");
    until_lost(&cluster, "worker-1");
    let said = cluster.run(&["job", "result", &job.to_string()]);
    assert!(said.status.success() && text(&said.stdout).contains("1 of 2"), "{}", text(&said.stdout));
}

#[test]
fn without_copies_what_is_away_is_named_and_comes_back_with_its_worker() {
    let mut cluster = Cluster::start(1, 2);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let job = cluster.submit(&cluster.job_file("words.toml", &on_workers(&input, 1, 1)), &[]);
    cluster.wait_done(job);
    let keeper = keepers(&cluster, job)[0][0];
    let index = if number_of(&cluster, "worker-1") == keeper { 0 } else { 1 };
    let name = cluster.workers[index].name.clone();
    cluster.workers[index].kill();
    until_lost(&cluster, &name);

    let named = format!("part-00000.csv was kept by worker {keeper} ({name}), which is lost");
    let said = cluster.run(&["job", "result", &job.to_string()]);
    assert_eq!(said.status.code(), Some(9));
    assert!(text(&said.stderr).contains(&named), "{}", text(&said.stderr));
    let out = cluster.path("out");
    let (code, said) = bring(&cluster, job, &out);
    assert!(code == Some(9) && said.contains(&named), "{said}");
    let left: Vec<_> = std::fs::read_dir(cluster.home.path()).expect("home").flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("out")), "{left:?}");

    cluster.restart_worker(index);
    cluster.wait_for_workers(2);
    assert_eq!(bring(&cluster, job, &out).0, Some(0), "it was on disk");
    assert_eq!(merged_rows(&out), expected);

    // Somebody deletes it there: the worker answers, and has it no more.
    files_at(&cluster, &name, job).iter().for_each(|file| std::fs::remove_file(file).expect("a part can be deleted"));
    let kept = || cluster.run(&["job", "result", &job.to_string()]);
    let (code, said) = bring(&cluster, job, &cluster.path("again"));
    // The second reason when the worker has had to connect anew meanwhile, and has looked.
    let why = ["is not kept on this worker", "where it is missing or damaged"].iter().any(|why| said.contains(why));
    assert!(code == Some(9) && said.contains("part-00000.csv") && why && said.contains("fix: submit the job again"), "{said}");
    cluster.until("the loss is known", || kept().status.code() == Some(9));
    let said = text(&kept().stderr);
    assert!(said.contains("where it is missing or damaged") && said.contains("fix: submit the job again"), "{said}");
}

/// The file of a part that is kept at the worker, and what is in it.
fn part_at(cluster: &Cluster, worker: &str, job: u64, partition: usize) -> Option<(PathBuf, Vec<u8>)> {
    let name = format!("part-{partition:05}.csv.");
    let found =
        files_at(cluster, worker, job).into_iter().find(|file| file.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name)));
    found.map(|path| (path.clone(), std::fs::read(path).unwrap_or_default()))
}

/// Deletes one of the parts that are kept at the worker, and alters another.
fn damage(cluster: &Cluster, worker: &str, job: u64, parts: &[usize]) {
    let (path, _) = part_at(cluster, worker, job, parts[0]).expect("a part");
    std::fs::remove_file(path).expect("deleted");
    let (path, mut bytes) = part_at(cluster, worker, job, parts[1]).expect("a part");
    bytes[0] ^= 1;
    std::fs::write(path, bytes).expect("altered");
}

#[test]
fn what_a_keeper_lost_while_it_was_stopped_is_copied_again_or_named() {
    let mut cluster = Cluster::start(1, 2);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let alone = cluster.submit(&cluster.job_file("alone.toml", &on_workers(&input, 4, 1)), &[]);
    let twice = cluster.submit(&cluster.job_file("twice.toml", &on_workers(&input, 4, 2)), &[]);
    [alone, twice].into_iter().for_each(|job| drop(cluster.wait_done(job)));
    let names = ["worker-1", "worker-2"];
    let kept_by = |name: &str| {
        let worker = number_of(&cluster, name);
        let parts = keepers(&cluster, alone).into_iter().enumerate();
        parts.filter(|(_, keepers)| keepers.contains(&worker)).map(|(partition, _)| partition).collect::<Vec<_>>()
    };
    // Four parts at two workers: one of these has two or more.
    let index = if kept_by(names[0]).len() >= 2 { 0 } else { 1 };
    let (name, other, mine) = (names[index], names[1 - index], kept_by(names[index]));
    cluster.workers[index].signal("TERM");
    cluster.workers[index].wait();
    damage(&cluster, name, alone, &mine);
    damage(&cluster, name, twice, &[0, 1]);
    cluster.restart_worker(index);
    cluster.wait_for_workers(2);

    // Another worker has these parts: its copies are as good as those that are gone.
    cluster.until("both parts are there again", || {
        [0, 1].iter().all(|partition| {
            let [here, there] = [name, other].map(|worker| part_at(&cluster, worker, twice, *partition).map(|(_, bytes)| bytes));
            here.is_some() && here == there
        })
    });
    let result = |job: u64| cluster.run(&["job", "result", &job.to_string()]);
    cluster.until("they count again", || text(&result(twice).stdout).matches("2 of 2").count() == 4);
    let out = cluster.path("out");
    assert_eq!(bring(&cluster, twice, &out).0, Some(0));
    assert_eq!(merged_rows(&out), expected);

    // Of these there was one copy each.
    cluster.until("both losses are known", || text(&result(alone).stderr).matches("where it is missing or damaged").count() == 2);
    let said = result(alone);
    assert_eq!(said.status.code(), Some(9));
    let (shown, said) = (text(&said.stdout), text(&said.stderr));
    for partition in &mine[..2] {
        assert!(said.contains(&format!("part-{partition:05}.csv was kept by worker {} ({name})", number_of(&cluster, name))), "{said}");
    }
    assert!(said.contains("fix: submit the job again") && shown.matches("0 of 1").count() == 2, "{shown}{said}");
    assert_eq!(bring(&cluster, alone, &cluster.path("again")).0, Some(9));
}

#[test]
fn more_copies_than_workers_are_refused_and_a_lost_copy_is_made_again() {
    let mut cluster = Cluster::start(1, 3);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let many = cluster.job_file("many.toml", &on_workers(&input, 1, 4));
    let refused = cluster.run(&["submit", &many]);
    assert_eq!(refused.status.code(), Some(6));
    assert!(text(&refused.stderr).contains("on 4 workers") && text(&refused.stderr).contains("has 3"), "{}", text(&refused.stderr));

    let job = cluster.submit(&cluster.job_file("words.toml", &on_workers(&input, 5, 2)), &[]);
    cluster.wait_done(job);
    let lost = number_of(&cluster, "worker-1");
    cluster.workers[0].kill();
    cluster.until("every part has two keepers again", || {
        keepers(&cluster, job).iter().all(|keepers| keepers.len() == 2 && !keepers.contains(&lost))
    });
    let out = cluster.path("out");
    assert_eq!(bring(&cluster, job, &out).0, Some(0));
    assert_eq!(merged_rows(&out), expected);

    // What is not needed any more goes, also from a worker that was away when that was said.
    cluster.workers[1].signal("TERM");
    cluster.workers[1].wait();
    assert!(cluster.run(&["job", "drop", &job.to_string()]).status.success());
    cluster.until("worker 3 has dropped it", || files_at(&cluster, "worker-3", job).is_empty());
    assert!(!files_at(&cluster, "worker-2", job).is_empty());
    cluster.restart_worker(1);
    cluster.until("worker 2 has dropped it", || files_at(&cluster, "worker-2", job).is_empty());
    assert_eq!(bring(&cluster, job, &cluster.path("again")).0, Some(7));
}

#[test]
fn a_part_that_is_lost_before_it_has_a_copy_is_made_again() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let mut cluster = Cluster::with_fail_points(1, 3, &ONE_CPU, &["pause:keep.asked"]);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let toml = on_workers(&input, 1, 2);
    let job = cluster.submit(&cluster.job_file("words.toml", &toml), &[]);
    cluster.until("a copy was asked for", || cluster.path("keep.asked").exists());
    assert_eq!(cluster.job(job)["state"], "publishing");
    let maker = keepers(&cluster, job)[0][0];
    let name = (1..=3).map(|n| format!("worker-{n}")).find(|name| number_of(&cluster, name) == maker).expect("the maker");
    cluster.workers.iter_mut().find(|worker| worker.name == name).expect("the maker").kill();
    until_lost(&cluster, &name);
    std::fs::write(cluster.path("keep.asked.go"), "").expect("go on");
    let view = cluster.wait_done(job);
    assert_eq!(view["stages"][1]["generation"], 2, "{view:#}");
    let now = keepers(&cluster, job);
    assert!(now[0].len() == 2 && !now[0].contains(&maker), "{now:?}");
    let out = cluster.path("out");
    assert_eq!(bring(&cluster, job, &out).0, Some(0));
    assert_eq!(merged_rows(&out), expected);
}

#[test]
fn a_download_goes_on_elsewhere_when_a_worker_dies_in_the_middle_of_a_part() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let cluster = Cluster::with_fail_points(1, 2, &ONE_CPU, &["kill:part.piece.client"]);
    let input = cluster.path("text");
    std::fs::create_dir(&input).expect("an input directory");
    let mut words = std::io::BufWriter::new(std::fs::File::create(input.join("words.txt")).expect("a file"));
    (0..100_000).for_each(|word| writeln!(words, "word-number-{word:08}").expect("written"));
    words.into_inner().expect("flushed");
    let toml = on_workers(&input, 1, 2).replace("4KiB", "256KiB");
    let job = cluster.submit(&cluster.job_file("words.toml", &toml), &[]);
    let view = cluster.wait_done(job);
    assert!(view["parts"][0]["bytes"].as_u64() > Some(1 << 20), "several pieces: {view:#}");
    let out = cluster.path("out");
    let (code, said) = bring(&cluster, job, &out);
    assert_eq!(code, Some(0), "{said}");
    assert!(cluster.path("part.piece.client").exists(), "a worker died");
    assert_eq!(merged_rows(&out).len(), 100_000);
}
