//! The rows a person wants to see first: largest sum first, equal sums by key.

use crate::api::{PREVIEW_ROWS, PreviewRow};

/// Keeps the best rows of a stream whose keys rise.
#[derive(Default)]
pub(super) struct Top {
    /// Falling sum, then rising key.
    rows: Vec<(u64, Vec<u8>)>,
}

impl Top {
    #[inline]
    pub(super) fn offer(&mut self, key: &[u8], sum: u64) {
        // Of equal sums the first to come has the smaller key and stays.
        if self.rows.len() < PREVIEW_ROWS || sum > self.rows[PREVIEW_ROWS - 1].0 {
            self.insert(key, sum);
        }
    }

    fn insert(&mut self, key: &[u8], sum: u64) {
        let at = self.rows.partition_point(|(better, _)| *better >= sum);
        self.rows.insert(at, (sum, key.to_vec()));
        self.rows.truncate(PREVIEW_ROWS);
    }

    pub(super) fn rows(&self, text: impl Fn(&[u8]) -> String) -> Vec<PreviewRow> {
        self.rows.iter().map(|(sum, key)| PreviewRow { cells: vec![text(key), sum.to_string()], weight: *sum }).collect()
    }
}
