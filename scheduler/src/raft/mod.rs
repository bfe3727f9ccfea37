//! The replicated log: Raft on openraft, knowing nothing about jobs. An entry's payload is opaque bytes.
//!
//! ```text
//! propose(bytes) -> replica -> openraft -> store (log)  --flush--> majority -> state_machine.apply -> outcome, back to propose
//!                                 |                                    |
//!                              network ---- gRPC, schedulers only ---- server -> handle
//! ```
//! The replica holds the state behind a lock that the services read. [`LeadershipWatch`] says when this replica leads **and** its state is
//! complete. Everything is generic over the async runtime, so that `sim` runs the same code under a seeded clock.

mod coalesce;
mod config;
mod convert;
mod fault;
mod handle;
mod leadership;
mod majority;
mod network;
pub mod offline;
mod presence;
mod replica;
mod server;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod state_machine;
mod status;
mod store;
mod types;
mod versions;

pub use config::RaftConfig;
pub use leadership::{LeaderTenure, Leadership, LeadershipWatch};
pub use network::Network;
pub use replica::{MAX_PAYLOAD_BYTES, OpenError, ProposeError, Replica, Storage};
pub use server::RaftService;
pub(crate) use server::{REMOVED_KEY, removed_text};
pub use state_machine::{ApplyError, StateMachine};
pub use status::{Member, Status};
pub use store::{DataDir, LogStats, Medium, RedbMedium, SnapshotStore, StoreError};
pub(crate) use store::{read_backup, write_backup};
pub use types::{Node, Types};

#[cfg(test)]
mod tests;
