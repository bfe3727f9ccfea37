//! Ends a round of k-means: adds up what `kmeans_assign` has found, and moves each centroid to the mean of its points.
//!
//! Shapes    shuffle blocks of `kmeans_assign` -> in the first round the starting centroids, in every other the means; as csv (cluster, points,
//!           its coordinates) or npy (f4 [clusters, d]). Leaves the model for the next round. Tally empty: clusters without points.
//!           Of an input without points, or with none that is finite, there are no centroids: a heading alone, or an array of shape (0, d), and the
//!           rounds are over. Where the input has no row at all, nobody has told d, and it is 0. Given centroids beside points none of which is finite stay as
//!           they are
//! Limits    one partition. The model is at most 256 KiB
//! Agreement exact: sums are integers. A centroid lies on the grid that the points lie on, at the place nearest to its mean, halves upward; in the
//!           output stands the mean itself. No GPU twin: it adds a few numbers per task
//! Errors    points, but fewer than clusters; points of different numbers of coordinates; damaged shuffle data. A cluster that loses all of its points
//!           keeps its centroid
//! Source    see `kmeans_assign`

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::canonical_f64;
use crate::counted;
use crate::kmeans_assign::{Grid, Model, Partial, Sample};
use crate::npy;
use crate::params::Resolved;
use crate::run::{Reader, Record};

pub struct KmeansUpdate;

/// Coordinates that a preview shows.
const SHOWN: usize = 8;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "kmeans_update",
    version: 1,
    kind: Kind::Reduce,
    summary: "Moves each centroid to the mean of its points, until none moves",
    accepts: Accepts::Shuffle,
    params: &[ParamSpec {
        name: "tolerance",
        kind: ParamType::F64 { min: 0.0, max: f64::MAX },
        default: Some("0"),
        doc: "the rounds have converged when no centroid moves farther than this",
    }],
    tallies: &["empty"],
    shuffles: false,
    formats: &["csv", "npy"],
    reduces_with: &[],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl KmeansUpdate {
    fn prepared(stage: &StageContext, model: Option<Model>) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        if stage.tasks > 1 {
            let text = format!("kernel 'kmeans_update' moves all centroids in one task, not {}: set partitions = 1", stage.tasks);
            return Err(KernelError::Param(text));
        }
        let npy = match stage.format.as_str() {
            "csv" | "" => false,
            "npy" => true,
            other => return Err(KernelError::Param(format!("kernel 'kmeans_update' writes csv or npy, not '{other}'"))),
        };
        Ok(Box::new(Updating { model, tolerance: params.f64("tolerance"), npy }))
    }
}

impl Kernel for KmeansUpdate {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        KmeansUpdate::prepared(stage, None)
    }

    fn rounds(&self) -> bool {
        true
    }

    fn prepare_round(&self, stage: &StageContext, state: &[u8], _kept: Option<Kept>) -> Result<Box<dyn Prepared>, KernelError> {
        KmeansUpdate::prepared(stage, Some(Model::decode(state)?))
    }
}

struct Updating {
    /// What the points were assigned by; none in the first round.
    model: Option<Model>,
    tolerance: f64,
    npy: bool,
}

impl Prepared for Updating {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        self.run_round(task).map(|(output, _)| output)
    }

    fn run_round(&self, task: &Task<'_>) -> Result<(TaskOutput, RoundEnd), KernelError> {
        let Input::Blocks(blocks) = &task.input else {
            return Err(KernelError::Input("kmeans_update reads shuffle blocks".into()));
        };
        let (round, end) = match &self.model {
            None => begin(blocks)?,
            Some(model) => update(model, self.tolerance, blocks)?,
        };
        let empty = round.counts.iter().filter(|count| **count == 0).count() as u64;
        let part = if self.npy { round.npy() } else { round.csv() };
        let records = Records { read: records(blocks).count() as u64, made: 0 };
        Ok((TaskOutput { tallies: vec![empty], blocks: Vec::new(), part: Some(part), records }, end))
    }
}

