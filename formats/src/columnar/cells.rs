//! Arrow arrays of any type to the few that kernels read. What a cell is worth is what the same cell would be worth in a CSV file:
//!
//! | type | as text | as a number |
//! |---|---|---|
//! | integers | its digits | exact up to 18 digits, else the nearest f64 |
//! | decimals | its digits, as many behind the point as the type says | the same |
//! | floats | the shortest text that gives it again | itself; not a number and infinity are errors |
//! | text, bytes | itself | read like a cell of a CSV file |
//! | booleans, dates, times | `true`, `2024-01-31`, `2024-01-31T12:00:00.5` (UTC), `12:00:00.5` | an error |
//!
//! Null is an empty cell. Lists, structs, maps and what else there is are read by nobody.

use super::rows::RowNumbers;
use crate::batch::{BATCH_ROWS, Batch, Column};
use crate::builders::NumberBuilder;
use crate::columns::{Kind, Wanted};
use crate::error::FormatError;
use crate::notes::Notes;
use crate::number::{self, MAX_SCALE, Number, POWERS};
use arrow_array::builder::BinaryViewBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, BinaryViewArray, Decimal64Array, Float64Array, PrimitiveArray, RecordBatch, StringViewArray};
use arrow_schema::{DECIMAL64_MAX_PRECISION, DataType, TimeUnit};
use std::collections::{BTreeMap, VecDeque};

/// Whether cells of the type have a text.
pub(super) fn is_text(found: &DataType) -> bool {
    use DataType::*;
    match found {
        Null | Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64 => true,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => true,
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Date32 | Date64 | Timestamp(..) | Time32(_) | Time64(_) => true,
        Dictionary(_, values) => !matches!(**values, Dictionary(..)) && is_text(values),
        _ => false,
    }
}

/// Which rows of the file these are, and who is told of those that cannot be read.
pub(super) struct Told<'a> {
    pub(super) numbers: &'a RowNumbers,
    /// Rows that were read before the first of these.
    pub(super) before: u64,
    pub(super) notes: Option<&'a Notes>,
}

/// Rows of a batch that cannot be read, with the first reason for each.
type BadRows = BTreeMap<usize, FormatError>;

/// A batch of a reader, cut into batches of ours.
pub(super) fn convert(
    batch: &RecordBatch,
    wanted: &[Wanted],
    places: &[usize],
    told: &Told<'_>,
    out: &mut VecDeque<Batch>,
) -> Result<(), FormatError> {
    let rows = batch.num_rows();
    for from in (0..rows).step_by(BATCH_ROWS) {
        let length = BATCH_ROWS.min(rows - from);
        let cells: Vec<ArrayRef> = places.iter().map(|place| batch.column(*place).slice(from, length)).collect();
        let mut bad = BadRows::new();
        let columns: Vec<Cells> =
            wanted.iter().zip(&cells).map(|(wanted, cells)| Cells::of(cells, wanted, &mut bad)).collect::<Result<_, _>>()?;
        if bad.is_empty() {
            cut(columns, length, out);
            continue;
        }
        let good: Vec<u32> = (0..length).filter(|row| !bad.contains_key(row)).map(|row| row as u32).collect();
        for (row, error) in bad {
            leave_out(told, from, row, error, || shown(wanted, &cells, row))?;
        }
        cut(columns.iter().map(|column| column.take(&good)).collect(), good.len(), out);
    }
    Ok(())
}

fn leave_out(told: &Told<'_>, from: usize, row: usize, error: FormatError, shown: impl FnOnce() -> String) -> Result<(), FormatError> {
    let (before, counted_from) = told.numbers.before(told.before + (from + row) as u64);
    let error = error.in_row(before + 1);
    let Some(notes) = told.notes else { return Err(error) };
    let counted_from =
        counted_from.map_or_else(String::new, |batch| format!("; rows are counted from record batch {batch}, the first one is 0"));
    notes.leave_out_row(before, &shown(), &counted_from, error)
}

