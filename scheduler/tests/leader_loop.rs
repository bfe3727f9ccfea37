//! The leader loop by itself: inputs in, effects out. Entries are applied as soon as the test says that they are committed.

use raftwerk_core::{JobId, State, WorkerId};
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::worker_message::Message as Up;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{Answer, ConnId, Effect, Input, Leader, Limits, RequestId, Timing};
use std::sync::Arc;

const TIMING: Timing = Timing { lease_ttl_ms: 10_000, heartbeat_ms: 500, reconnect_grace_ms: 1_000, listing_ms: 5_000 };

struct Host {
    now: u64,
    state: State,
    index: u64,
    leader: Leader,
    /// Proposed and not yet committed.
    proposed: Option<EntryBody>,
}

impl Host {
    fn new() -> Host {
        let state = State::new("test");
        Host { now: 0, leader: Leader::new(TIMING, &state, 0), state, index: 0, proposed: None }
    }

    /// Another replica takes over with the same state.
    fn change_leader(&mut self) {
        self.proposed = None;
        self.leader = Leader::new(TIMING, &self.state, self.now);
    }

    fn input(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.leader.handle(self.now, &self.state, input);
        if let Some(body) = self.leader.flush(&self.state, 1_000 + self.now) {
            assert!(self.proposed.is_none(), "two entries in flight");
            self.proposed = Some(body);
        }
        effects
    }

    /// The entry in flight reaches a majority and is applied; so do those that follow from it.
    fn commit(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(body) = self.proposed.take() {
            self.index += 1;
            let applied = self.state.apply(self.index, body).expect("a known command");
            effects.extend(self.input(Input::Applied(Arc::new(applied))));
        }
        effects
    }

    fn wait(&mut self, ms: u64) -> Vec<Effect> {
        self.now += ms;
        let mut effects = self.input(Input::Tick);
        effects.extend(self.commit());
        effects
    }

    fn connect(&mut self, conn: u64, worker: u64) -> Vec<Effect> {
        let mut effects = self.input(Input::WorkerConnected { conn: ConnId(conn), worker: WorkerId(worker), hello: hello(worker) });
        effects.extend(self.commit());
        effects
    }

    fn up(&mut self, conn: u64, message: Up) -> Vec<Effect> {
        self.input(Input::FromWorker { conn: ConnId(conn), message })
    }

    /// A second passes in which the worker is heard.
    fn beat(&mut self, conn: u64) {
        self.up(conn, Up::Heartbeat(Heartbeat::default()));
        self.wait(1_000);
    }

    fn submit(&mut self, request: u64, spec: JobSpec) -> Vec<Effect> {
        self.input(Input::Submit { request: RequestId(request), spec, idempotency_key: String::new() })
    }
}

fn hello(worker: u64) -> Hello {
    let device = Device {
        class: "cpu".into(),
        capacity: Some(Capacity { milli_cpu: 1000, memory_bytes: 1 << 30, slots: 8 }),
        kernels: vec!["count@1".into()],
        parallelism: 1,
        ..Device::default()
    };
    Hello {
        protocol_version: raftwerk_proto::OLDEST_PROTOCOL_VERSION,
        versions: raftwerk_proto::own_versions(0),
        incarnation: worker,
        name: format!("w{worker}"),
        data_address: format!("w{worker}:1"),
        devices: vec![device],
        ..Hello::default()
    }
}

fn spec(source: Source) -> JobSpec {
    JobSpec {
        name: "j".into(),
        namespace: "default".into(),
        stages: vec![StageSpec {
            name: "map".into(),
            kernel: Some(KernelRef { name: "count".into(), version: 1, kind: KernelKind::Map.into(), tallies: vec!["value".into()] }),
            inputs: vec![StageInput { name: "input".into(), source: Some(source) }],
            ..StageSpec::default()
        }],
        ..JobSpec::default()
    }
}

fn numbers(tasks: u64) -> JobSpec {
    spec(Source::Range(IndexRange { start: 0, count: tasks, tasks }))
}

fn files() -> JobSpec {
    spec(Source::Files(Files { patterns: vec!["/data/*.txt".into()], format: "text".into(), split_bytes: 10, listing: vec![] }))
}

fn sent(effects: &[Effect]) -> impl Iterator<Item = (u64, &Down)> {
    effects.iter().filter_map(|e| match e {
        Effect::Send { conn, message } => Some((conn.0, message)),
        _ => None,
    })
}

fn grants(effects: &[Effect]) -> Vec<Grants> {
    sent(effects).filter_map(|(_, m)| if let Down::Grants(grants) = m { Some(grants.clone()) } else { None }).collect()
}

fn welcome(effects: &[Effect]) -> Option<Welcome> {
    sent(effects).find_map(|(_, m)| if let Down::Welcome(welcome) = m { Some(welcome.clone()) } else { None })
}

fn publisher(effects: &[Effect]) -> Option<u64> {
    sent(effects).find_map(|(conn, m)| matches!(m, Down::Publish(_)).then_some(conn))
}

