//! What one task, or all, have seen of a group, and its form in a shuffle block.
//!
//! ```text
//! rows: varint | for each column of numbers: 1 if there are decimals, plus 2 if there are floats: u8
//!              |   decimals:  values: varint | scale: u8 | sum, least, most: varints of 128 bits, the sign in the lowest one
//!              |   floats:    count: varint | sum, lost, least, most: f64 le
//!              | for each column of text: cells that are not empty: varint
//!              | for each sketched column: see sketch.rs
//! ```

use super::plan::{Output, Plan};
use super::sketch::Sketch;
use super::stat::{Floats, Stat};
use crate::api::KernelError;
use crate::run::{push_varint, take_varint};
use raftwerk_formats::MAX_SCALE;

/// All that is known of a group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) rows: u64,
    /// With the scale of each.
    stats: Vec<(Stat, u8)>,
    filled: Vec<u64>,
    sketches: Vec<Sketch>,
}

pub(crate) fn too_large(column: &str) -> KernelError {
    KernelError::Input(format!("the sum of column '{column}' has more than 38 digits"))
}

pub(super) fn power(digits: u8) -> i128 {
    10i128.pow(digits.into())
}

pub(super) fn push_stat(out: &mut Vec<u8>, stat: &Stat, scale: u8) {
    out.push(u8::from(stat.values > 0) | u8::from(stat.floats.is_some()) << 1);
    if stat.values > 0 {
        push_varint(out, stat.values);
        out.push(scale);
        [stat.sum, stat.least, stat.most].into_iter().for_each(|value| push_signed(out, value));
    }
    if let Some(floats) = &stat.floats {
        push_varint(out, floats.count);
        [floats.sum, floats.lost, floats.least, floats.most].into_iter().for_each(|value| out.extend(value.to_le_bytes()));
    }
}

fn push_signed(out: &mut Vec<u8>, value: i128) {
    let mut rest = (value << 1 ^ value >> 127) as u128;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn take_signed(bytes: &mut &[u8]) -> Option<i128> {
    let mut value = 0u128;
    for index in 0..19 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u128::from(byte & 0x7f).checked_shl(7 * index)?;
        if byte < 0x80 {
            return Some((value >> 1) as i128 ^ -((value & 1) as i128));
        }
    }
    None
}

