//! Lists the GPUs of this machine.

use std::future::Future;
use std::task::{Context, Poll, Waker};

/// What kind of device an adapter is, as far as scheduling cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceClass {
    /// A card with its own memory.
    Discrete,
    /// Shares the processor's memory.
    Integrated,
    /// A share of a card, handed through by a hypervisor.
    Virtual,
    /// The processor itself behind a GPU interface (lavapipe, SwiftShader): right results, and at best about as fast as the CPU twin.
    Software,
    Other,
}

impl DeviceClass {
    pub fn name(self) -> &'static str {
        match self {
            DeviceClass::Discrete => "discrete",
            DeviceClass::Integrated => "integrated",
            DeviceClass::Virtual => "virtual",
            DeviceClass::Software => "software",
            DeviceClass::Other => "other",
        }
    }
}

/// One adapter, described without opening it.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// For [`crate::gpu::Gpu::open`]; the drivers' order, stable while the machine's drivers stay the same.
    pub index: usize,
    pub name: String,
    /// "NVIDIA", or the PCI id in hexadecimal of a vendor that is not known here.
    pub vendor: String,
    pub vendor_id: u32,
    pub device_id: u32,
    /// "vulkan", "metal", "dx12", "gl".
    pub backend: &'static str,
    pub class: DeviceClass,
    /// Name and version, as the driver gives them.
    pub driver: String,
    /// Such as "0000:01:00.0"; empty where the driver does not say.
    pub pci_bus_id: String,
    pub max_buffer_bytes: u64,
    pub max_binding_bytes: u64,
    pub max_invocations_per_workgroup: u32,
    pub max_workgroups_per_dimension: u32,
    pub workgroup_memory_bytes: u32,
    pub subgroup_sizes: (u32, u32),
    /// Of "f16", "f64", "i64", "subgroup", "timestamp".
    pub features: Vec<&'static str>,
    /// Size of the device's own memory (for software and integrated adapters: what they may use of the machine's), where known.
    pub memory_bytes: Option<u64>,
}

/// All adapters that the installed drivers offer, software ones included. Without a driver or loader the list is empty.
pub fn adapters() -> Vec<AdapterReport> {
    enumerate().iter().enumerate().map(|(index, adapter)| report(index, adapter)).collect()
}

pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    // The default turns the Vulkan validation layer on in debug builds, which makes tests differ from what ships.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = ready(instance.enumerate_adapters(wgpu::Backends::PRIMARY)).unwrap_or_default();
    adapters.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    adapters
}

pub(super) fn report(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    AdapterReport {
        index,
        vendor: vendor(info.vendor),
        vendor_id: info.vendor,
        device_id: info.device,
        backend: info.backend.to_str(),
        class: class(info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        pci_bus_id: info.device_pci_bus_id,
        max_buffer_bytes: limits.max_buffer_size,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        workgroup_memory_bytes: limits.max_compute_workgroup_storage_size,
        subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
        features: features(adapter.features()),
        memory_bytes: memory_bytes(adapter),
        name: info.name,
    }
}

fn class(device_type: wgpu::DeviceType) -> DeviceClass {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => DeviceClass::Discrete,
        wgpu::DeviceType::IntegratedGpu => DeviceClass::Integrated,
        wgpu::DeviceType::VirtualGpu => DeviceClass::Virtual,
        wgpu::DeviceType::Cpu => DeviceClass::Software,
        wgpu::DeviceType::Other => DeviceClass::Other,
    }
}

fn vendor(id: u32) -> String {
    let name = match id {
        0x1002 => "AMD",
        0x1010 => "Imagination",
        0x106b => "Apple",
        0x10de => "NVIDIA",
        0x13b5 => "ARM",
        0x1414 => "Microsoft",
        0x14e4 => "Broadcom",
        0x1ae0 => "Google",
        0x5143 => "Qualcomm",
        0x8086 => "Intel",
        0x1_0005 => "Mesa",
        _ => return format!("{id:#06x}"),
    };
    name.to_owned()
}

fn features(features: wgpu::Features) -> Vec<&'static str> {
    let named = [
        ("f16", wgpu::Features::SHADER_F16),
        ("f64", wgpu::Features::SHADER_F64),
        ("i64", wgpu::Features::SHADER_INT64),
        ("subgroup", wgpu::Features::SUBGROUP),
        ("timestamp", wgpu::Features::TIMESTAMP_QUERY),
    ];
    named.iter().filter(|(_, feature)| features.contains(*feature)).map(|(name, _)| *name).collect()
}

/// wgpu does not tell a device's memory; Vulkan does.
#[cfg(any(target_os = "linux", target_os = "windows"))]
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    /// VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the adapter is only read, and the handles are used while `adapter` keeps the instance alive.
    let properties = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        adapter.shared_instance().raw_instance().get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    let heaps = properties.memory_heaps.iter().take(properties.memory_heap_count as usize);
    // The largest, not the sum: cards list windows into the same memory as heaps of their own.
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
fn memory_bytes(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

/// The result of a future that is ready at once, which all of wgpu's native ones are: this crate needs no runtime.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
