//! Which device may run a stage, and what would have to change where none may.

use crate::counted::counted;
use crate::device_match::{Wish, is_of_class, out_of_reach};
use crate::gang;
use crate::graph::{is_beyond_two, reads_a_stage, tasks_of_stage};
use crate::ids::WorkerId;
use crate::memory::Need;
use crate::spec::{device_class, lease_amount};
use crate::spec_format::{is_compressed, is_packed};
use crate::state::State;
use crate::worker::{DeviceUse, Worker};
use raftwerk_proto::v1::{Device, JobSpec, StageSpec, stage_input::Source};
use std::collections::BTreeMap;

/// Devices that lack least are named, up to so many.
const NEAREST: usize = 3;

/// Whether the device has a twin of the stage's kernel, is of the class asked for, has all that the stage requires, and could hold one
/// lease when idle.
pub fn device_fits(stage: &StageSpec, worker: &Worker, device: &Device) -> bool {
    is_of_class(device, device_class(stage))
        && has_twin(stage, device)
        && could_hold_a_lease(stage, device)
        && (worker.hello.stage_graphs || (!is_beyond_two(stage) && !reads_compressed(stage) && !reads_packs(stage)))
        && stage.require.iter().flat_map(Wish::all).all(|wish| wish.is_met(&worker.hello, device))
}

/// Workers of releases before jobs of many stages take compressed text for text.
fn reads_compressed(stage: &StageSpec) -> bool {
    matches!(stage.inputs.first().and_then(|input| input.source.as_ref()), Some(Source::Files(files)) if is_compressed(files))
}

/// The same workers take a pack for a file.
fn reads_packs(stage: &StageSpec) -> bool {
    matches!(stage.inputs.first().and_then(|input| input.source.as_ref()), Some(Source::Files(files)) if is_packed(files))
}

fn has_twin(stage: &StageSpec, device: &Device) -> bool {
    let Some(kernel) = &stage.kernel else { return false };
    // Asked of thousands of devices in every round: most names differ in their length already.
    let is_it = |name: &str| {
        let version = name.strip_prefix(kernel.name.as_str()).and_then(|rest| rest.strip_prefix('@'));
        version.is_some_and(|version| version.parse() == Ok(kernel.version))
    };
    device.kernels.iter().any(|name| name.len() > kernel.name.len() && is_it(name))
}

fn could_hold_a_lease(stage: &StageSpec, device: &Device) -> bool {
    let capacity = device.capacity.unwrap_or_default();
    // The part that depends on the input's size is seen when a lease is planned.
    let least = Need::of(stage, device, 0).amount(&lease_amount(stage), 1);
    DeviceUse::default().fits(&capacity, &least)
}

/// Everything for which [`device_fits`] says no, as it is said of a device.
fn lacks(stage: &StageSpec, worker: &Worker, device: &Device) -> Vec<String> {
    let mut lacks = Vec::new();
    if !has_twin(stage, device) {
        let kernel = stage.kernel.as_ref().map(|k| format!("{}@{}", k.name, k.version)).unwrap_or_default();
        lacks.push(format!("has no twin of kernel {kernel}"));
    }
    let class = Wish::Class(device_class(stage));
    let wishes = std::iter::once(class).chain(stage.require.iter().flat_map(Wish::all));
    lacks.extend(wishes.filter(|wish| !wish.is_met(&worker.hello, device)).map(Wish::lack));
    if !worker.hello.stage_graphs && is_beyond_two(stage) {
        lacks.push("is of a worker whose release does not know jobs of more than two stages".to_owned());
    }
    if !worker.hello.stage_graphs && reads_compressed(stage) {
        lacks.push("is of a worker whose release does not read compressed files".to_owned());
    }
    if !worker.hello.stage_graphs && reads_packs(stage) {
        lacks.push("is of a worker whose release does not read listings of so many files".to_owned());
    }
    if !could_hold_a_lease(stage, device) {
        lacks.push("could not hold one lease, even when it is idle (memory, slots)".to_owned());
    }
    lacks
}

/// Devices of workers that are not lost.
fn devices(state: &State) -> impl Iterator<Item = (WorkerId, &Worker, &Device)> + '_ {
    let there = state.workers.iter().filter(|(_, worker)| !worker.lost);
    there.flat_map(|(id, worker)| worker.hello.devices.iter().map(move |device| (*id, worker, device)))
}

