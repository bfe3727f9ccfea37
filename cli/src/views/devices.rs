//! Devices of a worker, the same for `worker show` and `doctor`.

use raftwerk_proto::v1::{Capacity, Device};
use serde_json::{Value, json};

use crate::console::Console;
use crate::table::printable;
use crate::units::{counted, format_bytes};

pub fn print(console: &Console, device: &Device) {
    let line = |text: String| console.line(printable(&text));
    line(format!("device {}: {} ({})", device.index, device.name, device.class));
    let driver = if device.driver.is_empty() { String::new() } else { format!("; driver {}", device.driver) };
    line(format!("  vendor {}, backend {}{driver}", or_unknown(&device.vendor), or_unknown(&device.backend)));
    let capacity = device.capacity.unwrap_or_default();
    line(format!(
        "  capacity: {}, {} milli-CPU, {}; {} at once",
        counted(capacity.slots, "slot"),
        capacity.milli_cpu,
        format_bytes(capacity.memory_bytes),
        counted(device.parallelism.into(), "task")
    ));
    line(format!("  kernels: {}", or_none(&device.kernels.join(", "))));
    if !device.features.is_empty() {
        line(format!("  features: {}", device.features.join(", ")));
    }
    if !device.limits.is_empty() {
        let limits: Vec<String> = device.limits.iter().map(|limit| format!("{} {}", limit.name, limit.value)).collect();
        line(format!("  limits: {}", limits.join(", ")));
    }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

pub fn capacity_json(capacity: &Capacity) -> Value {
    json!({"milli_cpu": capacity.milli_cpu, "memory_bytes": capacity.memory_bytes, "slots": capacity.slots})
}

pub fn to_json(device: &Device) -> Value {
    json!({
        "index": device.index, "class": device.class, "name": device.name, "vendor": device.vendor, "backend": device.backend,
        "driver": device.driver, "capacity": device.capacity.as_ref().map(capacity_json), "kernels": device.kernels,
        "features": device.features, "parallelism": device.parallelism,
        "limits": device.limits.iter().map(|limit| (limit.name.clone(), Value::from(limit.value))).collect::<serde_json::Map<_, _>>(),
    })
}
