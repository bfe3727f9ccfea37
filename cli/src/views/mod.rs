//! What the cluster says, as tables for a person and as JSON for a program.

pub mod cluster;
pub mod costs;
pub mod counters;
pub mod devices;
pub mod failures;
pub mod job;
pub mod kept;
pub mod names;
pub mod namespace;
pub mod result;
pub mod rounds;
pub mod simulated;
pub mod waits;
pub mod worker;
