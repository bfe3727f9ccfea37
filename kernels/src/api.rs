//! What a kernel is: the contract between `kernels/` and the executor that runs them.
//!
//! A kernel has a name, a version, typed parameters, a kind and one or two twins. The executor prepares it once per stage
//! ([`Kernel::prepare`]) and then runs tasks on the result. Output is **per task**: nothing is combined across tasks, so the bytes
//! do not depend on how tasks were grouped into leases.

use std::cmp::Ordering;

use raftwerk_formats::{FormatError, Table, Wanted};

use crate::gpu::Gpu;
pub use crate::listed::{InputProblem, ListedArray, ListedInput};
pub use crate::round::{Kept, RoundEnd};
pub use crate::side::{SideInput, SideSpec};

/// Map kernels turn a split into shuffle blocks (one per partition) and tallies; reduce kernels turn one partition's blocks, in task
/// order, into one output part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Map,
    Reduce,
}

/// What a kernel reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// One of several, which the job file's `format` chooses; the first is the usual one. Not nested.
    AnyOf(&'static [Accepts]),
    /// Whole records of a fixed length, which the job file gives.
    Records,
    /// A range of integers.
    Index,
    /// Whole lines of text.
    Text,
    /// The same, and of which file they are.
    PlacedText,
    /// Fixed-size elements of an `.npy` file with one of these dtypes (`"u1"`, `"u4"`, `"u8"`, `"f4"`).
    Npy(&'static [&'static str]),
    /// Whole rows of two-dimensional `.npy` arrays with one of these dtypes.
    Rows(&'static [&'static str]),
    /// Whole `.png` files of the kind that [`crate::png_file`] describes; each is one task.
    Png,
    /// Rows of tables, of which it asks for some columns ([`Prepared::columns`]).
    Table,
    /// Shuffle blocks of an earlier stage.
    Shuffle,
    /// Shuffle blocks of two earlier stages with the same number of partitions, which it joins by key.
    TwoShuffles,
}

/// How far the twins agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The same bytes on every device.
    Exact,
    /// Equal up to the bound that the text states.
    Bounded(&'static str),
}

/// The type of a parameter, with its limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParamType {
    U64 { min: u64, max: u64 },
    F64 { min: f64, max: f64 },
    Text,
    Choice(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug)]
pub struct ParamSpec {
    pub name: &'static str,
    pub kind: ParamType,
    /// `None`: the user must give it.
    pub default: Option<&'static str>,
    pub doc: &'static str,
}

/// What is known of a kernel without running it.
#[derive(Debug)]
pub struct Descriptor {
    pub name: &'static str,
    /// Raised by a release in which the same input and parameters give other bytes, or whose shuffle data the kernel's partners of the release before would
    /// misread: a job names it, and tasks go only to workers that have this very version. Between releases it stays, so until the first one all are 1.
    pub version: u32,
    pub kind: Kind,
    pub summary: &'static str,
    pub accepts: Accepts,
    pub params: &'static [ParamSpec],
    /// Names of the per-task `u64` values every task returns; the scheduler sums them exactly over accepted tasks.
    pub tallies: &'static [&'static str],
    /// Map: whether tasks write shuffle blocks (a map kernel without them gives tallies only and must be the last stage).
    pub shuffles: bool,
    /// Reduce: output formats it can write ("csv", "jsonl", "npy", "png"); the first is the default.
    pub formats: &'static [&'static str],
    /// Map: reduce kernels its blocks are made for, the usual one first.
    pub reduces_with: &'static [&'static str],
    /// Map: parameters its reduce gets unless the job sets them, so that a table of words is headed "word" and not "key". Names the
    /// chosen reduce kernel does not know are skipped, see [`crate::reduce_params`].
    pub reduce_defaults: &'static [(&'static str, &'static str)],
    pub gpu: bool,
    pub agreement: Agreement,
}

/// Parameters of one stage as text, by name; complete and validated by [`crate::resolve_params`].
pub type Params = std::collections::BTreeMap<String, String>;

