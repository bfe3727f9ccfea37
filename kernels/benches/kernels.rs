//! Time per element and bytes per second of each kernel and twin: `cargo bench -p raftwerk-kernels -- [name part]`.
//!
//! One task on one core for the CPU twin, since the executor spreads tasks over cores; a lease of several tasks for the GPU twin.
//! `RAFTWERK_BENCH_TEXT=file` counts the words of a real text (its first 64 MiB are one task).

use std::hint::black_box;
use std::time::{Duration, Instant};

use raftwerk_kernels::*;

fn main() {
    // `cargo bench` adds `--bench`.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let wanted = |name: &str| name.contains(&filter);
    println!("{:<28} {:>12} {:>14} {:>12} {:>10}", "kernel, twin", "elements", "bytes in", "ns/element", "MB/s");
    if wanted("noop") {
        noop();
    }
    if wanted("word_count") {
        word_count();
    }
    if wanted("sum_by_key") {
        sum_by_key();
    }
    let gpu = gpu();
    if wanted("monte_carlo_pi") {
        twins("monte_carlo_pi", &[], Range { tasks: 64, count: 1 << 20 }, gpu.as_ref());
    }
    if wanted("black_scholes") {
        twins("black_scholes", &[("prices", "no")], Range { tasks: 64, count: 1 << 20 }, gpu.as_ref());
        twins("black_scholes", &[], Range { tasks: 16, count: 1 << 20 }, gpu.as_ref());
    }
    if wanted("histogram") {
        histogram(gpu.as_ref());
    }
    if wanted("statistics") {
        statistics(gpu.as_ref());
    }
    if wanted("radix_sort") {
        radix_sort(gpu.as_ref());
    }
    if let Some(gpu) = gpu.as_ref().filter(|_| wanted("primitives")) {
        primitives(gpu);
    }
    if wanted("mandelbrot") {
        let size = [("width", "960"), ("height", "540")];
        twins("mandelbrot", &size, Range { tasks: 20, count: 27 }, gpu.as_ref());
        let deep = [("center_x", "-0.743643887037151"), ("center_y", "0.131825904205330"), ("zoom", "1e10"), ("max_iterations", "10000")];
        twins("mandelbrot", &[size.as_slice(), &deep].concat(), Range { tasks: 20, count: 27 }, gpu.as_ref());
    }
    if wanted("matmul") {
        [1024, 2048, 4096].into_iter().for_each(|size| matmul(size, gpu.as_ref()));
    }
    if wanted("kmeans_assign") {
        kmeans_assign(gpu.as_ref());
    }
    if wanted("convolve") {
        convolve(gpu.as_ref());
    }
    if wanted("image") {
        image();
    }
}

/// `RAFTWERK_BENCH_GPU=index` chooses another adapter than the first.
fn gpu() -> Option<gpu::Gpu> {
    let index = std::env::var("RAFTWERK_BENCH_GPU").ok().and_then(|index| index.parse().ok()).unwrap_or(0);
    match gpu::Gpu::open(index) {
        Ok(gpu) => {
            println!("GPU twins on {} ({})", gpu.report().name, gpu.report().class.name());
            Some(gpu)
        }
        Err(error) => {
            println!("GPU twins skipped: {error}");
            None
        }
    }
}

/// Best of several runs: the machine's other work only ever adds time.
fn best(mut run: impl FnMut()) -> Duration {
    run();
    let (mut best, begin) = (Duration::MAX, Instant::now());
    while begin.elapsed() < Duration::from_secs(2) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
    }
    best
}

fn report(name: &str, elements: u64, bytes: u64, time: Duration) {
    let per_second = if bytes == 0 { "-".to_owned() } else { format!("{:.0}", bytes as f64 / time.as_secs_f64() / 1e6) };
    println!("{name:<28} {elements:>12} {bytes:>14} {:>12.3} {per_second:>10}", time.as_secs_f64() * 1e9 / elements as f64);
}

