//! Whatever can be decoded can be applied: no log, however absurd, makes `apply` panic or break a promise. The numbers are the ones that
//! overflow; the bytes are those of a real history with some of them changed.

mod support;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use raftwerk_core::plan::policy::policies;
use raftwerk_core::plan::{Proposal, View, propose};
use raftwerk_core::{Outcome, State, invariants};
use raftwerk_proto::OUTPUT_ON_WORKERS;
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::*;
use std::collections::BTreeSet;
use support::{Replica, device, hello, map_only, map_reduce};

/// Every kind of command by its name. The match has no arm for the rest, so that a new command does not compile before it stands here, and
/// [`every_kind_of_command_is_tried`] fails before the dice know it.
macro_rules! kinds {
    ($($name:ident)*) => {
        const KINDS: &[&str] = &[$(stringify!($name)),*];

        fn kind(command: &Command) -> &'static str {
            match command {
                $(Command::$name(_) => stringify!($name),)*
            }
        }
    };
}

kinds! {
    SubmitJob CancelJob RegisterWorker GrantLeases ReportResults EndLeases LoseWorker FinishPublish MintId FailJob EndQuarantine Forget RemakeParts
    RecordKept DropResult RecordCopies RemoveReplica NewEpoch DrainWorker SetNamespace ImportCosts HoldDevices ReleaseHold StartGang LoseKept
}

/// Small enough to hit something, or at an edge.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..12,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(1 << 63),
        1 => Just(1_000_000_000_000),
        1 => Just(u64::from(u32::MAX)),
        1 => any::<u64>(),
    ]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..4, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn capacity() -> impl Strategy<Value = Option<Capacity>> {
    prop::option::of((number(), number(), number()).prop_map(|(milli_cpu, memory_bytes, slots)| Capacity {
        milli_cpu,
        memory_bytes,
        slots,
    }))
}

fn a_device() -> impl Strategy<Value = Device> {
    (small(), capacity(), small(), prop::bool::weighted(0.7)).prop_map(|(index, capacity, parallelism, plain)| {
        let ours = device(index, "cpu", parallelism);
        if plain { ours } else { Device { capacity, ..ours } }
    })
}

fn source() -> impl Strategy<Value = Option<stage_input::Source>> {
    prop_oneof![
        4 => (number(), number(), number()).prop_map(|(start, count, tasks)| Some(stage_input::Source::Range(IndexRange { start, count, tasks }))),
        2 => (number(), prop::collection::vec((number(), number(), small(), small()), 0..4)).prop_map(|(split_bytes, files)| {
            let listing = files.into_iter().map(|(bytes, data_offset, record_bytes, groups)| InputFile { bytes, data_offset, record_bytes, groups, ..InputFile::default() });
            Some(stage_input::Source::Files(Files { split_bytes, listing: listing.collect(), ..Files::default() }))
        }),
        2 => "[mr]".prop_map(|stage| Some(stage_input::Source::Stage(StageOutput { stage }))),
        1 => Just(None),
    ]
}

fn wanted() -> impl Strategy<Value = Option<DeviceMatch>> {
    let wanted = (number(), prop::collection::vec("[az]?", 0..3)).prop_map(|(memory_bytes, words)| DeviceMatch {
        memory_bytes,
        vendors: words.clone(),
        labels: words.into_iter().map(|value| Label { key: "a".into(), value }).collect(),
        ..DeviceMatch::default()
    });
    prop::option::weighted(0.2, wanted)
}

fn gang() -> impl Strategy<Value = Option<Gang>> {
    prop::option::weighted(0.4, (small(), number()).prop_map(|(devices, ms)| Gang { devices, hold_ms: ms.saturating_add(1_000) }))
}

fn stage() -> impl Strategy<Value = StageSpec> {
    ("[mr]", source(), small(), 0i32..4, capacity(), number(), 0usize..3, (wanted(), wanted(), gang())).prop_map(
        |(name, source, partitions, kind, amount, max_lease_tasks, tallies, (require, prefer, gang))| StageSpec {
            require,
            prefer,
            gang,
            name,
            kernel: Some(KernelRef { name: "count".into(), version: 1, kind, tallies: vec!["t".into(); tallies], ..KernelRef::default() }),
            inputs: vec![StageInput { name: "i".into(), source }],
            partitions,
            device: Some(DeviceRequest { class: "any".into(), amount }),
            max_lease_tasks,
            footprint: if tallies == 1 { "a=1".into() } else { String::new() },
            shuffle_replicas: partitions % 3,
            memory: (tallies > 0).then_some(MemoryNeed {
                fixed_bytes: max_lease_tasks,
                per_task_bytes: max_lease_tasks,
                per_kilo_unit_bytes: max_lease_tasks,
                most_bytes: if tallies == 1 { 0 } else { max_lease_tasks },
            }),
            ..StageSpec::default()
        },
    )
}

