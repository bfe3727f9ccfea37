//! Copies of shuffle data, results that stay on workers, and the room for both.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::{JobId, WorkerId};
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::worker_message::Message as Up;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{ConnId, Effect, Input};

/// Who is asked to keep what.
/// A job whose result is to lie on two workers, made by the worker behind the connection that is returned.
fn with_a_part_on_workers(workers: u64) -> (Host, u64, Vec<Effect>) {
    let mut host = Host::new();
    (1..=workers).for_each(|n| drop(host.connect(n, 6 + n)));
    let output = OutputSpec { url: "worker:".into(), format: "csv".into(), copies: 2, ..OutputSpec::default() };
    host.submit(1, JobSpec { output: Some(output), ..one_reduce_task() });
    let effects = host.commit();
    let granted = sent(&effects).find_map(|(conn, m)| if let Down::Grants(g) = m { Some((conn, g.grants[0].clone())) } else { None });
    let (conn, grant) = granted.expect("nobody needs to look at a destination");
    let part = OutputPart { partition: 0, name: "part-00000.csv".into(), staged_name: "part.1".into(), ..OutputPart::default() };
    let mut report = Report { stage: 1, parts: vec![part], ..result(&grant, 1) };
    report.results[0].tallies.clear();
    host.up(conn, reports(report));
    let effects = host.commit();
    (host, conn, effects)
}

fn asked_to_keep(effects: &[Effect]) -> Vec<(u64, KeepParts)> {
    sent(effects).filter_map(|(conn, m)| if let Down::KeepParts(keep) = m { Some((conn, keep.clone())) } else { None }).collect()
}

fn kept(names: &[&str]) -> Up {
    let kept = names.iter().map(|name| PartName { partition: 0, staged_name: (*name).into() }).collect();
    Up::PartsKept(PartsKept { job: 1, kept, ..PartsKept::default() })
}

fn not_kept(gone_at: &[u64]) -> Up {
    let part = Some(PartName { partition: 0, staged_name: "part.1".into() });
    let failed = PartNotKept { part, gone_at: gone_at.to_vec(), reason: "No space left on device".into() };
    Up::PartsKept(PartsKept { job: 1, failed: vec![failed], ..PartsKept::default() })
}

#[test]
fn a_result_on_workers_is_done_when_another_worker_has_a_copy() {
    let (mut host, maker, effects) = with_a_part_on_workers(3);
    let asked = asked_to_keep(&effects);
    let [(first, keep)] = &asked[..] else { panic!("{asked:?}") };
    assert!(
        *first != maker && keep.parts[0].sources == [CopyTarget { worker: 6 + maker, address: format!("w{}:1", 6 + maker) }],
        "{keep:?}"
    );
    assert!(asked_to_keep(&host.wait(50)).is_empty(), "asked once");
    // It cannot; then the third one is asked.
    host.up(*first, not_kept(&[]));
    let asked = asked_to_keep(&host.wait(50));
    let second = asked[0].0;
    assert!(second != *first && second != maker, "{asked:?}");
    // A change of leader: the next one asks again.
    host.change_leader();
    for n in 1..=3 {
        host.connect(10 * n, 6 + n);
    }
    let again = asked_to_keep(&host.wait(50));
    assert_eq!(again.len(), 1, "{again:?}");
    host.up(again[0].0, kept(&["part.1"]));
    let effects = host.commit();
    assert!(host.state.jobs[&JobId(1)].phase.ended_at().is_some());
    let released: Vec<(u64, bool)> =
        sent(&effects)
            .filter_map(|(conn, m)| {
                if let Down::Release(release) = m { Some((conn, release.kept.iter().any(|k| k.names == ["part.1"]))) } else { None }
            })
            .collect();
    assert_eq!(released.iter().filter(|(_, keeps)| *keeps).count(), 2, "its keepers keep it: {released:?}");
    assert_eq!(released.len(), 3);
}

