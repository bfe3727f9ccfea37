//! What an agent promises the scheduler, with real executors behind it.
use crate::{
    Named,
    cluster::{Cluster, Session},
    driver::{index_stage, lease, stage},
    named,
};
use raftwerk_proto::v1::{
    CopiedBlock, CopiedBlocks, CopyHeader, CopyTarget, FailureClass, FetchLogs, Files, Grant, Grants, IfExists, InputFile, KeepCopyRequest,
    ListInputs, OutputSpec, Publish, ReleaseJobs, Report, ShuffleBlock, ShuffleSource, Split, StageInfo, StageInput, StageOutput,
    TaskRange, keep_copy_request, scheduler_message::Message as Down, stage_input::Source, worker_data_client::WorkerDataClient,
    worker_message::Message as Up,
};
use raftwerk_transport::{PeerKind, connect};
use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub const TESTS: &[Named] = named![
    an_index_stage_runs_from_grant_to_report,
    lines_go_through_two_workers_and_come_out_published,
    a_flipped_byte_in_shuffle_data_is_found_and_blamed_on_its_worker,
    blocks_that_are_read_where_they_lie_are_checked_there,
    lost_shuffle_data_is_blamed_on_its_worker,
    a_copy_is_read_when_the_original_is_damaged_or_gone,
    a_copy_that_arrives_damaged_or_short_is_refused,
    a_copy_for_which_there_is_no_room_is_refused,
    shuffle_data_that_nobody_takes_has_one_place,
    a_lease_of_many_small_files_runs_whole,
    a_changed_input_fails_the_job,
    a_side_input_reaches_every_task_and_must_not_change,
    an_executor_that_dies_is_replaced_and_only_its_task_is_charged,
    a_task_that_never_ends_is_ended_and_charged_and_its_neighbours_are_not,
    what_kernels_print_is_kept_per_lease,
    a_worker_comes_back_to_a_cluster_that_was_away,
    a_restarted_worker_keeps_its_number_and_needs_no_token,
    a_wrong_token_is_final,
    a_data_directory_of_another_cluster_is_refused,
    a_released_job_leaves_nothing_on_disk,
    a_device_whose_self_test_fails_is_reported_with_the_reason,
];

pub const MEASURES: &[Named] = named![measure_one_task_leases_through_an_agent];

fn run<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test(dir.path().to_owned()));
    runtime.shutdown_timeout(Duration::from_millis(100));
}

fn grant(index: u64, first_task: u64, task_count: u64) -> Grant {
    Grant { lease: Some(lease(index)), job: 1, first_task, task_count, ..Grant::default() }
}

fn tally(reports: &[Report]) -> u64 {
    reports.iter().flat_map(|report| &report.results).flat_map(|results| &results.tallies[0].values).sum()
}

fn input_file(path: &Path) -> InputFile {
    use std::os::unix::fs::MetadataExt;
    let metadata = path.metadata().unwrap();
    let version = metadata.mtime() as u64 * 1_000_000_000 + metadata.mtime_nsec() as u64;
    InputFile { path: path.to_str().unwrap().into(), bytes: metadata.len(), version, ..InputFile::default() }
}

fn text_stage(tasks: u64, partitions: u32) -> StageInfo {
    stage("t-lines", &["lines"], Source::Files(Files { format: "text".into(), ..Files::default() }), tasks, partitions, &[])
}

fn gather_stage(partitions: u64, output: Option<OutputSpec>) -> StageInfo {
    let info = stage("t-gather", &["rows"], Source::Stage(StageOutput { stage: "t-lines".into() }), partitions, 0, &[]);
    StageInfo { stage: 1, output, ..info }
}

fn an_index_stage_runs_from_grant_to_report() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (worker, mut session) = cluster.worker("anna", &dir).await;
        assert_eq!((worker.id(), session.worker), (10, 10));
        let stages = vec![index_stage("t-sums", &["start"], 1000, 1000, &[])];
        session.grant(Grants { stages, grants: vec![grant(1, 0, 600), grant(2, 600, 400)] });
        // Which of them ends first is chance.
        let mut all = Vec::new();
        while all.iter().filter(|report: &&Report| report.final_report).count() < 2 {
            all.extend(session.succeed().await);
        }
        assert_eq!(tally(&all), (0..1000).sum::<u64>());
        worker.stop().await;
        assert!(matches!(session.receive().await, Up::Goodbye(_)));
    });
}

