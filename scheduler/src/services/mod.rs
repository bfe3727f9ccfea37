//! The gRPC services of a replica. Each handler learns who calls from the channel, and refuses the wrong kind.

pub(crate) mod client;
mod costs;
#[cfg(feature = "flight")]
pub(crate) mod flight;
mod job_list;
pub(crate) mod join;
mod membership;
pub(crate) mod worker_session;

use crate::edge::Shared;
use crate::raft::ProposeError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata key with the leader's address, on answers of replicas that do not lead.
pub const LEADER_KEY: &str = "raftwerk-leader";

/// "Ask the leader", with its address when one is known.
pub(crate) fn not_leader(shared: &Shared) -> Status {
    let leader = shared.replica.leadership().borrow().leader.clone();
    let address = leader.map(|(_, address)| address).unwrap_or_default();
    let (code, text) = if address.is_empty() {
        (Code::Unavailable, "no leader is known; an election may be under way, try again".to_string())
    } else {
        (Code::FailedPrecondition, format!("this replica does not lead; the leader is at {address}"))
    };
    let mut status = Status::new(code, text);
    if let Ok(value) = MetadataValue::try_from(address) {
        status.metadata_mut().insert(LEADER_KEY, value);
    }
    status
}

pub(crate) fn propose_error(shared: &Shared, error: &ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { .. } => not_leader(shared),
        other => Status::unavailable(other.to_string()),
    }
}
