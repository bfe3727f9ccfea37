//! A worker: one line of a list, the whole, and its JSON.

use std::time::Duration;

use raftwerk_proto::v1::{DeviceLoad, Load, Quarantine, WorkerView};
use serde_json::{Value, json};

use super::devices;
use super::names::Names;
use crate::console::Console;
use crate::table::{Cell, Colour, Table, printable};
use crate::units::{counted, format_bytes, format_duration, group_digits};

fn liveness(view: &WorkerView) -> Cell {
    let colour = match view.liveness.as_str() {
        "alive" => Colour::Green,
        "suspect" => Colour::Yellow,
        "lost" => Colour::Red,
        _ => Colour::None,
    };
    Cell::coloured(view.liveness.as_str(), colour)
}

/// How long ago the leader heard from it; of a lost worker it has forgotten that, and of one that has not come to it yet it never knew.
fn heard_ms(view: &WorkerView) -> Option<u64> {
    (view.liveness != "lost" && !view.unheard).then_some(view.last_heard_ms)
}

fn cpu(view: &WorkerView) -> String {
    view.load.as_ref().map_or_else(String::new, |load| format!("{:.1} %", f64::from(load.cpu_permille) / 10.0))
}

/// Used and present memory of the machine.
fn memory(view: &WorkerView) -> String {
    match (&view.load, &view.host) {
        (Some(load), Some(host)) => format!("{} / {}", format_bytes(load.memory_used_bytes), format_bytes(host.memory_bytes)),
        (None, Some(host)) => format_bytes(host.memory_bytes),
        _ => String::new(),
    }
}

pub fn list(workers: &[WorkerView]) -> Table {
    let mut table =
        Table::new(["worker", "name", "address", "liveness", ">heard", "devices", ">cpu", ">memory", ">leases", ">shuffle", "standing"]);
    let names = Names::of(workers.iter().map(|view| (view.worker, view.name.as_str())));
    for view in workers {
        let devices: Vec<&str> = view.devices.iter().map(|device| device.class.as_str()).collect();
        let load = view.load.as_ref();
        table.row([
            view.worker.to_string().into(),
            names.get(view.worker).into(),
            view.address.as_str().into(),
            liveness(view),
            heard_ms(view).map_or_else(|| "-".to_owned(), |ms| format!("{} ago", format_duration(Duration::from_millis(ms)))).into(),
            devices.join(", ").into(),
            cpu(view).into(),
            memory(view).into(),
            group_digits(view.device_loads.iter().map(|load| load.leases).sum::<u64>()).into(),
            load.map_or_else(String::new, |load| format_bytes(load.shuffle_bytes)).into(),
            quarantine(view).into(),
        ]);
    }
    table
}

/// What of it gets no work, and how much longer.
fn quarantine(view: &WorkerView) -> String {
    let one = |q: &Quarantine| format!("{} for {}", place(q), format_duration(Duration::from_millis(q.ends_in_ms)));
    let drained = view.drained.then(|| "drained".to_owned());
    drained.into_iter().chain(view.quarantines.iter().map(one)).collect::<Vec<_>>().join(", ")
}

fn place(quarantine: &Quarantine) -> String {
    if quarantine.whole_worker { "worker".to_owned() } else { format!("device {}", quarantine.device) }
}

pub fn print(console: &Console, view: &WorkerView) {
    console.table(&list(std::slice::from_ref(view)));
    if view.drained {
        console.line("");
        console
            .line(format!("drained: gets no new work until `raftwerk worker release {}`, or until its process starts anew", view.worker));
    }
    for quarantine in &view.quarantines {
        let time = format_duration(Duration::from_millis(quarantine.ends_in_ms));
        let text = format!("{} gets no work for {time}; its last failure: {}", place(quarantine), quarantine.reason);
        console.line("");
        console.line(printable(&text));
        console.line(format!("raftwerk worker release {} ends it at once", view.worker));
    }
    if !view.labels.is_empty() {
        let labels: Vec<String> = view.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
        console.line("");
        console.line(printable(&format!("labels: {}", labels.join(", "))));
    }
    if let Some(load) = &view.load {
        console.line("");
        disk_lines(load).into_iter().for_each(|line| console.line(line));
    }
    if let Some(host) = &view.host {
        console.line("");
        console.line(printable(&format!(
            "host: {}, {}, {}; build {}",
            host.hostname,
            host.os,
            counted(host.cores.into(), "core"),
            view.build
        )));
    }
    for device in &view.devices {
        console.line("");
        devices::print(console, device);
        if let Some(load) = view.device_loads.iter().find(|load| load.device == device.index) {
            console.line(format!("  load: {}", load_text(load)));
        }
    }
}