/// Runs a map over three files on two workers; returns the sources for the reduce stage.
async fn mapped(dir: &Path, first: &mut Session, second: &mut Session, addresses: [String; 2], partitions: u32) -> Vec<ShuffleSource> {
    let texts = ["apple\nfig\n", "kiwi\nfig\nbanana", "x\n"];
    let splits: Vec<Split> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| {
            let path = dir.join(format!("{at}.txt"));
            fs::write(&path, text).unwrap();
            let file = input_file(&path);
            Split { bytes: file.bytes, file: Some(file), ..Split::default() }
        })
        .collect();
    first.grant(Grants { stages: vec![text_stage(3, partitions)], grants: vec![Grant { splits: splits[..2].to_vec(), ..grant(1, 0, 2) }] });
    second
        .grant(Grants { stages: vec![text_stage(3, partitions)], grants: vec![Grant { splits: splits[2..].to_vec(), ..grant(2, 2, 1) }] });
    assert_eq!(tally(&first.succeed().await) + tally(&second.succeed().await), 6);
    let [a, b] = addresses;
    vec![
        ShuffleSource { worker: first.worker, address: a, generation: 0, first_task: 0, task_count: 2, ..ShuffleSource::default() },
        ShuffleSource { worker: second.worker, address: b, generation: 0, first_task: 2, task_count: 1, ..ShuffleSource::default() },
    ]
}

fn lines_go_through_two_workers_and_come_out_published() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut first) = cluster.worker("anna", &dir).await;
        let (bert, mut second) = cluster.worker("bert", &dir).await;
        // The planning step sees the same files that the map stage will read.
        let sources = mapped(&dir, &mut first, &mut second, [anna.address(), bert.address()], 2).await;
        let out = dir.join("new/out");
        let url = format!("file://{}", out.display());
        let files = Files { patterns: vec![dir.join("*.txt").to_str().unwrap().into()], format: "text".into(), ..Files::default() };
        first.send(Down::ListInputs(ListInputs { request: 4, inputs: vec![files], output_url: url.clone(), ..ListInputs::default() }));
        let Up::Listing(listing) = first.receive().await else { panic!() };
        assert_eq!(
            (listing.request, listing.inputs[0].listing.len(), listing.output_problem.as_str(), listing.error.as_str()),
            (4, 3, "", "")
        );

        let output = OutputSpec { url, format: "csv".into(), if_exists: IfExists::Error.into(), copies: 0 };
        let reduce = gather_stage(2, Some(output.clone()));
        let grant_of = |index, task| Grant { stage: 1, sources: sources.clone(), ..grant(index, task, 1) };
        first.grant(Grants { stages: vec![reduce.clone()], grants: vec![grant_of(3, 0)] });
        second.grant(Grants { stages: vec![reduce], grants: vec![grant_of(4, 1)] });
        let reports = [first.succeed().await, second.succeed().await].concat();
        assert_eq!(tally(&reports), 6);
        let parts: Vec<_> = reports.iter().flat_map(|report| report.parts.clone()).collect();
        assert_eq!(parts.iter().map(|part| part.worker).collect::<Vec<_>>(), [10, 11]);
        assert!(!out.exists(), "nothing is visible before it is decided");

        let manifest_json = "{\"job\":1,\"cluster\":\"c-test\"}".to_owned();
        let publish = Publish { job: 1, output: Some(output), parts, manifest_json };
        for _ in 0..2 {
            second.send(Down::Publish(publish.clone()));
            let Up::Published(report) = second.receive().await else { panic!() };
            assert_eq!((report.job, report.error.as_str()), (1, ""));
        }
        // By length with its newline, in task order: even ones in partition 0.
        assert_eq!(fs::read_to_string(out.join("part-00000.csv")).unwrap(), "apple\nfig\nfig\nbanana\nx\n");
        assert_eq!(fs::read_to_string(out.join("part-00001.csv")).unwrap(), "kiwi\n");
        worker_count([anna, bert]).await;
    });
}

async fn worker_count<const N: usize>(workers: [raftwerk_worker::RunningWorker; N]) {
    for worker in workers {
        worker.stop().await;
    }
}

fn blame(reports: &[Report]) -> (FailureClass, u64, String) {
    let failure = &reports.iter().flat_map(|report| &report.failures).next().expect("a failure");
    (failure.class(), failure.source_worker, failure.message.clone())
}

