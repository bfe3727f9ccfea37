//! What workers say of copies too late: the parts may be deleted meanwhile, because the job has ended and nobody counted on them.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::{JobId, WorkerId};
use raftwerk_proto::v1::command::Command as Do;
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::worker_message::Message as Up;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{ConnId, Effect, Input};

impl Host {
    /// The entry in flight is applied, and none of those that follow from it.
    fn commit_one(&mut self) -> Vec<Effect> {
        let body = self.proposed.take().expect("an entry in flight");
        self.index += 1;
        let applied = self.state.apply(self.index, body).expect("a known command");
        self.input(Input::Applied(std::sync::Arc::new(applied)))
    }

    fn proposes(&self, is: impl Fn(&Do) -> bool) -> bool {
        self.proposed.iter().flat_map(|body| &body.commands).filter_map(|c| c.command.as_ref()).any(is)
    }

    fn keepers(&self) -> Vec<u64> {
        self.state.holders(&self.state.jobs[&JobId(1)].parts[&0]).map(|worker| worker.0).collect()
    }

    fn comes(&mut self, conn: u64, worker: u64, brought_jobs: Vec<u64>) -> Vec<Effect> {
        let hello = Hello { brought_jobs, ..hello(worker) };
        self.input(Input::WorkerConnected { conn: ConnId(conn), worker: WorkerId(worker), hello })
    }
}

fn asked(effects: &[Effect], of: u64) -> Option<KeepParts> {
    sent(effects).find_map(|(conn, m)| match m {
        Down::KeepParts(keep) if conn == of => Some(keep.clone()),
        _ => None,
    })
}

/// What the worker behind the connection was told to keep at the end of the job.
fn told_to_keep(effects: &[Effect], of: u64) -> Option<Vec<String>> {
    sent(effects).find_map(|(conn, m)| match m {
        Down::Release(release) if conn == of && release.jobs == [1] => {
            Some(release.kept.iter().flat_map(|kept| kept.names.clone()).collect())
        }
        _ => None,
    })
}

fn has_it(keep: &KeepParts) -> Up {
    let kept = keep.parts.iter().map(|p| PartName { partition: p.partition, staged_name: p.staged_name.clone() }).collect();
    Up::PartsKept(PartsKept { job: keep.job, kept, failed: vec![], request: keep.request })
}

fn cannot(keep: &KeepParts) -> Up {
    let not = |p: &PartToKeep| PartNotKept {
        part: Some(PartName { partition: p.partition, staged_name: p.staged_name.clone() }),
        gone_at: vec![],
        reason: "No space left on device".into(),
    };
    let failed = keep.parts.iter().map(not).collect();
    Up::PartsKept(PartsKept { job: keep.job, kept: vec![], failed, request: keep.request })
}

/// A job whose result is to lie on two workers, 7 at connection 7 and 8 at connection 8. One has made it, the other is asked for a copy: both, in this
/// order, and the request.
fn asked_for_a_copy() -> (Host, u64, u64, KeepParts) {
    let mut host = Host::new();
    [7, 8].into_iter().for_each(|n| drop(host.connect(n, n)));
    let output = OutputSpec { url: "worker:".into(), format: "csv".into(), copies: 2, ..OutputSpec::default() };
    host.submit(1, JobSpec { output: Some(output), ..one_reduce_task() });
    let effects = host.commit();
    let granted = sent(&effects).find_map(|(conn, m)| if let Down::Grants(g) = m { Some((conn, g.grants[0].clone())) } else { None });
    let (maker, grant) = granted.expect("a grant");
    let part = OutputPart { partition: 0, name: "part-00000.csv".into(), staged_name: "part.1".into(), ..OutputPart::default() };
    let mut report = Report { stage: 1, parts: vec![part], ..result(&grant, 1) };
    report.results[0].tallies.clear();
    host.up(maker, reports(report));
    let other = 15 - maker;
    let keep = asked(&host.commit(), other).expect("nobody else can take one");
    (host, maker, other, keep)
}

