//! One of eight workers and the leader die at the same moment: what a job costs beyond the capacity that is gone.

use crate::sample::{Sample, assert_sum, noop, seconds};
use raftwerk_tests::cluster::Cluster;

const WORKERS: usize = 8;
/// Of 5 ms each: five seconds on eight workers of one task at a time, which sleep and so do not fight for this machine's cores.
const TASKS: u64 = 8_000;
const TASK_US: u64 = 5_000;

pub fn run(runs: usize) -> anyhow::Result<()> {
    println!("## one of {WORKERS} workers and the leader killed (-9) in the middle of {TASKS} tasks of 5 ms");
    let mut cluster = Cluster::with_worker_flags(3, WORKERS, &["--cpus", "1", "--no-gpu"]);
    let file = cluster.job_file("noop.toml", &noop(TASKS, TASK_US, 0));
    let whole = |cluster: &Cluster| {
        let view = cluster.wait_done(cluster.submit(&file, &[]));
        assert_sum(&view, TASKS);
        seconds(&view)
    };
    whole(&cluster);
    let undisturbed = Sample::new((0..3).map(|_| whole(&cluster)).collect()).median();
    let mut ratios = Vec::new();
    for _ in 0..runs {
        let job = cluster.submit(&file, &[]);
        cluster.until("a third of the tasks is accepted", || cluster.accepted(job) > TASKS / 3);
        let done = cluster.accepted(job) as f64 / TASKS as f64;
        let leader = cluster.leader();
        cluster.workers[0].kill();
        cluster.schedulers[leader].kill();
        let view = cluster.wait_done(job);
        assert_sum(&view, TASKS);
        // What is left takes 8/7 of its time on seven workers; that much is nobody's fault.
        let with_lost_capacity = undisturbed * (done + (1.0 - done) * WORKERS as f64 / (WORKERS - 1) as f64);
        ratios.push(seconds(&view) / with_lost_capacity);
        cluster.restart_scheduler(leader);
        cluster.restart_worker(0);
        cluster.wait_for_workers(WORKERS);
    }
    let ratios = Sample::new(ratios);
    println!(
        "undisturbed {undisturbed:.2} s; with both killed {:.3} x the undisturbed time plus the lost capacity ({:.3} - {:.3}, {runs} runs); every sum exact",
        ratios.median(),
        ratios.min(),
        ratios.max()
    );
    Ok(())
}
