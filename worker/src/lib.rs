//! A worker: one agent per machine and one executor per device.
//!
//! ```text
//!  scheduler <-- session (mTLS stream) --> agent --- socket pair + descriptors ---> executor (one child process per device)
//!  other workers <-- WorkerData (mTLS) -->   |                                       runs kernels, opens nothing
//!                                            +-- input files, shuffle store, staging directories
//! ```
//! - [`session`]: what the agent decides, as a pure state machine.
//! - [`agent`]: the world around it: connection, devices, files, shuffle data, publishing.
//! - [`executor`]: the child process.
//!
//! Nothing here knows a kernel by name: the kernels crate is asked what there is.

pub mod agent;
mod arrays;
pub mod counters;
pub mod executor;
mod fail_point;
pub mod frame;
mod heap;
pub mod lease;
pub mod ranges;
pub mod recorder;
pub mod session;
mod table;
pub mod upload;

/// For measurements.
pub use agent::shuffle_speed;
pub use agent::{
    DeviceSelection, DiskLimits, JoinError, ListenError, ProbeOutcome, ProbedDevice, RunningWorker, StoredResult, StoredResultError,
    WorkerConfig, WorkerError, probe_devices, start,
};
pub use executor::{ExecutorArgs, ExecutorDevice, executor_main};
