//! Finished tables as files that hold columns. The types of their columns follow from the job alone, never from what is in them: parts of one result fit
//! together.

use super::Columnar;
use crate::error::FormatError;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{DataType, Field, Schema};
use std::sync::Arc;

/// What the cells of a column of a result are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// UTF-8; other bytes are an error.
    Text,
    /// A whole number.
    Count,
    /// The nearest f64, or nothing.
    Number,
}

enum Values {
    Text(Vec<String>),
    Count(Vec<i64>),
    Number(Vec<Option<f64>>),
}

/// Collects the rows of a table, cell by cell, and writes them as one file.
pub struct TableWriter {
    kind: Columnar,
    names: Vec<String>,
    columns: Vec<Values>,
    rows: usize,
}

impl TableWriter {
    /// An error, if this build writes no such files.
    pub fn new(kind: Columnar, columns: impl IntoIterator<Item = (String, Cell)>) -> Result<TableWriter, FormatError> {
        kind.check_build()?;
        let empty = |cell: Cell| match cell {
            Cell::Text => Values::Text(Vec::new()),
            Cell::Count => Values::Count(Vec::new()),
            Cell::Number => Values::Number(Vec::new()),
        };
        let (names, columns) = columns.into_iter().map(|(name, cell)| (name, empty(cell))).unzip();
        Ok(TableWriter { kind, names, columns, rows: 0 })
    }

    /// A row, of which each cell is given as text; an empty number is none. An error says which cell does not go into its column.
    pub fn push<'a>(&mut self, cells: impl IntoIterator<Item = &'a [u8]>) -> Result<(), FormatError> {
        for ((values, name), cell) in self.columns.iter_mut().zip(&self.names).zip(cells) {
            let wrong = || FormatError::Unwritable { what: self.kind.what(), column: name.clone(), row: self.rows as u64 + 1 };
            let text = std::str::from_utf8(cell).map_err(|_| wrong())?;
            match values {
                Values::Text(values) => values.push(text.to_owned()),
                Values::Count(values) => values.push(text.parse().map_err(|_| wrong())?),
                Values::Number(values) if text.is_empty() => values.push(None),
                Values::Number(values) => values.push(Some(text.parse().map_err(|_| wrong())?)),
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// The file.
    pub fn finish(self) -> Result<Vec<u8>, FormatError> {
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (name, values) in self.names.into_iter().zip(self.columns) {
            let (kind, nullable, array): (DataType, bool, ArrayRef) = match values {
                Values::Text(values) => (DataType::Utf8, false, Arc::new(StringArray::from(values))),
                Values::Count(values) => (DataType::Int64, false, Arc::new(Int64Array::from(values))),
                Values::Number(values) => (DataType::Float64, true, Arc::new(Float64Array::from(values))),
            };
            fields.push(Field::new(name, kind, nullable));
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let what = self.kind.what();
        let made = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options);
        let batch = made.map_err(|error| FormatError::Broken { what, message: error.to_string() })?;
        match self.kind {
            #[cfg(feature = "parquet")]
            Columnar::Parquet => parquet_file(&batch),
            #[cfg(feature = "arrow-ipc")]
            Columnar::Arrow => ipc_file(&batch),
            #[cfg(not(feature = "parquet"))]
            _ => lacking(self.kind, &batch),
        }
    }
}

/// Never called: no writer was made of such a kind.
#[cfg(not(feature = "parquet"))]
fn lacking(kind: Columnar, _batch: &RecordBatch) -> Result<Vec<u8>, FormatError> {
    Err(kind.lacking())
}

#[cfg(feature = "parquet")]
fn parquet_file(batch: &RecordBatch) -> Result<Vec<u8>, FormatError> {
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    let broken = |error: parquet::errors::ParquetError| FormatError::Broken { what: super::parquet::WHAT, message: error.to_string() };
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        // The same bytes whatever version wrote them last.
        .set_created_by("raftwerk".to_owned())
        .build();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), Some(properties)).map_err(broken)?;
    writer.write(batch).map_err(broken)?;
    writer.close().map_err(broken)?;
    Ok(out)
}

#[cfg(feature = "arrow-ipc")]
fn ipc_file(batch: &RecordBatch) -> Result<Vec<u8>, FormatError> {
    /// Rows of a record batch: enough that readers do not notice its beginning, and few enough that the file can be cut into splits.
    const ROWS: usize = 128 << 10;
    let broken = |error: arrow_schema::ArrowError| FormatError::Broken { what: "Arrow IPC", message: error.to_string() };
    let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).map_err(broken)?;
    for from in (0..batch.num_rows()).step_by(ROWS) {
        writer.write(&batch.slice(from, ROWS.min(batch.num_rows() - from))).map_err(broken)?;
    }
    writer.finish().map_err(broken)?;
    writer.into_inner().map_err(broken)
}
