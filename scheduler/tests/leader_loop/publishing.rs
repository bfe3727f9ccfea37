//! The end of a job with an output.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::JobId;
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::worker_message::Message as Up;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{ConnId, Input};

#[test]
fn publishing_is_asked_for_again_elsewhere_when_the_publisher_goes() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.connect(2, 8);
    let output = OutputSpec { url: "file:///out".into(), format: "csv".into(), if_exists: IfExists::Replace.into(), copies: 0 };
    let spec = JobSpec { output: Some(output), ..one_reduce_task() };
    let asked = host.submit(1, spec);
    assert!(
        sent(&asked).any(|(_, m)| matches!(m, Down::ListInputs(l) if l.output_url == "file:///out")),
        "somebody looks at the destination"
    );
    host.up(1, Up::Listing(InputListing { request: 1, ..InputListing::default() }));
    let effects = host.commit();
    let granted = sent(&effects).find_map(|(conn, m)| if let Down::Grants(g) = m { Some((conn, g.grants[0].clone())) } else { None });
    let (conn, grant) = granted.expect("the reduce task is granted");
    let part = OutputPart { partition: 0, name: "part-00000.csv".into(), ..OutputPart::default() };
    let mut report = Report { stage: 1, parts: vec![part], ..result(&grant, 1) };
    report.results[0].tallies.clear();
    host.up(conn, reports(report));
    let first = publisher(&host.commit()).expect("somebody publishes");
    assert_eq!(first, conn, "the one that prepared it");
    host.input(Input::WorkerDisconnected { conn: ConnId(first) });
    let second = publisher(&host.wait(50)).expect("somebody else publishes");
    assert_ne!(second, first);
    host.up(second, Up::Published(PublishReport { job: 1, ..PublishReport::default() }));
    host.commit();
    assert!(host.state.jobs[&JobId(1)].phase.ended_at().is_some());
}

/// A host with three workers and a decided job of three parts, one prepared by each. Publishing was asked of the connection returned.
fn decided() -> (Host, u64) {
    let mut host = Host::new();
    for worker in 1..=3 {
        host.connect(worker, 6 + worker);
    }
    let mut spec = numbers(0);
    spec.stages[0].partitions = 3;
    spec.stages.push(StageSpec {
        name: "reduce".into(),
        kernel: Some(KernelRef {
            name: "count".into(),
            version: 1,
            kind: KernelKind::Reduce.into(),
            tallies: vec![],
            ..KernelRef::default()
        }),
        inputs: vec![StageInput { name: "map".into(), source: Some(Source::Stage(StageOutput { stage: "map".into() })) }],
        max_lease_tasks: 1,
        ..StageSpec::default()
    });
    spec.output = Some(OutputSpec { url: "file:///out".into(), format: "csv".into(), ..OutputSpec::default() });
    host.submit(1, spec);
    host.up(1, Up::Listing(InputListing { request: 1, ..InputListing::default() }));
    let mut effects = host.commit();
    let mut asked = None;
    while asked.is_none() {
        let granted: Vec<(u64, Grant)> = sent(&effects)
            .filter_map(|(conn, m)| if let Down::Grants(g) = m { Some((conn, g.grants.clone())) } else { None })
            .flat_map(|(conn, grants)| grants.into_iter().map(move |grant| (conn, grant)))
            .collect();
        assert!(!granted.is_empty(), "the reduce stage does not go on: {effects:?}");
        effects = Vec::new();
        for (conn, grant) in granted {
            let partition = grant.first_task as u32;
            let part = OutputPart { partition, staged_name: format!("{partition}.{:?}", grant.lease), ..OutputPart::default() };
            let mut report = Report { stage: 1, parts: vec![part], ..result(&grant, 1) };
            report.results[0].tallies.clear();
            effects.extend(host.up(conn, reports(report)));
            effects.extend(host.commit());
        }
        asked = publisher(&effects);
    }
    (host, asked.unwrap_or_default())
}

/// What a publisher says that does not find some parts.
fn missing(host: &Host, partitions: &[u32]) -> Up {
    let parts = &host.state.jobs[&JobId(1)].parts;
    let lost =
        partitions.iter().map(|p| LostPart { partition: *p, staged_name: parts[p].staged_name.clone(), reason: "is missing".into() });
    Up::Published(PublishReport { job: 1, error: "parts are missing".into(), retryable: true, lost: lost.collect() })
}

/// Connection of the worker that prepared a part.
fn maker(host: &Host, partition: u32) -> u64 {
    host.state.jobs[&JobId(1)].parts[&partition].worker - 6
}

