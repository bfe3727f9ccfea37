//! Cluster files, job files and tables become a [`Scenario`]. Whatever is wrong is said with file, key and what to do about it.

mod cluster;
mod jobs;
mod table;

use crate::scenario::{Delays, Group, Kernel, Scenario, Trouble};
use std::fmt;
use std::path::{Path, PathBuf};

/// Devices of one simulation, at the most; each takes some kilobytes.
pub const MAX_DEVICES: u64 = 100_000;
/// Tasks of one simulation, at the most.
pub const MAX_TASKS: u64 = 1_000_000_000;

/// Where a scenario comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Groups of devices (TOML).
    pub cluster: Option<PathBuf>,
    /// Jobs (TOML).
    pub jobs: Option<PathBuf>,
    /// Measured seconds: kernel, device, seconds (CSV or JSON).
    pub times: Option<PathBuf>,
    /// Tasks that may wait for others: task, kernel, after (CSV or JSON).
    pub tasks: Option<PathBuf>,
    pub seed: Option<u64>,
    /// Of the tasks of every job, for a quick look: a tenth of them with 0.1. At least one task is left of each stage.
    pub scale: Option<f64>,
}

/// What is wrong with an input file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// File, with the line where it is known.
    pub place: String,
    pub message: String,
    pub fix: Option<String>,
}

impl fmt::Display for InputError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for InputError {}

/// Makes errors about one file.
#[derive(Clone, Copy)]
struct In<'a>(&'a Path);

impl In<'_> {
    fn error(self, message: impl Into<String>, fix: impl Into<String>) -> InputError {
        InputError { place: self.0.display().to_string(), message: message.into(), fix: Some(fix.into()) }
    }

    fn at_line(self, line: usize, message: impl Into<String>, fix: impl Into<String>) -> InputError {
        InputError { place: format!("{}:{line}", self.0.display()), message: message.into(), fix: Some(fix.into()) }
    }

    fn text(self) -> Result<String, InputError> {
        std::fs::read_to_string(self.0)
            .map_err(|e| self.error(format!("cannot be read: {e}"), "give the path of a text file that this user may read"))
    }

    /// A TOML file of a known shape; what does not belong there is named with its line.
    fn toml<T: serde::de::DeserializeOwned>(self) -> Result<T, InputError> {
        let text = self.text()?;
        toml::from_str(&text).map_err(|e| {
            let line =
                e.span().map_or(1, |span| 1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|byte| **byte == b'\n').count());
            self.at_line(line, e.message().to_owned(), "see docs/simulate.md for the keys of this file")
        })
    }

    /// A number from `least` to `most`, both possible; says whose and which. Without an upper end a slip of the finger would be an endless run.
    fn within(self, whose: &str, key: &str, value: f64, least: f64, most: f64) -> Result<f64, InputError> {
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(self
            .error(format!("{whose}: {key} = {value} is not possible"), format!("give a number from {} to {}", short(least), short(most))))
    }
}

/// Long rows of zeros as a power of ten.
fn short(number: f64) -> String {
    if number != 0.0 && !(1e-3..1e7).contains(&number) { format!("{number:e}") } else { number.to_string() }
}

/// "did you mean", or the list.
fn known(given: &str, words: &[&str]) -> String {
    let near = words.iter().map(|word| (*word, strsim::jaro_winkler(given, word))).filter(|(_, likeness)| *likeness >= 0.75);
    match near.max_by(|(_, a), (_, b)| a.total_cmp(b)) {
        Some((word, _)) => format!("did you mean \"{word}\"?"),
        None if words.is_empty() => "there is none".to_owned(),
        None => {
            let mut once: Vec<&str> = words.to_vec();
            once.sort_unstable();
            once.dedup();
            format!("known: {}", once.join(", "))
        }
    }
}

