//! The start of a gang in two phases: devices are held, then leased all together.

use super::{Entry, Event, MATCHING, Outcome};
use crate::gang::{self, Hold};
use crate::ids::{JobId, Timestamp, WorkerId};
use crate::lease::Lease;
use crate::matching::{candidates, device_fits};
use crate::state::State;
use raftwerk_proto::v1::{HoldDevices, Placement, ReleaseHold, StartGang, placement};
use std::collections::BTreeSet;

impl State {
    /// What is held already stays until its time is up, however often the hold is changed.
    pub(super) fn hold_devices(&mut self, hold: &HoldDevices, entry: &Entry) -> Outcome {
        if entry.format < MATCHING {
            return Outcome::Refused(format!("devices are held by entries of format {MATCHING} and later"));
        }
        let key = (JobId(hold.job), hold.stage);
        let Some((spec, stage)) = self.jobs.get(&key.0).and_then(|job| gang::waiting_stage(job, key.1)) else { return Outcome::Done };
        let before = self.gangs.get(&key).cloned().unwrap_or_default();
        if self.now < before.again_at {
            return Outcome::Done;
        }
        let may_have = |&(worker, device): &(WorkerId, u32)| {
            let record = self.workers.get(&worker).filter(|worker| !worker.lost);
            let fits = record.is_some_and(|worker| worker.device(device).is_some_and(|device| device_fits(spec, worker, device)));
            fits && self.holder_of((worker, device)).is_none_or(|holder| holder == key)
        };
        let named: BTreeSet<_> = hold.devices.iter().map(|held| (WorkerId(held.worker), held.device)).collect();
        let devices: BTreeSet<_> = named.into_iter().filter(may_have).take(gang::size(spec, Some(stage.tasks().len()))).collect();
        let longest = self.now.0.saturating_add(gang::hold_ms(spec));
        let until = match (devices.is_empty(), before.until) {
            (true, _) => Timestamp(0),
            (false, Timestamp(0)) => Timestamp(hold.until_ms.clamp(self.now.0.saturating_add(1), longest)),
            (false, until) => until,
        };
        if devices.is_empty() && before.given_back == 0 {
            self.gangs.remove(&key);
        } else {
            self.gangs.insert(key, Hold { devices, until, ..before });
        }
        Outcome::Done
    }

    pub(super) fn release_hold(&mut self, release: &ReleaseHold, entry: &mut Entry) -> Outcome {
        let key = (JobId(release.job), release.stage);
        let Some(hold) = self.gangs.get_mut(&key) else { return Outcome::Done };
        // One that was made since, or whose time is not up, is not meant.
        if hold.devices.is_empty() || hold.until.0 != release.until_ms || self.now < hold.until {
            return Outcome::Done;
        }
        let held = hold.devices.len();
        hold.run_out(self.now);
        entry.applied.events.push(Event::HoldRanOut { job: key.0, stage: key.1, held });
        Outcome::Done
    }

    /// All leases or none: one placement that cannot be granted any more keeps back the others.
    pub(super) fn start_gang(&mut self, start: StartGang, entry: &mut Entry) -> Outcome {
        if entry.format < MATCHING {
            return Outcome::Refused(format!("gangs are started by entries of format {MATCHING} and later"));
        }
        let stale = start.placements.len() as u32;
        match self.gang_leases(&start, entry) {
            Some(leases) => {
                self.gangs.remove(&(JobId(start.job), start.stage));
                let leases = leases.into_iter().map(|lease| self.enter_lease(lease, entry)).collect();
                Outcome::Granted { leases, stale: 0 }
            }
            None => Outcome::Granted { leases: Vec::new(), stale },
        }
    }

    /// A gang for which too few devices are left that have not failed under the job would wait for ever.
    pub(super) fn fail_gang_without_devices(&mut self, id: JobId, entry: &mut Entry) {
        let Some(job) = self.jobs.get(&id).filter(|job| gang::is_wanted(&job.spec)) else { return };
        if job.excluded.is_empty() && job.excluded_devices.is_empty() {
            return;
        }
        for index in 0..job.stages.len() as u32 {
            let Some((spec, stage)) = gang::waiting_stage(job, index) else { continue };
            let wanted = gang::size(spec, Some(stage.tasks().len()));
            let fitting = candidates(self, spec);
            let is_left = |device: &&(WorkerId, u32)| !job.excluded.contains(&device.0) && !job.excluded_devices.contains(*device);
            let left = fitting.iter().filter(is_left).count();
            if left < wanted && fitting.len() >= wanted {
                let name = &spec.name;
                let cause = format!(
                    "stage '{name}' begins on {wanted} devices at once (gang), and {left} of {} are left on which the job has not failed; \
                     `raftwerk job logs` shows why",
                    fitting.len()
                );
                return self.fail_job(id, cause, entry);
            }
        }
    }

    fn gang_leases(&self, start: &StartGang, entry: &Entry) -> Option<Vec<Lease>> {
        let key = (JobId(start.job), start.stage);
        let (spec, stage) = gang::waiting_stage(self.jobs.get(&key.0)?, key.1)?;
        let hold = self.gangs.get(&key)?;
        let devices: BTreeSet<_> = start.placements.iter().map(|p| (WorkerId(p.worker), p.device)).collect();
        let is_whole = devices == hold.devices
            && devices.len() == start.placements.len()
            && devices.len() == gang::size(spec, Some(stage.tasks().len()));
        let is_own = |p: &Placement| p.job == Some(placement::Job::Id(start.job)) && p.stage == start.stage && !p.speculative;
        if !is_whole || !start.placements.iter().all(is_own) {
            return None;
        }
        let leases: Vec<Lease> = start.placements.iter().map(|p| self.lease_for(p, true, entry)).collect::<Option<_>>()?;
        // On different devices they take nothing from each other but tasks.
        let mut tasks: Vec<_> = leases.iter().map(|lease| lease.tasks).collect();
        tasks.sort_by_key(|tasks| tasks.first);
        tasks.windows(2).all(|pair| pair[0].end <= pair[1].first).then_some(leases)
    }
}
