//! What a GPU does with the kernels of this repository, beside what it can do at most, beside the processor, and both together.
//!
//! Prints Markdown. The GPU twins are measured as a lease runs them, with upload and read-back; the ceilings come from the same run.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use raftwerk_kernels::gpu::{AdapterReport, Ceilings, DeviceClass, Gpu, adapters};
use raftwerk_kernels::{Block, Input, Params, Prepared, SideInput, StageContext, Task};
use raftwerk_tests::cluster::program;
use rayon::prelude::*;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub struct Options {
    /// The adapter with this number in `raftwerk doctor`; all of them when not given
    #[arg(long)]
    adapter: Option<usize>,
    /// Seconds for each figure, roughly
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Leave the jobs out that show CPU and GPU together
    #[arg(long)]
    no_jobs: bool,
    /// Write the figures into this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.seconds > 0.0 && options.seconds <= 60.0, "--seconds must be more than 0 and at most 60");
    let all = adapters();
    if all.is_empty() {
        println!("No GPU adapter: no Vulkan driver was found. `raftwerk doctor` says how to get one.");
    }
    let chosen: Vec<&AdapterReport> = all.iter().filter(|adapter| options.adapter.is_none_or(|index| index == adapter.index)).collect();
    ensure!(
        options.adapter.is_none() || !chosen.is_empty(),
        "there is no adapter {}; there are {}",
        options.adapter.unwrap_or(0),
        all.len()
    );
    let reports = chosen.into_iter().map(|adapter| report(adapter, options)).collect::<anyhow::Result<Vec<Value>>>()?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&json!({ "schema": 1, "version": env!("CARGO_PKG_VERSION"), "adapters": reports }))?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn report(adapter: &AdapterReport, options: &Options) -> anyhow::Result<Value> {
    let software = adapter.class == DeviceClass::Software;
    let processor = processor();
    println!("## {}\n", adapter.name);
    println!("{} adapter, {}, {}; beside {processor}, {} threads.\n", adapter.class.name(), adapter.backend, adapter.driver, threads());
    if software {
        println!("**This is a software adapter**: the processor itself behind a GPU interface. Its figures say nothing about any card.\n");
    }
    let gpu = Gpu::open(adapter.index)?;
    gpu.self_test()?;
    let budget = Duration::from_secs_f64(options.seconds);
    let ceilings = gpu.ceilings(budget)?;
    print_ceilings(&ceilings);

    println!("| kernel | elements | GPU M/s | input GB/s | of upload | moved GB/s | of copy | GFLOP/s | of FMA | CPU M/s | GPU : CPU |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut kernels = Vec::new();
    for work in works(software)? {
        let measured = measure(&gpu, &work, budget).with_context(|| work.name.clone())?;
        println!("{}", row(&work, &measured, &ceilings));
        kernels.push(to_json(&work, &measured, &ceilings));
    }
    println!();
    let jobs = if options.no_jobs { Value::Null } else { together(adapter, options.seconds)? };
    Ok(json!({
        "adapter": { "name": adapter.name, "class": adapter.class.name(), "software": software, "backend": adapter.backend,
            "driver": adapter.driver, "vendor": adapter.vendor, "memory_bytes": adapter.memory_bytes },
        "processor": { "name": processor, "threads": threads() },
        "ceilings": { "copy_bytes_per_s": ceilings.copy_bytes, "flops_per_s": ceilings.flops, "upload_bytes_per_s": ceilings.upload_bytes,
            "fetch_bytes_per_s": ceilings.fetch_bytes, "reduce_bytes_per_s": ceilings.reduce_bytes, "scan_bytes_per_s": ceilings.scan_bytes },
        "kernels": kernels,
        "jobs": jobs,
    }))
}

fn threads() -> usize {
    rayon::current_num_threads()
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

fn print_ceilings(ceilings: &Ceilings) {
    println!("| at most | GB/s or GFLOP/s | of copy |");
    println!("|---|---|---|");
    let gigas = |figure: f64| format!("{:.1}", figure / 1e9);
    println!("| copy on the device, bytes read and written | {} | 1.00 |", gigas(ceilings.copy_bytes));
    for (name, figure) in [("reduce", ceilings.reduce_bytes), ("scan", ceilings.scan_bytes)] {
        println!("| {name} of u32 on the device, bytes moved | {} | {:.2} |", gigas(figure), figure / ceilings.copy_bytes);
    }
    println!("| FMA of f32 | {} | |", gigas(ceilings.flops));
    println!("| upload | {} | |\n| read-back | {} | |\n", gigas(ceilings.upload_bytes), gigas(ceilings.fetch_bytes));
}

/// A lease of some tasks.
struct Work {
    name: String,
    prepared: Box<dyn Prepared>,
    input: Source,
    elements: u64,
    bytes: u64,
    /// Where these are the measure.
    flops: Option<f64>,
}

/// Operations of f32 for one option, as `black_scholes.wgsl` has them: 3 to turn random bits into shares and 6 to place them between their limits; 17
/// from these to the two prices (2 spread, 5 d1, 1 d2, 3 what is owed, 3 each for call and put); 18 in each of four values of the normal distribution; 4 to round
/// both prices. A root, a logarithm, an exponential or a quotient is one each, so that the share of the FMA is one of instructions and low for what they take;
/// choices, signs, conversions and the integers of the random numbers are none.
const OPTION_FLOPS: f64 = 3.0 + 6.0 + 17.0 + 4.0 * 18.0 + 4.0;

enum Source {
    Range { tasks: u64, count: u64 },
    Elements { dtype: &'static str, bytes: Vec<u8>, split: usize },
    Rows { columns: usize, bytes: Vec<u8>, split: usize },
    Files(Vec<Vec<u8>>),
}

impl Work {
    fn new(name: &str, params: &[(&str, &str)], input: Source, sides: Vec<SideInput>) -> anyhow::Result<Work> {
        let kernel = raftwerk_kernels::find(name)?;
        let given = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let tasks = input.tasks().len() as u64;
        let partitions = if name == "convolve" { tasks as u32 } else { 1 };
        let params = raftwerk_kernels::resolve_params(kernel.descriptor(), &given)?;
        let prepared = kernel.prepare(&StageContext { params, tasks, partitions, sides, ..StageContext::default() })?;
        let (elements, bytes) = match &input {
            Source::Range { tasks, count } => (tasks * count, 0),
            Source::Elements { dtype, bytes, .. } => (bytes.len() as u64 / dtype[1..].parse::<u64>().unwrap_or(1), bytes.len() as u64),
            Source::Rows { bytes, .. } => (bytes.len() as u64 / 4, bytes.len() as u64),
            Source::Files(files) => (files.len() as u64, files.iter().map(|file| file.len() as u64).sum()),
        };
        Ok(Work { name: name.to_owned(), prepared, input, elements, bytes, flops: None })
    }

    fn called(self, name: &str) -> Work {
        Work { name: name.to_owned(), ..self }
    }

    fn with_flops_each(self, flops: f64) -> Work {
        Work { flops: Some(flops * self.elements as f64), ..self }
    }
}

/// A round of k-means after the first one, whose points lie on the device since the round before: nothing is uploaded but centroids.
fn clusters(columns: usize, bytes: Vec<u8>, split: usize) -> anyhow::Result<Work> {
    let (assign, update) = (raftwerk_kernels::find("kmeans_assign")?, raftwerk_kernels::find("kmeans_update")?);
    let points = (bytes.len() / 4 / columns) as u64;
    let input = Source::Rows { columns, bytes, split };
    let params = raftwerk_kernels::resolve_params(assign.descriptor(), &Params::new())?;
    let map = StageContext { params, tasks: input.tasks().len() as u64, partitions: 1, ..StageContext::default() };
    // The first round draws the centroids, on the processor as in a job.
    let first = assign.prepare(&map)?;
    let made = input.tasks().iter().map(|task| first.run_cpu(task)).collect::<Result<Vec<_>, _>>()?;
    let blocks = made.iter().enumerate().map(|(task, output)| Block { task: task as u64, bytes: &output.blocks[0] }).collect();
    let params = raftwerk_kernels::resolve_params(update.descriptor(), &Params::new())?;
    let reduce = update.prepare(&StageContext { params, tasks: 1, partitions: 1, ..StageContext::default() })?;
    let (_, end) = reduce.run_round(&Task { number: 0, input: Input::Blocks(blocks) })?;
    let prepared = assign.prepare_round(&map, &end.state, None)?;
    Ok(Work { name: format!("kmeans_assign, {columns} columns, points kept"), prepared, input, elements: points, bytes: 0, flops: None })
}

impl Source {
    fn tasks(&self) -> Vec<Task<'_>> {
        let inputs: Vec<Input<'_>> = match self {
            Source::Range { tasks, count } => (0..*tasks).map(|task| Input::Index { start: task * count, count: *count }).collect(),
            Source::Elements { dtype, bytes, split } => bytes.chunks(*split).map(|bytes| Input::Elements { dtype, bytes }).collect(),
            Source::Rows { columns, bytes, split } => {
                bytes.chunks(*split).map(|bytes| Input::Rows { dtype: "f4", columns: *columns, bytes }).collect()
            }
            Source::Files(files) => files.iter().map(|file| Input::File(file)).collect(),
        };
        inputs.into_iter().enumerate().map(|(number, input)| Task { number: number as u64, input }).collect()
    }
}

/// Everything with a GPU twin. A software adapter gets a sixteenth: it is there to show that the report works.
fn works(software: bool) -> anyhow::Result<Vec<Work>> {
    let less = if software { 16 } else { 1 };
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 31
    };
    let column: Vec<u8> =
        (0..(256 << 20) / less / 4).flat_map(|_| ((next() >> 40) as f32 / 16_777_216.0 * 40.0 + 268.0).to_le_bytes()).collect();
    let keys: Vec<u8> = (0..(64 << 20) / less / 8).flat_map(|_| next().to_le_bytes()).collect();
    let elements = |dtype, bytes: &[u8]| Source::Elements { dtype, bytes: bytes.to_vec(), split: 4 << 20 };
    let samples = |tasks: u64| Source::Range { tasks, count: 1 << 20 };
    let mut works = vec![
        Work::new("monte_carlo_pi", &[], samples(1024 / less as u64), Vec::new())?,
        Work::new("black_scholes", &[("prices", "no")], samples(1024 / less as u64), Vec::new())?.with_flops_each(OPTION_FLOPS),
        Work::new("black_scholes", &[], samples(64 / less as u64), Vec::new())?
            .called("black_scholes, prices read back")
            .with_flops_each(OPTION_FLOPS),
        Work::new(
            "mandelbrot",
            &[("width", "1920"), ("height", "1088")],
            Source::Range { tasks: 1088 / 17 / less as u64, count: 17 },
            Vec::new(),
        )?,
        Work::new("histogram", &[], elements("u1", &column), Vec::new())?.called("histogram, u1"),
        Work::new("histogram", &[("low", "260"), ("high", "320")], elements("f4", &column), Vec::new())?.called("histogram, f4"),
        Work::new("statistics", &[], elements("f4", &column), Vec::new())?.called("statistics, f4"),
        Work::new("radix_sort", &[], elements("u4", &keys), Vec::new())?.called("radix_sort, u4"),
    ];
    let size = if software { 512 } else { 4096 };
    let numbers = |count: usize| -> Vec<u8> { column.iter().copied().cycle().take(4 * count).collect() };
    let side = SideInput::new("b".into(), "f4".into(), vec![size as u64; 2], std::sync::Arc::new(numbers(size * size)));
    let rows = Source::Rows { columns: size, bytes: numbers(size * size), split: 4 * size * size / 8 };
    let product = Work::new("matmul", &[], rows, vec![side])?.called(&format!("matmul, {size}"));
    works.push(Work { flops: Some(2.0 * (size as f64).powi(3)), elements: (size * size) as u64, ..product });
    works.push(clusters(16, column[..(64 << 20) / less].to_vec(), 1 << 20)?);
    let pictures = Source::Files(vec![picture()?; 32 / less]);
    let blur = Work::new("convolve", &[], pictures, Vec::new())?.called("convolve, PNG in and out");
    works.push(Work { elements: blur.elements * 960 * 544, ..blur });
    Ok(works)
}

