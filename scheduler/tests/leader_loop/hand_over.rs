//! Second leases that a former leader decided and could not send: what a new one hands out of them.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_core::{LeaseId as Id, Outcome, WorkerId};
use raftwerk_proto::v1::command::Command as Do;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{ConnId, Input};

const QUICK: u64 = 10;
const IDLE: u64 = 11;

impl Host {
    /// An entry of a leader that dies before it has told anybody of it.
    fn committed(&mut self, command: Do) -> Outcome {
        self.index += 1;
        let body = EntryBody {
            format: ENTRY_FORMAT,
            at_ms: self.state.now.0 + 1,
            commands: vec![raftwerk_proto::v1::Command { command: Some(command) }],
        };
        self.state.apply(self.index, body).expect("a known command").outcomes.remove(0)
    }

    fn leased(&mut self, worker: u64, first_task: u64, task_count: u64, speculative: bool) -> Id {
        let session = self.state.workers[&WorkerId(worker)].session.0;
        let job = Some(placement::Job::Id(1));
        let placement = Placement { job, worker, session, first_task, task_count, speculative, ..Placement::default() };
        match self.committed(Do::GrantLeases(GrantLeases { placements: vec![placement] })) {
            Outcome::Granted { leases, stale: 0 } => leases[0],
            other => panic!("{other:?}"),
        }
    }
}

/// Six tasks are out at one worker, and all but the first a second time at another one that has not heard of it: the leader is dead.
fn decided_and_not_sent() -> (Host, Id, Id) {
    let mut host = Host::new();
    for worker in [QUICK, IDLE] {
        host.connect(worker, worker);
    }
    let submitted = host.committed(Do::SubmitJob(SubmitJob { spec: Some(numbers(6)), ..SubmitJob::default() }));
    assert!(matches!(submitted, Outcome::Submitted { .. }), "{submitted:?}");
    let first = host.leased(QUICK, 0, 6, false);
    let second = host.leased(IDLE, 1, 5, true);
    host.change_leader();
    let held = Hello { held: vec![first.into()], ..hello(QUICK) };
    host.input(Input::WorkerConnected { conn: ConnId(1), worker: WorkerId(QUICK), hello: held });
    (host, first, second)
}

fn finishes(host: &mut Host, lease: Id, tasks: std::ops::Range<u64>, final_report: bool) {
    let grant =
        Grant { lease: Some(lease.into()), job: 1, first_task: tasks.start, task_count: tasks.end - tasks.start, ..Grant::default() };
    host.up(1, reports(Report { final_report, ..result(&grant, tasks.start + 1) }));
    host.commit();
}

fn granted_to_the_idle_one(host: &mut Host) -> Vec<(Option<LeaseId>, u64, u64)> {
    let effects = host.connect(2, IDLE);
    grants(&effects).iter().flat_map(|g| &g.grants).map(|g| (g.lease, g.first_task, g.task_count)).collect()
}

#[test]
fn a_second_lease_is_handed_out_for_what_has_no_result_yet() {
    let (mut host, _, second) = decided_and_not_sent();
    assert_eq!(granted_to_the_idle_one(&mut host), [(Some(second.into()), 1, 5)], "finished or not: nothing is accepted");

    let (mut host, first, second) = decided_and_not_sent();
    finishes(&mut host, first, 0..4, false);
    assert_eq!(granted_to_the_idle_one(&mut host), [(Some(second.into()), 4, 2)], "what was accepted runs no more");
}

#[test]
fn a_second_lease_whose_tasks_all_have_results_is_never_handed_out() {
    for final_report in [true, false] {
        let (mut host, first, second) = decided_and_not_sent();
        finishes(&mut host, first, 0..6, final_report);
        assert!(!host.state.leases.contains_key(&second), "ended by the entry that accepted the last of its tasks");
        assert_eq!(granted_to_the_idle_one(&mut host), []);
    }
}
