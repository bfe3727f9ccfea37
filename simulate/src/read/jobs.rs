//! Jobs, and the time of a unit of each kernel.

use super::{Cluster, In, InputError, MAX_AT_S, MAX_TASK_S, MAX_TASKS, Sources, kernel, known, short, table::Times};
use super::{KERNEL_NAMES, is_kernel_name};
use crate::dice::Use;
use crate::rate::Ns;
use crate::scenario::{Job, Scenario, Stage, Units};
use raftwerk_core::plan::policy::policies;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    kernels: BTreeMap<String, KernelTable>,
    #[serde(default)]
    job: Vec<JobTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelTable {
    /// On one thread of a device of speed 1.
    seconds_per_unit: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobTable {
    name: Option<String>,
    kernel: String,
    tasks: u64,
    #[serde(default = "one_unit")]
    units: UnitsValue,
    #[serde(default = "any")]
    class: String,
    #[serde(default)]
    arrives_s: f64,
    /// So many jobs like this one.
    #[serde(default = "once")]
    repeat: u64,
    /// Between two of them, always the same; or so many an hour on average, at random moments.
    every_s: Option<f64>,
    per_hour: Option<f64>,
    /// The rate follows the day: nothing at midnight, twice the mean at noon.
    #[serde(default)]
    by_day: bool,
    #[serde(default)]
    input_mb: f64,
    #[serde(default)]
    max_lease_tasks: u64,
    #[serde(default)]
    policy: String,
    reduce: Option<ReduceTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReduceTable {
    kernel: String,
    partitions: u64,
    #[serde(default = "one_unit")]
    units: UnitsValue,
    #[serde(default = "any")]
    class: String,
    #[serde(default)]
    input_mb: f64,
}

/// One number, or the two ends of a range.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "toml::Value")]
enum UnitsValue {
    One(f64),
    Range([f64; 2]),
}

impl TryFrom<toml::Value> for UnitsValue {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<UnitsValue, String> {
        let number = |value: &toml::Value| value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
        let units = match &value {
            toml::Value::Array(ends) => match ends.as_slice() {
                [low, high] => number(low).zip(number(high)).map(|(low, high)| UnitsValue::Range([low, high])),
                _ => None,
            },
            one => number(one).map(UnitsValue::One),
        };
        units.ok_or_else(|| {
            format!("units = {value} is not possible: give one number, such as 2, or the two ends of a range, such as [0.5, 1.5]")
        })
    }
}

fn one_unit() -> UnitsValue {
    UnitsValue::One(1.0)
}

fn any() -> String {
    "any".to_owned()
}

fn once() -> u64 {
    1
}

const DAY_S: f64 = 86_400.0;
const MAX_JOBS: u64 = 100_000;

pub(super) fn read(
    place: In<'_>,
    cluster: &Cluster,
    sources: &Sources,
    times: Option<&Times>,
    scenario: &mut Scenario,
) -> Result<(), InputError> {
    let scale = sources.scale.unwrap_or(1.0);
    let file: File = place.toml()?;
    if let Some(name) = file.kernels.keys().find(|name| !is_kernel_name(name)) {
        return Err(place.error(format!("[kernels.\"{name}\"]: that is no name of a kernel"), KERNEL_NAMES));
    }
    let mut names: Vec<&str> = file.kernels.keys().map(String::as_str).collect();
    names.extend(times.into_iter().flat_map(Times::kernels));
    cluster.check_speeds(sources, &names)?;
    if file.job.is_empty() {
        return Err(place.error("there is no job", "give at least one [[job]] section"));
    }
    let mut tasks = 0u64;
    for (number, table) in file.job.iter().enumerate() {
        let name = table.name.clone().unwrap_or_else(|| format!("{}-{}", table.kernel, number + 1));
        let whose = format!("[[job]] \"{name}\"");
        let stages = stages(place, &whose, table, &file.kernels, cluster, times, scale, scenario)?;
        let policies: Vec<&str> = policies().iter().map(|policy| policy.name()).collect();
        if !table.policy.is_empty() && !policies.contains(&table.policy.as_str()) {
            return Err(place.error(format!("{whose}: policy = \"{}\" is unknown", table.policy), known(&table.policy, &policies)));
        }
        let arrivals = arrivals(place, &whose, table, number as u64, scenario)?;
        for (round, arrives) in arrivals.iter().enumerate() {
            let name = if arrivals.len() == 1 { name.clone() } else { format!("{name}-{}", round + 1) };
            tasks = stages.iter().fold(tasks, |sum, stage| sum.saturating_add(stage.tasks));
            scenario.jobs.push(Job { name, arrives: *arrives, stages: stages.clone(), policy: table.policy.clone() });
        }
    }
    if tasks > MAX_TASKS || scenario.jobs.len() as u64 > MAX_JOBS {
        let message = format!("{} jobs with {tasks} tasks are too many", scenario.jobs.len());
        return Err(place.error(message, format!("give at most {MAX_JOBS} jobs with {MAX_TASKS} tasks in all")));
    }
    Ok(())
}

fn stages(
    place: In<'_>,
    whose: &str,
    table: &JobTable,
    kernels: &BTreeMap<String, KernelTable>,
    cluster: &Cluster,
    times: Option<&Times>,
    scale: f64,
    scenario: &mut Scenario,
) -> Result<Vec<Stage>, InputError> {
    let fewer = |tasks: u64| ((tasks as f64 * scale) as u64).clamp(1, tasks.max(1));
    let mut stages = vec![Stage {
        kernel: known_kernel(place, whose, &table.kernel, false, kernels, cluster, times, scenario)?,
        tasks: if table.tasks == 0 { 0 } else { fewer(table.tasks) },
        units: units(place, whose, table.units)?,
        input_bytes: place.within(whose, "input_mb", table.input_mb, 0.0, 1e9)? * 1e6,
        class: class(place, whose, &table.class)?,
        max_lease_tasks: table.max_lease_tasks,
    }];
    if let Some(reduce) = &table.reduce {
        let whose = format!("{whose} reduce");
        if reduce.partitions == 0 || reduce.partitions > u64::from(raftwerk_core::spec::MAX_PARTITIONS) {
            let fix = format!("give 1 to {}", raftwerk_core::spec::MAX_PARTITIONS);
            return Err(place.error(format!("{whose}: partitions = {} is not possible", reduce.partitions), fix));
        }
        stages.push(Stage {
            kernel: known_kernel(place, &whose, &reduce.kernel, true, kernels, cluster, times, scenario)?,
            tasks: fewer(reduce.partitions),
            units: units(place, &whose, reduce.units)?,
            input_bytes: place.within(&whose, "input_mb", reduce.input_mb, 0.0, 1e9)? * 1e6,
            class: class(place, &whose, &reduce.class)?,
            max_lease_tasks: 0,
        });
    }
    for stage in &stages {
        for group in scenario.groups.iter().filter(|group| scenario.may_run(stage, group)) {
            let computed = group.unit_ns[stage.kernel].unwrap_or(0.0) * stage.units.high / 1e9;
            let moved = if group.bandwidth > 0.0 { stage.input_bytes / group.bandwidth } else { 0.0 };
            if computed + moved > MAX_TASK_S {
                let message = format!("{whose}: a task would take {} s on \"{}\"", short((computed + moved).round()), group.name);
                return Err(place.error(message, format!("give units, seconds and speeds by which no task takes more than {MAX_TASK_S} s")));
            }
        }
        if !scenario.groups.iter().any(|group| scenario.may_run(stage, group)) {
            return Err(place.error(
                format!("{whose}: no device runs kernel \"{}\" with class \"{}\"", scenario.kernels[stage.kernel].name, stage.class),
                "give a group of that class whose `kernels` name it, or another class",
            ));
        }
    }
    Ok(stages)
}

fn known_kernel(
    place: In<'_>,
    whose: &str,
    name: &str,
    reduces: bool,
    kernels: &BTreeMap<String, KernelTable>,
    cluster: &Cluster,
    times: Option<&Times>,
    scenario: &mut Scenario,
) -> Result<usize, InputError> {
    let measured = times.filter(|times| times.knows(name));
    if measured.is_none() && !kernels.contains_key(name) {
        let words: Vec<&str> = kernels.keys().map(String::as_str).collect();
        let fix = format!("{}; a kernel needs [kernels.{name}] seconds_per_unit, or rows in --times", known(name, &words));
        return Err(place.error(format!("{whose}: nothing is said of kernel \"{name}\""), fix));
    }
    let seconds = match kernels.get(name) {
        Some(table) => place.within(&format!("[kernels.{name}]"), "seconds_per_unit", table.seconds_per_unit, 1e-12, 1e9)?,
        None => 0.0,
    };
    let speed = |group: &str| cluster.groups.iter().find(|(own, _)| own.name == group).and_then(|(_, speed)| speed.of(name));
    Ok(kernel(scenario, name, reduces, |group| match measured {
        Some(times) => times.seconds(name, &group.name).map(|s| s * 1e9),
        None => speed(&group.name).map(|speed| seconds * 1e9 / speed),
    }))
}

fn class(place: In<'_>, whose: &str, class: &str) -> Result<String, InputError> {
    let classes = raftwerk_core::spec::DEVICE_CLASSES;
    if classes.contains(&class) {
        return Ok(class.to_owned());
    }
    Err(place.error(format!("{whose}: class = \"{class}\" is unknown"), known(class, &classes)))
}

fn units(place: In<'_>, whose: &str, value: UnitsValue) -> Result<Units, InputError> {
    let (low, high) = match value {
        UnitsValue::One(units) => (units, units),
        UnitsValue::Range([low, high]) => (low, high),
    };
    place.within(whose, "units", low, 1e-9, 1e9)?;
    place.within(whose, "units", high, 1e-9, 1e9)?;
    if high < low {
        let message = format!("{whose}: units = [{low}, {high}] begins with the higher end");
        return Err(place.error(message, format!("give the lower end first: [{high}, {low}]")));
    }
    Ok(Units { low, high })
}

fn arrivals(place: In<'_>, whose: &str, table: &JobTable, number: u64, scenario: &Scenario) -> Result<Vec<Ns>, InputError> {
    let first = place.within(whose, "arrives_s", table.arrives_s, 0.0, MAX_AT_S)?;
    if table.by_day && table.per_hour.is_none() {
        return Err(
            place.error(format!("{whose}: by_day = true without per_hour says nothing"), "give per_hour as well, or leave by_day out")
        );
    }
    if table.repeat == 0 || table.repeat > MAX_JOBS {
        return Err(place.error(format!("{whose}: repeat = {} is not possible", table.repeat), format!("give 1 to {MAX_JOBS}")));
    }
    if table.every_s.is_some() && table.repeat == 1 {
        let fix = "give the number of jobs as well, such as repeat = 20, or leave every_s out";
        return Err(place.error(format!("{whose}: every_s without repeat says nothing"), fix));
    }
    let mut arrivals = vec![first];
    match (table.every_s, table.per_hour) {
        (None, None) if table.repeat == 1 => {}
        (Some(every), None) => {
            let every = place.within(whose, "every_s", every, 0.0, MAX_AT_S)?;
            arrivals = (0..table.repeat).map(|n| first + n as f64 * every).collect();
        }
        (None, Some(rate)) => {
            let rate = place.within(whose, "per_hour", rate, 1e-6, 1e9)? / 3600.0;
            let dice = scenario.dice().of(Use::Arrival, number);
            // A process of twice the rate, thinned by the time of day (Lewis and Shedler, 1979).
            let (mut at, mut draws) = (first, 0u64);
            arrivals.clear();
            while (arrivals.len() as u64) < table.repeat && at <= MAX_AT_S {
                let most = if table.by_day { 2.0 * rate } else { rate };
                at += dice.exponential(2 * draws) / most;
                let kept = (1.0 - (std::f64::consts::TAU * at / DAY_S).cos()) / 2.0;
                if !table.by_day || dice.uniform(2 * draws + 1) < kept {
                    arrivals.push(at);
                }
                draws += 1;
            }
        }
        (Some(_), Some(_)) => {
            return Err(place.error(format!("{whose} says twice when it repeats"), "give either every_s or per_hour, and not both"));
        }
        _ => {
            let fix = "give either every_s, or per_hour, for a job that repeats";
            return Err(place.error(format!("{whose} says not when it repeats"), fix));
        }
    }
    if arrivals.last().is_none_or(|last| *last > MAX_AT_S) || (arrivals.len() as u64) < table.repeat {
        let fix = format!("give a smaller repeat, or more of them an hour, so that the last one arrives before {MAX_AT_S} s");
        return Err(place.error(format!("{whose}: its last repetition would arrive after more than thirty years"), fix));
    }
    Ok(arrivals.into_iter().map(|at| (at * 1e9) as Ns).collect())
}
