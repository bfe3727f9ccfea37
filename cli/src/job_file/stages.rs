//! `[map]`, `[reduce]` and `[output]`: the two stages of a job and where its result goes.

use std::path::Path;

use raftwerk_kernels::{Agreement, Descriptor, Kind, Params, StageContext};
use raftwerk_proto::v1::{
    Capacity, DeviceRequest, IfExists, KernelKind, KernelRef, MemoryNeed, OutputSpec, Param, StageInput, StageOutput, StageSpec,
    stage_input,
};
use raftwerk_proto::{OUTPUT_ON_WORKERS, is_store_url};

use super::catalogue::Catalogue;
use super::limits::*;
use super::params;
use super::paths;
use super::problem::{Origin, Problem};
use super::section::{At, Section};
use super::sides;
use super::tree::Table;
use super::wants::{self, Wants};

/// What a lease may run on; `any` takes whatever placement finds fit.
pub const DEVICE_CLASSES: [&str; 6] = ["any", "cpu", "gpu", "discrete", "integrated", "software"];

const MAP_KEYS: [&str; 10] =
    ["kernel", "params", "side", "device", "require", "prefer", "gang", "gang_hold", "max_lease_tasks", "shuffle_replicas"];
const REDUCE_KEYS: [&str; 9] = ["kernel", "params", "partitions", "device", "require", "prefer", "gang", "gang_hold", "max_lease_tasks"];

/// A stage as far as its own section tells.
pub struct Stage {
    pub(super) origin: Origin,
    /// What of this stage comes from a flag, also by way of the stage before.
    pub(super) flags: params::Flags,
    pub kernel: &'static Descriptor,
    pub params: Params,
    pub partitions: u32,
    /// As many as the stage before has tasks, instead.
    pub partition_per_task: bool,
    device: String,
    wants: Wants,
    max_lease_tasks: u64,
    shuffle_replicas: u32,
    reproducible: bool,
    /// Inputs beside the first: files, or the other stage of a join.
    pub(super) sides: Vec<StageInput>,
    /// Of the records that it reads, if their length is fixed.
    record_bytes: u32,
}

pub fn read_map(root: &Table, catalogue: &Catalogue, dir: &Path) -> Result<Stage, Problem> {
    let fix = || format!("write [map] and kernel = \"..\", one of {}", catalogue.names(Kind::Map).join(", "));
    let section =
        Section::open(root, "map", &MAP_KEYS)?.ok_or_else(|| Problem::new(Origin::File, "the section [map] is missing").fix(fix()))?;
    let name = section.text("kernel")?.ok_or_else(|| section.problem("needs `kernel`").fix(fix()))?;
    let kernel = catalogue.find(&section, &name, Kind::Map)?;
    map_of(&section, kernel, dir)
}

/// A map stage with its own section.
pub(super) fn map_of(section: &Section<'_>, kernel: &'static Descriptor, dir: &Path) -> Result<Stage, Problem> {
    // Only a test brings a kernel that is not in the registry.
    let wanted = raftwerk_kernels::find(kernel.name).map_or(&[][..], |kernel| kernel.sides());
    let sides = sides::read(section, kernel.name, wanted, dir)?;
    let stage = finish(section, kernel, 0, &Params::new(), params::Flags::new())?;
    Ok(Stage { sides, ..stage })
}

/// The reduce stage; `None` when the map kernel has nothing to reduce.
pub fn read_reduce(root: &Table, catalogue: &Catalogue, map: &Stage) -> Result<Option<Stage>, Problem> {
    let section = Section::open(root, "reduce", &REDUCE_KEYS)?;
    if !map.kernel.shuffles {
        return match section {
            None => Ok(None),
            Some(section) => Err(section
                .problem(format!("has nothing to read: map kernel `{}` writes tallies only", map.kernel.name))
                .fix("take the section out; the tallies are the result")),
        };
    }
    // An absent section is an empty one: the map kernel knows who reads what it writes.
    let empty = empty_root("reduce");
    let section = match section {
        Some(section) => section,
        None => Section::open(&empty, "reduce", &REDUCE_KEYS)?.unwrap_or_else(|| unreachable!("empty_root made the section")),
    };
    let name = match section.text("kernel")? {
        Some(name) => name,
        None => match map.kernel.reduces_with.first() {
            Some(name) => At { value: (*name).to_owned(), origin: section.origin.clone() },
            None => return Err(section.problem("needs `kernel`")),
        },
    };
    let kernel = catalogue.find(&section, &name, Kind::Reduce)?;
    reduce_of(&section, kernel, &name.origin, &[map]).map(Some)
}

