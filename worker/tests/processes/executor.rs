//! What an executor promises its agent.
use crate::{
    Named,
    driver::{Driver, index_stage, lease, run_index, stage},
    named,
};
use raftwerk_proto::v1::{
    BlockRange, ExecutorInput, FailureClass, Files, ForgetJobs, IndexRange, InputFile, LeaseProgress, RoundInfo, RunLease, StageInfo,
    StageOutput, StopLease, from_executor, stage_input::Source, to_executor,
};
use std::{
    fs,
    io::Write,
    os::unix::{fs::FileExt, process::ExitStatusExt},
    time::{Duration, Instant},
};

pub const TESTS: &[Named] = named![
    every_task_of_a_range_gets_its_own_result,
    a_panic_costs_one_task,
    a_parameter_that_is_refused_fails_the_tasks_and_not_the_process,
    an_unknown_kernel_is_this_workers_trouble,
    a_device_failure_is_not_the_tasks_fault,
    a_kernel_that_breaks_its_promise_fails_the_task,
    the_recorder_names_what_was_running_when_the_process_died,
    a_stopped_lease_ends_without_running_the_rest,
    leases_run_in_the_order_they_came,
    a_lease_may_come_in_several_messages,
    lines_become_blocks_with_checksums_in_the_output_file,
    bad_input_is_named_by_file_and_place,
    blocks_become_a_part_in_the_output_file,
    a_message_may_have_its_own_output_file_and_unchecked_blocks,
    a_file_of_blocks_that_was_cut_short_is_its_holders_trouble,
    hundreds_of_files_travel_with_one_lease,
    what_a_round_left_reaches_the_next_and_what_a_kernel_keeps_too,
    a_part_is_made_in_the_last_round_only,
    rounds_that_cannot_be_are_the_jobs_end_and_not_the_executors,
    progress_is_told_while_a_long_lease_runs,
    an_executor_holds_no_path_and_no_other_socket,
    a_file_cut_short_kills_the_executor_only,
    the_executor_ends_with_its_socket,
    a_failed_self_test_says_why,
];

pub const MEASURES: &[Named] = named![measure_tasks_in_one_lease, measure_one_task_leases];

/// Sorted, and joined where they touch: how many reports they came in is a matter of time.
fn failures(progress: &LeaseProgress) -> Vec<(u64, u64, FailureClass)> {
    let mut failures: Vec<_> = progress.failures.iter().map(|f| (f.first_task, f.task_count, f.class())).collect();
    failures.sort_by_key(|failure| failure.0);
    failures.dedup_by(|next, before| {
        let touches = before.0 + before.1 == next.0 && before.2 == next.2;
        before.1 += if touches { next.1 } else { 0 };
        touches
    });
    failures
}

fn succeeded(progress: &LeaseProgress) -> u64 {
    progress.results.iter().map(|results| results.task_count).sum()
}

fn trouble(what: &str, tasks: u64) -> LeaseProgress {
    let mut driver = Driver::new(2);
    driver.define(index_stage("t-trouble", &[], tasks, tasks, &[("do", what)]));
    driver.run(run_index(1, 0, tasks), &[]);
    driver.finish(lease(1))
}

fn every_task_of_a_range_gets_its_own_result() {
    let mut driver = Driver::new(2);
    driver.define(index_stage("t-sums", &["start"], 1_000_000, 100_000, &[]));
    driver.run(run_index(1, 500, 99_000), &[]);
    let progress = driver.finish(lease(1));
    let mut next = 500;
    for results in &progress.results {
        assert_eq!(results.first_task, next);
        let expected: Vec<u64> = (next..next + results.task_count).map(|task| task * 10).collect();
        assert_eq!(results.tallies[0].values, expected);
        next += results.task_count;
    }
    assert_eq!(next, 99_500);
    assert!(progress.busy_ns > 0 && progress.failures.is_empty());
    assert!(driver.end().0.success());
}

