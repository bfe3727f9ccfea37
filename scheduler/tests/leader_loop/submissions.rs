//! What becomes of a submit.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::{JobId, Phase, State, WorkerId};
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::worker_message::Message as Up;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{Answer, ConnId, Effect, Input, Leader, Limits, RequestId};

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
    let listed =
        Files { patterns: vec!["/data/*.txt".into()], format: "text".into(), split_bytes: 10, listing: vec![file], ..Files::default() };
    host.up(1, Up::Listing(InputListing { request: 3, inputs: vec![listed], ..InputListing::default() }));
    let effects = host.commit();
    assert_eq!(host.state.jobs[&JobId(1)].stages[0].tasks().len(), 3);
    let split = &grants(&effects)[0].grants[0].splits[0];
    assert_eq!(split.file.as_ref().map(|f| f.path.as_str()), Some("/data/a.txt"));
}

/// It would read them as they are.
#[test]
fn a_worker_whose_release_does_not_know_compressed_files_is_not_believed() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.connect(2, 8);
    let mut spec = files();
    let Some(stage_input::Source::Files(asked)) = &mut spec.stages[0].inputs[0].source else { panic!("files") };
    asked.compression = "gzip".into();
    let asked = asked.clone();
    host.submit(3, spec);
    let file = |compression: &str| InputFile { path: "/data/a".into(), bytes: 25, compression: compression.into(), ..InputFile::default() };
    let old = Files { compression: String::new(), listing: vec![file("")], ..asked.clone() };
    host.up(1, Up::Listing(InputListing { request: 3, inputs: vec![old], ..InputListing::default() }));
    assert!(host.proposed.is_none(), "the second one is waited for");
    let new = Files { split_bytes: 10, listing: vec![file("gzip")], ..asked };
    host.up(2, Up::Listing(InputListing { request: 3, inputs: vec![new], ..InputListing::default() }));
    host.commit();
    assert_eq!(host.state.jobs[&JobId(1)].stages[0].tasks().len(), 1, "one split, whatever its length");
}

/// The others would only say the same: it is the kernel that does not take the input.
#[test]
fn an_input_that_a_kernel_does_not_take_is_refused_by_the_first_word_of_a_worker() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.connect(2, 8);
    let spec = files();
    let asked = host.submit(3, spec.clone());
    let lists = |(_, message): (u64, &Down)| if let Down::ListInputs(list) = message { Some(list.clone()) } else { None };
    let readers = sent(&asked).find_map(lists).expect("a question").readers;
    let [reader] = readers.as_slice() else { panic!("{readers:?}") };
    assert_eq!((&reader.kernel, &reader.params, reader.sides_only), (&spec.stages[0].kernel, &spec.stages[0].params, false));
    assert_eq!(reader.names, [spec.stages[0].inputs[0].name.clone()]);
    let problem = "/data/a.npy has ..\nfix: convert it";
    let said = answers(&host.up(1, Up::Listing(InputListing { request: 3, input_problem: problem.into(), ..InputListing::default() })));
    assert_eq!(said, [Answer::Refused(problem.into())]);
    assert!(answers(&host.up(2, Up::Listing(InputListing { request: 3, ..InputListing::default() }))).is_empty(), "it is settled");
    assert!(host.proposed.is_none() && host.state.jobs.is_empty(), "nothing is left behind");
}

