//! Kernels made for these tests.
use raftwerk_kernels::{
    Accepts, Agreement, Descriptor, Input, Kept, Kernel, KernelError, Kind, ParamSpec, ParamType, Part, Prepared, Records, RoundEnd,
    SideInput, SideSpec, StageContext, Task, TaskOutput, gpu::Gpu,
};
use raftwerk_proto::v1::Device;
use raftwerk_worker::executor::Kernels;
use std::sync::Arc;

pub struct TestKernels;

impl Kernels for TestKernels {
    fn all(&self) -> Vec<&'static dyn Kernel> {
        vec![&Sums, &Lookup, &Lines, &Gather, &Trouble, &Walk, &Step]
    }

    fn adapters(&self) -> Vec<Device> {
        Vec::new()
    }

    fn open_gpu(&self, index: usize) -> Result<(Device, Gpu), String> {
        let gpu = Gpu::open(index).map_err(|error| error.to_string())?;
        Ok((Device { class: "software".into(), ..Device::default() }, gpu))
    }

    fn self_test(&self, _gpu: Option<&Gpu>) -> Result<(), String> {
        match std::env::var("TEST_SELF_TEST_FAILS") {
            Ok(reason) => Err(reason),
            Err(_) => Ok(()),
        }
    }
}

const fn map(
    name: &'static str,
    accepts: Accepts,
    tallies: &'static [&'static str],
    shuffles: bool,
    params: &'static [ParamSpec],
) -> Descriptor {
    Descriptor {
        name,
        version: 1,
        kind: Kind::Map,
        summary: "",
        accepts,
        params,
        tallies,
        shuffles,
        formats: &[],
        reduces_with: &[],
        reduce_defaults: &[],
        gpu: false,
        agreement: Agreement::Exact,
    }
}

/// Index range -> its start.
struct Sums;
static SUMS: Descriptor = map("t-sums", Accepts::Index, &["start"], false, &[]);

impl Kernel for Sums {
    fn descriptor(&self) -> &'static Descriptor {
        &SUMS
    }
    fn prepare(&self, _stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        Ok(Box::new(Sums))
    }
}

impl Prepared for Sums {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Index { start, .. } = task.input else { return Err(KernelError::Input("no range".into())) };
        Ok(TaskOutput { tallies: vec![start], ..TaskOutput::default() })
    }
}

/// Index range -> the element of the side input at its start, and its length.
struct Lookup;
static LOOKUP: Descriptor = map("t-lookup", Accepts::Index, &["found", "length"], false, &[]);
static TABLE: [SideSpec; 1] = [SideSpec { name: "table", dtypes: &["u4"], dimensions: 1, required: true, doc: "" }];

impl Kernel for Lookup {
    fn descriptor(&self) -> &'static Descriptor {
        &LOOKUP
    }
    fn sides(&self) -> &'static [SideSpec] {
        &TABLE
    }
    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let table = stage.sides.iter().find(|side| side.name == "table").cloned();
        Ok(Box::new(PreparedLookup { table: table.ok_or_else(|| KernelError::Param("there is no table".into()))? }))
    }
}

struct PreparedLookup {
    table: SideInput,
}

impl Prepared for PreparedLookup {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Index { start, .. } = task.input else { return Err(KernelError::Input("no range".into())) };
        let number = self.table.bytes().as_chunks::<4>().0.get(start as usize).map(|bytes| u32::from_le_bytes(*bytes));
        let number = number.ok_or_else(|| KernelError::Input(format!("the table ends before {start}")))?;
        Ok(TaskOutput { tallies: vec![number.into(), self.table.shape[0]], ..TaskOutput::default() })
    }
}

/// Lines of text -> lines by partition of their length; tally: lines.
struct Lines;
static LINES: Descriptor = map("t-lines", Accepts::Text, &["lines"], true, &[]);

impl Kernel for Lines {
    fn descriptor(&self) -> &'static Descriptor {
        &LINES
    }
    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        Ok(Box::new(PreparedLines { partitions: stage.partitions as usize }))
    }
}

struct PreparedLines {
    partitions: usize,
}

impl Prepared for PreparedLines {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Text(text) = task.input else { return Err(KernelError::Input("no text".into())) };
        let mut blocks = vec![Vec::new(); self.partitions];
        let mut lines = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            if line.starts_with(b"bad") {
                let at = line.as_ptr().addr() - text.as_ptr().addr();
                return Err(KernelError::Line { at, message: "a bad line".into() });
            }
            lines += 1;
            let block = &mut blocks[line.len() % self.partitions];
            block.extend_from_slice(line.trim_ascii_end());
            block.push(b'\n');
        }
        Ok(TaskOutput { tallies: vec![lines], blocks, records: Records { read: lines, made: lines }, ..TaskOutput::default() })
    }
}

/// Blocks -> one part with all of them in task order; tally: rows.
struct Gather;
static GATHER: Descriptor =
    Descriptor { kind: Kind::Reduce, formats: &["csv"], ..map("t-gather", Accepts::Shuffle, &["rows"], false, &[]) };

impl Kernel for Gather {
    fn descriptor(&self) -> &'static Descriptor {
        &GATHER
    }
    fn prepare(&self, _stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        Ok(Box::new(Gather))
    }
}

