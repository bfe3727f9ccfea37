//! Jobs with rounds: the reduce task of a round decides it once, and what is late of a round counts in no other.

mod support;

use raftwerk_core::rounds::{MAX_ROUNDS, MAX_STATE_BYTES};
use raftwerk_core::{Event, JobId, LeaseId, Outcome, Phase, State, WorkerId};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

fn in_rounds(tasks: u64, max: u32) -> JobSpec {
    JobSpec { rounds: Some(Rounds { max, all: false }), ..map_reduce(tasks, 1) }
}

/// A replica with two workers and a job of four map tasks.
fn begun(max: u32) -> (Replica, JobId) {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(in_rounds(4, max));
    (r, job)
}

fn round_end(r: &Replica, job: JobId, state: &[u8], converged: bool) -> Option<RoundEnd> {
    let job = &r.state.jobs[&job];
    let round = job.rounds.as_ref().unwrap().current(&job.spec);
    let measures = vec![Param { name: "change".into(), value: format!("{}", 10 / round) }];
    Some(RoundEnd { round, state: state.to_vec().into(), converged, measures })
}

/// Runs the map tasks of a round.
fn map(r: &mut Replica, job: JobId, worker: u64) {
    let lease = r.grant(job, 0, 0, 4, worker).expect("a lease of the map stage");
    r.finish(lease);
}

fn reduce(r: &mut Replica, job: JobId, worker: u64, state: &[u8], converged: bool) -> Vec<Event> {
    let lease = r.grant(job, 1, 0, 1, worker).expect("a lease of the reduce task");
    let report = Report { round_end: round_end(r, job, state, converged), ..r.full_report(lease) };
    tell(r, worker, report)
}

fn tell(r: &mut Replica, worker: u64, report: Report) -> Vec<Event> {
    r.apply_all(vec![Command::ReportResults(ReportResults { worker, session: 0, reports: vec![report] })]).events
}

fn rounds(r: &Replica, job: JobId) -> (u32, usize, Vec<u8>) {
    let job = &r.state.jobs[&job];
    let rounds = job.rounds.as_ref().unwrap();
    (rounds.current(&job.spec), rounds.ended.len(), rounds.state.to_vec())
}

#[test]
fn what_a_round_leaves_is_known_to_the_next_and_the_last_one_decides() {
    let (mut r, job) = begun(3);
    assert_eq!(rounds(&r, job), (1, 0, vec![]));
    map(&mut r, job, 7);
    let events = reduce(&mut r, job, 8, b"one", false);
    assert!(events.contains(&Event::RoundEnded { job, round: 1, last: false }), "{events:?}");
    assert_eq!(rounds(&r, job), (2, 1, b"one".to_vec()));
    let stages = &r.state.jobs[&job].stages;
    assert_eq!((stages[0].ready(), stages[1].ready(), stages[0].open, stages[1].open), (4, 1, true, false));
    assert_eq!((stages[0].generation, stages[1].generation, stages[0].tallies[0]), (2, 2, 0));
    map(&mut r, job, 8);
    assert_eq!(r.tally(job), 6, "each round counts for itself");
    reduce(&mut r, job, 7, b"two", false);
    let info = r.state.jobs[&job].rounds.as_ref().unwrap().info(&r.state.jobs[&job].spec, 0);
    assert_eq!((info.number, info.last, info.first_generation, &info.state[..]), (3, true, 3, &b"two"[..]));
    map(&mut r, job, 7);
    let events = reduce(&mut r, job, 7, b"three", false);
    assert!(events.contains(&Event::RoundEnded { job, round: 3, last: true }) && events.contains(&Event::PublishDecided { job }));
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    assert_eq!(r.tally(job), 6);
    let view = r.state.job_view(job).unwrap().rounds.unwrap();
    assert_eq!((view.current, view.max, view.ended.len(), view.ended[2].measures[0].value.as_str()), (3, 3, 3, "3"));
    assert!(view.ended.windows(2).all(|w| w[0].ended_at_ms <= w[1].began_at_ms));
}

