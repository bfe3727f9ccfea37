//! What this machine is and how busy it is.
use raftwerk_proto::v1::{Host, Load};
use sysinfo::{MemoryRefreshKind, System};

/// Remembers the last measurement: processor use is a difference.
#[derive(Default)]
pub(crate) struct LoadMeter {
    /// `None` before the first measurement, or on a system that sysinfo does not know.
    system: Option<System>,
}

impl LoadMeter {
    /// Adds processor and memory to what is known already.
    pub(crate) fn measure(&mut self, load: Load) -> Load {
        if self.system.is_none() {
            self.system = System::new().ok();
        }
        let Some(system) = &mut self.system else { return load };
        system.refresh_cpu_usage();
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        Load { cpu_permille: (system.global_cpu_usage() * 10.0) as u32, memory_used_bytes: system.used_memory(), ..load }
    }
}

/// Facts that do not change while the agent runs.
pub(crate) struct Machine {
    pub(crate) host: Host,
    pub(crate) cpu_name: String,
    pub(crate) cpu_vendor: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        let mut host = Host {
            hostname: System::host_name().unwrap_or_default(),
            os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.into()),
            memory_bytes: 0,
            cores,
        };
        let (mut cpu_name, mut cpu_vendor) = Default::default();
        if let Ok(mut system) = System::new() {
            system.refresh_cpu_all();
            system.refresh_memory();
            // A container's limit counts, not the host's memory; zero or absurd limits mean none.
            let limit = system.cgroup_limits().map(|limits| limits.total_memory).filter(|&bytes| bytes > 0);
            let total = system.total_memory();
            host.memory_bytes = limit.map_or(total, |limit| limit.min(total));
            if let Some(cpu) = system.cpus().first() {
                (cpu_name, cpu_vendor) = (cpu.brand().trim().to_owned(), cpu.vendor_id().to_owned());
            }
        }
        Self { host, cpu_name, cpu_vendor }
    }
}
