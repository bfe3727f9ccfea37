//! The one line a server prints on stdout when it is ready, for people and for whoever started it (`raftwerk dev` reads the JSON form).

use serde_json::{Value, json};

use crate::console::Console;

pub fn scheduler(console: &Console, name: &str, replica: u64, cluster: &str, address: &str) {
    let text = format!("scheduler {name} (replica {replica} of cluster {cluster}) listens at {address}");
    print(console, &text, json!({"ready": "scheduler", "name": name, "replica": replica, "cluster": cluster, "address": address}));
}

pub fn worker(console: &Console, name: &str, worker: u64, address: &str) {
    let text = format!("worker {name} (worker {worker}) serves shuffle data at {address}");
    print(console, &text, json!({"ready": "worker", "name": name, "worker": worker, "address": address}));
}

fn print(console: &Console, text: &str, document: Value) {
    if console.is_json() { console.json_line(document) } else { console.line(text) }
}