/// What is the same for all tasks of a stage.
#[derive(Clone, Debug, Default)]
pub struct StageContext {
    pub params: Params,
    /// Number of tasks in the stage.
    pub tasks: u64,
    /// Map with shuffle: number of partitions, at least 1.
    pub partitions: u32,
    /// Reduce: output format, one of [`Descriptor::formats`].
    pub format: String,
    /// The job wants the same bytes whichever machine of the class it asked for runs a task. A kernel whose twins are bounded then takes
    /// the way that gives them, if it has a faster one that does not.
    pub reproducible: bool,
    /// The arrays of [`Kernel::sides`], which all tasks share. None at submit, where parameters alone are checked.
    pub sides: Vec<SideInput>,
    /// Of an input of fixed-size records; 0 for every other.
    pub record_bytes: u32,
    /// What [`Kernel::survey`] made of the input. Empty at submit, where parameters alone are checked.
    pub survey: Vec<u8>,
}

/// The integers `start .. start + count` that a job's tasks share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    pub start: u64,
    pub count: u64,
}

/// One end of a range, for a message that names the key to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeField {
    Start,
    Count,
}

/// Why a range does not go with the parameters. The texts go on where the field's name stands: "count .. is 0, but ..".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeProblem {
    pub field: RangeField,
    pub message: String,
    pub fix: String,
}

/// Bytes of one lease on a GPU: `fixed` + `per_task` * tasks + `per_kilo_unit` * units / 1024, and at most `most`. Units are integers of a range,
/// or input bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuNeed {
    pub fixed: u64,
    pub per_task: u64,
    pub per_kilo_unit: u64,
    /// Where a lease takes no more however long it is, because its dispatches follow one another.
    pub most: Option<u64>,
}

impl GpuNeed {
    pub fn bytes(&self, tasks: u64, units: u64) -> u64 {
        let of_units = u128::from(self.per_kilo_unit) * u128::from(units) / 1024;
        let all = u128::from(self.fixed) + u128::from(self.per_task) * u128::from(tasks) + of_units;
        u64::try_from(all).unwrap_or(u64::MAX).min(self.most.unwrap_or(u64::MAX))
    }
}

/// A small map job that shows what the kernel costs: a second or so on one core, in some 64 tasks.
#[derive(Clone, Copy, Debug)]
pub struct Standard {
    pub params: &'static [(&'static str, &'static str)],
    pub input: StandardInput,
}

#[derive(Clone, Copy, Debug)]
pub enum StandardInput {
    Range {
        count: u64,
        tasks: u64,
    },
    /// Words of chance, split into parts of so many bytes.
    Text {
        bytes: u64,
        split: u64,
    },
    /// Elements of chance.
    Npy {
        dtype: &'static str,
        bytes: u64,
        split: u64,
    },
    /// Rows of so many elements of chance, and the same for side inputs: name and shape of each.
    Rows {
        dtype: &'static str,
        columns: u64,
        bytes: u64,
        split: u64,
        sides: &'static [(&'static str, [u64; 2])],
    },
}

pub trait Kernel: Send + Sync {
    fn descriptor(&self) -> &'static Descriptor;

    /// Parses the parameters; the result is shared by all tasks of the stage. Cheap.
    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError>;

    /// Whether jobs with rounds may use it: a map kernel that reads what the round before has left, a reduce kernel that leaves something.
    fn rounds(&self) -> bool {
        false
    }

    /// As [`Kernel::prepare`], for a round after the first: `state` is what the reduce kernel left at the end of the round before, `kept` what an
    /// earlier round of the same stage kept on this device ([`Prepared::kept`]), if there was one and it is still there.
    fn prepare_round(&self, _stage: &StageContext, _state: &[u8], _kept: Option<Kept>) -> Result<Box<dyn Prepared>, KernelError> {
        Err(KernelError::Param(format!("kernel '{}' knows no rounds", self.descriptor().name)))
    }

