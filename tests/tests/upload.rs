//! Files that only a client has, with real processes whose data directories nobody shares. The files are removed as soon as they are submitted.

use raftwerk_tests::cluster::{Cluster, Launch, text};
use raftwerk_tests::words::{expected_rows, word_count, write_text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

const ONE_CPU: [&str; 3] = ["--cpus", "1", "--no-gpu"];

/// Workers that keep an upload which no job reads for a moment only.
fn hasty() -> Launch {
    Launch { env: vec![("RAFTWERK_UPLOAD_STAYS_MS".into(), "3000".into())], ..Launch::default() }
}

/// The parts of a directory, by name.
fn parts(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).map(|entry| entry.expect("an entry"));
    let named = entries.map(|entry| (entry.file_name().into_string().expect("UTF-8"), std::fs::read(entry.path()).expect("readable")));
    named.filter(|(name, _)| name.starts_with("part-")).collect()
}

/// What lies in a worker's directory of uploads.
fn uploads_at(cluster: &Cluster, worker: &str) -> Vec<PathBuf> {
    let dir = cluster.path(worker).join("uploads");
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn until_no_uploads(cluster: &Cluster, workers: &[&str]) {
    cluster.until("nothing is left of uploads", || workers.iter().all(|worker| uploads_at(cluster, worker).is_empty()));
}

/// Which workers hold what a submit has uploaded.
fn holders(submitted: &Value) -> Vec<u64> {
    submitted["upload"]["workers"].as_array().expect("workers").iter().filter_map(Value::as_u64).collect()
}

fn index_of(cluster: &Cluster, worker: u64) -> usize {
    let workers = cluster.json(&["worker", "list"]);
    let all = workers["workers"].as_array().expect("workers");
    let name = all.iter().find(|w| w["worker"] == worker).expect("a worker")["name"].as_str().expect("a name").to_owned();
    cluster.workers.iter().position(|process| process.name == name).expect("a process")
}

fn refused(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), text(&output.stderr))
}