fn a_panic_costs_one_task() {
    let progress = trouble("panic", 6);
    assert_eq!(failures(&progress), [(3, 1, FailureClass::Task)]);
    assert_eq!(progress.failures[0].message, "the kernel panicked: task three is unlucky");
    assert_eq!(succeeded(&progress), 5);
}

fn a_parameter_that_is_refused_fails_the_tasks_and_not_the_process() {
    let progress = trouble("refuse", 6);
    assert_eq!(failures(&progress), [(0, 6, FailureClass::Input)]);
    assert!(progress.failures[0].message.contains("`do` must not be `refuse`"));
}

fn an_unknown_kernel_is_this_workers_trouble() {
    let mut driver = Driver::new(1);
    driver.define(index_stage("t-unknown", &[], 2, 2, &[]));
    driver.run(run_index(1, 0, 2), &[]);
    let progress = driver.finish(lease(1));
    assert_eq!(failures(&progress), [(0, 2, FailureClass::Worker)]);
    assert!(progress.failures[0].message.contains("`t-unknown` version 1"));
}

fn a_device_failure_is_not_the_tasks_fault() {
    assert_eq!(failures(&trouble("device", 6)), [(3, 1, FailureClass::Device)]);
}

fn a_kernel_that_breaks_its_promise_fails_the_task() {
    let progress = trouble("lie", 6);
    assert_eq!(failures(&progress), [(3, 1, FailureClass::Task)]);
    assert!(progress.failures[0].message.contains("1 tallies"));
}

fn the_recorder_names_what_was_running_when_the_process_died() {
    let mut driver = Driver::new(1);
    driver.define(index_stage("t-trouble", &[], 6, 6, &[("do", "abort")]));
    driver.run(run_index(1, 0, 6), &[]);
    while driver.receive().is_some() {}
    assert_eq!(driver.recorder.running(), [(lease(1).into(), 3, 1)]);
    let (status, output) = driver.end();
    assert_eq!(status.signal(), Some(6));
    assert!(output.contains("about to abort"));
}

fn a_stopped_lease_ends_without_running_the_rest() {
    let mut driver = Driver::new(2);
    driver.define(index_stage("t-trouble", &[], 1000, 1000, &[("do", "sleep")]));
    driver.run(run_index(1, 0, 1000), &[]);
    std::thread::sleep(Duration::from_millis(100));
    let asked = Instant::now();
    driver.send(to_executor::Message::Stop(StopLease { lease: Some(lease(1)) }));
    let progress = driver.finish(lease(1));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    let dropped: u64 = progress.failures.iter().map(|f| f.task_count).sum();
    assert!(progress.failures.iter().all(|f| f.class() == FailureClass::Stopped));
    assert!(succeeded(&progress) > 0 && dropped > 900);
    assert_eq!(succeeded(&progress) + dropped, 1000, "every task is told once");
    // An executor that was told to stop a lease it does not know goes on.
    driver.send(to_executor::Message::Stop(StopLease { lease: Some(lease(9)) }));
    driver.run(run_index(2, 0, 1), &[]);
    assert_eq!(succeeded(&driver.finish(lease(2))), 1);
}

fn leases_run_in_the_order_they_came() {
    let mut driver = Driver::new(1);
    driver.define(index_stage("t-trouble", &[], 10, 10, &[("do", "sleep")]));
    for index in 1..=3 {
        driver.run(run_index(index, 0, 3), &[]);
    }
    let mut ends = Vec::new();
    while ends.len() < 3 {
        if let Some(from_executor::Message::Progress(progress)) = driver.receive().unwrap().message
            && progress.final_report
        {
            ends.push(progress.lease.unwrap().index);
        }
    }
    assert_eq!(ends, [1, 2, 3]);
}

