//! What comes out of a reader: some thousand rows, column by column.

use arrow_array::{ArrayRef, BinaryViewArray, Decimal64Array, Decimal128Array, Float64Array};
use std::sync::Arc;

/// Rows of a batch, at most: few enough that its arrays stay in the second-level cache between the reader and the kernel.
pub const BATCH_ROWS: usize = 4096;

/// The wanted columns of some rows, in the order in which they were asked for.
#[derive(Clone, Debug)]
pub struct Batch {
    pub rows: usize,
    pub columns: Vec<Column>,
}

/// One column of a batch. All of them are Arrow arrays, see [`Column::to_array`].
#[derive(Clone, Debug)]
pub enum Column {
    /// Never null: a missing cell is an empty one. Views point into the split itself.
    Text(BinaryViewArray),
    /// Exact numbers of one scale, which the type of the array says. Null: an empty cell.
    Decimal(Decimal64Array),
    /// The same with [`MAX_SCALE`](crate::MAX_SCALE) digits behind the point, for what 64 bits do not hold.
    Wide(Decimal128Array),
    /// Numbers that have no exact form here.
    Float(Float64Array),
}

impl Column {
    pub fn to_array(&self) -> ArrayRef {
        match self {
            Column::Text(array) => Arc::new(array.clone()),
            Column::Decimal(array) => Arc::new(array.clone()),
            Column::Wide(array) => Arc::new(array.clone()),
            Column::Float(array) => Arc::new(array.clone()),
        }
    }
}
