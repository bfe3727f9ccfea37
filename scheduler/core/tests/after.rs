//! Jobs that start after others: when, and what becomes of them when the others do not end well.

mod support;

use raftwerk_core::apply::{ENTRY_FORMAT, RETENTION_MS};
use raftwerk_core::{Event, JobId, Outcome, Phase};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use support::*;

fn cluster() -> Replica {
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 2)]);
    r
}

fn following(jobs: &[&str], any: bool) -> JobSpec {
    JobSpec { after: Some(StartAfter { jobs: jobs.iter().map(|job| (*job).to_owned()).collect(), any }), ..map_only(4) }
}

fn submit(r: &mut Replica, spec: JobSpec, key: &str) -> Outcome {
    r.apply(Command::SubmitJob(SubmitJob { spec: Some(spec), idempotency_key: key.into(), ..SubmitJob::default() }))
}

fn phase(r: &Replica, job: JobId) -> Phase {
    r.state.jobs[&job].phase.clone()
}

#[test]
fn it_starts_with_the_entry_that_ends_the_last_of_the_others() {
    let mut r = cluster();
    let first = r.submit(map_only(4));
    assert!(matches!(submit(&mut r, map_reduce(4, 2), "nightly"), Outcome::Submitted { .. }));
    let second = JobId(2);
    let last = r.submit(following(&["1", "nightly"], false));
    assert_eq!(r.state.jobs[&last].spec.after.as_ref().unwrap().jobs, ["1", "2"], "the log has numbers");
    assert_eq!(r.state.waits_for(last), "it starts after jobs 1, 2");
    assert!(r.plan().iter().all(|p| p.job != Some(placement::Job::Id(last.0))));
    assert_eq!(r.grant(last, 0, 0, 1, 7), None);
    for (job, stage, count) in [(first, 0, 4), (second, 0, 4), (second, 1, 2)] {
        let lease = r.grant(job, stage, 0, count, 7).unwrap();
        r.finish(lease);
    }
    assert_eq!(r.state.waits_for(last), "it starts after job 2");
    assert_eq!(phase(&r, second), Phase::Publishing, "which is not done yet");
    r.apply(Command::FinishPublish(FinishPublish { job: second.0, error: String::new() }));
    assert!(r.state.jobs[&last].stages[0].open);
    r.run();
    assert!(matches!(phase(&r, last), Phase::Done { .. }));
}

#[test]
fn one_of_which_all_are_done_starts_at_once_with_its_first_tasks_in_the_same_entry_or_the_next() {
    let mut r = cluster();
    let first = r.submit(map_only(4));
    r.run();
    let spec = following(&["1"], false);
    assert_eq!(r.plan_with(&[(0, &spec)]), [], "whether the others have ended is known when it is applied");
    let job = r.submit(spec);
    assert!(matches!(phase(&r, first), Phase::Done { .. }) && r.state.jobs[&job].stages[0].open);
    let nothing = JobSpec { after: following(&["1"], false).after, ..map_only(0) };
    let job = r.submit(nothing);
    assert!(matches!(phase(&r, job), Phase::Done { .. }), "and one without tasks is done");
}

#[test]
fn it_fails_with_the_cause_when_one_of_the_others_does_not_end_well_and_so_do_those_behind_it() {
    let mut r = cluster();
    let first = r.submit(map_only(4));
    let second = r.submit(following(&["1"], false));
    let third = r.submit(following(&["2"], false));
    let whatever = r.submit(following(&["2"], true));
    let applied = r.apply_all(vec![Command::FailJob(FailJob { job: first.0, cause: "the disk is full".into() })]);
    let cause = |job| match phase(&r, job) {
        Phase::Failed { cause, .. } => cause,
        other => panic!("{other:?}"),
    };
    assert_eq!(cause(second), "it was to start after job 1, which failed: the disk is full");
    assert_eq!(cause(third), "it was to start after job 2, which failed: it was to start after job 1, which failed: the disk is full");
    assert_eq!((phase(&r, whatever), r.state.jobs[&whatever].stages[0].open), (Phase::Running, true), "it starts however they end");
    for job in [first, second, third] {
        assert!(applied.events.contains(&Event::JobEnded { job }), "{:?}", applied.events);
    }
    let cancelled = r.submit(map_only(4));
    let follower = r.submit(following(&[&cancelled.to_string()], false));
    r.apply(Command::CancelJob(CancelJob { job: cancelled.0 }));
    let Phase::Failed { cause, .. } = phase(&r, follower) else { panic!() };
    assert_eq!(cause, format!("it was to start after job {cancelled}, which was cancelled"));
}