fn a_lease_may_come_in_several_messages() {
    let mut driver = Driver::new(2);
    driver.define(index_stage("t-sums", &["start"], 100, 100, &[]));
    driver.run(RunLease { more: true, ..run_index(1, 0, 10) }, &[]);
    std::thread::sleep(Duration::from_millis(30)); // long done, and still not the end
    driver.run(RunLease { more: true, ..run_index(1, 10, 10) }, &[]);
    driver.run(run_index(1, 0, 0), &[]);
    assert_eq!(succeeded(&driver.finish(lease(1))), 20);
    // Stopped while more was promised: what came is told, and the lease ends.
    driver.run(RunLease { more: true, ..run_index(2, 0, 10) }, &[]);
    std::thread::sleep(Duration::from_millis(30));
    driver.send(to_executor::Message::Stop(StopLease { lease: Some(lease(2)) }));
    assert_eq!(succeeded(&driver.finish(lease(2))), 10);
}

/// Splits of one text file, two bytes each at most.
fn text_inputs(text: &str, split: u64) -> Vec<ExecutorInput> {
    let bytes = text.len() as u64;
    let file = InputFile { path: "/data/input.txt".into(), bytes, ..InputFile::default() };
    let input = |at| ExecutorInput { offset: at, bytes: split.min(bytes - at), file: Some(file.clone()), ..ExecutorInput::default() };
    (0..bytes).step_by(split as usize).map(input).collect()
}

fn with_text(text: &str) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn lines_become_blocks_with_checksums_in_the_output_file() {
    let text = "one\ntwo\nthree\r\nfour\nfive five\nsix";
    let inputs = text_inputs(text, 5);
    let tasks = inputs.len() as u64;
    let output = tempfile::tempfile().unwrap();
    let mut driver = Driver::new(2);
    driver.define(stage("t-lines", &["lines"], Source::Files(Files { format: "text".into(), ..Files::default() }), tasks, 3, &[]));
    driver.run(RunLease { inputs, has_output: true, ..run_index(1, 0, tasks) }, &[&with_text(text), &output]);
    let progress = driver.finish(lease(1));
    assert!(progress.failures.is_empty(), "{:?}", progress.failures);
    assert_eq!(progress.results.iter().flat_map(|r| &r.tallies[0].values).sum::<u64>(), 6);
    assert_eq!(progress.input_bytes, text.len() as u64);
    let mut blocks = progress.blocks;
    blocks.sort_by_key(|block| (block.partition, block.task));
    let mut lines = Vec::new();
    for block in &blocks {
        let mut bytes = vec![0; block.bytes as usize];
        output.read_exact_at(&mut bytes, block.offset).unwrap();
        assert_eq!(crc32c::crc32c(&bytes), block.crc32c);
        lines.extend(String::from_utf8(bytes).unwrap().lines().map(|line| (block.partition, line.to_owned())));
    }
    lines.sort();
    let expected = [(0, "three"), (1, "five five"), (1, "one"), (1, "two")].map(|(p, line)| (p, line.to_owned()));
    let others = [(0, "six".to_owned()), (2, "four".to_owned())];
    let mut all: Vec<_> = expected
        .into_iter()
        .chain(others)
        .map(|(_, line)| ((line.len() + usize::from(line != "six") + usize::from(line == "three")) as u32 % 3, line))
        .collect();
    all.sort();
    assert_eq!(lines, all);
}

fn bad_input_is_named_by_file_and_place() {
    let text = "good\nbad\n";
    let inputs = text_inputs(text, 5);
    let output = tempfile::tempfile().unwrap();
    let mut driver = Driver::new(1);
    driver.define(stage("t-lines", &["lines"], Source::Files(Files { format: "text".into(), ..Files::default() }), 2, 1, &[]));
    driver.run(RunLease { inputs, has_output: true, ..run_index(1, 0, 2) }, &[&with_text(text), &output]);
    let progress = driver.finish(lease(1));
    assert_eq!(failures(&progress), [(1, 1, FailureClass::Input)]);
    assert_eq!(progress.failures[0].message, "a bad line (in /data/input.txt at line 2, byte 5)");
}

