//! How long a worker is told to wait for a sign of progress.

use crate::host::{Host, *};
use raftwerk_proto::v1::*;

fn granted(effects: &[raftwerk_scheduler::leader::Effect]) -> Vec<Grant> {
    grants(effects).into_iter().flat_map(|grants| grants.grants).collect()
}

/// Reports the lease and gives what is granted next.
fn after(host: &mut Host, report: Report) -> Vec<Grant> {
    host.up(1, reports(report));
    let mut all = granted(&host.commit());
    for _ in 0..30 {
        host.up(1, heartbeat(""));
        all.extend(granted(&host.wait(100)));
    }
    all
}

#[test]
fn patience_follows_what_such_tasks_have_taken_and_grows_with_every_charged_attempt() {
    let mut host = Host::new();
    host.connect(1, 7);
    let mut spec = numbers(100);
    spec.stages[0].max_lease_tasks = 1;
    host.submit(1, spec);
    let first = granted(&host.commit());
    assert!(!first.is_empty() && first.iter().all(|grant| grant.patience_ms == 0), "nothing is known: {first:?}");
    let next = after(&mut host, Report { busy_ns: 10_000_000_000, ..result(&first[0], 1) });
    assert!(!next.is_empty() && next.iter().all(|grant| grant.patience_ms == 200_000), "{next:?}");

    let died = |grant: &Grant, sequence| Report {
        results: vec![],
        failures: vec![TaskFailure {
            first_task: grant.first_task,
            task_count: 1,
            class: FailureClass::Executor.into(),
            message: "no sign of progress".into(),
            source_worker: 0,
        }],
        ..result(grant, sequence)
    };
    // A suspect is tried again alone, so nothing else may be on the device.
    let mut host = Host::new();
    host.connect(1, 7);
    let mut spec = numbers(2);
    spec.stages[0].max_lease_tasks = 1;
    host.submit(1, spec);
    let first = granted(&host.commit());
    let next = after(&mut host, Report { busy_ns: 10_000_000_000, ..result(&first[0], 1) });
    assert_eq!(next.len(), 1, "{next:?}");
    let again = after(&mut host, died(&next[0], 2));
    assert_eq!(again.iter().map(|grant| (grant.first_task, grant.patience_ms)).collect::<Vec<_>>(), [(next[0].first_task, 400_000)]);
}

#[test]
fn short_tasks_have_a_minute() {
    let mut host = Host::new();
    host.connect(1, 7);
    let mut spec = numbers(100);
    spec.stages[0].max_lease_tasks = 1;
    host.submit(1, spec);
    let first = granted(&host.commit());
    let next = after(&mut host, Report { busy_ns: 1_000, ..result(&first[0], 1) });
    assert!(!next.is_empty() && next.iter().all(|grant| grant.patience_ms == 60_000), "{next:?}");
}
