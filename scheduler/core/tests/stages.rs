//! Jobs of more than two stages: what opens when, what is lost with a worker, and what has to be made again for it.

mod support;

use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_core::stage::TaskState;
use raftwerk_core::{JobId, Outcome, Phase, WorkerId, spec};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::*;
use support::*;

const MAP: u32 = 0;
const REDUCE: u32 = 1;
const AGAIN: u32 = 2;
const OTHER: u32 = 3;
const JOIN: u32 = 4;

fn begun() -> (Replica, JobId) {
    let mut r = Replica::new();
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(joined(4, 2, 3));
    (r, job)
}

fn open(r: &Replica, job: JobId) -> Vec<usize> {
    r.state.jobs[&job].stages.iter().enumerate().filter(|(_, stage)| stage.open).map(|(index, _)| index).collect()
}

/// Runs all tasks of a stage that are free, on one worker.
fn run(r: &mut Replica, job: JobId, stage: u32, worker: u64) {
    let free: Vec<_> = r.state.jobs[&job].stages[stage as usize].free_intervals(raftwerk_core::Timestamp(u64::MAX)).collect();
    for range in free {
        let lease = r.grant(job, stage, range.first, range.count(), worker).expect("a lease");
        r.finish(lease);
    }
}

fn ready(r: &Replica, job: JobId) -> Vec<u64> {
    r.state.jobs[&job].stages.iter().map(|stage| stage.free()).collect()
}

fn generations(r: &Replica, job: JobId) -> Vec<u32> {
    r.state.jobs[&job].stages.iter().map(|stage| stage.generation).collect()
}

#[test]
fn a_stage_opens_when_all_that_it_reads_is_there_and_roots_run_beside_each_other() {
    let (mut r, job) = begun();
    let tasks: Vec<u64> = r.state.jobs[&job].stages.iter().map(|stage| stage.tasks().len()).collect();
    assert_eq!(tasks, [4, 2, 2, 4, 3], "a task for each partition, or for each part");
    assert_eq!(open(&r, job), [0, 3]);
    run(&mut r, job, MAP, 7);
    assert_eq!(open(&r, job), [1, 3]);
    run(&mut r, job, REDUCE, 8);
    run(&mut r, job, AGAIN, 8);
    assert_eq!(open(&r, job), [3], "a join waits for both sides");
    assert_eq!(r.grant(job, JOIN, 0, 1, 7), None);
    run(&mut r, job, OTHER, 9);
    assert_eq!(open(&r, job), [4]);
    run(&mut r, job, JOIN, 7);
    let done = &r.state.jobs[&job];
    assert_eq!((done.phase.clone(), done.parts.len()), (Phase::Publishing, 3), "parts of the last stage alone are parts of the output");
    let held = |stage: usize| match done.stages[stage].state_of(0) {
        Some(TaskState::Accepted { worker, .. }) => worker,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        [0, 1, 2, 4].map(held),
        [WorkerId(7), WorkerId(8), WorkerId(8), WorkerId(0)],
        "parts between stages lie where they were made"
    );
}

#[test]
fn every_stage_is_planned_and_the_job_ends() {
    let (mut r, job) = begun();
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert_eq!(r.tally(job), 6);
}

#[test]
fn a_lost_worker_makes_again_what_was_lost_and_what_that_was_made_from() {
    let (mut r, job) = begun();
    run(&mut r, job, MAP, 7);
    run(&mut r, job, OTHER, 9);
    run(&mut r, job, REDUCE, 8);
    // Its shuffle data is needed no more, so nothing runs again, but it is known to be gone.
    r.lose(7);
    assert_eq!((ready(&r, job), open(&r, job)), (vec![0, 0, 2, 0, 3], vec![2]));
    // Now the parts that were made of it are lost as well.
    r.lose(8);
    assert_eq!(ready(&r, job), [4, 2, 2, 0, 3]);
    assert_eq!(open(&r, job), [0]);
    assert_eq!(generations(&r, job), [2, 2, 1, 1, 1]);
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert_eq!(r.tally(job), 6, "what was counted is not counted twice");
}

