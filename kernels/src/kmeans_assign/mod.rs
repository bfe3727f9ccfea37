//! One round of k-means: says of each point which centroid is nearest, and adds the points of each cluster up. Points are rows of numbers.
//!
//! Shapes    f4 [n, d], any number of files, and if given the side input `centroids`, f4 [clusters, d] -> in the first round of a job per task the
//!           extent of its points and `clusters` of them drawn by lot, or else the given ones; in every other, given the model that the round before has left, sums and sizes of the clusters. Tallies points, invalid
//! Limits    d at most 65,536, and clusters * d at most about 130,000: the model is at most 256 KiB. GPU: d * 512 bytes fit a buffer
//! Agreement exact: points and centroids are 16-bit numbers on a grid that covers the points, distances and sums are integers, of two
//!           centroids equally near the first is taken
//! Errors    points with NaN or an infinity are counted in `invalid` and left out; files whose rows differ in length
//! Rounds    a GPU keeps the points on the grid, as far as a part of its memory holds them: bringing them there again would take longer than to
//!           compare them. The CPU twin makes them anew in each round. It reads them from the page cache anyhow; a place is one subtraction,
//!           one division and one addition, against three operations on sixteen lanes for every sixteen centroids, so keeping them would save
//!           much with a few centroids only. And it would cost half of the input in the memory of the executor, which nobody accounts for: jobs
//!           whose input is larger than the memory would end by it, where they now only read
//! Source    S. Lloyd, Least squares quantization in PCM, IEEE Transactions on Information Theory 28 (1982); starting points as in
//!           E. Forgy, Cluster analysis of multivariate data, Biometrics 21 (1965): drawn by the lowest of random numbers, one per point

mod cpu;
mod gpu;
mod grid;
mod model;
mod partial;
mod sample;
mod start;
#[cfg(test)]
mod tests;

pub(crate) use grid::Grid;
pub(crate) use model::Model;
pub(crate) use partial::Partial;
pub(crate) use sample::Sample;
use start::Start;

use std::sync::Arc;

use crate::api::*;
use crate::counted;
use crate::gpu::Gpu;
use crate::key;
use crate::listed::wrong_type_of_task;
use crate::params::Resolved;
use crate::run::push_record;
use crate::side::f4;

pub struct KmeansAssign;

/// Sums of squares of coordinates are taken in halves of 16 bits, which so many of do not overflow.
const MOST_COLUMNS: usize = 1 << 16;
const MOST_CLUSTERS: u64 = 1 << 16;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "kmeans_assign",
    version: 1,
    kind: Kind::Map,
    summary: "Finds the nearest centroid of each point and adds clusters up; one round of k-means",
    accepts: Accepts::Rows(&["f4"]),
    params: &[
        ParamSpec { name: "clusters", kind: ParamType::U64 { min: 1, max: MOST_CLUSTERS }, default: Some("8"), doc: "how many centroids" },
        ParamSpec {
            name: "seed",
            kind: ParamType::U64 { min: 0, max: u64::MAX },
            default: Some("1"),
            doc: "which points the centroids start from",
        },
    ],
    tallies: &["points", "invalid"],
    shuffles: true,
    formats: &[],
    reduces_with: &["kmeans_update"],
    reduce_defaults: &[],
    gpu: true,
    agreement: Agreement::Exact,
};

impl Kernel for KmeansAssign {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn sides(&self) -> &'static [SideSpec] {
        &start::SIDES
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        if stage.partitions > 1 {
            return Err(KernelError::Param(format!("kernel 'kmeans_assign' makes one partition, not {}", stage.partitions)));
        }
        let clusters = params.u64("clusters") as usize;
        let start = stage.sides.iter().find(|side| side.name == start::NAME).map(|side| Start::new(side, clusters)).transpose()?;
        Ok(Box::new(Sampling { clusters, seed: params.u64("seed"), start }))
    }

    /// A million points.
    fn standard(&self) -> Option<Standard> {
        Some(Standard { params: &[], input: StandardInput::Rows { dtype: "f4", columns: 16, bytes: 64 << 20, split: 1 << 20, sides: &[] } })
    }

    fn check_listed(&self, params: &Params, input: &ListedInput) -> Result<(), InputProblem> {
        let columns = |file: &ListedArray| file.shape.get(1).copied().unwrap_or_default();
        let Some(first) = input.files.first() else { return Ok(()) };
        let of_first = columns(first);
        if let Some(other) = input.files.iter().find(|file| columns(file) != of_first) {
            let (path, own) = (&other.path, columns(other));
            return Err(InputProblem::new(
                format!(
                    "{} has rows of {} and {path} of {own}; all points have equally many coordinates",
                    first.path,
                    counted(of_first, "element")
                ),
                "give files whose arrays have the same number of columns",
            ));
        }
        if !(1..=MOST_COLUMNS as u64).contains(&of_first) {
            return Err(InputProblem::new(format!("{}: {}", first.path, unfit(of_first)), "give an array with fewer columns"));
        }
        start::check_listed(params, input, of_first)?;
        // Said better where the parameters themselves are checked.
        let Ok(params) = Resolved::new(&DESCRIPTOR, params) else { return Ok(()) };
        model::check_size(params.u64("clusters") as usize, of_first as usize).map_err(|error| {
            InputProblem::new(format!("{}: {error}", first.path), "set `clusters` lower, or give points with fewer coordinates")
        })
    }

    /// Known when the points' coordinates are counted.
    fn gpu_memory(&self, params: &Params, input: Option<&ListedInput>) -> Option<GpuNeed> {
        let params = Resolved::new(&DESCRIPTOR, params).ok()?;
        let columns = *input?.files.first()?.shape.get(1)?;
        (1..=MOST_COLUMNS as u64).contains(&columns).then(|| gpu::need(params.u64("clusters"), columns))
    }

    fn rounds(&self) -> bool {
        true
    }

    fn prepare_round(&self, stage: &StageContext, state: &[u8], kept: Option<Kept>) -> Result<Box<dyn Prepared>, KernelError> {
        Resolved::new(&DESCRIPTOR, &stage.params)?;
        let model = Model::decode(state)?;
        // The grid stays the same over the rounds of a job, and so do the points on it.
        let points = kept.and_then(|kept| kept.downcast::<gpu::Points>().ok()).filter(|points| points.grid == model.grid);
        let points = points.unwrap_or_else(|| Arc::new(gpu::Points::new(model.grid.clone())));
        points.next_round();
        Ok(Box::new(Assigning { panels: cpu::panels(&model), model, points }))
    }

    fn costless_params(&self) -> &'static [&'static str] {
        &["seed"]
    }
}

