//! A job and its phases.
//!
//! ```text
//!   running --(last stage complete, output)--> publishing --(in place)--> done
//!      |   ^                                       |  |
//!      |   +---(a decided part is lost for good)---+  +--(cannot publish)---> failed
//!      |--(last stage complete, no output)-------------------------------> done
//!      |   +--(the last stage of a round complete, and it is not the last round)--> running, see `rounds`
//!      |--(cancel)-------------------------------------------------------> cancelled
//!      +--(attempts used up, fatal cause)--------------------------------> failed
//! ```

use crate::cost::of_stage;
use crate::ids::{JobId, Timestamp, WorkerId};
use crate::rounds::Rounds;
use crate::spec;
use crate::split::tasks_of;
use crate::stage::Stage;
use prost::Message;
use raftwerk_proto::v1::{DeviceShare, JobSpec, OutputPart};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Running,
    /// Every part is prepared; this entry was the decision. Cancel comes too late. Only the loss of a part that nobody has seen published
    /// yet leads back to running.
    Publishing,
    Done {
        at: Timestamp,
    },
    Failed {
        at: Timestamp,
        cause: String,
    },
    Cancelled {
        at: Timestamp,
    },
}

impl Phase {
    pub fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Phase::Running | Phase::Publishing => None,
            Phase::Done { at } | Phase::Failed { at, .. } | Phase::Cancelled { at } => Some(*at),
        }
    }

    /// Why it failed; empty otherwise.
    pub fn cause(&self) -> &str {
        match self {
            Phase::Failed { cause, .. } => cause,
            _ => "",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: JobId,
    pub spec: JobSpec,
    /// Derived: encoded size of the spec.
    pub(crate) spec_bytes: u64,
    /// Derived: units of each stage's input, where the spec says; empty once the job has ended.
    pub(crate) units: Vec<Option<u64>>,
    pub idempotency_key: String,
    pub phase: Phase,
    pub submitted_at: Timestamp,
    pub stages: Vec<Stage>,
    /// Accepted parts of the last stage, by partition.
    pub parts: BTreeMap<u32, OutputPart>,
    /// Work per (stage, worker, device).
    pub shares: BTreeMap<(u32, WorkerId, u32), DeviceShare>,
    /// Workers that cannot do this job's work (an input they do not see, say).
    pub excluded: BTreeSet<WorkerId>,
    /// Devices that failed under it.
    pub excluded_devices: BTreeSet<(WorkerId, u32)>,
    /// Failed fetches per source worker since its data was last given up.
    pub source_failures: BTreeMap<WorkerId, u32>,
    /// Time of whole devices that it has had, with what was taken for it when it came: where the least served job of its namespace stood.
    pub served_ns: u64,
    /// When its last lease was granted.
    pub served_at: Timestamp,
    /// Of a job that runs its stages again and again.
    pub rounds: Option<Rounds>,
}

impl Job {
    /// A running job with its first stage open. The spec has been checked.
    pub fn new(id: JobId, spec: JobSpec, idempotency_key: String, submitted_at: Timestamp) -> Job {
        let mut stages: Vec<Stage> = Vec::with_capacity(spec.stages.len());
        for (index, stage) in spec.stages.iter().enumerate() {
            let before = index.checked_sub(1).map(|i| u64::from(spec.stages[i].partitions));
            let tasks = tasks_of(stage).or(before).unwrap_or(0);
            stages.push(Stage::new(tasks, stage.kernel.as_ref().map_or(0, |k| k.tallies.len())));
        }
        let rounds = spec.rounds.is_some().then(|| Rounds::new(&stages, submitted_at));
        let mut job = Job {
            id,
            spec_bytes: spec.encoded_len() as u64,
            units: spec.stages.iter().map(of_stage).collect(),
            spec,
            idempotency_key,
            phase: Phase::Running,
            submitted_at,
            stages,
            parts: BTreeMap::new(),
            shares: BTreeMap::new(),
            excluded: BTreeSet::new(),
            excluded_devices: BTreeSet::new(),
            source_failures: BTreeMap::new(),
            served_ns: 0,
            served_at: Timestamp(0),
            rounds,
        };
        job.advance(submitted_at);
        job
    }

    pub fn is_active(&self) -> bool {
        self.phase.ended_at().is_none()
    }

    /// Opens stages whose inputs are complete, and ends the job when the last one is.
    pub fn advance(&mut self, now: Timestamp) {
        if self.phase != Phase::Running {
            return;
        }
        for index in 0..self.stages.len() {
            let input_complete = index == 0 || self.stages[index - 1].is_complete();
            self.stages[index].open = input_complete && !self.stages[index].is_complete();
        }
        // The last stage decides: shuffle data lost after its last reader was accepted need not be made again.
        if self.stages.last().is_some_and(Stage::is_complete) {
            self.phase = if self.spec.output.is_some() { Phase::Publishing } else { Phase::Done { at: now } };
        }
    }

    /// Whether accepted tasks of this stage leave shuffle data on their worker.
    pub fn keeps_shuffle(&self, stage: usize) -> bool {
        self.spec.stages.get(stage).is_some_and(|s| s.partitions > 0)
    }

    /// Whether the shuffle data of this stage is still needed.
    pub fn shuffle_needed(&self, stage: usize) -> bool {
        self.keeps_shuffle(stage) && self.stages.get(stage + 1).is_some_and(|next| !next.is_complete())
    }

    pub fn max_attempts(&self) -> u32 {
        spec::max_attempts(&self.spec)
    }
}