    /// Arrays that every task reads whole, beside its own input. A job must give those that are required.
    fn sides(&self) -> &'static [SideSpec] {
        &[]
    }

    /// Map, of files: whether its tasks must know something of the input as a whole, see [`Kernel::survey`].
    fn surveys(&self) -> bool {
        false
    }

    /// What tasks are to know of the input as a whole, such as where to cut the range of its keys: every task finds it as
    /// [`StageContext::survey`]. Asked once, when the input is listed. `samples` are some thousand records, rows, elements or lines (with their ends;
    /// a very long one may be cut) from places that depend on the input alone; none of an empty input. The answer must follow from the
    /// arguments, and is refused above 288 KiB; it is made in the worker's agent, so it must be quick.
    fn survey(&self, _stage: &StageContext, _samples: &[&[u8]]) -> Result<Vec<u8>, KernelError> {
        Err(KernelError::Param(format!("kernel '{}' knows no survey", self.descriptor().name)))
    }

    /// Looks at the range of integers that a job gives a map kernel, for rules that parameters and range make together, such as an image
    /// whose rows the integers are. Asked once, at submit, with complete parameters.
    fn check_range(&self, _params: &Params, _range: &IndexRange) -> Result<(), RangeProblem> {
        Ok(())
    }

    /// Looks at the arrays that a job gives a map kernel, for rules beyond their types, such as matrices that must fit each other. Asked when the
    /// input is listed, through [`crate::check_listed`], with complete parameters.
    fn check_listed(&self, _params: &Params, _input: &ListedInput) -> Result<(), InputProblem> {
        Ok(())
    }

    /// What of the arrays' shapes matters for what a task of some size costs, in a word or two: "n=512".
    fn listed_footprint(&self, _input: &ListedInput) -> String {
        String::new()
    }

    /// Names of parameters that change nothing about what a task costs, such as a seed: measured costs are kept apart by the others.
    fn costless_params(&self) -> &'static [&'static str] {
        &[]
    }

    /// What one lease takes of a GPU's memory: buffers of the dispatches that are there together, and what stays there beside them. Without it a
    /// lease is as long as its time allows, and one that does not fit is found out by running it. Asked when a job is made, without its input, and
    /// again when that has been listed, if it is of arrays: the answer may be better then.
    fn gpu_memory(&self, _params: &Params, _input: Option<&ListedInput>) -> Option<GpuNeed> {
        None
    }

    /// What `raftwerk doctor --calibrate` runs; nothing for a kernel whose cost is that of its parameters.
    fn standard(&self) -> Option<Standard> {
        None
    }

    /// Reduce: whether it wants a partition for each map task. The job then says no number; it is counted when the input is listed.
    fn partition_per_task(&self) -> bool {
        false
    }

    /// Reduce: which of two preview rows of equal weight comes first. Must be the order in which a part chose among its own rows, or the
    /// rows shown would depend on the number of partitions.
    fn compare_preview(&self, _params: &Params, a: &[String], b: &[String]) -> Ordering {
        a.cmp(b)
    }

    /// Turns final tallies (summed over all tasks, in descriptor order) into lines for a person, for example an estimate.
    fn present_tallies(&self, _params: &Params, _tallies: &[u128]) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// A kernel with its parameters, ready to run tasks.
pub trait Prepared: Send + Sync {
    /// Runs one task on the calling thread (the executor spreads tasks of a range over a rayon pool; a kernel may use rayon inside
    /// a task as well). The CPU twin is the specification.
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError>;

    /// Reduce: as [`Prepared::run_cpu`], for a kernel that can hand its part out piece by piece instead of making it in memory; [`Part::bytes`] are
    /// what follows behind the pieces, usually nothing. Asked where there is a file for the part.
    fn run_streamed(&self, task: &Task<'_>, _part: &mut dyn PartWriter) -> Result<TaskOutput, KernelError> {
        self.run_cpu(task)
    }

    /// Runs many tasks in as few dispatches as fit the device. Results are in the order of `tasks`. Kernels with `gpu: false` keep
    /// the default. A lost device is [`KernelError::Device`] and a full one [`KernelError::Memory`], never a wrong answer.
    fn run_gpu(&self, _gpu: &Gpu, _tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        Err(KernelError::Device("this kernel has no GPU twin".into()))
    }

    /// Reduce, in a job with rounds: runs the one task of the stage, and says what the round leaves.
    fn run_round(&self, _task: &Task<'_>) -> Result<(TaskOutput, RoundEnd), KernelError> {
        Err(KernelError::Param("this kernel cannot end a round".into()))
    }

    /// What the next round on this device may use again, such as input in a form of the kernel's own. Numbers of tasks name the same input in
    /// every round. It is dropped when the job has ended.
    fn kept(&self) -> Option<Kept> {
        None
    }

    /// About what one task takes of memory on the CPU, beside its input: a worker that was given a limit runs as many tasks at once as this lets
    /// it. What a kernel makes is counted, and what it makes on the way there.
    fn memory(&self, input_bytes: u64) -> u64 {
        3 * input_bytes + TASK_BYTES
    }

    /// The columns that it reads of a table, which are looked for before the job starts.
    fn columns(&self) -> &[Wanted] {
        &[]
    }
}