/// A lease of these tasks on the GPU, and what its plans move there between memory and cores.
fn on_gpu(name: &str, elements: u64, bytes: u64, gpu: &gpu::Gpu, kernel: &dyn Prepared, tasks: &[Task<'_>]) {
    let moved = moved(gpu, kernel, tasks);
    let time = best(|| drop(black_box(kernel.run_gpu(gpu, tasks).unwrap())));
    report(name, elements, bytes, time);
    println!("  bytes moved on the device: {moved}, {:.3} for each element", moved as f64 / elements as f64);
}

/// By a first run, which also brings to the device what stays there.
fn moved(gpu: &gpu::Gpu, kernel: &dyn Prepared, tasks: &[Task<'_>]) -> u64 {
    let before = gpu.traffic();
    black_box(kernel.run_gpu(gpu, tasks).unwrap());
    gpu.traffic().since(before).total()
}

/// How much longer the other took: above 1 the named one is quicker.
fn ratio(name: &str, rival: &str, time: Duration, other: Duration) {
    println!("  {name}: {:.2} x the speed of {rival}", other.as_secs_f64() / time.as_secs_f64());
}

/// Two things in turn, so that both meet the same machine; the best of each. Their quotient is what a goal is about.
fn side_by_side(mut run: impl FnMut(), mut rival: impl FnMut()) -> [Duration; 2] {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    run();
    rival();
    let (mut best, begin) = ([Duration::MAX; 2], Instant::now());
    while begin.elapsed() < Duration::from_secs(4) {
        best[0] = best[0].min(time(&mut run));
        best[1] = best[1].min(time(&mut rival));
    }
    best
}

fn prepared(name: &str, partitions: u32) -> Box<dyn Prepared> {
    prepared_with(name, partitions, &[])
}

fn prepared_with(name: &str, partitions: u32, params: &[(&str, &str)]) -> Box<dyn Prepared> {
    let params = params.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let stage = StageContext { params, tasks: 1, partitions, ..StageContext::default() };
    find(name).unwrap().prepare(&stage).unwrap()
}

struct Range {
    tasks: u64,
    count: u64,
}

impl Range {
    fn list(&self) -> Vec<Task<'static>> {
        (0..self.tasks).map(|number| Task { number, input: Input::Index { start: number * self.count, count: self.count } }).collect()
    }
}

/// A kernel over an index range. Mandelbrot's CPU twin uses all cores inside a task.
fn twins(name: &str, params: &[(&str, &str)], range: Range, gpu: Option<&gpu::Gpu>) {
    let kernel = prepared_with(name, 1, params);
    let tasks = range.list();
    let elements = range.tasks * range.count;
    let time = best(|| tasks.iter().for_each(|task| drop(black_box(kernel.run_cpu(task).unwrap()))));
    report(&format!("{name}, cpu"), elements, 0, time);
    if let Some(gpu) = gpu {
        on_gpu(&format!("{name}, gpu"), elements, 0, gpu, kernel.as_ref(), &tasks);
    }
}

/// Of u4 twice: with bins that are the top eight bits, and with bins that want a multiplication, in the loop as in the kernel.
fn histogram(gpu: Option<&gpu::Gpu>) {
    let mut state = 1u64;
    let values: Vec<u8> = (0..SPLIT / 8)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let low = (state >> 40) as f32 / 1e5;
            [low.to_le_bytes(), ((state >> 11) as u32 as f32 / 1e7).to_le_bytes()].concat()
        })
        .collect();
    for (name, dtype, size, high) in
        [("u1", "u1", 1, "256"), ("u4", "u4", 4, "4294967296"), ("u4, any bins", "u4", 4, "4000000000"), ("f4", "f4", 4, "256")]
    {
        let kernel = prepared_with("histogram", 1, &[("high", high)]);
        let tasks: Vec<Task<'_>> = values
            .chunks(SPLIT / 4)
            .enumerate()
            .map(|(number, bytes)| Task { number: number as u64, input: Input::Elements { dtype, bytes } })
            .collect();
        let (elements, bytes) = ((values.len() / size) as u64, values.len() as u64);
        let rival = || {
            for task in &tasks {
                let Input::Elements { bytes, .. } = task.input else { continue };
                black_box(four_tables(name, bytes));
            }
        };
        let [time, other] = side_by_side(|| tasks.iter().for_each(|task| drop(black_box(kernel.run_cpu(task).unwrap()))), rival);
        report(&format!("histogram, cpu, {name}"), elements, bytes, time);
        ratio(&format!("histogram {name}"), "a four-table loop", time, other);
        if let Some(gpu) = gpu {
            on_gpu(&format!("histogram, gpu, {name}"), elements, bytes, gpu, kernel.as_ref(), &tasks);
        }
    }
}