#[test]
fn what_nobody_reads_any_more_is_not_made_again() {
    let (mut r, job) = begun();
    run(&mut r, job, MAP, 7);
    run(&mut r, job, OTHER, 9);
    run(&mut r, job, REDUCE, 7);
    run(&mut r, job, AGAIN, 8);
    let lease = r.grant(job, JOIN, 0, 1, 9).unwrap();
    r.lose(7);
    assert_eq!((ready(&r, job), open(&r, job)), (vec![0, 0, 0, 0, 2], vec![4]));
    r.finish(lease);
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
}

#[test]
fn work_that_came_to_nothing_is_left_alone_when_its_reader_has_ended_all_the_same() {
    let (mut r, job) = begun();
    run(&mut r, job, OTHER, 9);
    run(&mut r, job, MAP, 7);
    let reduce = r.grant(job, REDUCE, 0, 2, 8).unwrap();
    r.lose(7);
    assert_eq!(open(&r, job), [0], "the stage that was being read is made again");
    // It had read all of it in time.
    r.finish(reduce);
    assert_eq!((ready(&r, job), open(&r, job)), (vec![4, 0, 2, 0, 3], vec![2]), "nobody reads the first stage now");
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert_eq!(r.state.jobs[&job].stages[0].accepted(), 0, "and it was not run for nothing");
}

#[test]
fn a_lost_part_of_the_output_brings_back_whatever_it_needs() {
    let (mut r, job) = begun();
    for (stage, worker) in [(MAP, 7), (OTHER, 7), (REDUCE, 7), (AGAIN, 8), (JOIN, 9)] {
        run(&mut r, job, stage, worker);
    }
    r.lose(7);
    r.lose(8);
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    let lost = LostPart { partition: 1, staged_name: String::new(), reason: "is missing".into() };
    r.apply(Command::RemakeParts(RemakeParts { job: job.0, parts: vec![lost] }));
    assert_eq!((ready(&r, job), open(&r, job)), (vec![4, 2, 2, 4, 1], vec![0, 3]));
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
}

#[test]
fn parts_have_second_copies_as_any_shuffle_data_has() {
    let mut r = Replica::new();
    for worker in [7, 8, 9] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let mut spec = joined(4, 2, 3);
    spec.stages[1].shuffle_replicas = 2;
    let job = r.submit(spec);
    run(&mut r, job, MAP, 7);
    let lease = r.grant(job, REDUCE, 0, 2, 8).unwrap();
    let incarnation = r.state.workers[&WorkerId(9)].hello.incarnation;
    let report = Report { copy_worker: 9, copy_incarnation: incarnation, ..r.full_report(lease) };
    r.report(8, report);
    r.lose(7);
    r.lose(8);
    assert_eq!(ready(&r, job)[..3], [0, 0, 2], "the copies are read");
    r.lose(9);
    assert_eq!(ready(&r, job)[..3], [4, 2, 2]);
}

fn refusal(change: impl FnOnce(&mut JobSpec)) -> String {
    let mut job = joined(4, 2, 3);
    change(&mut job);
    spec::check(&job).expect_err("refused").0
}

fn reads(job: &mut JobSpec, stage: u32, place: usize, from: &str) {
    job.stages[stage as usize].inputs[place].source = Some(Source::Stage(StageOutput { stage: from.into() }));
}

