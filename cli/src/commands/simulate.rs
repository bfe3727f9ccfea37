//! `raftwerk simulate`: the scheduler's own decisions on devices that exist in a file.

use std::path::{Path, PathBuf};

use clap::Args;
use raftwerk_core::plan::policy::{Policy, policies, policy};
use raftwerk_simulate::bound::{Bound, lower_bound};
use raftwerk_simulate::read::{InputError, Sources, read};
use raftwerk_simulate::{Outcome, Run, Scenario, run, timeline};

use crate::commands::costs;
use crate::console::Console;
use crate::failure::{self, Exit, Failure};
use crate::job_file;
use crate::units::counted;
use crate::views;

#[derive(Args, Debug)]
pub struct Simulate {
    /// Groups of devices with their speeds, noise, links and failures (TOML); without it the devices of --times, one each
    #[arg(long, value_name = "C.TOML")]
    cluster: Option<PathBuf>,
    /// Jobs (TOML)
    #[arg(long, value_name = "J.TOML")]
    jobs: Option<PathBuf>,
    /// Measured seconds of a task: kernel, device, seconds (CSV, or JSON by the name's ending)
    #[arg(long, value_name = "FILE")]
    times: Option<PathBuf>,
    /// Tasks that may wait for others, instead of --jobs: task, kernel, after (CSV or JSON); needs --times
    #[arg(long, value_name = "FILE", conflicts_with = "jobs")]
    tasks: Option<PathBuf>,
    /// What the cluster knows of costs before the first job, as `raftwerk costs -o json` prints it; nothing when not given
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Policies to compare, separated by commas, or `all`
    #[arg(long, value_name = "NAME", default_value = "model", value_delimiter = ',')]
    policy: Vec<String>,
    /// Seed of noise, failures and arrivals; the same seed gives the same result
    #[arg(long, value_name = "N", value_parser = seed)]
    seed: Option<u64>,
    /// Part of the tasks of every job to run, for a quick look
    #[arg(long, value_name = "PART", value_parser = part, conflicts_with = "tasks")]
    scale: Option<f64>,
    /// Write who did what when into this file, .svg or .png; with several policies their names are added
    #[arg(long, value_name = "FILE", value_parser = picture)]
    timeline: Option<PathBuf>,
    /// Print the result as JSON (the same as -o json)
    #[arg(long)]
    json: bool,
    /// With JSON: how busy every single device was, too
    #[arg(long)]
    devices: bool,
}

fn part(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|part| *part > 0.0 && *part <= 1.0).ok_or_else(|| "give a number above 0 and up to 1, such as 0.01".to_owned())
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("give a whole number from 0 to {}, such as 7", u64::MAX))
}

fn picture(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if timeline::is_possible(&path) { Ok(path) } else { Err("give a name that ends in .svg or .png".to_owned()) }
}

pub fn simulate(console: &Console, args: Simulate) -> failure::Outcome {
    let chosen = chosen(&args.policy)?;
    let as_json = args.json || console.is_json();
    if args.devices && !as_json {
        return Err(Failure::say(Exit::BadUsage, "--devices is of the JSON alone: a table of all devices would be long")
            .fix("add --json, or leave --devices out"));
    }
    args.timeline.as_deref().map(writable).transpose()?;
    let sources =
        Sources { cluster: args.cluster, jobs: args.jobs, times: args.times, tasks: args.tasks, seed: args.seed, scale: args.scale };
    let mut scenario = read(&sources).map_err(refused)?;
    if let Some(file) = &args.costs {
        scenario.costs = costs::read(file)?;
        let (fit, all) = (scenario.costs_that_fit(), scenario.costs.len());
        let (all, are) = (counted(all as u64, "cost"), if fit == 1 { "is" } else { "are" });
        console.note(format!("{fit} of the {all} of {} {are} of kernels and models of devices that are simulated", file.display()));
    }
    let bound = lower_bound(&scenario);
    let (mut outcomes, mut drawn) = (Vec::new(), Ok(()));
    for policy in &chosen {
        let (outcome, picture) = one(console, &scenario, bound, *policy, args.timeline.as_deref(), chosen.len() > 1)?;
        outcomes.push(outcome);
        drawn = drawn.and(picture);
    }
    if as_json {
        console.json(views::simulated::to_json(&scenario, &outcomes, args.devices));
    } else {
        views::simulated::print(console, &scenario, &outcomes);
    }
    // A picture that could not be written does not take the result with it.
    verdict(&outcomes).and(drawn)
}

