//! What is lost is made again, and nothing else: shuffle data, its copies, and decided parts.

mod support;

use raftwerk_core::stage::TaskState;
use raftwerk_core::{Event, JobId, Outcome, Phase, Timestamp, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

/// A replica with three workers and a job of four map tasks and two partitions whose shuffle data is to lie at two places.
fn with_copies() -> (Replica, JobId) {
    let mut r = Replica::new();
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let mut spec = map_reduce(4, 2);
    spec.stages[0].shuffle_replicas = 2;
    let job = r.submit(spec);
    (r, job)
}

/// Runs map tasks on a worker, with a copy on another.
fn map_with_copy(r: &mut Replica, job: JobId, first: u64, count: u64, worker: u64, copy: u64) {
    let lease = r.grant(job, 0, first, count, worker).unwrap();
    let incarnation = r.state.workers.get(&WorkerId(copy)).map_or(0, |w| w.hello.incarnation);
    let report = Report { copy_worker: copy, copy_incarnation: incarnation, ..r.full_report(lease) };
    r.report(worker, report);
}

fn places(r: &Replica, job: JobId, task: u64) -> (u64, u64) {
    match r.state.jobs[&job].stages[0].state_of(task) {
        Some(TaskState::Accepted { worker, copy, .. }) => (worker.0, copy.0),
        other => panic!("task {task} is {other:?}"),
    }
}

fn lose(r: &mut Replica, worker: u64) -> Vec<Event> {
    let session = r.state.workers[&WorkerId(worker)].session.0;
    r.apply_all(vec![Command::LoseWorker(LoseWorker { worker, session, reason: String::new() })]).events
}

#[test]
fn the_loss_of_one_holder_costs_nothing() {
    let (mut r, job) = with_copies();
    map_with_copy(&mut r, job, 0, 2, 7, 8);
    map_with_copy(&mut r, job, 2, 2, 8, 9);
    let events = lose(&mut r, 8);
    assert_eq!((places(&r, job, 0), places(&r, job, 2)), ((7, 0), (9, 0)), "what is left is read where it lies");
    assert!(events.contains(&Event::CopiesLeft { job, worker: WorkerId(8), tasks: 4 }), "{events:?}");
    let stage = &r.state.jobs[&job].stages[0];
    assert_eq!((stage.accepted(), stage.generation), (4, 1), "nothing runs again");
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
}

#[test]
fn a_copy_made_again_counts_for_what_lies_there_alone() {
    let (mut r, job) = with_copies();
    map_with_copy(&mut r, job, 0, 2, 7, 8);
    map_with_copy(&mut r, job, 2, 2, 8, 9);
    lose(&mut r, 8);
    let session = r.state.workers[&WorkerId(7)].session.0;
    let incarnation = r.state.workers[&WorkerId(9)].hello.incarnation;
    let record = |copy_worker, copy_incarnation, generation, first_task, task_count| {
        let tasks = vec![TaskPiece { first_task, task_count }];
        let copied = CopiedAgain { job: job.0, stage: 0, generation, tasks, copy_worker, copy_incarnation };
        Command::RecordCopies(RecordCopies { worker: 7, session, copied: Some(copied) })
    };
    for nothing in [record(9, incarnation + 1, 1, 0, 4), record(9, incarnation, 2, 0, 4), record(7, 0, 1, 0, 4), record(8, 0, 1, 0, 4)] {
        r.apply(nothing);
        assert_eq!((places(&r, job, 0), places(&r, job, 2)), ((7, 0), (9, 0)));
    }
    r.apply(record(9, incarnation, 1, 0, 9));
    assert_eq!(places(&r, job, 0), (7, 0), "a range that the stage does not have");
    r.apply(record(9, incarnation, 1, 0, 4));
    assert_eq!((places(&r, job, 0), places(&r, job, 1), places(&r, job, 2)), ((7, 9), (7, 9), (9, 0)), "what it does not hold is not its");
    assert_eq!(r.state.jobs[&job].lone_copies(0).into_keys().collect::<Vec<_>>(), [(WorkerId(9), 1)]);
    lose(&mut r, 7);
    assert_eq!((places(&r, job, 0), r.state.jobs[&job].stages[0].generation), ((9, 0), 1), "nothing runs again");
}

#[test]
fn the_loss_of_both_holders_costs_what_both_held() {
    let (mut r, job) = with_copies();
    map_with_copy(&mut r, job, 0, 2, 7, 8);
    map_with_copy(&mut r, job, 2, 2, 8, 9);
    lose(&mut r, 7);
    let events = lose(&mut r, 8);
    assert!(events.contains(&Event::Invalidated { job, worker: WorkerId(8), tasks: 2 }), "{events:?}");
    let stage = &r.state.jobs[&job].stages[0];
    assert_eq!((stage.ready(), stage.accepted(), stage.generation), (2, 2, 2));
    assert_eq!(places(&r, job, 2), (9, 0));
    r.run();
    assert_eq!(r.tally(job), 6, "made again, counted once");
}

#[test]
fn a_copy_counts_only_with_the_process_that_confirmed_it() {
    let (mut r, job) = with_copies();
    let lease = r.grant(job, 0, 0, 1, 7).unwrap();
    let report = Report { copy_worker: 8, copy_incarnation: r.state.workers[&WorkerId(8)].hello.incarnation, ..r.full_report(lease) };
    r.register(8, vec![device(0, "cpu", 1)]);
    r.report(7, report);
    assert_eq!(places(&r, job, 0), (7, 0), "its successor has nothing");
    for nobody in [7, 99] {
        let task = if nobody == 7 { 1 } else { 2 };
        map_with_copy(&mut r, job, task, 1, 7, nobody);
        assert_eq!(places(&r, job, task), (7, 0), "worker {nobody} is no second place");
    }
    r.lose(9);
    map_with_copy(&mut r, job, 3, 1, 7, 9);
    assert_eq!(places(&r, job, 3), (7, 0), "nor is a lost one");
    let copies = &r.state.job_view(job).unwrap().shuffle_copies;
    assert_eq!(copies, &[ShuffleCopies { stage: "map".into(), two_places: 0, one_place: 4 }]);
}

#[test]
fn without_copies_exactly_what_was_lost_runs_again() {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(map_reduce(10, 2));
    for (first, count, worker) in [(0, 4, 7), (4, 3, 8), (7, 3, 7)] {
        let lease = r.grant(job, 0, first, count, worker).unwrap();
        r.finish(lease);
    }
    lose(&mut r, 8);
    let stage = &r.state.jobs[&job].stages[0];
    let ready: Vec<_> = stage.free_intervals(Timestamp(u64::MAX)).map(|range| (range.first, range.end)).collect();
    assert_eq!((ready, stage.generation), (vec![(4, 7)], 2));
}

/// A job of two map tasks on worker 7 and two parts, decided. Each part has a staged name of its own.
fn decided(max_attempts: u32) -> (Replica, JobId) {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(JobSpec { max_attempts, ..map_reduce(2, 2) });
    let lease = r.grant(job, 0, 0, 2, 7).unwrap();
    r.finish(lease);
    reduce(&mut r, job, 0, 2, "first");
    (r, job)
}

fn reduce(r: &mut Replica, job: JobId, first: u64, count: u64, name: &str) {
    let lease = r.grant(job, 1, first, count, 8).unwrap();
    let mut report = r.full_report(lease);
    report.parts.iter_mut().for_each(|part| part.staged_name = format!("{name}-{}", part.partition));
    r.report(8, report);
}

fn lost(job: JobId, names: &[(u32, &str)]) -> Command {
    let part = |(partition, name): &(u32, &str)| LostPart { partition: *partition, staged_name: (*name).into(), reason: "gone".into() };
    Command::RemakeParts(RemakeParts { job: job.0, parts: names.iter().map(part).collect() })
}

#[test]
fn a_decided_part_that_is_lost_is_made_again_and_the_others_stay() {
    let (mut r, job) = decided(0);
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    let events = r.apply_all(vec![lost(job, &[(1, "first-1"), (1, "first-1")])]).events;
    assert_eq!(events, [Event::PartsLost { job, parts: 1 }]);
    let state = &r.state.jobs[&job];
    assert_eq!((&state.phase, state.parts.keys().copied().collect::<Vec<_>>()), (&Phase::Running, vec![0]));
    let reduce_stage = &state.stages[1];
    assert_eq!((reduce_stage.ready(), reduce_stage.accepted(), reduce_stage.generation, reduce_stage.open), (1, 1, 2, true));
    assert_eq!(state.stages[0].accepted(), 2, "its input is still there");
    reduce(&mut r, job, 1, 1, "second");
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert_eq!(r.state.jobs[&job].parts[&1].staged_name, "second-1");
    r.apply(lost(job, &[(1, "first-1")]));
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing, "a verdict on the part before it changes nothing");
    r.apply(Command::FinishPublish(FinishPublish { job: job.0, error: String::new() }));
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
    r.apply(lost(job, &[(1, "second-1")]));
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }), "final is final");
}

