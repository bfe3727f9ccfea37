//! One seed, from its beginning to its verdict.

use super::audit::audit;
use super::client::Client;
use super::counters::Counters;
use super::{Sim, faults, workload};
use raftwerk_planted::Bug;
use raftwerk_scheduler::raft::sim;
use sha2::Digest;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Faults stop after this.
const FAULTS_UNTIL_MS: u64 = 285_000;
/// A simulation is at least this long.
const LEAST_MS: u64 = 300_000;
/// Faults have stopped: everything must be settled after this long.
const SETTLED_WITHIN_MS: u64 = 120_000;
const LEAST_FAULTS: u64 = 20;
const LEAST_JOBS: u64 = 3;
const LEAST_TASKS: u64 = 500;

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A bug that is switched on.
    pub planted: Option<Bug>,
    /// Prints everything that happens.
    pub tell: bool,
}

/// What a seed that held every promise did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// Hash over every message delivered, every fault and every leadership, with their times.
    pub trace: String,
    pub simulated_ms: u64,
    pub jobs: u64,
    pub counters: Counters,
}

/// A broken promise, with what led to it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
    pub story: Vec<String>,
}

impl Failure {
    /// The command that runs this seed again and tells everything.
    pub fn replay(&self) -> String {
        format!("cargo xtask sim --seeds 1 --from {} --tell", self.seed)
    }
}

/// Runs one seed to its end. The same seed gives the same report.
pub fn run_seed(seed: u64, options: Options) -> Result<Report, Failure> {
    raftwerk_planted::plant(options.planted);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        sim::run(seed, async move {
            let mut world = Sim::new(seed, options.tell).await;
            match world.live().await {
                Ok(()) => world.report(seed),
                Err(what) => {
                    let mut story: Vec<String> = world.story.iter().cloned().collect();
                    story.extend(world.describe());
                    Err(Failure { seed, what, story })
                }
            }
        })
    }));
    raftwerk_planted::plant(None);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default();
        Err(Failure { seed, what: format!("nothing_panics: {text}"), story: Vec::new() })
    })
}

impl Sim {
    async fn live(&mut self) -> Result<(), String> {
        let quiet = self.dice.below(faults::QUIET_EVERY) == 0;
        let jobs = workload::plan(&mut self.dice, 220_000, quiet);
        let quiet_from = quiet.then(|| jobs[workload::LONG_TASKS].at_ms);
        for (n, job) in jobs.into_iter().enumerate() {
            let client = Client::new(format!("key-{n}"), job.shape.spec(), job.at_ms, job.cancel_after_ms);
            self.clients.push(client.dropping(job.drop_after_ms));
        }
        let mut plan = faults::plan(&mut self.dice, 3_000, FAULTS_UNTIL_MS);
        if let Some(from) = quiet_from {
            faults::quiet(&mut plan, from);
        }
        self.plan = plan.into();
        while self.now < FAULTS_UNTIL_MS {
            self.next().await?;
        }
        self.calm().await;
        // What has survived all that must still be able to work.
        let last = workload::last(&mut self.dice).spec();
        self.clients.push(Client::new("key-last".to_owned(), last, self.now + 500, None));
        let until = self.now + SETTLED_WITHIN_MS;
        let mut settled = false;
        while self.now < LEAST_MS || !settled {
            self.next().await?;
            settled = match self.unsettled() {
                None => true,
                Some(what) if self.now > until => {
                    return Err(format!("everything_ends: {what}, {} ms after the last fault", SETTLED_WITHIN_MS));
                }
                Some(_) => false,
            };
        }
        self.check_results();
        self.check_hashes();
        match audit(|a| a.violation()) {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }

    async fn next(&mut self) -> Result<(), String> {
        self.step().await;
        match audit(|a| a.violation()) {
            Some(what) => Err(format!("{what} (at {} ms)", self.now)),
            None => Ok(()),
        }
    }

    /// A seed in which too little happened has shown nothing, and fails.
    fn report(&mut self, seed: u64) -> Result<Report, Failure> {
        let mut counters = audit(|a| a.counters.clone());
        counters.reads = self.counted_reads;
        counters.messages = self.cluster.trace().messages;
        self.note(&format!("{:x}", self.cluster.trace().hash));
        let jobs = audit(|a| a.latest()).map_or(0, |s| s.jobs.len() as u64);
        let trace = format!("{:x}", self.trace.clone().finalize());
        let report = Report { seed, trace, simulated_ms: self.now, jobs, counters };
        let little = [
            ("simulated milliseconds", report.simulated_ms, LEAST_MS),
            ("faults", report.counters.total_faults(), LEAST_FAULTS),
            ("jobs", report.jobs, LEAST_JOBS),
            ("accepted tasks", report.counters.accepted_tasks, LEAST_TASKS),
        ];
        match little.iter().find(|(_, is, least)| is < least) {
            Some((what, is, least)) => {
                let story = self.story.iter().cloned().collect();
                Err(Failure { seed, what: format!("a_seed_is_not_vacuous: {is} {what}, at least {least} are needed"), story })
            }
            None => Ok(report),
        }
    }
}

/// The stored seeds of every planted bug, from `tests/planted-seeds.txt`: `name seed seed ..`.
pub fn planted_seeds() -> Result<Vec<(Bug, Vec<u64>)>, String> {
    let mut stored = Vec::new();
    let lines = include_str!("../../planted-seeds.txt").lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let wrong = |why: String| format!("tests/planted-seeds.txt line {}: {why}", number + 1);
        let mut words = line.split_whitespace();
        let bug: Bug = words.next().unwrap_or_default().parse().map_err(wrong)?;
        let seeds: Result<Vec<u64>, _> = words.map(str::parse).collect();
        stored.push((bug, seeds.map_err(|e| wrong(e.to_string()))?));
    }
    Ok(stored)
}
