//! Which devices a job waits for, in words for people.

use crate::counted::counted;
use crate::gang;
use crate::ids::{JobId, WorkerId};
use crate::job::{Job, Phase};
use crate::matching::{candidates, shortfall_of_stage};
use crate::state::State;

/// Devices that are named, held ones and such as may not.
const NAMED: usize = 8;

impl State {
    /// What a job with something to run and nothing running waits for, if it is devices; empty otherwise. Looks at every device.
    pub fn waits_for(&self, id: JobId) -> String {
        let Some(job) = self.jobs.get(&id).filter(|job| job.phase == Phase::Running) else { return String::new() };
        if !job.waiting_for.is_empty() {
            return crate::apply::after::waits(job);
        }
        let is_idle = job.stages.iter().all(|stage| stage.leased() == 0);
        let waiting = (0..job.stages.len()).filter(|index| is_idle && job.stages[*index].open && job.stages[*index].free() > 0);
        waiting.filter_map(|index| self.stage_waits_for(job, index as u32)).collect::<Vec<_>>().join("; ")
    }

    fn stage_waits_for(&self, job: &Job, index: u32) -> Option<String> {
        let (spec, stage) = (&job.spec.stages[index as usize], &job.stages[index as usize]);
        let tasks = stage.tasks().len();
        // One that has begun goes on with any device.
        if let Some(short) = shortfall_of_stage(self, spec, Some(if stage.has_begun() { 1 } else { tasks })) {
            return Some(short.line());
        }
        if let Some(text) = self.none_is_left(job, index as usize) {
            return Some(text);
        }
        if !gang::waits(spec, stage) {
            return None;
        }
        let (wanted, name) = (gang::size(spec, Some(tasks)), &spec.name);
        let mut text = format!("stage '{name}' begins on {wanted} devices at once (gang)");
        let hold = self.gangs.get(&(job.id, index)).cloned().unwrap_or_default();
        if hold.devices.is_empty() {
            let fitting = candidates(self, spec);
            let held = fitting.iter().filter(|device| self.holder_of(**device).is_some()).count();
            text.push_str(&format!(", and holds none yet: {} of the cluster can run it, {held} of them held for others", fitting.len()));
        } else {
            let busy = hold.devices.iter().filter(|device| self.uses.contains_key(*device)).count();
            let mut named: Vec<String> =
                hold.devices.iter().take(NAMED).map(|(worker, device)| format!("worker {worker} device {device}")).collect();
            if hold.devices.len() > NAMED {
                named.push(format!("{} more", hold.devices.len() - NAMED));
            }
            text.push_str(&format!(
                ", holds {} ({}) and waits until all are held and idle: {busy} of them {} busy",
                hold.devices.len(),
                named.join(", "),
                if busy == 1 { "is" } else { "are" }
            ));
        }
        if hold.given_back > 0 {
            let times = counted(hold.given_back, "time");
            text.push_str(&format!("; {times} it gave back what it held, because the others did not come free in time"));
        }
        if let Some(reason) = self.gang_beyond_namespace(&job.spec) {
            text.push_str(&format!("; {reason}"));
        }
        Some(text)
    }

    /// Devices can run the stage, and none of those is left for it that have not failed at this job.
    fn none_is_left(&self, job: &Job, index: usize) -> Option<String> {
        let excludes = !job.excluded.is_empty() || !job.excluded_devices.is_empty() || !job.stages[index].avoided.is_empty();
        let (spec, stage) = (&job.spec.stages[index], &job.stages[index]);
        let fitting = if excludes { candidates(self, spec) } else { Vec::new() };
        let mut reasons = fitting.iter().map(|(worker, device)| self.may_not(job, index, *worker, *device)).collect::<Option<Vec<_>>>()?;
        let more = reasons.len().saturating_sub(NAMED);
        reasons.truncate(NAMED);
        if more > 0 {
            reasons.push(format!("{more} more"));
        }
        let (left, name) = (stage.free(), &spec.name);
        let left = counted(left, "task");
        (!reasons.is_empty()).then(|| format!("no device is left for {left} of stage '{name}': {}", reasons.join("; ")))
    }

    fn may_not(&self, job: &Job, index: usize, worker: WorkerId, device: u32) -> Option<String> {
        let record = self.workers.get(&worker)?;
        let why = if job.excluded.contains(&worker) {
            "has failed at this job and gets no more of it until it is started again"
        } else if job.excluded_devices.contains(&(worker, device)) || job.stages[index].avoids(self, worker, device) {
            "has failed at this job and gets no more of it"
        } else if record.drained {
            "is drained"
        } else if record.is_quarantined(device, self.now) {
            "is in quarantine"
        } else {
            return None;
        };
        Some(format!("worker {worker} ({}) device {device} {why}", record.hello.name))
    }
}
