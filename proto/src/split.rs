//! Where a listed file is cut. Who plans tasks and who reads them must mean the same splits, so the rule stands between them; it depends on the job and the
//! file only, never on the cluster.

use crate::group_start;
use crate::v1::{Files, InputFile};

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

/// Number of splits, each of which is one task. Those of a pack were counted when it was listed.
pub fn file_splits(files: &Files, file: &InputFile) -> u64 {
    if file.pack_files > 0 {
        return file.pack_tasks;
    }
    match cut(files, file) {
        Cut::Bytes(each) => data_bytes(file).div_ceil(each),
        Cut::Groups { each, count } => count.div_ceil(each),
    }
}

/// Where a split begins and how long it is, as far as the listing tells. Where groups really are is known to whoever reads them: here all of a file are
/// taken to be of one length, and a split has the groups of which [`group_start`] is within it. Of files alone: where the splits of a pack are only those
/// know who have it.
pub fn file_split(files: &Files, file: &InputFile, split: u64) -> (u64, u64) {
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
