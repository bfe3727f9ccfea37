//! Parquet, by the `parquet` crate over the mapped file.

use super::Asked;
use super::cells;
use super::read::{Converted, places};
use super::rows::RowNumbers;
use super::whole::Whole;
use crate::error::FormatError;
use crate::filter::{Bounds, Constant, Filter, Term};
use crate::number::Number;
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

pub(super) const WHAT: &str = "Parquet";

fn broken(error: impl std::fmt::Display) -> FormatError {
    // The crate's own words begin with what is known here.
    let message = error.to_string();
    let message =
        ["Parquet error: ", "EOF: ", "ParquetError"].iter().fold(message.as_str(), |text, start| text.strip_prefix(start).unwrap_or(text));
    FormatError::Broken { what: WHAT, message: message.to_owned() }
}

/// Number of row groups, and the columns.
pub(super) fn footer(file: &File) -> Result<(u32, Schema), FormatError> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file).map_err(broken)?;
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), Default::default()).map_err(broken)?;
    let groups = u32::try_from(metadata.metadata().num_row_groups()).map_err(broken)?;
    Ok((groups, metadata.schema().as_ref().clone()))
}

/// Pages and dictionaries of some groups' columns. A column of the schema may be several in the file, all below its name.
pub(super) fn where_lies(file: &File, groups: Range<u64>, columns: &[String]) -> Result<Vec<Range<u64>>, FormatError> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file).map_err(broken)?;
    let is_wanted = |name: &String| columns.is_empty() || columns.contains(name);
    let groups = metadata.row_groups().get(groups.start as usize..groups.end as usize).ok_or_else(|| broken("it has fewer row groups"))?;
    let chunks = groups.iter().flat_map(RowGroupMetaData::columns);
    let wanted = chunks.filter(|chunk| chunk.column_path().parts().first().is_none_or(is_wanted));
    Ok(wanted.map(|chunk| chunk.byte_range()).map(|(start, bytes)| start..start.saturating_add(bytes)).collect())
}

/// Every row, with all columns.
pub(super) fn whole(file: Bytes) -> Result<Whole, FormatError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?;
    let schema = builder.schema().clone();
    let reader = builder.with_batch_size(crate::batch::BATCH_ROWS).build().map_err(broken)?;
    Ok((schema, Box::new(reader.map(|batch| batch.map_err(broken)))))
}

pub(super) fn read(
    file: Bytes,
    asked: &Asked<'_>,
) -> Result<Converted<impl Iterator<Item = Result<RecordBatch, FormatError>> + Send + use<>>, FormatError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?;
    let metadata = builder.metadata().clone();
    if metadata.num_row_groups() as u64 != asked.counted {
        return Err(FormatError::Broken { what: WHAT, message: "it has other row groups than when it was listed".into() });
    }
    let schema = builder.schema().clone();
    let (places, columns) = places(&schema, asked.wanted)?;
    let rows_of = |group: usize| u64::try_from(metadata.row_group(group).num_rows()).unwrap_or_default();
    let groups: Vec<usize> = (asked.groups.start as usize..asked.groups.end as usize).collect();
    let kept: Vec<usize> = match asked.filter {
        Some(filter) => groups.iter().copied().filter(|group| may_hold(filter, &metadata, &schema, *group)).collect(),
        None => groups,
    };
    let numbers = RowNumbers::of_groups(&kept, rows_of);
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
    let reader = builder.with_projection(mask).with_row_groups(kept).with_batch_size(crate::batch::BATCH_ROWS).build().map_err(broken)?;
    Ok(Converted {
        what: WHAT,
        batches: reader.map(|batch| batch.map_err(broken)),
        wanted: asked.wanted.to_vec(),
        places,
        numbers,
        notes: asked.notes.clone(),
        before: 0,
        ready: Default::default(),
        failed: false,
    })
}

/// Whether some row of the group may count, by the statistics that the footer has of it.
fn may_hold(filter: &Filter, metadata: &ParquetMetaData, schema: &Schema, group: usize) -> bool {
    filter.may_hold(|term| bounds(term, metadata, schema, metadata.row_group(group)))
}

fn bounds(term: &Term, metadata: &ParquetMetaData, schema: &Schema, group: &RowGroupMetaData) -> Option<Bounds> {
    let descriptor = metadata.file_metadata().schema_descr();
    let converter = StatisticsConverter::try_new(&term.column, schema, descriptor).ok()?.with_missing_null_counts_as_zero(false);
    let column = group.column(converter.parquet_column_index()?);
    // Of what old writers took for the least and the most text.
    if column.statistics()?.is_min_max_deprecated() {
        return None;
    }
    let nulls = converter.row_group_null_counts([group]).ok()?;
    let (least, most) = (converter.row_group_mins([group]).ok()?, converter.row_group_maxes([group]).ok()?);
    if least.len() != 1 || most.len() != 1 || least.is_null(0) || most.is_null(0) {
        return None;
    }
    match &term.constant {
        Constant::Text(_) => {
            // Texts of numbers do not sort as the numbers do.
            let sorted_as_text = matches!(
                least.data_type(),
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary | DataType::BinaryView
            );
            if !sorted_as_text {
                return None;
            }
            let cell = |array: &ArrayRef| cells::text(array, &term.column).ok().map(|array| array.value(0).to_vec());
            // Null is the empty text, and less than any other.
            let without_null = nulls.is_valid(0) && nulls.value(0) == 0;
            let least = if without_null { cell(&least)? } else { Vec::new() };
            Some(Bounds::Text { least, most: cell(&most)? })
        }
        Constant::Number(_) => Some(Bounds::Number { least: number(&least)?, most: number(&most)? }),
    }
}

fn number(array: &ArrayRef) -> Option<Number> {
    match array.data_type() {
        DataType::Float64 => Some(array.as_primitive::<Float64Type>().value(0)).filter(|value| value.is_finite()).map(Number::Float),
        DataType::Float32 => Some(f64::from(array.as_primitive::<arrow_array::types::Float32Type>().value(0)))
            .filter(|value| value.is_finite())
            .map(Number::Float),
        _ => cells::one_number(array),
    }
}
