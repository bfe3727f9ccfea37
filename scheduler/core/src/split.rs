//! How an input becomes tasks. Splits depend on the job and its input only, never on the cluster.

use crate::ids::{JobId, TaskRange};
use crate::ring::place_of;
use raftwerk_proto::v1::{Files, IndexRange, InputFile, Split, StageSpec, stage_input::Source};
use raftwerk_proto::{file_split, file_splits};

/// Number of tasks of a stage that reads an index range or files; `None` for one that reads another stage.
pub fn tasks_of(spec: &StageSpec) -> Option<u64> {
    match spec.inputs.first()?.source.as_ref()? {
        Source::Range(range) => Some(range.tasks.min(range.count)),
        Source::Files(files) => Some(files.listing.iter().map(|file| file_splits(files, file)).fold(0, u64::saturating_add)),
        Source::Stage(_) => None,
    }
}

/// A number for what a stage reads: equal for two stages that read the same, and different, but for chance, for others. Of a listing it looks at
/// its length and its ends, because it is asked for in every planning round.
pub fn input_number(spec: &StageSpec, job: Option<JobId>) -> u64 {
    let text = |text: &str| text.bytes().fold(0, |hash, byte| place_of(&[hash, u64::from(byte)]));
    let file = |file: Option<&InputFile>| file.map_or(0, |f| place_of(&[text(&f.path), f.bytes, f.version]));
    match spec.inputs.first().and_then(|input| input.source.as_ref()) {
        Some(Source::Range(range)) => place_of(&[1, range.start, range.count, range.tasks]),
        Some(Source::Files(files)) => {
            // The version of a pack is of its digest, and so of all its files.
            let listing = &files.listing;
            place_of(&[2, files.split_bytes, listing.len() as u64, file(listing.first()), file(listing.last())])
        }
        // What a stage left is its job's own.
        Some(Source::Stage(_)) | None => place_of(&[3, job.map_or(0, |job| job.0)]),
    }
}

/// The integers of one task: (first, how many). The first `count % tasks` tasks have one more.
pub fn index_of(range: &IndexRange, task: u64) -> (u64, u64) {
    let tasks = range.tasks.min(range.count).max(1);
    let (each, longer) = (range.count / tasks, range.count % tasks);
    let first = range.start + task * each + task.min(longer);
    (first, each + u64::from(task < longer))
}

