//! Kernels of Raftwerk: the functions that tasks run, each with a CPU twin and, where marked, a GPU twin.
//!
//! ```text
//! api.rs      the contract with the executor          params.rs   parameters of a stage: defaults, limits, messages
//! <name>/     one kernel                              run.rs      shuffle blocks: layout, reader, merge
//! gpu/        the wgpu runtime that GPU twins share   key.rs      stable hash of a key, its partition, its sort prefix
//! output.rs   what kernels print                      side.rs     arrays that every task of a stage reads whole
//! npy.rs      the header of .npy files                philox.rs   counter-based random numbers
//! round.rs    what a round leaves for the next         footprint.rs   which parameters matter for what a task costs
//! png_file.rs the header of .png files              gather.rs   what reduce kernels share that put pieces together
//! listed.rs   what is known of arrays before they are read
//! sorted_run/ shuffle blocks of sorted records and lines: layout, order, merge
//! cells.rs    cells of tables that kernels write      keyed.rs    tables in memory by keys of bytes
//! table_form.rs  tables as lines, or as files of columns
//! pieces.rs   parts that are handed out while they are made    preview.rs  lines and records as people are shown them
//! ```
//! This crate reads and writes memory only: no path, no socket. The GPU's own device files are the exception, and `noop` may print.

pub mod api;
mod cells;
mod counted;
mod footprint;
mod gather;
pub mod gpu;
pub mod key;
mod keyed;
mod listed;
mod npy;
pub mod output;
mod params;
mod philox;
mod pieces;
pub mod png_file;
mod preview;
mod round;
pub mod run;
mod side;
mod sorted_run;
mod table_form;

pub mod black_scholes;
pub mod convolve;
pub mod dedup;
pub mod file_per_task;
pub mod first_lines;
pub mod grep;
pub mod group_by;
pub mod histogram;
pub mod image;
pub mod inverted_index;
pub mod join;
pub mod key_lines;
pub mod kmeans_assign;
pub mod kmeans_update;
pub mod mandelbrot;
pub mod matching_lines;
pub mod matmul;
pub mod merge_groups;
pub mod merge_postings;
pub mod merge_runs;
pub mod merge_sample;
pub mod merge_sorted;
pub mod merge_statistics;
pub mod merge_top;
pub mod monte_carlo_pi;
pub mod noop;
pub mod radix_sort;
pub mod sample;
pub mod sort;
pub mod stack_rows;
pub mod statistics;
pub mod sum_by_key;
pub mod top_k;
pub mod word_count;

pub use api::*;
pub use counted::counted;
pub use footprint::footprint;
pub use listed::{check_listed, listed_footprint, wrong_type};
pub use params::{canonical_f64, reduce_params, resolve_params};

/// All kernels, by name.
pub fn registry() -> &'static [&'static dyn Kernel] {
    &[
        &black_scholes::BlackScholes,
        &convolve::Convolve,
        &dedup::Dedup,
        &file_per_task::FilePerTask,
        &first_lines::FirstLines,
        &grep::Grep,
        &group_by::GroupBy,
        &histogram::Histogram,
        &image::Image,
        &inverted_index::InvertedIndex,
        &join::Join,
        &key_lines::KeyLines,
        &kmeans_assign::KmeansAssign,
        &kmeans_update::KmeansUpdate,
        &mandelbrot::Mandelbrot,
        &matching_lines::MatchingLines,
        &matmul::Matmul,
        &merge_groups::MergeGroups,
        &merge_postings::MergePostings,
        &merge_runs::MergeRuns,
        &merge_sample::MergeSample,
        &merge_sorted::MergeSorted,
        &merge_statistics::MergeStatistics,
        &merge_top::MergeTop,
        &monte_carlo_pi::MonteCarloPi,
        &noop::Noop,
        &radix_sort::RadixSort,
        &sample::Sample,
        &sort::Sort,
        &stack_rows::StackRows,
        &statistics::Statistics,
        &sum_by_key::SumByKey,
        &top_k::TopK,
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
