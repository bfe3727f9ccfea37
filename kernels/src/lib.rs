//! Kernels of Raftwerk.
pub mod api;
pub mod gpu;
pub use api::*;
