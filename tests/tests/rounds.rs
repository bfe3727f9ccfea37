//! Jobs with rounds on real processes: whatever dies in the middle of a round, each round counts once and the result is the same.

use raftwerk_tests::cluster::{Cluster, text};
use serde_json::Value;
use std::path::Path;

const POINTS: usize = 60_000;
const COLUMNS: usize = 6;
const ROUNDS: u64 = 25;

/// Points around nine centres, by a generator that is the same everywhere.
fn write_points(path: &Path) {
    let mut state = 7u64;
    let mut dice = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let centres: Vec<f32> = (0..9 * COLUMNS).map(|_| dice(1000) as f32 / 10.0).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({POINTS}, {COLUMNS}), }}");
    header.push_str(&" ".repeat((64 - (10 + header.len() + 1) % 64) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    for _ in 0..POINTS {
        let centre = dice(9) as usize * COLUMNS;
        (0..COLUMNS).for_each(|column| bytes.extend((centres[centre + column] + dice(2000) as f32 / 100.0).to_le_bytes()));
    }
    std::fs::write(path, bytes).expect("the file is written");
}

fn job(points: &Path, out: &Path, until: &str) -> String {
    format!(
        "[input]\nfiles = {points:?}\nsplit = \"32KiB\"\n[map]\nkernel = \"kmeans_assign\"\nparams = {{ clusters = 9, seed = 3 }}\n\
         max_lease_tasks = 4\n[reduce]\nkernel = \"kmeans_update\"\n[rounds]\nmax = {ROUNDS}\nuntil = \"{until}\"\n\
         [output]\npath = {out:?}\nformat = \"csv\"\n"
    )
}

fn result(out: &Path) -> String {
    std::fs::read_to_string(out.join("part-00000.csv")).expect("the part was published")
}

fn round(view: &Value) -> u64 {
    view["rounds"]["current"].as_u64().expect("a round")
}

/// What the kernel said of each round.
fn measures(view: &Value) -> Vec<Value> {
    view["rounds"]["ended"].as_array().expect("rounds").iter().map(|round| round["measures"].clone()).collect()
}

#[test]
fn a_worker_and_the_leader_die_in_the_middle_and_the_result_is_that_of_a_quiet_run() {
    let quiet = Cluster::start(1, 2);
    let points = quiet.path("points.npy");
    write_points(&points);
    let (calm, rough) = (quiet.path("calm"), quiet.path("rough"));
    let expected = quiet.wait_done(quiet.submit(&quiet.job_file("calm.toml", &job(&points, &calm, "max")), &[]));
    assert_eq!((round(&expected), measures(&expected).len()), (ROUNDS, ROUNDS as usize), "{expected:#}");

    let mut cluster = Cluster::start(3, 3);
    let number = cluster.submit(&cluster.job_file("rough.toml", &job(&points, &rough, "max")), &[]);
    cluster.until("the second round began", || round(&cluster.job(number)) >= 2);
    cluster.workers[0].kill();
    let at_worker = round(&cluster.job(number));
    cluster.until("another round ended", || round(&cluster.job(number)) > at_worker);
    let leader = cluster.leader();
    let at_leader = round(&cluster.job(number));
    cluster.schedulers[leader].kill();
    assert!(at_leader < ROUNDS, "there was nothing left to disturb");
    // The death of a process that has the shuffle data of the round under way.
    cluster.until("one more round ended", || {
        let output = cluster.run(&["-o", "json", "-q", "job", "show", &number.to_string()]);
        serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|view| round(&view) > at_leader)
    });
    cluster.workers[1].kill();
    let view = cluster.wait_done(number);
    println!("a worker died in round {at_worker}, the leader in round {at_leader}: {}", view["stages"]);
    assert_eq!(result(&rough), result(&calm));
    assert_eq!(measures(&view), measures(&expected), "every round counted every point once");
    let points_of = |view: &Value| view["tallies"].as_array().and_then(|all| all.iter().find(|t| t["name"] == "points")).cloned();
    assert_eq!(points_of(&view).map(|t| t["total"].clone()), Some(POINTS.to_string().into()), "of the last round");
    assert_eq!(points_of(&view), points_of(&expected));
}

#[test]
fn rounds_end_when_nothing_changes_and_are_shown() {
    let cluster = Cluster::start(1, 1);
    let (points, out) = (cluster.path("points.npy"), cluster.path("out"));
    write_points(&points);
    let file = cluster.job_file("points.toml", &job(&points, &out, "converged").replace("max = 25", "max = 200"));
    let number = cluster.submit(&file, &[]);
    let view = cluster.wait_done(number);
    let rounds = &view["rounds"];
    let ended = rounds["ended"].as_array().expect("rounds");
    assert!(rounds["converged"] == true && ended.len() < 200 && round(&view) == ended.len() as u64, "{rounds:#}");
    assert_eq!(ended.last().map(|last| last["measures"]["shift"].clone()), Some(0.0.into()));
    assert!(ended.iter().all(|round| round["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0)));
    assert_eq!(result(&out).lines().count(), 10, "a heading and nine clusters");
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).expect("a manifest")).expect("JSON");
    assert_eq!(manifest["rounds"], ended.len());
    let shown = text(&cluster.run(&["job", "show", &number.to_string()]).stdout);
    assert!(shown.contains(&format!("round {} of at most 200, converged", ended.len())) && shown.contains("objective"), "{shown}");
    // What one round left for the reduce task is not kept for all of them.
    let workers = cluster.json(&["worker", "list"]);
    assert!(workers["workers"][0]["liveness"] == "alive", "{workers:#}");
}
