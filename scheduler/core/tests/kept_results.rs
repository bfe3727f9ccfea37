//! Results that stay on workers: what counts as kept, and what becomes of a job whose keepers are lost.

mod support;

use raftwerk_core::{Event, JobId, Outcome, Phase, State, WorkerId, kept};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

fn on_workers(copies: u32) -> JobSpec {
    let mut spec = map_reduce(2, 2);
    spec.output = Some(OutputSpec { url: "worker:".into(), format: "csv".into(), copies, ..OutputSpec::default() });
    spec
}

/// A job whose two parts were made by worker 8.
fn decided(copies: u32) -> (Replica, JobId) {
    let mut r = Replica::new();
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(on_workers(copies));
    let map = r.grant(job, 0, 0, 2, 7).unwrap();
    r.finish(map);
    reduce(&mut r, job, 0, 2, 8, "first");
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    (r, job)
}

fn reduce(r: &mut Replica, job: JobId, first: u64, count: u64, worker: u64, name: &str) {
    let lease = r.grant(job, 1, first, count, worker).unwrap();
    let mut report = r.full_report(lease);
    for part in &mut report.parts {
        part.staged_name = format!("{name}-{}", part.partition);
        part.copy_workers = vec![7, 7, 99];
        part.gone_at = vec![8];
    }
    r.report(worker, report);
}

fn keeps(r: &mut Replica, job: JobId, worker: u64, names: &[(u32, &str)]) {
    let part = |(partition, name): &(u32, &str)| PartName { partition: *partition, staged_name: (*name).into() };
    r.apply(Command::RecordKept(RecordKept { job: job.0, worker, parts: names.iter().map(part).collect() }));
}

fn finish(r: &mut Replica, job: JobId) {
    r.apply(Command::FinishPublish(FinishPublish { job: job.0, error: String::new() }));
}

fn keepers(r: &Replica, job: JobId, partition: u32) -> Vec<u64> {
    kept::keepers(&r.state.jobs[&job].parts[&partition]).map(|worker| worker.0).collect()
}

#[test]
fn a_copy_counts_when_it_is_of_the_accepted_part_and_wanted() {
    let (mut r, job) = decided(2);
    assert_eq!(keepers(&r, job, 0), [8], "a report does not say who else keeps it");
    keeps(&mut r, job, 9, &[(0, "another-0"), (1, "first-1"), (5, "first-5")]);
    keeps(&mut r, job, 8, &[(0, "first-0")]);
    keeps(&mut r, job, 99, &[(0, "first-0")]);
    assert_eq!((keepers(&r, job, 0), keepers(&r, job, 1)), (vec![8], vec![8, 9]));
    keeps(&mut r, job, 7, &[(0, "first-0"), (1, "first-1")]);
    assert_eq!((keepers(&r, job, 0), keepers(&r, job, 1)), (vec![8, 7], vec![8, 9]), "no more than asked for");
    finish(&mut r, job);
    r.lose(8);
    assert_eq!(keepers(&r, job, 1), [8, 9], "it may come back with what it kept");
    keeps(&mut r, job, 7, &[(1, "first-1")]);
    assert_eq!(keepers(&r, job, 1), [9, 7], "unless another one takes its place");
}

#[test]
fn a_keeper_that_starts_again_keeps_what_it_kept() {
    let (mut r, job) = decided(1);
    r.register(8, vec![device(0, "cpu", 1)]);
    finish(&mut r, job);
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
    assert_eq!(keepers(&r, job, 0), [8]);
}

#[test]
fn a_job_is_not_done_without_a_keeper_of_every_part() {
    let (mut r, job) = decided(2);
    keeps(&mut r, job, 9, &[(0, "first-0")]);
    r.lose(8);
    finish(&mut r, job);
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing, "nobody keeps part 1");
    let lost = LostPart { partition: 1, staged_name: "first-1".into(), reason: "its keeper is lost".into() };
    r.apply(Command::RemakeParts(RemakeParts { job: job.0, parts: vec![lost] }));
    reduce(&mut r, job, 1, 1, 7, "second");
    finish(&mut r, job);
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
    assert_eq!((keepers(&r, job, 0), keepers(&r, job, 1)), (vec![8, 9], vec![7]));
}

fn loses(r: &mut Replica, job: JobId, worker: u64, names: &[(u32, &str)]) -> Outcome {
    let part = |(partition, name): &(u32, &str)| PartName { partition: *partition, staged_name: (*name).into() };
    r.apply(Command::LoseKept(LoseKept { job: job.0, worker, parts: names.iter().map(part).collect() }))
}

fn holders(r: &Replica, job: JobId, partition: u32) -> Vec<u64> {
    r.state.holders(&r.state.jobs[&job].parts[&partition]).map(|worker| worker.0).collect()
}

