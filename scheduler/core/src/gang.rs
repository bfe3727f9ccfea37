//! Stages that begin on several devices at once, or not at all.
//!
//! The start has two phases, each an entry of the log. First devices are **held** for the stage: nobody else gets a new lease on them, and
//! what runs there ends. When all of them are held and idle, the gang **starts**: one lease on each, granted by one entry or not at all. From
//! then on the stage is like any other.
//!
//! ```text
//!   waits --(HoldDevices)--> holds some or all --(StartGang: all held and idle)--> has begun
//!     ^                        |      ^  |
//!     |                        |      +--+ a held worker is lost: one less; another device takes its place
//!     +--(ReleaseHold)---------+ the hold has run out: everything is given back, then a pause, longer each time
//! ```
//!
//! Two gangs cannot keep each other from starting for ever: a hold runs out, and only one stage at a time may hold devices while others are
//! missing (`plan/gang`).

use crate::ids::{JobId, Timestamp, WorkerId};
use crate::job::{Job, Phase};
use crate::matching::device_fits;
use crate::spec::SpecError;
use crate::split::tasks_of;
use crate::stage::Stage;
use crate::state::State;
use raftwerk_proto::v1::{GangRecord, HeldDevice, JobSpec, StageSpec, stage_input::Source};
use std::collections::{BTreeMap, BTreeSet};

/// All of them are in one log entry.
pub const MAX_DEVICES: u32 = 1024;
/// Devices that are held are idle for others: long enough for leases of ordinary length to end, short enough not to be noticed.
pub const DEFAULT_HOLD_MS: u64 = 30_000;
pub const MIN_HOLD_MS: u64 = 1_000;
pub const MAX_HOLD_MS: u64 = 600_000;
/// Pause after a hold ran out; doubled with every further one up to [`PAUSE_MAX_MS`].
const PAUSE_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;

/// Devices that are held for a stage, and what became of earlier holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    pub devices: BTreeSet<(WorkerId, u32)>,
    /// When it runs out; 0 exactly when nothing is held.
    pub until: Timestamp,
    /// Holds that ran out.
    pub given_back: u32,
    /// No new hold before this time.
    pub again_at: Timestamp,
}

/// By job and stage; of stages that have not begun.
pub type Gangs = BTreeMap<(JobId, u32), Hold>;

impl Hold {
    pub(crate) fn run_out(&mut self, now: Timestamp) {
        self.devices.clear();
        self.until = Timestamp(0);
        self.given_back = self.given_back.saturating_add(1);
        let pause = PAUSE_MS.saturating_mul(1 << (self.given_back - 1).min(20)).min(PAUSE_MAX_MS);
        self.again_at = Timestamp(now.0.saturating_add(pause));
    }

    fn forget(&mut self, worker: WorkerId) {
        self.devices.retain(|(held, _)| *held != worker);
        if self.devices.is_empty() {
            self.until = Timestamp(0);
        }
    }

    fn is_nothing(&self) -> bool {
        self.devices.is_empty() && self.given_back == 0
    }
}

/// Tasks of a stage as far as its spec tells; of files nothing is known before they are listed.
pub fn known_tasks(stage: &StageSpec) -> Option<u64> {
    match stage.inputs.first()?.source.as_ref()? {
        Source::Files(files) if files.listing.is_empty() => None,
        _ => tasks_of(stage),
    }
}

/// Devices on which a stage of so many tasks begins at once; 0 when it begins as devices come.
pub fn size(stage: &StageSpec, tasks: Option<u64>) -> usize {
    let wanted = stage.gang.as_ref().map_or(0, |gang| gang.devices.min(MAX_DEVICES));
    tasks.map_or(wanted, |tasks| u32::try_from(tasks).map_or(wanted, |tasks| wanted.min(tasks))) as usize
}

/// How long the stage's devices may be held.
pub fn hold_ms(stage: &StageSpec) -> u64 {
    stage.gang.as_ref().map_or(0, |gang| gang.hold_ms.clamp(MIN_HOLD_MS, MAX_HOLD_MS))
}

/// Whether the stage is open and is to begin as a gang that has not started yet. It begins anew with every round.
pub fn waits(spec: &StageSpec, stage: &Stage) -> bool {
    stage.open && !stage.has_begun() && size(spec, Some(stage.tasks().len())) > 0
}

/// Whether some stage of the job is to begin as a gang.
pub(crate) fn is_wanted(spec: &JobSpec) -> bool {
    spec.stages.iter().any(|stage| stage.gang.is_some())
}

/// The stage, if it waits for the start of its gang.
pub(crate) fn waiting_stage(job: &Job, index: u32) -> Option<(&StageSpec, &Stage)> {
    let (spec, stage) = (job.spec.stages.get(index as usize)?, job.stages.get(index as usize)?);
    (job.phase == Phase::Running && waits(spec, stage)).then_some((spec, stage))
}

