//! Which devices this machine offers: found, selected, and offered only after their executor has passed its self test.
use super::{
    child::{LaunchError, Launched, Launcher},
    load::Machine,
    logs::{DeviceOutput, Logs},
};
use crate::executor::ExecutorDevice;
use futures::future::BoxFuture;
use raftwerk_proto::v1::{Capacity, Device};
use std::{path::PathBuf, sync::Arc};

/// Leases that one device may hold: enough to keep it busy over a round trip with one-task leases.
const SLOTS: u64 = 256;

/// What the user allows.
#[derive(Clone, Debug, Default)]
pub struct DeviceSelection {
    /// Cores of the CPU device; 0 offers none; all by default.
    pub cpus: Option<u32>,
    pub no_gpu: bool,
    /// Memory that leases may hold on the CPU device.
    pub memory_bytes: Option<u64>,
    /// Classes ("cpu", "gpu", "discrete", ..) or parts of names; empty allows all.
    pub only: Vec<String>,
}

impl DeviceSelection {
    fn allows(&self, device: &Device) -> bool {
        let gpu = device.class != "cpu";
        if gpu && self.no_gpu {
            return false;
        }
        let name = device.name.to_lowercase();
        self.only.is_empty()
            || self.only.iter().any(|wanted| {
                let wanted = wanted.to_lowercase();
                wanted == device.class || (gpu && (wanted == "gpu" || name.contains(&wanted)))
            })
    }
}

/// One row of `raftwerk doctor`.
#[derive(Clone, Debug)]
pub struct ProbedDevice {
    /// As far as it is known without opening it.
    pub device: Device,
    pub outcome: ProbeOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The self test passed; a worker would offer it.
    Ready,
    /// The selection excludes it.
    NotSelected,
    /// Why it would not be offered.
    Failed(String),
}

/// A device whose executor runs, or why it does not.
pub(crate) struct Found {
    pub(crate) kind: ExecutorDevice,
    pub(crate) device: Device,
    pub(crate) output: Arc<DeviceOutput>,
    /// `None`: not selected.
    pub(crate) launched: Option<Result<Launched, LaunchError>>,
}

/// Finds devices and starts the executors of selected ones, side by side: a slow driver must not hold up the CPU.
pub(crate) async fn discover(launcher: &Launcher, machine: &Machine, selection: &DeviceSelection, logs: &Arc<Logs>) -> Vec<Found> {
    let mut candidates = vec![(ExecutorDevice::Cpu, cpu(machine, selection))];
    if !selection.no_gpu {
        match launcher.adapters(DeviceOutput::new(logs.clone())).await {
            Ok(adapters) => candidates.extend(adapters.into_iter().enumerate().map(|(at, device)| (ExecutorDevice::Gpu(at), device))),
            Err(error) => tracing::warn!(error = super::shuffle::fetch::chain(&error), "cannot look for GPUs; none is offered"),
        }
    }
    let launches = candidates.into_iter().map(|(kind, device)| {
        let output = DeviceOutput::new(logs.clone());
        let selected = selection.allows(&device) && !(kind == ExecutorDevice::Cpu && selection.cpus == Some(0));
        async move {
            let launched = if selected { Some(launcher.launch(kind, output.clone()).await) } else { None };
            let device = match &launched {
                Some(Ok(launched)) => complete(&launched.device, device),
                _ => device,
            };
            Found { kind, device, output, launched }
        }
    });
    futures::future::join_all(launches).await
}

fn cpu(machine: &Machine, selection: &DeviceSelection) -> Device {
    let cores = selection.cpus.unwrap_or(machine.host.cores).max(1);
    let memory_bytes = selection.memory_bytes.unwrap_or(machine.host.memory_bytes);
    Device {
        class: "cpu".into(),
        name: machine.cpu_name.clone(),
        vendor: machine.cpu_vendor.clone(),
        backend: "rayon".into(),
        capacity: Some(Capacity { milli_cpu: u64::from(cores) * 1000, memory_bytes, slots: SLOTS }),
        parallelism: cores,
        ..Device::default()
    }
}

/// What the executor says of its device, with what the agent knows.
fn complete(ready: &Device, known: Device) -> Device {
    // A GPU is listed before its executor runs, with its memory at most: leases need slots to sit in.
    let capacity = known.capacity.filter(|capacity| capacity.slots > 0).or_else(|| {
        let memory_bytes = ready.capacity.as_ref().map_or(0, |capacity| capacity.memory_bytes);
        Some(Capacity { milli_cpu: 1000, memory_bytes, slots: SLOTS })
    });
    let either = |ready: &str, known: String| if ready.is_empty() { known } else { ready.to_owned() };
    Device { capacity, name: either(&ready.name, known.name), vendor: either(&ready.vendor, known.vendor), ..ready.clone() }
}

/// Discovery without a cluster: starts every selected device's executor, lets it test itself, and ends it.
pub fn probe_devices(
    selection: &DeviceSelection,
    executor_program: PathBuf,
    executor_args_prefix: Vec<String>,
) -> BoxFuture<'_, Vec<ProbedDevice>> {
    Box::pin(probe(selection, executor_program, executor_args_prefix))
}

async fn probe(selection: &DeviceSelection, executor_program: PathBuf, executor_args_prefix: Vec<String>) -> Vec<ProbedDevice> {
    let machine = Machine::look();
    let launcher = Launcher::new(executor_program, executor_args_prefix, selection.cpus.unwrap_or(machine.host.cores));
    let found = discover(&launcher, &machine, selection, &Arc::default()).await;
    let rows = (0..).zip(found).map(|(index, found)| ProbedDevice {
        outcome: match &found.launched {
            None => ProbeOutcome::NotSelected,
            Some(Ok(_)) => ProbeOutcome::Ready,
            Some(Err(error)) => ProbeOutcome::Failed(super::shuffle::fetch::chain(error)),
        },
        device: Device { index, ..found.device },
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(class: &str, name: &str) -> Device {
        Device { class: class.into(), name: name.into(), ..Device::default() }
    }

    #[test]
    fn devices_are_selected_by_class_or_name() {
        let only = |words: &[&str]| DeviceSelection { only: words.iter().map(|&word| word.into()).collect(), ..DeviceSelection::default() };
        let (cpu, card, software) = (device("cpu", "Ryzen"), device("discrete", "NVIDIA H200"), device("software", "llvmpipe"));
        assert!(only(&[]).allows(&cpu) && only(&[]).allows(&software));
        assert!(only(&["gpu"]).allows(&card) && only(&["gpu"]).allows(&software) && !only(&["gpu"]).allows(&cpu));
        assert!(only(&["h200"]).allows(&card) && !only(&["h200"]).allows(&software));
        assert!(only(&["cpu", "software"]).allows(&cpu) && !only(&["cpu", "software"]).allows(&card));
        assert!(!DeviceSelection { no_gpu: true, ..DeviceSelection::default() }.allows(&card));
    }
}