/// The cells of a row that the job reads. A column that is wanted twice is shown once.
fn shown(wanted: &[Wanted], cells: &[ArrayRef], row: usize) -> String {
    let mut shown: Vec<String> = Vec::new();
    for (wanted, cells) in wanted.iter().zip(cells) {
        let cell = text(&cells.slice(row, 1), &wanted.name).map(|cell| String::from_utf8_lossy(cell.value(0)).into_owned());
        let cell = format!("{}={}", wanted.name, cell.unwrap_or_default());
        if !shown.contains(&cell) {
            shown.push(cell);
        }
    }
    shown.join(", ")
}

enum Cells {
    Ready(Column),
    /// They may be decimals and floats, which do not go into one batch.
    Mixed(Vec<Option<Number>>),
}

/// Batches in which each column is of one kind.
fn cut(columns: Vec<Cells>, rows: usize, out: &mut VecDeque<Batch>) {
    let mut builders: Vec<NumberBuilder> =
        columns.iter().filter(|cells| matches!(cells, Cells::Mixed(_))).map(|_| NumberBuilder::default()).collect();
    let mut at = 0;
    while at < rows {
        let mut taken = 0;
        if builders.is_empty() {
            taken = rows;
        }
        'rows: while at + taken < rows {
            let mixed = columns.iter().filter_map(|cells| if let Cells::Mixed(numbers) = cells { Some(numbers) } else { None });
            for (builder, numbers) in builders.iter_mut().zip(mixed) {
                match numbers[at + taken] {
                    None => builder.push_empty(),
                    // The first row of a batch always goes.
                    Some(number) => {
                        if builder.push(number).is_err() {
                            break 'rows;
                        }
                    }
                }
            }
            taken += 1;
        }
        let mut built = builders.iter_mut().map(|builder| {
            builder.truncate(taken);
            let column = builder.finish();
            builder.truncate(0);
            column
        });
        let of = |cells: &Cells| match cells {
            Cells::Ready(column) => Some(column.slice(at, taken)),
            Cells::Mixed(_) => built.next(),
        };
        out.push_back(Batch { rows: taken, columns: columns.iter().filter_map(of).collect() });
        at += taken;
    }
}

impl Column {
    fn slice(&self, from: usize, rows: usize) -> Column {
        if from == 0 && rows == self.to_array().len() {
            return self.clone();
        }
        match self {
            Column::Text(array) => Column::Text(array.slice(from, rows)),
            Column::Decimal(array) => Column::Decimal(array.slice(from, rows)),
            Column::Wide(array) => Column::Wide(array.slice(from, rows)),
            Column::Float(array) => Column::Float(array.slice(from, rows)),
        }
    }
}

impl Cells {
    fn of(array: &ArrayRef, wanted: &Wanted, bad: &mut BadRows) -> Result<Cells, FormatError> {
        match wanted.kind {
            Kind::Text => text(array, &wanted.name).map(|array| Cells::Ready(Column::Text(array))),
            Kind::Number => numbers(array, &wanted.name, bad),
        }
    }

    fn take(&self, rows: &[u32]) -> Cells {
        match self {
            Cells::Ready(column) => Cells::Ready(column.take(rows)),
            Cells::Mixed(numbers) => Cells::Mixed(rows.iter().map(|row| numbers[*row as usize]).collect()),
        }
    }
}

fn wrong_type(array: &dyn Array, column: &str, wanted: &'static str) -> FormatError {
    FormatError::Type { column: column.to_owned(), found: array.data_type().to_string(), wanted }
}

