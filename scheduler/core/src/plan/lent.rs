//! A device that has shown nothing of a stage while others have is taken to be like them, and slower the longer it is silent.

use super::{Slot, View};
use crate::cost::Estimate;
use crate::job::Job;

/// From the grant of a lease to its report there is the log twice and the network: what does not count as silence.
const ROUND_TRIP_MS: u64 = 10;

/// `tasks_out` of the stage are there already.
pub(super) fn estimate(view: &View<'_>, lent: Estimate, slot: &Slot, of: Option<(&Job, u32)>, tasks_out: u64) -> Estimate {
    let worker = slot.worker;
    let Some((job, stage)) = of.filter(|_| tasks_out > 0 && !view.returning.contains(&worker)) else { return lent };
    let own = view.state.leases_of(worker).map(|(_, lease)| lease);
    let own = own.filter(|lease| lease.device == slot.device && lease.job == job.id && lease.stage == stage);
    let Some(first) = own.map(|lease| lease.granted_at).min() else { return lent };
    let silent_ms = view.now.0.saturating_sub(first.0).saturating_sub(ROUND_TRIP_MS);
    let in_turn = tasks_out.div_ceil(slot.parallelism);
    lent.at_least(silent_ms.saturating_mul(1_000_000) / in_turn.max(1))
}
