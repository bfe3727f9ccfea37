//! Kernels of Raftwerk: the functions that tasks run, each with a CPU twin and, where marked, a GPU twin.
//!
//! ```text
//! api.rs      the contract with the executor          params.rs   parameters of a stage: defaults, limits, messages
//! <name>/     one kernel                              run.rs      shuffle blocks: layout, reader, merge
//! gpu/        the wgpu runtime that GPU twins share   key.rs      stable hash of a key, its partition, its sort prefix
//! output.rs   what kernels print                      footprint.rs   which parameters matter for what a task costs
//! ```
//! This crate reads and writes memory only: no path, no socket. The GPU's own device files are the exception, and `noop` may print.

pub mod api;
mod footprint;
pub mod gpu;
pub mod key;
pub mod output;
mod params;
pub mod run;

pub mod histogram;
pub mod image;
pub mod mandelbrot;
pub mod merge_sorted;
pub mod monte_carlo_pi;
pub mod noop;
pub mod radix_sort;
pub mod statistics;
pub mod sum_by_key;
pub mod summary;
pub mod word_count;

pub use api::*;
pub use footprint::footprint;
pub use params::{canonical_f64, reduce_params, resolve_params};

/// All kernels, by name.
pub fn registry() -> &'static [&'static dyn Kernel] {
    &[
        &histogram::Histogram,
        &image::Image,
        &mandelbrot::Mandelbrot,
        &merge_sorted::MergeSorted,
        &monte_carlo_pi::MonteCarloPi,
        &noop::Noop,
        &radix_sort::RadixSort,
        &statistics::Statistics,
        &sum_by_key::SumByKey,
        &summary::Summary,
        &word_count::WordCount,
    ]
}

/// The kernel of this name, or [`KernelError::Param`] that names the nearest one and lists all.
pub fn find(name: &str) -> Result<&'static dyn Kernel, KernelError> {
    if let Some(kernel) = registry().iter().find(|kernel| kernel.descriptor().name == name) {
        return Ok(*kernel);
    }
    let names: Vec<&str> = registry().iter().map(|kernel| kernel.descriptor().name).collect();
    Err(KernelError::Param(params::unknown("kernel", name, &names, "known kernels")))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod testing;
