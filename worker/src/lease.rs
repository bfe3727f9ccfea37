//! A lease id as a key: ordered, hashable, and readable in logs and file names.
use raftwerk_proto::v1::LeaseId;
use std::fmt;

/// The order is the order of granting: epoch, then log index, then place in the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    pub epoch: u32,
    pub index: u64,
    pub position: u32,
}

impl From<LeaseId> for LeaseKey {
    fn from(id: LeaseId) -> Self {
        Self { epoch: id.epoch, index: id.index, position: id.position }
    }
}

impl From<LeaseKey> for LeaseId {
    fn from(key: LeaseKey) -> Self {
        Self { epoch: key.epoch, index: key.index, position: key.position }
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.epoch, self.index, self.position)
    }
}

/// What an executor calls the file it writes a lease's output to. It has the descriptor alone; its agent puts the path here.
pub(crate) const OUTPUT_FILE: &str = "the lease's output file";
