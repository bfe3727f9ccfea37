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

    /// A number that is not below `least`; says whose and which.
    fn at_least(self, whose: &str, key: &str, value: f64, least: f64) -> Result<f64, InputError> {
        if value.is_finite() && value >= least {
            return Ok(value);
        }
        Err(self.error(format!("{whose}: {key} = {value} is not possible"), format!("give a number of at least {least}")))
    }

    fn above_zero(self, whose: &str, key: &str, value: f64) -> Result<f64, InputError> {
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        Err(self.error(format!("{whose}: {key} = {value} is not possible"), "give a number above 0"))
    }
}

/// "did you mean", or the list.
fn known(given: &str, words: &[&str]) -> String {
    let near = words.iter().map(|word| (*word, strsim::jaro_winkler(given, word))).filter(|(_, likeness)| *likeness >= 0.75);
    match near.max_by(|(_, a), (_, b)| a.total_cmp(b)) {
        Some((word, _)) => format!("did you mean \"{word}\"?"),
        None if words.is_empty() => "there is none".to_owned(),
        None => format!("known: {}", words.join(", ")),
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
    match (&sources.jobs, &sources.tasks) {
        (Some(jobs), None) => jobs::read(In(jobs), &cluster, times.as_ref(), sources.scale.unwrap_or(1.0), &mut scenario)?,
        (None, Some(tasks)) => {
            let Some(times) = &times else {
                return Err(nothing("--tasks needs the time of each kernel", "give --times t.csv with kernel, device, seconds"));
            };
            table::tasks(In(tasks), &cluster, times, &mut scenario)?;
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