fn a_flipped_byte_in_shuffle_data_is_found_and_blamed_on_its_worker() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut first) = cluster.worker("anna", &dir).await;
        let (bert, mut second) = cluster.worker("bert", &dir).await;
        let sources = mapped(&dir, &mut first, &mut second, [anna.address(), bert.address()], 1).await;
        let file = dir.join("anna/shuffle/1/0-0-0-1-0.blocks");
        let mut bytes = fs::read(&file).unwrap();
        bytes[3] ^= 1;
        fs::write(&file, bytes).unwrap();
        let grant = Grant { stage: 1, sources, ..grant(3, 0, 1) };
        for session in [&mut first, &mut second] {
            session.grant(Grants { stages: vec![gather_stage(1, None)], grants: vec![grant.clone()] });
            let (class, source, message) = blame(&session.finish().await);
            assert_eq!((class, source), (FailureClass::Source, 10), "{message}");
            assert!(message.contains("block of task 0 is damaged"), "{message}");
        }
        worker_count([anna, bert]).await;
    });
}

/// As above, of a partition that is too long to be copied.
fn blocks_that_are_read_where_they_lie_are_checked_there() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut session) = cluster.worker("anna", &dir).await;
        let text: String = (0..400_000).map(|number| format!("{number:>6}\n")).collect();
        let path = dir.join("in.txt");
        fs::write(&path, &text).unwrap();
        let file = input_file(&path);
        let half = file.bytes / 2;
        let splits = [0, half].map(|offset| Split { file: Some(file.clone()), offset, bytes: half, pack_tasks: 0 });
        session.grant(Grants { stages: vec![text_stage(2, 1)], grants: vec![Grant { splits: splits.to_vec(), ..grant(1, 0, 2) }] });
        assert_eq!(tally(&session.succeed().await), 400_000);
        let sources = vec![ShuffleSource { worker: session.worker, address: anna.address(), task_count: 2, ..ShuffleSource::default() }];
        let out = dir.join("deep/out");
        let output = OutputSpec { url: format!("file://{}", out.display()), format: "csv".into(), ..OutputSpec::default() };
        let gather = |index| {
            let grant = Grant { stage: 1, sources: sources.clone(), ..grant(index, 0, 1) };
            Grants { stages: vec![gather_stage(1, Some(output.clone()))], grants: vec![grant] }
        };
        session.grant(gather(2));
        let reports = session.succeed().await;
        assert_eq!(tally(&reports), 400_000);
        let part = reports.iter().flat_map(|report| &report.parts).next().expect("a part");
        let staged: Vec<PathBuf> =
            fs::read_dir(dir.join("deep")).unwrap().map(|entry| entry.unwrap().path().join(&part.staged_name)).collect();
        assert!(fs::read(&staged[0]).unwrap() == text.as_bytes(), "the part is what the map made, in task order");
        let blocks = dir.join("anna/shuffle/1/0-0-0-1-0.blocks");
        let mut bytes = fs::read(&blocks).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&blocks, bytes).unwrap();
        session.grant(gather(3));
        let (class, source, message) = blame(&session.finish().await);
        assert_eq!((class, source), (FailureClass::Source, session.worker), "{message}");
        assert!(message.starts_with("shuffle data of worker ") && message.contains(" is damaged: its checksum is "), "{message}");
        fs::write(&blocks, "short").unwrap();
        session.grant(gather(4));
        let (class, source, message) = blame(&session.finish().await);
        assert_eq!((class, source), (FailureClass::Source, session.worker), "{message}");
        anna.stop().await;
        assert_eq!(fs::read_dir(dir.join("deep")).unwrap().count(), 1, "what failed has left nothing beside the staging directory");
    });
}

fn lost_shuffle_data_is_blamed_on_its_worker() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut first) = cluster.worker("anna", &dir).await;
        let (bert, mut second) = cluster.worker("bert", &dir).await;
        let mut sources = mapped(&dir, &mut first, &mut second, [anna.address(), bert.address()], 1).await;
        // A task that this worker never had.
        sources[1].task_count = 2;
        let gather = |index, sources: &Vec<ShuffleSource>| Grants {
            stages: vec![gather_stage(1, None)],
            grants: vec![Grant { stage: 1, sources: sources.clone(), ..grant(index, 0, 1) }],
        };
        first.grant(gather(3, &sources));
        let (class, source, message) = blame(&first.finish().await);
        assert_eq!((class, source), (FailureClass::Source, 11), "{message}");
        assert!(message.contains("task 3 of stage `t-lines` of job 1 is not on this worker"), "{message}");
        // A worker that is gone.
        sources[1].task_count = 1;
        bert.stop().await;
        first.grant(gather(4, &sources));
        let (class, source, message) = blame(&first.finish().await);
        assert_eq!((class, source), (FailureClass::Source, 11), "{message}");
        anna.stop().await;
    });
}