/// Whether the reduce kernel reads what the map kernel writes.
pub(super) fn check_pair(section: &Section<'_>, kernel: &Descriptor, named_at: &Origin, map: &Descriptor) -> Result<(), Problem> {
    if map.reduces_with.contains(&kernel.name) {
        return Ok(());
    }
    let problem = section.problem_at("kernel", named_at, format!("`{}` cannot read what map kernel `{}` writes", kernel.name, map.name));
    Err(match map.reduces_with {
        [] => problem,
        usual => problem.fix(format!("use {}", usual.join(" or "))),
    })
}

/// A reduce stage with its own section, which reads what these map stages write.
pub(super) fn reduce_of(section: &Section<'_>, kernel: &'static Descriptor, named_at: &Origin, maps: &[&Stage]) -> Result<Stage, Problem> {
    maps.iter().try_for_each(|map| check_pair(section, kernel, named_at, map.kernel))?;
    let partitions = section.integer("partitions", 1, MAX_PARTITIONS)?;
    let partition_per_task = raftwerk_kernels::find(kernel.name).is_ok_and(|kernel| kernel.partition_per_task());
    if let Some(partitions) = partitions.as_ref().filter(|_| partition_per_task) {
        let message = format!("has no meaning for kernel `{}`, which writes one file for each map task", kernel.name);
        return Err(section.problem_at("partitions", &partitions.origin, message).fix("take the line out"));
    }
    // What two stages would hand on may differ: a join says all of its own parameters itself.
    let (mut flags, mut inherited) = (params::Flags::new(), Params::new());
    if let [map] = maps {
        flags = map.flags.clone();
        flags.retain(|name, _| map.kernel.reduce_defaults.iter().all(|(default, _)| default != name));
        inherited = map.params.clone();
        // A reduce kernel that handles what was read as it is must know its shape.
        inherited.insert("record".to_owned(), map.record_bytes.to_string());
        inherited.extend(map.kernel.reduce_defaults.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }
    if let Some(At { origin: origin @ Origin::Flag(_), .. }) = &partitions {
        flags.insert("partitions".to_owned(), origin.clone());
    }
    let partitions = partitions.map_or(1, |partitions| partitions.value as u32);
    let stage = finish(section, kernel, partitions, &inherited, flags)?;
    Ok(Stage { partition_per_task, ..stage })
}

fn empty_root(section: &str) -> Table {
    let mut root = Table::default();
    root.table_mut(section, &Origin::File);
    root
}

fn finish(
    section: &Section<'_>,
    kernel: &'static Descriptor,
    partitions: u32,
    inherited: &Params,
    mut flags: params::Flags,
) -> Result<Stage, Problem> {
    // What the section itself says takes the place of what it would inherit, whether a flag or the file says it.
    flags.retain(|name, _| name == "partitions" || section.table("params").ok().flatten().is_none_or(|table| table.get(name).is_none()));
    flags.extend(params::flags(section)?);
    let mut wants = wants::read(section)?;
    let (device, key) = match (section.choice("device", &DEVICE_CLASSES)?, wants.class.take()) {
        (Some(device), Some(class)) if device.value != class.value => {
            let message = format!("is \"{}\", and device says \"{}\"", class.value, device.value);
            return Err(section.problem_at("require class", &class.origin, message).fix("say it once"));
        }
        (None, Some(class)) => (Some(class), "require class"),
        (device, _) => (device, "device"),
    };
    if let Some(device) = device.as_ref().filter(|device| !kernel.gpu && !matches!(device.value.as_str(), "any" | "cpu")) {
        return Err(section
            .problem_at(key, &device.origin, format!("is \"{}\", but kernel `{}` has no GPU twin", device.value, kernel.name))
            .fix("use \"any\" or \"cpu\""));
    }
    Ok(Stage {
        origin: section.origin.clone(),
        flags,
        kernel,
        params: params::read(section, kernel, inherited)?,
        partitions,
        partition_per_task: false,
        device: device.map_or_else(|| "any".to_owned(), |device| device.value),
        wants,
        max_lease_tasks: section.integer("max_lease_tasks", 0, MAX_TASKS)?.map_or(0, |tasks| tasks.value),
        shuffle_replicas: shuffle_replicas(section, kernel)?,
        reproducible: false,
        sides: Vec::new(),
        record_bytes: 0,
    })
}

/// How many workers keep what a map stage hands to its reduce stage; 0 when the section leaves it open.
fn shuffle_replicas(section: &Section<'_>, kernel: &Descriptor) -> Result<u32, Problem> {
    let Some(replicas) = section.integer("shuffle_replicas", 1, MAX_SHUFFLE_REPLICAS)? else { return Ok(0) };
    if replicas.value > 1 && kernel.kind == Kind::Map && !kernel.shuffles {
        let message = format!("has nothing to copy: map kernel `{}` writes tallies only", kernel.name);
        return Err(section.problem_at("shuffle_replicas", &replicas.origin, message).fix("take the line out"));
    }
    Ok(replicas.value as u32)
}

impl Stage {
    /// Reads records of this length; 0: none of a fixed one.
    pub fn reads_records(&mut self, bytes: u32) {
        self.record_bytes = bytes;
    }

    /// The job wants the same bytes whoever runs it. An exact kernel gives them anyhow; of a bounded one all tasks go to one twin, the CPU's
    /// unless the section asks for GPUs.
    pub fn pin(&mut self) {
        if matches!(self.kernel.agreement, Agreement::Bounded(_)) {
            self.reproducible = true;
            if self.device == "any" {
                "cpu".clone_into(&mut self.device);
            }
        }
    }

    /// Lets the kernel itself look at its parameters, for rules that no single one shows (low < high, one partition for one image).
    /// Tells the columns that it reads, of a kernel that reads tables.
    pub fn prepare(&self, label: &str, tasks: u64, partitions: u32, format: &str) -> Result<Vec<String>, Problem> {
        // Only a test brings a kernel that is not in the registry.
        let Ok(kernel) = raftwerk_kernels::find(self.kernel.name) else { return Ok(Vec::new()) };
        let context = StageContext {
            params: self.params.clone(),
            tasks,
            partitions,
            format: format.to_owned(),
            reproducible: self.reproducible,
            record_bytes: self.record_bytes,
            ..StageContext::default()
        };
        match kernel.prepare(&context) {
            Ok(prepared) => Ok(prepared.columns().iter().map(|wanted| wanted.name.clone()).collect()),
            Err(error) => {
                let text = error.to_string();
                let origin = self.blamed_flag(&text).unwrap_or_else(|| self.origin.clone());
                Err(Problem::new(origin, format!("[{label}] {text}")))
            }
        }
    }

    /// The flag that set a parameter which the text names.
    pub fn blamed_flag(&self, text: &str) -> Option<Origin> {
        params::blamed(&self.flags, text)
    }

    /// `output_partitions` is what this stage's output is cut into: the next stage's partitions, 0 for the last stage.
    pub fn into_spec(self, name: &str, input: StageInput, output_partitions: u32) -> StageSpec {
        // Only a test brings a kernel that is not in the registry.
        let known = raftwerk_kernels::find(self.kernel.name).ok();
        let footprint = known.map_or_else(String::new, |kernel| raftwerk_kernels::footprint(kernel, &self.params));
        let memory = known.and_then(|kernel| kernel.gpu_memory(&self.params, None)).map(|need| MemoryNeed {
            fixed_bytes: need.fixed,
            per_task_bytes: need.per_task,
            per_kilo_unit_bytes: need.per_kilo_unit,
            most_bytes: need.most.unwrap_or_default(),
        });
        let kind = match self.kernel.kind {
            Kind::Map => KernelKind::Map,
            Kind::Reduce => KernelKind::Reduce,
        };
        StageSpec {
            name: name.to_owned(),
            kernel: Some(KernelRef {
                name: self.kernel.name.to_owned(),
                version: self.kernel.version,
                kind: kind.into(),
                tallies: self.kernel.tallies.iter().map(|tally| (*tally).to_owned()).collect(),
                bounded: matches!(self.kernel.agreement, Agreement::Bounded(_)),
            }),
            // A BTreeMap, so sorted by name as the wire wants it.
            params: self.params.into_iter().map(|(name, value)| Param { name, value }).collect(),
            inputs: std::iter::once(input).chain(self.sides).collect(),
            partitions: output_partitions,
            partition_per_task: false,
            device: Some(DeviceRequest { class: self.device, amount: Some(Capacity { milli_cpu: 0, memory_bytes: 0, slots: 1 }) }),
            max_lease_tasks: self.max_lease_tasks,
            shuffle_replicas: self.shuffle_replicas,
            footprint,
            memory,
            reproducible: self.reproducible,
            wants_survey: known.is_some_and(|kernel| kernel.surveys()),
            survey: Default::default(),
            require: self.wants.require,
            prefer: self.wants.prefer,
            gang: self.wants.gang,
        }
    }
}

/// What another stage made, as the only input of a stage.
pub fn from_stage(name: &str) -> StageInput {
    StageInput { name: super::input::NAME.to_owned(), source: Some(stage_input::Source::Stage(StageOutput { stage: name.to_owned() })) }
}

/// `[output]`, written by the last stage.
pub fn read_output(root: &Table, last: &Stage, dir: &Path) -> Result<Option<OutputSpec>, Problem> {
    let Some(section) = Section::open(root, "output", &["path", "format", "if_exists", "copies"])? else { return Ok(None) };
    if last.kernel.kind == Kind::Map {
        return Err(section
            .problem(format!("has nothing to write: map kernel `{}` makes tallies only", last.kernel.name))
            .fix("take the section (or --output) out; the tallies are shown by `raftwerk job result`"));
    }
    let reduce = last;
    let path = section.text("path")?.ok_or_else(|| section.problem("needs `path`, the directory of the result"))?;
    let on_workers = path.value == OUTPUT_ON_WORKERS;
    let url = match on_workers {
        true => path.value.clone(),
        false => paths::absolute_dir(dir, &path.value)
            .map(|place| if is_store_url(&place) { place } else { format!("file://{place}") })
            .map_err(|message| section.problem_at("path", &path.origin, format!("is not usable: {message}")))?,
    };
    let copies = section.integer("copies", 1, MAX_RESULT_COPIES)?;
    if let Some(copies) = copies.as_ref().filter(|copies| copies.value > 1 && !on_workers) {
        return Err(section
            .problem_at("copies", &copies.origin, "is for a result that stays on workers")
            .fix(format!("write path = \"{OUTPUT_ON_WORKERS}\", or take the line out: a directory has the copies of its file system")));
    }
    let format = match section.text("format")? {
        Some(format) if !reduce.kernel.formats.contains(&format.value.as_str()) => {
            return Err(section
                .problem_at(
                    "format",
                    &format.origin,
                    format!("is \"{}\", which reduce kernel `{}` does not write", format.value, reduce.kernel.name),
                )
                .fix(format!("it writes {}", reduce.kernel.formats.join(", "))));
        }
        Some(format) => format.value,
        None => reduce.kernel.formats.first().map(|format| (*format).to_owned()).unwrap_or_default(),
    };
    let if_exists = match section.choice("if_exists", &["error", "replace"])? {
        Some(choice) if choice.value == "replace" && on_workers => {
            let message = "is for a directory; each job's result has a place of its own on the workers";
            return Err(section.problem_at("if_exists", &choice.origin, message).fix("take the line out"));
        }
        Some(choice) if choice.value == "replace" && is_store_url(&url) => {
            let message = "is for a directory; an output in a store is not replaced";
            return Err(section
                .problem_at("if_exists", &choice.origin, message)
                .fix("take the line out and give a prefix that is not in use"));
        }
        Some(choice) if choice.value == "replace" => IfExists::Replace,
        _ => IfExists::Error,
    };
    let copies = if on_workers { copies.map_or(1, |copies| copies.value as u32) } else { 0 };
    Ok(Some(OutputSpec { url, format, if_exists: if_exists.into(), copies }))
}
