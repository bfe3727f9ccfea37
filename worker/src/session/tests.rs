//! The promises of the session, one per test; a small driver gives the words.
use super::*;
use pb::{
    Device, FailureClass, Grant, Grants, LeaseProgress, Redirect, Refused, ReleaseJobs, ReportAck, Revoke, TallyValues, TaskFailure,
    TaskResults, Welcome,
};
use raftwerk_proto::OUTPUT_ON_WORKERS;

const TTL: u64 = 1_000;
const HEARTBEAT: u64 = 200;

/// A session, its clock, and what it did last.
struct Bench {
    session: AgentSession,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let device = Device { index: 0, class: "cpu".into(), parallelism: 2, ..Device::default() };
        Self { session: AgentSession::new(Hello { incarnation: 7, devices: vec![device], ..Hello::default() }), now: 5_000 }
    }

    /// Registered with a leader at "a:1".
    fn open() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.tell(Input::Start), [Effect::Connect { address: None, after_ms: 0 }]);
        bench.connect();
        bench
    }

    /// Connects and is welcomed; returns what it sent in between.
    fn connect(&mut self) -> Vec<worker_message::Message> {
        let sent = sent(self.tell(Input::Connected { address: "a:1".into() }));
        assert_eq!(self.hear(welcome(&[])), []);
        sent
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.session.handle(self.now, input)
    }

    fn hear(&mut self, message: scheduler_message::Message) -> Vec<Effect> {
        self.tell(Input::FromScheduler(SchedulerMessage { message: Some(message) }))
    }

    fn wait(&mut self, ms: u64) -> Vec<Effect> {
        self.now += ms;
        self.tell(Input::Tick)
    }

    fn disconnect(&mut self) -> Vec<Effect> {
        self.tell(Input::Disconnected { reason: "cut".into(), jitter_permille: 1000 })
    }

    /// Grants tasks [0, tasks) of job 1 under this lease.
    fn grant(&mut self, index: u64, tasks: u64) -> Vec<Effect> {
        self.hear(grants(true, vec![grant(index, tasks)]))
    }

    fn report(&mut self, index: u64, first: u64, count: u64, ends: bool) -> Vec<Report> {
        let results = vec![TaskResults {
            first_task: first,
            task_count: count,
            tallies: vec![TallyValues { values: (first..first + count).collect() }],
            ..TaskResults::default()
        }];
        let effects = self.tell(Input::Progress(vec![LeaseProgress {
            lease: Some(lease(index)),
            results,
            final_report: ends,
            ..LeaseProgress::default()
        }]));
        reports(sent(effects))
    }

    /// Loses the connection and makes another one; the jobs that it then says it has parts of.
    fn connect_again(&mut self) -> Vec<u64> {
        self.disconnect();
        let hello = |message| if let Up::Hello(hello) = message { Some(hello.kept_jobs) } else { None };
        self.connect().into_iter().find_map(hello).unwrap_or_default()
    }

    fn held(&self) -> Vec<u64> {
        self.session.held().map(|lease| lease.index).collect()
    }
}

use pb::Report;
use scheduler_message::Message as Down;
use worker_message::Message as Up;

fn lease(index: u64) -> LeaseId {
    LeaseId { epoch: 0, index, position: 0 }
}

fn grant(index: u64, tasks: u64) -> Grant {
    Grant { lease: Some(lease(index)), job: 1, task_count: tasks, ..Grant::default() }
}

fn grants(described: bool, grants: Vec<Grant>) -> Down {
    let stages = if described { vec![StageInfo { job: 1, ..StageInfo::default() }] } else { Vec::new() };
    Down::Grants(Grants { stages, grants })
}

fn welcome(stop: &[u64]) -> Down {
    let stop = stop.iter().map(|&index| lease(index)).collect();
    Down::Welcome(Welcome { worker: 3, session: 9, lease_ttl_ms: TTL as u32, heartbeat_ms: HEARTBEAT as u32, stop, ..Welcome::default() })
}

fn ack(sequences: &[u64]) -> Down {
    Down::ReportAck(ReportAck { sequences: sequences.to_vec() })
}

fn sent(effects: Vec<Effect>) -> Vec<Up> {
    effects.into_iter().filter_map(|effect| if let Effect::Send(message) = effect { message.message } else { None }).collect()
}

