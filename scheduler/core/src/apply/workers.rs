//! Workers come and go; leases end.

use super::{DRAINING, Entry, Event, MATCHING, OWN_RULES, Outcome};
use crate::copies::Given;
use crate::cost::model_of;
use crate::device_match::tidy;
use crate::ids::{JobId, LeaseId, Session, WorkerId};
use crate::state::State;
use crate::worker::Worker;
use raftwerk_proto::v1::{EndLeases, RegisterWorker};

impl State {
    pub(super) fn register_worker(&mut self, register: RegisterWorker, entry: &mut Entry) -> Outcome {
        let worker = WorkerId(register.worker);
        let Some(mut hello) = register.hello else { return Outcome::Refused("a registration without its hello".into()) };
        hello.held.clear();
        hello.left_leader.clear();
        hello.kept_jobs.clear();
        hello.versions = None;
        if entry.format < MATCHING {
            // Builds of before drop them in silence, and all have to hold the same.
            hello.labels.clear();
            hello.stage_graphs = false;
        }
        tidy(&mut hello.labels);
        // A new process has forgotten the leases and the shuffle data of the one before it.
        self.drop_worker(worker, entry);
        let session = Session(entry.index);
        let mut record = Worker::new(session, hello);
        if let Some(before) = self.workers.get(&worker) {
            // A new process on the same devices is as fast as the one before it.
            let model = |of: &Worker, device: u32| of.device(device).map(|d| model_of(d).to_owned());
            let same =
                before.speeds.iter().filter(|(device, _)| model(before, **device).is_some_and(|m| Some(m) == model(&record, **device)));
            let speeds = same.map(|(device, speed)| (*device, *speed)).collect();
            record.speeds = speeds;
        }
        if entry.format >= OWN_RULES {
            // Its devices passed their self-test to get here, so quarantine is over; a next one is as long as if it had served it.
            if let Some(before) = self.workers.get(&worker) {
                record.standing.times = before.standing.times;
            }
            for job in &self.active {
                if let Some(job) = self.jobs.get_mut(job) {
                    // What it could not see or write the process before it could not.
                    job.excluded.remove(&worker);
                    job.excluded_devices.retain(|(w, _)| *w != worker);
                }
            }
        }
        self.workers.insert(worker, record);
        Outcome::Registered { worker, session }
    }

    pub(super) fn lose_worker(&mut self, worker: WorkerId, session: Session, entry: &mut Entry) -> Outcome {
        // A verdict on an earlier session must not hit the worker that has come back.
        if self.workers.get(&worker).is_some_and(|w| w.session == session && !w.lost) {
            self.drop_worker(worker, entry);
            if let Some(record) = self.workers.get_mut(&worker) {
                record.lost = true;
            }
            entry.applied.events.push(Event::WorkerLost { worker });
        }
        Outcome::Done
    }

    /// Ends the worker's leases and gives up its shuffle data.
    fn drop_worker(&mut self, worker: WorkerId, entry: &mut Entry) {
        let held: Vec<LeaseId> = self.leases_of(worker).map(|(id, _)| id).collect();
        for id in held {
            self.end_lease(id, entry);
        }
        self.forget_held(worker);
        let active: Vec<JobId> = self.active.iter().copied().collect();
        for job in active {
            self.invalidate(job, worker, entry);
        }
    }

    pub(super) fn invalidate(&mut self, id: JobId, worker: WorkerId, entry: &mut Entry) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let given = job.invalidate(worker);
        if given != Given::default() {
            job.source_failures.remove(&worker);
        }
        if given.kept > 0 {
            entry.applied.events.push(Event::CopiesLeft { job: id, worker, tasks: given.kept });
        }
        if given.lost > 0 {
            entry.applied.events.push(Event::Invalidated { job: id, worker, tasks: given.lost });
            self.advance_job(id, entry);
        }
    }

    /// An operator's word: the worker and its devices get work again, with nothing held against them.
    pub(super) fn end_quarantine(&mut self, worker: WorkerId) -> Outcome {
        let Some(record) = self.workers.get_mut(&worker) else { return Outcome::Refused(format!("there is no worker {worker}")) };
        record.standing = Default::default();
        record.device_standing.clear();
        record.drained = false;
        Outcome::Done
    }

    /// An operator's word: what it holds it may finish, but it gets nothing new until it is released or its process starts anew.
    pub(super) fn drain_worker(&mut self, worker: WorkerId, entry: &Entry) -> Outcome {
        if entry.format < DRAINING {
            return Outcome::Refused(format!("workers are drained by entries of format {DRAINING} and later"));
        }
        let Some(record) = self.workers.get_mut(&worker) else { return Outcome::Refused(format!("there is no worker {worker}")) };
        record.drained = true;
        Outcome::Done
    }

    pub(super) fn end_leases(&mut self, end: EndLeases, entry: &mut Entry) -> Outcome {
        for id in end.leases {
            self.end_lease(id.into(), entry);
        }
        Outcome::Done
    }
}
