//! The program of a replica stays in memory.
//!
//! An election runs code that nobody has run for days. If the machine has taken its pages meanwhile, because another process wanted the memory or
//! the host reclaims what is idle, each of them is read from the disk again while the cluster has no leader. On a disk that gives five
//! megabytes a second that takes seconds, in which elections time out and begin again.

use rustix::mm::{MlockAllFlags, mlockall};

/// Keeps what is mapped now (the program and its libraries) once it has been touched; what is allocated later may be paged like that of any process.
/// Without the right to do so (root, `CAP_IPC_LOCK`, or a large enough `RLIMIT_MEMLOCK`) everything stays as it is, and the log says so.
pub fn keep_program_in_memory() {
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT) {
        Ok(()) => tracing::debug!("the program stays in memory"),
        Err(error) => tracing::debug!(%error, "the program may be paged out: no right to lock it in memory"),
    }
}
