//! The cluster's replicas and the positions of their log.

use raftwerk_proto::v1::ClusterView;
use serde_json::{Value, json};

use crate::console::Console;
use crate::table::{Cell, Colour, Table};
use crate::units::format_bytes;

pub fn print(console: &Console, view: &ClusterView) {
    let leader = if view.leader == 0 { "none known".to_owned() } else { format!("replica {}", view.leader) };
    console.line(format!("cluster {}: leader {leader}, term {}, epoch {}", view.cluster, view.term, view.epoch));
    console.line(format!(
        "log: last {}, committed {}, applied {}; snapshot at {}, compacted to {}; {} written",
        view.last_log_index,
        view.committed_index,
        view.applied_index,
        view.snapshot_index,
        view.purged_index,
        format_bytes(view.log_bytes_written)
    ));
    console.line(format!("state: {} (answered by replica {}, version {})", view.state_hash, view.answered_by, view.version));
    console.line("");
    let mut table = Table::new(["replica", "name", "address", "role", ">matched"]);
    for replica in &view.replicas {
        let role = match (replica.leader, replica.voter) {
            (true, _) => Cell::coloured("leader", Colour::Green),
            (false, true) => "voter".into(),
            (false, false) => "learner".into(),
        };
        let matched = if replica.matched_index == 0 { String::new() } else { replica.matched_index.to_string() };
        table.row([
            replica.replica.to_string().into(),
            replica.name.as_str().into(),
            replica.address.as_str().into(),
            role,
            matched.into(),
        ]);
    }
    console.table(&table);
}

pub fn to_json(view: &ClusterView) -> Value {
    json!({
        "cluster": view.cluster, "leader": if view.leader == 0 { Value::Null } else { view.leader.into() }, "term": view.term,
        "epoch": view.epoch, "last_log_index": view.last_log_index, "committed_index": view.committed_index,
        "applied_index": view.applied_index, "snapshot_index": view.snapshot_index, "purged_index": view.purged_index,
        "state_hash": view.state_hash, "answered_by": view.answered_by, "version": view.version,
        "log_bytes_written": view.log_bytes_written,
        "replicas": view.replicas.iter().map(|replica| json!({
            "replica": replica.replica, "name": replica.name, "address": replica.address, "voter": replica.voter,
            "leader": replica.leader, "matched_index": replica.matched_index,
        })).collect::<Vec<_>>(),
    })
}