/// Never null.
pub(super) fn text(array: &ArrayRef, column: &str) -> Result<BinaryViewArray, FormatError> {
    let whole = array.null_count() == 0;
    match array.data_type() {
        // The bytes stay where they are.
        DataType::Utf8 if whole => Ok(StringViewArray::from(array.as_string::<i32>()).to_binary_view()),
        DataType::LargeUtf8 if whole => Ok(StringViewArray::from(array.as_string::<i64>()).to_binary_view()),
        DataType::Binary if whole => Ok(BinaryViewArray::from(array.as_binary::<i32>())),
        DataType::LargeBinary if whole => Ok(BinaryViewArray::from(array.as_binary::<i64>())),
        DataType::Utf8View if whole => Ok(array.as_string_view().clone().to_binary_view()),
        DataType::BinaryView if whole => Ok(array.as_binary_view().clone()),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            if dictionary.values().is_empty() {
                return Ok(each(array.len(), |_, _| {}));
            }
            let values = text(dictionary.values(), column)?;
            let keys = dictionary.normalized_keys();
            let view = |row: usize| if array.is_null(row) { 0 } else { values.views()[keys[row]] };
            let views: Vec<u128> = (0..array.len()).map(view).collect();
            // SAFETY: each view is one of the values' own, beside the same buffers, or that of the empty text.
            Ok(unsafe { BinaryViewArray::new_unchecked(views.into(), values.data_buffers().to_vec().into(), None) })
        }
        DataType::Utf8 => Ok(bytes(array, array.as_string::<i32>().iter().map(|cell| cell.map(str::as_bytes)))),
        DataType::LargeUtf8 => Ok(bytes(array, array.as_string::<i64>().iter().map(|cell| cell.map(str::as_bytes)))),
        DataType::Utf8View => Ok(bytes(array, array.as_string_view().iter().map(|cell| cell.map(str::as_bytes)))),
        DataType::Binary => Ok(bytes(array, array.as_binary::<i32>().iter())),
        DataType::LargeBinary => Ok(bytes(array, array.as_binary::<i64>().iter())),
        DataType::BinaryView => Ok(bytes(array, array.as_binary_view().iter())),
        DataType::FixedSizeBinary(_) => Ok(bytes(array, array.as_fixed_size_binary().iter())),
        DataType::Null => Ok(each(array.len(), |_, _| {})),
        DataType::Boolean => {
            let values = array.as_boolean();
            Ok(valid(array, |row, out| *out += if values.value(row) { "true" } else { "false" }))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            Ok(valid(array, |row, out| *out += &shortest(values.value(row))))
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            Ok(valid(array, |row, out| *out += &values.value(row).to_string()))
        }
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => {
            let instants = instants(array).ok_or_else(|| wrong_type(array, column, "text or numbers"))?;
            Ok(valid(array, |row, out| instants.push(row, out)))
        }
        _ => match integers(array) {
            Some(Integers { values, scale }) => Ok(valid(array, |row, out| push_decimal(values[row], scale, out))),
            None => Err(wrong_type(array, column, "text or numbers")),
        },
    }
}

fn bytes<'a>(array: &ArrayRef, cells: impl Iterator<Item = Option<&'a [u8]>>) -> BinaryViewArray {
    let mut builder = BinaryViewBuilder::with_capacity(array.len());
    cells.for_each(|cell| builder.append_value(cell.unwrap_or_default()));
    builder.finish()
}

/// Texts that `push` writes; an empty one for null.
fn valid(array: &ArrayRef, push: impl Fn(usize, &mut String)) -> BinaryViewArray {
    each(array.len(), |row, out| {
        if array.is_valid(row) {
            push(row, out);
        }
    })
}

fn each(rows: usize, push: impl Fn(usize, &mut String)) -> BinaryViewArray {
    let mut builder = BinaryViewBuilder::with_capacity(rows);
    let mut out = String::new();
    for row in 0..rows {
        out.clear();
        push(row, &mut out);
        builder.append_value(out.as_bytes());
    }
    builder.finish()
}

fn numbers(array: &ArrayRef, column: &str, bad: &mut BadRows) -> Result<Cells, FormatError> {
    match array.data_type() {
        DataType::Float64 => Ok(floats(array.as_primitive::<Float64Type>().clone(), column, bad)),
        DataType::Float32 => Ok(floats(array.as_primitive::<Float32Type>().unary(f64::from), column, bad)),
        DataType::Null => Ok(Cells::Mixed(vec![None; array.len()])),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            Ok(parsed(&text(array, column)?, column, bad))
        }
        DataType::Dictionary(_, values) if is_text(values) => Ok(parsed(&text(array, column)?, column, bad)),
        _ => match integers(array) {
            Some(integers) => Ok(integers.cells(array)),
            None => Err(wrong_type(array, column, "numbers")),
        },
    }
}

