//! A real cluster of three schedulers and three workers, with clients at work, that is killed, stopped, cut off and held up; and the
//! question whether anybody was told anything untrue. `cargo xtask chaos` runs it.
//!
//! ```text
//! fleet       the processes, and what was done to whom      proxy, namespaces, network   the lines between them
//! clients     jobs of known answers, and what was told      faults, dice                 what goes wrong, from a seed
//! executions  which tasks really ran                        decisions                    what the log decided of them
//! history     the checker
//! ```
//!
//! The seed decides jobs and faults, not how the processes interleave: the same seed is the same kind of run, not the same run.

pub mod clients;
pub mod decisions;
pub mod dice;
pub mod executions;
pub mod faults;
pub mod fleet;
pub mod history;
pub mod namespaces;
pub mod network;
pub mod proxy;

use decisions::Decisions;
use dice::Dice;
use faults::{Done, Fault};
use fleet::Fleet;
use history::{Evidence, Expect, Story};
use network::Network;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug)]
pub struct Config {
    pub seed: u64,
    /// So many kills of the leader at least.
    pub leader_kills: usize,
    /// So long at least.
    pub duration: Duration,
    pub faults: Vec<Fault>,
    /// Cut real links in network namespaces; the process must be inside one ([`namespaces::enter`]).
    pub namespaces: bool,
    pub clients: usize,
    /// Tell what happens while it happens.
    pub verbose: bool,
}

const SCHEDULERS: usize = 3;
const WORKERS: usize = 3;

#[derive(Debug)]
pub struct Report {
    pub done: Done,
    pub jobs: usize,
    pub submits: usize,
    pub tasks_run: usize,
    /// With an excuse; without one it stands in `wrong`.
    pub tasks_run_again: usize,
    pub slowest_submit: Duration,
    pub slowest_wait: Duration,
    pub took: Duration,
    /// For how long nothing on this machine could go on because all of it waited for a disk, by the kernel's account.
    pub disk_stood_still: Option<Duration>,
    pub wrong: Vec<String>,
    /// Logs and data of a run that went wrong.
    pub kept: Option<std::path::PathBuf>,
}

/// Runs it to the end. Panics when the cluster does not come up or does not recover.
pub fn run(config: &Config) -> Result<Report, String> {
    let started = Instant::now();
    let stalled = disk_stalls();
    let mut dice = Dice::new(config.seed);
    let network = if config.namespaces { Network::namespaces(SCHEDULERS + WORKERS)? } else { Network::proxies(&mut dice) };
    let mut fleet = Fleet::start(SCHEDULERS, WORKERS, network);
    let access = fleet.access();
    let (words, stories) = clients::Words::learn(&access);
    let load = clients::Load::start(access, config.clients, &mut dice, words, stories);

    let mut done = Done::default();
    let began = Instant::now();
    while done.leader_kills < config.leader_kills || began.elapsed() < config.duration {
        faults::pause(&mut dice, 200, 1500);
        let kill = done.leader_kills < config.leader_kills && (config.faults == [Fault::Kill] || dice.one_in(2));
        if kill {
            faults::kill_leader(&mut fleet, &mut dice, &mut done);
        } else if !config.faults.is_empty() {
            let fault = *dice.pick(&config.faults);
            faults::strike(&mut fleet, fault, &mut dice, &mut done);
        }
        if config.verbose
            && let Some(line) = done.lines.last()
        {
            eprintln!("{:7.1} s  {:4} jobs  {line}", started.elapsed().as_secs_f64(), load.finished());
        }
    }
    fleet.heal();
    let stories = load.finish();
    let evidence = gather(&fleet, stories);
    let mut wrong = history::check(&evidence);
    wrong.extend(vacuous(&evidence, &done));
    let calls = || evidence.stories.iter().flat_map(|s| &s.calls);
    let slowest = |what: &str| calls().filter(|c| c.what == what).map(|c| c.took).max().unwrap_or_default();
    let mut runs: BTreeMap<u64, usize> = BTreeMap::new();
    evidence.executions.iter().for_each(|e| *runs.entry(e.index).or_default() += 1);
    let mut report = Report {
        done,
        jobs: evidence.stories.len(),
        submits: calls().filter(|c| c.what.starts_with("submit")).count(),
        tasks_run: evidence.executions.len(),
        tasks_run_again: runs.values().map(|n| n - 1).sum(),
        slowest_submit: slowest("submit"),
        slowest_wait: slowest("job wait").max(slowest("submit --wait")),
        took: started.elapsed(),
        disk_stood_still: stalled.zip(disk_stalls()).map(|(before, after)| after.saturating_sub(before)),
        wrong,
        kept: None,
    };
    if !report.wrong.is_empty() {
        report.kept = Some(fleet.keep());
    }
    Ok(report)
}

