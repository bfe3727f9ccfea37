//! Files that hold columns: Parquet (row groups) and Arrow IPC (record batches). What says where they are stands at the end of the file, so that nobody has to
//! read it to cut it, and a split is some whole groups.
//!
//! Their readers are other people's. They check much of what they read, and not all: where the data contradicts itself some of them panic. Such a
//! panic is an error of the file like any other (`read::guard`), never swallowed.

#[cfg(feature = "arrow-ipc")]
mod cells;
#[cfg(feature = "arrow-ipc")]
mod ipc;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "arrow-ipc")]
mod places;
#[cfg_attr(not(feature = "arrow-ipc"), path = "absent.rs")]
mod read;
#[cfg(feature = "arrow-ipc")]
mod rows;
#[cfg(all(test, feature = "parquet"))]
mod tests;
#[cfg(feature = "arrow-ipc")]
pub mod whole;
pub mod write;

use crate::columns::{self, Wanted};
use crate::error::FormatError;
use crate::filter::Filter;
use crate::notes::Notes;
use crate::table::Batches;
use bytes::Bytes;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// The two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columnar {
    Parquet,
    Arrow,
}

/// What a file says of itself at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Row groups, or record batches.
    pub groups: u32,
    names: Vec<String>,
    /// Of columns that nobody reads here, in the words of their types.
    unreadable: Vec<(String, String)>,
}

/// What a reader is asked for.
#[cfg_attr(not(feature = "parquet"), allow(dead_code))]
struct Asked<'a> {
    wanted: &'a [Wanted],
    /// Groups of which no row counts need not be read.
    filter: Option<&'a Filter>,
    groups: Range<u64>,
    /// As they were counted when the file was listed.
    counted: u64,
    /// Whoever is told of rows that cannot be read; without, the first of them is an error.
    notes: Option<Arc<Notes>>,
}

impl Columnar {
    fn what(self) -> &'static str {
        match self {
            Columnar::Parquet => "Parquet",
            Columnar::Arrow => "Arrow IPC",
        }
    }

    /// Whether this build reads and writes such files; if not, an error says which cargo feature it lacks.
    pub fn check_build(self) -> Result<(), FormatError> {
        let has = match self {
            Columnar::Parquet => cfg!(feature = "parquet"),
            Columnar::Arrow => cfg!(feature = "arrow-ipc"),
        };
        if has { Ok(()) } else { Err(self.lacking()) }
    }

    fn lacking(self) -> FormatError {
        let feature = match self {
            Columnar::Parquet => "parquet",
            Columnar::Arrow => "arrow-ipc",
        };
        FormatError::Feature { what: self.what(), feature }
    }

    /// Reads the end of a file.
    pub fn footer(self, file: &File) -> Result<Footer, FormatError> {
        read::footer(self, file)
    }

    /// The rows of some groups, of each just the wanted columns; `counted` groups were there when the file was listed. Groups of which the filter says that no
    /// row counts need not be read.
    pub(crate) fn read(
        self,
        file: Bytes,
        groups: Range<u64>,
        counted: u64,
        wanted: &[Wanted],
        filter: Option<&Filter>,
        notes: Option<Arc<Notes>>,
    ) -> Result<Batches, FormatError> {
        read::read(self, file, &Asked { wanted, filter, groups, counted, notes })
    }
}

impl Footer {
    /// Looks for the wanted columns; one whose type nobody reads here is not there either.
    pub fn check_columns<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> Result<(), FormatError> {
        wanted.into_iter().try_for_each(|name| {
            columns::find(&self.names, name)?;
            match self.unreadable.iter().find(|(column, _)| column == name) {
                Some((column, found)) => Err(FormatError::Type { column: column.clone(), found: found.clone(), wanted: "text or numbers" }),
                None => Ok(()),
            }
        })
    }
}
