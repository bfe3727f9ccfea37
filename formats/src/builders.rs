//! Cells to arrays.

use crate::batch::{BATCH_ROWS, Column};
use crate::number::{MAX_SCALE, Number, POWERS};
use arrow_array::{BinaryViewArray, Decimal64Array, Decimal128Array, Float64Array};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, ScalarBuffer};
use arrow_schema::{DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DataType};
use bytes::Bytes;

/// Longest text that a view holds itself.
const INLINE: usize = 12;
/// Bytes that the views of one batch reach, so that their offsets fit 32 bits with room.
pub(crate) const REACH_BYTES: usize = 1 << 30;

const MASKS: [u128; INLINE + 1] = {
    let mut masks = [0; INLINE + 1];
    let mut length = 0;
    while length <= INLINE {
        masks[length] = (1 << (8 * length)) - 1;
        length += 1;
    }
    masks
};

/// A column of text. Long cells stay where they are: in the file, or, if they had to be written anew, in `own`.
#[derive(Default)]
pub(crate) struct TextBuilder {
    views: Vec<u128>,
    own: Vec<u8>,
}

const FILE: u128 = 0;
const OWN: u128 = 1;

impl TextBuilder {
    /// The cell `file[start..end]`. Offsets count from `base`, where the batch begins; `end` is within [`REACH_BYTES`] of it.
    #[inline(always)]
    pub(crate) fn push(&mut self, file: &[u8], base: usize, start: usize, end: usize) {
        let length = end - start;
        let view = if length <= INLINE {
            let bytes = match file.get(start..).and_then(|rest| rest.first_chunk::<16>()) {
                Some(chunk) => u128::from_le_bytes(*chunk) & MASKS[length],
                None => padded(&file[start..end]),
            };
            bytes << 32 | length as u128
        } else {
            long(&file[start..end], FILE, start - base)
        };
        self.views.push(view);
    }

    /// A cell that is nowhere in the file as it should be, such as one with doubled quotes.
    pub(crate) fn push_own(&mut self, cell: &[u8]) {
        if cell.len() <= INLINE {
            self.views.push(padded(cell) << 32 | cell.len() as u128);
            return;
        }
        self.views.push(long(cell, OWN, self.own.len()));
        self.own.extend_from_slice(cell);
    }

    pub(crate) fn own_bytes(&self) -> usize {
        self.own.len()
    }

    fn finish(&mut self, file: &Bytes, reach: std::ops::Range<usize>) -> Column {
        let views = ScalarBuffer::from(std::mem::replace(&mut self.views, Vec::with_capacity(BATCH_ROWS)));
        let mut buffers = vec![Buffer::from(file.slice(reach))];
        if !self.own.is_empty() {
            buffers.push(Buffer::from_vec(std::mem::take(&mut self.own)));
        }
        // SAFETY: every view was made above, of a range inside the buffer that it names: cells of the file lie between `base` and the end of
        // the reach, those of `own` were appended to it; short ones are padded with zeros, and long ones begin with their first four bytes.
        Column::Text(unsafe { BinaryViewArray::new_unchecked(views, buffers.into(), None) })
    }
}

fn padded(cell: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes[..cell.len()].copy_from_slice(cell);
    u128::from_le_bytes(bytes)
}

fn long(cell: &[u8], buffer: u128, offset: usize) -> u128 {
    let prefix = u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]]);
    (cell.len() as u128) | u128::from(prefix) << 32 | buffer << 64 | (offset as u128) << 96
}

/// The number goes into the next batch: what this one holds of its column is of the other kind.
#[derive(Debug)]
pub(crate) struct OtherKind;

enum Values {
    Decimal { scale: u8, values: Vec<i64> },
    Wide(Vec<i128>),
    Float(Vec<f64>),
}

/// A column of numbers. Type and scale stay from one batch to the next, since cells of a column are mostly alike.
pub(crate) struct NumberBuilder {
    values: Values,
    /// One bit a row, from the first empty cell of the batch on.
    valid: Option<BooleanBufferBuilder>,
    /// Whether a cell of the batch holds a number.
    filled: bool,
}

