//! Runs seeds of the simulation; `cargo xtask sim` and `cargo xtask soak` start it.

use raftwerk_planted::Bug;
use raftwerk_tests::sim::{Counters, Failure, Options, Report, planted_seeds, run_seed};
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const USAGE: &str = "\
raftwerk-sim --seeds N [--from S] [--threads T] [--tell]     run N seeds, from S on (1); --tell prints all that happens
             [--within SECONDS]                              begin none after this time: as many as fit
raftwerk-sim --planted all|NAME --seeds K [--from S]          switch bugs on: each must be caught within K seeds
raftwerk-sim --stored                                         the stored seeds of every planted bug
raftwerk-sim --minutes M [--summary FILE] [--threads T]       fresh seeds as long as told; the summary goes into FILE";

/// Seeds kept for a planted bug by `--store`.
const STORED_PER_BUG: usize = 3;

#[derive(Default)]
struct Args {
    seeds: Option<u64>,
    from: Option<u64>,
    threads: Option<usize>,
    minutes: Option<u64>,
    within: Option<u64>,
    summary: Option<String>,
    planted: Option<String>,
    stored: bool,
    store: bool,
    tell: bool,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args::default();
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("error: {flag} wants a value\n{USAGE}"));
        fn number<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, String> {
            text.parse().map_err(|_| format!("error: {flag} wants a number, not '{text}'"))
        }
        match flag.as_str() {
            "--seeds" => parsed.seeds = Some(number(&flag, &value()?)?),
            "--from" => parsed.from = Some(number(&flag, &value()?)?),
            "--threads" => parsed.threads = Some(number(&flag, &value()?)?),
            "--minutes" => parsed.minutes = Some(number(&flag, &value()?)?),
            "--within" => parsed.within = Some(number(&flag, &value()?)?),
            "--summary" => parsed.summary = Some(value()?),
            "--planted" => parsed.planted = Some(value()?),
            "--stored" => parsed.stored = true,
            "--store" => parsed.store = true,
            "--tell" => parsed.tell = true,
            _ => return Err(format!("error: '{flag}' is not a flag\n{USAGE}")),
        }
    }
    Ok(parsed)
}

fn run(args: Args) -> Result<(), String> {
    if args.stored {
        return stored();
    }
    if let Some(which) = &args.planted {
        let bugs = if which == "all" { Bug::ALL.to_vec() } else { vec![which.parse::<Bug>().map_err(|e| format!("error: {e}"))?] };
        // One seed of one bug, told: for looking at how it was caught.
        if args.tell && bugs.len() == 1 {
            let outcome = run_seed(args.from.unwrap_or(1), Options { planted: Some(bugs[0]), tell: true });
            println!("{:?}", outcome.map(|r| r.trace).map_err(|f| f.what));
            return Ok(());
        }
        return planted(&args, &bugs);
    }
    if let Some(minutes) = args.minutes {
        let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_millis() as u64);
        let sum = seeds(&args, args.from.unwrap_or(fresh), u64::MAX, Some(Duration::from_secs(minutes * 60)));
        let text = summary(&sum, minutes);
        print!("{text}");
        if let Some(file) = &args.summary {
            std::fs::write(file, &text).map_err(|e| format!("error: cannot write {file}: {e}"))?;
        }
        return sum.verdict();
    }
    let Some(count) = args.seeds else { return Err(USAGE.to_owned()) };
    let sum = seeds(&args, args.from.unwrap_or(1), count, args.within.map(Duration::from_secs));
    print!("{}", counters(&sum));
    sum.verdict()
}

fn threads(args: &Args) -> usize {
    args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from)).max(1)
}

#[derive(Default)]
struct Sum {
    from: u64,
    seeds: u64,
    wall: Duration,
    simulated_ms: u64,
    counters: Counters,
    failures: Vec<Failure>,
}

impl Sum {
    fn add(&mut self, outcome: Result<Report, Failure>) {
        self.seeds += 1;
        match outcome {
            Ok(report) => {
                self.simulated_ms += report.simulated_ms;
                self.counters.add(&report.counters);
            }
            Err(failure) => self.failures.push(failure),
        }
    }

    fn verdict(&self) -> Result<(), String> {
        if self.failures.is_empty() { Ok(()) } else { Err(format!("error: {} of {} seeds failed", self.failures.len(), self.seeds)) }
    }
}