fn blocks_become_a_part_in_the_output_file() {
    let block = |task, offset, bytes| BlockRange { task, offset, bytes, ..BlockRange::default() };
    let blocks = vec![block(2, 2, 4), block(7, 0, 2)];
    let inputs = vec![
        ExecutorInput { descriptor: 0, bytes: 6, blocks, ..ExecutorInput::default() },
        ExecutorInput { descriptor: 1, ..ExecutorInput::default() }, // nobody wrote anything: no descriptor behind it
    ];
    let output = tempfile::tempfile().unwrap();
    let mut driver = Driver::new(1);
    driver.define(stage("t-gather", &["rows"], Source::Stage(StageOutput { stage: "map".into() }), 2, 0, &[]));
    driver.run(RunLease { inputs, has_output: true, ..run_index(1, 0, 2) }, &[&with_text("z\na\nb\n"), &output]);
    let progress = driver.finish(lease(1));
    assert!(progress.failures.is_empty(), "{:?}", progress.failures);
    let part = &progress.parts[0];
    assert_eq!((part.name.as_str(), part.bytes, part.rows, progress.parts[1].bytes), ("part-00000.csv", 6, 3, 0));
    let range = progress.part_ranges.iter().find(|range| range.task == 0).unwrap();
    let mut bytes = vec![0; range.bytes as usize];
    output.read_exact_at(&mut bytes, range.offset).unwrap();
    assert_eq!((bytes.as_slice(), crc32c::crc32c(&bytes)), (&b"a\nb\nz\n"[..], part.crc32c));
}

/// A part that comes alone has a file of its own, and blocks that nobody has looked at are looked at here; with a limit of memory they are read, and
/// not mapped.
fn a_message_may_have_its_own_output_file_and_unchecked_blocks() {
    unchecked_blocks(Driver::new(1));
    unchecked_blocks(Driver::of_device("cpu", &["--memory", "16777216"]));
}

fn unchecked_blocks(mut driver: Driver) {
    let (first, second) = (with_text("a\nb\n"), with_text("-c\n"));
    let block = |descriptor: u32, offset, bytes, text: &str| BlockRange {
        task: descriptor.into(),
        offset,
        bytes,
        descriptor,
        unchecked: true,
        crc32c: crc32c::crc32c(text.as_bytes()),
        input: 0,
    };
    driver.define(stage("t-gather", &["rows"], Source::Stage(StageOutput { stage: "map".into() }), 2, 0, &[]));
    let blocks = vec![block(0, 2, 2, "b\n"), block(1, 1, 2, "c\n")];
    let damaged = vec![block(0, 0, 2, "a\n"), block(1, 0, 2, "c\n")];
    let outputs = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    for (task, blocks) in [(0, blocks), (1, damaged)] {
        let inputs = vec![ExecutorInput { blocks, ..ExecutorInput::default() }];
        let run = RunLease { inputs, has_output: true, own_output: true, more: task == 0, ..run_index(1, task, 1) };
        driver.run(run, &[&first, &second, &outputs[task as usize]]);
    }
    let progress = driver.finish(lease(1));
    assert_eq!(failures(&progress), [(1, 1, FailureClass::Source)]);
    assert!(progress.failures[0].message.contains("the block of task 1 is damaged: its checksum is "), "{:?}", progress.failures);
    let (part, range) = (&progress.parts[0], &progress.part_ranges[0]);
    assert_eq!((part.name.as_str(), part.bytes, part.rows, range.offset, range.bytes), ("part-00000.csv", 4, 2, 0, 4));
    let mut bytes = vec![0; 4];
    outputs[0].read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes.as_slice(), part.crc32c), (&b"b\nc\n"[..], crc32c::crc32c(b"b\nc\n")));
    assert_eq!(outputs[0].metadata().unwrap().len(), 4);

    // What came over the network was looked at, and lies in a file beside those of this worker.
    let (fetched, output) = (with_text("d\na\n"), tempfile::tempfile().unwrap());
    let checked = BlockRange { task: 1, bytes: 4, descriptor: 1, ..BlockRange::default() };
    let blocks = vec![block(0, 2, 2, "b\n"), checked, block(2, 1, 2, "c\n")];
    let inputs = vec![ExecutorInput { blocks, ..ExecutorInput::default() }];
    let run = RunLease { inputs, has_output: true, own_output: true, ..run_index(2, 0, 1) };
    driver.run(run, &[&first, &fetched, &second, &output]);
    let progress = driver.finish(lease(2));
    assert!(progress.failures.is_empty(), "{:?}", progress.failures);
    let mut bytes = vec![0; 8];
    output.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, b"b\nd\na\nc\n");
}

