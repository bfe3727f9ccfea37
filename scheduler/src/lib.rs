//! A scheduler replica: Raft, its durable log and snapshots, the leader loop, and the gRPC services around the pure core.
//!
//! ```text
//! raft/      consensus, log, snapshots; knows nothing about jobs        machine   the core as Raft sees it
//! leader/    the leader loop: a state machine, input in, effects out    edge      drives it: clock, network, proposals
//! services/  gRPC handlers                                              server    puts a replica together and starts it
//! document   JSON about jobs: manifests, and what commands show
//! awake      the time by which silence is judged               resident  the program stays in memory
//! ```

mod awake;
mod backup;
mod config;
mod decisions;
pub mod document;
pub mod edge;
mod fail_point;
mod join;
pub mod leader;
pub mod machine;
mod members;
pub mod raft;
mod resident;
mod server;
mod services;
mod versions;

pub use backup::{Recovered, check_backup, recover, survey};
pub use config::{DEFAULT_LISTEN, SchedulerConfig, StartError, StartMode};
pub use raftwerk_core::cost;
pub use resident::keep_program_in_memory;
pub use server::{ADMIN_FILE, RunningScheduler, TOKEN_FILE, start};
pub use services::LEADER_KEY;
pub use versions::is_about_versions;
