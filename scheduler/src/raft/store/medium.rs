//! Where the records of the log lie. The encoding above it is the same for the database on disk and for the simulated disk.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::StoreError;

/// Names in the meta table.
pub mod meta {
    pub const IDENTITY: &str = "identity";
    pub const VOTE: &str = "vote";
    pub const COMMITTED: &str = "committed";
    pub const PURGED: &str = "purged";
}

/// One change; a list of them is applied in order and atomically.
#[derive(Debug)]
pub enum Write {
    Entry { index: u64, record: Vec<u8> },
    Remove(Range<u64>),
    Meta { name: &'static str, record: Vec<u8> },
}

/// Takes an index and its record; false ends the scan.
pub type Visit<'a> = dyn FnMut(u64, &[u8]) -> Result<bool, StoreError> + 'a;

pub trait Medium: Send + Sync + 'static {
    /// The file to name in an error.
    fn file(&self) -> &Path;

    fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the records of `range` in order of index.
    fn scan(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Durable when it returns.
    fn commit(&self, writes: &[Write]) -> Result<(), StoreError>;

    /// Gives up the file; everything after it is an error.
    fn close(&self);

    /// How a flush takes time. `None`: it blocks, and gets a thread of its own. `Some`: it takes this simulated time and no thread.
    fn simulated_flush(&self) -> Option<Duration> {
        None
    }
}
