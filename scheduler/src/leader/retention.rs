//! Bounded memory and disk: what is forgotten, and when a submit is refused because there is no room.
//!
//! A refused submit leaves nothing behind. Everything else goes on: reports are accepted, jobs end, snapshots are taken, and what ends makes room.

use super::batch::Waiter;
use super::{Answer, Leader};
use raftwerk_core::apply::is_old;
use raftwerk_core::{JobId, State, Timestamp, WorkerId};
use raftwerk_proto::v1::{Forget, command::Command};
use std::collections::BTreeMap;

/// What one cluster may hold. The leader's are in force.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Ended jobs kept beyond the day for which each is kept.
    pub ended_jobs: usize,
    /// Estimated memory of the replicated state from which submits are refused.
    pub state_bytes: u64,
    /// Jobs that have not ended from which submits are refused.
    pub active_jobs: usize,
    /// Free space under the leader's data directory below which submits are refused.
    pub free_disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { ended_jobs: 10_000, state_bytes: 1 << 30, active_jobs: 100_000, free_disk_bytes: 256 << 20 }
    }
}

const LOOK_EVERY_MS: u64 = 1_000;
/// Forgotten by one entry.
const AT_ONCE: usize = 1_000;
/// A lost worker is remembered for so long after this leader has first seen it lost.
const LOST_WORKER_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Default)]
pub(super) struct Retention {
    next_look: u64,
    /// What the next entry would be stamped with. The state's own time stands still while nothing is written.
    pub(super) cluster_time: Timestamp,
    weight: u64,
    free_disk: Option<u64>,
    lost_since: BTreeMap<WorkerId, u64>,
}

impl Leader {
    pub(super) fn on_free_disk(&mut self, bytes: u64) {
        self.retention.free_disk = Some(bytes);
    }

    /// On every tick.
    pub(super) fn forget_what_is_old(&mut self, now: u64, state: &State) {
        if now < self.retention.next_look {
            return;
        }
        self.retention.next_look = now + LOOK_EVERY_MS;
        self.retention.weight = state.weight();
        let ended = state.jobs.len() - state.active_count();
        let too_many = ended.saturating_sub(self.limits.ended_jobs).min(AT_ONCE);
        let old =
            |id: &JobId| state.jobs.get(id).and_then(|j| j.phase.ended_at()).is_some_and(|at| is_old(self.retention.cluster_time, at));
        let jobs: Vec<u64> = state.jobs.keys().filter(|id| old(id)).take(too_many).map(|id| id.0).collect();
        let lost: Vec<WorkerId> = state.workers.iter().filter(|(_, w)| w.lost).map(|(id, _)| *id).collect();
        self.retention.lost_since.retain(|id, _| lost.contains(id));
        for id in lost {
            self.retention.lost_since.entry(id).or_insert(now);
        }
        let gone = self.retention.lost_since.iter().filter(|(_, since)| now.saturating_sub(**since) >= LOST_WORKER_MS);
        let workers: Vec<u64> = gone.map(|(id, _)| id.0).take(AT_ONCE).collect();
        if !jobs.is_empty() || !workers.is_empty() {
            tracing::info!(jobs = jobs.len(), workers = workers.len(), "forgetting what ended long ago");
            self.batch.push(Command::Forget(Forget { jobs, workers }), Waiter::Nobody);
        }
    }

    /// Why no new job fits now, if so.
    pub(super) fn no_room(&self, state: &State) -> Option<Answer> {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let Limits { state_bytes, active_jobs, free_disk_bytes, .. } = self.limits;
        let active = state.active_count();
        let reason = if active >= active_jobs {
            let have = if active == 1 { "job has" } else { "jobs have" };
            format!("{active} {have} not ended yet, and the limit is {active_jobs} (--max-active-jobs of the schedulers)")
        } else if self.retention.weight >= state_bytes {
            let weight = self.retention.weight;
            format!(
                "what the cluster knows of its jobs and workers takes about {weight} bytes of the schedulers' memory, and the limit is \
                 {state_bytes} bytes (--max-state of the schedulers, 1GiB unless given); ended jobs are kept for a day"
            )
        } else if let Some(free) = self.retention.free_disk.filter(|free| *free < free_disk_bytes) {
            let (free, least) = (mib(free), mib(free_disk_bytes));
            format!(
                "the leader's disk has {free} MiB free, and at least {least} MiB are kept for jobs that run (--min-free-disk); make space"
            )
        } else {
            return None;
        };
        Some(Answer::Exhausted(reason))
    }
}
