//! The first round: how far the points of a task reach, and which of them may be starting centroids.
//!
//! Each point draws a number by its task and its row; the points with the lowest numbers of the whole input are chosen. So they depend on seed and
//! splits alone, not on who ran what.
//!
//! ```text
//! 0: u8 | k: u32 | d: u32 | points: u64 | invalid: u64 | low: f32[d] | high: f32[d] | (number: u64 | point: f32[d]) at most k times
//! ```

use std::collections::BinaryHeap;

use super::Fields;
use super::MOST_COLUMNS;

pub(crate) const TAG: u8 = 0;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) clusters: usize,
    pub(crate) points: u64,
    pub(crate) invalid: u64,
    /// Of all points; nothing that could be meant when there are none.
    pub(crate) low: Vec<f32>,
    pub(crate) high: Vec<f32>,
    /// Those with the lowest numbers, lowest first.
    pub(crate) chosen: Vec<(u64, Vec<f32>)>,
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn mixed(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Sample {
    pub(crate) fn of(numbers: &[f32], columns: usize, clusters: usize, seed: u64, task: u64) -> Sample {
        let mut sample =
            Sample { clusters, low: vec![f32::INFINITY; columns], high: vec![f32::NEG_INFINITY; columns], ..Sample::default() };
        let drawn_by = mixed(mixed(seed) ^ task);
        // The highest of the lowest on top.
        let mut lowest: BinaryHeap<(u64, usize)> = BinaryHeap::new();
        for (row, point) in numbers.chunks_exact(columns).enumerate() {
            if !point.iter().all(|coordinate| coordinate.is_finite()) {
                sample.invalid += 1;
                continue;
            }
            sample.points += 1;
            sample.reach(point);
            let number = (mixed(drawn_by ^ row as u64), row);
            if lowest.len() < clusters {
                lowest.push(number);
            } else if lowest.peek().is_some_and(|top| number < *top) {
                lowest.pop();
                lowest.push(number);
            }
        }
        let point = |row: usize| numbers[row * columns..][..columns].to_vec();
        sample.chosen = lowest.into_sorted_vec().into_iter().map(|(number, row)| (number, point(row))).collect();
        sample
    }

    /// The grid is to cover this point.
    pub(crate) fn reach(&mut self, point: &[f32]) {
        for ((low, high), coordinate) in self.low.iter_mut().zip(&mut self.high).zip(point) {
            *low = low.min(*coordinate);
            *high = high.max(*coordinate);
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![TAG];
        bytes.extend([self.clusters as u32, self.low.len() as u32].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend([self.points, self.invalid].into_iter().flat_map(u64::to_le_bytes));
        bytes.extend(self.low.iter().chain(&self.high).flat_map(|coordinate| coordinate.to_le_bytes()));
        for (number, point) in &self.chosen {
            bytes.extend(number.to_le_bytes());
            bytes.extend(point.iter().flat_map(|coordinate| coordinate.to_le_bytes()));
        }
        bytes
    }

    /// `None` for what [`Sample::encode`] has not written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Sample> {
        let (tag, rest) = bytes.split_first()?;
        let mut fields = Fields(rest);
        let (clusters, columns) = (fields.u32()? as usize, fields.u32()? as usize);
        let (points, invalid) = (fields.u64()?, fields.u64()?);
        if *tag != TAG || clusters == 0 || !(1..=MOST_COLUMNS).contains(&columns) || fields.0.len() < 8 * columns {
            return None;
        }
        let row = |fields: &mut Fields<'_>| (0..columns).map(|_| fields.f32()).collect::<Option<Vec<f32>>>();
        let (low, high) = (row(&mut fields)?, row(&mut fields)?);
        let mut chosen = Vec::new();
        while !fields.0.is_empty() {
            chosen.push((fields.u64()?, row(&mut fields)?));
        }
        let sound = chosen.len() <= clusters && chosen.iter().all(|(_, point)| point.iter().all(|coordinate| coordinate.is_finite()));
        sound.then_some(Sample { clusters, points, invalid, low, high, chosen })
    }

    /// Adds what another task has found.
    pub(crate) fn add(&mut self, other: Sample) -> Result<(), String> {
        if (self.clusters, self.low.len()) != (other.clusters, other.low.len()) {
            return Err(format!("there are points of {} and of {} coordinates", self.low.len(), other.low.len()));
        }
        self.points += other.points;
        self.invalid += other.invalid;
        self.low.iter_mut().zip(&other.low).for_each(|(low, other)| *low = low.min(*other));
        self.high.iter_mut().zip(&other.high).for_each(|(high, other)| *high = high.max(*other));
        // Stable: of two equal numbers the one of the earlier task comes first.
        self.chosen.extend(other.chosen);
        self.chosen.sort_by_key(|(number, _)| *number);
        self.chosen.truncate(self.clusters);
        Ok(())
    }
}
