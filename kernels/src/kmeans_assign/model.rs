//! What one round leaves for the next: the grid and the centroids on it.
//!
//! ```text
//! format: u32 | k: u32 | d: u32 | step: f64 | low: f32[d] | centroids: u16[k * d]         all little-endian
//! ```

use super::{Fields, Grid, MOST_COLUMNS};
use crate::api::KernelError;
use crate::counted;

const FORMAT: u32 = 1;
/// Of the encoded model.
pub(crate) const MOST_BYTES: usize = 256 << 10;
const HEAD_BYTES: usize = 20;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Model {
    pub(crate) grid: Grid,
    /// Places, centroid by centroid. None of an input without points.
    pub(crate) centroids: Vec<u16>,
}

/// Whether the model of so many centroids would be small enough for the scheduler to keep.
pub(crate) fn check_size(clusters: usize, columns: usize) -> Result<(), KernelError> {
    let bytes = HEAD_BYTES + 4 * columns + 2 * clusters * columns;
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(KernelError::Input(format!(
        "clusters = {clusters} centroids of {} take {bytes} bytes; at most {MOST_BYTES} are possible: use fewer clusters",
        counted(columns as u64, "coordinate")
    )))
}

impl Model {
    pub(crate) fn columns(&self) -> usize {
        self.grid.columns()
    }

    pub(crate) fn clusters(&self) -> usize {
        self.centroids.len().checked_div(self.columns()).unwrap_or_default()
    }

    /// Of an input without points. Where it has no task either, nobody knows how many coordinates they would have.
    pub(crate) fn empty(columns: usize) -> Model {
        Model { grid: Grid { low: vec![0.0; columns], step: 1.0 }, centroids: Vec::new() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 4 * self.columns() + 2 * self.centroids.len());
        bytes.extend([FORMAT, self.clusters() as u32, self.columns() as u32].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(self.grid.step.to_le_bytes());
        bytes.extend(self.grid.low.iter().flat_map(|low| low.to_le_bytes()));
        bytes.extend(self.centroids.iter().flat_map(|place| place.to_le_bytes()));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Model, KernelError> {
        Model::read(bytes).ok_or_else(|| KernelError::Failed("what the round before has left is no set of centroids".into()))
    }

    fn read(bytes: &[u8]) -> Option<Model> {
        let mut fields = Fields(bytes);
        let (format, clusters, columns) = (fields.u32()?, fields.u32()? as usize, fields.u32()? as usize);
        let step = fields.f64()?;
        let fits = columns <= MOST_COLUMNS && (columns > 0 || clusters == 0);
        let sound = format == FORMAT && fits && step.is_normal() && step > 0.0;
        if !sound || bytes.len() != HEAD_BYTES + 4 * columns + clusters.checked_mul(2 * columns)? {
            return None;
        }
        let low = (0..columns).map(|_| fields.f32().filter(|low| low.is_finite())).collect::<Option<Vec<f32>>>()?;
        let centroids = (0..clusters * columns).map(|_| fields.u16()).collect::<Option<Vec<u16>>>()?;
        Some(Model { grid: Grid { low, step }, centroids })
    }
}
