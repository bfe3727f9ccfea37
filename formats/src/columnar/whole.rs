//! A whole file as record batches with the types that it has, for those who read results column by column and outside of any job.

use super::read::guard;
use super::{Columnar, ipc};
use crate::columns::Wanted;
use crate::csv::Layout;
use crate::error::FormatError;
use crate::table::{CsvOptions, Format, Table};
use crate::{Batch, Column};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use std::sync::Arc;

/// Batches in the order of the rows. Nothing comes after an error.
pub struct RecordBatches {
    pub schema: SchemaRef,
    pub batches: Box<dyn Iterator<Item = Result<RecordBatch, FormatError>> + Send>,
}

/// All of `file`. Columns of CSV are text, whatever is in them: their type follows from the format, never from the data. Text is UTF-8 and anything else
/// an error, unless `binary` asks for the bytes.
pub fn record_batches(format: &Format, file: Bytes, binary: bool) -> Result<RecordBatches, FormatError> {
    match format {
        Format::Columnar(Columnar::Arrow) => guarded(Columnar::Arrow.what(), guard(Columnar::Arrow.what(), || ipc::whole(file))?),
        #[cfg(feature = "parquet")]
        Format::Columnar(Columnar::Parquet) => {
            guarded(Columnar::Parquet.what(), guard(Columnar::Parquet.what(), || super::parquet::whole(file))?)
        }
        #[cfg(not(feature = "parquet"))]
        Format::Columnar(Columnar::Parquet) => Err(Columnar::Parquet.lacking()),
        Format::Csv(options) => csv(options, file, binary),
        Format::Jsonl => Err(FormatError::Broken { what: "table", message: "lines of JSON have no columns of their own".into() }),
    }
}

/// Of a file of columns.
pub(super) type Whole = (SchemaRef, Box<dyn Iterator<Item = Result<RecordBatch, FormatError>> + Send>);

fn guarded(what: &'static str, (schema, mut batches): Whole) -> Result<RecordBatches, FormatError> {
    let mut failed = false;
    let batches = std::iter::from_fn(move || {
        let next = if failed { None } else { guard(what, || batches.next().transpose()).transpose() };
        failed = !matches!(next, Some(Ok(_)));
        next
    });
    Ok(RecordBatches { schema, batches: Box::new(batches) })
}

fn csv(options: &CsvOptions, file: Bytes, binary: bool) -> Result<RecordBatches, FormatError> {
    let names = Layout::read(&file, options)?.map_or_else(Vec::new, |layout| layout.names);
    let kind = if binary { DataType::Binary } else { DataType::Utf8 };
    let fields: Vec<Field> = names.iter().map(|name| Field::new(name, kind.clone(), false)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let wanted = names.iter().map(|name| Wanted::text(name)).collect::<Vec<_>>();
    let length = file.len();
    let table = Table::new(Arc::new(Format::Csv(options.clone())), file, 0..length);
    let (of, mut row, mut failed) = (schema.clone(), 0, false);
    let mut rows = if names.is_empty() { None } else { Some(table.read(&wanted)?) };
    let batches = std::iter::from_fn(move || {
        let next = rows.as_mut().filter(|_| !failed)?.next()?;
        let made = next.and_then(|batch| record_batch(&of, &batch, binary, row).inspect(|batch| row += batch.num_rows() as u64));
        failed = made.is_err();
        Some(made)
    });
    Ok(RecordBatches { schema, batches: Box::new(batches) })
}

fn record_batch(schema: &SchemaRef, batch: &Batch, binary: bool, before: u64) -> Result<RecordBatch, FormatError> {
    let array = |(column, field): (&Column, &Arc<Field>)| -> Result<ArrayRef, FormatError> {
        let Column::Text(cells) = column else { unreachable!("only text was asked for") };
        let cells = cells.iter().map(Option::unwrap_or_default);
        if binary {
            return Ok(Arc::new(BinaryArray::from_iter_values(cells)));
        }
        let text =
            |(cell, row): (_, u64)| str::from_utf8(cell).map_err(|_| FormatError::NoText { column: field.name().clone(), row: row + 1 });
        Ok(Arc::new(StringArray::from(cells.zip(before..).map(text).collect::<Result<Vec<_>, _>>()?)))
    };
    let arrays = batch.columns.iter().zip(schema.fields()).map(array).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.rows));
    let made = RecordBatch::try_new_with_options(schema.clone(), arrays, &options);
    made.map_err(|error| FormatError::Broken { what: "table", message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;

    type Columns = Vec<(String, DataType)>;

    fn read(text: &'static [u8], binary: bool) -> (Columns, Result<Vec<RecordBatch>, FormatError>) {
        let made = record_batches(&Format::Csv(CsvOptions::default()), Bytes::from_static(text), binary).unwrap();
        let columns = made.schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
        (columns, made.batches.collect())
    }

    #[test]
    fn csv_is_text_in_the_order_of_its_rows() {
        let (columns, batches) = read(b"word,count\nan,12\n\"a,b\",3\n", false);
        assert_eq!(columns, [("word".to_owned(), DataType::Utf8), ("count".to_owned(), DataType::Utf8)]);
        let batches = batches.unwrap();
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["an", "a,b"]);
        assert_eq!(batches[0].column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["12", "3"]);
    }

    #[test]
    fn what_is_no_utf8_is_named_and_can_be_had_as_bytes() {
        let text = b"word,count\nan,12\n\xff,3\n";
        assert_eq!(read(text, false).1, Err(FormatError::NoText { column: "word".into(), row: 2 }));
        let (columns, batches) = read(text, true);
        assert_eq!(columns[0].1, DataType::Binary);
        assert_eq!(batches.unwrap()[0].column(0).as_binary::<i32>().value(1), b"\xff");
    }

    #[test]
    fn a_table_without_rows_has_its_columns_all_the_same() {
        let (columns, batches) = read(b"word,count\n", false);
        assert_eq!((columns.len(), batches.unwrap().len()), (2, 0));
        let (columns, batches) = read(b"", false);
        assert_eq!((columns.len(), batches.unwrap().len()), (0, 0));
    }
}
