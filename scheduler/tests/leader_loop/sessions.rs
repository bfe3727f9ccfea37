//! Workers that come, fall silent, and come back.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::{JobId, State, WorkerId};
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::worker_message::Message as Up;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{Answer, ConnId, Effect, Input, Leader, RequestId};

#[test]
fn a_worker_of_another_protocol_version_is_refused_with_both_numbers() {
    let mut host = Host::new();
    let old = Hello { protocol_version: 99, versions: None, ..hello(7) };
    let effects = host.input(Input::WorkerConnected { conn: ConnId(1), worker: WorkerId(7), hello: old });
    let Some((1, Down::Refused(refused))) = sent(&effects).next() else { panic!("{effects:?}") };
    assert!(refused.reason.contains("99") && refused.reason.contains(&raftwerk_proto::PROTOCOL_VERSION.to_string()), "{}", refused.reason);
    assert!(host.commit().is_empty() && host.state.workers.is_empty());
}

#[test]
fn a_stage_is_described_once_a_session() {
    let mut host = Host::new();
    host.connect(1, 7);
    let mut spec = numbers(40);
    spec.stages[0].max_lease_tasks = 1;
    host.submit(1, spec);
    let first = grants(&host.commit());
    assert_eq!(first[0].stages.len(), 1);
    host.up(1, reports(result(&first[0].grants[0], 1)));
    let later = grants(&host.commit());
    assert!(!later.is_empty() && later.iter().all(|g| g.stages.is_empty()), "{later:?}");
}

#[test]
fn silence_for_the_lease_time_is_the_end_of_a_worker_and_not_a_moment_less() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.wait(TIMING.lease_ttl_ms);
    assert!(!host.state.workers[&WorkerId(7)].lost);
    let effects = host.wait(1);
    assert!(host.state.workers[&WorkerId(7)].lost);
    assert!(effects.iter().any(|e| matches!(e, Effect::Close { conn: ConnId(1) })));
}

#[test]
fn a_broken_connection_is_forgiven_within_the_grace_and_its_leases_go_on() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.submit(1, numbers(1));
    let grant = grants(&host.commit())[0].grants[0].clone();
    host.input(Input::WorkerDisconnected { conn: ConnId(1) });
    host.wait(TIMING.reconnect_grace_ms - 1);
    let held = Hello { held: grant.lease.into_iter().collect(), ..hello(7) };
    let effects = host.input(Input::WorkerConnected { conn: ConnId(2), worker: WorkerId(7), hello: held });
    assert_eq!(welcome(&effects).expect("a welcome without a new registration").stop, []);
    assert!(grants(&effects).is_empty(), "it holds the lease already");
    host.wait(TIMING.reconnect_grace_ms);
    assert!(!host.state.workers[&WorkerId(7)].lost);
}

/// Its tasks were given to others a second after it had left a leader that it took for silent, and it came to them all the same.
#[test]
fn who_has_left_and_lives_is_lost_when_its_leases_are_over() {
    let lost = |host: &Host| host.state.workers[&WorkerId(7)].lost;
    let mut host = Host::new();
    host.connect(1, 7);
    host.wait(500);
    host.up(1, Up::Heartbeat(Heartbeat::default()));
    host.wait(300);
    host.input(Input::WorkerLeft { conn: ConnId(1) });
    host.wait(TIMING.lease_ttl_ms - 300 - 1);
    assert!(!lost(&host));
    host.wait(1);
    assert!(lost(&host));
    // A connection that breaks behind a long silence says as little of the worker.
    host.connect(2, 7);
    host.wait(TIMING.lease_ttl_ms / 2);
    host.input(Input::WorkerDisconnected { conn: ConnId(2) });
    host.wait(TIMING.lease_ttl_ms / 2 - 1);
    assert!(!lost(&host));
    host.wait(1);
    assert!(lost(&host));
}