#[test]
fn a_copy_that_was_made_for_a_request_of_before_the_end_of_the_job_is_not_recorded_when_nobody_was_told_to_keep_it() {
    let (mut host, maker, other, keep) = asked_for_a_copy();
    // Its connection breaks for too long, and with one worker left the job wants one copy.
    host.input(Input::WorkerDisconnected { conn: ConnId(other) });
    host.now += TIMING.reconnect_grace_ms + 1;
    host.input(Input::Tick);
    host.commit_one();
    assert!(host.proposes(|c| matches!(c, Do::FinishPublish(_))), "{:?}", host.proposed);
    // It is back, and says at once that the copy has come.
    host.comes(20, other, vec![]);
    host.up(20, has_it(&keep));
    let mut effects = host.commit_one();
    assert_eq!(told_to_keep(&effects, 20), Some(vec![]), "it deletes what it has of the job");
    effects.extend(host.commit());
    assert_eq!(host.keepers(), [maker]);
    // The word may come later, too; and even when the same part has been asked for again.
    let again = (0..25).find_map(|_| {
        [maker, 20].into_iter().for_each(|conn| drop(host.up(conn, Up::Heartbeat(Heartbeat::default()))));
        asked(&host.wait(100), 20)
    });
    let again = asked(&effects, 20).or(again).expect("the job wants two copies, and there are two workers");
    host.up(20, has_it(&keep));
    host.commit();
    assert_eq!(host.keepers(), [maker]);
    host.up(20, has_it(&again));
    host.commit();
    assert_eq!(host.keepers(), [maker, other]);
}

#[test]
fn an_answer_to_another_leader_is_asked_for_again() {
    let (mut host, maker, other, keep) = asked_for_a_copy();
    host.change_leader();
    let mut effects = host.connect(10, maker);
    effects.extend(host.connect(20, other));
    effects.extend(host.wait(50));
    let again = asked(&effects, 20).expect("asked by the new leader");
    assert_ne!(again.request, keep.request);
    host.up(20, has_it(&keep));
    assert!(!host.proposes(|c| matches!(c, Do::RecordKept(_))));
    host.up(20, has_it(&again));
    host.commit();
    assert_eq!(host.keepers(), [maker, other]);
    assert!(host.state.jobs[&JobId(1)].phase.ended_at().is_some());
}

#[test]
fn what_is_about_to_be_recorded_is_named_at_the_end_of_the_job() {
    let (mut host, maker, other, _) = asked_for_a_copy();
    host.change_leader();
    host.connect(10, maker);
    // It says that it may have brought parts from elsewhere, and is asked which, beside being asked for a copy.
    let mut effects = host.comes(20, other, vec![1]);
    let look = asked(&effects, 20).expect("what has it brought?");
    assert!(look.parts[0].sources.is_empty(), "{look:?}");
    effects.extend(host.commit());
    // It cannot take a copy, so the job ends with one; while that is decided it finds that it has brought the part.
    while !host.proposes(|c| matches!(c, Do::FinishPublish(_))) {
        host.commit();
        host.now += 100;
        assert!(host.now < 60_000, "the job goes on for ever");
        [10, 20].into_iter().for_each(|conn| effects.extend(host.up(conn, Up::Heartbeat(Heartbeat::default()))));
        effects.extend(host.input(Input::Tick));
        let copies: Vec<KeepParts> = sent(&effects)
            .filter_map(|(conn, m)| match m {
                Down::KeepParts(keep) if conn == 20 && !keep.parts[0].sources.is_empty() => Some(keep.clone()),
                _ => None,
            })
            .collect();
        effects.clear();
        copies.iter().for_each(|keep| effects.extend(host.up(20, cannot(keep))));
    }
    host.up(20, has_it(&look));
    assert_eq!(told_to_keep(&host.commit_one(), 20), Some(vec!["part.1".to_owned()]));
    host.commit();
    assert_eq!(host.keepers(), [maker, other]);
}
