//! Which row of its file a row is that is read: groups before it, and between, may have been passed over.

use bytes::Bytes;
use std::sync::OnceLock;

pub(super) enum RowNumbers {
    /// For each run of groups that follow one another: the rows that were read before it, and those of the file.
    #[cfg_attr(not(feature = "parquet"), allow(dead_code))]
    Runs(Vec<(u64, u64)>),
    /// One run, and what comes before it has to be counted: by whoever wants to know a number, because hardly anybody does.
    Counted { file: Bytes, first_batch: u64, before: OnceLock<Option<u64>> },
}

impl RowNumbers {
    /// Of these groups, which have so many rows; `groups` go up.
    #[cfg_attr(not(feature = "parquet"), allow(dead_code))]
    pub(super) fn of_groups(groups: &[usize], rows_of: impl Fn(usize) -> u64) -> RowNumbers {
        let (mut runs, mut read, mut before, mut next) = (Vec::new(), 0, 0, 0);
        for group in groups {
            if *group != next || runs.is_empty() {
                before += (next..*group).map(&rows_of).sum::<u64>();
                runs.push((read, before));
            }
            let rows = rows_of(*group);
            (read, before, next) = (read + rows, before + rows, group + 1);
        }
        RowNumbers::Runs(runs)
    }

    /// Of the record batches of an Arrow file from this one on.
    pub(super) fn from_batch(file: Bytes, first_batch: u64) -> RowNumbers {
        RowNumbers::Counted { file, first_batch, before: OnceLock::new() }
    }

    /// Rows of the file before the one before which so many were read. The second number is that of the first record batch that was counted, where those
    /// before it are not there.
    pub(super) fn before(&self, read: u64) -> (u64, Option<u64>) {
        match self {
            RowNumbers::Runs(runs) => {
                let run = runs[..runs.partition_point(|(first, _)| *first <= read)].last();
                (run.map_or(read, |(first, before)| before + (read - first)), None)
            }
            RowNumbers::Counted { file, first_batch, before } => match before.get_or_init(|| super::ipc::rows_before(file, *first_batch)) {
                Some(before) => (before + read, None),
                None => (read, Some(*first_batch)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_passed_over_count() {
        let rows = [10, 20, 0, 40, 50];
        let numbers = RowNumbers::of_groups(&[1, 2, 4], |group| rows[group]);
        let of = |read| numbers.before(read).0;
        assert_eq!([of(0), of(19), of(20), of(69)], [10, 29, 70, 119]);
        assert_eq!(RowNumbers::of_groups(&[0, 1], |group| rows[group]).before(29), (29, None));
        assert_eq!(RowNumbers::of_groups(&[], |group| rows[group]).before(3), (3, None), "nothing is read then");
    }
}
