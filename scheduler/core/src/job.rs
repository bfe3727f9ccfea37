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
use crate::graph::{Graph, tasks_of_stage};
use crate::ids::{JobId, Timestamp, WorkerId};
use crate::rounds::Rounds;
use crate::spec;
use crate::stage::Stage;
use prost::Message;
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{DeviceShare, JobSpec, KernelKind, OutputPart};
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
    /// Derived: which stage reads which.
    pub(crate) graph: Graph,
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
    /// Jobs that have not ended, and after which it starts.
    pub waiting_for: BTreeSet<JobId>,
}

impl Job {
    /// A running job with the stages open that read input. The spec has been checked.
    pub fn new(id: JobId, spec: JobSpec, idempotency_key: String, submitted_at: Timestamp) -> Job {
        let mut stages: Vec<Stage> = Vec::with_capacity(spec.stages.len());
        for (index, stage) in spec.stages.iter().enumerate() {
            let tasks = tasks_of_stage(&spec, index).unwrap_or(0);
            stages.push(Stage::new(tasks, stage.kernel.as_ref().map_or(0, |k| k.tallies.len())));
        }
        let rounds = spec.rounds.is_some().then(|| Rounds::new(&stages, submitted_at));
        let mut job = Job {
            id,
            spec_bytes: spec.encoded_len() as u64,
            units: spec.stages.iter().map(of_stage).collect(),
            graph: Graph::of(&spec),
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
            waiting_for: BTreeSet::new(),
        };
        // Whoever makes one that starts after others knows whether these have ended.
        if job.spec.after.is_none() {
            job.advance(submitted_at);
        }
        job
    }

    pub fn is_active(&self) -> bool {
        self.phase.ended_at().is_none()
    }

    /// Opens stages whose inputs are complete, and ends the job when the last one is.
    pub fn advance(&mut self, now: Timestamp) {
        if self.phase != Phase::Running || !self.waiting_for.is_empty() {
            return;
        }
        let wanted = self.wanted();
        for index in 0..self.stages.len() {
            let inputs = self.graph.inputs(index);
            let complete = |from: &usize| self.stages[*from].is_complete();
            let inputs_complete = inputs.iter().all(complete) || (planted::on(Bug::OpenEarly) && inputs.iter().any(complete));
            // Of two stages the first counted as open to the end of the job, wanted or not.
            let of_use = !self.is_beyond_two() || wanted & (1 << index) != 0;
            self.stages[index].open = inputs_complete && of_use && !self.stages[index].is_complete();
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

    /// Whether the shuffle data of this stage is still needed, or its parts.
    pub fn shuffle_needed(&self, stage: usize) -> bool {
        let is_last = stage + 1 >= self.stages.len();
        !is_last && self.keeps_shuffle(stage) && self.wanted() & (1 << stage) != 0
    }

    /// Stages that this one reads, in the order of its inputs.
    pub fn inputs_of(&self, stage: usize) -> &[usize] {
        self.graph.inputs(stage)
    }

    /// Whether the stage reads the parts of a reduce stage, its tasks one each.
    pub fn reads_parts(&self, stage: usize) -> bool {
        let from = self.inputs_of(stage).first().and_then(|from| self.spec.stages.get(*from));
        from.and_then(|from| from.kernel.as_ref()).is_some_and(|kernel| kernel.kind() == KernelKind::Reduce)
    }

    /// Whether it has more stages than one map and one reduce, which only entries of format 4 and later do. Its rules for what is lost are
    /// stricter: what nobody needs now may be needed again, when a stage that has read it loses what it made.
    pub(crate) fn is_beyond_two(&self) -> bool {
        self.stages.len() > 2
    }

    /// Stages whose output some stage that is wanted itself has still to read, and the last one; a bit for each.
    fn wanted(&self) -> u32 {
        let Some(last) = self.stages.len().checked_sub(1) else { return 0 };
        let mut wanted = 1u32 << last;
        for index in (0..last).rev() {
            if self.graph.readers(index).iter().any(|reader| wanted & (1 << reader) != 0 && !self.stages[*reader].is_complete()) {
                wanted |= 1 << index;
            }
        }
        wanted
    }

    pub fn max_attempts(&self) -> u32 {
        spec::max_attempts(&self.spec)
    }
}