/// Maps one file on a worker that is asked to copy what it wrote; the reports.
async fn map_with_copy(dir: &Path, session: &mut Session, copy_to: Vec<CopyTarget>) -> Vec<Report> {
    let path = dir.join("in.txt");
    fs::write(&path, "apple\nfig\n").unwrap();
    let file = input_file(&path);
    let splits = vec![Split { bytes: file.bytes, file: Some(file), ..Split::default() }];
    session.grant(Grants { stages: vec![text_stage(1, 1)], grants: vec![Grant { splits, copy_to, ..grant(1, 0, 1) }] });
    session.succeed().await
}

fn a_copy_is_read_when_the_original_is_damaged_or_gone() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut first) = cluster.worker("anna", &dir).await;
        let (bert, second) = cluster.worker("bert", &dir).await;
        let target = |worker: u64, address: &str| CopyTarget { worker, address: address.into() };
        // The first candidate is away: the next one takes it.
        let copy_to = vec![target(99, "127.0.0.1:1"), target(second.worker, &bert.address())];
        let reports = map_with_copy(&dir, &mut first, copy_to).await;
        let with_results: Vec<&Report> = reports.iter().filter(|report| !report.results.is_empty()).collect();
        assert!(!with_results.is_empty());
        assert!(with_results.iter().all(|report| report.copy_worker == second.worker && report.copy_incarnation != 0), "{reports:?}");
        let sources = vec![ShuffleSource {
            worker: first.worker,
            address: anna.address(),
            task_count: 1,
            copy_worker: second.worker,
            copy_address: bert.address(),
            ..ShuffleSource::default()
        }];
        let gather = |index| {
            let grant = Grant { stage: 1, sources: sources.clone(), ..grant(index, 0, 1) };
            Grants { stages: vec![gather_stage(1, None)], grants: vec![grant] }
        };
        let file = dir.join("anna/shuffle/1/0-0-0-1-0.blocks");
        let mut bytes = fs::read(&file).unwrap();
        bytes[3] ^= 1;
        fs::write(&file, bytes).unwrap();
        first.grant(gather(3));
        assert_eq!(tally(&first.succeed().await), 2, "the block on its own disk is bad, the copy is not");
        let (carl, mut third) = cluster.worker("carl", &dir).await;
        anna.stop().await;
        third.grant(gather(4));
        assert_eq!(tally(&third.succeed().await), 2, "the original is gone, the copy is not");
        bert.stop().await;
        third.grant(gather(5));
        let (class, source, message) = blame(&third.finish().await);
        assert_eq!((class, source), (FailureClass::Source, 10), "{message}");
        carl.stop().await;
    });
}

fn a_copy_that_arrives_damaged_or_short_is_refused() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, session) = cluster.worker("anna", &dir).await;
        let identity = cluster.authority.issue(PeerKind::Worker, 50, "w").unwrap();
        let mut client = WorkerDataClient::new(connect(&anna.address(), &identity, PeerKind::Worker).await.unwrap());
        let header = |blocks| CopyHeader {
            job: 1,
            stage: "t-lines".into(),
            lease: Some(lease(7)),
            tasks: vec![TaskRange { first_task: 0, task_count: 2 }],
            blocks,
            ..CopyHeader::default()
        };
        let data = bytes::Bytes::from_static(b"block");
        let block = |task, crc32c| CopiedBlock {
            partition: 0,
            block: Some(ShuffleBlock { task, crc32c, data: data.clone(), last: true, bytes: 0 }),
        };
        let right = crc32c::crc32c(&data);
        let cases = [
            (header(1), vec![block(0, right ^ 1)], Some("damaged")),
            (header(2), vec![block(0, right)], Some("1 of 2 blocks")),
            (header(1), vec![block(5, right)], Some("not among")),
            (header(2), vec![block(0, right), block(1, right)], None),
        ];
        for (header, blocks, refused) in cases {
            let message = |message| KeepCopyRequest { message: Some(message) };
            let blocks = CopiedBlocks { blocks, ..CopiedBlocks::default() };
            let stream = vec![message(keep_copy_request::Message::Header(header)), message(keep_copy_request::Message::Blocks(blocks))];
            let answer = client.keep_copy(tokio_stream::iter(stream)).await;
            match refused {
                Some(word) => assert!(answer.unwrap_err().message().contains(word), "{word}"),
                None => assert_ne!(answer.unwrap().into_inner().incarnation, 0),
            }
        }
        let kept: Vec<_> = fs::read_dir(dir.join("anna/shuffle/1")).unwrap().collect();
        assert_eq!(kept.len(), 1, "what was refused is not kept: {kept:?}");
        drop(session);
        anna.stop().await;
    });
}

