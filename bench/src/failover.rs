//! Death and silence of a leader or a worker during a job: how long until tasks are given out again, and what ran twice.
//!
//! Nothing is polled while a clock runs. Workers write every granted lease and every executed task into their logs with a time; a run's
//! figures are read from there when its job has ended.

use crate::sample::{Sample, assert_sum, seconds};
use raftwerk_tests::chaos::executions::{Execution, GrantSeen, executions, grants, welcomes};
use raftwerk_tests::chaos::fleet::{WORKER_LOG, children, signal};
use raftwerk_tests::chaos::now_us;
use raftwerk_tests::cluster::{Cluster, Launch};
use std::collections::BTreeMap;
use std::time::Duration;

/// Long enough for every silence to be noticed and repaired while there is work left.
const SILENCE: Duration = Duration::from_secs(5);
const LEASE_SILENCE: Duration = Duration::from_secs(13);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    LeaderKilled,
    LeaderStopped,
    WorkerKilled,
    WorkerStopped,
}

impl Blow {
    fn name(self) -> &'static str {
        match self {
            Blow::LeaderKilled => "leader kill -9: next task given out",
            Blow::LeaderStopped => "leader SIGSTOP (5 s): next task given out",
            Blow::WorkerKilled => "worker kill -9: its first task given to another",
            Blow::WorkerStopped => "worker SIGSTOP (13 s): its first task given to another",
        }
    }

    /// Tasks of 5 ms on two cores.
    fn tasks(self) -> u64 {
        match self {
            Blow::LeaderKilled => 1500,
            Blow::LeaderStopped | Blow::WorkerKilled => 3500,
            Blow::WorkerStopped => 6000,
        }
    }
}

pub fn run(runs: usize) -> anyhow::Result<()> {
    println!("## death and silence during a job of one-task leases of 5 ms: 3 durable replicas, 2 workers with 1 core each");
    let launch = Launch { env: vec![("RAFTWERK_LOG".into(), WORKER_LOG.into())], ..Launch::default() };
    let mut cluster = Cluster::with_worker_launch(3, 2, &["--cpus", "1", "--no-gpu"], launch);
    let mut range = 0;
    let quiet: Vec<f64> = (0..3).map(|_| one(&mut cluster, None, 1500, &mut range).job_seconds).collect();
    println!("undisturbed job of 1,500 tasks: {:.2} s", Sample::new(quiet).median());
    for blow in [Blow::LeaderKilled, Blow::LeaderStopped, Blow::WorkerKilled, Blow::WorkerStopped] {
        // Silence takes its time; a third of the runs says as much.
        let runs = if matches!(blow, Blow::LeaderStopped | Blow::WorkerStopped) { runs.div_ceil(3) } else { runs };
        let (mut gaps, mut totals) = (Vec::new(), Vec::new());
        let (mut again, mut refused, mut recorded) = (0, 0, 0);
        for _ in 0..runs {
            let seen = one(&mut cluster, Some(blow), blow.tasks(), &mut range);
            gaps.extend(seen.gap_seconds);
            totals.push(seen.job_seconds);
            again += seen.again;
            refused += seen.refused;
            recorded += seen.recorded;
        }
        anyhow::ensure!(gaps.len() == runs, "{}: only {} of {runs} runs had something to give out", blow.name(), gaps.len());
        let (gaps, totals) = (Sample::new(gaps), Sample::new(totals));
        println!(
            "{}: median {:.2} s, p99 {:.2} s, max {:.2} s ({runs} runs); job of {} tasks median {:.2} s, max {:.2} s; {again} of {recorded} executions were second ones, {refused} results refused; every sum exact",
            blow.name(),
            gaps.median(),
            gaps.percentile(99.0),
            gaps.max(),
            blow.tasks(),
            totals.median(),
            totals.max()
        );
    }
    Ok(())
}

struct Seen {
    gap_seconds: Option<f64>,
    job_seconds: f64,
    /// Executions of a task beyond its first.
    again: usize,
    recorded: usize,
    refused: u64,
}

