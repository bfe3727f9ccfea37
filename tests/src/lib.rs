//! Whole-cluster tests.
//!
//! [`cluster`] starts real processes on loopback. [`sim`] runs the control plane that ships (core, leader loop, agent sessions, Raft) on a seeded clock, network and disks.

pub mod cluster;
pub mod sim;
