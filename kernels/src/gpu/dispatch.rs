//! Upload, run, read back.

use std::sync::mpsc::{Receiver, channel};

use super::{Gpu, Program, Resident};
use crate::api::KernelError;

/// One run of a program over many work groups.
///
/// Groups are numbered in one dimension; the dispatch folds them into two when they exceed the limit of one, so a shader computes
/// `group.y * group_count.x + group.x` and returns when that lies beyond its list of work.
pub(crate) struct Dispatch<'a> {
    pub(crate) program: Program<'a>,
    /// Read-only buffers, bound first, in order. None may be empty.
    pub(crate) inputs: &'a [Parts<'a>],
    /// Size of the output, bound last, which starts as zeros.
    pub(crate) output_bytes: u64,
    pub(crate) groups: u32,
}

/// Contents of one buffer: parts, each filled up with zeros to whole words. Tasks' inputs go to the device without being joined first.
pub(crate) type Parts<'a> = &'a [&'a [u8]];

/// A dispatch under way; several may be, and the device runs them in order.
pub(crate) struct Running<'a> {
    gpu: &'a Gpu,
    staging: wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
    mapped: Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Gpu {
    pub(crate) fn start(&self, dispatch: &Dispatch<'_>) -> Result<Running<'_>, KernelError> {
        self.start_with(&[], dispatch)
    }

    /// With buffers that are on the device already, bound before the inputs.
    pub(crate) fn start_with(&self, resident: &[&Resident], dispatch: &Dispatch<'_>) -> Result<Running<'_>, KernelError> {
        let pipeline = self.pipeline(&dispatch.program)?;
        let Some(output_bytes) = wgpu::BufferSize::new(dispatch.output_bytes) else {
            return Err(self.error("a dispatch without output"));
        };
        let output_bytes = output_bytes.get();
        self.guarded(|| {
            let inputs: Vec<wgpu::Buffer> = dispatch.inputs.iter().map(|bytes| self.upload(bytes)).collect();
            let output = self.buffer("output", output_bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
            let staging = self.buffer("staging", output_bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);

            let entries: Vec<_> = resident
                .iter()
                .map(|resident| &resident.buffer)
                .chain(&inputs)
                .chain(std::iter::once(&output))
                .enumerate()
                .map(|(binding, buffer)| wgpu::BindGroupEntry { binding: binding as u32, resource: buffer.as_entire_binding() })
                .collect();
            let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.program.name),
                layout: &pipeline.bindings,
                entries: &entries,
            });
            let mut encoder = self.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(&pipeline.compute);
                pass.set_bind_group(0, &bind_group, &[]);
                let across = dispatch.groups.min(self.report().max_workgroups_per_dimension).max(1);
                pass.dispatch_workgroups(across, dispatch.groups.div_ceil(across), 1);
            }
            encoder.copy_buffer_to_buffer(&output, 0, &staging, 0, output_bytes);
            let submission = self.queue.submit([encoder.finish()]);
            let (sender, mapped) = channel();
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                // Nobody waits any more when another dispatch of the lease failed.
                let _ = sender.send(result);
            });
            Running { gpu: self, staging, submission, mapped }
        })
    }

    pub(super) fn upload(&self, parts: Parts<'_>) -> wgpu::Buffer {
        let bytes: usize = parts.iter().map(|part| whole_words(part.len())).sum();
        let buffer = self.buffer("input", bytes as u64, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST);
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

    fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
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
        let view = self.staging.get_mapped_range(..).map_err(|error| gpu.error(&error.to_string()))?;
        let words = view.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        drop(view);
        // A device lost meanwhile may have left anything in the buffer.
        gpu.check()?;
        Ok(words)
    }
}

fn whole_words(bytes: usize) -> usize {
    bytes.next_multiple_of(4)
}

/// Words as the bytes a shader reads.
pub(crate) fn words(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}