/// One job with one blow, and the cluster whole again.
fn one(cluster: &mut Cluster, blow: Option<Blow>, tasks: u64, range: &mut u64) -> Seen {
    let first = *range;
    *range += tasks;
    let text = format!(
        "[job]\nname = \"noop\"\n[input]\nrange = {{ start = {first}, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nmax_lease_tasks = 1\nparams = {{ sleep_us = 5000, print = \"yes\" }}\n"
    );
    let job = cluster.submit(&cluster.job_file("noop.toml", &text), &[]);
    let mut blow_us = 0;
    if let Some(blow) = blow {
        cluster.until("tasks accepted", || cluster.accepted(job) > 100);
        let leader = cluster.leader();
        match blow {
            Blow::LeaderKilled => {
                blow_us = now_us();
                cluster.schedulers[leader].kill();
                // Not before the others have gone on without it.
                std::thread::sleep(Duration::from_millis(1500));
                cluster.restart_scheduler(leader);
            }
            Blow::LeaderStopped => {
                blow_us = now_us();
                cluster.schedulers[leader].signal("STOP");
                std::thread::sleep(SILENCE);
                cluster.schedulers[leader].signal("CONT");
            }
            Blow::WorkerKilled => {
                blow_us = now_us();
                cluster.workers[0].kill();
            }
            Blow::WorkerStopped => {
                let executors = children(cluster.workers[0].child.id());
                blow_us = now_us();
                cluster.workers[0].signal("STOP");
                executors.iter().for_each(|pid| signal(*pid, "STOP"));
                std::thread::sleep(LEASE_SILENCE);
                executors.iter().for_each(|pid| signal(*pid, "CONT"));
                cluster.workers[0].signal("CONT");
            }
        }
    }
    let view = cluster.wait_done(job);
    assert_range_sum(&view, first, tasks);
    let logs: Vec<(String, String)> = cluster.workers.iter().map(|w| (w.name.clone(), w.log())).collect();
    let own = |e: &Execution| (first..first + tasks).contains(&e.index);
    let runs: Vec<Execution> = logs.iter().flat_map(|(name, log)| executions(name, log)).filter(own).collect();
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    runs.iter().for_each(|e| *times.entry(e.index).or_default() += 1);
    let given: Vec<GrantSeen> = logs.iter().flat_map(|(name, log)| grants(name, log)).filter(|g| g.job == job).collect();
    let gap_us = match blow {
        None => None,
        Some(Blow::LeaderKilled | Blow::LeaderStopped) => next_grant(&logs, &given, blow_us),
        Some(Blow::WorkerKilled | Blow::WorkerStopped) => given_to_another(&given, &runs, first, blow_us),
    };
    if blow == Some(Blow::WorkerKilled) {
        cluster.restart_worker(0);
    }
    cluster.wait_for_workers(2);
    Seen {
        gap_seconds: gap_us.map(|us| us as f64 / 1e6),
        job_seconds: seconds(&view),
        again: times.values().map(|n| n - 1).sum(),
        recorded: runs.len(),
        refused: view["stages"][0]["fenced"].as_u64().unwrap_or(0),
    }
}

/// From the blow to the first lease that a worker was given by a leader that welcomed it after the blow.
fn next_grant(logs: &[(String, String)], given: &[GrantSeen], blow_us: u64) -> Option<u64> {
    let firsts = logs.iter().filter_map(|(worker, log)| {
        let (welcomed, _) = welcomes(log).into_iter().find(|(at_us, _)| *at_us > blow_us)?;
        given.iter().filter(|g| g.worker == *worker && g.at_us >= welcomed).map(|g| g.at_us - blow_us).min()
    });
    firsts.min()
}

/// From the blow to the first lease by which another worker got a task that the first one had not finished.
fn given_to_another(given: &[GrantSeen], runs: &[Execution], first_index: u64, blow_us: u64) -> Option<u64> {
    let victim = "worker-1";
    let before = |g: &&GrantSeen| g.worker == victim && g.at_us <= blow_us;
    let finished = |task: u64| runs.iter().any(|e| e.worker == victim && e.at_us <= blow_us && e.index == first_index + task);
    let had: Vec<u64> = given.iter().filter(before).map(|g| g.first_task).filter(|task| !finished(*task)).collect();
    let others = given.iter().filter(|g| g.worker != victim && g.at_us > blow_us);
    others.filter(|g| had.contains(&g.first_task)).map(|g| g.at_us - blow_us).min()
}

fn assert_range_sum(view: &serde_json::Value, first: u64, tasks: u64) {
    if first == 0 {
        return assert_sum(view, tasks);
    }
    let (first, tasks) = (u128::from(first), u128::from(tasks));
    let expected = (first * tasks + tasks * (tasks - 1) / 2).to_string();
    assert_eq!(view["tallies"][0]["total"].as_str(), Some(expected.as_str()), "{view:#}");
}