fn answers(effects: &[Effect]) -> Vec<Answer> {
    effects.iter().filter_map(|e| if let Effect::Answer { answer, .. } = e { Some(answer.clone()) } else { None }).collect()
}

fn result(grant: &Grant, sequence: u64) -> Report {
    let values = (grant.first_task..grant.first_task + grant.task_count).collect();
    Report {
        sequence,
        lease: grant.lease,
        job: grant.job,
        results: vec![TaskResults { first_task: grant.first_task, task_count: grant.task_count, tallies: vec![TallyValues { values }] }],
        final_report: true,
        busy_ns: 1,
        ..Report::default()
    }
}

fn reports(report: Report) -> Up {
    Up::Reports(Reports { reports: vec![report] })
}

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
fn nothing_is_acknowledged_or_dispatched_before_it_is_committed() {
    let mut host = Host::new();
    host.connect(1, 7);
    let before = host.submit(1, numbers(1));
    assert!(answers(&before).is_empty() && grants(&before).is_empty());
    let after = host.commit();
    assert_eq!(answers(&after), [Answer::Submitted { job: JobId(1), existing: false }]);
    assert_eq!(grants(&after).len(), 1);
    assert_eq!(host.index, 2, "the registration, then submit and first grant in one entry");

    let grant = grants(&after)[0].grants[0].clone();
    let acknowledged = |effects: &[Effect]| sent(effects).any(|(_, m)| matches!(m, Down::ReportAck(ack) if ack.sequences == [5]));
    assert!(!acknowledged(&host.up(1, reports(result(&grant, 5)))));
    assert!(acknowledged(&host.commit()));
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
    host.wait(TIMING.lease_ttl_ms - 1);
    assert!(!host.state.workers[&WorkerId(7)].lost);
    host.wait(2);
    assert!(host.state.workers[&WorkerId(7)].lost);
}

#[test]
fn an_input_that_no_worker_sees_is_refused_with_what_each_one_said() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.connect(2, 8);
    let asked = host.submit(3, files());
    assert_eq!(sent(&asked).filter(|(_, m)| matches!(m, Down::ListInputs(_))).count(), 2);
    let listing = |error: &str| Up::Listing(InputListing { request: 3, error: error.into(), ..InputListing::default() });
    assert!(answers(&host.up(1, listing("no mount"))).is_empty(), "the other one may see it");
    let said = answers(&host.up(2, listing("no such file")));
    let [Answer::Precondition(text)] = said.as_slice() else { panic!("{said:?}") };
    for word in ["w7", "no mount", "w8", "no such file"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(host.proposed.is_none() && host.state.jobs.is_empty(), "nothing is left behind");
}

#[test]
fn the_first_worker_that_sees_the_input_decides_the_splits() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.submit(3, files());
    let file = InputFile { path: "/data/a.txt".into(), bytes: 25, ..InputFile::default() };
    let listed = Files { patterns: vec!["/data/*.txt".into()], format: "text".into(), split_bytes: 10, listing: vec![file] };
    host.up(1, Up::Listing(InputListing { request: 3, inputs: vec![listed], ..InputListing::default() }));
    let effects = host.commit();
    assert_eq!(host.state.jobs[&JobId(1)].stages[0].tasks().len(), 3);
    let split = &grants(&effects)[0].grants[0].splits[0];
    assert_eq!(split.file.as_ref().map(|f| f.path.as_str()), Some("/data/a.txt"));
}

#[test]
fn without_any_worker_a_submit_waits_a_little_and_then_says_so() {
    let mut host = Host::new();
    assert!(answers(&host.submit(1, numbers(1))).is_empty());
    assert!(answers(&host.wait(TIMING.listing_ms - 1)).is_empty());
    let said = answers(&host.wait(1));
    assert!(matches!(said.as_slice(), [Answer::Precondition(text)] if text.contains("worker start")), "{said:?}");

    host.submit(2, numbers(1));
    host.connect(1, 7);
    let effects = host.wait(50);
    assert!(answers(&effects).iter().any(|a| matches!(a, Answer::Submitted { .. })), "a worker that comes in time is enough: {effects:?}");
}

/// No map task, and one partition.
fn one_reduce_task() -> JobSpec {
    let mut spec = numbers(0);
    spec.stages[0].partitions = 1;
    spec.stages.push(StageSpec {
        name: "reduce".into(),
        kernel: Some(KernelRef { name: "count".into(), version: 1, kind: KernelKind::Reduce.into(), tallies: vec![] }),
        inputs: vec![StageInput { name: "map".into(), source: Some(Source::Stage(StageOutput { stage: "map".into() })) }],
        ..StageSpec::default()
    });
    spec
}

/// Who is asked to keep what.
fn asked_to_keep(effects: &[Effect]) -> Vec<(u64, KeepParts)> {
    sent(effects).filter_map(|(conn, m)| if let Down::KeepParts(keep) = m { Some((conn, keep.clone())) } else { None }).collect()
}

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

fn kept(names: &[&str]) -> Up {
    let kept = names.iter().map(|name| PartName { partition: 0, staged_name: (*name).into() }).collect();
    Up::PartsKept(PartsKept { job: 1, kept, failed: vec![] })
}