/// Reads everything.
pub fn read(sources: &Sources) -> Result<Scenario, InputError> {
    let times = sources.times.as_deref().map(|path| table::times(In(path))).transpose()?;
    let cluster = sources.cluster.as_deref().map(|path| cluster::read(In(path))).transpose()?;
    let cluster = match (cluster, &times) {
        (Some(cluster), _) => cluster,
        (None, Some(times)) => cluster::of_table(times),
        (None, None) => {
            return Err(nothing("no devices are given", "give --cluster c.toml, or --times t.csv, whose devices are then taken"));
        }
    };
    let mut scenario = Scenario {
        groups: cluster.groups.iter().map(|(group, _)| group.clone()).collect(),
        kernels: Vec::new(),
        jobs: Vec::new(),
        graph: Vec::new(),
        troubles: cluster.troubles.clone(),
        delays: cluster.delays,
        noise: cluster.noise,
        seed: sources.seed.unwrap_or(cluster.seed),
        costs: Vec::new(),
    };
    if let (Some(path), Some(times), Some(_)) = (&sources.times, &times, &sources.cluster) {
        times.check_devices(In(path), &cluster)?;
    }
    if sources.scale.is_some() && sources.tasks.is_some() {
        return Err(nothing("--scale says nothing of --tasks", "leave --scale out, or give a smaller table of tasks"));
    }
    match (&sources.jobs, &sources.tasks) {
        (Some(jobs), None) => jobs::read(In(jobs), &cluster, sources, times.as_ref(), &mut scenario)?,
        (None, Some(tasks)) => {
            let Some(times) = &times else {
                return Err(nothing("--tasks needs the time of each kernel", "give --times t.csv with kernel, device, seconds"));
            };
            table::tasks(In(tasks), &cluster, times, &mut scenario)?;
            cluster.check_speeds(sources, &times.kernels())?;
        }
        (Some(_), Some(_)) => return Err(nothing("both --jobs and --tasks are given", "give one of the two")),
        (None, None) => return Err(nothing("nothing to run is given", "give --jobs j.toml, or --tasks t.csv with --times")),
    }
    Ok(scenario)
}

fn nothing(message: &str, fix: &str) -> InputError {
    InputError { place: "simulate".into(), message: message.into(), fix: Some(fix.into()) }
}

/// What a cluster file says.
#[derive(Clone)]
struct Cluster {
    /// With what each says of its speed.
    groups: Vec<(Group, Speed)>,
    troubles: Vec<Trouble>,
    delays: Delays,
    noise: f64,
    seed: u64,
}

/// How fast a group is.
#[derive(Clone, Default)]
struct Speed {
    /// Against the seconds per unit that the kernel states.
    of_all: f64,
    of_kernel: std::collections::BTreeMap<String, f64>,
    /// Only these kernels have a twin there.
    only: Option<Vec<String>>,
}

impl Speed {
    fn of(&self, kernel: &str) -> Option<f64> {
        let has_twin = self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == kernel));
        has_twin.then(|| self.of_kernel.get(kernel).copied().unwrap_or(self.of_all))
    }
}

impl Cluster {
    /// A speed of a kernel that nothing is said of anywhere is a slip of the finger.
    fn check_speeds(&self, sources: &Sources, kernels: &[&str]) -> Result<(), InputError> {
        let Some(path) = &sources.cluster else { return Ok(()) };
        let listed = |name: &str| self.groups.iter().filter_map(|(_, speed)| speed.only.as_ref()).flatten().any(|own| own == name);
        for (group, speed) in &self.groups {
            if let Some(name) = speed.of_kernel.keys().find(|name| !kernels.contains(&name.as_str()) && !listed(name)) {
                let message = format!("[[group]] \"{}\": speeds.{name}: nothing is said of that kernel", group.name);
                return Err(In(path).error(message, format!("{}; or take it out", known(name, kernels))));
            }
        }
        Ok(())
    }
}

/// Whether the core takes it: it adds the version behind an @.
fn is_kernel_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 190 && !name.contains('@') && !name.chars().any(char::is_control)
}

const KERNEL_NAMES: &str = "give a name of 1 to 190 bytes without @ and control characters";

/// The longest that one task may take anywhere: eleven days.
const MAX_TASK_S: f64 = 1e6;
/// The latest moment of anything: thirty years.
const MAX_AT_S: f64 = 1e9;

/// Adds a kernel with its time on each group, once.
fn kernel(scenario: &mut Scenario, name: &str, reduces: bool, unit_ns: impl Fn(&Group) -> Option<f64>) -> usize {
    if let Some(place) = scenario.kernels.iter().position(|k| k.name == name) {
        return place;
    }
    scenario.kernels.push(Kernel { name: name.to_owned(), reduces });
    for group in &mut scenario.groups {
        let own = unit_ns(group);
        group.unit_ns.push(own);
    }
    scenario.kernels.len() - 1
}
