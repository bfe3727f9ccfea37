//! How long a task of a lease may show no progress before its worker takes the executor to hang.

use raftwerk_core::cost::StageCosts;
use raftwerk_core::{Job, JobId, Lease, State};
use std::collections::BTreeMap;

/// So many times what the whole lease is expected to take: far beyond what load and unlike tasks do to an honest estimate.
const FACTOR: u64 = 20;
/// Not less, however short the lease: a machine may page, a driver may compile.
const LEAST_MS: u64 = 60_000;
/// Twice as long for every attempt that was charged to a task, up to this many times: tasks of one stage may be of very different length, and one
/// that is ended for being long must not be ended for ever.
const DOUBLED: u32 = 6;

/// Costs are looked up once per stage: leases come by the thousand.
#[derive(Default)]
pub(super) struct Patience<'a> {
    stages: BTreeMap<(JobId, u32), StageCosts<'a>>,
}

impl<'a> Patience<'a> {
    /// In milliseconds; 0 when nothing is known of such tasks on that device.
    pub(super) fn of(&mut self, state: &'a State, job: &'a Job, lease: &Lease) -> u64 {
        let stage = (job.id, lease.stage);
        let Some(spec) = job.spec.stages.get(lease.stage as usize) else { return 0 };
        let Some(worker) = state.workers.get(&lease.worker) else { return 0 };
        let new = || StageCosts::new(&state.costs, &state.workers, Some(job), lease.stage, spec);
        let costs = self.stages.entry(stage).or_insert_with(new);
        let estimate = worker.device(lease.device).and_then(|device| costs.of(lease.worker, worker, device));
        let Some(estimate) = estimate else { return 0 };
        let attempts = job.stages[lease.stage as usize].attempts.overlapping(lease.tasks).map(|(_, attempts)| attempts).max().unwrap_or(0);
        let patience = (estimate.of_tasks(lease.tasks.count()) / 1_000_000).saturating_mul(FACTOR).max(LEAST_MS);
        patience.saturating_mul(1 << attempts.min(DOUBLED))
    }
}
