//! Ids are types, so that a job can never be taken for a worker.

use raftwerk_proto::v1 as wire;
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A job; counted up from 1 by the replicated state.
    JobId
);
id!(
    /// A worker; minted when it joins, never reused. 0 stands for "nobody".
    WorkerId
);
id!(
    /// One registration of a worker: the log index of the entry that made it.
    Session
);
id!(
    /// Cluster time in milliseconds since the Unix epoch, stamped by leaders and never going back.
    Timestamp
);

/// The right of one device to run a range of tasks. `epoch` counts forced recoveries, so that no lease from before one can hold again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId {
    pub epoch: u32,
    /// Log index of the granting entry.
    pub index: u64,
    /// Place within that entry.
    pub position: u32,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.epoch, self.index, self.position)
    }
}

impl From<LeaseId> for wire::LeaseId {
    fn from(id: LeaseId) -> Self {
        wire::LeaseId { epoch: id.epoch, index: id.index, position: id.position }
    }
}

impl From<wire::LeaseId> for LeaseId {
    fn from(id: wire::LeaseId) -> Self {
        LeaseId { epoch: id.epoch, index: id.index, position: id.position }
    }
}

/// Tasks `first .. end` of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskRange {
    pub first: u64,
    /// One past the last task.
    pub end: u64,
}

impl TaskRange {
    /// `None` when the end does not fit 64 bits: ranges arrive over the wire.
    pub fn new(first: u64, count: u64) -> Option<TaskRange> {
        first.checked_add(count).map(|end| TaskRange { first, end })
    }

    pub fn count(self) -> u64 {
        self.end - self.first
    }

    pub fn is_empty(self) -> bool {
        self.first >= self.end
    }

    /// The common part; possibly empty.
    pub fn intersect(self, other: TaskRange) -> TaskRange {
        let first = self.first.max(other.first);
        TaskRange { first, end: self.end.min(other.end).max(first) }
    }
}
