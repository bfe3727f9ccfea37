//! What one task tells `merge_statistics`: a run with one record, whose key is the element type.
//!
//! ```text
//! value | count | invalid | above | below | smallest | largest | negative | sum bytes | sum .. | squares bytes | squares .. |
//!       | varint, each; smallest and largest are ranks, negative is 0 or 1 | varint   | le     | varint        | le         |
//! ```

use super::magnitude::Magnitude;
use crate::api::KernelError;
use crate::run::{push_record, push_varint, take_varint};

/// Exact statistics of some elements. Those of tasks add up to those of all, in any order and however the elements were cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moments {
    /// Elements that are not NaN, infinities included.
    pub(crate) count: u64,
    pub(crate) invalid: u64,
    /// Positive infinities.
    pub(crate) above: u64,
    /// Negative infinities.
    pub(crate) below: u64,
    /// Ranks of the smallest and the largest element: the largest and the smallest rank there is if `count` is 0.
    pub(crate) smallest: u32,
    pub(crate) largest: u32,
    /// Of the finite elements, in units of 2^-scale: positive and negative sums apart.
    pub(crate) positive: Magnitude,
    pub(crate) negative: Magnitude,
    /// In units of 2^(-2 scale).
    pub(crate) squares: Magnitude,
}

impl Default for Moments {
    fn default() -> Moments {
        let zero = Magnitude::default();
        Moments {
            count: 0,
            invalid: 0,
            above: 0,
            below: 0,
            smallest: u32::MAX,
            largest: 0,
            positive: zero.clone(),
            negative: zero.clone(),
            squares: zero,
        }
    }
}

impl Moments {
    pub(super) fn push(&self, run: &mut Vec<u8>, key: &[u8]) {
        let mut value = Vec::with_capacity(160);
        for number in [self.count, self.invalid, self.above, self.below, self.smallest.into(), self.largest.into()] {
            push_varint(&mut value, number);
        }
        let (negative, sum) = if self.negative.is_zero() { (0, &self.positive) } else { (1, &self.negative) };
        push_varint(&mut value, negative);
        for number in [sum, &self.squares] {
            let bytes = number.to_bytes();
            push_varint(&mut value, bytes.len() as u64);
            value.extend_from_slice(&bytes);
        }
        push_record(run, key, &value);
    }

    /// Adds what a record says.
    pub(crate) fn add(&mut self, mut value: &[u8]) -> Result<(), KernelError> {
        self.take(&mut value).filter(|()| value.is_empty()).ok_or_else(|| {
            KernelError::Failed("shuffle block is damaged: a record is not one of statistics, or counts exceed 64 bits".into())
        })
    }

    fn take(&mut self, value: &mut &[u8]) -> Option<()> {
        for total in [&mut self.count, &mut self.invalid, &mut self.above, &mut self.below] {
            *total = total.checked_add(take_varint(value)?)?;
        }
        self.smallest = self.smallest.min(u32::try_from(take_varint(value)?).ok()?);
        self.largest = self.largest.max(u32::try_from(take_varint(value)?).ok()?);
        let negative = take_varint(value)?;
        let sum = take_number(value)?;
        match negative {
            0 => self.positive.add(&sum),
            1 => self.negative.add(&sum),
            _ => return None,
        }
        self.squares.add(&take_number(value)?);
        Some(())
    }
}

fn take_number(value: &mut &[u8]) -> Option<Magnitude> {
    let length = usize::try_from(take_varint(value)?).ok()?;
    let (bytes, rest) = value.split_at_checked(length)?;
    *value = rest;
    Some(Magnitude::from_bytes(bytes))
}
