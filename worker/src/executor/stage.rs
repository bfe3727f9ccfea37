//! What the leases of one stage share: the prepared kernel and how its input is found. And what a device can run.
use super::{rounds, sides};
use crate::table;
use raftwerk_formats::{Filter, Format};
use raftwerk_kernels::{
    Accepts, Kernel, KernelError, Kind, Prepared, StageContext,
    gpu::{AdapterReport, DeviceClass, Gpu},
};
use raftwerk_proto::v1::{
    BadRecord, Capacity, Device, FailureClass, KernelKind, Limit, RoundInfo, StageInfo, StageInput, stage_input::Source,
};
use std::{
    os::fd::OwnedFd,
    sync::{Arc, atomic::AtomicU64},
};

/// What a part is made as when another stage reads it: kernels that read text read it.
const FORMAT_BETWEEN_STAGES: &str = "csv";

/// Where kernels come from: the built-in ones, or a test's.
pub trait Kernels: Sync {
    fn all(&self) -> Vec<&'static dyn Kernel>;

    /// The GPUs of this machine, in the order of their indices, without opening one.
    fn adapters(&self) -> Vec<Device>;

    /// Opens the adapter with this index; the only step of an executor that opens anything.
    fn open_gpu(&self, index: usize) -> Result<(Device, Gpu), String>;

    /// Known answers on this device; an error keeps it from being offered.
    fn self_test(&self, gpu: Option<&Gpu>) -> Result<(), String>;
}

pub struct BuiltIn;

impl Kernels for BuiltIn {
    fn all(&self) -> Vec<&'static dyn Kernel> {
        raftwerk_kernels::registry().to_vec()
    }

    fn adapters(&self) -> Vec<Device> {
        raftwerk_kernels::gpu::adapters().iter().map(|report| gpu_device(report, Vec::new())).collect()
    }

    fn open_gpu(&self, index: usize) -> Result<(Device, Gpu), String> {
        let gpu = Gpu::open(index).map_err(|error| error.to_string())?;
        let device = gpu_device(gpu.report(), kernel_names(self, true));
        Ok((device, gpu))
    }

    fn self_test(&self, gpu: Option<&Gpu>) -> Result<(), String> {
        match gpu {
            Some(gpu) => gpu.self_test(),
            None => raftwerk_kernels::gpu::cpu_self_test(),
        }
        .map_err(|error| error.to_string())
    }
}

fn gpu_device(report: &AdapterReport, kernels: Vec<String>) -> Device {
    let class = match report.class {
        DeviceClass::Discrete | DeviceClass::Virtual => "discrete",
        DeviceClass::Integrated | DeviceClass::Other => "integrated",
        DeviceClass::Software => "software",
    };
    let limit = |name: &str, value: u64| Limit { name: name.into(), value };
    Device {
        class: class.into(),
        name: report.name.clone(),
        vendor: report.vendor.clone(),
        backend: report.backend.into(),
        driver: report.driver.clone(),
        capacity: Some(Capacity { memory_bytes: report.memory_bytes.unwrap_or(report.max_buffer_bytes), ..Capacity::default() }),
        kernels,
        features: report.features.iter().map(|&feature| feature.into()).collect(),
        limits: vec![
            limit("max_buffer_bytes", report.max_buffer_bytes),
            limit("max_binding_bytes", report.max_binding_bytes),
            limit("max_invocations_per_workgroup", report.max_invocations_per_workgroup.into()),
            limit("workgroup_memory_bytes", report.workgroup_memory_bytes.into()),
        ],
        parallelism: 1,
        ..Device::default()
    }
}

/// A failure of tasks, as the scheduler counts it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) class: FailureClass,
    pub(super) message: String,
    /// Of a line that is at fault: where it starts in the text of the task.
    pub(super) at: Option<u64>,
    /// Records of the task that cannot be read, when the task fails by them.
    pub(super) bad_records: Vec<BadRecord>,
}

impl Fault {
    pub(super) fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), at: None, bad_records: Vec::new() }
    }
}

impl From<KernelError> for Fault {
    fn from(error: KernelError) -> Self {
        let class = match error {
            KernelError::Param(_) | KernelError::Input(_) | KernelError::Line { .. } => FailureClass::Input,
            KernelError::Failed(_) => FailureClass::Task,
            KernelError::Device(_) => FailureClass::Device,
            KernelError::Memory(_) => FailureClass::OutOfMemory,
        };
        let at = match error {
            KernelError::Line { at, .. } => Some(at as u64),
            _ => None,
        };
        Self { at, ..Self::new(class, error.to_string()) }
    }
}