#[test]
fn a_leader_that_hears_no_majority_declares_nobody_lost_and_waits_for_those_whom_it_sent_away() {
    let lost = |host: &Host| host.state.workers[&WorkerId(7)].lost;
    let mut host = Host::new();
    host.connect(1, 7);
    host.leader.majority_silent_for(TIMING.majority_ms + 1);
    host.input(Input::WorkerLeft { conn: ConnId(1) });
    host.wait(2 * TIMING.lease_ttl_ms);
    assert!(!lost(&host));
    host.leader.majority_silent_for(0);
    host.wait(TIMING.lease_ttl_ms - 1);
    assert!(!lost(&host));
    host.wait(1);
    assert!(lost(&host));
}

/// "Printed nothing" was said of a job whose workers had been killed.
#[test]
fn who_ran_tasks_and_cannot_be_asked_for_logs_is_named() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.submit(1, numbers(1));
    let grant = grants(&host.commit())[0].grants[0].clone();
    host.up(1, reports(result(&grant, 1)));
    host.commit();
    host.input(Input::WorkerDisconnected { conn: ConnId(1) });
    host.connect(2, 8);
    let asked = host.input(Input::Logs { request: RequestId(9), job: JobId(1) });
    assert!(answers(&asked).is_empty(), "worker 8 is asked, although it ran nothing");
    let Some((2, Down::FetchLogs(fetch))) = sent(&asked).next() else { panic!("{asked:?}") };
    let found = host.up(2, Up::Logs(AttemptLogs { request: fetch.request, logs: Vec::new() }));
    let [Answer::Logs(workers)] = &answers(&found)[..] else { panic!("{found:?}") };
    let said: Vec<_> = workers.iter().map(|worker| (worker.worker, worker.error.as_str())).collect();
    assert_eq!(said, [(7, "it is not connected"), (8, "")]);
}

/// It said "heard 0 ms ago" of a worker that had just been killed.
#[test]
fn a_worker_whose_connection_broke_was_heard_when_it_was_heard() {
    let mut host = Host::new();
    let seen = |host: &Host| {
        let view = host.leader.worker_views(host.now, &host.state).remove(0);
        (view.liveness.clone(), (!view.unheard).then_some(view.last_heard_ms))
    };
    host.connect(1, 7);
    host.wait(300);
    assert_eq!(seen(&host), ("alive".into(), Some(300)));
    host.input(Input::WorkerDisconnected { conn: ConnId(1) });
    host.wait(400);
    assert_eq!(seen(&host), ("suspect".into(), Some(700)));
    host.connect(2, 7);
    assert_eq!(seen(&host), ("alive".into(), Some(0)));
    // What the former leader heard, the new one did not.
    host.change_leader();
    assert_eq!(seen(&host), ("suspect".into(), None));
}

#[test]
fn a_grant_that_never_arrived_is_sent_again_at_hand_over_and_an_ended_one_is_stopped() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.submit(1, numbers(1));
    let grant = grants(&host.commit())[0].grants[0].clone();
    host.change_leader();
    let ended = LeaseId { epoch: 0, index: 1, position: 9 };
    let stale = Hello { held: vec![ended], ..hello(7) };
    let effects = host.input(Input::WorkerConnected { conn: ConnId(2), worker: WorkerId(7), hello: stale });
    assert_eq!(welcome(&effects).expect("a welcome").stop, [ended]);
    assert_eq!(grants(&effects)[0].grants, [grant]);
}

#[test]
fn a_new_leader_declares_nobody_lost_before_one_full_grace() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.wait(5_000);
    host.change_leader();
    // Until then a former leader, which nobody hears, may have answered it.
    host.wait(TIMING.lease_ttl_ms + TIMING.majority_ms - 1);
    assert!(!host.state.workers[&WorkerId(7)].lost);
    host.wait(2);
    assert!(host.state.workers[&WorkerId(7)].lost);
}

