//! What a replica keeps on its disk: the log with its vote and marks, and the snapshots.
//!
//! ```text
//! <data dir>/LOCK                          held by the running process, holds its pid
//! <data dir>/raft-identity                 cluster and replica id in words; says that raft.redb must exist
//! <data dir>/raft.redb                     tables: log (index -> record), meta (name -> record)
//! <data dir>/raft.mark                     which commit of it was begun, and which acknowledged
//! <data dir>/snapshots/<term>-<index>.snap one record; the newest two are kept
//! ```
//! Everything durable is a [`record`]. A record that cannot be read stops the replica: it is never skipped and never taken for absence,
//! because a replica that forgets a vote or an entry it acknowledged can undo a decision of the majority.

mod database;
mod dir;
mod error;
mod log;
mod mark;
mod medium;
mod queue;
mod record;
mod snapshots;
mod view;

#[cfg(any(test, feature = "sim"))]
mod memory;
// The simulation uses less of it than the tests here.
#[cfg(any(test, feature = "sim"))]
#[cfg_attr(not(test), allow(dead_code))]
mod sectors;
#[cfg(any(test, feature = "sim"))]
mod torn;

pub use database::{RedbMedium, Unmarked};
pub use dir::DataDir;
pub use error::StoreError;
pub use log::{LogStats, LogStore, REPLICATION_BYTES};
pub use medium::Medium;
#[cfg(any(test, feature = "sim"))]
pub use memory::{Flip, MemoryDisk, MemoryMedium, Torn, WriteFault};
pub use record::{read_backup, write_backup};
pub use snapshots::SnapshotStore;

#[cfg(test)]
mod tests;
