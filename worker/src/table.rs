//! The format of a table, from the words of a job to those of the reader.

use raftwerk_formats::{CsvOptions, Format};
use raftwerk_proto::v1::Files;

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
        other => Err(format!("this build reads no tables of format `{other}`")),
    }
}