impl Default for NumberBuilder {
    fn default() -> NumberBuilder {
        NumberBuilder { values: Values::Decimal { scale: 0, values: Vec::with_capacity(BATCH_ROWS) }, valid: None, filled: false }
    }
}

impl NumberBuilder {
    #[inline(always)]
    pub(crate) fn push_decimal(&mut self, mantissa: i64, scale: u8) -> Result<(), OtherKind> {
        if let Values::Decimal { scale: own, values } = &mut self.values
            && *own == scale
        {
            values.push(mantissa);
            self.filled = true;
            if let Some(valid) = &mut self.valid {
                valid.append(true);
            }
            return Ok(());
        }
        self.push(Number::Decimal { mantissa, scale })
    }

    #[inline(never)]
    pub(crate) fn push(&mut self, number: Number) -> Result<(), OtherKind> {
        match number {
            Number::Decimal { mantissa, scale } => self.decimal(mantissa, scale)?,
            Number::Float(value) => self.float(value)?,
        }
        self.filled = true;
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
        Ok(())
    }

    fn decimal(&mut self, mantissa: i64, scale: u8) -> Result<(), OtherKind> {
        if let Values::Float(values) = &self.values {
            if self.filled {
                return Err(OtherKind);
            }
            self.values = Values::Decimal { scale, values: vec![0; values.len()] };
        }
        if let Values::Decimal { scale: own, values } = &mut self.values {
            if scale > *own && raise(values, scale - *own) {
                *own = scale;
            }
            if scale <= *own
                && let Some(value) = scaled(mantissa, *own - scale)
            {
                values.push(value);
                return Ok(());
            }
            self.widen();
        }
        if let Values::Wide(values) = &mut self.values {
            // Below 10^18 times 10^18.
            values.push(i128::from(mantissa) * i128::from(POWERS[usize::from(MAX_SCALE - scale)]));
        }
        Ok(())
    }

    fn widen(&mut self) {
        if let Values::Decimal { scale, values } = &self.values {
            let power = i128::from(POWERS[usize::from(MAX_SCALE - scale)]);
            self.values = Values::Wide(values.iter().map(|value| i128::from(*value) * power).collect());
        }
    }

    fn float(&mut self, value: f64) -> Result<(), OtherKind> {
        if !matches!(self.values, Values::Float(_)) {
            if self.filled {
                return Err(OtherKind);
            }
            self.values = Values::Float(vec![0.0; self.rows()]);
        }
        if let Values::Float(values) = &mut self.values {
            values.push(value);
        }
        Ok(())
    }