/// How the input of a task follows from its number.
#[derive(Clone, Debug)]
pub(super) enum InputKind {
    Index {
        start: u64,
        count: u64,
        tasks: u64,
    },
    Text,
    PlacedText,
    Elements,
    Rows,
    /// Fixed-size records.
    Records,
    /// A whole file.
    File,
    /// Rows of tables of this format, all of them or those for which the filter holds.
    Table(Arc<Format>, Option<Arc<Filter>>),
    Blocks,
    /// Blocks of two stages.
    Joined,
    /// What one task of another stage made, as text.
    Part,
}

impl InputKind {
    /// The range of an index task: ranges differ by at most one, longer ones first.
    pub(super) fn index_range(start: u64, count: u64, tasks: u64, task: u64) -> (u64, u64) {
        let (quotient, rest) = (count / tasks.max(1), count % tasks.max(1));
        (start + task * quotient + task.min(rest), quotient + u64::from(task < rest))
    }
}

pub(super) struct Stage {
    /// A stage that cannot be prepared fails its tasks, not this process.
    pub(super) prepared: Result<Box<dyn Prepared>, Fault>,
    pub(super) input: InputKind,
    pub(super) tallies: usize,
    /// Partitions of the shuffle output; 0 when the stage has none.
    pub(super) partitions: usize,
    /// The tasks' parts are for another stage, which reads them as blocks.
    pub(super) makes_blocks: bool,
    /// Tasks that take about one chunk's time, as learned so far.
    pub(super) chunk_tasks: AtomicU64,
    /// Of a job with rounds, when this stage's task ends a round.
    pub(super) ends: Option<RoundInfo>,
    /// Records of the input that may be left out.
    pub(super) bad_records: u64,
}

