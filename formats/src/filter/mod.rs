//! Which rows count: comparisons of columns with constants, all of which must hold.
//!
//! ```text
//! filter     = comparison { "and" comparison }
//! comparison = column ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) constant        <> is !=, and == is =
//! column     = letters without blanks, quotes and signs | "any letters", a double quote in it written twice
//! constant   = a number | 'any letters', a single quote in it written twice
//! ```
//! **What a comparison says follows from the cell alone, in every format.** Beside a number cells are compared as numbers: exactly, as the reader gives
//! them, and a cell that is none is an error, as where a kernel asks for numbers; an empty cell holds no number, so no comparison with it holds.
//! Beside a text cells are compared byte by byte; an empty cell is the empty text.

mod parse;
#[cfg(test)]
mod tests;

use crate::batch::{Batch, Column};
use crate::columns::Wanted;
use crate::number::{MAX_SCALE, Number, POWERS};
use arrow_array::{Array, BinaryViewArray};
use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Term {
    pub(crate) column: String,
    op: Op,
    pub(crate) constant: Constant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Constant {
    Text(Vec<u8>),
    Number(Constancy),
}

/// A constant number, as it is compared with exact numbers and with others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Constancy {
    /// In units of 10^-18.
    exact: Option<i128>,
    nearest: f64,
}

/// What is known of the cells of a column in some stretch of a file without reading it. The bounds need not be reached.
#[cfg_attr(not(feature = "parquet"), allow(dead_code))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bounds {
    Text { least: Vec<u8>, most: Vec<u8> },
    Number { least: Number, most: Number },
}

impl Filter {
    /// An error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Filter, String> {
        parse::terms(text).map(|terms| Filter { terms })
    }

    /// The columns that it compares, each once for each kind.
    pub fn columns(&self) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for term in &self.terms {
            let one = term.wanted();
            if !wanted.contains(&one) {
                wanted.push(one);
            }
        }
        wanted
    }

    /// Places of its terms' columns among those that are read: `wanted`, with what it lacks put behind.
    pub(crate) fn place(&self, wanted: &mut Vec<Wanted>) -> Vec<usize> {
        let mut place = |term: &Term| {
            let one = term.wanted();
            wanted.iter().position(|known| *known == one).unwrap_or_else(|| {
                wanted.push(one);
                wanted.len() - 1
            })
        };
        self.terms.iter().map(&mut place).collect()
    }

    /// The rows for which all terms hold; `places` is what [`Filter::place`] said.
    pub(crate) fn rows(&self, batch: &Batch, places: &[usize]) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..batch.rows as u32).collect();
        for (term, place) in self.terms.iter().zip(places) {
            term.keep(&batch.columns[*place], &mut rows);
        }
        rows
    }

    /// Whether some row of a stretch may count, by what is known of its columns.
    #[cfg_attr(not(feature = "parquet"), allow(dead_code))]
    pub(crate) fn may_hold(&self, bounds: impl Fn(&Term) -> Option<Bounds>) -> bool {
        self.terms.iter().all(|term| bounds(term).is_none_or(|bounds| term.may_hold(&bounds)))
    }
}

impl Term {
    fn wanted(&self) -> Wanted {
        match self.constant {
            Constant::Text(_) => Wanted::text(&self.column),
            Constant::Number(_) => Wanted::number(&self.column),
        }
    }

    fn keep(&self, column: &Column, rows: &mut Vec<u32>) {
        let op = self.op;
        match (column, &self.constant) {
            (Column::Text(array), Constant::Text(text)) => rows.retain(|row| op.holds(array.value(*row as usize).cmp(text))),
            (Column::Decimal(array), Constant::Number(constant)) => {
                let scale = array.scale() as u8;
                let of = |row: usize| constant.beside_decimal(i128::from(array.value(row)), scale);
                rows.retain(|row| array.is_valid(*row as usize) && op.holds(of(*row as usize)));
            }
            (Column::Wide(array), Constant::Number(constant)) => {
                let of = |row: usize| constant.beside_decimal(array.value(row), MAX_SCALE);
                rows.retain(|row| array.is_valid(*row as usize) && op.holds(of(*row as usize)));
            }
            (Column::Float(array), Constant::Number(constant)) => {
                let of = |row: usize| array.value(row).partial_cmp(&constant.nearest);
                rows.retain(|row| array.is_valid(*row as usize) && of(*row as usize).is_some_and(|order| op.holds(order)));
            }
            // A reader gives what it was asked for.
            (Column::Text(_), Constant::Number(_)) | (_, Constant::Text(_)) => rows.clear(),
        }
    }