/// A job that writes one file for each input file cannot say how many these are.
#[test]
fn a_partition_for_each_task_is_counted_when_the_input_is_listed() {
    let mut host = Host::new();
    host.connect(1, 7);
    let mut spec = one_reduce_task();
    spec.stages[0].inputs = files().stages[0].inputs.clone();
    spec.stages[0].partition_per_task = true;
    let file = |name: &str| InputFile { path: format!("/data/{name}"), bytes: 7, record_bytes: 7, ..InputFile::default() };
    let listed = |count: usize| {
        let listing = ["a", "b", "c"].iter().cycle().take(count).map(|name| file(name)).collect();
        Files { patterns: vec!["/data/*".into()], format: "png".into(), split_bytes: 10, listing, ..Files::default() }
    };
    host.submit(3, spec.clone());
    host.up(1, Up::Listing(InputListing { request: 3, inputs: vec![listed(3)], ..InputListing::default() }));
    host.commit();
    let job = &host.state.jobs[&JobId(1)];
    assert_eq!((job.stages[0].tasks().len(), job.spec.stages[0].partitions, job.stages[1].tasks().len()), (3, 3, 3));
    assert!(!job.spec.stages[0].partition_per_task, "the log holds a number");

    host.submit(4, spec);
    let said = answers(&host.up(1, Up::Listing(InputListing { request: 4, inputs: vec![listed(10_001)], ..InputListing::default() })));
    assert!(matches!(said.as_slice(), [Answer::Refused(why)] if why.contains("would write 10001 files")), "{said:?}");
}

/// What a kernel makes of a sample of the input is the same in every replica, because it is in the log.
#[test]
fn a_survey_of_the_input_becomes_part_of_the_job() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.connect(2, 8);
    let mut spec = files();
    spec.stages[0].wants_survey = true;
    let asked = host.submit(3, spec);
    let requests: Vec<ListInputs> =
        sent(&asked).filter_map(|(_, m)| if let Down::ListInputs(request) = m { Some(request.clone()) } else { None }).collect();
    let [request, _] = requests.as_slice() else { panic!("{asked:?}") };
    assert_eq!((request.surveys.len(), request.surveys[0].input), (1, 0));
    assert!(request.surveys[0].kernel.is_some());

    let file = InputFile { path: "/data/a.txt".into(), bytes: 25, ..InputFile::default() };
    let listed =
        Files { patterns: vec!["/data/*.txt".into()], format: "text".into(), split_bytes: 10, listing: vec![file], ..Files::default() };
    let of_former_release = InputListing { request: 3, inputs: vec![listed], ..InputListing::default() };
    assert!(answers(&host.up(1, Up::Listing(of_former_release.clone()))).is_empty(), "the other one may know how");
    let surveys = vec![Survey { input: 0, survey: vec![1, 2, 3].into() }];
    host.up(2, Up::Listing(InputListing { surveys, ..of_former_release }));
    let effects = host.commit();
    let stage = &host.state.jobs[&JobId(1)].spec.stages[0];
    assert_eq!((stage.wants_survey, stage.survey.as_ref()), (false, [1, 2, 3].as_slice()));
    let info = grants(&effects)[0].stages[0].spec.as_ref().map(|spec| spec.survey.to_vec());
    assert_eq!(info, Some(vec![1, 2, 3]), "and workers are told with the stage");
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
    host.submit(1_000, JobSpec { name: "long".into(), ..numbers(1) });
    let running = grants(&host.commit())[0].grants[0].clone();
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
    assert_eq!(host.state.jobs.len(), 1 + accepted, "nothing may be forgotten before a day is over");
    // What was taken in goes on, and a replica that joins now, or starts again, has it from a snapshot.
    host.up(1, reports(result(&running, 1)));
    host.commit();
    assert!(matches!(host.state.jobs[&JobId(1)].phase, Phase::Done { .. }));
    let restored = State::from_snapshot("test", &host.state.to_snapshot()).expect("its own snapshot");
    assert_eq!(restored.hash(), host.state.hash());
    assert!(!refusals(&submit(&mut host)).is_empty(), "and there is no more room than before");
    // A day later.
    for _ in 0..25 {
        host.now += 3_600_000;
        host.beat(1);
    }
    host.beat(1);
    assert_eq!((host.state.jobs.len(), host.state.idempotency.len()), (5, 5));
    assert!(refusals(&submit(&mut host)).is_empty());
}

#[test]
fn workers_that_do_not_answer_are_no_reason_to_refuse_an_input_for_good() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.submit(1, files());
    assert!(answers(&host.wait(TIMING.listing_ms - 1)).is_empty());
    let said = answers(&host.wait(1));
    assert!(matches!(said.as_slice(), [Answer::Unavailable(_)]), "{said:?}");
}