fn take_stat(bytes: &mut &[u8]) -> Option<(Stat, u8)> {
    let (&kinds, rest) = bytes.split_first()?;
    *bytes = rest;
    let (mut stat, mut scale) = (Stat::default(), 0);
    if kinds & 1 != 0 {
        stat.values = take_varint(bytes).filter(|values| *values > 0)?;
        let (&own, rest) = bytes.split_first()?;
        *bytes = rest;
        scale = Some(own).filter(|scale| *scale <= MAX_SCALE)?;
        (stat.sum, stat.least, stat.most) = (take_signed(bytes)?, take_signed(bytes)?, take_signed(bytes)?);
    }
    if kinds & 2 != 0 {
        let count = take_varint(bytes).filter(|count| *count > 0)?;
        let mut number = || -> Option<f64> {
            let (number, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            Some(f64::from_le_bytes(*number))
        };
        stat.floats = Some(Box::new(Floats { count, sum: number()?, lost: number()?, least: number()?, most: number()? }));
    }
    (kinds <= 3).then_some((stat, scale))
}

impl Group {
    pub(crate) fn new(plan: &Plan) -> Group {
        Group {
            rows: 0,
            stats: vec![(Stat::default(), 0); plan.numbers.len()],
            filled: vec![0; plan.texts.len()],
            sketches: vec![Sketch::default(); plan.sketched.len()],
        }
    }

    /// Adds what a task has seen. Tasks come in their order, so that also what is rounded is the same on every cluster.
    pub(crate) fn add(&mut self, plan: &Plan, mut bytes: &[u8]) -> Result<(), KernelError> {
        let damaged = || KernelError::Failed("shuffle block is damaged: a group is cut short".into());
        let bytes = &mut bytes;
        let count = |all: &mut u64, bytes: &mut &[u8]| -> Option<()> {
            *all = all.checked_add(take_varint(bytes)?)?;
            Some(())
        };
        count(&mut self.rows, bytes).ok_or_else(damaged)?;
        for (index, (own, scale)) in self.stats.iter_mut().enumerate() {
            let (mut stat, other) = take_stat(bytes).ok_or_else(damaged)?;
            let finest = other.max(*scale);
            let mut fits = || -> Option<()> {
                own.refine(power(finest - *scale))?;
                stat.refine(power(finest - other))?;
                own.merge(&stat)
            };
            fits().ok_or_else(|| too_large(&plan.numbers[index]))?;
            *scale = finest;
        }
        self.filled.iter_mut().try_for_each(|filled| count(filled, bytes)).ok_or_else(damaged)?;
        for sketch in &mut self.sketches {
            sketch.merge(&Sketch::take(bytes)?);
        }
        if bytes.is_empty() { Ok(()) } else { Err(damaged()) }
    }

    /// One cell of the result; nothing where there was no value.
    pub(crate) fn cell(&self, output: Output) -> Option<String> {
        let stat = |index: usize| (&self.stats[index].0, self.stats[index].1);
        match output {
            Output::Rows => Some(self.rows.to_string()),
            Output::Filled(index) => Some(self.filled[index].to_string()),
            Output::Distinct(index) => Some(self.sketches[index].estimate().to_string()),
            Output::Sum(index) => stat(index).0.sum(stat(index).1),
            Output::Mean(index) => stat(index).0.mean(stat(index).1),
            Output::Min(index) => stat(index).0.least(stat(index).1),
            Output::Max(index) => stat(index).0.most(stat(index).1),
        }
    }
}

/// Several cells as one key that sorts as they do, cell by cell: a zero byte within a cell is followed by 0xff, and two end a cell that is not the last.
pub(super) fn push_key_cell(key: &mut Vec<u8>, cell: &[u8], last: bool) {
    for &byte in cell {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    if !last {
        key.extend([0, 0]);
    }
}

/// The cells of a key; of one cell it is the cell itself.
pub(crate) fn key_cells(key: &[u8], cells: usize) -> Option<Vec<Vec<u8>>> {
    if cells <= 1 {
        return (cells == 1 || key.is_empty()).then(|| vec![key.to_vec(); cells]);
    }
    let mut all = vec![Vec::new()];
    let mut bytes = key.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, if byte == 0 { bytes.next() } else { None }) {
            (0, Some(0)) => all.push(Vec::new()),
            (0, Some(0xff)) => all.last_mut()?.push(0),
            (0, _) => return None,
            _ => all.last_mut()?.push(byte),
        }
    }
    (all.len() == cells).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn keys_of_several_cells_sort_as_their_cells_do() {
        let mut random = random("keys_of_several_cells_sort_as_their_cells_do");
        let mut rows: Vec<Vec<Vec<u8>>> = (0..400)
            .map(|_| (0..3).map(|_| (0..random.below(4)).map(|_| [0, 1, 0xff, b'a'][random.below(4) as usize]).collect()).collect())
            .collect();
        let key = |row: &Vec<Vec<u8>>| {
            let mut key = Vec::new();
            row.iter().enumerate().for_each(|(index, cell)| push_key_cell(&mut key, cell, index == 2));
            key
        };
        let mut keys: Vec<Vec<u8>> = rows.iter().map(&key).collect();
        rows.sort();
        keys.sort();
        assert_eq!(keys, rows.iter().map(&key).collect::<Vec<_>>());
        assert_eq!(keys.iter().map(|key| key_cells(key, 3).unwrap()).collect::<Vec<_>>(), rows);
        assert_eq!((key_cells(b"a\0", 2), key_cells(b"a", 2), key_cells(b"", 0), key_cells(b"a", 0)), (None, None, Some(vec![]), None));
    }

    #[test]
    fn signed_numbers_come_back() {
        for value in [0, 1, -1, 63, -64, 64, i128::MAX, i128::MIN, 1 << 100] {
            let mut bytes = Vec::new();
            push_signed(&mut bytes, value);
            assert_eq!(take_signed(&mut &bytes[..]), Some(value));
            assert_eq!(take_signed(&mut &bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn damaged_groups_are_refused() {
        let mut random = random("damaged_groups_are_refused");
        let plan = Plan::parse("group_by", "", "count, sum(a), distinct(b)").unwrap();
        for _ in 0..2000 {
            let length = random.below(60) as usize;
            let _ = Group::new(&plan).add(&plan, &random.bytes(length));
        }
    }
}