/// What jobs have left on its disk, and whether there is room for more.
fn disk_lines(load: &Load) -> Vec<String> {
    let (shuffle, kept) = (format_bytes(load.shuffle_bytes), format_bytes(load.kept_bytes));
    let quota = if load.quota_bytes == 0 { "no quota".to_owned() } else { format!("quota {}", format_bytes(load.quota_bytes)) };
    let uploads = if load.upload_bytes == 0 { String::new() } else { format!(", {} of uploads", format_bytes(load.upload_bytes)) };
    let mut lines = vec![format!("disk: {shuffle} of shuffle data, {kept} of results{uploads}, {quota}")];
    if !load.full.is_empty() {
        lines.push(printable(&format!("full, so it gets no tasks that leave data there: {}", load.full)));
    }
    if !load.brought_jobs.is_empty() {
        let jobs: Vec<String> = load.brought_jobs.iter().map(u64::to_string).collect();
        let (jobs, bytes) = (jobs.join(", "), format_bytes(load.brought_bytes));
        lines.push(format!("orphans: {bytes} of results that it kept for another cluster and this one has not asked for, in brought/ of its data directory; jobs of that cluster: {jobs}"));
    }
    lines
}

fn load_text(load: &DeviceLoad) -> String {
    let held = load.held.unwrap_or_default();
    let memory = format_bytes(held.memory_bytes);
    let (leases, tasks, slots) = (counted(load.leases, "lease"), counted(load.tasks, "task"), counted(held.slots, "slot"));
    format!("{leases} with {tasks}; holds {slots}, {} milli-CPU, {memory}", held.milli_cpu)
}

pub fn to_json(view: &WorkerView) -> Value {
    let load = |load: &DeviceLoad| json!({"device": load.device, "leases": load.leases, "tasks": load.tasks, "held": load.held.as_ref().map(devices::capacity_json)});
    json!({
        "worker": view.worker, "name": view.name, "address": view.address, "liveness": view.liveness, "last_heard_ms": heard_ms(view),
        "build": view.build, "protocol": (view.protocol != 0).then_some(view.protocol), "drained": view.drained,
        "quarantines": view.quarantines.iter().map(|q| json!({
            "device": if q.whole_worker { Value::Null } else { q.device.into() }, "ends_in_ms": q.ends_in_ms, "reason": q.reason, "times": q.times,
        })).collect::<Vec<_>>(),
        "host": view.host.as_ref().map(|host| json!({
            "hostname": host.hostname, "os": host.os, "memory_bytes": host.memory_bytes, "cores": host.cores,
        })),
        "load": view.load.as_ref().map(|load| json!({
            "cpu_permille": load.cpu_permille, "memory_used_bytes": load.memory_used_bytes, "shuffle_bytes": load.shuffle_bytes, "kept_bytes": load.kept_bytes,
            "upload_bytes": load.upload_bytes,
            "orphans": {"bytes": load.brought_bytes, "jobs": load.brought_jobs},
            "quota_bytes": if load.quota_bytes == 0 { Value::Null } else { load.quota_bytes.into() },
            "full": if load.full.is_empty() { Value::Null } else { load.full.clone().into() },
            "leases_running": load.leases_running, "leases_queued": load.leases_queued,
        })),
        "labels": view.labels.iter().map(|label| (label.key.clone(), Value::from(label.value.clone()))).collect::<serde_json::Map<_, _>>(),
        "devices": view.devices.iter().map(devices::to_json).collect::<Vec<_>>(),
        "device_loads": view.device_loads.iter().map(load).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(liveness: &str) -> WorkerView {
        WorkerView { worker: 1, liveness: liveness.into(), last_heard_ms: 40, ..WorkerView::default() }
    }

    #[test]
    fn a_lost_worker_was_heard_at_no_known_time() {
        let table = list(&[seen("alive"), seen("lost")]).render(false);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].contains(" 40 ms ago"), "{table}");
        assert!(!lines[2].contains("ago") && lines[2].contains(" -"), "{table}");
        let unheard = WorkerView { unheard: true, last_heard_ms: 0, ..seen("suspect") };
        assert!(!list(std::slice::from_ref(&unheard)).render(false).contains("ago"));
        assert_eq!(to_json(&unheard)["last_heard_ms"], Value::Null);
        assert_eq!((to_json(&seen("alive"))["last_heard_ms"].as_u64(), &to_json(&seen("lost"))["last_heard_ms"]), (Some(40), &Value::Null));
    }
}