/// Somewhere, or on so many workers.
fn output() -> impl Strategy<Value = OutputSpec> {
    let url = prop_oneof![Just("file:///o"), Just(OUTPUT_ON_WORKERS)];
    (url, small()).prop_map(|(url, copies)| OutputSpec { url: url.into(), copies, ..OutputSpec::default() })
}

fn spec() -> impl Strategy<Value = JobSpec> {
    prop_oneof![
        2 => (number(), gang()).prop_map(|(tasks, gang)| {
            let mut spec = map_only(tasks);
            spec.stages[0].gang = gang;
            spec
        }),
        2 => (number(), small(), output()).prop_map(|(tasks, partitions, output)| JobSpec { output: Some(output), ..map_reduce(tasks, partitions) }),
        2 => (prop::collection::vec(stage(), 0..4), small(), prop::option::of(output())).prop_map(|(stages, max_attempts, output)| JobSpec {
            namespace: "n".into(),
            stages,
            max_attempts,
            on_set_aside: i32::from(max_attempts % 2 == 0),
            output,
            ..JobSpec::default()
        }),
    ]
}

fn lease() -> impl Strategy<Value = Option<LeaseId>> {
    prop::option::weighted(
        0.95,
        (small(), 0u64..40, small()).prop_map(|(epoch, index, position)| LeaseId { epoch: epoch % 2, index, position }),
    )
}

fn placement() -> impl Strategy<Value = Placement> {
    let job = prop_oneof![4 => (1u64..6).prop_map(placement::Job::Id), 1 => small().prop_map(placement::Job::SubmittedAt), 1 => number().prop_map(placement::Job::Id)];
    (prop::option::weighted(0.95, job), small(), number(), number(), 1u64..4, 0u64..6, 0u32..2, any::<bool>(), number()).prop_map(
        |(job, stage, first_task, task_count, worker, session, device, speculative, expected_ms)| Placement {
            job,
            stage,
            first_task,
            task_count,
            worker,
            // The benches below register workers 1, 2 and 3 in the first entries.
            session: if session == 5 { u64::MAX } else { worker },
            device,
            speculative,
            expected_ms,
        },
    )
}

fn report() -> impl Strategy<Value = Report> {
    let results = prop::collection::vec((number(), number(), prop::collection::vec(prop::collection::vec(number(), 0..8), 0..3)), 0..3);
    let class = prop_oneof![12 => -1i32..12, 1 => Just(40), 3 => Just(60)];
    let failures = prop::collection::vec((number(), number(), class, number()), 0..3);
    (lease(), (number(), small(), small()), results, failures, any::<bool>(), (number(), number()), prop::collection::vec(small(), 0..3))
        .prop_map(|(lease, (job, stage, generation), results, failures, final_report, (busy_ns, input_bytes), parts)| Report {
            lease,
            job,
            stage,
            generation,
            results: results
                .into_iter()
                .map(|(first_task, task_count, columns)| {
                    // Often of the right length, or nothing would ever be accepted.
                    let task_count = if task_count > 64 && !columns.is_empty() { columns[0].len() as u64 } else { task_count };
                    let tallies = columns.into_iter().map(|mut values| {
                        if task_count < 64 {
                            values.resize(task_count as usize, u64::MAX);
                        }
                        TallyValues { values }
                    });
                    let tallies: Vec<TallyValues> = tallies.collect();
                    // One number for all tasks, or some, which may be too few or too many.
                    let some = tallies.first().map(|tally| tally.values.clone()).unwrap_or_default();
                    let counters = TaskCounters { bytes_in: vec![task_count], records_in: some, ..TaskCounters::default() };
                    let counters = (first_task % 3 > 0).then_some(counters);
                    TaskResults { first_task, task_count, tallies, counters }
                })
                .collect(),
            failures: failures
                .into_iter()
                .map(|(first_task, task_count, class, source_worker)| TaskFailure {
                    first_task,
                    task_count,
                    class,
                    message: "m".into(),
                    source_worker,
                })
                .collect(),
            final_report,
            busy_ns,
            input_bytes,
            // Who keeps them is not for the report to say.
            parts: parts
                .into_iter()
                .map(|partition| OutputPart {
                    partition,
                    worker: u64::from(partition),
                    copy_workers: vec![busy_ns; stage.min(3) as usize],
                    ..OutputPart::default()
                })
                .collect(),
            // The number of a worker, often, and of a process of it, sometimes.
            copy_worker: input_bytes,
            transfer_ns: busy_ns.rotate_left(7),
            copy_incarnation: u64::from(stage),
            ..Report::default()
        })
}

