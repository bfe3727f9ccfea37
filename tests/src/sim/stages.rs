//! Jobs of several stages: which stage reads which, and what each task must come to when it has read all that it should.
//!
//! ```text
//!   map ──shuffle──> reduce ──parts──> again ──shuffle──+
//!   other ──shuffle─────────────────────────────────────+──> join ──> the output
//! ```
//! A task leaves a checksum over its place in the job and over what it has read. So what it must leave can be said beforehand, from the spec alone: a
//! task that has read too little, or another stage's data, leaves something else, and so does everything behind it.

use super::Sim;
use super::audit::audit;
use raftwerk_core::{Job, JobId};
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{Grant, JobSpec, KernelKind, StageInput, StageOutput, StageSpec};

/// Names of the stages of a simulated job, in their order.
const NAMES: [&str; 5] = ["map", "reduce", "again", "other", "join"];

/// The place of a stage in its job.
pub(super) fn stage_called(name: &str) -> u32 {
    NAMES.iter().position(|stage| *stage == name).unwrap_or(0) as u32
}

pub(super) fn reading(stages: &[&str]) -> Vec<StageInput> {
    let source = |stage: &&str| Some(Source::Stage(StageOutput { stage: stage.to_string() }));
    stages.iter().map(|stage| StageInput { name: stage.to_string(), source: source(stage) }).collect()
}

/// Three stages more behind map and reduce, the last of which joins two in so many partitions.
pub(super) fn join(spec: &mut JobSpec, partitions: u32) {
    let (map, reduce) = (spec.stages[0].clone(), spec.stages[1].clone());
    (spec.stages[1].partitions, spec.stages[1].shuffle_replicas) = (map.partitions, map.shuffle_replicas);
    spec.stages.push(StageSpec { name: NAMES[2].into(), inputs: reading(&[NAMES[1]]), partitions, ..map.clone() });
    spec.stages.push(StageSpec { name: NAMES[3].into(), partitions, ..map });
    spec.stages.push(StageSpec { name: NAMES[4].into(), inputs: reading(&[NAMES[2], NAMES[3]]), ..reduce });
}

/// What an executor is told that its stage reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// Places of the stages, in the order of the inputs.
    pub(super) stages: Vec<u32>,
    /// A task reads the part of its own number, and not something of all.
    pub(super) parts: bool,
}

impl Reads {
    pub(super) fn of(spec: &StageSpec) -> Reads {
        let stages = spec.inputs.iter().filter_map(|input| match &input.source {
            Some(Source::Stage(from)) => Some(stage_called(&from.stage)),
            _ => None,
        });
        let stages: Vec<u32> = stages.collect();
        let is_map = spec.kernel.as_ref().is_some_and(|kernel| kernel.kind() == KernelKind::Map);
        Reads { parts: is_map && !stages.is_empty(), stages }
    }
}

/// What a task leaves that has read this, a sum for each input.
pub(super) fn content(stage: u32, task: u64, read: &[u32]) -> u32 {
    let place = crc32c::crc32c(&[stage.to_le_bytes().as_slice(), &task.to_le_bytes()].concat());
    read.iter().fold(place, |sum, read| crc32c::crc32c_append(sum, &read.to_le_bytes()))
}

/// What the task must leave.
pub(super) fn expected(job: &Job, stage: usize, task: u64) -> u32 {
    let of_input = |from: &usize| match job.reads_parts(stage) {
        true => expected(job, *from, task),
        false => (0..job.stages[*from].tasks().len()).map(|task| expected(job, *from, task)).fold(0, u32::wrapping_add),
    };
    let read: Vec<u32> = job.inputs_of(stage).iter().map(of_input).collect();
    content(stage as u32, task, &read)
}

impl Sim {
    /// A grant names, of each stage that its lease reads, every task once; of parts, those of its own tasks. What is lost and not made again yet is
    /// named too, with nobody who has it: whoever looks for it fails, and leaves nothing out.
    pub(super) fn check_sources(&self, grant: &Grant) {
        const NAME: &str = "a_grant_names_all_that_its_tasks_read";
        let latest = audit(|a| a.latest());
        let Some(job) = latest.as_ref().and_then(|s| s.jobs.get(&JobId(grant.job))) else { return };
        let stage = grant.stage as usize;
        for (input, from) in job.inputs_of(stage).iter().enumerate() {
            let of_input = grant.sources.iter().filter(|source| source.input as usize == input);
            let mut ranges: Vec<(u64, u64)> = of_input.map(|s| (s.first_task, s.first_task + s.task_count)).collect();
            ranges.sort_unstable();
            let (first, end) = match job.reads_parts(stage) {
                true => (grant.first_task, grant.first_task + grant.task_count),
                false => (0, job.stages[*from].tasks().len()),
            };
            let mut next = first;
            let joined = ranges.iter().all(|(first, end)| std::mem::replace(&mut next, *end) == *first);
            if !joined || next != end {
                let what = format!("stage {stage} of job {} reads {ranges:?} of stage {from}, which has {first}..{end} for it", grant.job);
                audit(|a| a.violate(NAME, what));
            }
        }
    }
}