fn a_file_of_blocks_that_was_cut_short_is_its_holders_trouble() {
    let (short, output) = (with_text("a\n"), tempfile::tempfile().unwrap());
    let beyond = BlockRange { task: 9, offset: 1, bytes: 2, unchecked: true, ..BlockRange::default() };
    let mut driver = Driver::of_device("cpu", &["--memory", "16777216"]);
    driver.define(stage("t-gather", &["rows"], Source::Stage(StageOutput { stage: "map".into() }), 1, 0, &[]));
    let inputs = vec![ExecutorInput { blocks: vec![beyond], ..ExecutorInput::default() }];
    driver.run(RunLease { inputs, has_output: true, own_output: true, ..run_index(1, 0, 1) }, &[&short, &output]);
    let progress = driver.finish(lease(1));
    assert_eq!(failures(&progress), [(0, 1, FailureClass::Source)]);
    assert!(progress.failures[0].message.contains("cannot read the block of task 9: "), "{:?}", progress.failures);
}

fn hundreds_of_files_travel_with_one_lease() {
    let files: Vec<fs::File> = (0..250).map(|i| with_text(&"x\n".repeat(i % 3))).collect();
    let input = |i: usize| ExecutorInput {
        descriptor: i as u32,
        offset: 0,
        bytes: 2 * (i as u64 % 3),
        file: Some(InputFile::default()),
        ..ExecutorInput::default()
    };
    let mut driver = Driver::new(2);
    driver.define(stage("t-lines", &["lines"], Source::Files(Files { format: "text".into(), ..Files::default() }), 1000, 1, &[]));
    let output = tempfile::tempfile().unwrap();
    for message in 0..4 {
        let first = message == 0;
        let mut descriptors: Vec<&fs::File> = files.iter().collect();
        descriptors.extend(first.then_some(&output));
        let inputs = (0..250).map(input).collect();
        driver.run(RunLease { inputs, has_output: first, more: message < 3, ..run_index(1, message * 250, 250) }, &descriptors);
    }
    let progress = driver.finish(lease(1));
    assert!(progress.failures.is_empty(), "{:?}", progress.failures);
    assert_eq!(progress.results.iter().flat_map(|r| &r.tallies[0].values).sum::<u64>(), 4 * (0..250).map(|i| i % 3).sum::<u64>());
}

fn progress_is_told_while_a_long_lease_runs() {
    let mut driver = Driver::new(1);
    driver.define(index_stage("t-trouble", &[], 25, 25, &[("do", "sleep")]));
    driver.run(run_index(1, 0, 25), &[]);
    let mut messages = 0;
    let mut ended = false;
    while !ended {
        let Some(from_executor::Message::Progress(progress)) = driver.receive().unwrap().message else { panic!() };
        messages += 1;
        ended = progress.final_report;
    }
    assert!((3..=12).contains(&messages), "{messages} messages in half a second");
}