fn a_copy_for_which_there_is_no_room_is_refused() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let mut config = cluster.config("anna", &dir);
        config.disk.quota_bytes = Some(12);
        let anna = raftwerk_worker::start(config).await.unwrap();
        let session = cluster.session().await;
        let identity = cluster.authority.issue(PeerKind::Worker, 50, "w").unwrap();
        let mut client = WorkerDataClient::new(connect(&anna.address(), &identity, PeerKind::Worker).await.unwrap());
        let data = bytes::Bytes::from_static(b"block");
        let block = ShuffleBlock { task: 0, crc32c: crc32c::crc32c(&data), data: data.clone(), last: true, bytes: 0 };
        let copy = |blocks: u64, bytes: u64| {
            let header = CopyHeader {
                job: 1,
                stage: "t-lines".into(),
                lease: Some(lease(7)),
                tasks: vec![TaskRange { first_task: 0, task_count: 1 }],
                blocks,
                bytes,
                ..CopyHeader::default()
            };
            let message = |message| KeepCopyRequest { message: Some(message) };
            let blocks = (0..blocks).map(|partition| CopiedBlock { partition: partition as u32, block: Some(block.clone()) });
            let blocks = blocks
                .map(|block| message(keep_copy_request::Message::Blocks(CopiedBlocks { blocks: vec![block], ..CopiedBlocks::default() })));
            tokio_stream::iter([message(keep_copy_request::Message::Header(header))].into_iter().chain(blocks).collect::<Vec<_>>())
        };
        // What is announced is too much; what comes is more than was announced, as builds that announce nothing send it; the rest fits.
        for (blocks, bytes, fits) in [(3, 15, false), (3, 5, false), (3, 0, false), (2, 10, true), (1, 5, false), (0, 0, true)] {
            let answer = client.keep_copy(copy(blocks, bytes)).await;
            match answer {
                Ok(_) => assert!(fits, "{blocks} blocks, {bytes} bytes announced"),
                Err(status) => assert!(
                    !fits && status.code() == tonic::Code::ResourceExhausted && status.message().contains("--shuffle-quota is 12"),
                    "{blocks} blocks, {bytes} bytes announced: {status:?}"
                ),
            }
        }
        let kept = fs::read_dir(dir.join("anna/shuffle/1")).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        assert_eq!(kept.sum::<u64>(), 10, "what was refused is not kept");
        drop(session);
        anna.stop().await;
    });
}

fn shuffle_data_that_nobody_takes_has_one_place() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut first) = cluster.worker("anna", &dir).await;
        let reports = map_with_copy(&dir, &mut first, vec![CopyTarget { worker: 99, address: "127.0.0.1:1".into() }]).await;
        assert!(reports.iter().all(|report| report.copy_worker == 0) && tally(&reports) == 2, "{reports:?}");
        anna.stop().await;
    });
}

fn a_lease_of_many_small_files_runs_whole() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut session) = cluster.worker("anna", &dir).await;
        // More files than descriptors may be on their way to executors at once, empty ones among them; one is missing.
        let files = 5000;
        let splits: Vec<Split> = (0..files)
            .map(|at| {
                let path = dir.join(format!("{at}.txt"));
                fs::write(&path, "line\n".repeat(at % 3)).unwrap();
                let file = input_file(&path);
                Split { bytes: file.bytes, file: Some(file), ..Split::default() }
            })
            .collect();
        fs::remove_file(dir.join("777.txt")).unwrap();
        session.grant(Grants { stages: vec![text_stage(files as u64, 2)], grants: vec![Grant { splits, ..grant(1, 0, files as u64) }] });
        let reports = session.finish().await;
        assert_eq!(tally(&reports), (0..files as u64).filter(|&at| at != 777).map(|at| at % 3).sum::<u64>());
        let failures: Vec<_> =
            reports.iter().flat_map(|report| &report.failures).map(|f| (f.first_task, f.task_count, f.class())).collect();
        assert_eq!(failures, [(777, 1, FailureClass::Worker)]);
        anna.stop().await;
    });
}