/// The splits of a range of tasks, in task order. Those of one pack are one line: a lease may have a hundred thousand of them, which one by one
/// would not fit a message.
pub fn splits_of_tasks(files: &Files, tasks: TaskRange) -> Vec<Split> {
    let mut splits = Vec::new();
    let mut first = 0;
    for file in &files.listing {
        let count = file_splits(files, file);
        let here = tasks.intersect(TaskRange { first, end: first.saturating_add(count) });
        let of_files = if file.pack_files > 0 {
            if !here.is_empty() {
                splits.push(Split { file: Some(file.clone()), offset: here.first - first, bytes: 0, pack_tasks: here.count() });
            }
            0..0
        } else {
            here.first..here.end
        };
        for task in of_files {
            let (offset, bytes) = file_split(files, file, task - first);
            splits.push(Split { file: Some(file.clone()), offset, bytes, pack_tasks: 0 });
        }
        first = first.saturating_add(count);
        if first >= tasks.end {
            break;
        }
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_ranges_cover_every_integer_once() {
        for (count, tasks) in [(0, 1), (1, 1), (10, 3), (7, 7), (7, 10), (1000, 13)] {
            let range = IndexRange { start: 5, count, tasks };
            let n = tasks.min(count);
            let mut next = 5;
            for task in 0..n {
                let (first, len) = index_of(&range, task);
                assert_eq!(first, next);
                assert!(len > 0);
                next += len;
            }
            assert_eq!(next, 5 + count);
        }
    }

    #[test]
    fn file_splits_cover_every_byte_once_and_respect_records() {
        let file = |path: &str, bytes, data_offset, record_bytes| InputFile {
            path: path.into(),
            bytes,
            data_offset,
            record_bytes,
            ..Default::default()
        };
        let files = Files {
            split_bytes: 10,
            listing: vec![file("a", 25, 0, 0), file("empty", 0, 0, 0), file("b", 10, 0, 0), file("c.npy", 128 + 28, 128, 4)],
            ..Default::default()
        };
        let spec = StageSpec {
            inputs: vec![raftwerk_proto::v1::StageInput { name: "x".into(), source: Some(Source::Files(files.clone())) }],
            ..Default::default()
        };
        let tasks = tasks_of(&spec).unwrap();
        assert_eq!(tasks, 3 + 1 + 4);
        let all = splits_of_tasks(&files, TaskRange { first: 0, end: tasks });
        let shown: Vec<_> = all.iter().map(|s| (s.file.as_ref().unwrap().path.as_str(), s.offset, s.bytes)).collect();
        assert_eq!(
            shown,
            [
                ("a", 0, 10),
                ("a", 10, 10),
                ("a", 20, 5),
                ("b", 0, 10),
                ("c.npy", 128, 8),
                ("c.npy", 136, 8),
                ("c.npy", 144, 8),
                ("c.npy", 152, 4)
            ]
        );
        assert_eq!(splits_of_tasks(&files, TaskRange { first: 2, end: 5 }), all[2..5]);
    }

    #[test]
    fn a_pack_of_files_has_the_tasks_that_were_counted_when_it_was_listed() {
        let pack = |tasks| InputFile { path: "a".into(), bytes: 100, pack_files: 4096, pack_tasks: tasks, ..Default::default() };
        let listing = vec![pack(3), pack(0), InputFile { path: "b".into(), bytes: 15, ..Default::default() }, pack(u64::MAX)];
        let files = Files { split_bytes: 10, listing, ..Default::default() };
        let shown = |first, end| -> Vec<_> {
            let splits = splits_of_tasks(&files, TaskRange { first, end });
            splits.iter().map(|split| (split.offset, split.bytes, split.pack_tasks)).collect()
        };
        assert_eq!(shown(1, 7), [(1, 0, 2), (0, 10, 0), (10, 5, 0), (0, 0, 2)]);
        assert_eq!(shown(2, 3), [(2, 0, 1)]);
        assert_eq!(shown(3, 4), [(0, 10, 0)], "of a pack without a task there is nothing");
        assert_eq!(shown(1_000_005, 2_000_005), [(1_000_000, 0, 1_000_000)], "as short as one");
        let whole = raftwerk_proto::v1::StageInput { name: "x".into(), source: Some(Source::Files(files)) };
        assert_eq!(tasks_of(&StageSpec { inputs: vec![whole], ..Default::default() }), Some(u64::MAX), "nothing overflows");
    }

    #[test]
    fn a_table_whose_cells_may_hold_line_ends_is_one_split_for_each_file() {
        let file = |path: &str, bytes| InputFile { path: path.into(), bytes, ..Default::default() };
        let table = |whole_files| Some(raftwerk_proto::v1::TableFormat { whole_files, ..Default::default() });
        let listing = vec![file("a", 25), file("empty", 0), file("b", u64::MAX)];
        let mut files = Files { split_bytes: 10, listing, table: table(true), ..Default::default() };
        let splits = splits_of_tasks(&files, TaskRange { first: 0, end: 9 });
        let shown: Vec<_> = splits.iter().map(|s| (s.file.as_ref().unwrap().path.as_str(), s.offset, s.bytes)).collect();
        assert_eq!(shown, [("a", 0, 25), ("b", 0, u64::MAX)]);
        files.listing.pop();
        files.table = table(false);
        assert_eq!(splits_of_tasks(&files, TaskRange { first: 0, end: 9 }).len(), 3);
    }

    #[test]
    fn a_compressed_file_is_one_split_and_groups_stay_whole() {
        let packed = |bytes| InputFile { path: "a.gz".into(), bytes, compression: "gzip".into(), ..Default::default() };
        let groups = |bytes, data_offset, groups| InputFile { path: "b".into(), bytes, data_offset, groups, ..Default::default() };
        let shown = |split_bytes, file: InputFile| -> Vec<(u64, u64)> {
            let files = Files { split_bytes, listing: vec![file], ..Default::default() };
            splits_of_tasks(&files, TaskRange { first: 0, end: 1000 }).iter().map(|split| (split.offset, split.bytes)).collect()
        };
        assert_eq!((shown(10, packed(25)), shown(10, packed(0))), (vec![(0, 25)], vec![]));
        assert_eq!(shown(1, groups(10, 0, 3)), [(0, 3), (3, 3), (6, 4)]);
        assert_eq!(shown(7, groups(10, 0, 3)), [(0, 6), (6, 4)], "short groups come together");
        assert_eq!(shown(1 << 40, groups(10, 4, 3)), [(4, 6)]);
        assert_eq!(shown(10, groups(100, 100, 0)), [], "a file without a group");
        assert_eq!(shown(1, groups(2, 0, 5)).len(), 5, "whatever a file says of itself");
        assert_eq!(shown(u64::MAX, groups(u64::MAX, 0, u32::MAX)), [(0, u64::MAX)]);
    }
}
