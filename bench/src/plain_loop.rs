//! What a cluster costs beside its kernels: the same kernels called in a plain loop, in one process with as many threads, against a job on one scheduler and one
//! worker. Both read the same files, cut in the same way, and both times end when the same output is synced.
//!
//! The loop keeps what is between map and reduce in memory, knows its splits, and writes parts with no thought of who might crash. It is what somebody who had only
//! the kernels would write in an afternoon, and takes the same sample of the input for `sort`.

use crate::sample::{Sample, cpu_seconds};
use anyhow::Context;
use memmap2::Mmap;
use raftwerk_formats::{CsvOptions, Format, Table};
use raftwerk_kernels::{Block, Input, KernelError, Params, PartWriter, Prepared, StageContext, Task, TaskOutput};
use raftwerk_tests::cluster::Cluster;
use rayon::prelude::*;
use std::{
    fs::{self, File},
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

#[derive(clap::Args)]
pub struct Options {
    /// Text for `word_count` and `grep`: `python3 bench/rivals/word_count.py --make FILE`
    #[arg(long)]
    text: Option<PathBuf>,
    /// Records of 100 bytes for `sort`: `python3 bench/rivals/sort.py --make COUNT FILE`
    #[arg(long)]
    records: Option<PathBuf>,
    /// Rows `name;number` for `group_by`: `python3 bench/rivals/group_by.py --make ROWS FILE`
    #[arg(long)]
    table: Option<PathBuf>,
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

const RECORD: usize = 100;

enum Reads {
    Text,
    PlacedText,
    Records,
    Rows(Arc<Format>),
}

struct Work {
    name: &'static str,
    input: PathBuf,
    reads: Reads,
    split: u64,
    map: (&'static str, Vec<(&'static str, &'static str)>),
    reduce: &'static str,
    partitions: u32,
    format: &'static str,
    /// The job file's section of its input, without the file and the split.
    section: &'static str,
}

fn works(options: &Options) -> Vec<Work> {
    let mut works = Vec::new();
    if let Some(text) = &options.text {
        let text = || text.clone();
        works.push(Work {
            name: "word count",
            input: text(),
            reads: Reads::Text,
            split: 16 << 20,
            map: ("word_count", vec![]),
            reduce: "sum_by_key",
            partitions: 8,
            format: "csv",
            section: "",
        });
        works.push(Work {
            name: "grep",
            input: text(),
            reads: Reads::PlacedText,
            split: 16 << 20,
            map: ("grep", vec![("pattern", "return")]),
            reduce: "matching_lines",
            partitions: 1,
            format: "txt",
            section: "",
        });
    }
    if let Some(records) = &options.records {
        works.push(Work {
            name: "sort",
            input: records.clone(),
            reads: Reads::Records,
            split: 16 << 20,
            map: ("sort", vec![("key_bytes", "10")]),
            reduce: "merge_runs",
            partitions: 8 * options.threads as u32,
            format: "plain",
            section: "format = \"records\"\nrecord = 100\n",
        });
    }
    if let Some(table) = &options.table {
        let names = ["station", "t"].map(str::to_owned).to_vec();
        let format = Format::Csv(CsvOptions { separator: b';', header: false, quoted_newlines: false, names });
        works.push(Work {
            name: "group by",
            input: table.clone(),
            reads: Reads::Rows(Arc::new(format)),
            split: 16 << 20,
            map: ("group_by", vec![("by", "station"), ("aggregate", "min(t), mean(t), max(t), count")]),
            reduce: "merge_groups",
            partitions: 1,
            format: "csv",
            section: "separator = \";\"\nheader = false\ncolumns = [\"station\", \"t\"]\nquoted_newlines = false\n",
        });
    }
    works
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let works = works(options);
    anyhow::ensure!(!works.is_empty(), "give at least one of --text, --records and --table; the help says how they are made");
    let home = tempfile::Builder::new().prefix("raftwerk-loop-").tempdir().context("a directory for outputs")?;
    let threads = options.threads.to_string();
    let cluster = Cluster::with_worker_flags(1, 1, &["--cpus", &threads, "--no-gpu"]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    println!(
        "## a job on one scheduler and one worker against its kernels in a plain loop, {threads} threads each, medians of {}",
        options.runs
    );
    println!("| work | plain loop s | CPU s | job s | CPU s | more s | allowed: 3 % + 50 ms |\n|---|---|---|---|---|---|---|");
    for work in works {
        // Into the page cache, both will find it there.
        std::io::copy(&mut File::open(&work.input).with_context(|| work.input.display().to_string())?, &mut std::io::sink())?;
        let (mut alone, mut job, mut cpu_alone, mut cpu_job) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for turn in 0..options.runs {
            let out = home.path().join(format!("loop-{turn}"));
            let before = cpu_seconds(std::process::id());
            let took = pool.install(|| plain(&work, &out)).with_context(|| format!("{} in a plain loop", work.name))?;
            cpu_alone.push(cpu_seconds(std::process::id()) - before);
            alone.push(took);
            let published = cluster.home.path().join(format!("{}-{turn}", work.reduce));
            let (took, cpu) = submitted(&cluster, &work, &published)?;
            job.push(took);
            cpu_job.push(cpu);
            same(&out, &published).with_context(|| work.name.to_owned())?;
            fs::remove_dir_all(&out)?;
            fs::remove_dir_all(&published)?;
        }
        let median = |values: Vec<f64>| Sample::new(values).median();
        let (alone, job) = (median(alone), median(job));
        let allowed = alone * 0.03 + 0.05;
        let (cpu_alone, cpu_job) = (median(cpu_alone), median(cpu_job));
        println!("| {} | {alone:.3} | {cpu_alone:.2} | {job:.3} | {cpu_job:.2} | {:.3} | {allowed:.3} |", work.name, job - alone);
    }
    Ok(())
}

fn params(pairs: &[(&str, &str)]) -> Params {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The whole of it; seconds until the output is synced.
fn plain(work: &Work, out: &Path) -> anyhow::Result<f64> {
    fs::create_dir(out)?;
    let began = Instant::now();
    let file = File::open(&work.input)?;
    // SAFETY: an input of a measurement; whoever writes it meanwhile measures nothing.
    let input = bytes::Bytes::from_owner(unsafe { Mmap::map(&file)? });
    let map = raftwerk_kernels::find(work.map.0)?;
    let reduce = raftwerk_kernels::find(work.reduce)?;
    let given = params(&work.map.1);
    let record_bytes = if matches!(work.reads, Reads::Records) { RECORD as u32 } else { 0 };
    let splits = splits(work, &input);
    let mut stage = StageContext {
        params: raftwerk_kernels::resolve_params(map.descriptor(), &given)?,
        tasks: splits.len() as u64,
        partitions: work.partitions,
        record_bytes,
        ..StageContext::default()
    };
    if map.surveys() {
        stage.survey = map.survey(&stage, &samples(&input))?;
    }
    let prepared = map.prepare(&stage)?;
    let path = work.input.to_str().context("a path of UTF-8")?;
    let mapped = (0u64..).zip(&splits).collect::<Vec<_>>().into_par_iter().map(|(number, range)| {
        let bytes = &input[range.clone()];
        let input = match &work.reads {
            Reads::Text => Input::Text(bytes),
            Reads::PlacedText => Input::PlacedText { path, offset: range.start as u64, bytes },
            Reads::Records => Input::Records { record_bytes: RECORD, bytes },
            Reads::Rows(format) => Input::Table(Table::new(format.clone(), input.clone(), range.clone())),
        };
        prepared.run_cpu(&Task { number, input })
    });
    let mapped: Vec<TaskOutput> = mapped.collect::<Result<_, KernelError>>()?;

    let known = |name: &str| reduce.descriptor().params.iter().any(|spec| spec.name == name);
    let mut given: Params = given.into_iter().filter(|(name, _)| known(name)).collect();
    if known("record") {
        given.insert("record".into(), record_bytes.to_string());
    }
    let stage = StageContext {
        params: raftwerk_kernels::reduce_params(map.descriptor(), reduce.descriptor(), &given)?,
        tasks: u64::from(work.partitions),
        partitions: 1,
        format: work.format.into(),
        ..StageContext::default()
    };
    let prepared = reduce.prepare(&stage)?;
    let reduced = (0..work.partitions).into_par_iter().map(|partition| part(prepared.as_ref(), partition, &mapped, out));
    reduced.collect::<anyhow::Result<()>>()?;
    File::open(out)?.sync_all()?;
    Ok(began.elapsed().as_secs_f64())
}

fn part(prepared: &dyn Prepared, partition: u32, mapped: &[TaskOutput], out: &Path) -> anyhow::Result<()> {
    let blocks = (0u64..).zip(mapped).map(|(task, output)| Block { task, bytes: &output.blocks[partition as usize] });
    let blocks = blocks.filter(|block| !block.bytes.is_empty()).collect();
    let mut file = Pieces(File::create(out.join(format!("part-{partition:05}")))?);
    let output = prepared.run_streamed(&Task { number: partition.into(), input: Input::Blocks(blocks) }, &mut file)?;
    if let Some(part) = output.part {
        file.write(&part.bytes)?;
    }
    Ok(file.0.sync_all()?)
}

struct Pieces(File);

impl PartWriter for Pieces {
    fn write(&mut self, piece: &[u8]) -> Result<(), KernelError> {
        self.0.write_all(piece).map_err(|error| KernelError::Device(error.to_string()))
    }
}

/// Whole records or lines, cut where a job's splits are.
fn splits(work: &Work, input: &[u8]) -> Vec<Range<usize>> {
    let begins = |at: usize| match work.reads {
        _ if at == 0 || at >= input.len() => at.min(input.len()),
        Reads::Records => at.div_ceil(RECORD) * RECORD,
        _ => memchr::memchr(b'\n', &input[at - 1..]).map_or(input.len(), |newline| at + newline),
    };
    let split = work.split as usize;
    (0..input.len().div_ceil(split)).map(|number| begins(number * split)..begins((number + 1) * split)).collect()
}

/// As many records, and from as many places, as a worker looks at.
fn samples(input: &[u8]) -> Vec<&[u8]> {
    const WINDOWS: usize = 256;
    const WINDOW: usize = 32 << 10;
    let stretch = (input.len() / WINDOWS / RECORD).max(1) * RECORD;
    input.chunks(stretch).flat_map(|stretch| stretch[..stretch.len().min(WINDOW)].chunks_exact(RECORD)).collect()
}

/// The same as a job of the cluster: seconds until its output is synced, and processor seconds of all processes.
fn submitted(cluster: &Cluster, work: &Work, out: &Path) -> anyhow::Result<(f64, f64)> {
    let pairs = work.map.1.iter().map(|(name, value)| format!("{name} = \"{value}\"\n")).collect::<String>();
    let toml = format!(
        "[input]\nfiles = [\"{}\"]\nsplit = \"{}\"\n{}[map]\nkernel = \"{}\"\n[map.params]\n{pairs}[reduce]\nkernel = \"{}\"\npartitions = {}\n[output]\npath = \"{}\"\n{}",
        work.input.display(),
        work.split,
        work.section,
        work.map.0,
        work.reduce,
        work.partitions,
        out.display(),
        if work.format == "plain" { String::new() } else { format!("format = \"{}\"\n", work.format) },
    );
    let file = cluster.job_file("job.toml", &toml);
    let pids = processes(cluster);
    let used = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
    let (before, began) = (used(), Instant::now());
    let output = cluster.run(&["-q", "submit", "--wait", &file]);
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for path in parts(out)? {
        File::open(path)?.sync_all()?;
    }
    File::open(out)?.sync_all()?;
    Ok((began.elapsed().as_secs_f64(), used() - before))
}

/// Schedulers, workers, and the executors that these have started.
fn processes(cluster: &Cluster) -> Vec<u32> {
    let mut found: Vec<u32> = cluster.schedulers.iter().chain(&cluster.workers).map(|process| process.child.id()).collect();
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// In the order of the partitions.
fn parts(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let names = fs::read_dir(dir).with_context(|| dir.display().to_string())?.map(|entry| Ok(entry?.path()));
    let mut names: Vec<PathBuf> = names.collect::<std::io::Result<_>>()?;
    names.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part-")));
    names.sort();
    Ok(names)
}

/// Part behind part: where `sort` cuts follows from a sample, which need not be the same one.
fn same(alone: &Path, published: &Path) -> anyhow::Result<()> {
    let (alone, published) = (digest(alone)?, digest(published)?);
    anyhow::ensure!(
        alone == published,
        "the outputs differ: {alone:?} in the loop, {published:?} of the job (parts, length and CRC-32C of all)"
    );
    Ok(())
}

fn digest(dir: &Path) -> anyhow::Result<(usize, u64, u32)> {
    let parts = parts(dir)?;
    let (mut bytes, mut crc, mut piece) = (0, 0, vec![0; 1 << 20]);
    for part in &parts {
        let mut file = File::open(part)?;
        loop {
            match std::io::Read::read(&mut file, &mut piece)? {
                0 => break,
                read => {
                    bytes += read as u64;
                    crc = crc32c::crc32c_append(crc, &piece[..read]);
                }
            }
        }
    }
    Ok((parts.len(), bytes, crc))
}