#[test]
fn a_part_is_lost_when_its_maker_does_not_find_it_and_not_before() {
    let (mut host, first) = decided();
    let elsewhere = (0..3).find(|p| maker(&host, *p) != first).expect("a part of another worker");
    host.up(first, missing(&host, &[elsewhere]));
    host.commit();
    assert_eq!(host.state.jobs[&JobId(1)].phase, raftwerk_core::Phase::Publishing, "it may only be invisible there");
    let second = publisher(&host.wait(600)).expect("its maker is asked");
    assert_eq!(second, maker(&host, elsewhere));
    host.up(second, missing(&host, &[elsewhere]));
    let effects = host.commit();
    let job = &host.state.jobs[&JobId(1)];
    assert_eq!(job.stages[1].generation, 2, "it is made again");
    assert!(!job.parts.contains_key(&elsewhere) && job.parts.len() == 2);
    assert!(sent(&effects).any(|(_, m)| matches!(m, Down::Grants(_))), "at once: {effects:?}");
}

#[test]
fn parts_of_several_makers_that_are_lost_together_are_made_again_in_one_generation() {
    let (mut host, first) = decided();
    let own = (0..3).find(|p| maker(&host, *p) == first).expect("a part of its own");
    let elsewhere = (0..3).find(|p| maker(&host, *p) != first).expect("a part of another worker");
    let both = [own, elsewhere];
    let mut effects = host.up(first, missing(&host, &both));
    effects.extend(host.commit());
    assert_eq!(host.state.jobs[&JobId(1)].stages[1].generation, 1, "the other one's maker has not been asked");
    effects.extend(host.wait(50));
    let second = publisher(&effects).expect("it is asked at once");
    assert_eq!(second, maker(&host, elsewhere));
    host.up(second, missing(&host, &both));
    host.commit();
    let job = &host.state.jobs[&JobId(1)];
    assert_eq!((job.stages[1].generation, job.parts.len()), (2, 1), "both in one");
    assert_eq!(job.stages[1].failed_attempts, 2);
}

#[test]
fn a_part_whose_maker_is_gone_is_lost_when_nobody_else_finds_it() {
    let (mut host, first) = decided();
    let gone = (0..3).find(|p| maker(&host, *p) != first).expect("a part of another worker");
    host.input(Input::WorkerDisconnected { conn: ConnId(maker(&host, gone)) });
    host.up(first, missing(&host, &[gone]));
    let mut effects = host.commit();
    assert_eq!(host.state.jobs[&JobId(1)].stages[1].generation, 1, "one more could see it");
    let mut asked = first;
    for _ in 0..3 {
        effects.extend(host.wait(600));
        asked = publisher(&effects).unwrap_or(asked);
        effects.clear();
        if host.state.jobs[&JobId(1)].stages[1].generation == 2 {
            break;
        }
        host.up(asked, missing(&host, &[gone]));
        host.commit();
    }
    assert_eq!(host.state.jobs[&JobId(1)].stages[1].generation, 2);
}

#[test]
fn parts_that_nobody_but_their_maker_sees_fail_the_job_and_are_not_made_again() {
    let (mut host, mut asked) = decided();
    for _ in 0..5 {
        let others: Vec<u32> = (0..3).filter(|p| maker(&host, *p) != asked).collect();
        host.up(asked, missing(&host, &others));
        let mut effects = host.commit();
        (1..=3).for_each(|conn| drop(host.up(conn, Up::Heartbeat(Heartbeat::default()))));
        effects.extend(host.wait(600));
        match publisher(&effects) {
            Some(next) => asked = next,
            None => break,
        }
    }
    let job = &host.state.jobs[&JobId(1)];
    assert!(matches!(&job.phase, raftwerk_core::Phase::Failed { cause, .. } if cause.contains("parts are missing")), "{:?}", job.phase);
    assert_eq!(job.stages[1].generation, 1);
}

#[test]
fn a_publisher_that_hangs_is_given_up_and_its_late_answer_does_no_harm() {
    let (mut host, first) = decided();
    let mut effects = Vec::new();
    let mut waited = 0;
    while publisher(&effects).is_none() {
        assert!(waited < 120_000, "nobody else is asked");
        waited += 500;
        effects = host.wait(500);
        for conn in 1..=3 {
            host.up(conn, Up::Heartbeat(Heartbeat::default()));
        }
    }
    let second = publisher(&effects).expect("somebody");
    assert!(second != first && waited >= 60_000, "{second} after {waited} ms");
    host.up(first, missing(&host, &[0, 1, 2]));
    host.commit();
    assert_eq!(host.state.jobs[&JobId(1)].phase, raftwerk_core::Phase::Publishing, "what it says late is not heard");
    host.up(second, Up::Published(PublishReport { job: 1, ..PublishReport::default() }));
    host.commit();
    assert!(host.state.jobs[&JobId(1)].phase.ended_at().is_some());
}
