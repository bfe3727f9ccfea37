//! Whole-cluster tests.
//!
//! [`sim`] runs the control plane that ships (core, leader loop, agent sessions, Raft) on a seeded clock, network and disks.

pub mod sim;
