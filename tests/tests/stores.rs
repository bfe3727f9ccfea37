//! Jobs over an S3 server, with real processes: the same bytes as over files, whatever the store does meanwhile.

use raftwerk_tests::chaos::fleet::children;
use raftwerk_tests::cluster::{Cluster, Launch, merged_rows, text};
use raftwerk_tests::footprint::Footprint;
use raftwerk_tests::store::{ACCESS_KEY, Faults, Proxy, SECRET_KEY, Server};
use raftwerk_tests::words::{expected_rows, word_count, write_text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

const ONE_CPU: [&str; 3] = ["--cpus", "1", "--no-gpu"];

/// What whoever runs a worker sets.
fn environment(endpoint: SocketAddr, secret: &str) -> Launch {
    let env = [
        ("AWS_ENDPOINT_URL", format!("http://{endpoint}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
    ];
    Launch { env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(), ..Launch::default() }
}

/// Names of what lies in a directory.
fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn manifest(dir: &Path) -> Value {
    let bytes = std::fs::read(dir.join("manifest.json")).expect("a manifest");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The parts that the manifest names, by partition, each as long as it says and with its checksum.
fn parts(dir: &Path) -> Vec<Vec<u8>> {
    let manifest = manifest(dir);
    let parts = manifest["parts"].as_array().expect("parts").iter().map(|part| {
        let bytes = std::fs::read(dir.join(part["name"].as_str().expect("a name"))).expect("a part");
        assert_eq!(part["bytes"], bytes.len());
        assert_eq!(part["crc32c"], format!("{:08x}", crc32c::crc32c(&bytes)));
        bytes
    });
    parts.collect()
}

/// The output lies there, and beside it nothing of attempts that were not accepted.
fn only_the_output_stays(cluster: &Cluster, dir: &Path) {
    let mut named: BTreeSet<String> = BTreeSet::from(["manifest.json".to_owned()]);
    named.extend(manifest(dir)["parts"].as_array().expect("parts").iter().map(|part| part["name"].as_str().unwrap_or_default().to_owned()));
    cluster.until("nothing but the output", || names(dir) == named);
}

#[test]
fn a_job_over_a_store_that_refuses_breaks_off_and_is_slow_gives_what_files_give() {
    let mut cluster = Cluster::with_worker_flags(1, 0, &ONE_CPU);
    let server = Server::start(&cluster.path("store"));
    let faults = Faults { unavailable: 60, reset: 60, truncated: 60, slow: 50 };
    let proxy = Proxy::before(server.address, faults, 7);
    for number in 1..=2 {
        cluster.launch_worker(number, &ONE_CPU, &environment(proxy.address, SECRET_KEY));
    }
    let (local, output) = (cluster.path("text"), server.bucket("results").join("words"));
    let counts = write_text(&local);
    assert_eq!(counts, write_text(&server.bucket("texts").join("text")));

    let from_files = cluster.submit(&cluster.job_file("local.toml", &word_count(&local, &cluster.path("out"), 5)), &[]);
    let spec = word_count(Path::new("s3://texts/text"), Path::new("s3://results/words"), 5);
    let from_store = cluster.submit(&cluster.job_file("store.toml", &spec), &[]);
    cluster.wait_done(from_files);
    let view = cluster.wait_done(from_store);
    assert_eq!(view["stages"][0]["tasks"], cluster.job(from_files)["stages"][0]["tasks"], "splits follow from sizes");

    let expected = expected_rows(&counts);
    assert_eq!(merged_rows(&cluster.path("out")), expected);
    let published = parts(&output);
    for (number, bytes) in published.iter().enumerate() {
        let local = std::fs::read(cluster.path(&format!("out/part-{number:05}.csv"))).expect("a part");
        assert_eq!(*bytes, local, "part {number}");
    }
    assert_eq!(published.len(), 5);
    only_the_output_stays(&cluster, &output);

    let told = proxy.told();
    for (what, count) in [("503", &told.unavailable), ("reset", &told.reset), ("truncated", &told.truncated), ("slow", &told.slow)] {
        assert!(count.load(Ordering::Relaxed) > 0, "{what} never happened in {} requests", told.requests.load(Ordering::Relaxed));
    }
    let shown = cluster.run(&["job", "result", &from_store.to_string()]);
    assert!(text(&shown.stdout).contains("full result: s3://results/words ("), "{}", text(&shown.stdout));

    // The output is an input: what its manifest names, and nothing else.
    proxy.set(Faults::default());
    let reading = "[job]\nname = \"again\"\n[input]\nfiles = [\"s3://results/words/\"]\n[map]\nkernel = \"word_count\"\n[reduce]\n[output]\npath = \"again\"\n";
    let again = cluster.submit(&cluster.job_file("again.toml", reading), &[]);
    let view = cluster.wait_done(again);
    assert_eq!(view["stages"][0]["tasks"], 5, "five parts, no manifest: {view:#}");

    // A compressed object is fetched whole and unpacked by the executor.
    let packed = Command::new("gzip").args(["-c", &local.join("text-0.txt").display().to_string()]).output().expect("gzip runs");
    std::fs::write(server.bucket("packed").join("text.txt.gz"), packed.stdout).expect("an object");
    std::fs::write(server.bucket("packed").join("text.txt"), std::fs::read(local.join("text-0.txt")).expect("text")).expect("an object");
    let tables = ["s3://packed/*.gz", "s3://packed/*.txt"].map(|input| {
        let out = cluster.path(if input.ends_with("gz") { "unpacked" } else { "plain" });
        let spec = word_count(Path::new("s3://packed"), &out, 2).replace("s3://packed/*.txt", input);
        cluster.wait_done(cluster.submit(&cluster.job_file("packed.toml", &spec), &[]));
        merged_rows(&out)
    });
    assert!(!tables[0].is_empty() && tables[0] == tables[1], "the same words, packed or not");

    // What is there is not written over.
    let refused = cluster.run(&["submit", &cluster.job_file("twice.toml", &spec)]);
    assert!(!refused.status.success());
    let said = text(&refused.stderr);
    assert!(said.contains("the output s3://results/words exists already"), "{said}");
}

/// Counts and sums by key, from files of one format to files of another.
fn groups(input: &str, from: &str, output: &Path, to: &str) -> String {
    format!(
        "[job]\nname = \"groups\"\n[input]\nfiles = [\"{input}\"]\nformat = \"{from}\"\n[map]\nkernel = \"group_by\"\n[map.params]\nby = \"key\"\n\
         aggregate = \"count, sum(value)\"\n[reduce]\npartitions = 3\n[output]\npath = \"{}\"\nformat = \"{to}\"\n",
        output.display()
    )
}

#[test]
fn files_of_columns_are_read_from_a_store_as_from_a_disk() {
    let mut cluster = Cluster::with_worker_flags(1, 0, &ONE_CPU);
    let server = Server::start(&cluster.path("store"));
    let proxy = Proxy::before(server.address, Faults { unavailable: 60, reset: 60, truncated: 60, slow: 50 }, 11);
    cluster.launch_worker(1, &ONE_CPU, &environment(proxy.address, SECRET_KEY));
    let table = cluster.path("table.csv");
    let rows: String = (0..20_000u64).map(|row| format!("k{},{}\n", row * row % 3001, row % 17)).collect();
    std::fs::write(&table, format!("key,value\n{rows}")).expect("a table");
    for format in ["parquet", "arrow"] {
        // The same files on a disk and in a bucket.
        let (files, bucket) = (cluster.path(format), server.bucket(format));
        let made = groups(&table.display().to_string(), "csv", &files, format);
        cluster.wait_done(cluster.submit(&cluster.job_file("made.toml", &made), &[]));
        let mut bytes = 0;
        for name in names(&files).iter().filter(|name| name.starts_with("part-")) {
            bytes += std::fs::copy(files.join(name), bucket.join(name)).expect("an object");
        }
        assert!(bytes > 10_000, "{bytes}");
        let read = [files.join(format!("*.{format}")).display().to_string(), format!("s3://{format}/*")].map(|input| {
            let out = cluster.path(&format!("{format}-{}", if input.starts_with("s3") { "store" } else { "disk" }));
            let spec =
                groups(&input, format, &out, "csv").replace("sum(value)", "sum(count)").replace("[map]", "where = \"count > 3\"\n[map]");
            let view = cluster.wait_done(cluster.submit(&cluster.job_file("read.toml", &spec), &[]));
            (merged_rows(&out), view["stages"][0]["tasks"].clone(), view["stages"][0]["counters"]["records_in"].clone())
        });
        assert!(read[0].0.len() > 1000, "{} rows", read[0].0.len());
        assert_eq!(read[0], read[1], "{format}");

        // What is no such file, and a column that is not there, are told before the job starts.
        let refused = |input: &str, by: &str| {
            let spec = groups(input, format, &cluster.path("never"), "csv").replace("by = \"key\"", &format!("by = \"{by}\""));
            let spec = spec.replace("sum(value)", "sum(count)");
            let answer = cluster.run(&["submit", &cluster.job_file("refused.toml", &spec)]);
            assert!(!answer.status.success());
            text(&answer.stderr)
        };
        let said = refused(&format!("s3://{format}/*"), "kay");
        assert!(said.contains(&format!("s3://{format}/part-")) && said.contains("no column 'kay'; did you mean 'key'?"), "{said}");
        std::fs::copy(&table, bucket.join("table.csv")).expect("an object");
        let said = refused(&format!("s3://{format}/table.csv"), "key");
        assert!(said.contains("the input cannot be read as") && said.contains(&format!("s3://{format}/table.csv: ")), "{said}");
    }
    assert!(proxy.told().truncated.load(Ordering::Relaxed) > 0);
}

#[test]
fn what_a_worker_may_not_read_or_does_not_find_is_said_at_submit_with_what_to_set_and_the_worker_lives() {
    let mut cluster = Cluster::with_worker_flags(1, 0, &ONE_CPU);
    let server = Server::start(&cluster.path("store"));
    std::fs::write(server.bucket("texts").join("a.txt"), "some words\n").expect("an object");
    cluster.launch_worker(1, &ONE_CPU, &environment(server.address, "wrong"));
    cluster.wait_for_workers(1);
    let submit = |cluster: &Cluster, input: &str, output: &str| {
        let spec = format!("[input]\nfiles = [\"{input}\"]\n[map]\nkernel = \"word_count\"\n[reduce]\n[output]\npath = \"{output}\"\n");
        let output = cluster.run(&["submit", "--wait", &cluster.job_file("job.toml", &spec)]);
        (output.status.success(), text(&output.stderr))
    };
    let (taken, said) = submit(&cluster, "s3://texts/a.txt", "out");
    assert!(!taken);
    for part in ["worker-1", "s3://texts/a.txt", "bucket `texts`", "key `a.txt`", "AWS_ACCESS_KEY_ID"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    cluster.launch_worker(2, &ONE_CPU, &environment(server.address, SECRET_KEY));
    cluster.wait_for_workers(2);
    cluster.workers[0].kill();
    // Those who run kernels have no keys.
    let executors = children(cluster.workers[1].child.id());
    assert!(!executors.is_empty());
    for executor in executors {
        let environment = std::fs::read(format!("/proc/{executor}/environ")).expect("the environment of an executor");
        assert!(!text(&environment).contains("AWS_"), "{}", text(&environment));
    }
    let (taken, said) = submit(&cluster, "s3://nowhere/*.txt", "out");
    assert!(!taken && said.contains("no bucket `nowhere`") && said.contains("AWS_ENDPOINT_URL"), "{said}");
    let (taken, said) = submit(&cluster, "s3://texts/*.csv", "out");
    assert!(!taken && said.contains("no object matches 's3://texts/*.csv'"), "{said}");
    let (taken, said) = submit(&cluster, "s3://texts/a.txt", "out");
    assert!(taken, "{said}");
    assert_eq!(merged_rows(&cluster.path("out")), [b"some,1".to_vec(), b"words,1".to_vec()]);
}

#[test]
fn an_object_that_changes_while_the_job_runs_fails_it_by_name_and_the_worker_lives() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let mut cluster = Cluster::with_fail_points(1, 0, &ONE_CPU, &["pause:store.fetch"]);
    let server = Server::start(&cluster.path("store"));
    cluster.launch_worker(1, &ONE_CPU, &environment(server.address, SECRET_KEY));
    let bucket = server.bucket("texts");
    std::fs::write(bucket.join("a.txt"), "some words\n").expect("an object");
    let spec = word_count(Path::new("s3://texts"), &cluster.path("out"), 2);
    let job = cluster.submit(&cluster.job_file("words.toml", &spec), &[]);
    cluster.until("the object is about to be fetched", || cluster.path("store.fetch").exists());
    std::fs::write(bucket.join("a.txt"), "more words\n").expect("another object of the same length");
    std::fs::write(cluster.path("store.fetch.go"), "").expect("go on");
    let ended = cluster.run(&["-q", "job", "wait", &job.to_string()]);
    assert!(!ended.status.success());
    let cause = cluster.job(job)["cause"].to_string();
    assert!(cause.contains("input changed while the job runs: s3://texts/a.txt"), "{cause}");
    let job = cluster.submit(&cluster.job_file("words.toml", &spec), &[]);
    cluster.wait_done(job);
    assert_eq!(merged_rows(&cluster.path("out")), [b"more,1".to_vec(), b"words,1".to_vec()]);
}

#[test]
fn workers_die_around_the_manifest_and_it_is_put_once_and_whole() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let points = ["store.part", "store.asked", "store.checked", "store.put", "store.published"];
    let wishes = points.map(|point| format!("kill:{point}"));
    let mut cluster = Cluster::with_fail_points(1, 0, &ONE_CPU, &wishes.each_ref().map(String::as_str));
    let server = Server::start(&cluster.path("store"));
    for number in 1..=3 {
        cluster.launch_worker(number, &ONE_CPU, &environment(server.address, SECRET_KEY));
    }
    cluster.wait_for_workers(3);
    let input = cluster.path("text");
    let counts = write_text(&input);
    let output = server.bucket("results").join("words");
    let job = cluster.submit(&cluster.job_file("words.toml", &word_count(&input, Path::new("s3://results/words"), 5)), &[]);
    let mut first_seen = None;
    let started = std::time::Instant::now();
    loop {
        cluster.restart_dead();
        if let (None, Ok(bytes)) = (&first_seen, std::fs::read(output.join("manifest.json"))) {
            first_seen = Some(bytes);
        }
        let reached = points.iter().filter(|point| cluster.path(point).exists()).count();
        let shown = cluster.run(&["-o", "json", "job", "show", &job.to_string()]);
        let view: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        match view["state"].as_str() {
            Some("done") if reached == points.len() => break,
            Some("failed" | "cancelled") => panic!("{view:#}\n{}", cluster.workers.iter().map(|w| w.log()).collect::<String>()),
            _ => {}
        }
        assert!(started.elapsed() < raftwerk_tests::cluster::PATIENCE, "{reached} of {points:?} reached, the job is {}", view["state"]);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    cluster.restart_dead();
    let rows: BTreeSet<Vec<u8>> = parts(&output)
        .iter()
        .flat_map(|part| part.split(|byte| *byte == b'\n').skip(1).filter(|row| !row.is_empty()).map(<[u8]>::to_vec).collect::<Vec<_>>())
        .collect();
    assert_eq!(rows, expected_rows(&counts).into_iter().collect());
    if let Some(first) = first_seen {
        assert_eq!(std::fs::read(output.join("manifest.json")).expect("a manifest"), first, "it never changes");
    }
    only_the_output_stays(&cluster, &output);
}

/// Splits and parts of several pieces each. (The server counts the tag of what did not come through it anew for every answer, so that what is read is
/// what a job has written there.)
#[test]
fn long_objects_come_and_go_in_pieces_and_stay_what_they_are() {
    const WORDS: u32 = 150_000;
    let mut cluster = Cluster::with_worker_flags(1, 0, &ONE_CPU);
    let server = Server::start(&cluster.path("store"));
    let proxy = Proxy::before(server.address, Faults { unavailable: 50, reset: 100, truncated: 100, slow: 50 }, 3);
    cluster.launch_worker(1, &ONE_CPU, &environment(proxy.address, SECRET_KEY));
    let mut counts = std::collections::BTreeMap::new();
    let mut lines = Vec::new();
    for word in 0..WORDS {
        let word = format!("{word:080}").into_bytes();
        lines.extend_from_slice(&word);
        lines.push(b'\n');
        counts.insert(word, 1);
    }
    std::fs::create_dir(cluster.path("text")).expect("an input directory");
    std::fs::write(cluster.path("text").join("a.txt"), lines).expect("12 MB of text");
    let output = server.bucket("results").join("words");
    let spec = |input: &Path, output: &Path| word_count(input, output, 1).replace("4KiB", "10MiB");
    let written = cluster.submit(&cluster.job_file("write.toml", &spec(&cluster.path("text"), Path::new("s3://results/words"))), &[]);
    cluster.wait_done(written);
    let parts = parts(&output);
    let rows: BTreeSet<&[u8]> = parts[0].split(|byte| *byte == b'\n').skip(1).filter(|row| !row.is_empty()).collect();
    assert!(rows.iter().copied().eq(expected_rows(&counts).iter().map(Vec::as_slice)), "every word once");
    only_the_output_stays(&cluster, &output);

    let [from_store, from_files] = [Path::new("s3://results/words"), &output].map(|input| {
        let out = cluster.path(if input == output { "from-files" } else { "from-store" });
        let spec = spec(input, &out).replace("*.txt", "*.csv");
        let view = cluster.wait_done(cluster.submit(&cluster.job_file("read.toml", &spec), &[]));
        assert_eq!(view["stages"][0]["tasks"], 2, "{view:#}");
        merged_rows(&out)
    });
    assert_eq!(from_store.len(), WORDS as usize + 1, "the rows, and their heading");
    assert!(from_store == from_files, "the same lines, wherever they lie");
    let told = proxy.told();
    assert!(told.reset.load(Ordering::Relaxed) + told.truncated.load(Ordering::Relaxed) > 0, "{told:?}");
}

/// A store sends faster than tasks read, and what waits for its turn must not be memory where that is limited.
#[test]
fn input_from_a_store_keeps_the_limit_of_memory() {
    const LEAST: u64 = 32 << 20;
    let (objects, lines) = (16, 60_000);
    let mut cluster = Cluster::with_worker_flags(1, 0, &ONE_CPU);
    let server = Server::start(&cluster.path("store"));
    let texts = server.bucket("texts");
    for object in 0..objects {
        let line = |line: u32| format!("{:>80} of {object}\n", if line % 6_000 == 7 { "a needle" } else { "hay" });
        let path = texts.join(format!("{object:02}.txt"));
        std::fs::write(&path, (0..lines).map(line).collect::<String>()).expect("an object of 5 MB");
        // So that the server does not stand still for it when the worker asks, which waits for three seconds.
        std::fs::File::open(&path).and_then(|file| file.sync_all()).expect("flushed");
    }
    cluster.launch_worker(1, &["--cpus", "1", "--no-gpu", "--memory", "32MiB"], &environment(server.address, SECRET_KEY));
    cluster.wait_for_workers(1);
    let toml = "[input]\nfiles = [\"s3://texts/*.txt\"]\nsplit = \"8MiB\"\n[map]\nkernel = \"grep\"\nparams = { pattern = \"needle\" }\n[reduce]\npartitions = 1\n\
                [output]\npath = \"found\"\n";
    let toml = toml.replace("\"found\"", &format!("{:?}", cluster.path("found")));
    let footprint = Footprint::of(cluster.workers[0].child.id());
    let view = cluster.wait_done(cluster.submit(&cluster.job_file("grep.toml", &toml), &[]));
    let most = footprint.most();
    assert_eq!(view["stages"][0]["tasks"], objects, "{view:#}");
    let found = std::fs::read_to_string(cluster.path("found/part-00000.txt")).expect("a part");
    assert_eq!(found.lines().filter(|line| line.contains("a needle of ")).count(), objects * (lines as usize / 6_000));
    println!("{most:?}");
    assert!(most.looks > 5 && most.together <= LEAST, "{most:?}");
}

/// The line that was told counted from the split's beginning: of an object nothing before it is there.
#[test]
fn a_bad_row_behind_the_first_split_of_an_object_is_named_by_its_byte() {
    let mut cluster = Cluster::with_worker_flags(1, 0, &ONE_CPU);
    let server = Server::start(&cluster.path("store"));
    cluster.launch_worker(1, &ONE_CPU, &environment(server.address, SECRET_KEY));
    cluster.wait_for_workers(1);
    let bucket = server.bucket("tables");
    let rows = |count: usize| "Oslo,1\n".repeat(count);
    let before = format!("city,amount\n{}", rows(700));
    std::fs::write(bucket.join("t.csv"), format!("{before}Oslo\n{}", rows(300))).expect("an object");
    let job = "[input]\nfiles = [\"s3://tables/t.csv\"]\nformat = \"csv\"\nquoted_newlines = false\nsplit = \"1KiB\"\n\
               [map]\nkernel = \"group_by\"\nparams = { by = \"city\", aggregate = \"sum(amount)\" }\n[reduce]\nkernel = \"merge_groups\"\n";
    let file = cluster.job_file("table.toml", job);
    let failed = cluster.run(&["submit", &file, "--wait"]);
    let said = text(&failed.stderr);
    let place = format!("the row at byte {} of the file has 1 cells", before.len());
    assert!(failed.status.code() == Some(3) && said.contains(&place) && !said.contains(" line "), "{said}");
    let view = cluster.wait_done(cluster.submit(&file, &["--set", "input.bad_records=1"]));
    let bad = &view["bad_records"][0];
    assert!(bad["offset"] == before.len() && bad["line"].as_u64().unwrap_or_default() == 0, "{bad:#}");
}

/// What a client's `raftwerk job result JOB --output DIR` ends with and says, with these variables in its environment.
fn brought(cluster: &Cluster, job: u64, to: &Path, env: &[(String, String)]) -> (Option<i32>, String) {
    let mut command = cluster.command(&["job", "result", &job.to_string(), "--output", &to.display().to_string()]);
    for name in ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    let output = command.envs(env.iter().cloned()).output().expect("raftwerk runs");
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_result_in_a_store_comes_home_whole_or_not_at_all_with_the_clients_own_keys() {
    let mut cluster = Cluster::with_worker_flags(1, 0, &ONE_CPU);
    let server = Server::start(&cluster.path("store"));
    let results = server.bucket("results");
    let proxy = Proxy::before(server.address, Faults::default(), 5);
    cluster.launch_worker(1, &ONE_CPU, &environment(server.address, SECRET_KEY));
    // Words enough for a part of several pieces beside short ones.
    std::fs::create_dir(cluster.path("text")).expect("an input directory");
    let lines: String = (0..120_000u32).map(|word| format!("{word:080}\n")).collect();
    std::fs::write(cluster.path("text").join("a.txt"), lines).expect("10 MB of text");
    let spec = |output: &str, parts| word_count(&cluster.path("text"), Path::new(output), parts).replace("4KiB", "1MiB");
    let jobs = [1, 40].map(|parts| {
        let job = cluster.submit(&cluster.job_file("words.toml", &spec(&format!("s3://results/words-{parts}"), parts)), &[]);
        cluster.wait_done(job);
        (job, results.join(format!("words-{parts}")))
    });
    let keys = environment(proxy.address, SECRET_KEY).env;
    for (job, lies) in &jobs {
        // A store on a bad day: refused, reset in the middle, cut off, slow.
        proxy.set(Faults { unavailable: 100, reset: 150, truncated: 150, slow: 50 });
        let home = cluster.path(&format!("home-{job}"));
        let (code, said) = brought(&cluster, *job, &home, &keys);
        assert_eq!(code, Some(0), "{said}");
        assert!(parts(&home) == parts(lies), "the same bytes in the same order");
        assert!(manifest(&home)["parts"][0]["name"].as_str().is_some_and(|name| name.starts_with("part-00000.")), "{:#}", manifest(&home));
        let (code, said) = brought(&cluster, *job, &home, &keys);
        assert!(code == Some(2) && said.contains("is not empty"), "{said}");
    }
    let told = proxy.told();
    for (what, count) in [("503", &told.unavailable), ("reset", &told.reset), ("truncated", &told.truncated)] {
        assert!(count.load(Ordering::Relaxed) > 0, "{what} never happened in {} requests", told.requests.load(Ordering::Relaxed));
    }

    proxy.set(Faults::default());
    let (job, lies) = &jobs[1];
    let refused = |env: &[(String, String)]| {
        let to = cluster.path("never");
        let (code, said) = brought(&cluster, *job, &to, env);
        let left: Vec<String> = names(cluster.home.path()).into_iter().filter(|name| name.starts_with("never")).collect();
        assert!(left.is_empty(), "{left:?}");
        (code.unwrap_or_default(), said)
    };
    let (code, said) = refused(&environment(proxy.address, "wrong").env);
    assert!(
        code == 6 && said.contains("refuses access") && said.contains("set AWS_ACCESS_KEY_ID") && said.contains("of this command"),
        "{said}"
    );
    // Nobody gives this machine keys.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut none: Vec<(String, String)> = keys.iter().filter(|(name, _)| !name.contains("_KEY")).cloned().collect();
    none.push(("AWS_METADATA_ENDPOINT".into(), format!("http://{nobody}")));
    let (code, said) = refused(&none);
    assert!(code == 6 && said.contains("has no keys in its environment") && said.contains("set AWS_ACCESS_KEY_ID"), "{said}");
    let (code, said) = refused(&environment(nobody, SECRET_KEY).env);
    assert!(code == 9 && said.contains("cannot reach s3://results/words-40"), "{said}");

    // What became of the objects meanwhile is told by name.
    let name = manifest(lies)["parts"][7]["name"].as_str().expect("a name").to_owned();
    let bytes = std::fs::read(lies.join(&name)).expect("a part");
    let mut other = bytes.clone();
    other[0] ^= 1;
    std::fs::write(lies.join(&name), &other).expect("another object of this length");
    let (code, said) = refused(&keys);
    assert!(code == 7 && said.contains(&name) && said.contains("is not what the job made: its checksum is"), "{said}");
    std::fs::write(lies.join(&name), &bytes[..bytes.len() / 2]).expect("a shorter object");
    let (code, said) = refused(&keys);
    assert!(code == 7 && said.contains(&name) && said.contains(&format!("it has {} bytes", bytes.len() / 2)), "{said}");
    std::fs::remove_file(lies.join(&name)).expect("no object");
    let (code, said) = refused(&keys);
    assert!(code == 7 && said.contains(&format!("{name} is not there")), "{said}");
    std::fs::copy(jobs[0].1.join("manifest.json"), lies.join("manifest.json")).expect("the manifest of another job");
    let (code, said) = refused(&keys);
    assert!(code == 7 && said.contains("it is the manifest of another job"), "{said}");
    std::fs::remove_file(lies.join("manifest.json")).expect("no manifest");
    let (code, said) = refused(&keys);
    assert!(code == 7 && said.contains("words-40/manifest.json is not there"), "{said}");
}
