//! WGSL programs and their pipelines. A pipeline is compiled at first use and kept for the life of the device: software adapters and
//! some drivers take a tenth of a second for one.

use std::fmt::Write;
use std::sync::{Arc, PoisonError};

use super::Gpu;
use crate::api::KernelError;

/// A WGSL program with one entry point `main`, which binds storage buffers 0, 1, .. of group 0.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) name: &'static str,
    /// Texts that make up the module, in order. Equal names and constants must mean equal texts.
    pub(crate) wgsl: &'a [&'static str],
    /// Values for `override` declarations: the one home of a constant is in Rust.
    pub(crate) constants: &'a [(&'static str, u32)],
}

pub(super) struct Pipeline {
    pub(super) compute: wgpu::ComputePipeline,
    pub(super) bindings: wgpu::BindGroupLayout,
}

impl Gpu {
    pub(super) fn pipeline(&self, program: &Program<'_>) -> Result<Arc<Pipeline>, KernelError> {
        let mut key = program.name.to_owned();
        for (name, value) in program.constants {
            let _ = write!(key, " {name}={value}");
        }
        // Held while compiling, so that two threads do not compile the same program twice.
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(self.guarded(|| self.compile(program))?);
        pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    fn compile(&self, program: &Program<'_>) -> Pipeline {
        let source = wgpu::ShaderSource::Wgsl(program.wgsl.concat().into());
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(program.name), source });
        let constants: Vec<(&str, f64)> = program.constants.iter().map(|(name, value)| (*name, f64::from(*value))).collect();
        let compute = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(program.name),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, zero_initialize_workgroup_memory: true },
            cache: None,
        });
        let bindings = compute.get_bind_group_layout(0);
        Pipeline { compute, bindings }
    }
}