fn not_kept(gone_at: &[u64]) -> Up {
    let part = Some(PartName { partition: 0, staged_name: "part.1".into() });
    let failed = PartNotKept { part, gone_at: gone_at.to_vec(), reason: "No space left on device".into() };
    Up::PartsKept(PartsKept { job: 1, kept: vec![], failed: vec![failed] })
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

fn heartbeat(full: &str) -> Up {
    Up::Heartbeat(Heartbeat { sequence: 1, load: Some(Load { full: full.into(), ..Load::default() }) })
}

/// A job whose only map task leaves shuffle data.
fn with_shuffle() -> JobSpec {
    let mut spec = one_reduce_task();
    spec.stages[0].inputs[0].source = Some(Source::Range(IndexRange { start: 0, count: 1, tasks: 1 }));
    spec
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

#[test]
fn a_silent_worker_is_suspect_and_given_nothing_new_until_it_speaks_again() {
    let mut host = Host::new();
    host.connect(10, 10);
    host.connect(11, 11);
    for n in 1..=20 {
        host.now += 500;
        for worker in [10, 11] {
            host.up(worker, Up::Heartbeat(Heartbeat { sequence: n, load: None }));
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

fn refusals(effects: &[Effect]) -> Vec<String> {
    answers(effects).into_iter().filter_map(|a| if let Answer::Exhausted(why) = a { Some(why) } else { None }).collect()
}

#[test]
fn a_submit_is_refused_while_there_is_no_room_and_everything_else_goes_on() {
    let mut host = Host::new();
    host.leader = Leader::new(TIMING, &host.state, 0).with_limits(Limits { active_jobs: 1, free_disk_bytes: 1_000, ..Limits::default() });
    host.connect(1, 7);
    host.input(Input::Submit { request: RequestId(1), spec: numbers(1), idempotency_key: "first".into() });
    let granted = grants(&host.commit()).remove(0).grants.remove(0);
    let full = host.submit(2, numbers(1));
    assert!(refusals(&full)[0].contains("--max-active-jobs"), "{full:?}");
    // Known submits are answered, and results are accepted.
    let again = host.input(Input::Submit { request: RequestId(3), spec: numbers(1), idempotency_key: "first".into() });
    assert!(matches!(answers(&again)[..], [Answer::Submitted { job: JobId(1), existing: true }]));
    host.up(1, reports(result(&granted, 1)));
    host.commit();
    assert!(host.state.jobs[&JobId(1)].phase.ended_at().is_some());

    host.input(Input::FreeDisk(999));
    let full = host.submit(4, numbers(1));
    assert!(refusals(&full)[0].contains("--min-free-disk"), "{full:?}");
    host.input(Input::FreeDisk(1_000));
    host.submit(5, numbers(1));
    assert!(answers(&host.commit()).iter().any(|a| matches!(a, Answer::Submitted { job: JobId(2), existing: false })));
}

#[test]
fn memory_is_bounded_by_refusing_submits_until_old_jobs_may_be_forgotten() {
    let mut host = Host::new();
    host.leader = Leader::new(TIMING, &host.state, 0).with_limits(Limits { state_bytes: 300_000, ended_jobs: 5, ..Limits::default() });
    host.connect(1, 7);
    let mut request = 0;
    let mut submit = |host: &mut Host| {
        request += 1;
        // Empty: it ends with its submission.
        host.input(Input::Submit { request: RequestId(request), spec: numbers(0), idempotency_key: format!("key-{request}") })
    };
    let (mut accepted, mut refused) = (0, String::new());
    while refused.is_empty() {
        let effects = submit(&mut host);
        if let Some(why) = refusals(&effects).pop() {
            refused = why;
        } else {
            accepted += 1;
            host.commit();
        }
        host.beat(1);
        assert!(accepted < 10_000, "nothing bounds the state");
    }
    assert!(refused.contains("--max-state"), "{refused}");
    assert_eq!(host.state.jobs.len(), accepted, "nothing may be forgotten before a day is over");
    // A day later.
    for _ in 0..25 {
        host.now += 3_600_000;
        host.beat(1);
    }
    host.beat(1);
    assert_eq!((host.state.jobs.len(), host.state.idempotency.len()), (5, 5));
    assert!(refusals(&submit(&mut host)).is_empty());
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
        kernel: Some(KernelRef { name: "count".into(), version: 1, kind: KernelKind::Reduce.into(), tallies: vec![] }),
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
            kernel: Some(KernelRef { name: "count".into(), version: 1, kind: KernelKind::Reduce.into(), tallies: vec![] }),
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

#[test]
fn workers_that_do_not_answer_are_no_reason_to_refuse_an_input_for_good() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.submit(1, files());
    for _ in 0..6 {
        host.up(1, Up::Heartbeat(Heartbeat::default()));
        let effects = host.wait(1_000);
        if let [answer] = &answers(&effects)[..] {
            assert!(matches!(answer, Answer::Unavailable(_)), "{answer:?}");
            return;
        }
    }
    panic!("the submit was not answered");
}

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
