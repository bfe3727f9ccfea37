//! A live lease: who may run which tasks.

use crate::cost::Spent;
use crate::ids::{JobId, Session, TaskRange, Timestamp, WorkerId};
use raftwerk_proto::v1::Capacity;

#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    pub job: JobId,
    /// Index of the stage in the job.
    pub stage: u32,
    pub generation: u32,
    pub tasks: TaskRange,
    pub worker: WorkerId,
    pub session: Session,
    /// Index of the device on the worker.
    pub device: u32,
    pub granted_at: Timestamp,
    /// What it holds of the device's capacity.
    pub amount: Capacity,
    /// A second lease of tasks that another worker held.
    pub speculative: bool,
    /// How long the plan expected it to take from its grant, waiting behind other leases of the device included; 0 when it did not say.
    pub expected_ms: u64,
    /// What its reports so far have said.
    pub spent: Spent,
}

/// What of a lease tells whether its device should have ended it by now. Kept beside the ids of a worker's leases: looking thousands of them up would
/// be a good part of a planning round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub device: u32,
    pub granted_at: Timestamp,
    pub expected_ms: u64,
}

impl Lease {
    pub(crate) fn held(&self) -> Held {
        Held { device: self.device, granted_at: self.granted_at, expected_ms: self.expected_ms }
    }
}
