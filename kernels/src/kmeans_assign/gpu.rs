//! Points lie on the device as places on the grid, two to a word, in chunks; they are brought there once and stay for the rounds to come, as far
//! as there is room. Each chunk is one dispatch with cells of its own, which are few: what comes back is sums, not points.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Grid, Model, Partial};
use crate::api::{GpuNeed, KernelError};
use crate::gpu::{Dispatches, Gpu, KeptInput, Plan, Program, Resident, Running, Use, words};
use crate::side::f4;

const GROUP_SIZE: u32 = 256;
/// Points of one member: a group adds its cells to the device's once for all of them.
const POINTS_EACH: u32 = 16;
/// Points of a chunk: sums of so many places below 2^16 fit a word.
const CHUNK_POINTS: usize = 1 << 16;
/// Words of a group's own memory that are used for cells: 12 KiB, as every adapter has.
const CELLS_IN_GROUP: u32 = 3072;
/// Chunks of one submission.
const CHUNKS: usize = 64;
/// Submissions that the device has at once: one runs while the host reads another.
const AHEAD: usize = 2;

/// The points of a job's tasks on this device.
pub(super) struct Points {
    pub(super) grid: Grid,
    kept: Mutex<KeptInput<OnDevice>>,
}

impl Points {
    pub(super) fn new(grid: Grid) -> Points {
        Points { grid, kept: Mutex::default() }
    }

    pub(super) fn next_round(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).next_round();
    }

    /// A task's points, from the device if they are there still.
    fn of(&self, gpu: &Gpu, task: u64, rows: &[u8]) -> Result<Arc<OnDevice>, KernelError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(points) = kept.get(task) {
            return Ok(points);
        }
        let points = match OnDevice::upload(gpu, &self.grid, rows) {
            Err(KernelError::Memory(_)) => {
                kept.clear();
                OnDevice::upload(gpu, &self.grid, rows)
            }
            uploaded => uploaded,
        };
        let points = Arc::new(points?);
        kept.put(gpu, task, points.clone(), points.bytes());
        Ok(points)
    }
}

struct OnDevice {
    chunks: Vec<(Resident, u32)>,
    invalid: u64,
}

impl OnDevice {
    fn bytes(&self) -> u64 {
        self.chunks.iter().map(|(chunk, _)| chunk.bytes()).sum()
    }

    fn upload(gpu: &Gpu, grid: &Grid, rows: &[u8]) -> Result<OnDevice, KernelError> {
        let (columns, words) = (grid.columns(), grid.columns().div_ceil(2));
        let fitting = (gpu.most_bytes() / (4 * words as u64)) as usize;
        if fitting < GROUP_SIZE as usize {
            let text = format!("{}: {GROUP_SIZE} points of {columns} coordinates do not fit a buffer", gpu.report().name);
            return Err(KernelError::Device(text));
        }
        let most = fitting.min(CHUNK_POINTS);
        let numbers = f4(rows);
        let mut on_device = OnDevice { chunks: Vec::new(), invalid: 0 };
        let mut places = vec![0u16; columns];
        for chunk in numbers.chunks(most * columns) {
            let mut found: Vec<u16> = Vec::with_capacity(chunk.len());
            for point in chunk.chunks_exact(columns) {
                match grid.places(point, &mut places) {
                    true => found.extend_from_slice(&places),
                    false => on_device.invalid += 1,
                }
            }
            let points = found.len() / columns;
            if points == 0 {
                continue;
            }
            let word = |point: &[u16], word: usize| {
                let high = point.get(2 * word + 1).copied().unwrap_or_default();
                u32::from(point[2 * word]) | u32::from(high) << 16
            };
            let bytes: Vec<u8> =
                (0..words).flat_map(|w| found.chunks_exact(columns).flat_map(move |point| word(point, w).to_le_bytes())).collect();
            on_device.chunks.push((gpu.keep(&[&bytes])?, points as u32));
        }
        Ok(on_device)
    }
}

/// Centroids in fours, word by word.
fn centroids(model: &Model) -> Vec<u8> {
    let (clusters, columns) = (model.clusters(), model.columns());
    let place = |cluster: usize, column: usize| match cluster < clusters && column < columns {
        true => u32::from(model.centroids[cluster * columns + column]),
        false => 0,
    };
    let fours = (0..clusters.next_multiple_of(8)).step_by(4);
    let of_four =
        |first: usize, word: usize| (first..first + 4).map(move |cluster| place(cluster, 2 * word) | place(cluster, 2 * word + 1) << 16);
    words(fours.flat_map(|first| (0..columns.div_ceil(2)).flat_map(move |word| of_four(first, word))))
}

/// Which task a chunk is of, and its points.
type Chunk = (usize, usize, Arc<OnDevice>);

