//! Stage state as intervals: a million-task job costs as much memory as it has distinct neighbouring states.

use crate::ids::TaskRange;
use std::collections::BTreeMap;

/// Maps every task of `0 .. len` to a value; neighbours with equal values are one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntervalMap<V> {
    /// First task of an interval -> (one past its last task, value). Gapless from 0 to `len`.
    intervals: BTreeMap<u64, (u64, V)>,
    len: u64,
}

impl<V: Copy + Eq> IntervalMap<V> {
    pub fn new(len: u64, value: V) -> Self {
        let mut intervals = BTreeMap::new();
        if len > 0 {
            intervals.insert(0, (len, value));
        }
        IntervalMap { intervals, len }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of intervals, that is, the memory it takes.
    pub fn intervals(&self) -> usize {
        self.intervals.len()
    }

    /// All intervals in order.
    pub fn iter(&self) -> impl Iterator<Item = (TaskRange, V)> + '_ {
        self.intervals.iter().map(|(&first, &(end, value))| (TaskRange { first, end }, value))
    }

    /// The intervals that overlap `range`, cut to it.
    pub fn overlapping(&self, range: TaskRange) -> impl Iterator<Item = (TaskRange, V)> + '_ {
        let from = self.intervals.range(..=range.first).next_back().map_or(range.first, |(&first, _)| first);
        self.intervals
            .range(from..range.end.max(from))
            .map(move |(&first, &(end, value))| (TaskRange { first, end }.intersect(range), value))
            .filter(|(cut, _)| !cut.is_empty())
    }

    /// Gives every task of `range` the value. The range must lie inside `0 .. len`.
    pub fn set(&mut self, range: TaskRange, value: V) {
        debug_assert!(range.end <= self.len);
        if range.is_empty() || range.end > self.len {
            return;
        }
        self.cut_at(range.first);
        self.cut_at(range.end);
        let inside: Vec<u64> = self.intervals.range(range.first..range.end).map(|(&first, _)| first).collect();
        for first in inside {
            self.intervals.remove(&first);
        }
        let (mut first, mut end) = (range.first, range.end);
        if let Some((&before, &(before_end, before_value))) = self.intervals.range(..first).next_back()
            && before_end == first
            && before_value == value
        {
            self.intervals.remove(&before);
            first = before;
        }
        if let Some(&(after_end, after_value)) = self.intervals.get(&end)
            && after_value == value
        {
            self.intervals.remove(&end);
            end = after_end;
        }
        self.intervals.insert(first, (end, value));
    }

    /// Makes an interval start at `task`, so that what lies before it can be changed alone.
    fn cut_at(&mut self, task: u64) {
        if task == 0 || task >= self.len {
            return;
        }
        if let Some((_, interval)) = self.intervals.range_mut(..task).next_back()
            && interval.0 > task
        {
            let (end, value) = *interval;
            interval.0 = task;
            self.intervals.insert(task, (end, value));
        }
    }

    /// Rebuilds from intervals in order; `None` when they leave a gap or overlap.
    pub fn from_intervals(len: u64, parts: impl IntoIterator<Item = (TaskRange, V)>) -> Option<Self> {
        let mut intervals = BTreeMap::new();
        let mut next = 0;
        for (range, value) in parts {
            if range.first != next || range.is_empty() {
                return None;
            }
            next = range.end;
            intervals.insert(range.first, (range.end, value));
        }
        (next == len).then_some(IntervalMap { intervals, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_an_array_of_values(len in 0u64..40, writes in prop::collection::vec((0u64..40, 0u64..12, 0u8..3), 0..60)) {
            let mut map = IntervalMap::new(len, 0u8);
            let mut model = vec![0u8; len as usize];
            for (first, count, value) in writes {
                let range = TaskRange { first: first.min(len), end: (first + count).min(len) };
                if range.is_empty() { continue; }
                map.set(range, value);
                model[range.first as usize..range.end as usize].fill(value);
                let flat: Vec<u8> = map.iter().flat_map(|(r, v)| std::iter::repeat_n(v, r.count() as usize)).collect();
                prop_assert_eq!(&flat, &model);
                let distinct = model.windows(2).filter(|w| w[0] != w[1]).count() + usize::from(len > 0);
                prop_assert_eq!(map.intervals(), distinct, "equal neighbours are one interval");
                let cut = TaskRange { first: len / 3, end: len - len / 4 };
                let seen: Vec<u8> = map.overlapping(cut).flat_map(|(r, v)| std::iter::repeat_n(v, r.count() as usize)).collect();
                prop_assert_eq!(&seen[..], &model[cut.first as usize..cut.end.max(cut.first) as usize]);
            }
        }
    }
}
