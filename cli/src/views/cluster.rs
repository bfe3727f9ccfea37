//! The cluster's replicas, which of them answer, and the positions of their logs.

use raftwerk_proto::v1::ReplicaView;
use serde_json::{Value, json};

use crate::client::Survey;
use crate::console::Console;
use crate::table::{Cell, Colour, Table, printable_lines};
use crate::units::format_bytes;

pub fn print(console: &Console, survey: &Survey) {
    let view = &survey.view;
    console.line(format!("cluster {}: {}, term {}, epoch {}", view.cluster, leader(survey), view.term, view.epoch));
    console.line(answering(survey));
    console.line(format!(
        "log: last {}, committed {}, applied {}; snapshot at {}, compacted to {}; {} written since it started",
        view.last_log_index,
        view.committed_index,
        view.applied_index,
        view.snapshot_index,
        view.purged_index,
        format_bytes(view.log_bytes_written)
    ));
    console.line(format!("state: {} (answered by replica {}, version {})", view.state_hash, view.answered_by, view.version));
    if let Some(policy) = policy_in_force(survey) {
        console.line(format!("policy: {policy}"));
    }
    if let Some(waits) = waits_for(survey) {
        console.line(waits);
    }
    console.line("");
    let mut table = Table::new(["replica", "name", "address", "role", ">matched", ">applied", "answers"]);
    for replica in &view.replicas {
        let matched = if replica.matched_index == 0 { String::new() } else { replica.matched_index.to_string() };
        let (applied, answers) = match survey.answer(replica.replica) {
            Ok(own) => (own.applied_index.to_string(), "yes".into()),
            Err(reason) => (String::new(), Cell::coloured(format!("no: {reason}"), Colour::Red)),
        };
        table.row([
            replica.replica.to_string().into(),
            replica.name.as_str().into(),
            replica.address.as_str().into(),
            role(survey, replica),
            matched.into(),
            applied.into(),
            answers,
        ]);
    }
    console.table(&table);
}

/// The leader's, because it is who places.
fn policy_in_force(survey: &Survey) -> Option<&str> {
    let own = survey.answer(survey.leader()?).ok()?;
    (!own.policy.is_empty()).then_some(own.policy.as_str())
}

/// While a cluster is upgraded: which replicas the log waits for with its new format.
fn waits_for(survey: &Survey) -> Option<String> {
    let newest = reads(survey).filter_map(|(_, reads)| reads).max()?;
    let written = survey.view.log_format;
    let behind: Vec<String> =
        reads(survey).filter(|(_, reads)| reads.is_none_or(|reads| reads < newest)).map(|(id, _)| id.to_string()).collect();
    (written != 0 && written < newest && !behind.is_empty())
        .then(|| format!("log format {written}, not {newest} yet: replica {} has not said that it reads it", behind.join(" and ")))
}

/// What each replica reads, as far as it answers and says so.
fn reads(survey: &Survey) -> impl Iterator<Item = (u64, Option<u32>)> + '_ {
    survey.view.replicas.iter().map(|replica| {
        let own = survey.answer(replica.replica).ok().and_then(|own| own.versions.as_ref());
        (replica.replica, own.map(|versions| versions.entry_format))
    })
}

fn leader(survey: &Survey) -> String {
    match (survey.leader(), survey.last_leader()) {
        (Some(leader), _) if survey.has_majority() => format!("leader replica {leader}"),
        // It has not noticed yet, or the others answer it and not us.
        (Some(leader), _) => format!("replica {leader} says that it leads"),
        (None, Some(last)) => match survey.answer(last) {
            Ok(_) => format!("no leader known (replica {last} led last)"),
            Err(reason) => format!("no leader known (replica {last} led last and gives no answer: {})", printable_lines(reason)),
        },
        (None, None) => "no leader known".to_owned(),
    }
}

fn answering(survey: &Survey) -> String {
    let (answering, voters, needed) = (survey.answering_voters(), survey.voters(), survey.needed());
    if survey.has_majority() {
        return format!("replicas: {answering} of {voters} answer");
    }
    format!(
        "replicas: {answering} of {voters} answer, which is no majority ({needed}): nothing is submitted, leased or accepted until more are back"
    )
}

fn role(survey: &Survey, replica: &ReplicaView) -> Cell {
    match (survey.leader() == Some(replica.replica), replica.voter) {
        (true, _) => Cell::coloured("leader", Colour::Green),
        (false, true) => "voter".into(),
        (false, false) => "learner".into(),
    }
}

pub fn to_json(survey: &Survey) -> Value {
    let view = &survey.view;
    json!({
        "cluster": view.cluster, "leader": survey.leader(), "last_leader": survey.last_leader(), "majority": survey.has_majority(),
        "term": view.term, "epoch": view.epoch, "last_log_index": view.last_log_index, "committed_index": view.committed_index,
        "applied_index": view.applied_index, "snapshot_index": view.snapshot_index, "purged_index": view.purged_index,
        "state_hash": view.state_hash, "answered_by": view.answered_by, "version": view.version,
        "log_bytes_written": view.log_bytes_written, "log_format": view.log_format,
        "policy": policy_in_force(survey),
        "replicas": view.replicas.iter().map(|replica| {
            let own = survey.answer(replica.replica);
            json!({
                "replica": replica.replica, "name": replica.name, "address": replica.address, "voter": replica.voter,
                "leader": survey.leader() == Some(replica.replica), "matched_index": replica.matched_index,
                "answers": own.is_ok(), "error": own.err(),
                "protocol": own.ok().and_then(|own| own.versions.as_ref()).map(|versions| versions.protocol),
                "applied_index": own.ok().map(|own| own.applied_index), "state_hash": own.ok().map(|own| &own.state_hash),
            })
        }).collect::<Vec<_>>(),
    })
}
