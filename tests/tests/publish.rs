//! Two-phase publish with real processes: whatever dies at whatever step, readers see a whole output or none.
//!
//! The processes die at fail points, which debug builds alone have; elsewhere these tests say that they were skipped.

use raftwerk_tests::cluster::{Cluster, merged_rows};
use raftwerk_tests::words::{expected_rows, word_count, write_text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ONE_CPU: [&str; 3] = ["--cpus", "1", "--no-gpu"];

/// `cargo test --release` has no fail points to die at.
fn skipped() -> bool {
    if !cfg!(debug_assertions) {
        println!("skipped: fail points are compiled into debug builds only");
    }
    !cfg!(debug_assertions)
}

/// Looks at an output again and again, as a reader would.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<Seen, String>>>,
}

#[derive(Default)]
struct Seen {
    looks: u64,
    absent_after_present: bool,
}

impl Reader {
    fn start(dir: PathBuf) -> Reader {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut seen, mut present) = (Seen::default(), false);
            while !told.load(Ordering::Relaxed) {
                let there = whole_or_absent(&dir)?;
                seen.absent_after_present |= present && !there;
                present |= there;
                seen.looks += 1;
                std::thread::sleep(Duration::from_micros(300));
            }
            Ok(seen)
        });
        Reader { stop, thread: Some(thread) }
    }

    fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.take().expect("one end").join().expect("the reader lives").unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(seen.looks > 10, "the reader hardly looked");
        seen
    }
}

/// Whether an output is there; an error when it is not whole. One descriptor of the directory is one version of the output, whatever is
/// exchanged under its name meanwhile.
fn whole_or_absent(dir: &Path) -> Result<bool, String> {
    use std::os::fd::AsRawFd;
    let Ok(opened) = std::fs::File::open(dir) else { return Ok(false) };
    let at = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let wrong = |what: String| {
        // A replaced output may be taken away under a reader that still has it open; then its name leads elsewhere by now.
        let now = std::fs::metadata(dir).ok().map(|m| std::os::unix::fs::MetadataExt::ino(&m));
        let then = opened.metadata().ok().map(|m| std::os::unix::fs::MetadataExt::ino(&m));
        if now == then { Err(format!("{}: {what}", dir.display())) } else { Ok(true) }
    };
    let manifest = std::fs::read(at.join("manifest.json")).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let Some(manifest) = manifest else { return wrong("visible without a whole manifest".into()) };
    let mut named = vec!["manifest.json".to_owned()];
    for part in manifest["parts"].as_array().cloned().unwrap_or_default() {
        let name = part["name"].as_str().unwrap_or_default().to_owned();
        let bytes = std::fs::metadata(at.join(&name)).ok().map(|m| m.len());
        if bytes != part["bytes"].as_u64() {
            return wrong(format!("{name} has {bytes:?} bytes, the manifest says {}", part["bytes"]));
        }
        named.push(name);
    }
    let files = std::fs::read_dir(&at).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    match files.into_iter().find(|name| !named.contains(name)) {
        Some(stranger) => wrong(format!("{stranger} is visible and not in the manifest")),
        None => Ok(true),
    }
}