/// Chooses the points that the centroids start from, and the grid.
fn begin(blocks: &[Block<'_>]) -> Result<(Centroids, RoundEnd), KernelError> {
    let mut all: Option<Sample> = None;
    for record in records(blocks) {
        let sample = Sample::decode(record?.value).ok_or_else(damaged)?;
        match &mut all {
            None => all = Some(sample),
            Some(all) => all.add(sample).map_err(KernelError::Input)?,
        }
    }
    let columns = all.as_ref().map_or(0, |all| all.low.len());
    let Some(all) = all.filter(|all| all.points > 0 || !all.chosen.is_empty()) else { return Ok(without_points(columns)) };
    if all.chosen.len() < all.clusters {
        let (points, clusters) = (counted(all.points, "point"), all.clusters);
        return Err(KernelError::Input(format!("the input has {points}, and clusters = {clusters}: use fewer clusters")));
    }
    let grid = Grid::over(all.low, &all.high);
    let columns = grid.columns();
    let mut centroids = vec![0; all.clusters * columns];
    for (place, (_, point)) in centroids.chunks_exact_mut(columns).zip(&all.chosen) {
        grid.places(point, place);
    }
    let coordinates = all.chosen.iter().flat_map(|(_, point)| point.iter().map(|coordinate| f64::from(*coordinate))).collect();
    let state = Model { grid, centroids }.encode();
    let end = RoundEnd { state, converged: false, measures: vec![("points".into(), all.points.to_string())] };
    // Each centroid is a point, or given with the job, and that is all that is known yet. Where there are no points, nothing more will be.
    let is_empty = all.points == 0;
    let counts = vec![u64::from(!is_empty); all.clusters];
    Ok((Centroids { columns, counts, coordinates }, RoundEnd { converged: is_empty, ..end }))
}

/// Nothing has no clusters, and no round would change that.
fn without_points(columns: usize) -> (Centroids, RoundEnd) {
    let end = RoundEnd { state: Model::empty(columns).encode(), converged: true, measures: vec![("points".into(), "0".into())] };
    (Centroids { columns, counts: Vec::new(), coordinates: Vec::new() }, end)
}

fn update(model: &Model, tolerance: f64, blocks: &[Block<'_>]) -> Result<(Centroids, RoundEnd), KernelError> {
    let (clusters, columns, grid) = (model.clusters(), model.columns(), &model.grid);
    let mut all = Partial::new(clusters, columns);
    for record in records(blocks) {
        let partial = Partial::decode(record?.value).ok_or_else(damaged)?;
        all.add(&partial).map_err(KernelError::Input)?;
    }
    let mut centroids = model.centroids.clone();
    let mut coordinates = Vec::with_capacity(clusters * columns);
    let mut farthest = 0u64;
    for (cluster, count) in all.counts.iter().enumerate() {
        let mut moved = 0u64;
        for column in 0..columns {
            let at = cluster * columns + column;
            let (old, sum) = (model.centroids[at], all.sums[at]);
            if *count > 0 {
                // Within the grid, unless the record was damaged: a mean of places.
                let mean = (u128::from(sum) * 2 + u128::from(*count)) / (u128::from(*count) * 2);
                centroids[at] = u16::try_from(mean).map_err(|_| damaged())?;
                coordinates.push(grid.coordinate(column, sum as f64 / *count as f64));
            } else {
                coordinates.push(grid.coordinate(column, f64::from(old)));
            }
            moved += u64::from(old.abs_diff(centroids[at])).pow(2);
        }
        farthest = farthest.max(moved);
    }
    let shift = (farthest as f64).sqrt() * grid.step;
    let objective = all.objective as f64 * grid.step * grid.step;
    let measures = vec![("objective".into(), canonical_f64(objective)), ("shift".into(), canonical_f64(shift))];
    let state = Model { grid: grid.clone(), centroids }.encode();
    let end = RoundEnd { state, converged: shift <= tolerance, measures };
    Ok((Centroids { columns, counts: all.counts, coordinates }, end))
}

fn damaged() -> KernelError {
    KernelError::Failed("shuffle data is damaged: it is not what kmeans_assign writes in this round".into())
}

fn records<'a>(blocks: &'a [Block<'a>]) -> impl Iterator<Item = Result<Record<'a>, KernelError>> + 'a {
    blocks.iter().flat_map(|block| Reader::new(block.bytes))
}

/// What a person gets.
struct Centroids {
    columns: usize,
    counts: Vec<u64>,
    coordinates: Vec<f64>,
}

impl Centroids {
    fn names(&self, most: usize) -> Vec<String> {
        ["cluster".into(), "points".into()].into_iter().chain((0..self.columns.min(most)).map(|column| format!("x{column}"))).collect()
    }

    fn cells(&self, cluster: usize, most: usize) -> Vec<String> {
        let coordinates = &self.coordinates[cluster * self.columns..][..self.columns.min(most)];
        let numbers = [cluster.to_string(), self.counts[cluster].to_string()];
        numbers.into_iter().chain(coordinates.iter().map(|coordinate| canonical_f64(*coordinate))).collect()
    }

    fn part(&self, extension: &'static str, bytes: Vec<u8>) -> Part {
        let mut heaviest: Vec<usize> = (0..self.counts.len()).collect();
        heaviest.sort_by_key(|cluster| std::cmp::Reverse(self.counts[*cluster]));
        heaviest.truncate(PREVIEW_ROWS);
        let row = |cluster| PreviewRow { cells: self.cells(cluster, SHOWN), weight: self.counts[cluster] };
        Part {
            extension,
            bytes,
            rows: self.counts.len() as u64,
            columns: self.names(SHOWN),
            preview: heaviest.into_iter().map(row).collect(),
        }
    }

    fn csv(&self) -> Part {
        let rows = (0..self.counts.len()).map(|cluster| self.cells(cluster, usize::MAX));
        let lines = std::iter::once(self.names(usize::MAX)).chain(rows);
        let mut text = String::new();
        for line in lines {
            text += &line.join(",");
            text.push('\n');
        }
        self.part("csv", text.into_bytes())
    }

    fn npy(&self) -> Part {
        let mut bytes = npy::header("<f4", &format!("({}, {})", self.counts.len(), self.columns));
        bytes.extend(self.coordinates.iter().flat_map(|coordinate| (*coordinate as f32).to_le_bytes()));
        self.part("npy", bytes)
    }
}
