//! Groups of devices, delays, and what happens to devices.

use super::{Cluster, In, InputError, MAX_AT_S, MAX_DEVICES, Speed, known, table::Times};
use crate::rate::Ns;
use crate::scenario::{Delays, Group, Trouble};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    noise_percent: f64,
    seed: Option<u64>,
    commit_ms: Option<f64>,
    network_ms: Option<f64>,
    detect_ms: Option<f64>,
    report_ms: Option<f64>,
    tick_ms: Option<f64>,
    #[serde(default)]
    group: Vec<GroupTable>,
    #[serde(default)]
    event: Vec<EventTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupTable {
    name: String,
    #[serde(default = "one")]
    count: u64,
    #[serde(default = "cpu")]
    class: String,
    model: Option<String>,
    #[serde(default = "one_thread")]
    parallelism: u32,
    #[serde(default = "full")]
    speed: f64,
    #[serde(default)]
    speeds: BTreeMap<String, f64>,
    kernels: Option<Vec<String>>,
    #[serde(default)]
    launch_ms: f64,
    #[serde(default)]
    jitter_percent: f64,
    #[serde(default)]
    memory_mib: u64,
    #[serde(default)]
    bandwidth_mb_s: f64,
    #[serde(default)]
    latency_ms: f64,
    #[serde(default)]
    mtbf_s: f64,
    #[serde(default)]
    repair_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTable {
    /// A group, or one of its devices: "gpu" or "gpu/3".
    device: String,
    at_s: f64,
    until_s: Option<f64>,
    slow_down: Option<f64>,
    #[serde(default)]
    dies: bool,
}

fn one() -> u64 {
    1
}

fn one_thread() -> u32 {
    1
}

fn full() -> f64 {
    1.0
}

fn cpu() -> String {
    "cpu".to_owned()
}

const CLASSES: [&str; 4] = ["cpu", "discrete", "integrated", "software"];
const MAX_PARALLELISM: u32 = 4_096;
const HOUR_MS: f64 = 3.6e6;
/// Slowest and fastest against the seconds per unit that a kernel states.
const SPEEDS: (f64, f64) = (1e-6, 1e12);

pub(super) fn read(place: In<'_>) -> Result<Cluster, InputError> {
    let file: File = place.toml()?;
    let mut groups: Vec<(Group, Speed)> = Vec::new();
    for table in &file.group {
        let whose = format!("[[group]] \"{}\"", table.name);
        if groups.iter().any(|(group, _)| group.name == table.name) {
            return Err(place.error(format!("{whose} is there twice"), "give each group a name of its own"));
        }
        groups.push(group(place, &whose, table)?);
    }
    let devices: u64 = groups.iter().map(|(group, _)| group.count).fold(0, u64::saturating_add);
    if devices == 0 || devices > MAX_DEVICES {
        let message = if devices == 0 { "there is no device".to_owned() } else { format!("{devices} devices are too many") };
        return Err(place.error(message, format!("give [[group]] sections with 1 to {MAX_DEVICES} devices in all")));
    }
    let default = Delays::default();
    let ms = |key: &str, value: Option<f64>, default: Ns, least: f64| match value {
        None => Ok(default),
        Some(ms) => place.within("the file", key, ms, least, HOUR_MS).map(|ms| (ms * 1e6) as Ns),
    };
    let delays = Delays {
        commit: ms("commit_ms", file.commit_ms, default.commit, 0.0)?,
        network: ms("network_ms", file.network_ms, default.network, 0.0)?,
        detect: ms("detect_ms", file.detect_ms, default.detect, 0.0)?,
        report: ms("report_ms", file.report_ms, default.report, 1.0)?,
        tick: ms("tick_ms", file.tick_ms, default.tick, 1.0)?,
    };
    let troubles = file.event.iter().map(|event| trouble(place, event, &groups)).collect::<Result<_, _>>()?;
    let noise = place.within("the file", "noise_percent", file.noise_percent, 0.0, 1_000.0)?;
    Ok(Cluster { groups, troubles, delays, noise, seed: file.seed.unwrap_or(1) })
}

fn group(place: In<'_>, whose: &str, table: &GroupTable) -> Result<(Group, Speed), InputError> {
    if table.name.is_empty() || table.name.contains('/') || table.name.chars().any(char::is_control) {
        return Err(place.error(format!("{whose}: that is no name"), "give a name without / and without control characters"));
    }
    if !CLASSES.contains(&table.class.as_str()) {
        return Err(place.error(format!("{whose}: class = \"{}\" is unknown", table.class), known(&table.class, &CLASSES)));
    }
    if table.count == 0 {
        return Err(place.error(format!("{whose}: count = 0 is not possible"), "give at least 1, or take the group out"));
    }
    if table.parallelism == 0 || table.parallelism > MAX_PARALLELISM {
        return Err(place.error(
            format!("{whose}: parallelism = {} is not possible", table.parallelism),
            format!("give 1 to {MAX_PARALLELISM} tasks that run at once"),
        ));
    }
    if table.repair_s > 0.0 && table.mtbf_s == 0.0 {
        return Err(place.error(
            format!("{whose}: repair_s without mtbf_s says nothing"),
            "give mtbf_s as well, after which devices fail on average, or leave repair_s out",
        ));
    }
    let mut speed = Speed { of_all: place.within(whose, "speed", table.speed, SPEEDS.0, SPEEDS.1)?, ..Speed::default() };
    for (kernel, factor) in &table.speeds {
        speed.of_kernel.insert(kernel.clone(), place.within(whose, &format!("speeds.{kernel}"), *factor, SPEEDS.0, SPEEDS.1)?);
    }
    speed.only = table.kernels.clone();
    let number = |key: &str, value: f64, most: f64| place.within(whose, key, value, 0.0, most);
    let group = Group {
        name: table.name.clone(),
        count: table.count,
        class: table.class.clone(),
        model: table.model.clone().unwrap_or_else(|| table.name.clone()),
        parallelism: table.parallelism,
        memory_bytes: table.memory_mib.saturating_mul(1 << 20),
        launch: (number("launch_ms", table.launch_ms, HOUR_MS)? * 1e6) as Ns,
        jitter: number("jitter_percent", table.jitter_percent, 10_000.0)?,
        bandwidth: number("bandwidth_mb_s", table.bandwidth_mb_s, 1e9)? * 1e6,
        latency: (number("latency_ms", table.latency_ms, HOUR_MS)? * 1e6) as Ns,
        mtbf: (number("mtbf_s", table.mtbf_s, MAX_AT_S)? * 1e9) as Ns,
        repair: (number("repair_s", table.repair_s, MAX_AT_S)? * 1e9) as Ns,
        unit_ns: Vec::new(),
    };
    Ok((group, speed))
}

fn trouble(place: In<'_>, event: &EventTable, groups: &[(Group, Speed)]) -> Result<Trouble, InputError> {
    let whose = format!("[[event]] of \"{}\"", event.device);
    let (name, number) = match event.device.split_once('/') {
        Some((name, number)) => (name, Some(number)),
        None => (event.device.as_str(), None),
    };
    let names: Vec<&str> = groups.iter().map(|(group, _)| group.name.as_str()).collect();
    let Some(group) = names.iter().position(|own| *own == name) else {
        return Err(place.error(format!("{whose}: there is no group \"{name}\""), known(name, &names)));
    };
    let count = groups[group].0.count;
    let device = match number {
        None => None,
        Some(text) => Some(text.parse::<u64>().ok().filter(|n| *n < count).ok_or_else(|| {
            place.error(format!("{whose}: the group has no device {text}"), format!("give \"{name}/0\" to \"{name}/{}\"", count - 1))
        })?),
    };
    let from = place.within(&whose, "at_s", event.at_s, 0.0, MAX_AT_S)?;
    let until = match event.until_s {
        None => Ns::MAX,
        Some(until) if until > from => (place.within(&whose, "until_s", until, 0.0, MAX_AT_S)? * 1e9) as Ns,
        Some(until) => {
            return Err(place.error(format!("{whose}: until_s = {until} is not after at_s"), "give a later time, or leave it out"));
        }
    };
    let rate = match (event.dies, event.slow_down) {
        (true, None) => 0.0,
        (false, Some(factor)) => 1.0 / place.within(&whose, "slow_down", factor, 1.0, 1_000.0)?,
        _ => return Err(place.error(format!("{whose} says not what happens"), "give either dies = true or slow_down = 3.0")),
    };
    Ok(Trouble { group, device, from: (from * 1e9) as Ns, until, rate })
}

/// Each device of a table is a group of one.
pub(super) fn of_table(times: &Times) -> Cluster {
    let names = times.devices();
    let group = |name: &&str| {
        let group = Group {
            name: (*name).to_owned(),
            count: 1,
            class: "cpu".into(),
            model: (*name).to_owned(),
            parallelism: 1,
            memory_bytes: 0,
            launch: 0,
            jitter: 0.0,
            bandwidth: 0.0,
            latency: 0,
            mtbf: 0,
            repair: 0,
            unit_ns: Vec::new(),
        };
        (group, Speed { of_all: 1.0, ..Speed::default() })
    };
    Cluster { groups: names.iter().map(group).collect(), troubles: Vec::new(), delays: Delays::default(), noise: 0.0, seed: 1 }
}