/// What each task's points add up to.
pub(super) fn assign(gpu: &Gpu, model: &Model, points: &Points, tasks: &[(u64, &[u8])]) -> Result<Vec<Partial>, KernelError> {
    let (clusters, columns) = (model.clusters(), model.columns());
    let cells = clusters * columns + clusters + 2;
    let centroids = gpu.keep(&[&centroids(model)])?;
    let mut partials = vec![Partial::new(clusters, columns); tasks.len()];
    let mut running: VecDeque<(Vec<Chunk>, Running<'_>)> = VecDeque::new();
    let mut collect = |(batch, run): (Vec<Chunk>, Running<'_>)| -> Result<(), KernelError> {
        let words = run.finish()?;
        for ((task, ..), found) in batch.iter().zip(words.chunks_exact(cells)) {
            add(&mut partials[*task], found);
        }
        Ok(())
    };
    let most = ((gpu.batch_bytes() / (4 * cells as u64)) as usize).clamp(1, CHUNKS);
    let mut batch: Vec<Chunk> = Vec::new();
    let mut bytes = 0;
    let mut invalid = Vec::with_capacity(tasks.len());
    for (index, (task, rows)) in tasks.iter().enumerate() {
        let on_device = points.of(gpu, *task, rows)?;
        invalid.push(on_device.invalid);
        for chunk in 0..on_device.chunks.len() {
            // What does not stay on the device must not pile up there either.
            if batch.len() == most || bytes > gpu.batch_bytes() {
                let run = submit(gpu, &centroids, (clusters, columns), &batch)?;
                running.push_back((std::mem::take(&mut batch), run));
                bytes = 0;
                if running.len() > AHEAD {
                    running.pop_front().map_or(Ok(()), &mut collect)?;
                }
            }
            bytes += on_device.chunks[chunk].0.bytes();
            batch.push((index, chunk, on_device.clone()));
        }
    }
    if !batch.is_empty() {
        let run = submit(gpu, &centroids, (clusters, columns), &batch)?;
        running.push_back((batch, run));
    }
    running.into_iter().try_for_each(collect)?;
    partials.iter_mut().zip(invalid).for_each(|(partial, invalid)| partial.invalid = invalid);
    Ok(partials)
}

/// Of a lease: its points, which stay as long as there is room, the centroids, and of each chunk its shape and its cells, twice. There is no most:
/// what stays is limited by the device's memory.
pub(super) fn need(clusters: u64, columns: u64) -> GpuNeed {
    // Points, shapes and cells are buffers of their own.
    const BUFFERS: u64 = 3 * 4096;
    let words = columns.div_ceil(2);
    let per_chunk = BUFFERS + 2 * 4 * (clusters * columns + clusters + 2);
    let point_bytes = (4 * columns) as f64;
    let dispatches = Dispatches {
        at_once: AHEAD as u64 + 1,
        buffers: 1,
        fixed: 0,
        per_task: per_chunk,
        per_unit: ((4 * words) as f64 + per_chunk as f64 / CHUNK_POINTS as f64) / point_bytes,
        most: 0,
        stays: 4 * 4 * (clusters.next_multiple_of(8) / 4) * words,
    };
    GpuNeed { most: None, ..dispatches.need() }
}

fn submit<'a>(
    gpu: &'a Gpu,
    centroids: &Resident,
    (clusters, columns): (usize, usize),
    batch: &[Chunk],
) -> Result<Running<'a>, KernelError> {
    let program = Program {
        name: "kmeans_assign",
        wgsl: &[include_str!("kmeans_assign.wgsl")],
        constants: &[("group_size", GROUP_SIZE), ("cells_in_group", CELLS_IN_GROUP), ("points_each", POINTS_EACH)],
    };
    let words_each = columns.div_ceil(2) as u32;
    let cell_bytes = 4 * (clusters * columns + clusters + 2) as u64;
    let mut plan = Plan::default();
    let of_all = plan.resident(centroids);
    for (_, chunk, on_device) in batch {
        let (chunk, points) = &on_device.chunks[*chunk];
        let (given, shape) = (plan.resident(chunk), plan.upload_bytes(words([*points, words_each, clusters as u32, columns as u32])));
        let cells = plan.zeros(cell_bytes);
        // Points are read once for every eight centroids and once to be added up; every group reads the centroids for each of its points.
        let reads = clusters.div_ceil(8) as u64 + 1;
        let uses = [
            Use::read(given).moving(reads * chunk.bytes()),
            Use::read(of_all).moving(u64::from(*points).div_ceil(u64::from(GROUP_SIZE)) * centroids.bytes()),
            Use::read(shape),
            Use::update(cells),
        ];
        plan.run(&program, &uses, points.div_ceil(GROUP_SIZE * POINTS_EACH));
        plan.result(cells);
    }
    gpu.submit(&plan)
}

fn add(partial: &mut Partial, cells: &[u32]) {
    let (sums, rest) = cells.split_at(partial.sums.len());
    let (counts, objective) = rest.split_at(partial.counts.len());
    partial.sums.iter_mut().zip(sums).for_each(|(sum, more)| *sum += u64::from(*more));
    partial.counts.iter_mut().zip(counts).for_each(|(count, more)| *count += u64::from(*more));
    partial.objective += u128::from(objective[0]) | u128::from(objective[1]) << 32;
}
