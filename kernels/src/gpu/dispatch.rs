//! Upload, run, read back.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};

use wgpu::BufferUsages;

use super::need::Held;
use super::plan::{Contents, Parts, Plan, Traffic, Use, whole_words};
use super::pool::size_class;
use super::{Gpu, Program, Resident};
use crate::api::KernelError;

/// One run of a program over many work groups: a plan of one step, whose output moves once.
pub(crate) struct Dispatch<'a> {
    pub(crate) program: Program<'a>,
    /// Read-only buffers, bound first, in order. None may be empty.
    pub(crate) inputs: &'a [Parts<'a>],
    /// Size of the output, bound last, which starts as zeros.
    pub(crate) output_bytes: u64,
    pub(crate) groups: u32,
}

/// A plan under way; several may be, and the device runs them in order.
pub(crate) struct Running<'a> {
    gpu: &'a Gpu,
    staging: wgpu::Buffer,
    bytes: u64,
    /// Go back to the pool when the device has finished with them.
    held: Vec<wgpu::Buffer>,
    submission: wgpu::SubmissionIndex,
    mapped: Receiver<Result<(), wgpu::BufferAsyncError>>,
    _memory: Held,
}

const STORAGE: BufferUsages = BufferUsages::STORAGE.union(BufferUsages::COPY_SRC).union(BufferUsages::COPY_DST);
const STAGING: BufferUsages = BufferUsages::MAP_READ.union(BufferUsages::COPY_DST);