/// Of the kernel that the jobs here run, or of none.
fn cost() -> impl Strategy<Value = CostRecord> {
    let window = prop::collection::vec((number(), number()), 0..4);
    ("(count@1|sum@1|x)", "(|a=1)", small(), "(cpu 0|discrete 1|)", (number(), number(), number(), number()), window).prop_map(
        |(kernel, footprint, size_class, model, (fixed_ns, per_unit_fs, samples, spread_permille), window)| CostRecord {
            kernel,
            footprint,
            size_class,
            model,
            fixed_ns,
            per_unit_fs,
            samples,
            spread_permille,
            scores: vec![samples; 3],
            window: window.into_iter().map(|(units, ns)| CostSample { units, ns }).collect(),
            used_index: fixed_ns,
            ..CostRecord::default()
        },
    )
}

/// Parts by a name that most of them bear, which is none.
fn part_names() -> impl Strategy<Value = Vec<PartName>> {
    let name = (small(), "x?").prop_map(|(partition, staged_name)| PartName { partition, staged_name });
    prop::collection::vec(name, 0..4)
}

fn copied() -> impl Strategy<Value = Option<CopiedAgain>> {
    let pieces =
        prop::collection::vec((number(), number()).prop_map(|(first_task, task_count)| TaskPiece { first_task, task_count }), 0..4);
    let copied = (1u64..6, small(), small(), pieces, number(), number());
    prop::option::weighted(
        0.95,
        copied.prop_map(|(job, stage, generation, tasks, copy_worker, copy_incarnation)| CopiedAgain {
            job,
            stage,
            generation,
            tasks,
            copy_worker,
            copy_incarnation,
        }),
    )
}

fn terms() -> impl Strategy<Value = Option<NamespaceTerms>> {
    let terms =
        (0u32..1_002, small(), small()).prop_map(|(weight, max_jobs, max_devices)| NamespaceTerms { weight, max_jobs, max_devices });
    prop::option::weighted(0.9, terms)
}

fn command() -> impl Strategy<Value = Option<Command>> {
    prop_oneof![9 => of_work(), 2 => of_holdings_and_operators()]
}

/// What workers keep, what operators say, and what a recovery writes.
fn of_holdings_and_operators() -> impl Strategy<Value = Option<Command>> {
    prop_oneof![
        3 => (number(), number(), part_names()).prop_map(|(job, worker, parts)| Some(Command::RecordKept(RecordKept { job, worker, parts }))),
        2 => (number(), number(), part_names()).prop_map(|(job, worker, parts)| Some(Command::LoseKept(LoseKept { job, worker, parts }))),
        1 => number().prop_map(|job| Some(Command::DropResult(DropResult { job }))),
        3 => (number(), number(), copied())
            .prop_map(|(worker, session, copied)| Some(Command::RecordCopies(RecordCopies { worker, session, copied }))),
        2 => ("(default|n|a|-|Ä|)", terms()).prop_map(|(name, terms)| Some(Command::SetNamespace(SetNamespace { name, terms }))),
        1 => number().prop_map(|replica| Some(Command::RemoveReplica(RemoveReplica { replica }))),
        1 => (prop::collection::vec(number(), 0..3), any::<bool>())
            .prop_map(|(removed_replicas, forget_workers)| Some(Command::NewEpoch(NewEpoch { removed_replicas, forget_workers }))),
    ]
}