#[test]
fn graphs_that_cannot_run_are_refused() {
    assert_eq!(spec::check(&joined(4, 2, 3)), Ok(()));
    assert!(refusal(|j| reads(j, AGAIN, 0, "both")).contains("stage 'again' reads stage 'both', which is not an earlier stage"));
    assert!(refusal(|j| reads(j, AGAIN, 0, "again")).contains("not an earlier stage"));
    assert!(refusal(|j| reads(j, AGAIN, 0, "map")).contains("reads a shuffle, so kernel 'count' must be a reduce kernel"));
    assert!(refusal(|j| reads(j, JOIN, 0, "other")).contains("joins stage 'other' with itself"));
    assert!(refusal(|j| reads(j, JOIN, 1, "reduce")).contains("put a stage with a map kernel between them"));
    assert!(refusal(|j| j.stages[3].partitions = 4).contains("which has 3 partitions, with stage 'other', which has 4"));
    assert!(refusal(|j| j.stages[1].partitions = 3).contains("makes 2 parts for another stage, and says that it has 3 partitions"));
    assert!(refusal(|j| j.stages[4].partitions = 3).contains("is the last one and cannot have partitions"));
    assert!(refusal(|j| drop(j.stages[4].inputs.remove(0))).contains("nobody reads stage 'again'"));
    let third = joined(4, 2, 3).stages[4].inputs[0].clone();
    assert!(refusal(|j| j.stages[4].inputs.push(third)).contains("reads 3 stages"));
    assert!(refusal(|j| j.rounds = Some(Rounds { max: 2, all: false })).contains("one map and one reduce stage, not 5 stages"));
    assert!(refusal(|j| j.stages.truncate(3)).contains("is the last one and cannot have partitions"));
    let root = joined(4, 2, 3).stages[0].clone();
    assert!(refusal(|j| j.stages.extend(vec![root; 12])).contains("the job has 17 stages"));
}

#[test]
fn the_last_stage_may_be_a_map_stage_with_tallies_alone() {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 1)]);
    let mut spec = joined(4, 2, 0);
    spec.stages.truncate(3);
    assert!(spec::check(&spec).unwrap_err().0.contains("only a job with a reduce stage writes an output"));
    spec.output = None;
    let job = r.submit(spec);
    r.run();
    assert!(matches!(r.state.jobs[&job].phase, Phase::Done { .. }));
}

#[test]
fn older_entries_know_two_stages_and_older_workers_get_no_stage_beyond_them() {
    let mut r = Replica::new();
    let old = Hello { stage_graphs: false, ..hello("old", 1, vec![device(0, "cpu", 1)]) };
    r.apply(Command::RegisterWorker(RegisterWorker { worker: 7, hello: Some(old) }));
    r.format = ENTRY_FORMAT - 1;
    let submit = |spec| Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() });
    match r.apply(submit(joined(4, 2, 3))) {
        Outcome::Refused(reason) => {
            assert!(reason.contains("the job has more than two stages, which needs entries of format 4"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    r.format = ENTRY_FORMAT;
    let job = r.submit(joined(4, 2, 3));
    assert!(r.state.waits_for(job).is_empty(), "the old worker can run the first stage");
    run(&mut r, job, MAP, 7);
    run(&mut r, job, OTHER, 7);
    assert_eq!(r.grant(job, REDUCE, 0, 2, 7), None, "it would keep the parts to itself");
    assert!(r.plan().is_empty());
    let waits = r.state.waits_for(job);
    assert!(waits.contains("is of a worker whose release does not know jobs of more than two stages"), "{waits}");
    r.register(8, vec![device(0, "cpu", 1)]);
    r.run();
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
}

#[test]
fn a_job_fails_when_one_of_its_open_stages_can_run_nowhere() {
    let (mut r, job) = begun();
    // Both roots are open; every worker turns out not to see the input of the second.
    for worker in [7, 8, 9] {
        let lease = r.grant(job, OTHER, 0, 1, worker).unwrap();
        r.fail(lease, FailureClass::Worker, "cannot read /other");
    }
    let Phase::Failed { cause, .. } = &r.state.jobs[&job].phase else { panic!("{:?}", r.state.jobs[&job].phase) };
    assert!(cause.contains("no worker is left that can run it"), "{cause}");
}
