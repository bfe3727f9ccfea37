//! Which device may run a stage.

use crate::ids::WorkerId;
use crate::memory::Need;
use crate::spec::{device_class, lease_amount};
use crate::state::State;
use crate::worker::DeviceUse;
use raftwerk_proto::v1::{Device, JobSpec, StageSpec};

/// Whether the device has a twin of the stage's kernel, is of the class asked for, and could hold one lease when idle.
pub fn device_fits(stage: &StageSpec, device: &Device) -> bool {
    let Some(kernel) = &stage.kernel else { return false };
    let wanted = device_class(stage);
    let class_fits = match wanted {
        "any" => true,
        "gpu" => device.class != "cpu",
        class => device.class == class,
    };
    // Asked of thousands of devices in every round: most names differ in their length already.
    let is_it = |name: &str| {
        let version = name.strip_prefix(kernel.name.as_str()).and_then(|rest| rest.strip_prefix('@'));
        version.is_some_and(|version| version.parse() == Ok(kernel.version))
    };
    let has_twin = device.kernels.iter().any(|name| name.len() > kernel.name.len() && is_it(name));
    let capacity = device.capacity.unwrap_or_default();
    // The part that depends on the input's size is seen when a lease is planned.
    let least = Need::of(stage, device, 0).amount(&lease_amount(stage), 1);
    class_fits && has_twin && DeviceUse::default().fits(&capacity, &least)
}

/// Devices of present workers that may run the stage: (worker, device index). Software adapters only when the stage asks for class
/// `software` or nothing else fits: they are far slower than the CPU they run on.
pub fn candidates(state: &State, stage: &StageSpec) -> Vec<(WorkerId, u32)> {
    let fitting = || {
        state
            .workers
            .iter()
            .filter(|(_, w)| !w.lost)
            .flat_map(|(id, w)| w.hello.devices.iter().map(move |d| (*id, d)))
            .filter(|(_, d)| device_fits(stage, d))
    };
    let hardware: Vec<_> = fitting().filter(|(_, d)| d.class != "software").map(|(id, d)| (id, d.index)).collect();
    if hardware.is_empty() || device_class(stage) == "software" {
        fitting().map(|(id, d)| (id, d.index)).filter(|c| !hardware.contains(c)).collect()
    } else {
        hardware
    }
}

/// Why no present device can run some stage of the job, with what is present; `None` when each stage has one.
pub fn impossible(state: &State, spec: &JobSpec) -> Option<String> {
    let stage = spec.stages.iter().find(|stage| candidates(state, stage).is_empty())?;
    let kernel = stage.kernel.as_ref().map(|k| format!("{}@{}", k.name, k.version)).unwrap_or_default();
    let present: Vec<String> = state
        .workers
        .iter()
        .filter(|(_, w)| !w.lost)
        .flat_map(|(id, w)| {
            w.hello.devices.iter().map(move |d| format!("worker {id} ({}) device {}: {} ({})", w.hello.name, d.index, d.name, d.class))
        })
        .collect();
    let listed = if present.is_empty() { "no worker is present".to_string() } else { format!("present: {}", present.join("; ")) };
    Some(format!("no present device can run stage '{}' (kernel {kernel}, device class '{}'); {listed}", stage.name, device_class(stage)))
}