/// Pressure stall information of Linux, `full` of `io`: in a program so disturbed every time-out is long.
fn disk_stalls() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/io").ok()?;
    let total = text.lines().find(|line| line.starts_with("full"))?.rsplit_once("total=")?.1.trim().parse().ok()?;
    Some(Duration::from_micros(total))
}

/// Asks the healed cluster for everything, and reads what the workers wrote.
fn gather(fleet: &Fleet, stories: Vec<Story>) -> Evidence {
    let access = fleet.access();
    let list = access.json(&["job", "list", "--limit", "1000000", "--timeout", "60s"]);
    let numbers = list["jobs"].as_array().into_iter().flatten().filter_map(|j| j["job"].as_u64());
    let show = |number: u64| (number, access.json(&["job", "show", &number.to_string(), "--timeout", "60s"]));
    let jobs = numbers.map(show).collect();
    let logs = fleet.worker_logs();
    let executions = logs.iter().flat_map(|(name, log)| executions::executions(name, log)).collect();
    let grants = logs.iter().flat_map(|(name, log)| executions::grants(name, log)).collect();
    let mut decisions = Decisions::default();
    fleet.scheduler_logs().iter().for_each(|log| decisions.read(log));
    Evidence { stories, jobs, executions, grants, decisions, touches: fleet.touches.clone() }
}

/// A run that shows nothing is not a run that went well.
fn vacuous(evidence: &Evidence, done: &Done) -> Vec<String> {
    let mut wrong = Vec::new();
    let disturbances = done.lines.len();
    if evidence.stories.len() < 3 + disturbances / 2 {
        wrong.push(format!("only {} jobs for {disturbances} disturbances: nothing was shown", evidence.stories.len()));
    }
    // A killed worker takes the lines with it that are still in its pipe; nobody else does.
    let ran: std::collections::BTreeSet<u64> = evidence.executions.iter().map(|e| e.index).collect();
    let sums = evidence.stories.iter().filter_map(|s| match &s.expect {
        Expect::Sum { first, tasks } if s.calls.iter().any(|c| c.exit == Some(0) && c.what.contains("wait")) => Some(*first..first + tasks),
        _ => None,
    });
    let missing = sums.flatten().filter(|index| !ran.contains(index)).count();
    if missing > done.worker_kills * 200 {
        wrong.push(format!("{missing} accepted tasks left no line: the record of executions cannot be trusted"));
    }
    if ran.is_empty() {
        wrong.push("no task ran".into());
    }
    wrong
}

impl Report {
    pub fn summary(&self) -> String {
        let mut gaps = self.done.elections.clone();
        gaps.sort_by(f64::total_cmp);
        let at = |share: f64| gaps.get(((gaps.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or(f64::NAN);
        let mut text = format!(
            "{} disturbances in {:.0} s: {} kills of the leader (next leader known after median {:.2} s, max {:.2} s), {} kills of workers\n\
             {} jobs, {} submits (slowest {:.1} s, slowest wait {:.1} s); {} tasks recorded, {} run again (their worker was harmed, or they were late)\n",
            self.done.lines.len(),
            self.took.as_secs_f64(),
            self.done.leader_kills,
            at(0.5),
            at(1.0),
            self.done.worker_kills,
            self.jobs,
            self.submits,
            self.slowest_submit.as_secs_f64(),
            self.slowest_wait.as_secs_f64(),
            self.tasks_run,
            self.tasks_run_again,
        );
        if let Some(stood_still) = self.disk_stood_still.filter(|s| *s > self.took / 20) {
            text.push_str(&format!("the machine stood still for {:.1} s of it, waiting for a disk\n", stood_still.as_secs_f64()));
        }
        match self.wrong.len() {
            0 => text.push_str(
                "0 acknowledged submits lost, 0 tasks accepted twice, 0 finished tasks of an unharmed worker run again, every exit code true",
            ),
            n => {
                text.push_str(&format!("{n} things wrong:\n"));
                self.wrong.iter().for_each(|w| text.push_str(&format!("  {w}\n")));
            }
        }
        if let Some(kept) = &self.kept {
            text.push_str(&format!("logs and data are in {}", kept.display()));
        }
        text
    }
}

/// Part files of a published directory by name; the manifest names jobs and devices, which differ.
pub fn read_parts(dir: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut parts = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != "manifest.json" {
            parts.insert(name, std::fs::read(&path)?);
        }
    }
    Ok(parts)
}

/// The clock of the workers' logs.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