#[test]
fn a_silent_worker_is_suspect_and_given_nothing_new_until_it_speaks_again() {
    let mut host = Host::new();
    host.connect(10, 10);
    host.connect(11, 11);
    for n in 1..=20 {
        host.now += 500;
        for worker in [10, 11] {
            host.up(worker, Up::Heartbeat(Heartbeat { sequence: n, ..Heartbeat::default() }));
        }
    }
    // Worker 11 stops speaking; its connection stands.
    for _ in 0..4 {
        host.wait(500);
        host.up(10, Up::Heartbeat(Heartbeat::default()));
    }
    let liveness = |host: &Host| host.leader.worker_views(host.now, &host.state).into_iter().map(|w| w.liveness).collect::<Vec<_>>();
    assert_eq!(liveness(&host), ["alive", "suspect"]);
    host.submit(1, numbers(64));
    let effects = host.commit();
    assert!(!grants(&effects).is_empty());
    assert!(sent(&effects).all(|(conn, m)| conn == 10 || !matches!(m, Down::Grants(_))), "a suspect worker was given a lease");
    host.up(11, Up::Heartbeat(Heartbeat::default()));
    assert_eq!(liveness(&host), ["alive", "alive"]);
    host.submit(2, numbers(64));
    let effects = host.commit();
    assert!(sent(&effects).any(|(conn, m)| conn == 11 && matches!(m, Down::Grants(_))), "a worker that spoke again got nothing");
}

#[test]
fn a_suspects_lease_is_given_a_second_time_and_the_loser_is_told_to_stop_and_free_its_space() {
    let mut host = Host::new();
    host.connect(10, 10);
    host.connect(11, 11);
    for _ in 0..20 {
        host.now += 500;
        for worker in [10, 11] {
            host.up(worker, Up::Heartbeat(Heartbeat::default()));
        }
    }
    host.submit(1, numbers(2));
    let first = grants(&host.commit());
    let lease_of = |conn: u64, state: &State| state.leases.iter().find(|(_, l)| l.worker == WorkerId(conn)).map(|(id, _)| *id);
    let held: Vec<Grant> = first.iter().flat_map(|g| g.grants.clone()).collect();
    let (slow, quick) = (lease_of(11, &host.state).expect("a task each"), lease_of(10, &host.state).expect("a task each"));
    let own = held.iter().find(|g| g.lease == Some(quick.into())).expect("its grant").clone();
    host.up(10, reports(result(&own, 1)));
    host.commit();
    // Worker 11 falls silent with the last task.
    let mut copy = Vec::new();
    for _ in 0..6 {
        host.up(10, Up::Heartbeat(Heartbeat::default()));
        copy.extend(grants(&host.wait(500)));
    }
    let copies: Vec<&Grant> = copy.iter().flat_map(|g| &g.grants).collect();
    let [copy] = copies[..] else { panic!("one copy, not {copies:?}") };
    assert!(host.state.leases.len() == 2 && host.state.leases[&copy.lease.unwrap().into()].speculative);
    host.up(10, reports(result(copy, 2)));
    let effects = host.commit();
    let revoked = sent(&effects).find_map(|(conn, m)| if let Down::Revoke(revoke) = m { Some((conn, revoke.clone())) } else { None });
    let slow: LeaseId = slow.into();
    assert_eq!(revoked, Some((11, Revoke { leases: vec![slow], unused: vec![slow] })));
    assert_eq!(host.state.jobs[&JobId(1)].stages[0].tallies, [1]);
}

#[test]
fn a_pause_ends_also_when_the_wall_clock_was_set_back() {
    let mut host = Host::new();
    host.connect(10, 10);
    host.submit(1, numbers(1));
    let granted = grants(&host.commit());
    let failure =
        TaskFailure { first_task: 0, task_count: 1, class: FailureClass::Task.into(), message: "boom".into(), ..Default::default() };
    let report = Report { results: vec![], failures: vec![failure], ..result(&granted[0].grants[0], 1) };
    host.up(10, reports(report));
    host.commit();
    assert!(host.state.leases.is_empty(), "it waits");
    let failed_at = host.state.now.0;
    let mut stamp = 0;
    for _ in 0..10 {
        host.now += 50;
        host.leader.handle(host.now, &host.state, Input::Tick);
        if let Some(body) = host.leader.flush(&host.state, 0) {
            stamp = body.at_ms;
            host.proposed = Some(body);
            break;
        }
    }
    assert_eq!(grants(&host.commit()).len(), 1, "the second attempt");
    assert!((failed_at + 100..failed_at + 300).contains(&stamp), "{failed_at} {stamp}");
}