#[test]
fn a_part_that_is_gone_where_it_was_made_is_made_again() {
    let (mut host, maker, effects) = with_a_part_on_workers(2);
    let (other, _) = asked_to_keep(&effects).remove(0);
    host.up(other, not_kept(&[6 + maker]));
    let effects = host.wait(50);
    assert!(!grants(&effects).is_empty(), "its task runs again: {effects:?}");
    assert_eq!(host.state.jobs[&JobId(1)].stages[1].generation, 2);
}

/// What passes while everybody is heard.
fn for_a_while(host: &mut Host) -> Vec<Effect> {
    let moment = |_| {
        (1..=4).for_each(|conn| drop(host.up(conn, Up::Heartbeat(Heartbeat::default()))));
        host.wait(100)
    };
    (0..25).flat_map(moment).collect()
}

/// Who is asked whether what has.
fn asked_to_check(effects: &[Effect]) -> Vec<(u64, Vec<String>)> {
    let names = |check: &CheckParts| check.parts.iter().map(|part| part.staged_name.clone()).collect();
    sent(effects).filter_map(|(conn, m)| if let Down::CheckParts(check) = m { Some((conn, names(check))) } else { None }).collect()
}

fn missing() -> Up {
    let part = LostPart { partition: 0, staged_name: "part.1".into(), reason: "it is damaged".into() };
    Up::PartsMissing(PartsMissing { job: 1, parts: vec![part] })
}

fn holders(host: &Host) -> Vec<u64> {
    host.state.holders(&host.state.jobs[&JobId(1)].parts[&0]).map(|worker| worker.0 - 6).collect()
}

#[test]
fn a_worker_that_comes_is_asked_for_what_it_keeps_and_what_it_has_lost_is_copied_again() {
    let (mut host, maker, effects) = with_a_part_on_workers(3);
    let (second, _) = asked_to_keep(&effects).remove(0);
    host.up(second, kept(&["part.1"]));
    host.commit();
    let third = 6 - maker - second;
    // One of the keepers is of the former release, and says nothing.
    host.change_leader();
    for n in [maker, third] {
        host.connect(n, 6 + n);
    }
    let old = Hello { checks_parts: false, ..hello(6 + second) };
    host.input(Input::WorkerConnected { conn: ConnId(second), worker: WorkerId(6 + second), hello: old });
    host.commit();
    assert_eq!(asked_to_check(&for_a_while(&mut host)), [(maker, vec!["part.1".to_owned()])], "once, whoever keeps it");
    host.up(maker, missing());
    let mut effects = host.commit();
    assert_eq!(holders(&host), [second]);
    effects.extend(host.up(third, missing()));
    effects.extend(host.up(maker, missing()));
    assert!(host.proposed.is_none(), "nothing new");
    effects.extend(for_a_while(&mut host));
    let asked = asked_to_keep(&effects);
    let [(taker, keep)] = &asked[..] else { panic!("{asked:?}") };
    assert!(*taker != second && keep.parts[0].sources.iter().map(|s| s.worker).eq([6 + second]), "{asked:?}");
    host.up(*taker, kept(&["part.1"]));
    host.commit();
    assert_eq!(holders(&host).len(), 2);
    // Both have lost it: nobody can make another copy, and the record says so.
    for conn in [second, *taker] {
        host.up(conn, missing());
    }
    host.commit();
    assert!(holders(&host).is_empty() && asked_to_keep(&for_a_while(&mut host)).is_empty());
    // A keeper that is the only one and comes back with the part: somebody put it there.
    host.connect(10 + second, 6 + second);
    host.up(10 + second, kept(&["part.1"]));
    host.commit();
    assert_eq!(holders(&host), [second]);
}

#[test]
fn a_part_that_its_only_keeper_has_lost_before_the_end_is_made_again() {
    let (mut host, maker, effects) = with_a_part_on_workers(2);
    assert_eq!(asked_to_keep(&effects).len(), 1, "the other one has not answered");
    host.up(maker, missing());
    let effects = host.wait(50);
    assert!(!grants(&effects).is_empty(), "its task runs again: {effects:?}");
    assert_eq!(host.state.jobs[&JobId(1)].stages[1].generation, 2);
}