fn of_work() -> impl Strategy<Value = Option<Command>> {
    let a_hello = prop::collection::vec(a_device(), 0..3).prop_map(|devices| hello("w", 1, devices));
    prop_oneof![
        3 => (prop::option::weighted(0.95, spec()), "[ab]?").prop_map(|(spec, idempotency_key)| {
            Some(Command::SubmitJob(SubmitJob { spec, idempotency_key, ..SubmitJob::default() }))
        }),
        1 => number().prop_map(|job| Some(Command::CancelJob(CancelJob { job }))),
        1 => (number(), prop::option::of(a_hello)).prop_map(|(worker, hello)| Some(Command::RegisterWorker(RegisterWorker { worker, hello }))),
        8 => prop::collection::vec(placement(), 0..4).prop_map(|placements| Some(Command::GrantLeases(GrantLeases { placements }))),
        8 => (1u64..5, number(), prop::collection::vec(report(), 0..3)).prop_map(|(worker, session, reports)| {
            Some(Command::ReportResults(ReportResults { worker, session, reports }))
        }),
        1 => prop::collection::vec(lease(), 0..3).prop_map(|l| Some(Command::EndLeases(EndLeases { leases: l.into_iter().flatten().collect(), reason: String::new() }))),
        1 => (number(), number()).prop_map(|(worker, session)| Some(Command::LoseWorker(LoseWorker { worker, session, reason: String::new() }))),
        1 => (number(), "e?").prop_map(|(job, error)| Some(Command::FinishPublish(FinishPublish { job, error }))),
        1 => Just(Some(Command::MintId(MintId::default()))),
        1 => number().prop_map(|job| Some(Command::FailJob(FailJob { job, cause: "c".into() }))),
        1 => (prop::collection::vec(number(), 0..3), prop::collection::vec(number(), 0..3))
            .prop_map(|(jobs, workers)| Some(Command::Forget(Forget { jobs, workers }))),
        2 => (number(), prop::collection::vec(small(), 0..4)).prop_map(|(job, partitions)| {
            let parts = partitions.into_iter().map(|partition| LostPart { partition, ..LostPart::default() });
            Some(Command::RemakeParts(RemakeParts { job, parts: parts.collect() }))
        }),
        1 => number().prop_map(|worker| Some(Command::EndQuarantine(EndQuarantine { worker }))),
        1 => number().prop_map(|worker| Some(Command::DrainWorker(DrainWorker { worker }))),
        1 => prop::collection::vec(cost(), 0..3).prop_map(|costs| Some(Command::ImportCosts(ImportCosts { costs }))),
        3 => (1u64..6, small(), prop::collection::vec((0u64..5, small()), 0..4), number()).prop_map(|(job, stage, devices, until_ms)| {
            let devices = devices.into_iter().map(|(worker, device)| HeldDevice { worker, device }).collect();
            Some(Command::HoldDevices(HoldDevices { job, stage, devices, until_ms }))
        }),
        1 => (1u64..6, small(), number()).prop_map(|(job, stage, until_ms)| Some(Command::ReleaseHold(ReleaseHold { job, stage, until_ms }))),
        2 => (1u64..6, small(), prop::collection::vec(placement(), 0..4))
            .prop_map(|(job, stage, placements)| Some(Command::StartGang(StartGang { job, stage, placements }))),
        1 => Just(None),
    ]
}

fn entry() -> impl Strategy<Value = EntryBody> {
    let format = prop_oneof![4 => Just(4u32), 2 => Just(3u32), 2 => Just(2u32), 1 => Just(1u32), 1 => any::<u32>()];
    (format, number(), prop::collection::vec(command(), 0..4)).prop_map(|(format, at_ms, commands)| EntryBody {
        format,
        at_ms,
        commands: commands.into_iter().map(|command| raftwerk_proto::v1::Command { command }).collect(),
    })
}

/// Three workers, two jobs, some leases.
fn begun() -> Replica {
    let mut r = Replica::new();
    for worker in 1..4 {
        r.register(worker, vec![device(0, "cpu", 2), device(1, "discrete", 1)]);
    }
    r.submit(map_only(10));
    r.submit(map_reduce(10, 3));
    r.plan_and_grant();
    r
}

/// A node stops at what it does not know; until then it must hold its promises.
fn apply(state: &mut State, index: u64, body: EntryBody) -> Result<bool, TestCaseError> {
    let known = state.apply(index, body).is_ok();
    if known {
        invariants::check(state).map_err(TestCaseError::fail)?;
        // Nor does the planner, which a leader runs on every state; what it proposes is never stale.
        let present = state.workers.iter().filter(|(_, w)| !w.lost).map(|(id, w)| (*id, w.session)).collect();
        let suspects = state.workers.keys().copied().filter(|w| w.0 % 3 == index % 3).collect();
        let returning = Default::default();
        let Proposal { placements, gangs } = propose(&View {
            state,
            present: &present,
            suspects: &suspects,
            returning: &returning,
            full: &Default::default(),
            now: state.now,
            submitted: &[],
            policy: policies()[0],
        });
        let granted = Some(Command::GrantLeases(GrantLeases { placements }));
        let body = EntryBody { format: 2, at_ms: 0, commands: vec![raftwerk_proto::v1::Command { command: granted }] };
        let applied = state.clone().apply(index + 1, body).expect("a known command");
        prop_assert!(matches!(applied.outcomes[0], Outcome::Granted { stale: 0, .. }), "{:?}", applied.outcomes);
        if !gangs.is_empty() {
            let commands = gangs.into_iter().map(|step| raftwerk_proto::v1::Command { command: Some(step) }).collect();
            let mut next = state.clone();
            let applied = next.apply(index + 1, EntryBody { format: 4, at_ms: 0, commands }).expect("known commands");
            prop_assert!(!applied.outcomes.iter().any(|o| matches!(o, Outcome::Granted { stale: 1.., .. })), "{:?}", applied.outcomes);
            invariants::check(&next).map_err(TestCaseError::fail)?;
        }
    }
    Ok(known)
}

