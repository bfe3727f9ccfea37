//! What entries decided of leases and results, as debug lines of the log: for whoever asks afterwards which of two came first. Off unless asked for
//! with `RAFTWERK_LOG=raftwerk_scheduler::decisions=debug`.
//!
//! Every replica tells it of every entry, because the leader that proposed one may be dead before it knows that it was committed. What a restarted
//! replica applies again is not told again: the others told it when it was new.

use raftwerk_core::{Applied, Event, Outcome, State};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// When this process applied its first entry, in Unix milliseconds.
static SINCE: LazyLock<u64> = LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64));

/// `stamped_ms` is the entry's stamp, `state` the state after it.
pub(crate) fn tell(state: &State, stamped_ms: u64, applied: &Applied) {
    if !tracing::enabled!(tracing::Level::DEBUG) || stamped_ms < *SINCE {
        return;
    }
    let at_ms = state.now.0;
    let granted = applied.outcomes.iter().flat_map(|outcome| match outcome {
        Outcome::Granted { leases, .. } => leases.as_slice(),
        _ => &[],
    });
    for id in granted {
        if let Some(lease) = state.leases.get(id) {
            let (job, stage, speculative) = (lease.job.0, lease.stage, lease.speculative);
            let (first_task, tasks) = (lease.tasks.first, lease.tasks.count());
            tracing::debug!(lease = %id, job, stage, first_task, tasks, speculative, at_ms, "leased");
        }
    }
    for event in &applied.events {
        if let Event::Accepted { lease, job, stage, tasks } = event {
            for range in tasks {
                let (entry, job, first_task, tasks) = (applied.index, job.0, range.first, range.count());
                tracing::debug!(entry, %lease, job, stage, first_task, tasks, at_ms, "accepted");
            }
        }
    }
}