#[test]
fn one_that_waits_can_be_cancelled_and_nobody_starts_it_afterwards() {
    let mut r = cluster();
    r.submit(map_only(4));
    let job = r.submit(following(&["1"], false));
    r.apply(Command::CancelJob(CancelJob { job: job.0 }));
    r.run();
    assert!(matches!(phase(&r, job), Phase::Cancelled { .. }));
}

#[test]
fn jobs_that_cannot_be_waited_for_are_named_at_submit() {
    let mut r = cluster();
    let mut refusal = |spec: JobSpec| match submit(&mut r, spec, "") {
        Outcome::NotFound(reason) => format!("not found: {reason}"),
        Outcome::Refused(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(following(&["9"], false)), "not found: after: there is no job 9");
    let said = refusal(following(&["nightly"], false));
    assert!(said.starts_with("not found: after: no job of namespace 'default' has the idempotency key 'nightly'"), "{said}");
    assert!(refusal(following(&[], false)).contains("after names 0 jobs; 1 to 100 are possible"));
    let failed = r.submit(map_only(4));
    r.apply(Command::FailJob(FailJob { job: failed.0, cause: "no".into() }));
    match submit(&mut r, following(&["1"], false), "") {
        Outcome::Precondition(reason) => {
            assert!(reason.contains("job 1 failed: no, so this one would never start") && reason.contains("--after-any"))
        }
        other => panic!("{other:?}"),
    }
    r.submit(following(&["1"], true));
    r.pause_ms = 2 * RETENTION_MS;
    r.apply(Command::Forget(Forget { jobs: vec![1], workers: vec![] }));
    match submit(&mut r, following(&["1"], true), "") {
        Outcome::NotFound(reason) => assert!(reason.contains("job 1 is forgotten, and nobody knows how it ended"), "{reason}"),
        other => panic!("{other:?}"),
    }
    r.format = ENTRY_FORMAT - 1;
    match submit(&mut r, following(&["2"], false), "") {
        Outcome::Refused(reason) => assert!(reason.contains("the job starts after others, which needs entries of format 4"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_long_chain_of_jobs_falls_at_once_and_takes_no_stack() {
    let mut state = cluster().state;
    let mut index = state.applied_index;
    let mut apply = |commands: Vec<Command>| {
        index += 1;
        let commands = commands.into_iter().map(|c| raftwerk_proto::v1::Command { command: Some(c) }).collect();
        state.apply(index, EntryBody { format: ENTRY_FORMAT, at_ms: 5_000 + index, commands }).expect("known commands")
    };
    let of = |spec| Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() });
    apply(vec![of(map_only(4))]);
    apply((1..3_000u32).map(|n| of(following(&[&n.to_string()], false))).collect());
    let applied = apply(vec![Command::CancelJob(CancelJob { job: 1 })]);
    assert_eq!(applied.events.iter().filter(|event| matches!(event, Event::JobEnded { .. })).count(), 3_000);
    let longest = state.jobs.values().map(|job| job.phase.cause().len()).max().unwrap();
    assert!(longest < 1200, "causes do not grow with the chain: {longest}");
    raftwerk_core::invariants::check(&state).unwrap();
}
