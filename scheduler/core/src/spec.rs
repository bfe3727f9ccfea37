//! What a job spec must satisfy before the state takes it. The command line says the same with line numbers; this is the check that counts.

use crate::apply::after;
use crate::cost;
use crate::device_match;
use crate::gang;
use crate::graph;
use crate::rounds;
use crate::split::tasks_of;
use raftwerk_proto::v1::{Capacity, IfExists, JobSpec, KernelKind, OutputSpec, StageInput, StageSpec, stage_input::Source};
use raftwerk_proto::{MAX_SURVEY_BYTES, OUTPUT_ON_WORKERS, STORE_SCHEMES, is_store_url};

/// Task numbers and their sums stay far from overflow.
pub const MAX_TASKS: u64 = 1_000_000_000_000;
/// Each partition costs every map task one index record.
pub const MAX_PARTITIONS: u32 = 65_536;
/// Of a job with a partition for each task: every task then has a block for each of them, if only an empty one.
pub const MAX_FILES: u32 = 10_000;
/// Tasks times partitions of a stage that reads input: every map task keeps an index record for every partition.
pub const MAX_SHUFFLE_BLOCKS: u64 = 1_000_000_000;
/// The worker that made it, and one more.
pub const MAX_SHUFFLE_REPLICAS: u32 = 2;
/// Workers that keep each part of a result that stays on workers.
pub const MAX_RESULT_COPIES: u32 = 5;
pub use crate::graph::MAX_STAGES;
/// Inputs of a stage beside the first; each is a descriptor in the message that defines the stage.
pub const MAX_SIDE_INPUTS: usize = 8;
/// A spec is part of one log entry, which is at most 1 MiB.
pub const MAX_SPEC_BYTES: usize = 900 * 1024;
pub const DEFAULT_MAX_ATTEMPTS: u32 = 4;
pub const DEVICE_CLASSES: [&str; 6] = ["any", "cpu", "gpu", "discrete", "integrated", "software"];

pub const DEFAULT_PRIORITY: u32 = 50;
pub const MAX_PRIORITY: u32 = 100;

/// Why a spec cannot become a job; the text names the field and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(pub String);

pub(crate) fn refuse<T>(text: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError(text.into()))
}

/// What one lease of the stage holds of a device when the spec does not say.
pub fn lease_amount(stage: &StageSpec) -> Capacity {
    let mut amount = stage.device.as_ref().and_then(|d| d.amount).unwrap_or_default();
    amount.slots = amount.slots.max(1);
    amount
}

/// The device class the stage asks for.
pub fn device_class(stage: &StageSpec) -> &str {
    match stage.device.as_ref().map(|d| d.class.as_str()) {
        None | Some("") => "any",
        Some(class) => class,
    }
}

pub fn max_attempts(spec: &JobSpec) -> u32 {
    if spec.max_attempts == 0 { DEFAULT_MAX_ATTEMPTS } else { spec.max_attempts }
}

pub fn priority(spec: &JobSpec) -> u32 {
    if spec.priority == 0 { DEFAULT_PRIORITY } else { spec.priority.min(MAX_PRIORITY) }
}

/// Checks everything that can be checked without looking at a cluster.
pub fn check(spec: &JobSpec) -> Result<(), SpecError> {
    if spec.stages.is_empty() {
        return refuse("the job has no stage; give it a [map] section");
    }
    if spec.stages.len() > MAX_STAGES {
        return refuse(format!("the job has {} stages; this version runs at most {MAX_STAGES}", spec.stages.len()));
    }
    if spec.namespace.is_empty() {
        return refuse("the job names no namespace; use \"default\"");
    }
    if spec.priority > MAX_PRIORITY {
        return refuse(format!("priority is {}; use 1 to {MAX_PRIORITY}, of which {DEFAULT_PRIORITY} is the usual one", spec.priority));
    }
    for (index, stage) in spec.stages.iter().enumerate() {
        check_stage(spec, index, stage)?;
    }
    let last = &spec.stages[spec.stages.len() - 1];
    if last.partitions != 0 {
        return refuse(format!("stage '{}' is the last one and cannot have partitions", last.name));
    }
    if let Some(output) = &spec.output {
        check_output(output)?;
    }
    rounds::check(spec)?;
    graph::check_readers(spec)?;
    after::check(spec)?;
    if spec.output.is_some() && last.kernel.as_ref().is_none_or(|kernel| kernel.kind() != KernelKind::Reduce) {
        return refuse("only a job with a reduce stage writes an output; remove [output] or add [reduce]");
    }
    let bytes = prost::Message::encoded_len(spec);
    if bytes > MAX_SPEC_BYTES {
        return refuse(format!(
            "the job spec with its input listing takes {bytes} bytes; the limit is {MAX_SPEC_BYTES}. Use fewer, larger input files"
        ));
    }
    Ok(())
}

