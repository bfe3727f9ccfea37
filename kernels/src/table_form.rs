//! In which form a reduce kernel writes a table: as lines, or as a file of columns.

use crate::api::KernelError;
use raftwerk_formats::{Columnar, FormatError};

/// What kernels that write tables can write, the usual one first.
pub(crate) const FORMS: [&str; 4] = ["csv", "jsonl", "arrow", "parquet"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Csv,
    Jsonl,
    Columns(Columnar),
}

impl Form {
    /// An error, if there is no such form, or this build lacks it.
    pub(crate) fn of(kernel: &str, format: &str) -> Result<Form, KernelError> {
        let kind = match format {
            "csv" | "" => return Ok(Form::Csv),
            "jsonl" => return Ok(Form::Jsonl),
            "arrow" => Columnar::Arrow,
            "parquet" => Columnar::Parquet,
            other => return Err(KernelError::Param(format!("kernel '{kernel}' writes csv, jsonl, arrow or parquet, not '{other}'"))),
        };
        let lacks = |error: FormatError| KernelError::Param(format!("kernel '{kernel}': format '{format}': {error}"));
        kind.check_build().map(|()| Form::Columns(kind)).map_err(lacks)
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Form::Csv => "csv",
            Form::Jsonl => "jsonl",
            Form::Columns(Columnar::Arrow) => "arrow",
            Form::Columns(Columnar::Parquet) => "parquet",
        }
    }
}

#[cfg(test)]
#[test]
fn every_form_has_its_name_and_what_is_none_is_refused() {
    for name in FORMS {
        match Form::of("merge", name) {
            Ok(form) => assert_eq!(form.extension(), name),
            Err(error) => assert!(error.to_string().contains("use one that was built with `--features"), "{error}"),
        }
    }
    assert!(Form::of("merge", "npy").unwrap_err().to_string().contains("kernel 'merge' writes csv, jsonl, arrow or parquet, not 'npy'"));
}