#[test]
fn a_round_that_changes_nothing_is_the_last_unless_all_are_wanted() {
    for (all, phase) in [(false, Phase::Publishing), (true, Phase::Running)] {
        let mut r = Replica::new();
        r.register(7, vec![device(0, "cpu", 1)]);
        let job = r.submit(JobSpec { rounds: Some(Rounds { max: 9, all }), ..map_reduce(4, 1) });
        map(&mut r, job, 7);
        reduce(&mut r, job, 7, b"x", true);
        assert_eq!(r.state.jobs[&job].phase, phase);
        assert_eq!(rounds(&r, job).0, if all { 2 } else { 1 });
    }
}

#[test]
fn what_is_late_of_a_round_counts_in_no_other() {
    let (mut r, job) = begun(5);
    map(&mut r, job, 7);
    // Two leases of the reduce task, and the shuffle data of the round is lost while they run.
    let first = r.grant(job, 1, 0, 1, 8).unwrap();
    r.register(9, vec![device(0, "cpu", 1)]);
    let second = r.speculate(job, 1, 0, 1, 9).unwrap();
    r.lose(7);
    let again = r.grant(job, 0, 0, 2, 9).unwrap();
    let late_map = r.full_report(again);
    let late_reduce = Report { round_end: round_end(&r, job, b"late", true), ..r.full_report(second) };
    let winner = Report { round_end: round_end(&r, job, b"won", false), ..r.full_report(first) };
    let events = tell(&mut r, 8, winner);
    let ended: Vec<LeaseId> = events.iter().filter_map(|e| if let Event::LeaseEnded { id, .. } = e { Some(*id) } else { None }).collect();
    assert!(ended.contains(&second) && ended.contains(&again) && r.state.leases.is_empty(), "{ended:?}");
    assert_eq!(rounds(&r, job), (2, 1, b"won".to_vec()));
    tell(&mut r, 9, late_map);
    tell(&mut r, 9, late_reduce);
    assert_eq!(rounds(&r, job), (2, 1, b"won".to_vec()));
    let stages = &r.state.jobs[&job].stages;
    assert_eq!((stages[0].accepted(), stages[1].accepted(), stages[0].fenced, stages[1].fenced), (0, 0, 2, 1));
}

#[test]
fn shuffle_data_of_a_round_that_has_ended_may_be_lost() {
    let (mut r, job) = begun(5);
    map(&mut r, job, 7);
    reduce(&mut r, job, 8, b"one", false);
    let generation = r.state.jobs[&job].stages[0].generation;
    r.lose(7);
    assert_eq!(r.state.jobs[&job].stages[0].generation, generation, "nothing is made again");
    map(&mut r, job, 8);
    r.register(9, vec![device(0, "cpu", 1)]);
    r.lose(8);
    assert_eq!(r.state.jobs[&job].stages[0].ready(), 4, "of the round under way it is");
    assert_eq!(rounds(&r, job), (2, 1, b"one".to_vec()));
    map(&mut r, job, 9);
    reduce(&mut r, job, 9, b"two", true);
    assert_eq!((r.state.jobs[&job].phase.clone(), r.tally(job)), (Phase::Publishing, 6));
}

#[test]
fn attempts_are_charged_by_the_round() {
    let (mut r, job) = begun(5);
    for _ in 0..3 {
        let lease = r.grant(job, 0, 0, 4, 7).unwrap();
        r.fail(lease, FailureClass::Task, "boom");
        r.pause_ms = 60_000;
        map(&mut r, job, 7);
        reduce(&mut r, job, 7, b"", false);
    }
    assert_eq!((r.state.jobs[&job].phase.clone(), rounds(&r, job).0), (Phase::Running, 4));
}