    pub(crate) fn push_empty(&mut self) {
        let rows = self.rows();
        let valid = self.valid.get_or_insert_with(|| {
            let mut valid = BooleanBufferBuilder::new(BATCH_ROWS);
            valid.append_n(rows, true);
            valid
        });
        valid.append(false);
        match &mut self.values {
            Values::Decimal { values, .. } => values.push(0),
            Values::Wide(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
        }
    }

    fn rows(&self) -> usize {
        match &self.values {
            Values::Decimal { values, .. } => values.len(),
            Values::Wide(values) => values.len(),
            Values::Float(values) => values.len(),
        }
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.filled &= rows > 0;
        match &mut self.values {
            Values::Decimal { values, .. } => values.truncate(rows),
            Values::Wide(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
        }
        if let Some(valid) = &mut self.valid {
            valid.truncate(rows);
        }
    }

    pub(crate) fn finish(&mut self) -> Column {
        self.filled = false;
        let nulls = self.valid.take().map(|mut valid| NullBuffer::new(valid.finish())).filter(|nulls| nulls.null_count() > 0);
        match &mut self.values {
            Values::Decimal { scale, values } => {
                let values = std::mem::replace(values, Vec::with_capacity(BATCH_ROWS));
                let kind = DataType::Decimal64(DECIMAL64_MAX_PRECISION, *scale as i8);
                Column::Decimal(Decimal64Array::new(values.into(), nulls).with_data_type(kind))
            }
            Values::Wide(values) => {
                let values = std::mem::replace(values, Vec::with_capacity(BATCH_ROWS));
                let kind = DataType::Decimal128(DECIMAL128_MAX_PRECISION, MAX_SCALE as i8);
                Column::Wide(Decimal128Array::new(values.into(), nulls).with_data_type(kind))
            }
            Values::Float(values) => {
                Column::Float(Float64Array::new(std::mem::replace(values, Vec::with_capacity(BATCH_ROWS)).into(), nulls))
            }
        }
    }
}

/// Gives all values more digits behind the point; false, and nothing changed, if one does not fit any more.
fn raise(values: &mut [i64], digits: u8) -> bool {
    let fits = values.iter().all(|value| scaled(*value, digits).is_some());
    if fits {
        values.iter_mut().for_each(|value| *value *= POWERS[usize::from(digits)]);
    }
    fits
}

/// With so many more digits behind the point, if it then still has no more than the type of the array allows.
fn scaled(value: i64, digits: u8) -> Option<i64> {
    value.checked_mul(POWERS[usize::from(digits)]).filter(|value| value.unsigned_abs() < POWERS[18].unsigned_abs())
}

/// A wanted column under way.
pub(crate) enum Builder {
    Text(TextBuilder),
    Number(NumberBuilder),
}

impl Builder {
    pub(crate) fn truncate(&mut self, rows: usize) {
        match self {
            Builder::Text(text) => {
                text.views.truncate(rows);
                if rows == 0 {
                    text.own.clear();
                }
            }
            Builder::Number(number) => number.truncate(rows),
        }
    }

    /// The rows so far, and an empty builder in their place. `reach` is the part of the file in which the cells lie.
    pub(crate) fn finish(&mut self, file: &Bytes, reach: std::ops::Range<usize>) -> Column {
        match self {
            Builder::Text(text) => text.finish(file, reach),
            Builder::Number(number) => number.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array;

    #[test]
    fn decimals_get_the_finest_scale_and_go_to_128_bits_where_64_are_too_few() {
        let mut builder = NumberBuilder::default();
        builder.push_decimal(5, 0).unwrap();
        builder.push_empty();
        builder.push_decimal(125, 2).unwrap();
        let Column::Decimal(array) = builder.finish() else { panic!("64 bits suffice") };
        assert_eq!((array.values().to_vec(), array.scale(), array.null_count()), (vec![500, 0, 125], 2, 1));
        builder.push_decimal(999_999_999_999_999_999, 0).unwrap();
        builder.push_decimal(1, 18).unwrap();
        let Column::Wide(array) = builder.finish() else { panic!("64 bits do not suffice") };
        assert_eq!((array.value(0), array.value(1), array.scale()), (999_999_999_999_999_999_000_000_000_000_000_000, 1, 18));
    }

    #[test]
    fn a_batch_holds_decimals_or_floats_of_a_column() {
        let mut builder = NumberBuilder::default();
        builder.push_empty();
        builder.push(Number::Float(1e30)).unwrap();
        assert!(builder.push_decimal(1, 0).is_err());
        let Column::Float(array) = builder.finish() else { panic!("a float was first") };
        assert_eq!((array.len(), array.is_null(0), array.value(1)), (2, true, 1e30));
        builder.push_decimal(1, 0).unwrap();
        assert!(builder.push(Number::Float(1e30)).is_err());
    }

    #[test]
    fn long_and_short_cells_are_what_they_were() {
        let file = Bytes::from_static(b"..thirteen byte,short,exactly twelve");
        let mut builder = TextBuilder::default();
        builder.push(&file, 2, 2, 15);
        builder.push(&file, 2, 16, 21);
        builder.push(&file, 2, 22, 34);
        builder.push(&file, 2, 34, 34);
        builder.push_own(b"written anew and long");
        builder.push_own(b"new");
        let Column::Text(array) = builder.finish(&file, 2..file.len()) else { panic!("text") };
        array.to_data().validate_full().unwrap();
        let cells: Vec<&[u8]> = array.iter().flatten().collect();
        assert_eq!(cells, [&b"thirteen byte"[..], b"short", b"exactly twel", b"", b"written anew and long", b"new"]);
    }
}