pub(crate) fn check(stage: &StageSpec) -> Result<(), SpecError> {
    let Some(gang) = &stage.gang else { return Ok(()) };
    if gang.devices == 0 || gang.devices > MAX_DEVICES {
        return Err(SpecError(format!("stage '{}': a gang has 1 to {MAX_DEVICES} devices, not {}", stage.name, gang.devices)));
    }
    if gang.hold_ms < MIN_HOLD_MS || gang.hold_ms > MAX_HOLD_MS {
        let (name, hold) = (&stage.name, gang.hold_ms);
        return Err(SpecError(format!("stage '{name}': the hold of a gang takes {MIN_HOLD_MS} to {MAX_HOLD_MS} ms, not {hold}")));
    }
    Ok(())
}

impl State {
    pub fn gangs(&self) -> &Gangs {
        &self.gangs
    }

    /// The stage for which the device is held.
    pub fn holder_of(&self, device: (WorkerId, u32)) -> Option<(JobId, u32)> {
        self.gangs.iter().find(|(_, hold)| hold.devices.contains(&device)).map(|(stage, _)| *stage)
    }

    /// Its devices are not there any more.
    pub(crate) fn forget_held(&mut self, worker: WorkerId) {
        self.gangs.values_mut().for_each(|hold| hold.forget(worker));
        self.gangs.retain(|_, hold| !hold.is_nothing());
    }

    /// Gives back what is held for stages of the job that do not wait for it any more.
    pub(crate) fn give_back_needless(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if is_wanted(&job.spec) {
            self.gangs.retain(|(of, stage), _| *of != id || waiting_stage(job, *stage).is_some());
        }
    }

    /// Why the job's namespace may never have as many devices as one of its stages begins on.
    pub fn gang_beyond_namespace(&self, spec: &JobSpec) -> Option<String> {
        let most = self.namespaces.get(&spec.namespace)?.max_devices()?;
        let stage = spec.stages.iter().find(|stage| size(stage, known_tasks(stage)) > most)?;
        Some(format!(
            "stage '{}' begins on {} devices at once (gang), and {most} may work for namespace '{}'; take fewer, or let the namespace have more with \
             'raftwerk namespace set'",
            stage.name,
            size(stage, known_tasks(stage)),
            spec.namespace
        ))
    }
}

pub(crate) fn to_wire(gangs: &Gangs) -> Vec<GangRecord> {
    let record = |(&(job, stage), hold): (&(JobId, u32), &Hold)| GangRecord {
        job: job.0,
        stage,
        devices: hold.devices.iter().map(|(worker, device)| HeldDevice { worker: worker.0, device: *device }).collect(),
        until_ms: hold.until.0,
        given_back: hold.given_back,
        again_at_ms: hold.again_at.0,
    };
    gangs.iter().map(record).collect()
}

pub(crate) fn from_wire(records: Vec<GangRecord>) -> Gangs {
    let hold = |record: GangRecord| {
        let hold = Hold {
            devices: record.devices.iter().map(|held| (WorkerId(held.worker), held.device)).collect(),
            until: Timestamp(record.until_ms),
            given_back: record.given_back,
            again_at: Timestamp(record.again_at_ms),
        };
        ((JobId(record.job), record.stage), hold)
    };
    records.into_iter().map(hold).collect()
}

/// A device is held for one stage at most, which waits for it, is no larger than its gang, and may run there.
pub fn holds_are_sound(state: &State) -> Result<(), String> {
    let mut held = BTreeSet::new();
    for ((id, index), hold) in &state.gangs {
        let what = || format!("the hold of job {id} stage {index}");
        let Some((spec, stage)) = state.jobs.get(id).and_then(|job| waiting_stage(job, *index)) else {
            return Err(format!("{} is of a stage that waits for none", what()));
        };
        if hold.devices.len() > size(spec, Some(stage.tasks().len())) || hold.devices.is_empty() != (hold.until == Timestamp(0)) {
            return Err(format!("{} is {hold:?}", what()));
        }
        for &(worker, device) in &hold.devices {
            let record = state.workers.get(&worker).filter(|worker| !worker.lost);
            let fits = record.and_then(|worker| Some(device_fits(spec, worker, worker.device(device)?)));
            if fits != Some(true) || !held.insert((worker, device)) {
                return Err(format!("{} has worker {worker} device {device}, which is gone, does not fit, or is held twice", what()));
            }
        }
    }
    Ok(())
}

/// A stage that begins as a gang has as many leases behind it, in the round under way, as its gang has devices, or none.
pub fn gangs_begin_whole(state: &State) -> Result<(), String> {
    for job in state.jobs.values().filter(|job| is_wanted(&job.spec)) {
        for (spec, stage) in job.spec.stages.iter().zip(&job.stages) {
            let of_round = stage.leases.saturating_sub(stage.earlier_leases);
            if of_round > 0 && of_round < size(spec, Some(stage.tasks().len())) as u64 {
                return Err(format!("stage '{}' of job {} began on {of_round} devices: {:?}", spec.name, job.id, spec.gang));
            }
        }
    }
    Ok(())
}