    fn may_hold(&self, bounds: &Bounds) -> bool {
        let (least, most) = match (bounds, &self.constant) {
            (Bounds::Text { least, most }, Constant::Text(text)) => (least.cmp(text), most.cmp(text)),
            (Bounds::Number { least, most }, Constant::Number(constant)) => (constant.beside(*least), constant.beside(*most)),
            _ => return true,
        };
        match self.op {
            Op::Equal => least != Ordering::Greater && most != Ordering::Less,
            // Bounds need not be reached.
            Op::Unequal => true,
            Op::Less => least == Ordering::Less,
            Op::AtMost => least != Ordering::Greater,
            Op::Greater => most == Ordering::Greater,
            Op::AtLeast => most != Ordering::Less,
        }
    }
}

impl Op {
    fn holds(self, cell: Ordering) -> bool {
        match self {
            Op::Equal => cell == Ordering::Equal,
            Op::Unequal => cell != Ordering::Equal,
            Op::Less => cell == Ordering::Less,
            Op::AtMost => cell != Ordering::Greater,
            Op::Greater => cell == Ordering::Greater,
            Op::AtLeast => cell != Ordering::Less,
        }
    }
}

impl Constancy {
    fn new(number: Number, nearest: f64) -> Constancy {
        let exact = match number {
            Number::Decimal { mantissa, scale } => Some(in_units(i128::from(mantissa), scale)),
            Number::Float(_) => None,
        };
        Constancy { exact, nearest }
    }

    /// How a decimal compares with it.
    fn beside_decimal(&self, mantissa: i128, scale: u8) -> Ordering {
        match self.exact {
            Some(exact) => in_units(mantissa, scale).cmp(&exact),
            // It has more digits than a decimal, or is larger or smaller than any.
            None => (mantissa as f64 / POWERS[usize::from(scale.min(MAX_SCALE))] as f64).total_cmp(&self.nearest),
        }
    }

    fn beside(&self, number: Number) -> Ordering {
        match number {
            Number::Decimal { mantissa, scale } => self.beside_decimal(i128::from(mantissa), scale),
            Number::Float(value) => value.partial_cmp(&self.nearest).unwrap_or(Ordering::Equal),
        }
    }
}

/// In units of 10^-18: less than 10^36, for what a reader gives as a decimal.
fn in_units(mantissa: i128, scale: u8) -> i128 {
    mantissa.saturating_mul(i128::from(POWERS[usize::from(MAX_SCALE.saturating_sub(scale))]))
}

impl Batch {
    /// The rows at these places, of the first `columns` columns.
    pub(crate) fn take(mut self, rows: &[u32], columns: usize) -> Batch {
        self.columns.truncate(columns);
        if rows.len() < self.rows {
            self.columns = self.columns.iter().map(|column| column.take(rows)).collect();
            self.rows = rows.len();
        }
        self
    }
}

impl Column {
    pub(crate) fn take(&self, rows: &[u32]) -> Column {
        match self {
            Column::Text(array) => {
                let views: Vec<u128> = rows.iter().map(|row| array.views()[*row as usize]).collect();
                // SAFETY: each view is one of the array's own, beside the same buffers.
                Column::Text(unsafe { BinaryViewArray::new_unchecked(views.into(), array.data_buffers().to_vec().into(), None) })
            }
            Column::Decimal(array) => {
                let taken = rows.iter().map(|row| array.is_valid(*row as usize).then(|| array.value(*row as usize)));
                Column::Decimal(taken.collect::<arrow_array::Decimal64Array>().with_data_type(array.data_type().clone()))
            }
            Column::Wide(array) => {
                let taken = rows.iter().map(|row| array.is_valid(*row as usize).then(|| array.value(*row as usize)));
                Column::Wide(taken.collect::<arrow_array::Decimal128Array>().with_data_type(array.data_type().clone()))
            }
            Column::Float(array) => {
                Column::Float(rows.iter().map(|row| array.is_valid(*row as usize).then(|| array.value(*row as usize))).collect())
            }
        }
    }
}