impl Stage {
    /// `sides` are the files of the inputs beside the first, in their order; `before` is the same stage in the round before.
    pub(super) fn prepare(kernels: &dyn Kernels, info: &StageInfo, sides: Vec<OwnedFd>, before: Option<&Stage>) -> Self {
        let spec = info.spec.clone().unwrap_or_default();
        let source = spec.inputs.first().and_then(|input| input.source.clone());
        let input = match &source {
            Some(Source::Range(range)) => InputKind::Index { start: range.start, count: range.count, tasks: range.tasks },
            Some(Source::Files(files)) if files.format == "npy" => InputKind::Elements,
            Some(Source::Files(files)) if files.format == "npy-rows" => InputKind::Rows,
            Some(Source::Files(files)) if files.format == "png" => InputKind::File,
            Some(Source::Files(files)) if files.format == "records" => InputKind::Records,
            Some(Source::Files(files)) if files.table.is_some() => {
                match table::format(files).and_then(|format| Ok((format, table::filter(files)?))) {
                    Ok((format, filter)) => InputKind::Table(Arc::new(format), filter),
                    Err(reason) => {
                        let prepared = Err(Fault::new(FailureClass::Worker, reason));
                        return Self {
                            prepared,
                            input: InputKind::File,
                            tallies: 0,
                            partitions: 0,
                            chunk_tasks: AtomicU64::new(1),
                            ends: None,
                            makes_blocks: false,
                            bad_records: 0,
                        };
                    }
                }
            }
            Some(Source::Files(_)) => InputKind::Text,
            Some(Source::Stage(_)) if spec.kernel.as_ref().is_some_and(|kernel| kernel.kind() == KernelKind::Map) => InputKind::Part,
            Some(Source::Stage(_)) if matches!(spec.inputs[..], [_, StageInput { source: Some(Source::Stage(_)), .. }, ..]) => {
                InputKind::Joined
            }
            Some(Source::Stage(_)) | None => InputKind::Blocks,
        };
        let record_bytes = match &source {
            Some(Source::Files(files)) => files.record_bytes,
            _ => 0,
        };
        let bad_records = match &source {
            Some(Source::Files(files)) => files.bad_records,
            _ => 0,
        };
        let survey = spec.survey.to_vec();
        let reference = spec.kernel.clone().unwrap_or_default();
        let kernel = kernels.all().into_iter().find(|k| {
            let descriptor = k.descriptor();
            descriptor.name == reference.name && descriptor.version == reference.version
        });
        let Some(kernel) = kernel else {
            let message = format!("this worker's build has no kernel `{}` version {}", reference.name, reference.version);
            let prepared = Err(Fault::new(FailureClass::Worker, message));
            let chunk_tasks = AtomicU64::new(1);
            return Self { prepared, input, tallies: 0, partitions: 0, makes_blocks: false, chunk_tasks, ends: None, bad_records: 0 };
        };
        let descriptor = kernel.descriptor();
        let input = match input {
            InputKind::Text if descriptor.accepts == Accepts::PlacedText => InputKind::PlacedText,
            other => other,
        };
        let shuffles = descriptor.kind == Kind::Map && descriptor.shuffles && spec.partitions > 0;
        let makes_blocks = descriptor.kind == Kind::Reduce && spec.partitions > 0;
        let mut format = info.output.as_ref().map(|output| output.format.clone()).filter(|format| !format.is_empty());
        if makes_blocks && descriptor.formats.contains(&FORMAT_BETWEEN_STAGES) {
            format = Some(FORMAT_BETWEEN_STAGES.to_owned());
        }
        let files: Vec<StageInput> =
            spec.inputs.iter().skip(1).filter(|input| !matches!(input.source, Some(Source::Stage(_)))).cloned().collect();
        let mapped = sides::map(&files, sides);
        let context = |sides| StageContext {
            params: spec.params.into_iter().map(|param| (param.name, param.value)).collect(),
            tasks: info.tasks,
            partitions: spec.partitions.max(1),
            format: format.unwrap_or_else(|| descriptor.formats.first().copied().unwrap_or_default().to_owned()),
            reproducible: spec.reproducible,
            sides,
            record_bytes,
            survey,
        };
        // Preparing reads what a user wrote; a panic in there is the task's failure like one in the kernel.
        let prepare = |context: StageContext| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds::prepare(kernel, &context, info.round.as_ref(), before)))
                .map_err(|payload| Fault::new(FailureClass::Task, panic_message(payload.as_ref())))
                .and_then(|prepared| prepared.map_err(Fault::from))
        };
        let prepared = mapped.and_then(|sides| prepare(context(sides)));
        Self {
            prepared,
            input,
            tallies: descriptor.tallies.len(),
            partitions: if shuffles { spec.partitions as usize } else { 0 },
            makes_blocks,
            chunk_tasks: AtomicU64::new(1),
            ends: info.round.clone().filter(|_| descriptor.kind == Kind::Reduce),
            bad_records,
        }
    }
}

pub(super) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| payload.downcast_ref::<String>().cloned());
    format!("the kernel panicked: {}", text.unwrap_or_else(|| "without a message".into()))
}

fn kernel_names(kernels: &(impl Kernels + ?Sized), gpu: bool) -> Vec<String> {
    let descriptors = kernels.all().into_iter().map(|kernel| kernel.descriptor()).filter(|descriptor| !gpu || descriptor.gpu);
    descriptors.map(|descriptor| format!("{}@{}", descriptor.name, descriptor.version)).collect()
}

/// The agent adds index, capacity and the name of the processor.
pub(super) fn cpu_device(kernels: &dyn Kernels, threads: usize) -> Device {
    Device {
        class: "cpu".into(),
        backend: "rayon".into(),
        kernels: kernel_names(kernels, false),
        features: simd_features(),
        parallelism: threads as u32,
        ..Device::default()
    }
}

fn simd_features() -> Vec<String> {
    let mut features: Vec<&str> = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        for (name, present) in [
            ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ] {
            if present {
                features.push(name);
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        features.push("neon");
    }
    features.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::InputKind;

    #[test]
    fn index_ranges_cover_everything_once_and_differ_by_one() {
        for (count, tasks) in [(0u64, 1u64), (10, 3), (3, 10), (1_000_003, 97), (u64::MAX - 5, 7)] {
            let mut at = 5;
            for task in 0..tasks {
                let (start, length) = InputKind::index_range(5, count, tasks, task);
                assert_eq!(start, at);
                assert!(length == count / tasks || length == count / tasks + 1);
                at = start + length;
            }
            assert_eq!(at, 5 + count);
        }
    }
}
