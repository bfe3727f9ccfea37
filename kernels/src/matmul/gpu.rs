//! One work group makes one tile of C, 64 x 64, from tiles of A and B in its own memory. B lies on the device as panels of columns, each as
//! large as a buffer may be; rows of A go there in batches, whichever tasks they are of.

use std::sync::{Mutex, PoisonError};

use super::Right;
use crate::api::{GpuNeed, KernelError};
use crate::gpu::{Ahead, Dispatch, Dispatches, Gpu, Program, Resident, Running, words};

/// Rows and columns of a group's tile.
const TILE: usize = 64;
/// Products of one dispatch at most, where its rows allow: tens of milliseconds on a small GPU, whose watchdog bites after two seconds.
const PRODUCTS: u64 = 1 << 33;
/// Dispatches that the device has at once: one runs while the host reads another.
const AHEAD: usize = 2;

/// What goes to the device at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of a panel of B.
    pub(super) panel_bytes: u64,
    /// Of rows of A, and of rows of C, in one dispatch.
    pub(super) batch_bytes: u64,
}

impl Limits {
    pub(super) fn of(gpu: &Gpu) -> Limits {
        Limits { panel_bytes: gpu.most_bytes(), batch_bytes: gpu.batch_bytes() }
    }
}

/// B on the device.
pub(super) struct OnDevice {
    panels: Vec<Panel>,
}

/// Some columns of B, in row order.
struct Panel {
    first: usize,
    columns: usize,
    buffer: Resident,
}

impl OnDevice {
    fn upload(gpu: &Gpu, limits: Limits, right: &Right) -> Result<OnDevice, KernelError> {
        let (k, n) = (right.k, right.n);
        let fitting = (limits.panel_bytes / (4 * k as u64)) as usize;
        let width = if fitting >= n { n } else { fitting / TILE * TILE };
        if width == 0 {
            let text = format!(
                "{}: {TILE} columns of B, {k} elements each, do not fit a buffer of {} bytes",
                gpu.report().name,
                limits.panel_bytes
            );
            return Err(KernelError::Device(text));
        }
        let bytes = right.side.bytes();
        let panel = |first: usize| {
            let columns = width.min(n - first);
            let row = |row: usize| &bytes[4 * (row * n + first)..][..4 * columns];
            let buffer = match columns == n {
                true => gpu.keep(&[bytes])?,
                false => gpu.keep(&(0..k).map(row).collect::<Vec<_>>())?,
            };
            Ok(Panel { first, columns, buffer })
        };
        Ok(OnDevice { panels: (0..n).step_by(width).map(panel).collect::<Result<_, _>>()? })
    }
}

/// Rows of one task, or some of them: the task, its first row, how many.
type Run = (usize, usize, usize);

/// The products of each task's rows with B.
pub(super) fn multiply(
    gpu: &Gpu,
    limits: Limits,
    cell: &Mutex<Option<OnDevice>>,
    right: &Right,
    lefts: &[&[u8]],
) -> Result<Vec<Vec<f32>>, KernelError> {
    let (k, n) = (right.k, right.n);
    let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
    let on_device = match &mut *cell {
        Some(on_device) => on_device,
        empty => empty.insert(OnDevice::upload(gpu, limits, right)?),
    };
    let mut products: Vec<Vec<f32>> = lefts.iter().map(|left| vec![0.0; left.len() / (4 * k) * n]).collect();
    let mut ahead = Ahead::new(AHEAD, |(panel, batch): (&Panel, Vec<Run>), words: Vec<u32>| {
        let mut made = words.chunks_exact(panel.columns);
        for (task, first, rows) in batch {
            for (row, made) in (first..first + rows).zip(&mut made) {
                let place = &mut products[task][row * n + panel.first..][..panel.columns];
                place.iter_mut().zip(made).for_each(|(place, bits)| *place = f32::from_bits(*bits));
            }
        }
    });
    for panel in &on_device.panels {
        for batch in batches(limits, k, panel.columns, lefts)? {
            let run = start(gpu, panel, k, lefts, &batch)?;
            ahead.push((panel, batch), run)?;
        }
    }
    ahead.finish()?;
    Ok(products)
}

/// Of a lease: B, rows of A, and rows of C twice.
pub(super) fn need(batch_bytes: u64, k: u64, n: u64) -> GpuNeed {
    let per_row = 4 * k + 2 * 4 * n;
    let dispatches = Dispatches {
        at_once: AHEAD as u64 + 1,
        buffers: 4,
        fixed: 12,
        per_task: 0,
        per_unit: per_row as f64 / (4 * k) as f64,
        most: rows_at_once(batch_bytes, k, n).max(1) * per_row,
        stays: 4 * k * n,
    };
    dispatches.need()
}

/// 0 when not even one fits.
fn rows_at_once(batch_bytes: u64, k: u64, columns: u64) -> u64 {
    let by_time = (PRODUCTS / (k * columns)).max(TILE as u64);
    (batch_bytes / (4 * k.max(columns))).min(by_time)
}

/// Rows that go to the device together.
fn batches(limits: Limits, k: usize, columns: usize, lefts: &[&[u8]]) -> Result<Vec<Vec<Run>>, KernelError> {
    let most = rows_at_once(limits.batch_bytes, k as u64, columns as u64) as usize;
    if most == 0 {
        let text = format!("a row of {} elements does not fit a batch of {} bytes", k.max(columns), limits.batch_bytes);
        return Err(KernelError::Device(text));
    }
    let mut batches: Vec<Vec<Run>> = Vec::new();
    let mut room = 0;
    for (task, left) in lefts.iter().enumerate() {
        let rows = left.len() / (4 * k);
        let mut first = 0;
        while first < rows {
            if room == 0 {
                batches.push(Vec::new());
                room = most;
            }
            let here = room.min(rows - first);
            batches.last_mut().into_iter().for_each(|batch| batch.push((task, first, here)));
            (first, room) = (first + here, room - here);
        }
    }
    Ok(batches)
}

fn start<'a>(gpu: &'a Gpu, panel: &Panel, k: usize, lefts: &[&[u8]], batch: &[Run]) -> Result<Running<'a>, KernelError> {
    let left: Vec<&[u8]> = batch.iter().map(|(task, first, rows)| &lefts[*task][4 * k * first..][..4 * k * rows]).collect();
    let rows: usize = batch.iter().map(|(_, _, rows)| rows).sum();
    let program = Program { name: "matmul", wgsl: &[include_str!("matmul.wgsl")], constants: &[] };
    let shape = words([rows as u32, k as u32, panel.columns as u32]);
    gpu.start_with(
        &[&panel.buffer],
        &Dispatch {
            program,
            inputs: &[&left, &[&shape]],
            output_bytes: 4 * rows as u64 * panel.columns as u64,
            groups: (rows.div_ceil(TILE) * panel.columns.div_ceil(TILE)) as u32,
        },
    )
}
