//! What namespaces may have and what they have had.

use std::time::Duration;

use raftwerk_proto::v1::NamespaceView;
use serde_json::{Value, json};

use crate::table::Table;
use crate::units::format_duration;

fn limited(now: u64, limit: u32) -> String {
    if limit == 0 { now.to_string() } else { format!("{now} of {limit}") }
}

pub fn list(namespaces: &[NamespaceView]) -> Table {
    let mut table = Table::new(["namespace", ">weight", ">jobs", ">devices", "device time, and what was taken for it when it came"]);
    for view in namespaces {
        let terms = view.terms.unwrap_or_default();
        let used = view.used.iter().map(|u| format!("{} {}", u.class, format_duration(Duration::from_nanos(u.device_ns))));
        table.row([
            view.name.as_str().into(),
            terms.weight.max(1).to_string().into(),
            limited(view.active_jobs, terms.max_jobs).into(),
            limited(view.devices, terms.max_devices).into(),
            used.collect::<Vec<_>>().join(", ").into(),
        ]);
    }
    table
}

pub fn to_json(view: &NamespaceView) -> Value {
    let terms = view.terms.unwrap_or_default();
    let used: serde_json::Map<String, Value> = view.used.iter().map(|u| (u.class.clone(), u.device_ns.into())).collect();
    json!({
        "name": view.name, "weight": terms.weight.max(1), "max_jobs": terms.max_jobs, "max_devices": terms.max_devices,
        "active_jobs": view.active_jobs, "devices": view.devices, "used_device_ns": used,
    })
}