/// Restarts what dies until every wish has come true and the job has ended.
fn see_through(cluster: &mut Cluster, job: u64, points: &[&str]) {
    let started = std::time::Instant::now();
    loop {
        cluster.restart_dead();
        let reached = points.iter().filter(|point| cluster.path(point).exists()).count();
        let output = cluster.run(&["-o", "json", "job", "show", &job.to_string()]);
        let view: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match view["state"].as_str() {
            Some("done") if reached == points.len() => break,
            Some("failed" | "cancelled") => panic!("{view:#}\n{}", cluster.logs()),
            _ => {}
        }
        let patience = started.elapsed() < raftwerk_tests::cluster::PATIENCE;
        assert!(patience, "{reached} of {points:?} reached, the job is {}\n{}", view["state"], cluster.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    // The last death may come right after the job's end.
    std::thread::sleep(Duration::from_millis(100));
    cluster.restart_dead();
    assert_eq!(cluster.wait_done(job)["state"], "done");
}

fn no_left_overs(cluster: &Cluster) {
    cluster.until("no staging directory left", || {
        let names = std::fs::read_dir(cluster.home.path()).expect("home").flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        !names.into_iter().any(|name| name.contains("raftwerk-tmp"))
    });
}

const WORKER_POINTS: [&str; 8] = [
    "prepare.written",
    "publish.asked",
    "publish.checked",
    "publish.settled",
    "publish.manifest",
    "publish.claimed",
    "publish.swapped",
    "publish.done",
];

/// Something of ours that may be replaced.
fn old_output(out: &Path) {
    std::fs::create_dir(out).expect("an old output");
    std::fs::write(out.join("old.csv"), "word,count\n").expect("an old part");
    let old = r#"{"cluster": "old", "job": 1, "parts": [{"name": "old.csv", "bytes": 11}]}"#;
    std::fs::write(out.join("manifest.json"), old).expect("an old manifest");
}

fn kill_at(points: &[&str]) -> Vec<String> {
    points.iter().map(|point| format!("kill:{point}")).collect()
}

fn publish_under_fire(schedulers: usize, workers: usize, points: &[&str], over_an_old_output: bool) {
    let wishes = kill_at(points);
    let mut cluster = Cluster::with_fail_points(schedulers, workers, &ONE_CPU, &wishes.iter().map(String::as_str).collect::<Vec<_>>());
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let out = cluster.path("out");
    let mut toml = word_count(&input, &out, 5);
    if over_an_old_output {
        toml = toml.replace("format = \"csv\"", "format = \"csv\"\nif_exists = \"replace\"");
        old_output(&out);
    }
    let reader = Reader::start(out.clone());
    let job = cluster.submit(&cluster.job_file("words.toml", &toml), &[]);
    see_through(&mut cluster, job, points);
    let seen = reader.stop();
    assert!(!seen.absent_after_present, "an output that was there has been away");
    assert_eq!(merged_rows(&out), expected);
    no_left_overs(&cluster);
}

#[test]
fn workers_die_at_every_step_of_a_publish_and_the_output_appears_whole() {
    if !skipped() {
        publish_under_fire(1, 5, &WORKER_POINTS, false);
    }
}

#[test]
fn workers_die_at_every_step_of_a_publish_that_replaces_and_the_output_is_never_away() {
    if !skipped() {
        publish_under_fire(1, 5, &WORKER_POINTS, true);
    }
}

#[test]
fn leaders_die_between_prepare_and_decision_and_around_the_publish() {
    if !skipped() {
        publish_under_fire(3, 5, &["leader.prepared", "leader.decided", "leader.published"], false);
    }
}

#[test]
fn decided_parts_that_are_lost_for_good_are_made_again_and_only_they() {
    if skipped() {
        return;
    }
    let cluster = Cluster::with_fail_points(1, 2, &ONE_CPU, &["pause:publish.asked"]);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let out = cluster.path("out");
    let job = cluster.submit(&cluster.job_file("words.toml", &word_count(&input, &out, 5)), &[]);
    cluster.until("the publisher asked", || cluster.path("publish.asked").exists());
    assert_eq!(cluster.job(job)["state"], "publishing");
    let staging = std::fs::read_dir(cluster.home.path()).expect("home").flatten().map(|e| e.path());
    let staging = staging.into_iter().find(|path| path.to_string_lossy().contains("raftwerk-tmp")).expect("a staging directory");
    let staged = |part: &str| {
        let found = std::fs::read_dir(&staging).expect("staging").flatten().map(|e| e.path());
        found.into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(part))).expect("a staged part")
    };
    std::fs::remove_file(staged("part-00001.csv")).expect("a part can be deleted");
    let damaged = staged("part-00003.csv");
    let mut bytes = std::fs::read(&damaged).expect("a part");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).expect("a part can be damaged");
    std::fs::write(cluster.path("publish.asked.go"), "").expect("go on");
    let view = cluster.wait_done(job);
    assert_eq!(merged_rows(&out), expected);
    let [map, reduce] = [&view["stages"][0], &view["stages"][1]];
    assert_eq!((&map["generation"], &reduce["generation"]), (&1.into(), &2.into()), "{view:#}");
    assert_eq!(reduce["failed_attempts"], 2, "two parts were lost: {view:#}");
    let made = |stage: &str| -> u64 {
        let shares = view["shares"].as_array().expect("shares").iter().filter(|share| share["stage"] == stage);
        shares.map(|share| share["tasks"].as_u64().unwrap_or(0)).sum()
    };
    assert_eq!((made("map"), made("reduce")), (map["tasks"].as_u64().unwrap_or(0), 5 + 2), "nothing else ran again");
    no_left_overs(&cluster);
}

/// A publisher is stopped right before the rename, another one takes over, and the first one wakes up: with an exchange, doing it a second time
/// would bring the old output back.
#[test]
fn a_publisher_that_wakes_up_after_another_has_published_changes_nothing() {
    if skipped() {
        return;
    }
    let cluster = Cluster::with_fail_points(1, 2, &ONE_CPU, &["pause:publish.claimed"]);
    let input = cluster.path("text");
    let expected = expected_rows(&write_text(&input));
    let out = cluster.path("out");
    old_output(&out);
    let toml = word_count(&input, &out, 5).replace("format = \"csv\"", "format = \"csv\"\nif_exists = \"replace\"");
    let job = cluster.submit(&cluster.job_file("words.toml", &toml), &[]);
    cluster.until("a claim", || cluster.path("publish.claimed").exists());
    let sleeper = cluster.workers.iter().find(|worker| worker.log().contains("a fail point is reached")).expect("who claimed it");
    sleeper.signal("STOP");
    let reader = Reader::start(out.clone());
    assert_eq!(cluster.wait_done(job)["state"], "done");
    assert_eq!(merged_rows(&out), expected);
    std::fs::write(cluster.path("publish.claimed.go"), "").expect("go on");
    sleeper.signal("CONT");
    cluster.wait_for_workers(2);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!reader.stop().absent_after_present);
    assert_eq!(merged_rows(&out), expected, "the old output did not come back");
    no_left_overs(&cluster);
}