/// Somebody may have a million files to look at. A client waits for a minute.
#[test]
fn a_worker_that_gives_signs_of_life_may_take_long_to_list() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.connect(2, 8);
    host.submit(1, files());
    let began = host.now;
    let no_mount = InputListing { request: 1, error: "no mount".into(), ..InputListing::default() };
    host.up(2, Up::Listing(no_mount));
    let said = loop {
        host.up(1, Up::Heartbeat(Heartbeat::default()));
        if let Some(answer) = answers(&host.wait(500)).pop() {
            break answer;
        }
    };
    assert_eq!(host.now - began, 50_000);
    assert!(
        matches!(&said, Answer::Precondition(text) if text.contains("no mount") && text.contains("1 did not answer in time")),
        "{said:?}"
    );
}

fn packed() -> InputListing {
    let pack = |number: u64, files: u64, tasks: u64| InputFile {
        path: format!("/data/{number}.txt"),
        bytes: 10 * tasks,
        pack_sha256: vec![number as u8; 32].into(),
        pack_files: files,
        pack_tasks: tasks,
        ..InputFile::default()
    };
    let listing = vec![pack(0, 4096, 2), pack(1, 4096, 0), pack(2, 17, 3)];
    let files = Files { patterns: vec!["/data/*.txt".into()], format: "text".into(), split_bytes: 10, listing, ..Files::default() };
    InputListing { request: 1, inputs: vec![files], ..InputListing::default() }
}

#[test]
fn of_packs_of_files_all_are_counted_and_a_grant_names_the_packs_of_its_tasks() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.submit(1, files());
    host.up(1, Up::Listing(packed()));
    let mut granted = grants(&host.commit());
    let job = &host.state.jobs[&JobId(1)];
    let Some(stage_input::Source::Files(files)) = &job.spec.stages[0].inputs[0].source else { panic!("files") };
    assert_eq!((files.listed_files, files.listed_bytes, job.stages[0].tasks().len()), (2 * 4096 + 17, 50, 5));
    let (mut covered, mut sequence) = (Vec::new(), 0);
    while let Some(some) = granted.pop() {
        for grant in &some.grants {
            let tasks: u64 = grant.splits.iter().map(|split| split.pack_tasks).sum();
            assert_eq!(tasks, grant.task_count);
            let of_split =
                |split: &Split| split.file.iter().map(|file| (file.pack_sha256[0], split.offset, split.pack_tasks)).collect::<Vec<_>>();
            covered.extend(grant.splits.iter().flat_map(of_split));
            sequence += 1;
            host.up(1, reports(result(grant, sequence)));
        }
        granted.extend(grants(&host.commit()));
    }
    covered.sort_unstable();
    let each: Vec<(u8, u64)> = covered.iter().flat_map(|(pack, first, count)| (*first..first + count).map(|task| (*pack, task))).collect();
    assert_eq!(each, [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]);
    assert!(host.state.jobs[&JobId(1)].phase.ended_at().is_some());
}

/// It would take a pack for a file.
#[test]
fn packs_go_to_no_worker_of_a_release_that_does_not_know_them() {
    let mut host = Host::new();
    host.connect(1, 7);
    let old = Hello { stage_graphs: false, ..hello(8) };
    host.input(Input::WorkerConnected { conn: ConnId(2), worker: WorkerId(8), hello: old });
    host.commit();
    host.submit(1, files());
    host.up(1, Up::Listing(packed()));
    let effects = host.commit();
    let asked: Vec<u64> = sent(&effects).filter_map(|(conn, m)| matches!(m, Down::Grants(_)).then_some(conn)).collect();
    assert_eq!(asked, [1]);
}

/// A leader that was asked before it is not asked by the next one, which has numbers of its own.
#[test]
fn a_listing_that_comes_to_the_next_leader_is_nobodys() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.submit(1, files());
    host.change_leader();
    host.connect(3, 7);
    host.up(3, Up::Listing(packed()));
    host.commit();
    assert!(host.state.jobs.is_empty());
    // The client repeats its submit.
    host.submit(1, files());
    host.up(3, Up::Listing(packed()));
    host.commit();
    assert_eq!(host.state.jobs.len(), 1);
}
