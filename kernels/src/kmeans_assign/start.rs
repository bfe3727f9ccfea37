//! Centroids that the job gives to start from: the side input `centroids`.

use super::{MOST_CLUSTERS, Sample, model};
use crate::api::{KernelError, Params};
use crate::counted;
use crate::listed::{InputProblem, ListedInput};
use crate::params::Resolved;
use crate::side::{SideInput, SideSpec, f4};

pub(super) const NAME: &str = "centroids";

pub(super) static SIDES: [SideSpec; 1] = [SideSpec {
    name: NAME,
    dtypes: &["f4"],
    dimensions: 2,
    required: false,
    doc: "the centroids to start from, a row for each cluster; without it they are points drawn by `seed`",
}];

pub(super) struct Start {
    columns: usize,
    /// Centroid by centroid.
    coordinates: Vec<f32>,
}

impl Start {
    pub(super) fn new(side: &SideInput, clusters: usize) -> Result<Start, KernelError> {
        let refuse = |text: String| Err(KernelError::Param(format!("kernel 'kmeans_assign': {} {text}", side.named())));
        let &[rows, columns] = side.shape.as_slice() else {
            return refuse(format!("has {}; 2 are wanted", counted(side.shape.len() as u64, "dimension")));
        };
        if let Some(problem) = unfit(clusters as u64, rows) {
            return refuse(problem);
        }
        let coordinates = f4(side.bytes()).into_owned();
        if side.dtype != "f4" || columns == 0 || coordinates.len() as u64 != rows.saturating_mul(columns) {
            return refuse(format!("is no array of f4 with the shape ({rows}, {columns})"));
        }
        if let Some(place) = coordinates.iter().position(|coordinate| !coordinate.is_finite()) {
            let (row, column) = (place / columns as usize, place % columns as usize);
            return refuse(format!("has {} in row {row}, column {column}: centroids to start from are finite", coordinates[place]));
        }
        Ok(Start { columns: columns as usize, coordinates })
    }

    /// What a task finds in the first round: how far its points reach, and from the first task the centroids. The grid covers these too, so that none is
    /// moved onto its border.
    pub(super) fn sample(&self, numbers: &[f32], columns: usize, task: u64) -> Result<Sample, KernelError> {
        if columns != self.columns {
            let own = counted(columns as u64, "element");
            let text = format!("a row has {own}, and those of side input '{NAME}' have {}", self.columns);
            return Err(KernelError::Input(text));
        }
        let mut sample = Sample::of(numbers, columns, 0, 0, task);
        sample.clusters = self.coordinates.len() / columns;
        if task == 0 {
            for centroid in self.coordinates.chunks_exact(columns) {
                sample.reach(centroid);
                sample.chosen.push((sample.chosen.len() as u64, centroid.to_vec()));
            }
        }
        Ok(sample)
    }
}

fn unfit(clusters: u64, rows: u64) -> Option<String> {
    (rows != clusters).then(|| format!("has {}, and clusters = {clusters}: there must be one for each", counted(rows, "row")))
}

/// Whether the centroids go with the points.
pub(super) fn check_listed(params: &Params, input: &ListedInput, columns: u64) -> Result<(), InputProblem> {
    let Some(side) = input.side(NAME) else { return Ok(()) };
    let &[rows, own] = side.shape.as_slice() else { return Ok(()) };
    let path = &side.path;
    if own != columns {
        return Err(InputProblem::new(
            format!("side input '{NAME}' ({path}) has rows of {}, and the points have {columns}", counted(own, "element")),
            "give centroids with as many coordinates as the points",
        ));
    }
    let Ok(params) = Resolved::new(&super::DESCRIPTOR, params) else { return Ok(()) };
    let clusters = params.u64("clusters");
    let Some(problem) = unfit(clusters, rows) else { return Ok(()) };
    // Nobody should be sent from one refusal into the next.
    let possible = rows > 0 && rows <= MOST_CLUSTERS && model::check_size(rows as usize, columns as usize).is_ok();
    let fix = if possible {
        format!("set `clusters` to {rows}")
    } else {
        format!("give an array of {}, one for each cluster", counted(clusters, "row"))
    };
    Err(InputProblem::new(format!("side input '{NAME}' ({path}) {problem}"), fix))
}