fn a_changed_input_fails_the_job() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut session) = cluster.worker("anna", &dir).await;
        let path = dir.join("a.txt");
        fs::write(&path, "a\n").unwrap();
        let file = input_file(&path);
        fs::write(&path, "b\nb\n").unwrap();
        let splits = vec![Split { bytes: file.bytes, file: Some(file), ..Split::default() }];
        session.grant(Grants { stages: vec![text_stage(1, 1)], grants: vec![Grant { splits, ..grant(1, 0, 1) }] });
        let (class, _, message) = blame(&session.finish().await);
        assert_eq!((class, message), (FailureClass::Fatal, format!("input changed while the job runs: {}", path.display())));
        anna.stop().await;
    });
}

/// A stage of 4 tasks that look into the table at `path`, as it is now.
fn lookup_stage(path: &Path) -> StageInfo {
    let mut info = index_stage("t-lookup", &["found", "length"], 4, 4, &[]);
    let file = InputFile { data_offset: 3, record_bytes: 4, dtype: "u4".into(), ..input_file(path) };
    let source = Source::Files(Files { format: "npy".into(), listing: vec![file], ..Files::default() });
    let side = StageInput { name: "table".into(), source: Some(source) };
    info.spec.iter_mut().for_each(|spec| spec.inputs.push(side.clone()));
    info
}

fn a_side_input_reaches_every_task_and_must_not_change() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut session) = cluster.worker("anna", &dir).await;
        let path = dir.join("table.npy");
        let table: Vec<u8> = b"any".iter().copied().chain([10u32, 20, 30, 40].into_iter().flat_map(u32::to_le_bytes)).collect();
        fs::write(&path, &table).unwrap();
        session.grant(Grants { stages: vec![lookup_stage(&path)], grants: vec![grant(1, 0, 3)] });
        assert_eq!(tally(&session.succeed().await), 60);
        session.grant(Grants { stages: vec![], grants: vec![grant(2, 3, 1)] });
        let reports = session.succeed().await;
        assert_eq!((tally(&reports), reports[0].results[0].tallies[1].values[0]), (40, 4), "what is mapped serves the next lease");

        // The executor has it mapped still, but the job was promised what was listed.
        fs::write(&path, [&table[..], &table].concat()).unwrap();
        session.grant(Grants { stages: vec![], grants: vec![grant(3, 0, 2)] });
        let (class, _, message) = blame(&session.finish().await);
        assert_eq!((class, message), (FailureClass::Fatal, format!("input changed while the job runs: {}", path.display())));
        fs::remove_file(&path).unwrap();
        session.grant(Grants { stages: vec![], grants: vec![grant(4, 0, 2)] });
        assert_eq!(blame(&session.finish().await).0, FailureClass::Worker);
        anna.stop().await;
    });
}

fn an_executor_that_dies_is_replaced_and_only_its_task_is_charged() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut session) = cluster.worker("anna", &dir).await;
        let stages = vec![index_stage("t-trouble", &[], 6, 6, &[("do", "abort")])];
        session.grant(Grants { stages, grants: vec![grant(1, 3, 1)] });
        let (class, _, message) = blame(&session.finish().await);
        assert_eq!(class, FailureClass::Executor);
        assert!(message.contains("SIGABRT") && message.ends_with("about to abort"), "{message}");
        // The next lease finds a new executor, which knows the stage too.
        session.grant(Grants { stages: Vec::new(), grants: vec![grant(2, 0, 3)] });
        session.succeed().await;
        anna.stop().await;
    });
}