#[test]
fn a_lost_part_whose_input_went_meanwhile_takes_its_input_along() {
    let (mut r, job) = decided(0);
    lose(&mut r, 7);
    assert_eq!(r.state.jobs[&job].stages[0].accepted(), 2, "nobody needs it while the job is published");
    let events = r.apply_all(vec![lost(job, &[(0, "first-0")])]).events;
    assert!(events.contains(&Event::Invalidated { job, worker: WorkerId(7), tasks: 2 }), "{events:?}");
    assert_eq!((r.state.jobs[&job].stages[0].ready(), r.state.jobs[&job].stages[1].open), (2, false));
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert_eq!(r.tally(job), 1);
}

#[test]
fn a_part_that_is_lost_again_and_again_fails_the_job_with_its_reason() {
    let (mut r, job) = decided(2);
    r.apply(lost(job, &[(0, "first-0")]));
    reduce(&mut r, job, 0, 1, "second");
    r.apply(lost(job, &[(0, "second-0")]));
    let Phase::Failed { cause, .. } = &r.state.jobs[&job].phase else { panic!("{:?}", r.state.jobs[&job].phase) };
    assert_eq!(cause, "publishing: part 0 was lost 2 times before it could be published: gone");
}

#[test]
fn going_back_from_a_decision_without_a_lost_part_is_seen() {
    let (r, job) = decided(0);
    let mut reopened = r.state.clone();
    reopened.jobs.get_mut(&job).unwrap().phase = Phase::Running;
    assert!(raftwerk_core::invariants::moves_only_forward(&r.state, &reopened).is_err());
}

#[test]
fn copies_survive_the_snapshot_and_bad_wishes_are_refused() {
    let (mut r, job) = with_copies();
    // `Replica::apply_all` compares state and restored snapshot after every entry.
    map_with_copy(&mut r, job, 0, 4, 7, 8);
    assert_eq!(places(&r, job, 3), (7, 8));
    let mut three = map_reduce(4, 2);
    three.stages[0].shuffle_replicas = 3;
    let mut last = map_reduce(4, 2);
    last.stages[1].shuffle_replicas = 2;
    for spec in [three, last] {
        let outcome = r.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() }));
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
}