/// What a task takes of memory whatever its input: buffers for what it writes.
pub const TASK_BYTES: u64 = 2 << 20;

/// Takes a part in pieces, from its first byte on. An error ends the task; the kernel passes it on.
pub trait PartWriter {
    fn write(&mut self, piece: &[u8]) -> Result<(), KernelError>;
}

/// In memory.
impl PartWriter for Vec<u8> {
    fn write(&mut self, piece: &[u8]) -> Result<(), KernelError> {
        self.extend_from_slice(piece);
        Ok(())
    }
}

/// One task and its input.
#[derive(Debug)]
pub struct Task<'a> {
    /// Number of the task in its stage. Random numbers are counters keyed by values that depend on the split only, never on the lease.
    pub number: u64,
    pub input: Input<'a>,
}

#[derive(Debug)]
pub enum Input<'a> {
    Index {
        start: u64,
        count: u64,
    },
    /// Whole lines, the last one possibly without its newline; may be empty.
    Text(&'a [u8]),
    /// The same, and where they begin: bytes from the start of the file. A file is named alike in all its tasks.
    PlacedText {
        path: &'a str,
        offset: u64,
        bytes: &'a [u8],
    },
    /// Whole records of `record_bytes`, at least one byte each; may be none.
    Records {
        record_bytes: usize,
        bytes: &'a [u8],
    },
    /// Whole little-endian elements.
    Elements {
        dtype: &'a str,
        bytes: &'a [u8],
    },
    /// Whole rows of little-endian elements, `columns` in each. At least one column.
    Rows {
        dtype: &'a str,
        columns: usize,
        bytes: &'a [u8],
    },
    /// A whole file. Never empty.
    File(&'a [u8]),
    /// Rows, to be read column by column.
    Table(Table),
    /// The blocks of this partition in task order; tasks without data for the partition may be absent.
    Blocks(Vec<Block<'a>>),
    /// The same of two stages that are joined by key.
    Joined {
        left: Vec<Block<'a>>,
        right: Vec<Block<'a>>,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    pub task: u64,
    pub bytes: &'a [u8],
}

/// What one task made.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct TaskOutput {
    /// In the order of [`Descriptor::tallies`].
    pub tallies: Vec<u64>,
    /// Map with shuffle: exactly `partitions` blocks, empty ones allowed.
    pub blocks: Vec<Vec<u8>>,
    /// Reduce: the part of this partition.
    pub part: Option<Part>,
    pub records: Records,
}

/// Records as a person counts them. Whoever runs a task knows how many there are in a range, an array, a table or a file of fixed-size records, and
/// in a part ([`Part::rows`]); a kernel says the others.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Records {
    /// Lines of text; entries of shuffle blocks.
    pub read: u64,
    /// Entries of shuffle blocks. Those that a map kernel makes are those that its reduce kernel reads.
    pub made: u64,
}

/// One finished file of the job's output.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Part {
    /// Extension without a dot: "csv", "npy", "png".
    pub extension: &'static str,
    pub bytes: Vec<u8>,
    pub rows: u64,
    pub columns: Vec<String>,
    /// At most [`PREVIEW_ROWS`] rows a person wants to see first, heaviest first.
    pub preview: Vec<PreviewRow>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PreviewRow {
    pub cells: Vec<String>,
    /// Rows of different parts are merged by falling weight, then by [`Kernel::compare_preview`].
    pub weight: u64,
}

/// Rows of preview per part.
pub const PREVIEW_ROWS: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A parameter is missing, unknown or out of range.
    #[error("{0}")]
    Param(String),
    /// The input is not what the kernel accepts, or not with these parameters. Every device would say so, so the task is not tried again.
    #[error("{0}")]
    Input(String),
    /// The same of one line of a text, which starts `at` bytes behind the start of the task's input.
    #[error("{message}")]
    Line { at: usize, message: String },
    /// The task failed, and another try may go well: shuffle data whose checksum is right is not as its kernel writes it, so the machine that wrote it or
    /// this one may be at fault.
    #[error("{0}")]
    Failed(String),
    /// The device failed; the task may succeed elsewhere.
    #[error("device: {0}")]
    Device(String),
    /// The device lacks the memory; fewer tasks at once may fit.
    #[error("device: {0}")]
    Memory(String),
}

impl KernelError {
    /// What is wrong with a table.
    pub fn of_table(error: FormatError) -> KernelError {
        KernelError::Input(error.to_string())
    }
}
