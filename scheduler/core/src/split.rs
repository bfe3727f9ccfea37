//! How an input becomes tasks. Splits depend on the job and its input only, never on the cluster.

use crate::ids::{JobId, TaskRange};
use crate::ring::place_of;
use raftwerk_proto::group_start;
use raftwerk_proto::v1::{Files, IndexRange, InputFile, Split, StageSpec, stage_input::Source};

/// How a file is cut.
enum Cut {
    /// Into so many bytes each; the last split has what is left.
    Bytes(u64),
    /// Into so many whole groups each.
    Groups { each: u64, count: u64 },
}

/// Whole records for fixed-size ones, whole groups where the file has such, all of it where nothing less is sure to be whole rows.
fn cut(files: &Files, file: &InputFile) -> Cut {
    let (nominal, bytes) = (files.split_bytes.max(1), data_bytes(file));
    if file.groups > 0 {
        let count = u64::from(file.groups);
        return Cut::Groups { each: (nominal / (bytes / count).max(1)).max(1), count };
    }
    if !file.compression.is_empty() || files.table.as_ref().is_some_and(|table| table.whole_files) {
        return Cut::Bytes(bytes.max(1));
    }
    match u64::from(file.record_bytes) {
        0 => Cut::Bytes(nominal),
        record => Cut::Bytes((nominal / record).max(1) * record),
    }
}

fn data_bytes(file: &InputFile) -> u64 {
    file.bytes.saturating_sub(file.data_offset)
}

fn splits_of(files: &Files, file: &InputFile) -> u64 {
    match cut(files, file) {
        Cut::Bytes(each) => data_bytes(file).div_ceil(each),
        Cut::Groups { each, count } => count.div_ceil(each),
    }
}

/// Where a split begins and how long it is, as far as the listing tells. Where groups really are is known to whoever reads them: here all of a file are
/// taken to be of one length, and a split has the groups of which [`group_start`] is within it.
fn range_of(files: &Files, file: &InputFile, split: u64) -> (u64, u64) {
    match cut(files, file) {
        Cut::Bytes(each) => {
            let offset = file.data_offset + split * each;
            (offset, each.min(file.bytes - offset))
        }
        Cut::Groups { each, count } => {
            let start = |group: u64| group_start(file, group.min(count));
            let (from, to) = (start(split * each), start((split + 1) * each));
            (from, to - from)
        }
    }
}

/// Number of tasks of a stage that reads an index range or files; `None` for one that reads another stage.
pub fn tasks_of(spec: &StageSpec) -> Option<u64> {
    match spec.inputs.first()?.source.as_ref()? {
        Source::Range(range) => Some(range.tasks.min(range.count)),
        Source::Files(files) => Some(files.listing.iter().map(|file| splits_of(files, file)).fold(0, u64::saturating_add)),
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

/// The splits of a range of tasks, in task order.
pub fn splits_of_tasks(files: &Files, tasks: TaskRange) -> Vec<Split> {
    let mut splits = Vec::with_capacity(tasks.count().min(1 << 20) as usize);
    let mut first = 0;
    for file in &files.listing {
        let count = splits_of(files, file);
        let here = tasks.intersect(TaskRange { first, end: first + count });
        for task in here.first..here.end {
            let (offset, bytes) = range_of(files, file, task - first);
            splits.push(Split { file: Some(file.clone()), offset, bytes });
        }
        first += count;
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