#[test]
fn an_operator_ends_a_quarantine_and_hears_when_there_is_no_such_worker() {
    let mut host = Host::new();
    host.connect(10, 10);
    let asked = |worker| Input::Release { request: RequestId(1), worker: WorkerId(worker) };
    assert!(matches!(&answers(&host.input(asked(99)))[..], [Answer::NotFound(_)]));
    assert_eq!(answers(&host.input(asked(10))), [], "not before it is committed");
    assert_eq!(answers(&host.commit()), [Answer::Released]);
}

#[test]
fn a_worker_that_comes_back_while_it_is_being_declared_lost_registers_again() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.input(Input::WorkerDisconnected { conn: ConnId(1) });
    host.now += TIMING.reconnect_grace_ms + 1;
    host.input(Input::Tick);
    // The verdict is on its way; the state does not know it yet.
    let back = host.input(Input::WorkerConnected { conn: ConnId(2), worker: WorkerId(7), hello: hello(7) });
    assert!(welcome(&back).is_some(), "{back:?}");
    let effects = host.commit();
    assert!(host.state.workers[&WorkerId(7)].lost);
    assert!(effects.iter().any(|e| matches!(e, Effect::Close { conn: ConnId(2) })), "{effects:?}");
    host.connect(3, 7);
    assert!(!host.state.workers[&WorkerId(7)].lost);
    let granted = host.submit(1, numbers(4));
    assert!(granted.is_empty());
    assert!(!grants(&host.commit()).is_empty());
}

/// Another may lead by then, and would take those who stay for lost.
#[test]
fn a_leader_that_hears_no_majority_answers_no_heartbeat() {
    let answers = |host: &mut Host, silence| {
        host.leader.majority_silent_for(silence);
        let effects = host.up(1, Up::Heartbeat(Heartbeat::default()));
        sent(&effects).filter(|(_, message)| matches!(message, Down::HeartbeatAck(_))).count()
    };
    let mut host = Host::new();
    host.connect(1, 7);
    assert_eq!(answers(&mut host, 0), 1);
    assert_eq!(answers(&mut host, TIMING.majority_ms), 1);
    assert_eq!(answers(&mut host, TIMING.majority_ms + 1), 0);
    assert_eq!(answers(&mut host, 0), 1, "it is heard again");
    // Nor does it let a session that it knows go on over a new connection.
    host.leader.majority_silent_for(TIMING.majority_ms + 1);
    let back = host.connect(2, 7);
    assert!(welcome(&back).is_none(), "{back:?}");
    assert!(sent(&back).any(|(_, message)| matches!(message, Down::Redirect(_))), "{back:?}");
    host.leader.majority_silent_for(0);
    assert!(welcome(&host.connect(3, 7)).is_some());
}

#[test]
fn workers_are_told_where_the_schedulers_are_and_again_when_that_changes() {
    let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let acks = |effects: &[Effect]| -> Vec<Vec<String>> {
        sent(effects).filter_map(|(_, m)| if let Down::HeartbeatAck(ack) = m { Some(ack.schedulers.clone()) } else { None }).collect()
    };
    let beat = || Up::Heartbeat(Heartbeat::default());
    let mut host = Host::new();
    host.leader = Leader::new(TIMING, &host.state, 0).with_schedulers(list("a:1 b:1"));
    assert_eq!(welcome(&host.connect(1, 7)).expect("a welcome").schedulers, ["a:1", "b:1"]);
    assert_eq!(acks(&host.up(1, beat())), [Vec::<String>::new()], "it knows them");
    host.input(Input::Schedulers(list("b:1 c:1")));
    assert_eq!(acks(&host.up(1, beat())), [list("b:1 c:1")]);
    assert_eq!(acks(&host.up(1, beat())), [Vec::<String>::new()]);
    host.input(Input::Schedulers(list("b:1 c:1")));
    assert_eq!(acks(&host.up(1, beat())), [Vec::<String>::new()], "nothing has changed");
}