impl Prepared for Gather {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Blocks(blocks) = &task.input else { return Err(KernelError::Input("no blocks".into())) };
        assert!(blocks.is_sorted_by(|a, b| a.task < b.task), "blocks come in task order");
        let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.bytes).copied().collect();
        let rows = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let part = Part { extension: "csv", bytes, rows, columns: vec!["line".into()], preview: Vec::new() };
        Ok(TaskOutput { tallies: vec![rows], part: Some(part), records: Records { read: rows, made: 0 }, ..TaskOutput::default() })
    }
}

/// Does what its parameter says at the task whose number is its start.
struct Trouble;
static TROUBLE_PARAMS: [ParamSpec; 1] = [ParamSpec { name: "do", kind: ParamType::Text, default: None, doc: "" }];
static TROUBLE: Descriptor = map("t-trouble", Accepts::Index, &[], false, &TROUBLE_PARAMS);

impl Kernel for Trouble {
    fn descriptor(&self) -> &'static Descriptor {
        &TROUBLE
    }
    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        match stage.params.get("do") {
            Some(what) if what == "refuse" => Err(KernelError::Param("`do` must not be `refuse`".into())),
            Some(what) => Ok(Box::new(PreparedTrouble { what: what.clone() })),
            None => Err(KernelError::Param("`do` is missing".into())),
        }
    }
}

struct PreparedTrouble {
    what: String,
}

impl Prepared for PreparedTrouble {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        match (self.what.as_str(), task.number) {
            ("panic", 3) => panic!("task three is unlucky"),
            ("abort", 3) => {
                println!("about to abort");
                std::process::abort()
            }
            ("device", 3) => return Err(KernelError::Device("out of memory".into())),
            ("sleep", _) => std::thread::sleep(std::time::Duration::from_millis(20)),
            ("hang", 3) => loop {
                std::thread::park();
            },
            ("print", number) => println!("task {number} says hello"),
            ("lie", 3) => return Ok(TaskOutput { tallies: vec![1], ..TaskOutput::default() }),
            _ => {}
        }
        Ok(TaskOutput::default())
    }

    /// Fails as a whole, as a dispatch does.
    fn run_gpu(&self, _gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        tasks.iter().map(|task| self.run_cpu(task)).collect()
    }
}

/// Index range, in rounds -> how many bytes the round before has left, and how many rounds this device has had of the job.
struct Walk;
static WALK: Descriptor = map("t-walk", Accepts::Index, &["left", "rounds"], true, &[]);

struct Walking {
    left: u64,
    rounds: Arc<u64>,
}

impl Kernel for Walk {
    fn descriptor(&self) -> &'static Descriptor {
        &WALK
    }
    fn prepare(&self, _stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        Ok(Box::new(Walking { left: 0, rounds: Arc::new(1) }))
    }
    fn rounds(&self) -> bool {
        true
    }
    fn prepare_round(&self, _stage: &StageContext, state: &[u8], kept: Option<Kept>) -> Result<Box<dyn Prepared>, KernelError> {
        let before = kept.and_then(|kept| kept.downcast::<u64>().ok()).map_or(0, |rounds| *rounds);
        Ok(Box::new(Walking { left: state.len() as u64, rounds: Arc::new(before + 1) }))
    }
}

impl Prepared for Walking {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Index { start, .. } = task.input else { return Err(KernelError::Input("no range".into())) };
        Ok(TaskOutput { tallies: vec![self.left, *self.rounds], blocks: vec![vec![start as u8; 3]], ..TaskOutput::default() })
    }
    fn kept(&self) -> Option<Kept> {
        Some(self.rounds.clone())
    }
}

/// Leaves what it was left and a byte more; converges with the third. After nine bytes it leaves more than a round may.
struct Step;
static STEP: Descriptor = Descriptor {
    name: "t-step",
    version: 1,
    kind: Kind::Reduce,
    summary: "",
    accepts: Accepts::Shuffle,
    params: &[],
    tallies: &[],
    shuffles: false,
    formats: &["txt"],
    reduces_with: &[],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

struct Stepping(Vec<u8>);

impl Kernel for Step {
    fn descriptor(&self) -> &'static Descriptor {
        &STEP
    }
    fn prepare(&self, _stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        Ok(Box::new(Stepping(Vec::new())))
    }
    fn rounds(&self) -> bool {
        true
    }
    fn prepare_round(&self, _stage: &StageContext, state: &[u8], _kept: Option<Kept>) -> Result<Box<dyn Prepared>, KernelError> {
        Ok(Box::new(Stepping(state.to_vec())))
    }
}

impl Prepared for Stepping {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        self.run_round(task).map(|(output, _)| output)
    }
    fn run_round(&self, _task: &Task<'_>) -> Result<(TaskOutput, RoundEnd), KernelError> {
        let mut state = self.0.clone();
        // The state of a round that does not fit what a round may leave.
        state.resize(if state.len() == 9 { 300 << 10 } else { state.len() + 1 }, b'x');
        let part = Part { extension: "txt", bytes: state.clone(), ..Part::default() };
        let converged = state.len() == 3;
        let measures = vec![("bytes".into(), state.len().to_string())];
        Ok((TaskOutput { part: Some(part), ..TaskOutput::default() }, RoundEnd { state, converged, measures }))
    }
}
