//! The small GPU runtime that the GPU twins share, over wgpu: one device per executor process, compute only.
//!
//! ```text
//! adapter.rs   what GPUs there are, without opening one     program.rs     WGSL to pipelines, compiled once per device
//! device.rs    one opened GPU, its errors and its memory    dispatch.rs    upload, run, read back
//! plan.rs      several dispatches over resident buffers,    pool.rs        buffers used again
//!              and the bytes that they move                 self_test.rs   does this device compute rightly?
//! pieces.rs    many tasks cut into even work for groups     primitives/    reduce and scan, for kernels to build on
//! wide_mul_*   the 32 x 32 -> 64 bit product in WGSL   resident.rs    data that stays on the device between dispatches
//! kept.rs      input that stays for further rounds of a job     need.rs    what leases take of the memory
//! index_piece.wgsl, element.wgsl, piece_group.wgsl:     ahead.rs       several runs under way
//!              what kernels over ranges, over         ceilings.rs    what the device does at most
//!              elements and over pieces share
//! ```
//! Every failure of the device is [`crate::KernelError::Device`]; nothing here panics for one. A hung shader cannot be stopped from
//! inside: whoever runs the executor ends its process.

mod adapter;
mod ahead;
mod ceilings;
mod device;
mod dispatch;
mod kept;
mod need;
mod pieces;
mod plan;
mod pool;
pub mod primitives;
mod program;
mod resident;
mod self_test;
#[cfg(test)]
mod tests;

pub use adapter::{AdapterReport, DeviceClass, adapters};
pub use ceilings::Ceilings;
pub use device::{Gpu, GpuMemory, OpenOptions};
pub use plan::Traffic;
pub use self_test::cpu_self_test;

pub(crate) use ahead::Ahead;
pub(crate) use device::BATCH_BYTES;
pub(crate) use dispatch::{Dispatch, Running, words};
pub(crate) use kept::KeptInput;
pub(crate) use need::Dispatches;
pub(crate) use pieces::{Piece, pieces};
pub(crate) use plan::{Plan, Slot, Use};
pub(crate) use program::Program;
pub(crate) use resident::Resident;

/// WGSL of `Piece` and `integer_of`, for kernels over ranges of integers.
pub(crate) const INDEX_PIECE: &str = include_str!("index_piece.wgsl");

/// WGSL of the entry point of kernels whose groups work on a piece each, in the list that is bound first. Comes behind the kernel's own, which declares
/// its constants: see [`ELEMENT`].
pub(crate) const PIECE_GROUP: &str = include_str!("piece_group.wgsl");

/// WGSL of `load` and `rank_of`, for kernels over elements in `values`; they set the constant `element`. Comes first: naga 30 panics over an
/// `override` that stands behind an array whose length another one gives.
pub(crate) const ELEMENT: &str = include_str!("element.wgsl");
