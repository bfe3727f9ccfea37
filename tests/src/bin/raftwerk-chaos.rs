//! Breaks a real cluster while jobs run and checks what its clients were told; `cargo xtask chaos` builds and starts it.

use clap::Parser;
use raftwerk_tests::chaos::faults::Fault;
use raftwerk_tests::chaos::{Config, namespaces, now_us, run};
use std::process::ExitCode;
use std::time::Duration;

/// Break a real cluster while jobs run, and check everything its clients were told
#[derive(Parser)]
#[command(name = "cargo xtask chaos")]
struct Cli {
    /// Kill the leader so many times at least
    #[arg(long, default_value_t = 0)]
    leader_kills: usize,
    /// Go on for so many minutes at least
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
    /// Seed of jobs and faults; a fresh one when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Which faults: kill, stop, cut, delay, drop, reset, half-open. Without --minutes: kill; with it: all
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Cut real links between network namespaces instead of connections in a proxy (needs root, `unshare`, `nsenter` and `ip`)
    #[arg(long)]
    namespaces: bool,
    /// Clients at work
    #[arg(long, default_value_t = 3)]
    clients: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| now_us() % 1_000_000);
    if cli.namespaces {
        if let Err(reason) = namespaces::check() {
            println!("SKIPPED: this machine gives no network namespaces of one's own: {reason}");
            return ExitCode::SUCCESS;
        }
        let mut args: Vec<String> = std::env::args().skip(1).collect();
        if cli.seed.is_none() {
            args.extend(["--seed".into(), seed.to_string()]);
        }
        match namespaces::enter(&args) {
            None => {}
            Some(Ok(status)) => return ExitCode::from(status.code().map_or(1, |code| code as u8)),
            Some(Err(error)) => {
                eprintln!("error: cannot run `unshare`: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let mut faults = match (cli.faults.is_empty(), cli.minutes > 0.0) {
        (false, _) => cli.faults,
        (true, true) => Fault::all(),
        (true, false) => vec![Fault::Kill],
    };
    if cli.namespaces && faults.iter().any(|f| f.needs_proxies()) {
        println!("delay, drop, reset and half-open need the proxies; namespaces have kill, stop and cut");
        faults.retain(|f| !f.needs_proxies());
    }
    // With nothing asked for: what a newcomer has patience for.
    let leader_kills = if cli.leader_kills == 0 && cli.minutes <= 0.0 { 20 } else { cli.leader_kills };
    let names: Vec<String> = faults.iter().map(Fault::to_string).collect();
    let again = format!(
        "cargo xtask chaos --seed {seed} --leader-kills {leader_kills} --minutes {} --faults {}{}",
        cli.minutes,
        names.join(","),
        if cli.namespaces { " --namespaces" } else { "" }
    );
    println!("{again}");
    let duration = Duration::from_secs_f64((cli.minutes * 60.0).clamp(0.0, 1e7));
    let config = Config { seed, leader_kills, duration, faults, namespaces: cli.namespaces, clients: cli.clients.max(1), verbose: true };
    match run(&config) {
        Ok(report) => {
            println!("{}", report.summary());
            if report.wrong.is_empty() {
                return ExitCode::SUCCESS;
            }
            println!("again with the same jobs and faults: {again}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