fn one(
    console: &Console,
    scenario: &Scenario,
    bound: Bound,
    policy: &'static dyn Policy,
    timeline: Option<&Path>,
    several: bool,
) -> Result<(Outcome, failure::Outcome), Failure> {
    let Run { outcome, effort, segments } =
        run(scenario, bound, policy, timeline.is_some()).map_err(|error| Failure::new(Exit::BadUsage, error).context("simulating"))?;
    let ms = |ns: u64| ns as f64 / 1e6;
    // Not part of the result: it differs from run to run.
    console.note(format!(
        "{}: {:.1} s of real time; {} planning rounds of {:.2} ms (longest {:.1}), {:.1} us of planning and applying per lease",
        policy.name(),
        effort.wall_ns as f64 / 1e9,
        effort.rounds,
        ms(effort.plan_ns) / effort.rounds.max(1) as f64,
        ms(effort.longest_round_ns),
        effort.ns_per_lease() as f64 / 1e3
    ));
    let mut drawn = Ok(());
    if let Some(path) = timeline {
        let path = if several { named(path, policy.name()) } else { path.to_owned() };
        let title = match outcome.makespan_s.is_nan() {
            true => format!("{}: no end", policy.name()),
            false => format!("{}: {:.2} s, {:.3} of the lower bound", policy.name(), outcome.makespan_s, outcome.ratio),
        };
        match timeline::write(&path, scenario, &title, &segments, (outcome.reached_s * 1e9) as u64) {
            Ok(()) => console.note(format!("{} is written", path.display())),
            Err(error) => {
                let failure = Failure::new(Exit::BadUsage, error).context(format!("cannot write {}", path.display()));
                drawn = Err(failure.fix("give --timeline a file that this user may write, in a directory that exists"));
            }
        }
    }
    Ok((outcome, drawn))
}

/// Said before the simulation, which may take long.
fn writable(path: &Path) -> failure::Outcome {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if directory.is_dir() {
        return Ok(());
    }
    Err(Failure::say(Exit::BadUsage, format!("--timeline: there is no directory {}", directory.display()))
        .fix("make it, or give a file in one that exists"))
}

/// `out.svg` of policy `random` is `out-random.svg`.
fn named(path: &Path, policy: &str) -> PathBuf {
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!("{}-{policy}.{}", part(path.file_stem()), part(path.extension())))
}

fn chosen(names: &[String]) -> Result<Vec<&'static dyn Policy>, Failure> {
    if names.iter().any(|name| name == "all") {
        return Ok(policies().to_vec());
    }
    let known: Vec<&str> = policies().iter().map(|policy| policy.name()).collect();
    let mut chosen: Vec<&'static dyn Policy> = Vec::new();
    for name in names {
        let Some(found) = policy(name) else {
            return Err(Failure::say(Exit::BadUsage, format!("--policy: there is no policy \"{name}\"")).fix(job_file::hint(name, &known)));
        };
        if chosen.iter().all(|own| own.name() != found.name()) {
            chosen.push(found);
        }
    }
    Ok(chosen)
}

fn refused(error: InputError) -> Failure {
    let fix = error.fix.clone();
    let failure = Failure::new(Exit::BadUsage, error);
    match fix {
        Some(fix) => failure.fix(fix),
        None => failure,
    }
}

/// Broken promises and jobs that cannot end are no result.
fn verdict(outcomes: &[Outcome]) -> failure::Outcome {
    if let Some(broken) = outcomes.iter().find(|outcome| !outcome.problems.is_empty()) {
        return Err(Failure::say(Exit::Internal, format!("{}: {}", broken.policy, broken.problems.join("; "))));
    }
    match outcomes.iter().find(|outcome| !outcome.unfinished.is_empty()) {
        None => Ok(()),
        Some(stuck) => {
            Err(Failure::say(Exit::JobFailed, format!("{}: nothing is left that could run {}", stuck.policy, stuck.unfinished.join(", ")))
                .fix("give devices that live, or events and repair_s that bring them back"))
        }
    }
}
