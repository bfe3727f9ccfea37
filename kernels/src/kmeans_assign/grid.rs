//! The grid that points and centroids lie on: 2^16 places in each dimension, equally far apart in all, from the least coordinate of any point.
//! Arithmetic on places is exact on every device. A point is moved by at most half a step in each dimension, once.

/// The last place.
pub(crate) const TOP: u16 = u16::MAX;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grid {
    /// Least coordinate in each dimension: place 0.
    pub(crate) low: Vec<f32>,
    /// From one place to the next; above zero.
    pub(crate) step: f64,
}

impl Grid {
    /// The finest grid over the points that lie between `low` and `high`.
    pub(crate) fn over(low: Vec<f32>, high: &[f32]) -> Grid {
        let extent = low.iter().zip(high).map(|(low, high)| f64::from(*high) - f64::from(*low)).fold(0.0, f64::max);
        let step = extent / f64::from(TOP);
        // All points in one place, or nearer than numbers can tell.
        Grid { low, step: if step.is_normal() { step } else { 1.0 } }
    }

    pub(crate) fn columns(&self) -> usize {
        self.low.len()
    }

    /// Every operation is rounded as IEEE 754 says, so the place is the same on every processor.
    fn place(&self, column: usize, coordinate: f32) -> u16 {
        let place = (f64::from(coordinate) - f64::from(self.low[column])) / self.step + 0.5;
        // Saturates, for a coordinate that was not there when the grid was made.
        place as u16
    }

    pub(crate) fn coordinate(&self, column: usize, place: f64) -> f64 {
        f64::from(self.low[column]) + place * self.step
    }

    /// The places of a point's coordinates; false for one that is NaN or infinite somewhere.
    pub(crate) fn places(&self, point: &[f32], places: &mut [u16]) -> bool {
        let finite = point.iter().all(|coordinate| coordinate.is_finite());
        if finite {
            places.iter_mut().zip(point).enumerate().for_each(|(column, (place, coordinate))| *place = self.place(column, *coordinate));
        }
        finite
    }
}