fn an_executor_holds_no_path_and_no_other_socket() {
    let mut driver = Driver::new(2);
    driver.define(index_stage("t-trouble", &[], 100, 100, &[("do", "sleep")]));
    driver.run(run_index(1, 0, 100), &[]);
    std::thread::sleep(Duration::from_millis(100));
    let (mut sockets, mut others) = (0, Vec::new());
    for entry in fs::read_dir(format!("/proc/{}/fd", driver.child.id())).unwrap() {
        let path = entry.unwrap().path();
        let number: u32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(&path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
        match target.as_str() {
            _ if number <= 2 => {}
            socket if socket.starts_with("socket:") => sockets += 1,
            _ => others.push(target),
        }
    }
    // The socket pair, once for reading and once for writing; the mapping of the recorder needs no descriptor.
    assert_eq!(sockets, 2);
    assert_eq!(others, [] as [String; 0]);
}

fn a_file_cut_short_kills_the_executor_only() {
    let text = "line\n".repeat(100_000);
    let file = with_text(&text);
    let inputs = text_inputs(&text, text.len() as u64);
    let output = tempfile::tempfile().unwrap();
    let mut driver = Driver::new(1);
    driver.define(stage("t-trouble", &[], Source::Files(Files { format: "text".into(), ..Files::default() }), 100, 1, &[("do", "sleep")]));
    // The first lease keeps the only thread busy while the file of the second is cut.
    driver.define(index_stage("t-trouble", &[], 20, 20, &[("do", "sleep")]));
    driver.run(run_index(1, 0, 10), &[]);
    driver.define(stage("t-lines", &["lines"], Source::Files(Files { format: "text".into(), ..Files::default() }), 1, 1, &[]));
    driver.run(RunLease { inputs, has_output: true, ..run_index(2, 0, 1) }, &[&file, &output]);
    std::thread::sleep(Duration::from_millis(50));
    file.set_len(10).unwrap();
    while driver.receive().is_some() {}
    assert_eq!(driver.recorder.running(), [(lease(2).into(), 0, 1)]);
    assert_eq!(driver.end().0.signal(), Some(7), "SIGBUS");
}

fn the_executor_ends_with_its_socket() {
    let mut driver = Driver::new(1);
    driver.define(index_stage("t-trouble", &[], 6, 6, &[("do", "hang")]));
    driver.run(run_index(1, 0, 6), &[]);
    std::thread::sleep(Duration::from_millis(50));
    let asked = Instant::now();
    assert!(driver.end().0.success(), "a hanging kernel does not keep it");
    assert!(asked.elapsed() < Duration::from_secs(5));
}

fn a_failed_self_test_says_why() {
    let mut driver = Driver::spawn("cpu", 1, &[], &[("TEST_SELF_TEST_FAILS", "two and two were five")]);
    assert!(driver.receive().is_none());
    let (status, output) = driver.end();
    assert_eq!(status.code(), Some(raftwerk_worker::executor::EXIT_SELF_TEST));
    assert!(output.contains("self test: two and two were five"), "{output}");
}

fn measure_tasks_in_one_lease() {
    let mut driver = Driver::new(1);
    let tasks = 20_000_000;
    driver.define(index_stage("t-sums", &["start"], tasks, tasks, &[]));
    driver.run(run_index(1, 0, 1000), &[]);
    driver.finish(lease(1));
    let started = Instant::now();
    driver.run(run_index(2, 0, tasks), &[]);
    let progress = driver.finish(lease(2));
    let elapsed = started.elapsed();
    assert_eq!(succeeded(&progress), tasks);
    println!("{:.2} M tasks/s in one lease on one thread ({tasks} in {elapsed:?})", tasks as f64 / elapsed.as_secs_f64() / 1e6);
}

fn measure_one_task_leases() {
    let mut driver = Driver::new(1);
    driver.define(index_stage("t-sums", &["start"], 1, 1, &[]));
    let leases = 500_000u64;
    // As the agent does it: what is pending goes out in one write; 256 leases are under way at most.
    let (mut sent, mut ended) = (0u64, 0);
    let started = Instant::now();
    while ended < leases {
        let mut bytes = Vec::new();
        while sent < leases && sent - ended < 256 {
            let message = to_executor::Message::Run(run_index(sent, 0, 1));
            raftwerk_worker::frame::push(&mut bytes, &raftwerk_proto::v1::ToExecutor { message: Some(message) });
            sent += 1;
        }
        driver.socket.write_all(&bytes).unwrap();
        let before = ended;
        while ended == before || sent - ended > 128 {
            let Some(from_executor::Message::Progress(progress)) = driver.receive().unwrap().message else { panic!() };
            ended += u64::from(progress.final_report);
            if sent == leases && ended == leases {
                break;
            }
        }
    }
    println!("{:.0} one-task leases/s through the socket", leases as f64 / started.elapsed().as_secs_f64());
}

fn in_round(info: StageInfo, number: u32, state: &[u8]) -> StageInfo {
    StageInfo { round: Some(RoundInfo { number, state: state.to_vec().into(), ..RoundInfo::default() }), ..info }
}

fn walk() -> StageInfo {
    stage("t-walk", &["left", "rounds"], Source::Range(IndexRange { start: 0, count: 4, tasks: 4 }), 4, 1, &[])
}

fn step() -> StageInfo {
    stage("t-step", &[], Source::Stage(StageOutput { stage: "t-walk".into() }), 1, 0, &[])
}

fn what_a_round_left_reaches_the_next_and_what_a_kernel_keeps_too() {
    let mut driver = Driver::new(1);
    // A device that had nothing to do in the third round has kept what it had.
    for (index, round, state, rounds) in [(1, 1, &b""[..], 1), (2, 2, b"xy", 2), (3, 4, b"xyz", 3)] {
        driver.define(in_round(walk(), round, state));
        driver.run(RunLease { has_output: true, ..run_index(index, 0, 4) }, &[&tempfile::tempfile().unwrap()]);
        let progress = driver.finish(lease(index));
        let tallies: Vec<Vec<u64>> = progress.results[0].tallies.iter().map(|tally| tally.values.clone()).collect();
        assert_eq!(tallies, [[state.len() as u64; 4], [rounds; 4]], "{progress:?}");
    }
    driver.send(to_executor::Message::Forget(ForgetJobs { jobs: vec![1] }));
    driver.define(in_round(walk(), 5, b"xyz"));
    driver.run(RunLease { has_output: true, ..run_index(4, 0, 1) }, &[&tempfile::tempfile().unwrap()]);
    assert_eq!(driver.finish(lease(4)).results[0].tallies[1].values, [1], "a job that has ended keeps nothing");
}

/// Runs the task that ends a round.
fn run_step(driver: &mut Driver, index: u64, info: StageInfo) -> LeaseProgress {
    driver.define(info);
    let inputs = vec![ExecutorInput::default()];
    driver.run(RunLease { inputs, has_output: true, ..run_index(index, 0, 1) }, &[&tempfile::tempfile().unwrap()]);
    driver.finish(lease(index))
}

fn a_part_is_made_in_the_last_round_only() {
    let mut driver = Driver::new(1);
    let round = |number, state, last, all| {
        let info = in_round(step(), number, state);
        StageInfo { round: info.round.map(|round| RoundInfo { last, all, ..round }), ..info }
    };
    let cases = [
        (round(1, b"", false, false), 0, false),
        (round(2, b"x", true, false), 1, false),
        (round(3, b"xx", false, false), 1, true),
        (round(3, b"xx", false, true), 0, true),
    ];
    for (index, (info, parts, converged)) in (1..).zip(cases) {
        let progress = run_step(&mut driver, index, info);
        let end = progress.round_end.clone().expect("the end of a round");
        assert_eq!((progress.parts.len(), end.converged, succeeded(&progress)), (parts, converged, 1));
        assert_eq!(end.measures[0].value, end.state.len().to_string());
    }
}

fn rounds_that_cannot_be_are_the_jobs_end_and_not_the_executors() {
    let mut driver = Driver::new(1);
    let progress = run_step(&mut driver, 1, in_round(step(), 7, b"xxxxxxxxx"));
    assert_eq!(failures(&progress), [(0, 1, FailureClass::Fatal)]);
    assert!(progress.failures[0].message.contains("leaves 307200 bytes") && progress.round_end.is_none(), "{progress:?}");
    driver.define(in_round(index_stage("t-sums", &["start"], 1, 1, &[]), 1, b""));
    driver.run(run_index(2, 0, 1), &[]);
    let progress = driver.finish(lease(2));
    assert!(progress.failures[0].message.contains("kernel 't-sums' knows no rounds"), "{progress:?}");
}
