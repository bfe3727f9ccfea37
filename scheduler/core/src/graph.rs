//! Which stage of a job reads which.
//!
//! ```text
//!   index range or files ──> map ──shuffle──> reduce ──parts──> map ──shuffle──+
//!   index range or files ──> map ──shuffle─────────────────────────────────────+──> reduce (joins two) ──> output of the job
//! ```
//! A stage reads earlier ones only, so the order of the spec is an order in which they can run. A reduce stage reads shuffle data of map stages:
//! task p gets partition p of each. A map stage reads the parts of a reduce stage: task i gets part i, which lies where any shuffle data lies, as the
//! block of partition i of task i. So whatever becomes of shuffle data becomes of parts: generations, copies, losses.

use crate::spec::{MAX_PARTITIONS, SpecError, refuse};
use crate::split::tasks_of;
use raftwerk_proto::v1::{JobSpec, KernelKind, StageInput, StageSpec, stage_input::Source};

/// Bits of a number stand for stages.
pub const MAX_STAGES: usize = 16;
/// Stages of which a reduce stage may read partitions at once.
const MAX_SIDES_OF_A_JOIN: usize = 2;

/// Derived from a spec: indices of the stages that each stage reads, in the order of its inputs, and of those that read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    inputs: Vec<Vec<usize>>,
    readers: Vec<Vec<usize>>,
}

impl Graph {
    pub fn of(spec: &JobSpec) -> Graph {
        let inputs: Vec<Vec<usize>> = (0..spec.stages.len()).map(|stage| producers(spec, stage).collect()).collect();
        let readers = (0..spec.stages.len())
            .map(|stage| (0..spec.stages.len()).filter(|reader| inputs[*reader].contains(&stage)).collect())
            .collect();
        Graph { inputs, readers }
    }

    /// Stages that this one reads, in the order of its inputs.
    pub fn inputs(&self, stage: usize) -> &[usize] {
        self.inputs.get(stage).map_or(&[], Vec::as_slice)
    }

    pub fn readers(&self, stage: usize) -> &[usize] {
        self.readers.get(stage).map_or(&[], Vec::as_slice)
    }
}

/// Name of the stage that an input is the output of.
fn stage_of(input: &StageInput) -> Option<&str> {
    match &input.source {
        Some(Source::Stage(from)) => Some(&from.stage),
        _ => None,
    }
}

/// An earlier stage by its name.
fn earlier(spec: &JobSpec, stage: usize, name: &str) -> Option<usize> {
    spec.stages.iter().take(stage).position(|earlier| earlier.name == name)
}

fn producers(spec: &JobSpec, stage: usize) -> impl Iterator<Item = usize> + '_ {
    spec.stages.get(stage).into_iter().flat_map(|s| &s.inputs).filter_map(stage_of).filter_map(move |name| earlier(spec, stage, name))
}

/// Tasks of a stage: those that its range or its listed files make, or one for each partition, or part, of the stage that it reads.
pub fn tasks_of_stage(spec: &JobSpec, stage: usize) -> Option<u64> {
    let own = spec.stages.get(stage).and_then(tasks_of);
    own.or_else(|| producers(spec, stage).next().map(|from| u64::from(spec.stages[from].partitions)))
}

fn kind(stage: &StageSpec) -> KernelKind {
    stage.kernel.as_ref().map_or(KernelKind::Unspecified, |kernel| kernel.kind())
}

/// Whether only builds that know jobs of more than two stages run such a stage right: one that joins, reads parts, or makes some for another stage.
pub fn is_beyond_two(stage: &StageSpec) -> bool {
    let reads_stage = |place: usize| stage.inputs.get(place).is_some_and(|input| stage_of(input).is_some());
    let makes_parts = kind(stage) == KernelKind::Reduce && stage.partitions > 0;
    makes_parts || reads_stage(1) || (reads_stage(0) && kind(stage) == KernelKind::Map)
}

/// Whether the stage reads what another one made, and no input of the job.
pub(crate) fn reads_a_stage(stage: &StageSpec) -> bool {
    stage.inputs.first().is_some_and(|input| stage_of(input).is_some())
}

