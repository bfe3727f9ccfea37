//! What a task adds up in a round: of each cluster how many points it has, and the sum of their places.
//!
//! ```text
//! 1: u8 | k: u32 | d: u32 | invalid: u64 | objective: u64, u64 | (count: varint | if not 0: the sums of d dimensions: varint) k times
//! ```

use super::{Fields, MOST_COLUMNS};
use crate::run::{push_varint, take_varint};

const TAG: u8 = 1;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Partial {
    pub(crate) columns: usize,
    pub(crate) invalid: u64,
    /// Sum of the squared distances of all points from their nearest centroids, in squared steps of the grid.
    pub(crate) objective: u128,
    /// Points of each cluster.
    pub(crate) counts: Vec<u64>,
    /// Places of its points added up, cluster by cluster.
    pub(crate) sums: Vec<u64>,
}

impl Partial {
    pub(crate) fn new(clusters: usize, columns: usize) -> Partial {
        Partial { columns, counts: vec![0; clusters], sums: vec![0; clusters * columns], ..Partial::default() }
    }

    pub(crate) fn points(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![TAG];
        bytes.extend([self.counts.len() as u32, self.columns as u32].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend([self.invalid, self.objective as u64, (self.objective >> 64) as u64].into_iter().flat_map(u64::to_le_bytes));
        for (count, sums) in self.counts.iter().zip(self.sums.chunks_exact(self.columns)) {
            push_varint(&mut bytes, *count);
            if *count > 0 {
                sums.iter().for_each(|sum| push_varint(&mut bytes, *sum));
            }
        }
        bytes
    }

    /// `None` for what [`Partial::encode`] has not written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Partial> {
        let (tag, rest) = bytes.split_first()?;
        let mut fields = Fields(rest);
        let (clusters, columns, invalid) = (fields.u32()? as usize, fields.u32()? as usize, fields.u64()?);
        let objective = u128::from(fields.u64()?) | u128::from(fields.u64()?) << 64;
        let mut rest = fields.0;
        // Each cluster takes a byte, so that a damaged count asks for no more memory than the record has.
        if *tag != TAG || !(1..=MOST_COLUMNS).contains(&columns) || clusters > rest.len() {
            return None;
        }
        let mut partial = Partial { columns, invalid, objective, counts: Vec::with_capacity(clusters), sums: Vec::new() };
        for _ in 0..clusters {
            let count = take_varint(&mut rest)?;
            partial.counts.push(count);
            for _ in 0..columns {
                partial.sums.push(if count > 0 { take_varint(&mut rest)? } else { 0 });
            }
        }
        rest.is_empty().then_some(partial)
    }

    /// Adds what another task has found.
    pub(crate) fn add(&mut self, other: &Partial) -> Result<(), String> {
        if (self.columns, self.counts.len()) != (other.columns, other.counts.len()) {
            return Err("two tasks have counted for different centroids".into());
        }
        let overflow = || "more is counted than 64 bits hold".to_owned();
        let all = self.counts.iter_mut().zip(&other.counts).chain(self.sums.iter_mut().zip(&other.sums));
        for (sum, more) in all {
            *sum = sum.checked_add(*more).ok_or_else(overflow)?;
        }
        self.invalid = self.invalid.checked_add(other.invalid).ok_or_else(overflow)?;
        self.objective = self.objective.checked_add(other.objective).ok_or_else(overflow)?;
        Ok(())
    }
}