/// Devices of workers that may run the stage: (worker, device index). Software adapters only when the stage asks for class
/// `software` or nothing else fits: they are far slower than the CPU they run on.
pub fn candidates(state: &State, stage: &StageSpec) -> Vec<(WorkerId, u32)> {
    let fitting = || devices(state).filter(|(_, worker, device)| device_fits(stage, worker, device));
    let hardware: Vec<_> = fitting().filter(|(_, _, d)| d.class != "software").map(|(id, _, d)| (id, d.index)).collect();
    if hardware.is_empty() || device_class(stage) == "software" {
        fitting().map(|(id, _, d)| (id, d.index)).filter(|c| !hardware.contains(c)).collect()
    } else {
        hardware
    }
}

/// Too few devices of the cluster may ever run a stage, and what would have to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    what: String,
    changes: Vec<String>,
}

impl Shortfall {
    /// For a person who has to do something about it: a line for each thing.
    pub fn lines(&self) -> String {
        let mut text = self.what.clone();
        self.changes.iter().for_each(|change| text.extend(["\n  ", change]));
        text
    }

    /// In one line.
    pub fn line(&self) -> String {
        std::iter::once(self.what.clone()).chain(self.changes.iter().cloned()).collect::<Vec<_>>().join("; ")
    }
}

/// What keeps the stage from ever running on the cluster as it is; `None` when enough devices fit.
pub fn shortfall_of_stage(state: &State, stage: &StageSpec, tasks: Option<u64>) -> Option<Shortfall> {
    let needed = gang::size(stage, tasks).max(1);
    let found = candidates(state, stage).len();
    if found >= needed {
        return None;
    }
    let name = &stage.name;
    let what = match (found, needed) {
        (0, 1) => format!("no device of the cluster can run stage '{name}'"),
        (found, 1..) => format!("stage '{name}' begins on {needed} devices at once (gang), and {found} of the cluster can run it"),
        _ => return None,
    };
    let mut unfit: Vec<(Vec<String>, WorkerId, &Worker, &Device)> = Vec::new();
    let (mut all, mut left_out) = (0u64, 0);
    for (id, worker, device) in devices(state) {
        all += 1;
        match lacks(stage, worker, device) {
            lacks if lacks.is_empty() => left_out += 1,
            lacks => unfit.push((lacks, id, worker, device)),
        }
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for lack in unfit.iter().flat_map(|(lacks, ..)| lacks) {
        let count = counts.entry(lack).or_default();
        if *count == 0 {
            order.push(lack);
        }
        *count += 1;
    }
    order.sort_by_key(|lack| std::cmp::Reverse(counts[*lack]));
    let mut changes = Vec::new();
    if found > 0 {
        let more = counted((needed - found) as u64, "more device");
        changes.push(format!("start workers with {more} that can run it, or ask for at most {found} (gang = {found})"));
    }
    // Nothing that a person could start would help here.
    changes.extend(stage.require.as_ref().and_then(out_of_reach));
    changes.extend(order.iter().map(|lack| format!("{} of {}: {lack}", counts[*lack], counted(all, "device"))));
    if left_out > found {
        let (software, are) = (counted((left_out - found) as u64, "software GPU"), if left_out - found == 1 { "is" } else { "are" });
        changes.push(format!("{software} {are} left out, because there is other hardware that fits"));
    }
    if all == 0 {
        changes.push("it has no worker; start one with 'raftwerk worker start'".to_owned());
    }
    unfit.sort_by_key(|(lacks, id, _, device)| (lacks.len(), *id, device.index));
    changes.extend(unfit.iter().take(NEAREST).enumerate().map(|(n, (lacks, id, worker, device))| {
        let nearest = if n == 0 { "nearest" } else { "then" };
        let (name, index) = (&worker.hello.name, device.index);
        format!("{nearest}: worker {id} ({name}) device {index}, {} ({}): {}", device.name, device.class, lacks.join(", "))
    }));
    Some(Shortfall { what, changes })
}

/// What keeps some stage of the job from ever running on the cluster as it is; `None` when each stage has devices.
pub fn shortfall(state: &State, spec: &JobSpec) -> Option<Shortfall> {
    let mut stages = spec.stages.iter().enumerate();
    // Of files nothing is known before they are listed.
    let tasks = |index: usize, stage| gang::known_tasks(stage).or_else(|| tasks_of_stage(spec, index).filter(|_| reads_a_stage(stage)));
    stages.find_map(|(index, stage)| shortfall_of_stage(state, stage, tasks(index, stage)))
}