/// The loop that people write by hand: 256 bins in four tables, edges where floats happen to put them, no care for NaN.
fn four_tables(name: &str, bytes: &[u8]) -> [u32; 258] {
    let mut tables = [[0u32; 258]; 4];
    match name {
        "u1" => {
            let (groups, rest) = bytes.as_chunks::<4>();
            for group in groups {
                for (table, value) in tables.iter_mut().zip(group) {
                    table[usize::from(*value)] += 1;
                }
            }
            rest.iter().for_each(|value| tables[0][usize::from(*value)] += 1);
        }
        "u4" => {
            for group in bytes.as_chunks::<4>().0.as_chunks::<4>().0 {
                for (table, value) in tables.iter_mut().zip(group) {
                    table[(u32::from_le_bytes(*value) >> 24) as usize] += 1;
                }
            }
        }
        "u4, any bins" => {
            for group in bytes.as_chunks::<4>().0.as_chunks::<4>().0 {
                for (table, value) in tables.iter_mut().zip(group) {
                    table[((f64::from(u32::from_le_bytes(*value)) * (256.0 / 4e9) + 1.0) as usize).min(257)] += 1;
                }
            }
        }
        _ => {
            for group in bytes.as_chunks::<4>().0.as_chunks::<4>().0 {
                for (table, value) in tables.iter_mut().zip(group) {
                    // One bin is one unit here; what lies outside is counted beside.
                    table[((f32::from_le_bytes(*value) + 1.0) as usize).min(257)] += 1;
                }
            }
        }
    }
    std::array::from_fn(|slot| tables.iter().map(|table| table[slot]).sum())
}

/// On all of rayon's threads, against a loop that only reads.
fn statistics(gpu: Option<&gpu::Gpu>) {
    use rayon::prelude::*;
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let column: Vec<u8> = (0..SPLIT).flat_map(|_| (next() as f32 / 16_777_216.0 * 40.0 + 268.0).to_le_bytes()).collect();
    for (name, dtype, column) in
        [("u1", "u1", &column), ("u4", "u4", &column), ("f4", "f4", &column), ("f4 of all sizes", "f4", &wide_floats())]
    {
        let kernel = prepared("statistics", 1);
        let size = if dtype == "u1" { 1 } else { 4 };
        let tasks: Vec<Task<'_>> = (column.chunks(SPLIT / 16).enumerate())
            .map(|(number, bytes)| Task { number: number as u64, input: Input::Elements { dtype, bytes } })
            .collect();
        let run = || tasks.par_iter().for_each(|task| drop(black_box(kernel.run_cpu(task).unwrap())));
        let read = || {
            column.par_chunks(SPLIT / 16).for_each(|bytes| {
                black_box(read_only(bytes));
            });
        };
        let [time, reading] = side_by_side(run, read);
        let (elements, bytes) = ((column.len() / size) as u64, column.len() as u64);
        report(&format!("statistics, cpu, {name}"), elements, bytes, time);
        report("  a loop that only reads", elements, bytes, reading);
        ratio(&format!("statistics {name}, {} threads", rayon::current_num_threads()), "a loop that only reads", time, reading);
        if let Some(gpu) = gpu {
            let tasks = &tasks[..tasks.len().min(16)];
            let bytes = (tasks.len() * SPLIT / 16) as u64;
            on_gpu(&format!("statistics, gpu, {name}"), bytes / size as u64, bytes, gpu, kernel.as_ref(), tasks);
        }
    }
}

/// Any finite f4: no block has its exponents near each other.
fn wide_floats() -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32 & 0xbfff_ffff
    };
    (0..SPLIT / 4).flat_map(|_| next().to_le_bytes()).collect()
}

