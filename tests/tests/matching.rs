//! Jobs that say which devices they want, on real processes: workers with labels, refusals that say what would have to change, jobs that
//! wait, and a stage that begins on two workers at once.

use raftwerk_tests::cluster::{Cluster, text};
use serde_json::Value;
use std::collections::BTreeSet;

fn cluster() -> Cluster {
    let mut cluster = Cluster::start(1, 0);
    cluster.add_worker(1, &["--cpus", "1", "--no-gpu", "--label", "zone=a"]);
    cluster.add_worker(2, &["--cpus", "1", "--no-gpu", "--label", "zone=b", "--label", "disk=ssd"]);
    cluster.wait_for_workers(2);
    cluster
}

fn job(tasks: u64, map: &str) -> String {
    format!("[input]\nrange = {{ count = {}, tasks = {tasks} }}\n[map]\nkernel = \"monte_carlo_pi\"\n{map}\n", tasks * 20_000)
}

fn workers_of(view: &Value) -> BTreeSet<String> {
    let shares = view["shares"].as_array().expect("shares").iter().filter(|share| share["tasks"].as_u64() > Some(0));
    shares.map(|share| share["worker_name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_job_runs_where_its_label_is_and_is_refused_or_waits_where_it_is_not() {
    let mut cluster = cluster();
    let shown = cluster.json(&["worker", "show", "worker-2"]);
    assert_eq!(shown["labels"], serde_json::json!({"disk": "ssd", "zone": "b"}), "{shown:#}");
    let people = cluster.run(&["worker", "show", "worker-2"]);
    assert!(text(&people.stdout).contains("labels: disk=ssd, zone=b"), "{}", text(&people.stdout));

    let in_b = cluster.job_file("b.toml", &job(300, "[map.require]\nlabels = { zone = \"b\" }"));
    let view = cluster.wait_done(cluster.submit(&in_b, &[]));
    assert_eq!(workers_of(&view), ["worker-2".to_owned()].into());
    let view = cluster.wait_done(cluster.submit(&in_b, &["--set", "map.require.labels.zone=a"]));
    assert_eq!(workers_of(&view), ["worker-1".to_owned()].into());

    let in_c = cluster.job_file("c.toml", &job(10, "[map.require]\nclass = \"cpu\"\nlabels = { zone = \"c\" }"));
    let refused = cluster.run(&["submit", &in_c]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(6), "{said}");
    for part in [
        "no device of the cluster can run stage 'map'",
        "2 of 2 devices: its worker has no label zone=c",
        "nearest: worker",
        "--wait-for-devices",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // What a kernel itself needs comes the same way: no GPU is there.
    let on_gpu = cluster.job_file("gpu.toml", &job(10, "device = \"gpu\""));
    let refused = cluster.run(&["submit", &on_gpu]);
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(6) && said.contains("2 of 2 devices: not of class gpu"), "{said}");

    let waiting = cluster.submit(&in_c, &["--wait-for-devices"]);
    cluster
        .until("it says what it waits for", || cluster.job(waiting)["waits"].as_str().is_some_and(|waits| waits.contains("label zone=c")));
    let people = text(&cluster.run(&["job", "show", &waiting.to_string()]).stdout);
    assert!(people.contains("waits: no device of the cluster can run stage 'map'"), "{people}");
    cluster.add_worker(3, &["--cpus", "1", "--no-gpu", "--label", "zone=c"]);
    let view = cluster.wait_done(waiting);
    assert_eq!((workers_of(&view), &view["waits"]), (["worker-3".to_owned()].into(), &Value::Null));
}

#[test]
fn a_stage_that_begins_on_two_devices_waits_for_the_second_one() {
    let mut cluster = Cluster::start(1, 1);
    let gang = cluster.job_file("gang.toml", &job(40, "gang = 2\ngang_hold = \"10s\""));
    let refused = cluster.run(&["submit", &gang]);
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(6) && said.contains("begins on 2 devices at once (gang), and 1 of the cluster"), "{said}");
    let waiting = cluster.submit(&gang, &["--wait-for-devices"]);
    cluster.until("it says what it waits for", || cluster.job(waiting)["waits"].as_str().is_some_and(|waits| waits.contains("gang")));
    // Meanwhile the worker that is there does other work.
    let plain = cluster.job_file("plain.toml", &job(20, ""));
    cluster.wait_done(cluster.submit(&plain, &[]));
    assert_eq!(cluster.accepted(waiting), 0);
    cluster.add_worker(2, &["--cpus", "1", "--no-gpu"]);
    let view = cluster.wait_done(waiting);
    assert_eq!(workers_of(&view).len(), 2, "{view:#}");
}

#[test]
fn labels_that_cannot_be_are_refused_before_anything_starts() {
    let cluster = Cluster::start(1, 0);
    let start = |label: &[&str]| {
        let dir = cluster.path("refused");
        let join = cluster.addresses.join(",");
        let mut args = vec!["worker", "start", "--join", &join, "--data-dir", dir.to_str().expect("UTF-8")];
        label.iter().for_each(|label| args.extend(["--label", label]));
        let output = cluster.run(&args);
        assert!(!dir.exists());
        (output.status.code(), text(&output.stderr))
    };
    for (labels, said) in [
        (&["zone"][..], "KEY=VALUE"),
        (&["Zone=a"], "1 to 63 of a-z"),
        (&["zone="], "1 to 128 bytes"),
        (&["zone=a", "zone=b"], "label zone is a already"),
    ] {
        let (code, stderr) = start(labels);
        assert!(code == Some(2) && stderr.contains(said), "{labels:?}: {code:?} {stderr}");
    }
}
