//! Tables: the bytes of a split in, columnar batches of the wanted columns out.
//!
//! ```text
//! table.rs    what is to be read: a file in memory, its format, the range of a split     error.rs     what is wrong with a file, and where
//! batch.rs    what comes out: a few thousand rows as Arrow arrays                       columns.rs   names of columns, and the nearest one
//! number.rs   digits to an exact number                                                 builders.rs  cells to arrays
//! csv/        comma-separated values                                               jsonl/      JSON lines
//! rows.rs     cells of a row to builders, whatever the format               batches.rs   rows to batches, likewise
//! columnar/   files that hold columns: Parquet, Arrow IPC                      filter/      which rows count, whatever the format
//! compression.rs  compressed files of lines                                    notes.rs    records counted, and bad ones left out
//! ```
//! **What a cell is worth follows from the cell alone**, never from its neighbours, the batch or the split: a number of at most 18 digits is an
//! exact decimal, any other is the nearest `f64`. That is why batches of one column may have different types ([`Column`]): the reader ends a batch
//! where a column goes from one kind to the other, and widens decimals where 64 bits do not hold them.
//!
//! This crate knows nothing of jobs, tasks or kernels. It reads memory and opened files: no path, no socket.

mod batch;
mod batches;
mod builders;
mod columnar;
mod columns;
mod compression;
mod csv;
mod error;
mod filter;
mod jsonl;
mod notes;
mod number;
mod rows;
mod table;

pub use arrow_array::{Array, BinaryViewArray as TextArray};
pub use batch::{BATCH_ROWS, Batch, Column};
#[cfg(feature = "arrow-ipc")]
pub use columnar::whole::{RecordBatches, record_batches};
pub use columnar::write::{Cell, TableWriter};
pub use columnar::{Columnar, Footer};
pub use columns::{Kind, Wanted};
pub use compression::{Compression, Unpacked};
pub use error::{FormatError, line_of};
pub use filter::Filter;
pub use notes::{BAD_BYTES_SHOWN, BAD_DESCRIBED, BadRecord, Noted, Notes};
pub use number::{MAX_SCALE, Number};
pub use table::{Batches, CsvOptions, Format, HEAD_BYTES, Table};