fn reports(sent: Vec<Up>) -> Vec<Report> {
    sent.into_iter().flat_map(|message| if let Up::Reports(reports) = message { reports.reports } else { Vec::new() }).collect()
}

fn failures(report: &Report) -> Vec<(u64, u64, FailureClass)> {
    report.failures.iter().map(|failure| (failure.first_task, failure.task_count, failure.class())).collect()
}

fn stopped(index: u64, reason: StopReason) -> Effect {
    Effect::StopLease { lease: lease(index), device: 0, reason }
}

#[test]
fn hello_comes_first_and_names_the_leases_still_worked_on() {
    let mut bench = Bench::open();
    bench.grant(1, 4);
    bench.grant(2, 4);
    bench.hear(Down::Revoke(Revoke { leases: vec![lease(2)], unused: Vec::new() }));
    bench.disconnect();
    let first = bench.connect().remove(0);
    let Up::Hello(hello) = first else { panic!("{first:?}") };
    assert_eq!((hello.incarnation, hello.held), (7, vec![lease(1)]), "a lease that is being stopped is not offered as held");
}

#[test]
fn an_unacknowledged_report_is_offered_after_every_connect_until_it_is_acknowledged() {
    let mut bench = Bench::open();
    bench.grant(1, 4);
    let first = bench.report(1, 0, 2, false);
    bench.disconnect();
    let while_away = bench.report(1, 2, 2, true);
    assert_eq!(while_away, [], "nothing can be sent now");
    let offered = reports(bench.connect());
    assert_eq!(offered.iter().map(|report| report.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(offered[0], first[0], "the same report, the same number");
    bench.hear(ack(&[1]));
    bench.disconnect();
    assert_eq!(reports(bench.connect()).len(), 1);
    bench.hear(ack(&[2, 99]));
    assert_eq!(bench.session.unacknowledged(), 0);
}

#[test]
fn a_grant_of_a_held_lease_changes_nothing() {
    let mut bench = Bench::open();
    assert!(matches!(bench.grant(1, 4)[..], [Effect::StartLease { .. }]));
    assert_eq!(bench.grant(1, 4), []);
    bench.report(1, 0, 4, true);
    assert_eq!(bench.grant(1, 4), [], "its final report is on the way");
    bench.hear(ack(&[1]));
    assert_eq!(bench.held(), [] as [u64; 0]);
    assert_eq!(bench.grant(1, 4), [], "a leader that was cut off does not know what another one has acknowledged");
    assert!(matches!(bench.grant(2, 4)[..], [Effect::StartLease { .. }]));
}

#[test]
fn a_grant_of_an_undescribed_stage_ends_the_connection() {
    let mut bench = Bench::open();
    assert!(matches!(bench.hear(grants(false, vec![grant(1, 4)]))[..], [Effect::Disconnect { .. }]));
    assert!(matches!(bench.disconnect()[..], [Effect::Connect { address: None, after_ms: 50 }]));
}

#[test]
fn a_grant_for_a_device_that_is_not_offered_goes_back_uncharged() {
    let mut bench = Bench::open();
    let effects = bench.hear(grants(true, vec![Grant { device: 5, ..grant(1, 4) }]));
    let report = &reports(sent(effects))[0];
    assert_eq!((failures(report), report.final_report), (vec![(0, 4, FailureClass::Worker)], true));
}

#[test]
fn the_lease_time_counts_from_the_heartbeat_that_was_answered() {
    let mut bench = Bench::open();
    bench.grant(1, 4);
    let beat =
        |effects| sent(effects).iter().find_map(|message| if let Up::Heartbeat(beat) = message { Some(beat.sequence) } else { None });
    let sequence = beat(bench.wait(HEARTBEAT)).expect("a heartbeat");
    let sent_at = bench.now;
    bench.wait(HEARTBEAT / 2);
    bench.hear(Down::HeartbeatAck(pb::HeartbeatAck { sequence, ..pb::HeartbeatAck::default() }));
    // Other words of the leader say nothing about whom else it hears.
    bench.hear(ack(&[]));
    bench.disconnect();
    bench.wait(sent_at + TTL - 1 - bench.now);
    assert_eq!(bench.held(), [1]);
    assert_eq!(bench.wait(1), [stopped(1, StopReason::Unheard), Effect::ReplaceExecutor { device: 0 }]);
}

#[test]
fn a_worker_that_hears_nothing_for_the_lease_time_stops_and_keeps_what_it_has() {
    let mut bench = Bench::open();
    bench.grant(1, 4);
    bench.disconnect();
    bench.report(1, 0, 1, false);
    assert_eq!(bench.wait(TTL - 1), []);
    assert_eq!(bench.session.wake_at(), Some(bench.now + 1));
    assert_eq!(bench.wait(1), [stopped(1, StopReason::Unheard), Effect::ReplaceExecutor { device: 0 }]);
    assert_eq!(bench.wait(1), [], "once");
    let rest = bench.tell(Input::Progress(vec![LeaseProgress { lease: Some(lease(1)), final_report: true, ..LeaseProgress::default() }]));
    assert_eq!(rest, []);
    let offered = reports(bench.connect());
    assert_eq!(offered[0].results[0].task_count, 1);
    assert_eq!((failures(&offered[1]), offered[1].final_report), (vec![(1, 3, FailureClass::Stopped)], true));
}

#[test]
fn heartbeats_carry_the_load_and_count_leases() {
    let mut bench = Bench::open();
    bench.tell(Input::Load(Load { cpu_permille: 500, ..Load::default() }));
    (1..=3).for_each(|index| drop(bench.grant(index, 1)));
    assert_eq!(bench.session.wake_at(), Some(bench.now + HEARTBEAT));
    let [Up::Heartbeat(heartbeat)] = &sent(bench.wait(HEARTBEAT))[..] else { panic!() };
    let load = heartbeat.load.clone().unwrap();
    assert_eq!((heartbeat.sequence, load.cpu_permille, load.leases_running, load.leases_queued), (1, 500, 2, 1));
}

#[test]
fn leases_that_ended_meanwhile_are_stopped_and_others_go_on() {
    let mut bench = Bench::open();
    bench.grant(1, 4);
    bench.grant(2, 4);
    bench.disconnect();
    bench.tell(Input::Connected { address: "b:1".into() });
    assert_eq!(bench.hear(welcome(&[1, 77])), [stopped(1, StopReason::EndedMeanwhile)]);
}

#[test]
fn a_redirect_is_followed_at_once_but_not_for_ever() {
    let mut bench = Bench::new();
    bench.tell(Input::Start);
    for _ in 0..3 {
        bench.tell(Input::Connected { address: "a:1".into() });
        let effects = bench.hear(Down::Redirect(Redirect { leader_address: "b:1".into() }));
        assert!(matches!(effects[..], [Effect::Disconnect { .. }]));
        assert_eq!(bench.disconnect(), [Effect::Connect { address: Some("b:1".into()), after_ms: 0 }]);
    }
    bench.tell(Input::Connected { address: "b:1".into() });
    bench.hear(Down::Redirect(Redirect { leader_address: "a:1".into() }));
    assert_eq!(bench.disconnect(), [Effect::Connect { address: None, after_ms: 50 }]);
}

#[test]
fn back_off_doubles_to_its_limit_and_starts_over_after_a_welcome() {
    let mut bench = Bench::open();
    let pauses: Vec<u64> = (0..8)
        .map(|_| match bench.disconnect()[..] {
            [Effect::Connect { after_ms, .. }] => after_ms,
            ref other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
    let calm = bench.tell(Input::Disconnected { reason: String::new(), jitter_permille: 0 });
    assert_eq!(calm, [Effect::Connect { address: None, after_ms: 1000 }], "jitter takes away up to half");
    bench.connect();
    assert_eq!(bench.disconnect(), [Effect::Connect { address: None, after_ms: 50 }]);
}

#[test]
fn a_hello_without_an_answer_is_given_up() {
    let mut bench = Bench::new();
    bench.tell(Input::Start);
    bench.tell(Input::Connected { address: "a:1".into() });
    assert_eq!(bench.session.wake_at(), Some(bench.now + GREETING_MS));
    assert!(matches!(bench.wait(GREETING_MS)[..], [Effect::Disconnect { .. }]));
}

#[test]
fn a_refusal_is_final() {
    let mut bench = Bench::open();
    bench.grant(1, 1);
    let effects = bench.hear(Down::Refused(Refused { reason: "unknown worker".into() }));
    assert_eq!(effects, [stopped(1, StopReason::Shutdown), Effect::Exit(ExitReason::Refused("unknown worker".into()))]);
    assert_eq!(bench.tell(Input::Start), []);
}

#[test]
fn a_clean_shutdown_says_goodbye() {
    let mut bench = Bench::open();
    let effects = bench.tell(Input::ShutdownRequested { reason: "asked".into() });
    assert!(matches!(&effects[..], [Effect::Send(_), Effect::Exit(ExitReason::Stopped)]));
}

#[test]
fn only_tasks_that_were_running_are_charged_when_an_executor_dies() {
    let mut bench = Bench::open();
    bench.grant(1, 10);
    bench.report(1, 0, 2, false);
    // Task 1 had finished and was told already; the recorder may still name it.
    let running = vec![(lease(1), 1, 1), (lease(1), 4, 1), (lease(8), 0, 1)];
    let effects = bench.tell(Input::ExecutorLost { device: 0, message: "died".into(), running, class: FailureClass::Executor });
    let report = &reports(sent(effects))[0];
    let expected = [(4, 1, FailureClass::Executor), (2, 2, FailureClass::Stopped), (5, 5, FailureClass::Stopped)];
    assert_eq!((failures(report), report.final_report), (expected.to_vec(), true));
    assert_eq!(bench.report(1, 5, 1, false), [], "what comes later is of no lease");
}

#[test]
fn nothing_is_charged_when_the_agent_ended_the_executor() {
    let mut bench = Bench::open();
    bench.grant(1, 2);
    let running = vec![(lease(1), 0, 1)];
    let effects = bench.tell(Input::ExecutorLost { device: 0, message: "replaced".into(), running, class: FailureClass::Stopped });
    assert!(failures(&reports(sent(effects))[0]).iter().all(|&(.., class)| class == FailureClass::Stopped));
}

#[test]
fn what_ran_when_memory_ran_out_is_to_be_split_and_what_waited_is_not() {
    let mut bench = Bench::open();
    bench.grant(1, 6);
    bench.grant(2, 3);
    let running = vec![(lease(1), 0, 4)];
    let effects = bench.tell(Input::ExecutorLost { device: 0, message: "full".into(), running, class: FailureClass::OutOfMemory });
    let told: Vec<_> = reports(sent(effects)).iter().flat_map(failures).collect();
    assert_eq!(told, [(0, 4, FailureClass::OutOfMemory), (4, 2, FailureClass::Stopped), (0, 3, FailureClass::Stopped)]);
}

#[test]
fn a_stopped_lease_that_does_not_end_costs_its_executor() {
    let mut bench = Bench::open();
    bench.grant(1, 1);
    bench.hear(Down::Revoke(Revoke { leases: vec![lease(1)], unused: Vec::new() }));
    bench.disconnect();
    assert_eq!(bench.session.wake_at(), Some(bench.now + STOP_GRACE_MS));
    assert_eq!(bench.wait(STOP_GRACE_MS), [Effect::ReplaceExecutor { device: 0 }]);
}

#[test]
fn the_end_of_a_job_stops_its_leases_and_releases_it() {
    let mut bench = Bench::open();
    bench.grant(1, 1);
    let effects = bench.hear(Down::Release(ReleaseJobs { jobs: vec![1], kept: vec![] }));
    assert_eq!(effects, [stopped(1, StopReason::JobEnded), Effect::ReleaseJob(1)]);
    assert!(matches!(bench.hear(grants(false, vec![grant(2, 1)]))[..], [Effect::Disconnect { .. }]), "its stages are forgotten");
}

/// A part is on disk before it is reported: the end of its job in between left it there for as long as the process lived.
#[test]
fn parts_that_were_never_reported_go_with_their_job_as_well() {
    let mut bench = Bench::open();
    let output = Some(pb::OutputSpec { url: OUTPUT_ON_WORKERS.into(), ..pb::OutputSpec::default() });
    let stages = vec![StageInfo { job: 1, output, ..StageInfo::default() }];
    bench.hear(Down::Grants(Grants { stages, grants: vec![grant(1, 1)] }));
    assert_eq!(bench.connect_again(), [1], "a later leader may know that nobody needs them");
    let effects = bench.hear(Down::Release(ReleaseJobs { jobs: vec![1], kept: vec![] }));
    let all = pb::KeptParts { job: 1, ..pb::KeptParts::default() };
    assert_eq!(effects, [stopped(1, StopReason::JobEnded), Effect::ReleaseJob(1), Effect::ReleaseParts(all)]);
    assert_eq!(bench.connect_again(), [0; 0], "nothing is left to be told of");
}

#[test]
fn what_an_executor_says_twice_or_about_foreign_tasks_is_dropped() {
    let mut bench = Bench::open();
    bench.grant(1, 4);
    assert_eq!(bench.report(1, 0, 2, false).len(), 1);
    assert_eq!(bench.report(1, 0, 2, false), []);
    let report = bench.report(1, 1, 9, true).remove(0);
    assert_eq!((report.results[0].first_task, report.results[0].task_count), (2, 2));
    assert_eq!(report.results[0].tallies[0].values, [2, 3]);
}

#[test]
fn a_long_report_is_cut_and_no_message_is_longer_than_a_mebibyte() {
    let mut bench = Bench::open();
    bench.grant(1, 1_000_000);
    let results = TaskResults {
        first_task: 0,
        task_count: 1_000_000,
        tallies: vec![TallyValues { values: vec![u64::MAX; 1_000_000] }],
        ..TaskResults::default()
    };
    let progress =
        LeaseProgress { lease: Some(lease(1)), results: vec![results], final_report: true, busy_ns: 5, ..LeaseProgress::default() };
    let messages = sent(bench.tell(Input::Progress(vec![progress])));
    assert!(messages.iter().all(|message| WorkerMessage { message: Some(message.clone()) }.encoded_len() < 1 << 20));
    let reports = reports(messages);
    assert!(reports.iter().all(|report| report.results.iter().map(|r| r.task_count).sum::<u64>() <= 64 << 10));
    assert_eq!(reports.iter().flat_map(|report| &report.results).map(|r| r.task_count).sum::<u64>(), 1_000_000);
    assert_eq!(reports.iter().filter(|report| report.final_report).count(), 1);
    assert!(reports.last().unwrap().final_report);
    assert_eq!(reports.iter().map(|report| report.busy_ns).sum::<u64>(), 5, "time is told once");
}

#[test]
fn a_part_travels_with_the_result_of_its_task() {
    let mut bench = Bench::open();
    bench.grant(1, 40);
    let preview = vec![pb::PreviewRow { cells: vec!["x".repeat(60_000)], weight: 1 }];
    let parts = (0..40).map(|partition| pb::OutputPart { partition, preview: preview.clone(), ..pb::OutputPart::default() }).collect();
    let results = vec![TaskResults { first_task: 0, task_count: 40, ..TaskResults::default() }];
    let progress = LeaseProgress { lease: Some(lease(1)), results, parts, final_report: true, ..LeaseProgress::default() };
    let messages = sent(bench.tell(Input::Progress(vec![progress])));
    assert!(messages.iter().all(|message| WorkerMessage { message: Some(message.clone()) }.encoded_len() < 1 << 20));
    for report in reports(messages) {
        let tasks: Vec<u64> = report.results.iter().flat_map(|r| r.first_task..r.first_task + r.task_count).collect();
        let parts: Vec<u64> = report.parts.iter().map(|part| part.partition.into()).collect();
        assert_eq!(tasks, parts);
    }
}

#[test]
fn a_changed_offer_registers_anew_with_the_same_leader() {
    let mut bench = Bench::open();
    assert!(matches!(bench.tell(Input::DevicesChanged(Vec::new()))[..], [Effect::Disconnect { .. }]));
    assert_eq!(bench.disconnect(), [Effect::Connect { address: Some("a:1".into()), after_ms: 0 }]);
}

use prost::Message as _;

#[test]
fn a_worker_tells_which_leader_it_has_lost_until_another_welcomes_it() {
    let mut bench = Bench::open();
    assert_eq!(bench.disconnect(), [Effect::Connect { address: None, after_ms: BACKOFF_MIN_MS }]);
    assert_eq!(bench.session.left_leader(), Some("a:1"));
    let hello =
        |effects: Vec<Effect>| sent(effects).into_iter().find_map(|m| if let Up::Hello(hello) = m { Some(hello) } else { None }).unwrap();
    assert_eq!(hello(bench.tell(Input::Connected { address: "b:1".into() })).left_leader, "a:1");
    // A follower that knows no better does not change what was lost.
    bench.hear(Down::Redirect(Redirect { leader_address: String::new() }));
    bench.disconnect();
    assert_eq!(hello(bench.tell(Input::Connected { address: "c:1".into() })).left_leader, "a:1");
    bench.hear(welcome(&[]));
    assert_eq!(bench.session.left_leader(), None);
}

#[test]
fn a_silent_leader_is_left_long_before_the_leases_end() {
    let mut bench = Bench::open();
    bench.grant(1, 4);
    let beat = |bench: &mut Bench| {
        bench.wait(HEARTBEAT);
        bench.hear(Down::HeartbeatAck(pb::HeartbeatAck::default()));
    };
    (0..20).for_each(|_| beat(&mut bench));
    let (heard, wake) = (bench.now, bench.session.wake_at().unwrap());
    assert!(wake <= heard + HEARTBEAT);
    let left = loop {
        let effects = bench.wait(10);
        if effects.iter().any(|e| matches!(e, Effect::Disconnect { .. })) {
            break bench.now - heard;
        }
        assert!(bench.now - heard < TTL, "the leader was not left");
    };
    assert!((2 * HEARTBEAT..3 * HEARTBEAT).contains(&left), "{left}");
    assert_eq!((bench.session.left_leader(), bench.held()), (Some("a:1"), vec![1]), "its leases go on");
}

/// It left a leader whose answers lay unread in its own socket.
#[test]
fn a_worker_that_was_stopped_does_not_take_its_own_silence_for_the_leaders() {
    let mut bench = Bench::open();
    bench.grant(1, 4);
    let left = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Disconnect { .. }));
    let effects = bench.wait(TTL - HEARTBEAT);
    assert!(!left(&effects), "{effects:?}");
    // Still nothing to be read: now the silence is the leader's.
    let heard = bench.now;
    while !left(&bench.wait(10)) {
        assert!(bench.now - heard < 3 * HEARTBEAT, "the leader was not left");
    }
    // Stopped for longer than its leases last: they are over, whatever it has slept through.
    let mut bench = Bench::open();
    bench.grant(1, 4);
    let effects = bench.wait(TTL + 1);
    assert!(effects.iter().any(|e| matches!(e, Effect::StopLease { reason: StopReason::Unheard, .. })), "{effects:?}");
}

/// The largest report of each kind, through an executor that is not trusted with any limit.
mod largest {
    use super::*;

    const ENTRY_BYTES: usize = 1 << 20;
    const _: () = assert!(ENTRY_BYTES < raftwerk_transport::MAX_MESSAGE_BYTES);

    /// Tells the session all at once and returns the reports, each message within what the wire takes and a log entry holds.
    fn told(tasks: u64, progress: LeaseProgress) -> Vec<Report> {
        let mut bench = Bench::open();
        bench.grant(1, tasks);
        let messages = sent(bench.tell(Input::Progress(vec![LeaseProgress { lease: Some(lease(1)), final_report: true, ..progress }])));
        for message in &messages {
            let bytes = WorkerMessage { message: Some(message.clone()) }.encoded_len();
            assert!(bytes < ENTRY_BYTES, "{bytes} bytes");
        }
        let reports = reports(messages);
        assert!(reports.last().unwrap().final_report);
        let mut said: Vec<u64> =
            reports.iter().flat_map(|report| &report.results).flat_map(|r| r.first_task..r.first_task + r.task_count).collect();
        said.extend(failures(&reports).iter().flat_map(|f| f.first_task..f.first_task + f.task_count));
        said.sort_unstable();
        assert!(said.into_iter().eq(0..tasks), "each task is told once");
        reports
    }

    fn failures(reports: &[Report]) -> Vec<TaskFailure> {
        reports.iter().flat_map(|report| report.failures.clone()).collect()
    }

    fn results(tasks: u64, tallies: usize) -> Vec<TaskResults> {
        let values = TallyValues { values: vec![u64::MAX; tasks as usize] };
        vec![TaskResults { first_task: 0, task_count: tasks, tallies: vec![values; tallies], ..TaskResults::default() }]
    }

    #[test]
    fn a_long_message_for_each_task_is_cut_and_spread() {
        let failures: Vec<_> = (0..3000)
            .map(|task| TaskFailure {
                first_task: task,
                task_count: 1,
                class: pb::FailureClass::Worker.into(),
                message: "\u{1f980}".repeat(10_000),
                source_worker: 0,
            })
            .collect();
        let reports = told(3000, LeaseProgress { failures, ..LeaseProgress::default() });
        assert!(reports.len() > 5);
    }

    #[test]
    fn many_tallies_of_many_tasks_are_spread() {
        assert!(told(20_000, LeaseProgress { results: results(20_000, 30), ..LeaseProgress::default() }).len() > 5);
    }

    #[test]
    fn counters_and_bad_records_travel_with_their_tasks() {
        let mut all = results(20_000, 1);
        let counters = pb::TaskCounters { records_in: (0..20_000).collect(), bytes_in: vec![7], ..pb::TaskCounters::default() };
        all[0].counters = Some(counters);
        let bad = |task| pb::BadRecord { task, data: vec![b'x'; 9000].into(), reason: "it is short".into(), ..pb::BadRecord::default() };
        // Nothing of a task that is not of this lease.
        let bad_records: Vec<_> = (0..300).flat_map(|n| [n % 3 * 9_999, 20_000]).map(bad).collect();
        let reports = told(20_000, LeaseProgress { results: all, bad_records, ..LeaseProgress::default() });
        let mut kept = 0;
        for results in reports.iter().flat_map(|report| &report.results) {
            let counters = results.counters.as_ref().unwrap();
            assert!(counters.are_of(results.task_count) && counters.bytes_in == [7]);
            let expected = results.first_task..results.first_task + results.task_count;
            assert!(counters.records_in.is_empty() && results.first_task == 0 || counters.records_in.iter().copied().eq(expected));
        }
        for report in &reports {
            let told = |task: u64| report.results.iter().any(|r| r.first_task <= task && task < r.first_task + r.task_count);
            assert!(report.bad_records.iter().all(|bad| told(bad.task) && bad.data.len() == 256));
            kept += report.bad_records.len();
        }
        assert_eq!(kept, 300);
    }

    #[test]
    fn counters_of_another_number_of_tasks_are_no_result() {
        let mut all = results(4, 0);
        all[0].counters = Some(pb::TaskCounters { records_in: vec![1, 2], ..pb::TaskCounters::default() });
        let failures = failures(&told(4, LeaseProgress { results: all, ..LeaseProgress::default() }));
        assert!(failures.len() == 1 && failures[0].task_count == 4, "{failures:?}");
    }

    #[test]
    fn every_partition_with_a_full_preview_is_spread() {
        let row = pb::PreviewRow { cells: vec!["x".repeat(256); 4], weight: u64::MAX };
        let part = |partition| pb::OutputPart { partition, preview: vec![row.clone(); 20], ..pb::OutputPart::default() };
        let parts = (0..2000).map(part).collect();
        let reports = told(2000, LeaseProgress { results: results(2000, 1), parts, ..LeaseProgress::default() });
        assert_eq!(reports.iter().map(|report| report.parts.len()).sum::<usize>(), 2000);
    }

    #[test]
    fn a_result_that_fits_no_report_fails_its_task_and_no_other() {
        let parts = (0..3)
            .map(|partition| {
                let columns = if partition == 1 { vec!["x".repeat(2 << 20)] } else { Vec::new() };
                pb::OutputPart { partition, columns, ..pb::OutputPart::default() }
            })
            .collect();
        let reports = told(3, LeaseProgress { results: results(3, 1), parts, ..LeaseProgress::default() });
        let failures = failures(&reports);
        let [failure] = failures.as_slice() else { panic!("{failures:?}") };
        assert_eq!((failure.first_task, failure.task_count, failure.class()), (1, 1, pb::FailureClass::Fatal));
        assert!(failure.message.contains("the result of task 1 takes up to 20972"), "{}", failure.message);
    }

    #[test]
    fn a_task_with_more_tallies_than_a_report_holds_fails() {
        let reports = told(2, LeaseProgress { results: results(2, 100_000), ..LeaseProgress::default() });
        assert_eq!(failures(&reports).len(), 2);
    }
}

#[test]
fn addresses_of_schedulers_are_passed_on_when_they_are_told() {
    let mut bench = Bench::open();
    let ack = |schedulers: &[&str]| {
        let schedulers = schedulers.iter().map(|address| (*address).to_owned()).collect();
        Down::HeartbeatAck(pb::HeartbeatAck { sequence: 1, schedulers, ..pb::HeartbeatAck::default() })
    };
    assert_eq!(bench.hear(ack(&["a:1", "b:1"])), [Effect::KnowSchedulers(vec!["a:1".into(), "b:1".into()])]);
    assert!(bench.hear(ack(&[])).is_empty());
}

#[test]
fn what_uploads_lie_here_is_said_at_once_and_with_every_greeting_and_what_nobody_needs_is_passed_on() {
    let mut bench = Bench::open();
    let uploads = |message: &Effect| match message {
        Effect::Send(WorkerMessage { message: Some(worker_message::Message::Heartbeat(beat)) }) => Some(beat.uploads.clone()),
        Effect::Send(WorkerMessage { message: Some(worker_message::Message::Hello(hello)) }) => Some(hello.uploads.clone()),
        _ => None,
    };
    let now = bench.now;
    let said = bench.session.handle(now, Input::Uploads(vec!["a".into()]));
    assert_eq!(said.iter().find_map(uploads), Some(vec!["a".to_owned()]), "{said:?}");
    let ack = pb::HeartbeatAck { sequence: 1, unneeded_uploads: vec!["a".into()], ..pb::HeartbeatAck::default() };
    assert_eq!(bench.hear(Down::HeartbeatAck(ack)), [Effect::ReleaseUploads(vec!["a".into()])]);
    bench.session.handle(now, Input::Disconnected { reason: "cut".into(), jitter_permille: 0 });
    let greeting = bench.session.handle(now, Input::Connected { address: "b:1".into() });
    assert_eq!(greeting.iter().find_map(uploads), Some(vec!["a".to_owned()]));
}

#[test]
fn with_a_new_round_the_shuffle_data_of_earlier_ones_may_go_and_its_end_travels_with_the_result() {
    let mut bench = Bench::open();
    let described = |number: u32, first_generation: u32| {
        let round = pb::RoundInfo { number, first_generation, ..pb::RoundInfo::default() };
        let spec = pb::StageSpec { name: "map".into(), ..pb::StageSpec::default() };
        StageInfo { job: 1, spec: Some(spec), round: Some(round), ..StageInfo::default() }
    };
    let mut hear = |stage: StageInfo, index: u64| {
        let effects = bench.hear(Down::Grants(Grants { stages: vec![stage], grants: vec![grant(index, 1)] }));
        effects.into_iter().filter(|effect| matches!(effect, Effect::FreeRounds { .. })).collect::<Vec<_>>()
    };
    assert_eq!(hear(described(1, 1), 1), []);
    // Described again, by another leader say, it is the same round.
    assert_eq!(hear(described(1, 1), 2), []);
    assert_eq!(hear(described(3, 4), 3), [Effect::FreeRounds { job: 1, stage: "map".into(), before: 4 }]);
    let round_end = Some(pb::RoundEnd { round: 3, state: vec![7; 200_000].into(), ..pb::RoundEnd::default() });
    let results = vec![TaskResults { first_task: 0, task_count: 1, ..TaskResults::default() }];
    let progress = LeaseProgress { lease: Some(lease(3)), results, round_end: round_end.clone(), final_report: true, ..Default::default() };
    let told = reports(sent(bench.tell(Input::Progress(vec![progress.clone()]))));
    assert_eq!((told.len(), told[0].results.len(), &told[0].round_end), (1, 1, &round_end));
    // Without a result that counts it says nothing.
    let again = LeaseProgress { lease: Some(lease(2)), results: Vec::new(), ..progress };
    let told = reports(sent(bench.tell(Input::Progress(vec![again]))));
    assert!(told.iter().all(|report| report.round_end.is_none()) && !told.is_empty());
}