fn with_input(cluster: &Cluster, args: &[&str], input: &[u8]) -> Output {
    let mut child = cluster.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn uploaded_files_give_the_same_bytes_as_files_that_workers_see() {
    let mut cluster = Cluster::empty();
    cluster.add_scheduler(1);
    (1..=2).for_each(|n| cluster.launch_worker(n, &ONE_CPU, &hasty()));
    cluster.wait_for_workers(2);
    let texts = cluster.path("texts");
    write_text(&texts);
    let tables = cluster.path("tables");
    std::fs::create_dir(&tables).expect("a directory");
    for file in 0..3 {
        let rows = (0..2000).fold(String::from("city,amount\n"), |mut rows, row| {
            let _ = writeln!(rows, "city-{},{}.5", (row * 7 + file) % 23, row % 101);
            rows
        });
        std::fs::write(tables.join(format!("t{file}.csv")), rows).expect("a table");
    }
    let pattern = |dir: &Path, ending: &str| format!("{}/*.{ending}", dir.display());
    let head = |files: &str| format!("[input]\nfiles = [\"{files}\"]\nsplit = \"4KiB\"\n");
    let jobs = [
        (pattern(&texts, "txt"), head("/nowhere") + "[map]\nkernel = \"word_count\"\n[reduce]\nkernel = \"sum_by_key\"\npartitions = 3\n"),
        // Names the files that it finds lines in.
        (
            pattern(&texts, "txt"),
            head("/nowhere") + "[map]\nkernel = \"grep\"\nparams = { pattern = \"w99[0-9]\" }\n[reduce]\npartitions = 2\n",
        ),
        (
            pattern(&tables, "csv"),
            head("/nowhere")
                + "format = \"csv\"\nquoted_newlines = false\nwhere = \"amount >= 10\"\n[map]\nkernel = \"group_by\"\nparams = { by = \"city\", aggregate = \"count, sum(amount)\" }\n\
                   [reduce]\nkernel = \"merge_groups\"\npartitions = 2\n",
        ),
        (pattern(&texts, "txt"), head("/nowhere") + "[map]\nkernel = \"sort\"\n[reduce]\npartitions = 3\n"),
    ];
    let mut done = Vec::new();
    for (number, (files, job)) in jobs.iter().enumerate() {
        let file = cluster.job_file(&format!("job-{number}.toml"), &format!("{job}[output]\npath = \"unused\"\n"));
        let at = |kind: &str| cluster.path(&format!("{kind}-{number}"));
        let output = |kind: &str| at(kind).display().to_string();
        let shared = cluster.submit(&file, &["--input", files, "--output", &output("shared")]);
        cluster.wait_done(shared);
        let submitted = cluster.json(&["submit", &file, "--upload", files, "--output", &output("uploaded")]);
        assert_eq!(holders(&submitted).len(), 2, "{submitted:#}");
        done.push((submitted["job"].as_u64().expect("a number"), at("shared"), at("uploaded")));
    }
    // Nothing is read where it was.
    std::fs::remove_dir_all(&texts).and_then(|()| std::fs::remove_dir_all(&tables)).expect("removed");
    for (job, shared, uploaded) in &done {
        cluster.wait_done(*job);
        let (shared, uploaded) = (parts(shared), parts(uploaded));
        assert!(!shared.is_empty() && shared.values().any(|part| part.len() > 100));
        assert!(shared == uploaded, "job {job}: {:?} and {:?}", shared.keys(), uploaded.keys());
    }
    // What was published here can be brought here as well.
    let (job, shared, _) = &done[0];
    let here = cluster.path("here");
    let brought = cluster.run(&["job", "result", &job.to_string(), "--output", &here.display().to_string()]);
    assert!(brought.status.success(), "{}", text(&brought.stderr));
    assert!(parts(&here) == parts(shared) && here.join("manifest.json").exists());
    // Once their jobs have ended, uploads go.
    until_no_uploads(&cluster, &["worker-1", "worker-2"]);
}

#[test]
fn standard_input_is_a_file_named_stdin() {
    let cluster = Cluster::start(1, 1);
    let output = cluster.path("found");
    let job = format!(
        "[input]\nfiles = [\"/nowhere\"]\nsplit = \"1KiB\"\n[map]\nkernel = \"grep\"\nparams = {{ pattern = \"needle\" }}\n[output]\npath = {output:?}\nif_exists = \"replace\"\n"
    );
    let file = cluster.job_file("grep.toml", &job);
    let lines = (0..500).fold(String::new(), |mut lines, line| {
        let _ = writeln!(lines, "{} {line}", if line % 50 == 7 { "needle" } else { "hay" });
        lines
    });
    let expected: String = (0..500).filter(|line| line % 50 == 7).map(|line| format!("stdin:{}:needle {line}\n", line + 1)).collect();
    for flag in ["--upload", "--input"] {
        let done = with_input(&cluster, &["submit", &file, flag, "-", "--wait"], lines.as_bytes());
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(std::fs::read_to_string(output.join("part-00000.txt")).expect("the part"), expected);
    }
    let alone = text(&with_input(&cluster, &["submit", &file, "--upload", "-", "--wait"], b"hay\nneedle\n").stderr);
    assert!(alone.contains("there is one copy only (no other worker is there)"), "{alone}");
    let local = with_input(&cluster, &["run", &file, "--input", "-", "--cpus", "1", "--no-gpu"], lines.as_bytes());
    assert!(local.status.success(), "{}", text(&local.stderr));
    assert_eq!(std::fs::read_to_string(output.join("part-00000.txt")).expect("the part"), expected);
    // Standard input is one thing.
    let both = with_input(&cluster, &["submit", "/dev/stdin", "--upload", "-"], job.as_bytes());
    assert_eq!(both.status.code(), Some(2), "{}", text(&both.stderr));
    // Of nothing there is nothing to find.
    let empty = with_input(&cluster, &["submit", &file, "--upload", "-", "--wait"], b"");
    assert!(empty.status.success(), "{}", text(&empty.stderr));
    assert!(parts(&output).values().all(Vec::is_empty));
}

/// A job for workers with the label, of which there are none yet.
fn of_label(cluster: &Cluster, output: &str) -> String {
    let job = word_count(Path::new("/nowhere"), &cluster.path(output), 2);
    cluster.job_file(&format!("{output}.toml"), &job.replace("[reduce]", "[map.require]\nlabels = { zone = \"late\" }\n[reduce]"))
}

#[test]
fn a_job_reads_the_other_copy_when_a_holder_has_died() {
    let mut cluster = Cluster::start(1, 2);
    let texts = cluster.path("texts");
    let expected = expected_rows(&write_text(&texts));
    let file = of_label(&cluster, "out");
    let submitted = cluster.json(&["submit", &file, "--upload", &texts.display().to_string(), "--wait-for-devices"]);
    assert_eq!(holders(&submitted).len(), 2);
    std::fs::remove_dir_all(&texts).expect("removed");
    let first = index_of(&cluster, holders(&submitted)[0]);
    cluster.workers[first].kill();
    cluster.add_worker(3, &[&ONE_CPU[..], &["--label", "zone=late"]].concat());
    cluster.wait_done(submitted["job"].as_u64().expect("a number"));
    assert_eq!(raftwerk_tests::cluster::merged_rows(&cluster.path("out")), expected);
    assert_eq!(uploads_at(&cluster, "worker-3").len(), 1, "it has all of it now");
}

#[test]
fn a_holder_that_dies_in_the_middle_of_the_job_costs_nothing_but_its_tasks() {
    let mut cluster = Cluster::start(3, 3);
    let texts = cluster.path("texts");
    let expected = expected_rows(&write_text(&texts));
    let file = cluster.job_file("words.toml", &word_count(Path::new("/nowhere"), &cluster.path("out"), 2));
    let submitted = cluster.json(&["submit", &file, "--upload", &texts.display().to_string()]);
    std::fs::remove_dir_all(&texts).expect("removed");
    let job = submitted["job"].as_u64().expect("a number");
    let first = index_of(&cluster, holders(&submitted)[0]);
    cluster.until("some of it is done", || cluster.accepted(job) > 0);
    cluster.workers[first].kill();
    cluster.wait_done(job);
    assert_eq!(raftwerk_tests::cluster::merged_rows(&cluster.path("out")), expected);
}

#[test]
fn when_every_holder_is_lost_the_job_fails_and_names_the_upload() {
    let mut cluster = Cluster::start(1, 1);
    let texts = cluster.path("texts");
    write_text(&texts);
    let file = of_label(&cluster, "out");
    let submitted = cluster.json(&["submit", &file, "--upload", &texts.display().to_string(), "--wait-for-devices"]);
    cluster.workers[0].kill();
    cluster.add_worker(2, &[&ONE_CPU[..], &["--label", "zone=late"]].concat());
    let job = submitted["job"].as_u64().expect("a number").to_string();
    let ended = cluster.run(&["job", "wait", &job]);
    let (id, said) = (submitted["upload"]["id"].as_str().expect("an id"), text(&ended.stderr));
    assert!(ended.status.code() == Some(3) && said.contains(id) && said.contains("submit the job again with its files"), "{said}");
}

#[test]
fn the_same_key_and_content_is_the_same_job_and_other_content_a_conflict() {
    let cluster = Cluster::start(1, 2);
    let data = cluster.path("data.txt");
    let file = cluster.job_file("words.toml", &word_count(Path::new("/nowhere"), Path::new("worker:"), 1));
    let args = ["submit", &file, "--upload", data.to_str().expect("UTF-8"), "--idempotency-key", "nightly"];
    std::fs::write(&data, "one two two\n").expect("a file");
    let first = cluster.json(&args);
    cluster.wait_done(first["job"].as_u64().expect("a number"));
    let again = cluster.json(&args);
    assert_eq!((&again["job"], &again["existing"], &again["upload"]["workers"]), (&first["job"], &true.into(), &Value::Array(vec![])));
    std::fs::write(&data, "one two three\n").expect("a file");
    let (code, said) = refused(&cluster.run(&args));
    assert!(code == Some(6) && said.contains("was submitted with another payload"), "{code:?} {said}");
    // Without the key it is another job, over what lies there already.
    std::fs::write(&data, "one two two\n").expect("a file");
    let other = cluster.run(&args[..4]);
    assert!(other.status.success() && text(&other.stderr).contains("already there: 1 file, 12 B"), "{}", text(&other.stderr));
}

#[test]
fn what_cannot_be_uploaded_is_refused_with_its_name_and_what_is_asked_for_beside_it_is_read_too() {
    let cluster = Cluster::start(1, 1);
    let dir = cluster.path("data");
    std::fs::create_dir_all(dir.join("empty")).expect("a directory");
    let at = |name: &str| dir.join(name).display().to_string();
    std::fs::write(at("here.txt"), "one two\n").expect("a file");
    std::fs::write(at("there.txt"), "two three\n").expect("a file");
    std::fs::write(at("nothing.txt"), "").expect("a file");
    let file = cluster.job_file("words.toml", &word_count(Path::new("/nowhere"), &cluster.path("out"), 1));
    let upload = |more: &[&str]| refused(&cluster.run(&[&["submit", &file, "--wait"], more].concat()));
    for (flags, code, part) in [
        (vec!["--upload".to_owned(), at("missing.txt")], 2, "missing.txt: No such file"),
        (vec!["--upload".to_owned(), at("empty")], 2, "has no files"),
        (vec!["--upload".to_owned(), "/dev/null".to_owned()], 2, "neither a file nor a pipe"),
        (vec!["--upload".to_owned(), "s3://bucket/key".to_owned()], 2, "leave out the upload"),
        (vec!["--upload".to_owned(), at("here.txt"), "--input".to_owned(), at("missing.txt")], 6, "missing.txt"),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (found, said) = upload(&flags);
        assert!(found == Some(code) && said.contains(part), "{flags:?}: {found:?} {said}");
    }
    // A table that lacks a column is refused by its name, not by where a worker has it.
    let table = "[input]\nfiles = [\"/nowhere\"]\nformat = \"csv\"\n[map]\nkernel = \"group_by\"\nparams = { by = \"city\" }\n[reduce]\nkernel = \"merge_groups\"\n";
    let table = cluster.job_file("table.toml", table);
    let (code, said) = refused(&cluster.run(&["submit", &table, "--upload", &at("here.txt")]));
    assert!(code == Some(2) && said.contains(&format!("{}: ", at("here.txt"))) && !said.contains("uploads/"), "{code:?} {said}");
    // One that workers see and two that they do not.
    let (code, said) = upload(&["--upload", &at("here.txt"), "--upload", &at("nothing.txt"), "--input", &at("there.txt")]);
    assert_eq!(code, Some(0), "{said}");
    let rows = raftwerk_tests::cluster::merged_rows(&cluster.path("out"));
    assert_eq!(rows, ["one,1", "three,1", "two,2"].map(|row| row.as_bytes().to_vec()));
}

#[test]
fn what_a_client_leaves_behind_goes() {
    let mut cluster = Cluster::with_fail_points(1, 0, &[], &["pause:upload.piece"]);
    cluster.launch_worker(1, &ONE_CPU, &hasty());
    cluster.wait_for_workers(1);
    let data = cluster.path("data.txt");
    std::fs::write(&data, "a few words\n".repeat(200_000)).expect("a file");
    let file = cluster.job_file("words.toml", &word_count(Path::new("/nowhere"), &cluster.path("out"), 1));
    let args = ["submit", &file, "--upload", data.to_str().expect("UTF-8")];
    let mut client = cluster.command(&args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    cluster.until("a piece has come", || cluster.path("upload.piece").exists());
    assert_eq!(uploads_at(&cluster, "worker-1").len(), 1);
    client.kill().and_then(|()| client.wait()).expect("it ends");
    std::fs::write(cluster.path("upload.piece.go"), "").expect("a file");
    until_no_uploads(&cluster, &["worker-1"]);
    // All of it came, and no job was made of it.
    let table = "[input]\nfiles = [\"/nowhere\"]\nformat = \"csv\"\n[map]\nkernel = \"group_by\"\nparams = { by = \"city\" }\n[reduce]\nkernel = \"merge_groups\"\n";
    let table = cluster.job_file("table.toml", table);
    let (code, said) = refused(&cluster.run(&["submit", &table, args[2], args[3]]));
    assert!(code == Some(2) && said.contains("no column 'city'"), "{code:?} {said}");
    until_no_uploads(&cluster, &["worker-1"]);
    assert_eq!(cluster.json(&["job", "list"])["jobs"], Value::Array(vec![]), "nothing was submitted");
}

#[test]
fn a_worker_without_room_takes_no_upload_and_says_what_to_do() {
    let cluster = Cluster::with_worker_flags(1, 2, &[&ONE_CPU[..], &["--shuffle-quota", "100KiB"]].concat());
    let data = cluster.path("data.txt");
    std::fs::write(&data, "a few words\n".repeat(20_000)).expect("a file");
    let file = cluster.job_file("words.toml", &word_count(Path::new("/nowhere"), &cluster.path("out"), 1));
    let (code, said) = refused(&cluster.run(&["submit", &file, "--upload", data.to_str().expect("UTF-8")]));
    assert!(code == Some(6) && said.contains("--shuffle-quota is 102400") && said.contains("fix: make room"), "{code:?} {said}");
    assert!(said.contains("worker-1") && said.contains("worker-2"), "{said}");
    assert!(uploads_at(&cluster, "worker-1").is_empty() && uploads_at(&cluster, "worker-2").is_empty());
}