/// Whether the stage's inputs beside the first are stages too.
pub(crate) fn joins(stage: &StageSpec) -> bool {
    stage.inputs.len() > 1 && stage.inputs.iter().all(|input| stage_of(input).is_some())
}

/// What a stage that reads other stages must satisfy. Those before it have been checked.
pub(crate) fn check_inputs(spec: &JobSpec, index: usize) -> Result<(), SpecError> {
    let stage = &spec.stages[index];
    let (name, kernel) = (&stage.name, stage.kernel.as_ref().map_or("", |kernel| &kernel.name));
    let names: Vec<&str> = stage.inputs.iter().filter_map(stage_of).collect();
    if names.len() > MAX_SIDES_OF_A_JOIN {
        return refuse(format!(
            "stage '{name}' reads {} stages; at most {MAX_SIDES_OF_A_JOIN} can be joined: join the others in a stage of their own",
            names.len()
        ));
    }
    let mut sides: Vec<usize> = Vec::with_capacity(names.len());
    for from in names {
        let Some(producer) = earlier(spec, index, from) else {
            return match index {
                0 => refuse(format!("stage '{name}' is the first and cannot read another stage")),
                _ => refuse(format!("stage '{name}' reads stage '{from}', which is not an earlier stage")),
            };
        };
        if sides.contains(&producer) {
            return refuse(format!("stage '{name}' joins stage '{from}' with itself; give it two stages"));
        }
        sides.push(producer);
    }
    for &side in &sides {
        let from = &spec.stages[side];
        match (kind(from), kind(stage)) {
            (KernelKind::Reduce, KernelKind::Reduce) => {
                return refuse(format!(
                    "stage '{name}' has reduce kernel '{kernel}' and reads the parts of stage '{}'; put a stage with a map kernel between them",
                    from.name
                ));
            }
            (KernelKind::Reduce, _) if sides.len() > 1 => {
                return refuse(format!("stage '{name}' reads the parts of stage '{}' and can read no other stage beside them", from.name));
            }
            (KernelKind::Reduce, _) if kind(stage) != KernelKind::Map => {
                return refuse(format!("stage '{name}' reads parts, so kernel '{kernel}' must be a map kernel"));
            }
            (KernelKind::Reduce, _) => {}
            (_, KernelKind::Reduce) => {}
            _ => return refuse(format!("stage '{name}' reads a shuffle, so kernel '{kernel}' must be a reduce kernel")),
        }
        if from.partitions == 0 {
            return refuse("partitions must be at least 1");
        }
        if from.partitions > MAX_PARTITIONS {
            return refuse(format!("partitions must be at most {MAX_PARTITIONS}"));
        }
    }
    if let [left, right] = sides[..] {
        let (left, right) = (&spec.stages[left], &spec.stages[right]);
        if left.partitions != right.partitions {
            return refuse(format!(
                "stage '{name}' joins stage '{}', which has {} partitions, with stage '{}', which has {}; give both the same number",
                left.name, left.partitions, right.name, right.partitions
            ));
        }
    }
    if kind(stage) == KernelKind::Reduce && index + 1 < spec.stages.len() {
        // The part of a task is the block of its own partition.
        let tasks = tasks_of_stage(spec, index).unwrap_or(0);
        if u64::from(stage.partitions) != tasks {
            return refuse(format!(
                "stage '{name}' makes {tasks} parts for another stage, and says that it has {} partitions",
                stage.partitions
            ));
        }
    }
    Ok(())
}

/// Every stage but the last is read by another one.
pub(crate) fn check_readers(spec: &JobSpec) -> Result<(), SpecError> {
    let graph = Graph::of(spec);
    match (0..spec.stages.len().saturating_sub(1)).find(|stage| graph.readers(*stage).is_empty()) {
        None => Ok(()),
        Some(stage) => refuse(format!(
            "nobody reads stage '{}', and it is not the last one; let a later stage read it, or make a job of its own of it",
            spec.stages[stage].name
        )),
    }
}