/// A PNG file, made by other kernels.
fn picture() -> anyhow::Result<Vec<u8>> {
    let params = [("width", "960"), ("height", "544")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let rows =
        raftwerk_kernels::find("mandelbrot")?.prepare(&StageContext { params: params.into(), partitions: 1, ..StageContext::default() })?;
    let made = rows.run_cpu(&Task { number: 0, input: Input::Index { start: 0, count: 544 } })?;
    let image = raftwerk_kernels::find("image")?.prepare(&StageContext { tasks: 1, ..StageContext::default() })?;
    let blocks = made.blocks.iter().map(|bytes| raftwerk_kernels::Block { task: 0, bytes }).collect();
    let part = image.run_cpu(&Task { number: 0, input: Input::Blocks(blocks) })?.part;
    Ok(part.context("the image kernel makes a part")?.bytes)
}

struct Measured {
    gpu: f64,
    cpu: f64,
    moved: u64,
}

/// The best of several runs, each twin by itself; the CPU's on all threads. Both must give the same number of outputs.
fn measure(gpu: &Gpu, work: &Work, budget: Duration) -> anyhow::Result<Measured> {
    let tasks = work.input.tasks();
    let before = gpu.traffic();
    // Compiles, and brings what stays on the device.
    ensure!(work.prepared.run_gpu(gpu, &tasks)?.len() == tasks.len(), "the GPU twin left tasks out");
    let moved = gpu.traffic().since(before).total();
    let gpu_time = best(budget, || work.prepared.run_gpu(gpu, &tasks).map(drop))?;
    let cpu_time = best(budget, || tasks.par_iter().map(|task| work.prepared.run_cpu(task).map(drop)).collect::<Result<(), _>>())?;
    Ok(Measured { gpu: gpu_time, cpu: cpu_time, moved })
}

fn best<E: Into<anyhow::Error>>(budget: Duration, mut run: impl FnMut() -> Result<(), E>) -> anyhow::Result<f64> {
    let (mut best, begin) = (f64::MAX, Instant::now());
    loop {
        let start = Instant::now();
        run().map_err(Into::into)?;
        best = best.min(start.elapsed().as_secs_f64());
        if begin.elapsed() > budget {
            return Ok(best);
        }
    }
}

fn row(work: &Work, measured: &Measured, ceilings: &Ceilings) -> String {
    let rate = |seconds: f64| format!("{:.1}", work.elements as f64 / seconds / 1e6);
    // What an operation takes at the least, for as much of it as there is.
    let share = |amount: f64, ceiling: f64| match amount > 0.0 {
        true => (format!("{:.1}", amount / measured.gpu / 1e9), format!("{:.2}", amount / measured.gpu / ceiling)),
        false => (String::new(), String::new()),
    };
    let (input, of_upload) = share(work.bytes as f64, ceilings.upload_bytes);
    let (moved, of_copy) = share(measured.moved as f64, ceilings.copy_bytes);
    let (flops, of_fma) = share(work.flops.unwrap_or(0.0), ceilings.flops);
    format!(
        "| {} | {} | {} | {input} | {of_upload} | {moved} | {of_copy} | {flops} | {of_fma} | {} | {:.2} |",
        work.name,
        work.elements,
        rate(measured.gpu),
        rate(measured.cpu),
        measured.cpu / measured.gpu
    )
}

fn to_json(work: &Work, measured: &Measured, ceilings: &Ceilings) -> Value {
    json!({
        "kernel": work.name, "elements": work.elements, "input_bytes": work.bytes, "moved_bytes": measured.moved, "flops": work.flops,
        "gpu_seconds": measured.gpu, "cpu_seconds": measured.cpu,
        "of_copy": measured.moved as f64 / measured.gpu / ceilings.copy_bytes,
        "of_fma": work.flops.map(|flops| flops / measured.gpu / ceilings.flops),
    })
}

/// A job on the processor, on the GPU and on both, each through `raftwerk run`, on a cluster of its own that knows no costs yet.
fn together(adapter: &AdapterReport, seconds: f64) -> anyhow::Result<Value> {
    let software = adapter.class == DeviceClass::Software;
    println!("### CPU and GPU on one job\n");
    println!("`black_scholes` without prices through `raftwerk run`, from submission to the end, costs cold.\n");
    let dir = std::env::temp_dir().join(format!("raftwerk-gpu-report-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let made = jobs(adapter, seconds, software, &dir);
    std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    made
}

fn jobs(adapter: &AdapterReport, seconds: f64, software: bool, dir: &std::path::Path) -> anyhow::Result<Value> {
    // The processor is always there: the tables of the job are put together by it.
    let devices = ["--device", "cpu", "--device", adapter.name.as_str()];
    let cpu = speed(dir, &devices, "cpu", seconds)?;
    let gpu = speed(dir, &devices, if software { "software" } else { "gpu" }, seconds)?;
    println!("| devices | options | seconds | M/s | of the sum |");
    println!("|---|---|---|---|---|");
    let line = |name: &str, run: &Run, sum: Option<f64>| {
        let share = sum.map_or_else(String::new, |sum| format!("{:.2}", run.rate() / sum));
        println!("| {name} | {} | {:.2} | {:.1} | {share} |", run.options, run.seconds, run.rate() / 1e6);
    };
    line("CPU", &cpu, None);
    line("GPU", &gpu, None);
    if software {
        println!(
            "\nBoth together are left out: a software adapter is the processor, so placement gives it nothing where the processor itself is offered.\n"
        );
        return Ok(json!({ "cpu_per_s": cpu.rate(), "gpu_per_s": gpu.rate(), "both_per_s": Value::Null }));
    }
    let sum = cpu.rate() + gpu.rate();
    let both = job(dir, &devices, "any", (sum * 10.0 * seconds) as u64)?;
    line("both", &both, Some(sum));
    println!("\nBoth are {:.2} x the better one alone.\n", both.rate() / cpu.rate().max(gpu.rate()));
    Ok(json!({ "cpu_per_s": cpu.rate(), "gpu_per_s": gpu.rate(), "both_per_s": both.rate(), "of_the_sum": both.rate() / sum }))
}

struct Run {
    options: u64,
    seconds: f64,
}

impl Run {
    fn rate(&self) -> f64 {
        self.options as f64 / self.seconds
    }
}

/// A job that takes about ten times `seconds`: the first runs say how long it must be.
fn speed(dir: &std::path::Path, devices: &[&str], class: &str, seconds: f64) -> anyhow::Result<Run> {
    let mut options = 1 << 22;
    loop {
        let run = job(dir, devices, class, options)?;
        if run.seconds >= 5.0 * seconds || options > 1 << 44 {
            return Ok(run);
        }
        let wanted = run.rate() * 10.0 * seconds;
        options = (wanted as u64).clamp(2 * options, 64 * options);
    }
}

fn job(dir: &std::path::Path, devices: &[&str], class: &str, options: u64) -> anyhow::Result<Run> {
    let file = dir.join("job.toml");
    let tasks = (options >> 16).clamp(1, 1 << 20);
    std::fs::write(
        &file,
        format!(
            "[input]\nrange = {{ count = {options}, tasks = {tasks} }}\n[map]\nkernel = \"black_scholes\"\nparams = {{ prices = \"no\" }}\ndevice = \"{class}\"\n"
        ),
    )?;
    let output =
        Command::new(program()).args(["-q", "-o", "json", "run"]).arg(&file).args(devices).output().context("cannot start `raftwerk`")?;
    ensure!(output.status.success(), "`raftwerk run {}` failed: {}", devices.join(" "), String::from_utf8_lossy(&output.stderr));
    let view: Value = serde_json::from_slice(&output.stdout).context("what `raftwerk run -o json` prints")?;
    let at = |key: &str| view[key].as_u64().with_context(|| format!("`{key}` in {view}"));
    let took = at("finished_at_ms")?.saturating_sub(at("submitted_at_ms")?);
    Ok(Run { options, seconds: took.max(1) as f64 / 1e3 })
}