/// Runs `count` seeds on all threads, or as many as fit into the time.
fn seeds(args: &Args, from: u64, count: u64, time: Option<Duration>) -> Sum {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum { from, ..Sum::default() });
    std::thread::scope(|scope| {
        for _ in 0..threads(args) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - from >= count || time.is_some_and(|time| begun.elapsed() >= time) {
                        return;
                    }
                    let outcome = run_seed(seed, Options { planted: None, tell: args.tell });
                    if let Err(failure) = &outcome {
                        tell_failure(failure);
                    }
                    let mut sum = sum.lock().unwrap();
                    sum.add(outcome);
                    if sum.seeds.is_multiple_of(20) {
                        println!("{} seeds, {} failed, {:.0} s", sum.seeds, sum.failures.len(), begun.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap();
    sum.wall = begun.elapsed();
    sum
}

fn tell_failure(failure: &Failure) {
    let mut text = String::new();
    for line in &failure.story {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "seed {} failed: {}\nreplay: {}", failure.seed, failure.what, failure.replay());
    print!("{text}");
}

fn counters(sum: &Sum) -> String {
    let mut text = String::new();
    let minutes = sum.simulated_ms as f64 / 60_000.0;
    let each = sum.wall.as_secs_f64() / (sum.seeds.max(1)) as f64;
    let _ = writeln!(
        text,
        "seeds run: {} (from {}), failed: {}, simulated minutes: {minutes:.0}, wall seconds: {:.0} ({each:.2} a seed)",
        sum.seeds,
        sum.from,
        sum.failures.len(),
        sum.wall.as_secs_f64()
    );
    let _ = writeln!(text, "\nfaults: {}", sum.counters.total_faults());
    for (kind, count) in &sum.counters.faults {
        let _ = writeln!(text, "{count:>10}  {kind}");
    }
    let _ = writeln!(text, "\nwhat was reached:");
    for (name, count) in sum.counters.lines() {
        let _ = writeln!(text, "{count:>10}  {name}");
    }
    text
}

fn summary(sum: &Sum, minutes: u64) -> String {
    let mut text = format!("The last soak of the simulation: cargo xtask soak --minutes {minutes}\n\n{}", counters(sum));
    let _ = writeln!(text, "\nfailures: {}", if sum.failures.is_empty() { "none" } else { "" });
    for failure in &sum.failures {
        let _ = writeln!(text, "  seed {}: {}", failure.seed, failure.what);
    }
    text
}

/// Each bug must be caught. With `--store`, the seeds that catch it are printed in the form of the stored list.
fn planted(args: &Args, bugs: &[Bug]) -> Result<(), String> {
    std::panic::set_hook(Box::new(|_| {})); // panics are a way of being caught
    let (count, from) = (args.seeds.unwrap_or(500), args.from.unwrap_or(1));
    let wanted = if args.store { STORED_PER_BUG } else { 1 };
    let next = AtomicU64::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads(args) {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut caught = Vec::new();
                    let mut by = String::new();
                    for seed in from..from + count {
                        if let Err(failure) = run_seed(seed, Options { planted: Some(*bug), tell: false }) {
                            if caught.is_empty() {
                                println!("{:<24} caught by seed {seed}: {}", bug.name(), first_line(&failure.what));
                            }
                            caught.push(seed);
                            let _ = write!(by, " {seed}");
                            if caught.len() == wanted {
                                break;
                            }
                        }
                    }
                    if caught.is_empty() {
                        println!("{:<24} NOT caught by {count} seeds", bug.name());
                        missed.lock().unwrap().push(bug.name());
                    }
                    if args.store {
                        println!("store: {}{by}", bug.name());
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    if missed.is_empty() { Ok(()) } else { Err(format!("error: not caught: {}", missed.join(", "))) }
}

fn stored() -> Result<(), String> {
    std::panic::set_hook(Box::new(|_| {}));
    for (bug, seeds) in planted_seeds()? {
        for seed in seeds {
            match run_seed(seed, Options { planted: Some(bug), tell: false }) {
                Ok(_) => return Err(format!("error: seed {seed} does not catch {} any more", bug.name())),
                Err(failure) => println!("{:<24} caught by seed {seed}: {}", bug.name(), first_line(&failure.what)),
            }
        }
    }
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
