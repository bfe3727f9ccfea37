//! Whole-cluster tests.
//!
//! [`cluster`] starts real processes on loopback. [`chaos`] breaks them while jobs run and checks what their clients saw. [`footprint`] looks at their memory, [`slices`] makes them slow. `sim` (feature `simulation`) runs the control
//! plane that ships (core, leader loop, agent sessions, Raft) on a seeded clock, network and disks. `store` (feature `object-stores`)
//! is an S3 server behind a proxy that breaks what passes.

pub mod chaos;
pub mod cluster;
pub mod footprint;
#[cfg(feature = "simulation")]
pub mod sim;
pub mod slices;
#[cfg(feature = "object-stores")]
pub mod store;
pub mod words;
