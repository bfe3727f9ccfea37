//! The log says which format it has reached, and what came with format 3.

mod support;

use prost::Message;
use raftwerk_core::apply::{ENTRY_FORMAT, UNMARKED_FORMAT};
use raftwerk_core::{Outcome, State, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

fn format_of(state: &State) -> u32 {
    Snapshot::decode(state.to_snapshot().as_slice()).expect("a snapshot").format
}

fn drain(worker: u64) -> Command {
    Command::DrainWorker(DrainWorker { worker })
}

#[test]
fn the_state_remembers_the_newest_format_and_builds_of_before_refuse_its_snapshot() {
    let mut r = Replica::new();
    r.format = UNMARKED_FORMAT;
    r.register(7, vec![device(0, "cpu", 1)]);
    assert_eq!((r.state.log_format, format_of(&r.state)), (UNMARKED_FORMAT, 1));
    r.format = ENTRY_FORMAT;
    r.apply_all(Vec::new());
    assert_eq!((r.state.log_format, format_of(&r.state)), (ENTRY_FORMAT, ENTRY_FORMAT));
    // A straggler of the old format is applied by its own rules and takes nothing back.
    r.format = UNMARKED_FORMAT;
    r.apply_all(Vec::new());
    assert_eq!(r.state.log_format, ENTRY_FORMAT);
    assert_eq!(State::from_snapshot("test", &r.state.to_snapshot()).expect("a snapshot"), r.state);
}

#[test]
fn what_a_worker_says_of_its_build_never_reaches_the_state() {
    let versions = |r: &Replica| r.state.workers[&WorkerId(7)].hello.versions.clone();
    let mut r = Replica::new();
    let said = Versions { protocol: 2, oldest_protocol: 1, ..Versions::default() };
    let hello = Hello { versions: Some(said), ..hello("w7", 1, vec![device(0, "cpu", 1)]) };
    r.apply(Command::RegisterWorker(RegisterWorker { worker: 7, hello: Some(hello) }));
    assert_eq!(versions(&r), None, "a build of before drops the field, and both have to hold the same");
}

#[test]
fn a_drained_worker_finishes_what_it_holds_and_gets_nothing_new() {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(map_only(40));
    let held = r.grant(job, 0, 0, 4, 7).expect("a lease");
    assert_eq!(r.apply(drain(7)), Outcome::Done);
    assert!(r.grant(job, 0, 4, 1, 7).is_none(), "also when a plan of before asks for it");
    assert!(r.plan().iter().all(|placement| placement.worker == 8));
    assert!(r.state.leases.contains_key(&held));
    r.finish(held);
    assert_eq!(r.state.jobs[&job].stages[0].accepted(), 4);
    assert_eq!(r.apply(Command::EndQuarantine(EndQuarantine { worker: 7 })), Outcome::Done);
    assert!(r.grant(job, 0, 4, 1, 7).is_some());
}

#[test]
fn a_drain_ends_with_the_process_and_survives_a_snapshot() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    r.apply(drain(7));
    let again = State::from_snapshot("test", &r.state.to_snapshot()).expect("a snapshot");
    assert!(again.workers[&WorkerId(7)].drained);
    r.register(7, vec![device(0, "cpu", 1)]);
    assert!(!r.state.workers[&WorkerId(7)].drained);
}

#[test]
fn nobody_is_drained_by_an_entry_of_before() {
    let mut r = Replica::new();
    r.format = UNMARKED_FORMAT;
    r.register(7, vec![device(0, "cpu", 1)]);
    assert!(matches!(r.apply(drain(7)), Outcome::Refused(_)));
    assert!(!r.state.workers[&WorkerId(7)].drained);
    r.format = ENTRY_FORMAT;
    assert!(matches!(r.apply(drain(99)), Outcome::Refused(_)), "there is no such worker");
}