fn parsed(texts: &BinaryViewArray, column: &str, bad: &mut BadRows) -> Cells {
    let one = |(row, cell): (usize, Option<&[u8]>)| {
        let cell = cell.unwrap_or_default();
        if cell.trim_ascii().is_empty() {
            return None;
        }
        let number = number::parse(cell);
        if number.is_none() {
            bad.entry(row).or_insert_with(|| no_number(column, &String::from_utf8_lossy(cell)));
        }
        number
    };
    Cells::Mixed(texts.iter().enumerate().map(one).collect())
}

/// The row is not known here.
fn no_number(column: &str, text: &str) -> FormatError {
    let shown: String = text.chars().take(40).collect();
    let text = if shown.len() < text.len() { format!("{shown}..") } else { shown };
    FormatError::NoNumberInRow { row: 0, column: column.to_owned(), text }
}

fn floats(array: Float64Array, column: &str, bad: &mut BadRows) -> Cells {
    for (row, value) in array.iter().enumerate() {
        if let Some(value) = value.filter(|value| !value.is_finite()) {
            bad.entry(row).or_insert_with(|| no_number(column, &value.to_string()));
        }
    }
    Cells::Ready(Column::Float(array))
}

/// Numbers without a fraction, in units of 10^-scale.
struct Integers {
    values: Vec<i128>,
    scale: i8,
}

fn integers(array: &ArrayRef) -> Option<Integers> {
    fn all<T: ArrowPrimitiveType>(array: &ArrayRef, scale: i8) -> Option<Integers>
    where
        T::Native: Into<i128>,
    {
        let values: &PrimitiveArray<T> = array.as_primitive::<T>();
        Some(Integers { values: values.values().iter().map(|value| (*value).into()).collect(), scale })
    }
    match array.data_type() {
        DataType::Int8 => all::<Int8Type>(array, 0),
        DataType::Int16 => all::<Int16Type>(array, 0),
        DataType::Int32 => all::<Int32Type>(array, 0),
        DataType::Int64 => all::<Int64Type>(array, 0),
        DataType::UInt8 => all::<UInt8Type>(array, 0),
        DataType::UInt16 => all::<UInt16Type>(array, 0),
        DataType::UInt32 => all::<UInt32Type>(array, 0),
        DataType::UInt64 => all::<UInt64Type>(array, 0),
        DataType::Decimal32(_, scale) => all::<Decimal32Type>(array, *scale),
        DataType::Decimal64(_, scale) => all::<Decimal64Type>(array, *scale),
        DataType::Decimal128(_, scale) => all::<Decimal128Type>(array, *scale),
        _ => None,
    }
}

/// Below it a number has at most 18 digits.
const LIMIT: u128 = POWERS[18].unsigned_abs() as u128;

impl Integers {
    fn cells(self, array: &ArrayRef) -> Cells {
        let short = |(row, value): (usize, &i128)| value.unsigned_abs() < LIMIT || array.is_null(row);
        if (0..=MAX_SCALE as i8).contains(&self.scale) && self.values.iter().enumerate().all(short) {
            // What stands below null says nothing.
            let values: Vec<i64> = self.values.iter().map(|value| i64::try_from(*value).unwrap_or_default()).collect();
            let kind = DataType::Decimal64(DECIMAL64_MAX_PRECISION, self.scale);
            return Cells::Ready(Column::Decimal(Decimal64Array::new(values.into(), array.nulls().cloned()).with_data_type(kind)));
        }
        let one = |(row, value): (usize, &i128)| array.is_valid(row).then(|| number_of(*value, self.scale));
        Cells::Mixed(self.values.iter().enumerate().map(one).collect())
    }
}

