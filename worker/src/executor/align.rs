//! From the nominal byte range of a split to whole records: a record belongs to the split in which it starts.

/// The lines that start in `[offset, offset + bytes)` of the file, as a byte range. The last line may lack its newline. A line longer
/// than a split leaves the splits that lie within it empty.
pub(super) fn lines(file: &[u8], offset: u64, bytes: u64) -> std::ops::Range<usize> {
    let length = file.len() as u64;
    let nominal_end = offset.saturating_add(bytes).min(length);
    // A line starts right behind a newline, so looking from the byte before finds a line that starts exactly at the boundary.
    // The search ends with the split: a line of gigabytes in small splits must not be read once for each of them.
    let start = match offset {
        0 => 0,
        _ => match find_newline(&file[(offset as usize - 1).min(file.len())..nominal_end as usize]) {
            Some(found) => offset + found as u64,
            None => return 0..0,
        },
    };
    if start >= nominal_end {
        return 0..0;
    }
    let last = nominal_end as usize - 1;
    start as usize..find_newline(&file[last..]).map_or(file.len(), |found| last + found + 1)
}

fn find_newline(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

/// The whole records that start in the nominal range, which is counted from the start of the file; records begin at `data_offset`.
pub(super) fn records(file_bytes: u64, data_offset: u64, record_bytes: u64, offset: u64, bytes: u64) -> std::ops::Range<usize> {
    let record = record_bytes.max(1);
    let whole_end = data_offset + file_bytes.saturating_sub(data_offset) / record * record;
    let up = |at: u64| {
        let at = at.max(data_offset) - data_offset;
        (data_offset + at.div_ceil(record) * record).min(whole_end)
    };
    let (start, end) = (up(offset), up(offset.saturating_add(bytes)));
    start as usize..end.max(start) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(file: &[u8], split: u64) -> Vec<&[u8]> {
        (0..(file.len() as u64).div_ceil(split).max(1)).map(|i| &file[lines(file, i * split, split)]).collect()
    }

    #[test]
    fn a_line_that_starts_on_the_boundary_belongs_to_the_second_split() {
        assert_eq!(cut(b"ab\ncd\n", 3), [b"ab\n", b"cd\n"]);
    }

    #[test]
    fn a_line_longer_than_a_split_leaves_empty_splits() {
        assert_eq!(cut(b"abcdefgh\nx", 3), [&b"abcdefgh\n"[..], b"", b"", b"x"]);
    }

    #[test]
    fn an_empty_file_is_one_empty_split() {
        assert_eq!(cut(b"", 4), [b""]);
    }

    #[test]
    fn windows_lines_stay_whole() {
        assert_eq!(cut(b"a\r\nb\r\n", 2), [&b"a\r\n"[..], b"b\r\n", b""]);
    }

    proptest! {
        #[test]
        fn every_line_belongs_to_exactly_one_split(lines in proptest::collection::vec("[a-c\r]{0,9}", 0..12), newline in any::<bool>(), split in 1u64..20) {
            let mut file = lines.join("\n").into_bytes();
            if newline {
                file.push(b'\n');
            }
            let splits = cut(&file, split);
            prop_assert_eq!(splits.concat(), &file[..], "in order, nothing lost, nothing twice");
            let (last, others) = splits.split_last().unwrap();
            prop_assert!(others.iter().all(|s| s.is_empty() || s.ends_with(b"\n") || file.ends_with(s)));
            prop_assert!(last.is_empty() || file.ends_with(last));
        }

        #[test]
        fn every_record_belongs_to_exactly_one_split(count in 0u64..40, record in 1u64..9, header in 0u64..30, split in 1u64..25) {
            let bytes = header + count * record;
            let ranges: Vec<_> = (0..bytes.div_ceil(split)).map(|i| records(bytes, header, record, i * split, split)).collect();
            let mut at = header;
            for range in ranges.iter().filter(|range| !range.is_empty()) {
                prop_assert_eq!(range.start as u64, at);
                prop_assert_eq!((range.end - range.start) as u64 % record, 0);
                at = range.end as u64;
            }
            prop_assert_eq!(at, bytes);
        }

        #[test]
        fn splits_that_begin_behind_the_header_work_too(count in 0u64..40, record in 1u64..9, header in 0u64..30, split in 1u64..25) {
            let bytes = header + count * record;
            let total: u64 = (0..(bytes - header).div_ceil(split)).map(|i| records(bytes, header, record, header + i * split, split).len() as u64).sum();
            prop_assert_eq!(total, count * record);
        }
    }
}
