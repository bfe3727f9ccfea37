//! The core as Raft sees it: committed bytes in, outcomes out.

use crate::decisions;
use crate::raft::{ApplyError, StateMachine};
use crate::versions::unreadable;
use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_core::snapshot::SNAPSHOT_FORMAT;
use raftwerk_core::{Applied, State};
use raftwerk_proto::Wire;
use raftwerk_proto::own_entry_format;
use raftwerk_proto::v1::{EntryBody, Snapshot};
use std::sync::Arc;

/// The replicated state of this process.
#[derive(Clone, Debug)]
pub struct Replicated(pub State);

impl StateMachine for Replicated {
    type Outcome = Arc<Applied>;

    fn apply(&mut self, index: u64, payload: &[u8]) -> Result<Arc<Applied>, ApplyError> {
        let body = EntryBody::from_wire_slice(payload)
            .map_err(|e| raftwerk_core::ApplyError::Undecodable { index, reason: e.to_string() })
            .map_err(|e| ApplyError(e.to_string()))?;
        readable(&format!("log entry {index}"), body.format, ENTRY_FORMAT)?;
        let stamped_ms = body.at_ms;
        let applied = self.0.apply(index, body).map_err(|e| ApplyError(e.to_string()))?;
        decisions::tell(&self.0, stamped_ms, &applied);
        Ok(Arc::new(applied))
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_snapshot()
    }

    fn restore(cluster: &str, bytes: &[u8]) -> Result<Self, ApplyError> {
        let format = Snapshot::from_wire_slice(bytes).map_or(0, |snapshot| snapshot.format);
        readable("the snapshot", format, SNAPSHOT_FORMAT)?;
        State::from_snapshot(cluster, bytes).map(Replicated).map_err(|e| ApplyError(e.to_string()))
    }

    fn empty(cluster: &str) -> Self {
        Replicated(State::new(cluster))
    }

    fn is_removed(&self, replica: u64) -> bool {
        self.0.removed_replicas.contains(&replica)
    }

    fn log_format(&self) -> u32 {
        self.0.log_format
    }

    fn reads() -> u32 {
        own_entry_format(ENTRY_FORMAT)
    }
}

/// The core would refuse it too, but does not know which release to start instead.
fn readable(what: &str, format: u32, known: u32) -> Result<(), ApplyError> {
    let reads = own_entry_format(known);
    if format > reads { Err(ApplyError(unreadable(what, format, reads))) } else { Ok(()) }
}