/// What the one cell of an array of numbers without a fraction is worth.
#[cfg_attr(not(feature = "parquet"), allow(dead_code))]
pub(super) fn one_number(array: &ArrayRef) -> Option<Number> {
    let Integers { values, scale } = integers(array)?;
    values.first().map(|value| number_of(*value, scale))
}

/// What the digits would be worth in a CSV file.
fn number_of(value: i128, scale: i8) -> Number {
    let mut text = String::new();
    push_decimal(value, scale, &mut text);
    // Digits with a point are a number.
    number::parse(text.as_bytes()).unwrap_or(Number::Float(0.0))
}

/// Digits, with as many behind the point as the scale says.
fn push_decimal(value: i128, scale: i8, out: &mut String) {
    if value < 0 {
        out.push('-');
    }
    let digits = value.unsigned_abs().to_string();
    match usize::try_from(scale) {
        Ok(0) => *out += &digits,
        Ok(scale) => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            *out += whole;
            out.push('.');
            *out += fraction;
        }
        Err(_) => {
            *out += &digits;
            if value != 0 {
                out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
            }
        }
    }
}

/// The shortest digits that give the number again, without an exponent where that is short.
fn shortest(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() <= 24 { plain } else { format!("{value:e}") }
}

/// Points in time, in fractions of a second.
struct Instants {
    values: Vec<i64>,
    /// Fractions in a second, and how many digits they are.
    per_second: i64,
    digits: usize,
    days: bool,
    clock: bool,
}

fn instants(array: &ArrayRef) -> Option<Instants> {
    fn all<T: ArrowPrimitiveType>(array: &ArrayRef) -> Vec<i64>
    where
        T::Native: Into<i64>,
    {
        array.as_primitive::<T>().values().iter().map(|value| (*value).into()).collect()
    }
    let of = |unit: &TimeUnit| match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    };
    use DataType::{Date32, Date64, Time32, Time64, Timestamp};
    let (values, (per_second, digits), days, clock) = match array.data_type() {
        Date32 => (all::<Date32Type>(array).into_iter().map(|day| day * 86_400).collect(), (1, 0), true, false),
        Date64 => (all::<Date64Type>(array), (1_000, 3), true, false),
        Timestamp(unit, _) => {
            let values = match unit {
                TimeUnit::Second => all::<TimestampSecondType>(array),
                TimeUnit::Millisecond => all::<TimestampMillisecondType>(array),
                TimeUnit::Microsecond => all::<TimestampMicrosecondType>(array),
                TimeUnit::Nanosecond => all::<TimestampNanosecondType>(array),
            };
            (values, of(unit), true, true)
        }
        Time32(unit @ TimeUnit::Second) => (all::<Time32SecondType>(array), of(unit), false, true),
        Time32(unit @ TimeUnit::Millisecond) => (all::<Time32MillisecondType>(array), of(unit), false, true),
        Time64(unit @ TimeUnit::Microsecond) => (all::<Time64MicrosecondType>(array), of(unit), false, true),
        Time64(unit @ TimeUnit::Nanosecond) => (all::<Time64NanosecondType>(array), of(unit), false, true),
        _ => return None,
    };
    Some(Instants { values, per_second, digits, days, clock })
}

impl Instants {
    fn push(&self, row: usize, out: &mut String) {
        let (seconds, fraction) = (self.values[row].div_euclid(self.per_second), self.values[row].rem_euclid(self.per_second));
        let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        if self.days {
            let (year, month, day) = date(day);
            *out += &format!("{year:04}-{month:02}-{day:02}");
        }
        if self.days && self.clock {
            out.push('T');
        }
        if self.clock {
            *out += &format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
            if fraction > 0 {
                let digits = format!("{fraction:0width$}", width = self.digits);
                *out += &format!(".{}", digits.trim_end_matches('0'));
            }
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. (Hinnant, chrono-compatible low-level date algorithms)
fn date(day: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the day that some years have more is the last one.
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (year + era * 400 + i64::from(month <= 2), month, day)
}