#[test]
fn a_copy_that_nobody_can_take_does_not_hold_the_job_for_ever() {
    let (mut host, maker, effects) = with_a_part_on_workers(2);
    let (other, _) = asked_to_keep(&effects).remove(0);
    host.up(other, not_kept(&[]));
    for _ in 0..100 {
        for (conn, _) in asked_to_keep(&host.wait(100)) {
            assert_ne!(conn, maker);
            host.up(conn, not_kept(&[]));
        }
        (1..=2).for_each(|conn| drop(host.up(conn, Up::Heartbeat(Heartbeat::default()))));
    }
    assert!(host.state.jobs[&JobId(1)].phase.ended_at().is_some(), "done with one copy");
    assert_eq!(host.state.jobs[&JobId(1)].parts[&0].worker, 6 + maker);
}

#[test]
fn a_job_waits_for_room_and_gets_it_or_fails_when_nothing_could_make_some() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.up(1, heartbeat("64 KiB of 64 KiB"));
    host.submit(1, with_shuffle());
    assert!(grants(&host.commit()).is_empty(), "the worker is full");
    host.submit(2, numbers(1));
    let effects = host.commit();
    let other = grants(&effects).remove(0).grants.remove(0);
    assert_eq!(other.job, 2, "a job that leaves nothing is not concerned");
    host.up(1, heartbeat(""));
    let granted = grants(&host.wait(50)).remove(0).grants.remove(0);
    assert_eq!(granted.job, 1);
    // It was full all the same, and says so with the task that it did not run.
    let failure = TaskFailure { task_count: 1, class: FailureClass::Full.into(), message: "full".into(), ..TaskFailure::default() };
    host.up(1, reports(Report { results: vec![], failures: vec![failure], ..result(&granted, 1) }));
    host.commit();
    assert!((0..10).all(|_| grants(&host.wait(50)).is_empty()), "not before the worker says that it has room");
    let stage = &host.state.jobs[&JobId(1)].stages[0];
    assert_eq!((stage.failed_attempts, stage.attempts.iter().map(|(_, charged)| charged).sum::<u32>()), (0, 0));
    // While another job runs, its end may make room.
    let full = |host: &mut Host| {
        for _ in 0..400 {
            host.up(1, heartbeat("64 KiB of 64 KiB"));
            host.wait(100);
        }
    };
    full(&mut host);
    assert!(host.state.jobs[&JobId(1)].is_active());
    host.up(1, reports(result(&other, 2)));
    host.commit();
    full(&mut host);
    let job = &host.state.jobs[&JobId(1)];
    let raftwerk_core::Phase::Failed { cause, .. } = &job.phase else { panic!("{:?}", job.phase) };
    assert!(cause.contains("worker w7: 64 KiB of 64 KiB"), "{cause}");
}

/// Who is asked to copy its shuffle data again.
fn asked_to_copy(effects: &[Effect]) -> Vec<(u64, CopyAgain)> {
    sent(effects).filter_map(|(conn, m)| if let Down::CopyAgain(copy) = m { Some((conn, copy.clone())) } else { None }).collect()
}

