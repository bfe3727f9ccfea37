//! The program of a replica stays in memory.
//!
//! An election runs code that nobody has run for days. If the machine has taken its pages meanwhile, because another process wanted the memory or
//! the host reclaims what is idle, each of them is read from the disk again while the cluster has no leader. On a disk that gives five
//! megabytes a second that takes seconds, in which elections time out and begin again.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, geteuid, getrlimit};

/// Keeps what is mapped now (the program and its libraries) from when it is first used; what has not been used yet is read when it is, and what is
/// allocated later may be paged like that of any process. Done only without a limit or as root: under a limit that is just large enough, the stack
/// could not grow any more. Without the right to do it everything stays as it is.
pub fn keep_program_in_memory() {
    if getrlimit(Resource::Memlock).current.is_some() && !geteuid().is_root() {
        tracing::debug!("the program may be paged out: memory may be locked up to a limit only");
        return;
    }
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT) {
        Ok(()) => tracing::debug!("what runs of the program stays in memory"),
        Err(error) => tracing::debug!(%error, "the program may be paged out: no right to lock it in memory"),
    }
}
