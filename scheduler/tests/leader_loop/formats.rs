//! A cluster in the middle of an upgrade.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::WorkerId;
use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{Answer, ConnId, Input, Leader, RequestId};

/// A former release is among the replicas until the leader is told otherwise.
fn half_upgraded() -> Host {
    let mut host = Host::new();
    host.leader = Leader::new(TIMING, &host.state, 0).writing(2);
    host
}

#[test]
fn nothing_newer_than_every_replica_reads_is_written_and_then_the_log_says_so() {
    let mut host = half_upgraded();
    host.connect(1, 7);
    host.submit(1, numbers(4));
    assert_eq!(host.proposed.as_ref().map(|body| body.format), Some(2));
    host.commit();
    let refused = host.input(Input::Drain { request: RequestId(2), worker: WorkerId(7) });
    let [Answer::Precondition(why)] = &answers(&refused)[..] else { panic!("{refused:?}") };
    assert!(why.contains("every replica runs this release"), "{why}");
    host.wait(1_000);
    assert_eq!(host.state.log_format, 2);

    host.input(Input::Format(3));
    assert_eq!(host.proposed.as_ref().map(|body| (body.format, body.commands.len())), Some((3, 0)), "although there is nothing to say");
    host.commit();
    assert_eq!(host.state.log_format, 3);
    assert!(host.proposed.is_none(), "once is enough");
    host.input(Input::Drain { request: RequestId(3), worker: WorkerId(7) });
    assert_eq!(answers(&host.commit()), [Answer::Released]);
    let unknown = host.input(Input::Drain { request: RequestId(4), worker: WorkerId(99) });
    assert!(matches!(&answers(&unknown)[..], [Answer::NotFound(_)]));
}

#[test]
fn what_the_former_release_does_not_know_waits_for_the_whole_cluster() {
    let mut host = half_upgraded();
    host.connect(1, 7);
    let mut on_workers = with_shuffle();
    on_workers.output = Some(OutputSpec { url: "worker:".into(), format: "csv".into(), copies: 1, ..OutputSpec::default() });
    let said = answers(&host.submit(1, on_workers.clone()));
    assert!(matches!(said.as_slice(), [Answer::Precondition(text)] if text.contains("every replica")), "{said:?}");

    // A full worker is news to it; that a lease was handed back is not.
    host.submit(2, numbers(4));
    let grant = grants(&host.commit()).remove(0).grants.remove(0);
    let failure = TaskFailure { first_task: 0, task_count: u64::MAX, class: FailureClass::Full.into(), ..TaskFailure::default() };
    let report = Report { results: Vec::new(), failures: vec![failure], ..result(&grant, 1) };
    host.input(Input::FromWorker { conn: ConnId(1), message: reports(report) });
    let written = host.proposed.as_ref().expect("an entry");
    let reported =
        written.commands.iter().filter_map(|c| if let Some(command::Command::ReportResults(r)) = &c.command { Some(r) } else { None });
    let classes: Vec<FailureClass> = reported.flat_map(|r| &r.reports).flat_map(|r| &r.failures).map(|f| f.class()).collect();
    assert_eq!(classes, [FailureClass::Stopped]);
}

#[test]
fn a_job_that_names_its_policy_waits_for_the_whole_cluster_and_the_name_must_be_known() {
    let mut host = half_upgraded();
    host.connect(1, 7);
    let by = |policy: &str| JobSpec { policy: policy.into(), ..numbers(4) };
    let said = answers(&host.submit(1, by("random")));
    assert!(matches!(said.as_slice(), [Answer::Precondition(text)] if text.contains("every replica")), "{said:?}");
    host.input(Input::Format(ENTRY_FORMAT));
    let said = answers(&host.submit(2, by("randm")));
    assert!(
        matches!(said.as_slice(), [Answer::Refused(text)] if text.contains("no policy 'randm'") && text.contains("random")),
        "{said:?}"
    );
    host.submit(3, by("random"));
    let said = answers(&host.commit());
    assert!(said.iter().any(|a| matches!(a, Answer::Submitted { .. })), "{said:?}");
    assert_eq!(host.state.active_jobs().map(|j| j.spec.policy.as_str()).collect::<Vec<_>>(), ["random"]);
}

#[test]
fn the_next_leader_goes_by_the_log_whoever_it_has_heard_of() {
    let mut host = half_upgraded();
    host.input(Input::Format(3));
    host.commit();
    host.leader = Leader::new(TIMING, &host.state, host.now).writing(2);
    host.connect(1, 7);
    assert_eq!(host.state.log_format, 3);
    host.input(Input::Drain { request: RequestId(1), worker: WorkerId(7) });
    assert_eq!(answers(&host.commit()), [Answer::Released]);
}

#[test]
fn priorities_and_terms_wait_for_the_whole_cluster() {
    let mut host = Host::new();
    host.leader = Leader::new(TIMING, &host.state, 0).writing(3);
    host.connect(1, 7);
    let urgent = JobSpec { priority: 90, ..numbers(4) };
    let said = answers(&host.submit(1, urgent.clone()));
    assert!(matches!(said.as_slice(), [Answer::Precondition(text)] if text.contains("format 4")), "{said:?}");
    let terms = || NamespaceTerms { weight: 2, max_jobs: 1, max_devices: 0 };
    let set = |request| Input::SetNamespace { request: RequestId(request), name: "default".into(), terms: terms() };
    let said = answers(&host.input(set(2)));
    assert!(matches!(said.as_slice(), [Answer::Precondition(text)] if text.contains("every replica")), "{said:?}");

    host.input(Input::Format(4));
    host.commit();
    host.input(set(3));
    assert_eq!(answers(&host.commit()), [Answer::Released]);
    host.submit(4, urgent);
    assert!(matches!(answers(&host.commit()).as_slice(), [Answer::Submitted { .. }]));
    // It has the one job that it may have.
    let said = answers(&host.submit(5, numbers(4)));
    assert!(matches!(said.as_slice(), [Answer::Exhausted(text)] if text.contains("--max-jobs")), "{said:?}");
    let bad = host.input(Input::SetNamespace { request: RequestId(6), name: "No".into(), terms: terms() });
    assert!(matches!(answers(&bad).as_slice(), [Answer::Refused(_)]), "{bad:?}");
}
