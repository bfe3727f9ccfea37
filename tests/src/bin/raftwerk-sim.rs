//! Runs seeds of the simulation: `cargo xtask sim` and `cargo xtask soak`.

use raftwerk_tests::sim::{Counters, Failure, Options, Report, run_seed};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn main() -> ExitCode {
    let begun = Instant::now();
    let from: u64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(1);
    let seeds: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let next = AtomicU64::new(from);
    let results: Mutex<Vec<Result<Report, Failure>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2.min(seeds) {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from + seeds {
                    return;
                }
                let begun = Instant::now();
                let outcome = run_seed(seed, Options { planted: None, tell: std::env::var("TELL").is_ok() });
                match &outcome {
                    Ok(r) => println!("seed {seed}: {:?} {} faults {} tasks", begun.elapsed(), r.counters.total_faults(), r.counters.accepted_tasks),
                    Err(f) => println!("seed {seed}: FAILED {:?} {}\n{}", begun.elapsed(), f.what, f.story.join("\n")),
                }
                results.lock().unwrap().push(outcome);
            });
        }
    });
    let mut sum = Counters::default();
    for r in results.lock().unwrap().iter().flatten() {
        sum.add(&r.counters);
    }
    println!("{:?} {sum:#?}", begun.elapsed());
    ExitCode::SUCCESS
}