fn check_output(output: &OutputSpec) -> Result<(), SpecError> {
    let on_workers = output.url == OUTPUT_ON_WORKERS;
    let in_store = is_store_url(&output.url);
    if !on_workers && !in_store && !output.url.starts_with("file:///") {
        return refuse(format!(
            "output url must begin with file:/// (an absolute path) or with {}, or be worker:; other stores are not supported by this version",
            STORE_SCHEMES.join(", ")
        ));
    }
    if in_store && output.if_exists() == IfExists::Replace {
        return refuse("an output in a store is not replaced; give a prefix that is not in use");
    }
    if !on_workers && output.copies != 0 {
        return refuse("only an output that stays on the workers (worker:) has copies; take them out");
    }
    if output.copies > MAX_RESULT_COPIES {
        return refuse(format!("output: copies must be at most {MAX_RESULT_COPIES}"));
    }
    Ok(())
}

/// Gives a stage that asks for a partition per task as many as its listed input makes tasks. What is asked is taken out: the log holds numbers.
pub fn count_partitions(spec: &mut JobSpec) -> Result<(), SpecError> {
    for stage in spec.stages.iter_mut().filter(|stage| stage.partition_per_task) {
        stage.partition_per_task = false;
        let tasks = tasks_of(stage).unwrap_or(0);
        stage.partitions = match u32::try_from(tasks) {
            Ok(partitions) if partitions <= MAX_FILES => partitions.max(1),
            _ => {
                return refuse(format!(
                    "the job would write {tasks} files, one for each task; the limit is {MAX_FILES}: cut it into several jobs"
                ));
            }
        };
    }
    Ok(())
}

/// What a submission may make of shuffle data, once its input is listed. Asked before the log: jobs that are in it stay what they are.
pub fn check_blocks(spec: &JobSpec) -> Result<(), SpecError> {
    for stage in &spec.stages {
        let (tasks, partitions) = (tasks_of(stage).unwrap_or(0), stage.partitions);
        if tasks.saturating_mul(partitions.into()) > MAX_SHUFFLE_BLOCKS {
            return refuse(format!(
                "stage '{}' has {tasks} tasks, which times {partitions} partitions makes more than {MAX_SHUFFLE_BLOCKS} shuffle blocks; use larger \
                 splits (input.split) or fewer partitions",
                stage.name
            ));
        }
    }
    Ok(())
}

/// Takes out what came with format 4 and nobody has asked for: what placement by cost needs to know of a stage, and how many files were listed.
pub fn forget_derived(spec: &mut JobSpec) {
    for stage in &mut spec.stages {
        stage.footprint.clear();
        stage.memory = None;
        for input in &mut stage.inputs {
            if let Some(Source::Files(files)) = &mut input.source {
                (files.listed_files, files.listed_bytes) = (0, 0);
            }
        }
    }
}

/// Footprints are part of the keys under which costs are remembered.
pub fn check_footprints(spec: &JobSpec) -> Result<(), SpecError> {
    match spec.stages.iter().find(|stage| stage.footprint.len() > cost::MAX_TEXT) {
        Some(stage) => refuse(format!("stage '{}': a footprint has at most {} bytes", stage.name, cost::MAX_TEXT)),
        None => Ok(()),
    }
}

/// Results and shares are kept by the stage's name.
pub fn check_names(spec: &JobSpec) -> Result<(), SpecError> {
    match spec.stages.iter().enumerate().find(|(n, stage)| spec.stages[..*n].iter().any(|earlier| earlier.name == stage.name)) {
        Some((_, stage)) => refuse(format!("two stages are called '{}'; give each a name of its own", stage.name)),
        None => Ok(()),
    }
}