fn a_task_that_never_ends_is_ended_and_charged_and_its_neighbours_are_not() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let anna = raftwerk_worker::start(cluster.config("anna", &dir)).await.unwrap();
        let mut session = cluster.session().await;
        let stages = vec![index_stage("t-trouble", &[], 6, 6, &[("do", "hang")])];
        // What the scheduler says of such tasks; the worker was not told otherwise.
        session.grant(Grants { stages, grants: vec![Grant { patience_ms: 2_500, ..grant(1, 0, 6) }] });
        let reports = session.finish().await;
        let failures: Vec<_> = reports.iter().flat_map(|report| &report.failures).collect();
        let (charged, others): (Vec<_>, Vec<_>) = failures.into_iter().partition(|failure| failure.class() == FailureClass::Executor);
        let [charged] = charged[..] else { panic!("one is charged: {reports:?}") };
        assert_eq!((charged.first_task, charged.task_count), (3, 1), "{reports:?}");
        // What its thread would have run next was not begun, and the last results may not have been on their way; how many that are is chance.
        assert!(others.iter().all(|failure| failure.class() == FailureClass::Stopped), "{reports:?}");
        let done: u64 = reports.iter().flat_map(|report| &report.results).map(|results| results.task_count).sum();
        assert_eq!(done + others.iter().map(|failure| failure.task_count).sum::<u64>(), 5, "{reports:?}");
        let message = &charged.message;
        assert!(message.contains("no sign of progress") && message.contains("on task 3 of lease 0-1-0"), "{message}");
        session.grant(Grants { stages: Vec::new(), grants: vec![grant(2, 0, 3)] });
        session.succeed().await;
        anna.stop().await;
    });
}

fn what_kernels_print_is_kept_per_lease() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut session) = cluster.worker("anna", &dir).await;
        let stages = vec![index_stage("t-trouble", &[], 6, 6, &[("do", "print")])];
        session.grant(Grants { stages, grants: vec![grant(1, 0, 2)] });
        session.succeed().await;
        let mut text = String::new();
        for _ in 0..50 {
            session.send(Down::FetchLogs(FetchLogs { request: 8, job: 1, max_bytes: 0 }));
            let Up::Logs(logs) = session.receive().await else { panic!() };
            text = logs.logs.into_iter().map(|log| log.text).collect();
            if text.lines().count() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["task 0 says hello", "task 1 says hello"]);
        anna.stop().await;
    });
}

fn a_worker_comes_back_to_a_cluster_that_was_away() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, session) = cluster.worker("anna", &dir).await;
        let stages = vec![index_stage("t-trouble", &[], 40, 40, &[("do", "sleep")])];
        session.grant(Grants { stages, grants: vec![grant(1, 0, 40)] });
        drop(session);
        // The lease ends while nobody listens; its reports wait.
        let mut cluster = cluster.restart(Duration::from_millis(700)).await;
        let mut session = cluster.session().await;
        let reports = session.finish().await;
        assert_eq!(reports.iter().flat_map(|report| &report.results).map(|results| results.task_count).sum::<u64>(), 40);
        anna.stop().await;
    });
}

fn a_restarted_worker_keeps_its_number_and_needs_no_token() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        // Held as long as the worker runs: one whose session ends dials again, and that session would be taken for the restarted worker's.
        let (anna, session) = cluster.worker("anna", &dir).await;
        let second = raftwerk_worker::start(cluster.config("anna", &dir)).await.unwrap_err();
        assert!(second.to_string().contains("used by another worker process"), "{second}");
        anna.stop().await;
        drop(session);
        let config = raftwerk_worker::WorkerConfig { token: None, ..cluster.config("anna", &dir) };
        let again = raftwerk_worker::start(config).await.unwrap();
        assert_eq!((again.id(), cluster.session().await.worker), (10, 10));
        again.stop().await;
        let config = raftwerk_worker::WorkerConfig { token: None, ..cluster.config("bert", &dir) };
        let error = raftwerk_worker::start(config).await.unwrap_err();
        assert!(error.to_string().contains("no join token was given"), "{error}");
    });
}

fn a_wrong_token_is_final() {
    run(async |dir| {
        let (cluster, other) = (Cluster::start().await, Cluster::start().await);
        let config = raftwerk_worker::WorkerConfig { token: Some(other.token.clone()), ..cluster.config("anna", &dir) };
        let error = raftwerk_worker::start(config).await.unwrap_err();
        assert!(error.to_string().contains("the join token is of another cluster"), "{error}");
        let mut token = cluster.token.clone();
        token.secret = other.token.secret.clone();
        let config = raftwerk_worker::WorkerConfig { token: Some(token), ..cluster.config("anna", &dir) };
        let error = raftwerk_worker::start(config).await.unwrap_err();
        assert!(error.to_string().contains("does not accept the join token"), "{error}");
    });
}

