//! One of four workers runs for 20 ms of every second: what a job takes against one that never had it, and how much is run a second time for that.

use crate::sample::{Sample, assert_sum, noop, seconds};
use raftwerk_tests::cluster::Cluster;
use raftwerk_tests::slices::{family, in_slices};
use serde_json::Value;
use std::time::Duration;

const WORKERS: usize = 4;
/// Of 20 ms each, which sleep and so do not fight for this machine's cores: eight seconds on three workers of one task at a time.
const TASKS: u64 = 1_200;
const TASK_US: u64 = 20_000;
const RUNS: Duration = Duration::from_millis(20);
const STANDS: Duration = Duration::from_millis(980);

/// Ratios to what it is measured against, and copies of tasks in percent of the job.
#[derive(Default)]
struct Measured {
    ratios: Vec<f64>,
    copies: Vec<f64>,
    in_vain: Vec<f64>,
}

impl Measured {
    fn add(&mut self, view: &Value, against: f64) {
        assert_sum(view, TASKS);
        let number = |name: &str| view["stages"][0][name].as_u64().unwrap_or(0) as f64;
        self.ratios.push(seconds(view) / against);
        self.copies.push(100.0 * number("speculated") / TASKS as f64);
        self.in_vain.push(100.0 * (number("speculated") - number("speculative_wins")) / TASKS as f64);
    }

    fn print(self, what: &str, against: &str) {
        let runs = self.ratios.len();
        let (ratios, copies, in_vain) = (Sample::new(self.ratios), Sample::new(self.copies), Sample::new(self.in_vain));
        println!(
            "{what}: {:.3} x {against} ({:.3} - {:.3}, {runs} runs); leased a second time {:.1} % of the tasks (at most {:.1}), in vain {:.1} % (at most {:.1})",
            ratios.median(),
            ratios.min(),
            ratios.max(),
            copies.median(),
            copies.max(),
            in_vain.median(),
            in_vain.max()
        );
    }
}

pub fn run(runs: usize) -> anyhow::Result<()> {
    println!("## one of {WORKERS} workers runs {RUNS:?} of every second; {TASKS} tasks of 20 ms");
    let cluster = Cluster::with_worker_flags(3, WORKERS, &["--cpus", "1", "--no-gpu"]);
    let file = cluster.job_file("noop.toml", &noop(TASKS, TASK_US, 0));
    let whole = || cluster.wait_done(cluster.submit(&file, &[]));
    let slow = family(cluster.workers[WORKERS - 1].child.id());
    whole();
    let undisturbed = Sample::new((0..3).map(|_| seconds(&whole())).collect()).median();
    let name = format!("worker-{WORKERS}");
    cluster.json(&["worker", "drain", &name]);
    let without = Sample::new((0..3).map(|_| seconds(&whole())).collect()).median();
    cluster.json(&["worker", "release", &name]);
    println!("undisturbed {undisturbed:.2} s; without that worker {without:.2} s");

    let (mut from_the_start, mut in_the_middle) = (Measured::default(), Measured::default());
    for _ in 0..runs {
        // What it was measured at before must not help: it is as fast as the others again.
        whole();
        from_the_start.add(&in_slices(&slow, RUNS, STANDS, whole), without);
        whole();
        let job = cluster.submit(&file, &[]);
        cluster.until("a third of the tasks is accepted", || cluster.accepted(job) > TASKS / 3);
        let done = cluster.accepted(job) as f64 / TASKS as f64;
        let view = in_slices(&slow, RUNS, STANDS, || cluster.wait_done(job));
        in_the_middle.add(&view, undisturbed * (done + (1.0 - done) * WORKERS as f64 / (WORKERS - 1) as f64));
    }
    from_the_start.print("slow from the start", "the time without that worker");
    in_the_middle.print("slow from a third of the job on", "the undisturbed time plus the lost capacity");
    Ok(())
}