/// The first round: nothing is known of the points yet.
struct Sampling {
    clusters: usize,
    seed: u64,
    /// Instead of points drawn by the seed.
    start: Option<Start>,
}

impl Prepared for Sampling {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let (columns, bytes) = rows(task)?;
        model::check_size(self.clusters, columns)?;
        let sample = match &self.start {
            Some(start) => start.sample(&f4(bytes), columns, task.number)?,
            None => Sample::of(&f4(bytes), columns, self.clusters, self.seed, task.number),
        };
        Ok(output(task.number, sample.points, sample.invalid, &sample.encode()))
    }

    /// Every point is looked at once, which is less than to bring it to the device.
    fn run_gpu(&self, _gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        tasks.iter().map(|task| self.run_cpu(task)).collect()
    }
}

struct Assigning {
    model: Model,
    panels: Vec<cpu::Panel>,
    points: Arc<gpu::Points>,
}

impl Assigning {
    fn rows<'a>(&self, task: &Task<'a>) -> Result<&'a [u8], KernelError> {
        let (columns, bytes) = rows(task)?;
        if columns != self.model.columns() {
            let own = counted(columns as u64, "element");
            let text = format!("a row has {own}, and those that the centroids are of {}", self.model.columns());
            return Err(KernelError::Input(text));
        }
        Ok(bytes)
    }
}

impl Prepared for Assigning {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let partial = cpu::assign(&self.model, &self.panels, &f4(self.rows(task)?));
        Ok(output(task.number, partial.points(), partial.invalid, &partial.encode()))
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        if self.model.clusters() == 0 {
            return tasks.iter().map(|task| self.run_cpu(task)).collect();
        }
        let inputs = tasks.iter().map(|task| Ok((task.number, self.rows(task)?))).collect::<Result<Vec<_>, KernelError>>()?;
        let partials = gpu::assign(gpu, &self.model, &self.points, &inputs)?;
        let made = tasks.iter().zip(partials);
        Ok(made.map(|(task, partial)| output(task.number, partial.points(), partial.invalid, &partial.encode())).collect())
    }

    fn kept(&self) -> Option<Kept> {
        Some(self.points.clone())
    }
}

fn rows<'a>(task: &Task<'a>) -> Result<(usize, &'a [u8]), KernelError> {
    let Input::Rows { dtype, columns, bytes } = task.input else {
        return Err(KernelError::Input("kmeans_assign reads the rows of two-dimensional .npy files".into()));
    };
    if dtype != "f4" {
        return Err(wrong_type_of_task(&KmeansAssign, dtype));
    }
    if columns == 0 || columns > MOST_COLUMNS {
        return Err(KernelError::Input(unfit(columns as u64)));
    }
    if !bytes.len().is_multiple_of(4 * columns) {
        return Err(KernelError::Input(format!(
            "{} bytes are no whole number of rows of {}",
            bytes.len(),
            counted(columns as u64, "f4 element")
        )));
    }
    Ok((columns, bytes))
}

fn unfit(columns: u64) -> String {
    format!("a point has {}; 1 to {MOST_COLUMNS} are possible", counted(columns, "coordinate"))
}

fn output(task: u64, points: u64, invalid: u64, value: &[u8]) -> TaskOutput {
    let mut block = Vec::with_capacity(value.len() + 20);
    push_record(&mut block, &key::of_u64(task), value);
    TaskOutput { tallies: vec![points, invalid], blocks: vec![block], part: None, records: Records { read: points, made: 1 } }
}

/// Takes fixed-size pieces off the front of what a task or a round has written.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }
}