/// One that the dice never throw is one of which nothing is shown.
#[test]
fn every_kind_of_command_is_tried() {
    let mut runner = TestRunner::deterministic();
    let thrown: BTreeSet<&str> = (0..5_000).filter_map(|_| command().new_tree(&mut runner).unwrap().current().as_ref().map(kind)).collect();
    assert_eq!(thrown, KINDS.iter().copied().collect());
}

/// The dice find these too seldom.
#[test]
fn sums_that_overflow_neither_panic_nor_wrap() {
    let mut r = Replica::new();
    let endless = || InputFile { bytes: u64::MAX, record_bytes: 1, ..InputFile::default() };
    let mut job = map_only(1);
    job.stages[0].inputs[0].source =
        Some(stage_input::Source::Files(Files { split_bytes: 1, listing: vec![endless(), endless()], ..Files::default() }));
    let refused = r.apply(Command::SubmitJob(SubmitJob { spec: Some(job), ..SubmitJob::default() }));
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");

    // All that there is, less one; then two more.
    let all = Capacity { milli_cpu: u64::MAX, memory_bytes: u64::MAX, slots: u64::MAX };
    r.register(1, vec![Device { capacity: Some(all), ..device(0, "cpu", 2) }]);
    let asking = |amount: u64| {
        let mut job = map_only(10);
        let amount = Some(Capacity { milli_cpu: amount, memory_bytes: amount, slots: amount });
        job.stages[0].device = Some(DeviceRequest { class: "any".into(), amount });
        job
    };
    let (most, two) = (r.submit(asking(u64::MAX - 1)), r.submit(asking(2)));
    assert!(r.grant(most, 0, 0, 1, 1).is_some());
    assert!(r.grant(two, 0, 0, 1, 1).is_none(), "the device is promised twice");
    invariants::check(&r.state).expect("the promises");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_decodable_log_makes_apply_panic(entries in prop::collection::vec(entry(), 1..25)) {
        let r = begun();
        let (mut state, mut index) = (r.state, r.index);
        for body in entries {
            let mut attempt = state.clone();
            index += 1;
            if apply(&mut attempt, index, body)? {
                state = attempt;
            }
        }
    }

    #[test]
    fn changed_bytes_of_a_real_log_never_make_apply_panic(changes in prop::collection::vec((0usize..10_000, any::<u8>()), 1..20)) {
        let mut r = begun();
        for _ in 0..3 {
            let held: Vec<_> = r.state.leases.keys().copied().collect();
            held.into_iter().take(2).for_each(|id| r.finish(id));
            if let Some(id) = r.state.leases.keys().next().copied() {
                r.fail(id, FailureClass::Executor, "died");
            }
            r.lose(2);
            r.register(2, vec![device(0, "cpu", 2)]);
            r.pause_ms = 2_000;
            r.plan_and_grant();
        }
        let mut state = State::new("test");
        for (n, body) in r.log.iter().enumerate() {
            let mut bytes = body.encode_to_vec();
            for (at, byte) in changes.iter().filter(|(at, _)| at % r.log.len() == n) {
                let len = bytes.len();
                bytes[(at / r.log.len()) % len] ^= byte;
            }
            let Ok(body) = EntryBody::decode(bytes.as_slice()) else { continue };
            let mut attempt = state.clone();
            if apply(&mut attempt, n as u64 + 1, body)? {
                state = attempt;
            }
        }
    }

    #[test]
    fn changed_bytes_of_a_snapshot_are_refused_or_can_be_worked_with(changes in prop::collection::vec((0usize..100_000, any::<u8>()), 1..4), entries in prop::collection::vec(entry(), 1..6)) {
        let r = begun();
        let mut bytes = r.state.to_snapshot();
        for (at, byte) in changes {
            let len = bytes.len();
            bytes[at % len] ^= byte;
        }
        if let Ok(mut state) = State::from_snapshot("test", &bytes) {
            for (n, body) in entries.into_iter().enumerate() {
                let _ = state.apply(r.index + 1 + n as u64, body);
            }
            let _ = state.to_snapshot();
        }
    }
}