#[test]
fn a_part_that_was_lost_is_made_again_and_the_round_stays_decided() {
    let (mut r, job) = begun(9);
    map(&mut r, job, 7);
    reduce(&mut r, job, 7, b"one", false);
    map(&mut r, job, 7);
    reduce(&mut r, job, 7, b"two", true);
    assert_eq!(r.state.jobs[&job].phase, Phase::Publishing);
    let parts = vec![LostPart { partition: 0, reason: "gone".into(), ..LostPart::default() }];
    r.apply(Command::RemakeParts(RemakeParts { job: job.0, parts }));
    let of = &r.state.jobs[&job];
    let info = of.rounds.as_ref().unwrap().info(&of.spec, 1);
    assert_eq!((of.phase.clone(), info.number, info.last, &info.state[..]), (Phase::Running, 2, true, &b"one"[..]), "the same round again");
    r.pause_ms = 60_000;
    let lease = r.grant(job, 1, 0, 1, 8).expect("the task is ready again");
    let report = r.full_report(lease);
    tell(&mut r, 8, Report { round_end: None, ..report });
    assert_eq!((r.state.jobs[&job].phase.clone(), rounds(&r, job).1), (Phase::Publishing, 2));
}

#[test]
fn a_reduce_task_that_does_not_say_how_its_round_ended_fails_the_job() {
    let long = |name: usize, value: usize| vec![Param { name: "n".repeat(name), value: "v".repeat(value) }];
    let sound = RoundEnd { round: 1, ..RoundEnd::default() };
    let bad = [
        None,
        Some(RoundEnd { round: 2, ..RoundEnd::default() }),
        Some(RoundEnd { state: vec![0; MAX_STATE_BYTES + 1].into(), ..sound.clone() }),
        Some(RoundEnd { measures: vec![Param::default(); 9], ..sound.clone() }),
        Some(RoundEnd { measures: long(65, 0), ..sound.clone() }),
        Some(RoundEnd { measures: long(0, 65), ..sound }),
    ];
    for end in bad {
        let (mut r, job) = begun(5);
        map(&mut r, job, 7);
        let lease = r.grant(job, 1, 0, 1, 7).unwrap();
        let report = Report { round_end: end.clone(), ..r.full_report(lease) };
        tell(&mut r, 7, report);
        assert!(r.state.jobs[&job].phase.cause().starts_with("round 1: the reduce task"), "{end:?}: {:?}", r.state.jobs[&job].phase);
    }
}

#[test]
fn a_spec_whose_rounds_cannot_be_run_is_refused_with_the_reason() {
    let spec = in_rounds(4, 3);
    let cases = [
        (JobSpec { rounds: Some(Rounds { max: 0, all: false }), ..spec.clone() }, "rounds: max must be 1 to 1000, not 0"),
        (JobSpec { rounds: Some(Rounds { max: MAX_ROUNDS + 1, all: false }), ..spec.clone() }, "rounds: max must be"),
        (JobSpec { rounds: spec.rounds, ..map_only(4) }, "needs a reduce stage"),
        (JobSpec { rounds: spec.rounds, ..map_reduce(4, 2) }, "one reduce task"),
        (JobSpec { on_set_aside: OnSetAside::Continue.into(), ..spec.clone() }, "cannot go on without a task"),
    ];
    let mut r = Replica::new();
    for (spec, reason) in cases {
        match r.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() })) {
            Outcome::Refused(said) => assert!(said.contains(reason), "{said}"),
            other => panic!("{other:?}"),
        }
    }
    r.format = 3;
    match r.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() })) {
        Outcome::Refused(said) => assert!(said.contains("the job has rounds, which needs entries of format 4"), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_planner_runs_all_rounds_also_of_empty_input() {
    for tasks in [0, 1, 40] {
        let mut r = Replica::new();
        r.register(7, vec![device(0, "cpu", 2)]);
        r.register(8, vec![device(0, "cpu", 1)]);
        let job = r.submit(in_rounds(tasks, 6));
        r.run();
        assert_eq!((r.state.jobs[&job].phase.clone(), rounds(&r, job).1), (Phase::Publishing, 6));
        let restored = State::from_snapshot("test", &r.state.to_snapshot()).unwrap();
        assert_eq!(restored.jobs[&job].rounds, r.state.jobs[&job].rounds);
        r.apply(Command::FinishPublish(FinishPublish { job: job.0, error: String::new() }));
        assert_eq!(rounds(&r, job).2, b"", "nobody reads it any more");
        assert!(r.state.leases_of(WorkerId(7)).next().is_none());
    }
}
