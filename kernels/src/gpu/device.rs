//! One opened GPU.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::{self, AdapterReport, ready};
use super::kept::SHARE;
use super::need::Ledger;
use super::plan::Traffic;
use super::pool::Pool;
use super::program::Pipeline;
use crate::api::KernelError;

/// A GPU, open for the life of the executor that owns it. Use it from any thread.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: Mutex<HashMap<String, Arc<Pipeline>>>,
    pub(super) pool: Mutex<Pool>,
    pub(super) traffic: Mutex<Traffic>,
    /// What work under way holds of the memory.
    pub(super) ledger: Arc<Ledger>,
    /// Bytes brought to the device so far.
    pub(super) uploaded: AtomicU64,
    /// Bytes of input that stays for further rounds of jobs, and how much that may be.
    pub(crate) kept: Arc<AtomicU64>,
    pub(crate) kept_limit: AtomicU64,
    batch_bytes: u64,
    report: AdapterReport,
    wide_integers: bool,
    /// Why the device is of no more use. Set by wgpu's callbacks, never cleared.
    trouble: Arc<Mutex<Option<String>>>,
}

#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Use 64-bit integers in shaders where the adapter has them. Off: the portable shaders, for tests.
    pub wide_integers: bool,
    /// Most input or output of one dispatch. Less than the default: for tests that need several dispatches.
    pub batch_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions { wide_integers: true, batch_bytes: BATCH_BYTES }
    }
}

/// What one may put on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMemory {
    /// The device's own memory, where known.
    pub total_bytes: Option<u64>,
    /// Held now by this process's buffers, where the backend counts them.
    pub allocated_bytes: Option<u64>,
    /// A kernel keeps at most about this many bytes of one lease on the device at a time, however long the lease is: three
    /// dispatches, each with its input, its output and their staging copies.
    pub per_lease_bytes: u64,
    /// Most that work under way, and what stays between dispatches, have asked for at once.
    pub peak_bytes: u64,
}

/// Input of one dispatch. Large enough to hide the cost of a dispatch (under a tenth of a millisecond), small enough that two of
/// them and their results fit any GPU and that copying one overlaps computing the other.
pub(crate) const BATCH_BYTES: u64 = 64 << 20;

impl Gpu {
    /// Opens the adapter with this index in [`super::adapters`].
    pub fn open(index: usize) -> Result<Gpu, KernelError> {
        Gpu::open_with(index, OpenOptions::default())
    }

    pub fn open_with(index: usize, options: OpenOptions) -> Result<Gpu, KernelError> {
        let adapters = adapter::enumerate();
        let adapter = adapters
            .get(index)
            .ok_or_else(|| KernelError::Device(format!("there is no GPU adapter {index}; this machine has {}", adapters.len())))?;
        let report = adapter::report(index, adapter);
        let int64 = wgpu::Features::SHADER_INT64;
        let wide_integers = options.wide_integers && adapter.features().contains(int64);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("raftwerk"),
            required_features: if wide_integers { int64 } else { wgpu::Features::empty() },
            // wgpu's defaults are what every browser has, 128 MiB bindings for example; cards have far more.
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = ready(adapter.request_device(&descriptor))
            .ok_or_else(|| KernelError::Device(format!("{}: the driver did not answer", report.name)))?
            .map_err(|error| KernelError::Device(format!("{}: {error}", report.name)))?;

        let trouble = Arc::new(Mutex::new(None));
        let note = |trouble: &Arc<Mutex<Option<String>>>| {
            let trouble = trouble.clone();
            move |what: String| {
                // The first cause; what follows is its echo.
                trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
            }
        };
        let lost = note(&trouble);
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device at exit is reported here too.
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost(format!("the device was lost: {message}"));
            }
        });
        let uncaptured = note(&trouble);
        // wgpu's own handler panics.
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| uncaptured(error.to_string())));
        let batch_bytes = options.batch_bytes.min(report.max_binding_bytes).min(report.max_buffer_bytes);
        Ok(Gpu {
            device,
            queue,
            pipelines: Mutex::default(),
            pool: Mutex::default(),
            traffic: Mutex::default(),
            ledger: Arc::default(),
            uploaded: AtomicU64::new(0),
            kept: Arc::default(),
            kept_limit: AtomicU64::new(report.memory_bytes.unwrap_or(report.max_buffer_bytes) / SHARE),
            batch_bytes,
            report,
            wide_integers,
            trouble,
        })
    }

    pub fn report(&self) -> &AdapterReport {
        &self.report
    }

    /// Why this GPU can no longer be used, if so; only opening it anew (best: in a new process) helps.
    pub fn lost(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn memory(&self) -> GpuMemory {
        GpuMemory {
            total_bytes: self.report.memory_bytes,
            allocated_bytes: self.device.generate_allocator_report().map(|report| report.total_allocated_bytes),
            per_lease_bytes: 8 * self.batch_bytes(),
            peak_bytes: self.ledger.peak(),
        }
    }

    /// Measures the peak of what follows.
    #[cfg(test)]
    pub(crate) fn begin_peak(&self) {
        self.ledger.begin_anew();
    }

    /// At most this much input or output per dispatch and binding.
    pub(crate) fn batch_bytes(&self) -> u64 {
        self.batch_bytes
    }

    /// Buffers that nobody uses keep at most this much memory for the next dispatches: half of what a lease may use.
    pub(super) fn spare_bytes(&self) -> u64 {
        4 * self.batch_bytes()
    }

    /// What all dispatches so far have moved between the device's memory and its cores, as their plans say.
    pub fn traffic(&self) -> Traffic {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes brought to the device so far, padding included.
    pub fn uploaded_bytes(&self) -> u64 {
        self.uploaded.load(Ordering::Relaxed)
    }

    /// WGSL of `mul_wide(a: u32, b: u32) -> vec2<u32>`, the low and the high word of the product.
    pub(crate) fn mul_wide(&self) -> &'static str {
        if self.wide_integers { include_str!("wide_mul_u64.wgsl") } else { include_str!("wide_mul_u32.wgsl") }
    }

    pub(super) fn check(&self) -> Result<(), KernelError> {
        self.lost().map_or(Ok(()), |trouble| Err(self.error(&trouble)))
    }

    pub(super) fn error(&self, what: &str) -> KernelError {
        KernelError::Device(format!("{}: {what}", self.report.name))
    }

    /// Runs `work`, which makes or submits things on the device, and returns its errors instead of reporting them to nobody.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> T) -> Result<T, KernelError> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        self.check()?;
        let scopes = [Validation, Internal, OutOfMemory].map(|filter| self.device.push_error_scope(filter));
        let value = work();
        // Scopes are a stack: the last one pushed is popped first.
        let errors: Vec<wgpu::Error> = scopes.into_iter().rev().filter_map(|scope| ready(scope.pop()).flatten()).collect();
        match errors.first() {
            None => self.check().map(|()| value),
            Some(wgpu::Error::OutOfMemory { .. }) => {
                // What is kept for later is the first to go.
                self.pool.lock().unwrap_or_else(PoisonError::into_inner).clear();
                Err(KernelError::Memory(format!("{}: out of memory", self.report.name)))
            }
            Some(error) => Err(self.error(&error.to_string())),
        }
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("report", &self.report).field("lost", &self.lost()).finish_non_exhaustive()
    }
}