#[test]
fn a_keeper_that_has_lost_its_part_does_not_count_until_it_has_it_again() {
    let (mut r, job) = decided(2);
    keeps(&mut r, job, 9, &[(0, "first-0"), (1, "first-1")]);
    finish(&mut r, job);
    // Of another making, of no part, of one who is no keeper: nothing.
    loses(&mut r, job, 8, &[(0, "another-0"), (5, "first-5")]);
    loses(&mut r, job, 7, &[(0, "first-0")]);
    assert_eq!(holders(&r, job, 0), [8, 9]);
    loses(&mut r, job, 8, &[(0, "first-0"), (1, "first-1")]);
    loses(&mut r, job, 8, &[(0, "first-0")]);
    assert_eq!((holders(&r, job, 0), keepers(&r, job, 0)), (vec![9], vec![8, 9]), "it may find it again");
    assert_eq!(State::from_snapshot("test", &r.state.to_snapshot()).unwrap(), r.state);
    keeps(&mut r, job, 8, &[(0, "first-0")]);
    assert_eq!(holders(&r, job, 0), [8, 9]);
    keeps(&mut r, job, 7, &[(0, "first-0"), (1, "first-1")]);
    assert_eq!((keepers(&r, job, 0), keepers(&r, job, 1)), (vec![8, 9], vec![9, 7]), "another one takes its place");
    assert!(r.state.jobs[&job].parts[&1].gone_at.is_empty());
    loses(&mut r, job, 9, &[(1, "first-1")]);
    loses(&mut r, job, 7, &[(1, "first-1")]);
    assert!(holders(&r, job, 1).is_empty() && r.state.jobs[&job].has_kept_result());
    r.apply(Command::DropResult(DropResult { job: job.0 }));
    assert!(r.state.jobs[&job].parts.values().all(|part| part.gone_at.is_empty()));
}

#[test]
fn a_job_is_not_done_while_the_only_keeper_of_a_part_has_lost_it() {
    let (mut r, job) = decided(1);
    loses(&mut r, job, 8, &[(1, "first-1")]);
    finish(&mut r, job);
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    let lost = LostPart { partition: 1, staged_name: "first-1".into(), reason: "damaged".into() };
    r.apply(Command::RemakeParts(RemakeParts { job: job.0, parts: vec![lost] }));
    reduce(&mut r, job, 1, 1, 8, "second");
    assert_eq!(holders(&r, job, 1), [8]);
    finish(&mut r, job);
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
}

#[test]
fn keepers_are_not_taken_off_while_a_replica_would_not_understand_it() {
    let (mut r, job) = decided(1);
    r.format = 3;
    assert!(matches!(loses(&mut r, job, 8, &[(0, "first-0")]), Outcome::Refused(_)));
    assert_eq!(holders(&r, job, 0), [8]);
}

#[test]
fn a_result_is_dropped_by_its_user_or_with_its_job() {
    let (mut r, job) = decided(2);
    let drop = |job: JobId| Command::DropResult(DropResult { job: job.0 });
    assert!(matches!(r.apply(drop(job)), Outcome::Refused(_)), "it has not ended");
    finish(&mut r, job);
    assert!(r.state.jobs[&job].has_kept_result());
    let events = r.apply_all(vec![drop(job)]).events;
    assert_eq!(events, [Event::ResultDropped { job }]);
    assert!(keepers(&r, job, 0).is_empty() && !r.state.jobs[&job].has_kept_result());
    keeps(&mut r, job, 9, &[(0, "first-0")]);
    assert!(keepers(&r, job, 0).is_empty(), "what is dropped stays dropped");
    assert!(matches!(r.apply(drop(JobId(77))), Outcome::Refused(_)));

    let (mut r, job) = decided(1);
    finish(&mut r, job);
    r.pause_ms = 25 * 60 * 60 * 1000;
    let events = r.apply_all(vec![Command::Forget(Forget { jobs: vec![job.0], workers: vec![] })]).events;
    assert_eq!(events, [Event::ResultDropped { job }]);
}

#[test]
fn copies_are_bounded_and_only_of_results_on_workers() {
    let mut r = Replica::new();
    let mut refused = |spec: JobSpec| match r.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() })) {
        Outcome::Refused(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(on_workers(6)), "output: copies must be at most 5");
    let mut shared = map_reduce(2, 2);
    shared.output.as_mut().unwrap().copies = 2;
    assert!(refused(shared).contains("only an output that stays on the workers"));
    let mut state = State::new("test");
    assert!(state.too_few_keepers(&on_workers(0)).unwrap().contains("has 0"));
    let hello = hello("w", 1, vec![device(0, "cpu", 1)]);
    let register = Command::RegisterWorker(RegisterWorker { worker: 7, hello: Some(hello) });
    let body = EntryBody { format: 2, at_ms: 1, commands: vec![raftwerk_proto::v1::Command { command: Some(register) }] };
    state.apply(1, body).unwrap();
    assert!(state.is_there(WorkerId(7)) && state.too_few_keepers(&on_workers(1)).is_none());
    assert!(state.too_few_keepers(&on_workers(2)).unwrap().contains("on 2 workers"));
}
