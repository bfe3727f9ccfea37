//! Whole-cluster tests.
//!
//! [`cluster`] starts real processes on loopback. [`chaos`] breaks them while jobs run and checks what their clients saw. [`sim`] runs the control plane that ships (core, leader loop, agent sessions, Raft) on a seeded clock, network and disks.

pub mod chaos;
pub mod cluster;
pub mod sim;
pub mod words;
