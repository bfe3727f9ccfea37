//! A set of task numbers kept as ranges: what is left of a lease, or which tasks' shuffle data lies here.
use std::collections::BTreeMap;

/// Disjoint, non-adjacent ranges `[start, end)`, by start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskRanges {
    ranges: BTreeMap<u64, u64>,
}

impl TaskRanges {
    pub fn new(first: u64, count: u64) -> Self {
        let mut set = Self::default();
        set.insert(first, count);
        set
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Ranges as (first, count), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(&start, &end)| (start, end - start))
    }

    pub fn len(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    pub fn insert(&mut self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        let (mut start, mut end) = (first, first.saturating_add(count));
        // Everything that touches or overlaps melts into the new range.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.ranges.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
    }

    /// Removes the range and returns the parts of it that were in the set.
    pub fn take(&mut self, first: u64, count: u64) -> Vec<(u64, u64)> {
        let (start, end) = (first, first.saturating_add(count));
        let mut taken = Vec::new();
        while let Some((&s, &e)) = self.ranges.range(..end).next_back() {
            if e <= start {
                break;
            }
            self.ranges.remove(&s);
            if e > end {
                self.ranges.insert(end, e);
            }
            if s < start {
                self.ranges.insert(s, start);
            }
            taken.push((s.max(start), e.min(end) - s.max(start)));
        }
        taken.reverse();
        taken
    }

    pub fn contains(&self, first: u64, count: u64) -> bool {
        count == 0 || self.ranges.range(..=first).next_back().is_some_and(|(_, &end)| end >= first.saturating_add(count))
    }

    /// The lowest task of the range that is not in the set.
    pub fn first_missing(&self, first: u64, count: u64) -> Option<u64> {
        let missing = self.ranges.range(..=first).next_back().map_or(first, |(_, &end)| end.max(first));
        (missing < first.saturating_add(count)).then_some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_melt_together() {
        let mut set = TaskRanges::new(0, 2);
        set.insert(4, 2);
        set.insert(2, 2);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, 6)]);
    }

    #[test]
    fn taking_returns_what_was_there() {
        let mut set = TaskRanges::new(0, 10);
        assert_eq!(set.take(3, 2), [(3, 2)]);
        assert_eq!(set.take(0, 10), [(0, 3), (5, 5)]);
        assert!(set.is_empty());
    }

    #[test]
    fn the_first_hole_is_found() {
        let mut set = TaskRanges::new(0, 3);
        set.insert(5, 1);
        assert_eq!(set.first_missing(0, 3), None);
        assert_eq!(set.first_missing(1, 5), Some(3));
        assert_eq!(set.first_missing(7, 1), Some(7));
        assert!(set.contains(5, 1) && !set.contains(2, 2));
    }
}