fn check_stage(spec: &JobSpec, index: usize, stage: &StageSpec) -> Result<(), SpecError> {
    let name = &stage.name;
    let Some(kernel) = &stage.kernel else { return refuse(format!("stage '{name}' names no kernel")) };
    let class = device_class(stage);
    if !DEVICE_CLASSES.contains(&class) {
        return refuse(format!("stage '{name}' asks for device class '{class}'; use one of {}", DEVICE_CLASSES.join(", ")));
    }
    if stage.shuffle_replicas > MAX_SHUFFLE_REPLICAS {
        return refuse(format!("stage '{name}' asks for {} places of its shuffle data; 1 and 2 are possible", stage.shuffle_replicas));
    }
    if stage.shuffle_replicas > 1 && stage.partitions == 0 {
        return refuse(format!("stage '{name}' makes no shuffle data, so shuffle_replicas means nothing there; take it out"));
    }
    if stage.survey.len() > MAX_SURVEY_BYTES {
        let bytes = stage.survey.len();
        return refuse(format!(
            "stage '{name}': the survey of its input has {bytes} bytes, more than {MAX_SURVEY_BYTES}; use fewer partitions"
        ));
    }
    device_match::check(stage)?;
    gang::check(stage)?;
    if stage.reproducible && class == "any" {
        return refuse(format!("stage '{name}' is to be reproducible, so it needs the class of its devices: \"cpu\", or one of the GPUs"));
    }
    let Some((input, sides)) = stage.inputs.split_first() else { return refuse(format!("stage '{name}' must have an input")) };
    if !graph::joins(stage) {
        check_sides(stage, sides)?;
    }
    match &input.source {
        Some(Source::Stage(_)) => graph::check_inputs(spec, index)?,
        Some(source) => {
            if kernel.kind() != KernelKind::Map {
                return refuse(format!("stage '{name}' reads input, so kernel '{}' must be a map kernel", kernel.name));
            }
            let tasks = tasks_of(stage).unwrap_or(0);
            if tasks > MAX_TASKS {
                return refuse(format!("stage '{name}' would have {tasks} tasks; the limit is {MAX_TASKS}"));
            }
            if let Source::Range(range) = source {
                if range.tasks == 0 && range.count > 0 {
                    return refuse("input range: tasks must be at least 1");
                }
                if range.start.checked_add(range.count).is_none() {
                    return refuse("input range: start + count must fit 64 bits");
                }
            }
        }
        None => return refuse(format!("the input of stage '{name}' has no source")),
    }
    Ok(())
}

/// Inputs that every task reads whole. Their files are listed like those of the first; before that the listing is empty.
fn check_sides(stage: &StageSpec, sides: &[StageInput]) -> Result<(), SpecError> {
    let name = &stage.name;
    if sides.is_empty() {
        return Ok(());
    }
    if stage.kernel.as_ref().is_some_and(|kernel| kernel.kind() == KernelKind::Reduce) {
        return refuse(format!("stage '{name}' reads a shuffle and can have no side input"));
    }
    if sides.len() > MAX_SIDE_INPUTS {
        return refuse(format!("stage '{name}' has {} side inputs; at most {MAX_SIDE_INPUTS} are possible", sides.len()));
    }
    for (number, side) in stage.inputs.iter().enumerate().skip(1) {
        if side.name.is_empty() || stage.inputs[..number].iter().any(|earlier| earlier.name == side.name) {
            return refuse(format!("stage '{name}': each side input needs a name of its own, not '{}'", side.name));
        }
        let Some(Source::Files(files)) = &side.source else {
            return refuse(format!("stage '{name}': side input '{}' must be a file", side.name));
        };
        // Thousands of them may be one line.
        let listed = files.listing.iter().map(|file| file.pack_files.max(1)).fold(0, u64::saturating_add);
        if listed > 1 {
            return refuse(format!("stage '{name}': side input '{}' is one file, and {listed} match its path", side.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{IndexRange, StageInput};

    fn asking(tasks: u64) -> JobSpec {
        let source = Source::Range(IndexRange { start: 0, count: tasks, tasks });
        let inputs = vec![StageInput { name: "input".into(), source: Some(source) }];
        let map = StageSpec { inputs, partitions: 1, partition_per_task: true, ..StageSpec::default() };
        JobSpec { stages: vec![map, StageSpec::default()], ..JobSpec::default() }
    }

    #[test]
    fn a_partition_per_task_becomes_a_number() {
        for (tasks, partitions) in [(0, 1), (1, 1), (7, 7), (10_000, 10_000)] {
            let mut spec = asking(tasks);
            count_partitions(&mut spec).unwrap();
            assert_eq!((spec.stages[0].partitions, spec.stages[0].partition_per_task), (partitions, false));
            assert_eq!(spec.stages[1], StageSpec::default(), "a stage that does not ask stays as it is");
        }
    }

    #[test]
    fn more_blocks_than_an_index_can_hold_are_refused() {
        let spec = |tasks, partitions| {
            let mut spec = asking(tasks);
            (spec.stages[0].partition_per_task, spec.stages[0].partitions) = (false, partitions);
            spec
        };
        assert_eq!(check_blocks(&spec(100_000, 10_000)), Ok(()));
        let message = check_blocks(&spec(100_001, 10_000)).unwrap_err().0;
        assert!(message.contains("100001 tasks, which times 10000 partitions"), "{message}");
        check_blocks(&spec(u64::MAX, 2)).unwrap_err();
    }

    #[test]
    fn more_files_than_possible_are_refused() {
        for tasks in [10_001, u64::MAX] {
            let message = count_partitions(&mut asking(tasks)).unwrap_err().0;
            assert!(message.starts_with(&format!("the job would write {tasks} files")), "{message}");
        }
    }
}