#[test]
fn what_lies_at_one_worker_only_is_copied_again() {
    let mut host = Host::new();
    (1..=3).for_each(|n| drop(host.connect(n, 6 + n)));
    let mut spec = with_shuffle();
    spec.stages[0].shuffle_replicas = 2;
    host.submit(1, spec);
    let effects = host.commit();
    let granted = sent(&effects).find_map(|(conn, m)| if let Down::Grants(g) = m { Some((conn, g.grants[0].clone())) } else { None });
    let (holder, grant) = granted.expect("the map task is granted");
    let lost = grant.copy_to[0].worker - 6;
    host.up(holder, reports(Report { copy_worker: 6 + lost, copy_incarnation: 6 + lost, ..result(&grant, 1) }));
    host.commit();
    assert!((0..20).all(|_| asked_to_copy(&host.wait(50)).is_empty()), "it lies at two workers");
    host.input(Input::WorkerDisconnected { conn: ConnId(lost) });
    let asked: Vec<_> = (0..40).flat_map(|_| asked_to_copy(&host.wait(50))).collect();
    let [(conn, request)] = &asked[..] else { panic!("asked once: {asked:?}") };
    let other = 6 - holder - lost;
    assert_eq!((*conn, request.targets[0].worker, request.tasks[0].task_count), (holder, 6 + other, 1));
    // Nobody took it: not at once again, but again.
    let answer = |copy_worker| {
        let CopyAgain { job, stage, generation, tasks, .. } = request.clone();
        Up::CopiedAgain(CopiedAgain { job, stage, generation, tasks, copy_worker, copy_incarnation: copy_worker })
    };
    host.up(holder, answer(0));
    let pause: Vec<_> = (0..80)
        .map(|_| {
            (1..=3).for_each(|conn| drop(host.up(conn, Up::Heartbeat(Heartbeat::default()))));
            asked_to_copy(&host.wait(100)).len()
        })
        .collect();
    assert_eq!((pause[..40].iter().sum::<usize>(), pause.iter().sum::<usize>()), (0, 1), "{pause:?}");
    host.up(holder, answer(6 + other));
    host.commit();
    assert!(host.state.jobs[&JobId(1)].lone_copies(0).is_empty());
}

#[test]
fn a_grant_names_workers_to_copy_shuffle_data_to_when_the_job_asks_for_it() {
    for (replicas, named) in [(2, 2), (1, 0)] {
        let mut host = Host::new();
        for worker in 1..=3 {
            host.connect(worker, 6 + worker);
        }
        let mut spec = numbers(3);
        spec.stages[0].partitions = 1;
        spec.stages[0].shuffle_replicas = replicas;
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
            ..StageSpec::default()
        });
        host.submit(1, spec);
        let effects = host.commit();
        let grants = sent(&effects).filter_map(|(conn, m)| if let Down::Grants(g) = m { Some((conn, g)) } else { None });
        for (conn, grant) in grants.flat_map(|(conn, g)| g.grants.iter().map(move |grant| (conn, grant))) {
            assert_eq!(grant.copy_to.len(), named, "{grant:?}");
            assert!(grant.copy_to.iter().all(|target| target.worker != conn + 6 && target.address == format!("w{}:1", target.worker)));
        }
    }
}

#[test]
fn a_worker_that_is_full_is_not_named_for_a_copy() {
    let mut host = Host::new();
    (1..=3).for_each(|n| drop(host.connect(n, 6 + n)));
    host.up(2, heartbeat("65536 of 65536 bytes"));
    let mut spec = with_shuffle();
    spec.stages[0].shuffle_replicas = 2;
    host.submit(1, spec);
    let effects = host.commit();
    let granted = sent(&effects).find_map(|(conn, m)| if let Down::Grants(g) = m { Some((conn, g.grants[0].clone())) } else { None });
    let (holder, grant) = granted.expect("the map task is granted");
    assert_eq!(grant.copy_to.iter().map(|target| target.worker - 6).collect::<Vec<_>>(), [4 - holder], "{grant:?}");
    // It has one place, and nobody is asked to copy it again before there is room somewhere.
    host.up(4 - holder, heartbeat("65536 of 65536 bytes"));
    host.up(holder, reports(result(&grant, 1)));
    host.commit();
    let beat = |host: &mut Host, second: &str| {
        let full = "65536 of 65536 bytes";
        [(holder, ""), (2, second), (4 - holder, full)].into_iter().for_each(|(conn, full)| drop(host.up(conn, heartbeat(full))));
        asked_to_copy(&host.wait(100))
    };
    let early: Vec<_> = (0..30).flat_map(|_| beat(&mut host, "65536 of 65536 bytes")).collect();
    assert!(early.is_empty(), "{early:?}");
    let late: Vec<_> = (0..30).flat_map(|_| beat(&mut host, "")).collect();
    assert_eq!(late.iter().map(|(conn, copy)| (*conn, copy.targets.len(), copy.targets[0].worker)).collect::<Vec<_>>(), [(holder, 1, 8)]);
}
