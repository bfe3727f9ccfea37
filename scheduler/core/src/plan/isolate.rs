//! Tasks whose executor died under them run alone: a device is left to drain, gets one small range of them and nothing beside it, so that
//! the next death names the one to blame and costs nobody else an attempt. Another worker is tried each time, as long as there is one.

use super::{LEASE_NS, Round, Slot, View};
use crate::ids::{TaskRange, WorkerId};
use crate::job::Job;
use crate::spec::lease_amount;
use crate::stage::TaskState;
use crate::trouble::SUSPECTS_CUT;
use raftwerk_proto::v1::placement;
use std::collections::BTreeSet;

/// Devices on which a task under suspicion runs now.
pub(super) fn isolated(view: &View<'_>) -> BTreeSet<(WorkerId, u32)> {
    let mut devices = BTreeSet::new();
    for job in view.state.active_jobs() {
        for stage in job.stages.iter().filter(|s| s.open) {
            for (suspect, _) in stage.suspicions.iter() {
                for (_, state) in stage.tasks().overlapping(suspect) {
                    if let TaskState::Leased(id) = state
                        && let Some(lease) = view.state.leases.get(&id)
                    {
                        devices.insert((lease.worker, lease.device));
                    }
                }
            }
        }
    }
    devices
}

impl<'a> Round<'a> {
    pub(super) fn isolate(&mut self, job: &'a Job, stage_index: u32) {
        let stage = &job.stages[stage_index as usize];
        if stage.suspicions.is_empty() {
            return;
        }
        let spec = &job.spec.stages[stage_index as usize];
        let amount = lease_amount(spec);
        let devices = self.devices(spec, Some(job), stage_index);
        // The rest of the stage goes on beside them.
        let mut devices_left = devices.len().div_ceil(2);
        let mut suspects: Vec<(TaskRange, BTreeSet<WorkerId>)> = Vec::new();
        for (range, workers) in stage.suspicions.iter() {
            let due = stage.tasks().overlapping(range).filter(|(_, s)| s.is_free_at(self.view.now));
            suspects.extend(due.map(|(part, _)| (part, workers.clone())));
            if suspects.len() >= devices_left {
                break;
            }
        }
        for (range, died_on) in suspects {
            if devices_left == 0 {
                return;
            }
            // Somewhere else before somewhere again; then the device that is idle soonest, which stays the same one from round to round
            // because nothing is added to it.
            let rank = |slot: &Slot| (died_on.contains(&slot.worker), slot.used.leases, slot.worker, slot.device);
            let best = devices.iter().filter(|place| !self.slots[**place].reserved).map(|place| (rank(&self.slots[*place]), *place)).min();
            let Some((_, place)) = best else { return };
            let slot = &mut self.slots[place];
            slot.reserved = true;
            devices_left -= 1;
            let need = self.costs.need_on(slot, job, stage_index);
            let most = need.tasks_within(&amount, &slot.capacity, &slot.used);
            if slot.used.leases > 0 || most == 0 {
                continue;
            }
            let tasks = TaskRange { first: range.first, end: range.first + range.count().div_ceil(SUSPECTS_CUT).min(most) };
            let amount = need.amount(&amount, tasks.count());
            let cost_ns = self.costs.tasks_on(slot, job, stage_index, tasks.count()).unwrap_or(tasks.count().saturating_mul(LEASE_NS));
            self.placements.push(slot.take(placement::Job::Id(job.id.0), stage_index, tasks, &amount, cost_ns));
        }
    }
}
