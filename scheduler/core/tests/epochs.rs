//! What a forced recovery and a removed replica leave in the state.

mod support;

use raftwerk_core::{Outcome, State};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

#[test]
fn a_new_epoch_ends_every_lease_and_no_report_under_an_old_one_is_accepted() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let job = r.submit(map_only(10));
    let old = r.grant(job, 0, 0, 10, 7).unwrap();
    let late = r.full_report(old);
    let next_job = r.submit(map_only(1)).0 + 1;
    assert_eq!(r.apply(Command::NewEpoch(NewEpoch { removed_replicas: vec![2, 3], forget_workers: false })), Outcome::Done);
    assert!(r.state.leases.is_empty() && r.state.epoch == 1);
    r.report(7, late);
    assert_eq!(r.state.jobs[&job].stages[0].accepted(), 0, "the lease is of an earlier epoch");
    // The worker is known still, and gets the tasks again under the new epoch.
    let new = r.grant(job, 0, 0, 10, 7).unwrap();
    assert_eq!(new.epoch, 1);
    r.finish(new);
    assert_eq!(r.state.jobs[&job].stages[0].accepted(), 10);
    assert!(r.submit(map_only(1)).0 >= next_job + 1000, "numbers that lost entries may have given away are left out");
    let again = State::from_snapshot("test", &r.state.to_snapshot()).unwrap();
    assert_eq!(again, r.state);
    assert!(again.removed_replicas.contains(&2) && again.removed_replicas.contains(&3));
}

#[test]
fn a_restored_state_knows_no_worker_and_no_removed_replica() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    r.apply(Command::RemoveReplica(RemoveReplica { replica: 1 }));
    let job = r.submit(map_reduce(4, 2));
    let lease = r.grant(job, 0, 0, 4, 7).unwrap();
    r.finish(lease);
    let mut state = State::from_backup("new", &r.state.to_snapshot()).unwrap();
    assert_eq!(state.cluster, "new");
    assert!(state.removed_replicas.is_empty(), "replica 1 of the new cluster is another one");
    let new_epoch = NewEpoch { removed_replicas: vec![], forget_workers: true };
    let commands = vec![raftwerk_proto::v1::Command { command: Some(Command::NewEpoch(new_epoch)) }];
    state.apply(r.index + 1, EntryBody { format: 2, at_ms: 0, commands }).unwrap();
    assert!(state.workers.values().all(|w| w.lost) && state.leases.is_empty());
    assert_eq!(state.jobs[&job].stages[0].accepted(), 0, "its shuffle data lies on workers that cannot come back");
    raftwerk_core::invariants::check(&state).unwrap();
}
