//! Workers that are slow and tasks that kill, with real processes.

use raftwerk_tests::cluster::{Cluster, text};
use raftwerk_tests::slices::{family, in_slices};
use serde_json::Value;
use std::time::Duration;

fn noop(tasks: u64, params: &str, job: &str) -> String {
    format!(
        "[job]\nname = \"noop\"\n{job}[input]\nrange = {{ start = 0, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nparams = {{ {params} }}\n"
    )
}

fn total(job: &Value) -> u128 {
    job["tallies"][0]["total"].as_str().expect("a decimal").parse().expect("a number")
}

#[test]
fn a_slow_worker_does_not_hold_the_job() {
    let cluster = Cluster::start(1, 4);
    let slow = family(cluster.workers[3].child.id());
    assert!(slow.len() >= 2, "a worker has an executor");
    let tasks = 400;
    // Whether a copy wins depends on where in its slices the slow one is; some are on time after all.
    for _ in 0..8 {
        let view = in_slices(&slow, Duration::from_millis(20), Duration::from_millis(980), || {
            let job = cluster.submit(&cluster.job_file("noop.toml", &noop(tasks, "sleep_us = 20_000", "")), &[]);
            cluster.wait_done(job)
        });
        assert_eq!(total(&view), u128::from(tasks * (tasks - 1) / 2));
        let stage = &view["stages"][0];
        let number = |name: &str| stage[name].as_u64().expect("a number");
        let in_vain = number("speculated") - number("speculative_wins");
        assert!(in_vain <= tasks / 10, "{in_vain} copies in vain: {view:#}");
        if number("speculative_wins") > 0 {
            return;
        }
    }
    panic!("nobody ever took its tasks");
}

#[test]
fn a_task_that_kills_its_executor_is_set_aside_and_the_others_are_done() {
    let cluster = Cluster::start(1, 3);
    let (tasks, bad) = (60, 17);
    let going_on = noop(tasks, &format!("crash_task = \"{bad}\", sleep_us = 1000"), "on_set_aside = \"continue\"\n");
    let output = cluster.run(&["submit", "--wait", &cluster.job_file("going-on.toml", &going_on)]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "done, but not all of it: {said}");
    assert!(said.contains(&format!("map task {bad}")), "{said}");
    let view = cluster.job(1);
    assert_eq!(view["state"], "done");
    assert_eq!(total(&view), u128::from(tasks * (tasks - 1) / 2 - bad));
    let aside = &view["set_aside"][0];
    assert_eq!((aside["first_task"].as_u64(), aside["task_count"].as_u64()), (Some(bad), Some(1)));
    assert_eq!(aside["workers"].as_array().map(Vec::len), Some(3), "three workers bear witness: {aside}");
    assert!(aside["message"].as_str().is_some_and(|m| m.contains("crash_task")), "with its last words: {aside}");
    let shown = text(&cluster.run(&["job", "show", "1"]).stdout);
    assert!(shown.contains(&format!("map task {bad}")) && shown.contains("crash_task"), "{shown}");

    let strict = cluster.job_file("strict.toml", &going_on.replace("on_set_aside = \"continue\"\n", ""));
    let output = cluster.run(&["submit", "--wait", &strict]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("task {bad} killed its executor on workers")), "{said}");
}
