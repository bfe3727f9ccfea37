//! The format of a table, from the words of a job to those of the reader.

use raftwerk_formats::{Columnar, CsvOptions, Filter, Format};
use raftwerk_proto::group_start;
use raftwerk_proto::v1::{Files, InputFile};
use std::{ops::Range, sync::Arc};

/// How these files are tables; an error when this build cannot read them.
pub(crate) fn format(files: &Files) -> Result<Format, String> {
    let table = files.table.clone().unwrap_or_default();
    match files.format.as_str() {
        "csv" => {
            let separator = u8::try_from(table.separator).ok().filter(|byte| !matches!(byte, 0 | b'"' | b'\r' | b'\n'));
            Ok(Format::Csv(CsvOptions {
                separator: separator.ok_or_else(|| format!("{} is no separator of cells", table.separator))?,
                header: table.header,
                quoted_newlines: table.whole_files,
                names: table.names,
            }))
        }
        "jsonl" => Ok(Format::Jsonl),
        "parquet" => columnar(Columnar::Parquet),
        "arrow" => columnar(Columnar::Arrow),
        other => Err(format!("this build reads no tables of format `{other}`")),
    }
}

fn columnar(kind: Columnar) -> Result<Format, String> {
    kind.check_build().map(|()| Format::Columnar(kind)).map_err(|error| error.to_string())
}

/// Which rows of these files count; nothing: all.
pub(crate) fn filter(files: &Files) -> Result<Option<Arc<Filter>>, String> {
    match files.table.as_ref().map(|table| table.r#where.as_str()) {
        None | Some("") => Ok(None),
        Some(text) => Filter::parse(text).map(|filter| Some(Arc::new(filter))).map_err(|error| format!("where: {error}")),
    }
}

/// The groups of a file that a split has: those that begin in it, if all were of one length.
pub(crate) fn groups(file: &InputFile, offset: u64, bytes: u64) -> Range<u64> {
    let count = u64::from(file.groups);
    // Starts rise, so halving finds the first that is not before a place.
    let first_from = |place: u64| {
        let (mut from, mut to) = (0, count);
        while from < to {
            let middle = from + (to - from) / 2;
            if group_start(file, middle) < place { from = middle + 1 } else { to = middle }
        }
        from
    };
    first_from(offset)..first_from(offset.saturating_add(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whoever cuts the file into splits and whoever reads a split mean the same groups.
        #[test]
        fn every_group_is_in_exactly_one_split(bytes in 1u64..2000, data_offset in 0u64..50, groups in 1u32..60, each in 1u64..70) {
            let file = InputFile { bytes: bytes + data_offset, data_offset, groups, ..InputFile::default() };
            let count = u64::from(groups);
            let mut next = 0;
            for first in (0..count).step_by(each as usize) {
                let (from, to) = (group_start(&file, first), group_start(&file, (first + each).min(count)));
                let Range { start, end } = super::groups(&file, from, to - from);
                if start < end {
                    prop_assert_eq!(start, next);
                    next = end;
                }
            }
            prop_assert_eq!(next, count);
        }
    }
}