fn a_data_directory_of_another_cluster_is_refused() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, _session) = cluster.worker("anna", &dir).await;
        anna.stop().await;
        let other = Cluster::start().await;
        let error = raftwerk_worker::start(other.config("anna", &dir)).await.unwrap_err();
        assert!(error.to_string().contains("the join token is of another cluster"), "{error}");
        let refusal = async || {
            let config = raftwerk_worker::WorkerConfig { token: None, ..other.config("anna", &dir) };
            let mut worker = raftwerk_worker::start(config).await.unwrap();
            let error = tokio::time::timeout(Duration::from_secs(10), worker.wait()).await.expect("in time").unwrap_err();
            // Only then is the directory free again.
            worker.stop().await;
            assert!(matches!(error, raftwerk_worker::WorkerError::Unreachable(_)), "{error}");
            error.to_string()
        };
        let said = refusal().await;
        assert!(
            said.contains("anna is the data directory of a worker of cluster c-test, but") && said.contains("another cluster"),
            "{said}"
        );
        // It went on for ever when the directory knows schedulers of its own, which are gone.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap();
        fs::write(dir.join("anna/schedulers"), format!("{nobody}\n")).unwrap();
        let said = refusal().await;
        assert!(said.contains("no scheduler that it knows answers") && said.contains(&nobody.to_string()), "{said}");
    });
}

fn a_released_job_leaves_nothing_on_disk() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut first) = cluster.worker("anna", &dir).await;
        let (bert, mut second) = cluster.worker("bert", &dir).await;
        let sources = mapped(&dir, &mut first, &mut second, [anna.address(), bert.address()], 1).await;
        let output = OutputSpec { url: format!("file://{}", dir.join("out").display()), ..OutputSpec::default() };
        let grant = Grant { stage: 1, sources, ..grant(3, 0, 1) };
        first.grant(Grants { stages: vec![gather_stage(1, Some(output))], grants: vec![grant] });
        first.succeed().await;
        let staged = || {
            fs::read_dir(&dir)
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("raftwerk-tmp"))
                .count()
        };
        let shuffled = || fs::read_dir(dir.join("anna/shuffle")).unwrap().count();
        assert_eq!((staged(), shuffled()), (1, 1));
        first.send(Down::Release(ReleaseJobs { jobs: vec![1], kept: vec![] }));
        let asked = Instant::now();
        while (staged(), shuffled()) != (0, 0) {
            assert!(asked.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        worker_count([anna, bert]).await;
    });
}

fn a_device_whose_self_test_fails_is_reported_with_the_reason() {
    run(async |_dir| {
        let selection = raftwerk_worker::DeviceSelection { cpus: Some(1), ..Default::default() };
        let program = std::env::current_exe().unwrap();
        let rows = raftwerk_worker::probe_devices(&selection, program.clone(), Vec::new()).await;
        assert_eq!(rows[0].outcome, raftwerk_worker::ProbeOutcome::Ready);
        let kernels = ["t-sums@1", "t-lookup@1", "t-lines@1", "t-gather@1", "t-trouble@1", "t-walk@1", "t-step@1"];
        assert_eq!(rows[0].device.kernels, kernels);
        let rows = raftwerk_worker::probe_devices(&selection, program, vec!["--fail".into(), "two and two were five".into()]).await;
        let raftwerk_worker::ProbeOutcome::Failed(reason) = &rows[0].outcome else { panic!("{rows:?}") };
        assert!(reason.contains("two and two were five"), "{reason}");
    });
}

fn measure_one_task_leases_through_an_agent() {
    run(async |dir| {
        let mut cluster = Cluster::start().await;
        let (anna, mut session) = cluster.worker("anna", &dir).await;
        let stages = vec![index_stage("t-sums", &["start"], 1, 1, &[])];
        session.grant(Grants { stages, grants: Vec::new() });
        let leases = 200_000;
        let (mut granted, mut ended) = (0, 0);
        let started = Instant::now();
        while ended < leases {
            let room = (leases - granted).min(256 - (granted - ended));
            if room > 0 {
                session.grant(Grants { stages: Vec::new(), grants: (granted..granted + room).map(|index| grant(index, 0, 1)).collect() });
                granted += room;
            }
            let Up::Reports(reports) = session.receive().await else { panic!() };
            ended += reports.reports.iter().filter(|report| report.final_report).count() as u64;
            let sequences = reports.reports.iter().map(|report| report.sequence).collect();
            session.send(Down::ReportAck(raftwerk_proto::v1::ReportAck { sequences }));
        }
        println!("{:.0} one-task leases/s through an agent", leases as f64 / started.elapsed().as_secs_f64());
        anna.stop().await;
    });
}