impl Gpu {
    pub(crate) fn start(&self, dispatch: &Dispatch<'_>) -> Result<Running<'_>, KernelError> {
        self.start_with(&[], dispatch)
    }

    /// With buffers that are on the device already, bound before the inputs.
    pub(crate) fn start_with(&self, resident: &[&Resident], dispatch: &Dispatch<'_>) -> Result<Running<'_>, KernelError> {
        let mut plan = Plan::default();
        let mut uses: Vec<Use> = resident.iter().map(|resident| Use::read(plan.resident(resident))).collect();
        uses.extend(dispatch.inputs.iter().map(|parts| Use::read(plan.upload(parts))));
        let output = plan.zeros(dispatch.output_bytes);
        uses.push(Use::write(output));
        plan.run(&dispatch.program, &uses, dispatch.groups);
        plan.result(output);
        self.submit(&plan)
    }

    pub(crate) fn submit(&self, plan: &Plan<'_>) -> Result<Running<'_>, KernelError> {
        let pipelines = plan.steps.iter().map(|step| self.pipeline(&step.program())).collect::<Result<Vec<_>, _>>()?;
        let bytes: u64 = plan.results.iter().map(|slot| plan.bytes(*slot)).sum();
        if bytes == 0 || plan.buffers.is_empty() {
            return Err(self.error("a dispatch without output"));
        }
        let memory = self.ledger.hold(plan.held(self.report().max_buffer_bytes));
        let running = self.guarded(|| {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let buffers: Vec<wgpu::Buffer> = plan.buffers.iter().map(|contents| self.fill(contents, &mut encoder)).collect();
            let size = |slot| wgpu::BufferSize::new(plan.bytes(slot));
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                for (step, pipeline) in plan.steps.iter().zip(&pipelines) {
                    // A spare buffer may be larger than what lies in it, and shaders ask for the length.
                    let entries: Vec<_> = (step.uses.iter().enumerate())
                        .map(|(binding, used)| wgpu::BindGroupEntry {
                            binding: binding as u32,
                            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                                buffer: &buffers[used.slot.index()],
                                offset: 0,
                                size: size(used.slot),
                            }),
                        })
                        .collect();
                    let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                        label: Some(step.name),
                        layout: &pipeline.bindings,
                        entries: &entries,
                    });
                    pass.set_pipeline(&pipeline.compute);
                    pass.set_bind_group(0, &bind_group, &[]);
                    let across = step.groups.min(self.report().max_workgroups_per_dimension).max(1);
                    pass.dispatch_workgroups(across, step.groups.div_ceil(across), 1);
                }
            }
            let (staging, _) = self.obtain("staging", bytes, STAGING);
            let mut at = 0;
            for slot in &plan.results {
                encoder.copy_buffer_to_buffer(&buffers[slot.index()], 0, &staging, at, plan.bytes(*slot));
                at += plan.bytes(*slot);
            }
            let submission = self.queue.submit([encoder.finish()]);
            let (sender, mapped) = channel();
            staging.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
                // Nobody waits any more when another dispatch of the lease failed.
                let _ = sender.send(result);
            });
            // What stays on the device is not the pool's.
            let own = |(buffer, contents): (wgpu::Buffer, &Contents<'_>)| (!matches!(contents, Contents::Resident(_))).then_some(buffer);
            let held = buffers.into_iter().zip(&plan.buffers).filter_map(own).collect();
            Running { gpu: self, staging, bytes, held, submission, mapped, _memory: memory }
        })?;
        self.count(plan.traffic());
        Ok(running)
    }

    fn count(&self, traffic: Traffic) {
        let mut all = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        all.read += traffic.read;
        all.written += traffic.written;
    }

    fn fill(&self, contents: &Contents<'_>, encoder: &mut wgpu::CommandEncoder) -> wgpu::Buffer {
        match contents {
            Contents::Parts(parts) => self.upload(parts),
            Contents::Bytes(bytes) => self.upload(&[bytes]),
            Contents::Resident(resident) => resident.buffer.clone(),
            Contents::Scratch(bytes) => self.obtain("scratch", bytes.next_multiple_of(4), STORAGE).0,
            Contents::Zeros(bytes) => {
                let bytes = bytes.next_multiple_of(4);
                let (buffer, used) = self.obtain("output", bytes, STORAGE);
                if used && bytes > 0 {
                    encoder.clear_buffer(&buffer, 0, Some(bytes));
                }
                buffer
            }
        }
    }

    pub(super) fn upload(&self, parts: Parts<'_>) -> wgpu::Buffer {
        let bytes: usize = parts.iter().map(|part| whole_words(part.len())).sum();
        let (buffer, _) = self.obtain("input", bytes as u64, STORAGE);
        self.uploaded.fetch_add(bytes as u64, Ordering::Relaxed);
        let Some(size) = wgpu::BufferSize::new(bytes as u64) else { return buffer };
        // `None` leaves an error in the scope around this.
        if let Some(mut view) = self.queue.write_buffer_with(&buffer, 0, size) {
            let mut at = 0;
            for part in parts {
                let end = at + part.len();
                view.slice(at..end).copy_from_slice(part);
                at += whole_words(part.len());
                view.slice(end..at).fill(0);
            }
        }
        buffer
    }

    /// A buffer of at least this size, and whether something old may lie in it (a new one holds zeros).
    fn obtain(&self, label: &str, bytes: u64, usage: BufferUsages) -> (wgpu::Buffer, bool) {
        if let Some(buffer) = self.pool.lock().unwrap_or_else(PoisonError::into_inner).take(usage, bytes) {
            return (buffer, true);
        }
        let size = size_class(bytes, self.report().max_buffer_bytes);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        (self.device.create_buffer(&descriptor), false)
    }
}

impl Running<'_> {
    /// Waits for the result: the words of the output.
    pub(crate) fn finish(self) -> Result<Vec<u32>, KernelError> {
        let gpu = self.gpu;
        let wait = wgpu::PollType::Wait { submission_index: Some(self.submission), timeout: None };
        gpu.guarded(|| gpu.device.poll(wait))?.map_err(|error| gpu.error(&error.to_string()))?;
        match self.mapped.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(gpu.error(&error.to_string())),
            Err(_) => return Err(gpu.error("the result did not arrive")),
        }
        let view = self.staging.get_mapped_range(..self.bytes).map_err(|error| gpu.error(&error.to_string()))?;
        let words = view.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        drop(view);
        // A device lost meanwhile may have left anything in the buffer.
        gpu.check()?;
        self.staging.unmap();
        // Only here: the buffers of a dispatch that failed are not used again.
        let mut pool = gpu.pool.lock().unwrap_or_else(PoisonError::into_inner);
        for buffer in self.held.into_iter().chain([self.staging]) {
            pool.put(buffer, gpu.spare_bytes());
        }
        Ok(words)
    }
}

/// Words as the bytes a shader reads.
pub(crate) fn words(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}