fn read_only(bytes: &[u8]) -> u64 {
    // Eight sums, so that additions do not wait for each other.
    let mut sums = [0u64; 8];
    for group in bytes.as_chunks::<8>().0.as_chunks::<8>().0 {
        for (sum, word) in sums.iter_mut().zip(group) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

/// Who sorts, and how.
type Sort<'s, T> = (&'s str, &'s dyn Fn(&mut [T]));

/// On all of rayon's threads, against the parallel sorts of other crates.
fn radix_sort(gpu: Option<&gpu::Gpu>) {
    use raftwerk_kernels::radix_sort::cpu::{Space, sort};
    use rayon::slice::ParallelSliceMut;
    use rdst::RadixSort;
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    let longs: Vec<u64> = (0..SPLIT / 8).map(|_| next()).collect();
    let narrow: Vec<u64> = longs.iter().map(|key| key >> 40).collect();
    let words: Vec<u32> = (0..SPLIT / 4).map(|_| (next() >> 32) as u32).collect();
    let few: Vec<u32> = words.iter().map(|key| key % 1000).collect();

    /// Each sorts the same unsorted copy; making the copy is in all times.
    fn compare<T: Copy>(name: &str, keys: &[T], sorts: [Sort<'_, T>; 3]) {
        let mut copy = keys.to_vec();
        let mut times = [Duration::MAX; 3];
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(8) {
            for ((_, sort), best) in sorts.iter().zip(&mut times) {
                copy.copy_from_slice(keys);
                let start = Instant::now();
                sort(black_box(&mut copy));
                *best = (*best).min(start.elapsed());
            }
        }
        for ((who, _), time) in sorts.iter().zip(times) {
            report(&format!("{who}, {name}"), keys.len() as u64, size_of_val(keys) as u64, time);
        }
        for ((who, _), time) in sorts.iter().zip(times).skip(1) {
            ratio(&format!("radix_sort {name}, {} threads", rayon::current_num_threads()), who, times[0], time);
        }
    }
    // As the tasks of a stage share it.
    let space = Space::default();
    for (name, keys) in [("u4", &words), ("u4 below 1000", &few)] {
        let sorts: [Sort<'_, u32>; 3] = [
            ("radix_sort, cpu", &|keys| sort(keys, 0, &space)),
            ("rdst", &|keys| keys.radix_sort_unstable()),
            ("par_sort_unstable", &|keys| keys.par_sort_unstable()),
        ];
        compare(name, keys, sorts);
    }
    for (name, keys) in [("u8", &longs), ("u8 below 2^24", &narrow)] {
        let sorts: [Sort<'_, u64>; 3] = [
            ("radix_sort, cpu", &|keys| sort(keys, 0, &space)),
            ("rdst", &|keys| keys.radix_sort_unstable()),
            ("par_sort_unstable", &|keys| keys.par_sort_unstable()),
        ];
        compare(name, keys, sorts);
    }
    if let Some(gpu) = gpu {
        let bytes: Vec<u8> = words.iter().take(4 << 20).flat_map(|key| key.to_le_bytes()).collect();
        for (dtype, size) in [("u4", 4), ("u8", 8)] {
            let kernel = prepared("radix_sort", 4);
            let tasks: Vec<Task<'_>> = (bytes.chunks(SPLIT / 16).enumerate())
                .map(|(number, bytes)| Task { number: number as u64, input: Input::Elements { dtype, bytes } })
                .collect();
            on_gpu(&format!("radix_sort, gpu, {dtype}"), (bytes.len() / size) as u64, bytes.len() as u64, gpu, kernel.as_ref(), &tasks);
        }
    }
}

/// Upload and, for scan, read-back included: what a caller waits for.
fn primitives(gpu: &gpu::Gpu) {
    use gpu::primitives::Operation;
    let bytes: Vec<u8> = (0..SPLIT).map(|index| index as u8).collect();
    for operation in [Operation::SumU32, Operation::SumU64] {
        let (elements, least) = ((bytes.len() / operation.size()) as u64, bytes.len() as f64);
        let before = gpu.traffic();
        black_box(gpu.reduce(operation, &bytes).unwrap());
        let reduced = gpu.traffic().since(before);
        let time = best(|| {
            black_box(gpu.reduce(operation, &bytes).unwrap());
        });
        report(&format!("reduce, gpu, {operation:?}"), elements, bytes.len() as u64, time);
        println!("  bytes moved: {:.3} x reading each value once", reduced.total() as f64 / least);
        let before = gpu.traffic();
        black_box(gpu.scan(operation, &bytes).unwrap());
        let scanned = gpu.traffic().since(before);
        let time = best(|| drop(black_box(gpu.scan(operation, &bytes).unwrap())));
        report(&format!("scan, gpu, {operation:?}"), elements, bytes.len() as u64, time);
        println!("  bytes moved: {:.3} x reading and writing each value once", scanned.total() as f64 / (2.0 * least));
    }
}

/// A product of two square matrices; A in eight tasks, on two cores as an executor with two threads runs them. The last column is GFLOP/s.
fn matmul(size: usize, gpu: Option<&gpu::Gpu>) {
    let mut state = 1u64;
    let mut matrix = || -> Vec<u8> {
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..size * size).flat_map(|_| number().to_le_bytes()).collect()
    };
    let (a, b) = (matrix(), std::sync::Arc::new(matrix()));
    let side = || SideInput::new("b".into(), "f4".into(), vec![size as u64; 2], b.clone());
    let prepared = |reproducible| {
        let stage = StageContext { tasks: 8, partitions: 1, reproducible, sides: vec![side()], ..StageContext::default() };
        find("matmul").unwrap().prepare(&stage).unwrap()
    };
    // B is arranged for the caches once in each task: fewer rows than this do not repay it.
    let rows = (size / 8).max(256);
    let tasks: Vec<Task<'_>> = a
        .chunks(4 * size * rows)
        .enumerate()
        .map(|(number, bytes)| Task { number: number as u64, input: Input::Rows { dtype: "f4", columns: size, bytes } })
        .collect();
    let report = |name: &str, time: Duration| {
        let flops = 2.0 * (size as f64).powi(3);
        println!(
            "{:<28} {:>12} {:>14} {:>10.1} GFLOP/s",
            format!("{name}, {size}"),
            size * size,
            8 * size * size,
            flops / time.as_secs_f64() / 1e9
        );
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let two_cores = |kernel: &dyn Prepared| {
        best(|| pool.scope(|scope| tasks.iter().for_each(|task| scope.spawn(move |_| drop(black_box(kernel.run_cpu(task).unwrap()))))))
    };
    report("matmul, cpu, 2 threads", two_cores(prepared(false).as_ref()));
    if size <= 2048 {
        report("matmul, cpu, reproducible", two_cores(prepared(true).as_ref()));
    }
    if let Some(gpu) = gpu {
        let kernel = prepared(false);
        let moved = moved(gpu, kernel.as_ref(), &tasks);
        report("matmul, gpu", best(|| drop(black_box(kernel.run_gpu(gpu, &tasks).unwrap()))));
        println!("  bytes moved on the device: {moved}, {:.3} for each element", moved as f64 / (size * size) as f64);
    }
}

/// A round after the first one, of points in 16 dimensions: the GPU has them since the round before, the CPU twin reads them in each.
fn kmeans_assign(gpu: Option<&gpu::Gpu>) {
    const COLUMNS: usize = 16;
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32
    };
    let points: Vec<u8> = (0..SPLIT / 4).flat_map(|_| next().to_le_bytes()).collect();
    let tasks: Vec<Task<'_>> = (points.chunks(SPLIT / 16).enumerate())
        .map(|(number, bytes)| Task { number: number as u64, input: Input::Rows { dtype: "f4", columns: COLUMNS, bytes } })
        .collect();
    let kernel = find("kmeans_assign").unwrap();
    for clusters in ["8", "256"] {
        let params = [("clusters".to_owned(), clusters.to_owned())].into();
        let stage = StageContext { params, tasks: tasks.len() as u64, partitions: 1, ..StageContext::default() };
        let first = kernel.prepare(&stage).unwrap();
        let made: Vec<TaskOutput> = tasks.iter().map(|task| first.run_cpu(task).unwrap()).collect();
        let blocks = made.iter().enumerate().map(|(task, output)| Block { task: task as u64, bytes: &output.blocks[0] }).collect();
        let (_, end) = prepared("kmeans_update", 1).run_round(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap();
        let round = kernel.prepare_round(&stage, &end.state, None).unwrap();
        let (elements, bytes) = ((points.len() / 4 / COLUMNS) as u64, points.len() as u64);
        let time = best(|| tasks.iter().for_each(|task| drop(black_box(round.run_cpu(task).unwrap()))));
        report(&format!("kmeans_assign, cpu, {clusters}"), elements, bytes, time);
        if let Some(gpu) = gpu {
            on_gpu(&format!("kmeans_assign, gpu, {clusters}"), elements, 0, gpu, round.as_ref(), &tasks);
        }
    }
}

/// Pixels of PNG files, which are read and written in it.
fn convolve(gpu: Option<&gpu::Gpu>) {
    const FILES: u64 = 8;
    let rows = mandelbrot_rows();
    let blocks = vec![Block { task: 0, bytes: &rows }];
    let picture = prepared("image", 1).run_cpu(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap().part.unwrap().bytes;
    let tasks: Vec<Task<'_>> = (0..FILES).map(|number| Task { number, input: Input::File(&picture) }).collect();
    let (pixels, bytes) = (FILES * 960 * 540, FILES * picture.len() as u64);
    for filter in ["gaussian", "sobel"] {
        let kernel = prepared_with("convolve", FILES as u32, &[("filter", filter)]);
        let time = best(|| tasks.iter().for_each(|task| drop(black_box(kernel.run_cpu(task).unwrap()))));
        report(&format!("convolve, cpu, {filter}"), pixels, bytes, time);
        if let Some(gpu) = gpu {
            on_gpu(&format!("convolve, gpu, {filter}"), pixels, bytes, gpu, kernel.as_ref(), &tasks);
        }
    }
}

/// Of an image of 960 x 540.
fn mandelbrot_rows() -> Vec<u8> {
    let map = prepared_with("mandelbrot", 1, &[("width", "960"), ("height", "540")]);
    map.run_cpu(&Task { number: 0, input: Input::Index { start: 0, count: 540 } }).unwrap().blocks.remove(0)
}

fn image() {
    let rows = mandelbrot_rows();
    let kernel = prepared("image", 1);
    let time = best(|| {
        let blocks = vec![Block { task: 0, bytes: &rows }];
        drop(black_box(kernel.run_cpu(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap()));
    });
    report("image, cpu", 960 * 540, rows.len() as u64, time);
}

fn noop() {
    let kernel = prepared("noop", 1);
    let tasks = 1_000_000;
    let time = best(|| {
        for number in 0..tasks {
            black_box(kernel.run_cpu(&Task { number, input: Input::Index { start: number, count: 1 } }).unwrap());
        }
    });
    report("noop, cpu", tasks, 0, time);
}

const SPLIT: usize = 64 << 20;

fn word_count() {
    for (name, text) in texts() {
        let kernel = prepared("word_count", 16);
        let run = || kernel.run_cpu(&Task { number: 0, input: Input::Text(&text) }).unwrap();
        let output = run();
        let time = best(|| drop(black_box(run())));
        report(name, output.tallies[1], text.len() as u64, time);
        let shuffled: usize = output.blocks.iter().map(Vec::len).sum();
        println!("  shuffled {} MB in 16 partitions", shuffled / 1_000_000);
    }
}

fn texts() -> Vec<(&'static str, Vec<u8>)> {
    if let Ok(path) = std::env::var("RAFTWERK_BENCH_TEXT") {
        let mut text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.truncate(SPLIT);
        return vec![("word_count, cpu, file", text)];
    }
    vec![("word_count, cpu, 50 k words", zipf(50_000, SPLIT)), ("word_count, cpu, 2.8 M words", zipf(2_800_000, SPLIT))]
}

/// Words whose frequency falls with their rank, as in a language.
fn zipf(distinct: u64, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 32);
    let mut state = 1u64;
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let rank = (distinct as f64).powf((state >> 11) as f64 / (1u64 << 53) as f64) as u64;
        let mut letters = rank.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Frequent words are short.
        for _ in 0..2 + rank.ilog2() as u64 / 4 + letters % 5 {
            letters = letters.rotate_left(11).wrapping_mul(0xd6e8_feb8_6659_fd93);
            text.push(b'a' + (letters >> 59) as u8 % 26);
        }
        text.push(if letters.is_multiple_of(11) { b'\n' } else { b' ' });
    }
    text
}

fn sum_by_key() {
    let runs: Vec<Vec<u8>> = (0..16u64)
        .map(|task| {
            let mut run = Vec::new();
            (0..400_000u64).filter(|key| key.wrapping_mul(0x9e37_79b9 + task) % 4 != 0).for_each(|key| {
                run::push_count(&mut run, format!("{:07x}", key.wrapping_mul(661)).as_bytes(), key % 300);
            });
            run
        })
        .collect();
    let records = runs.iter().flat_map(|run| run::Reader::new(run)).count() as u64;
    let bytes: usize = runs.iter().map(Vec::len).sum();
    let kernel = prepared("sum_by_key", 1);
    let time = best(|| {
        let blocks = runs.iter().enumerate().map(|(task, bytes)| Block { task: task as u64, bytes }).collect();
        drop(black_box(kernel.run_cpu(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap()));
    });
    report("sum_by_key, cpu, 16 runs", records, bytes as u64, time);
}
