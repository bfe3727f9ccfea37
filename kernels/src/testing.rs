//! What the kernels' tests share: a printed seed, a generator, short ways to run a task, and the GPU if there is one.

use std::collections::BTreeMap;

use crate::api::*;
use crate::gpu::{Gpu, OpenOptions, adapters};

/// Fresh for each run, or `SEED=n` to repeat one. Printed, so that a failure says how to repeat it.
pub fn random(test: &str) -> Random {
    let seed = match std::env::var("SEED") {
        Ok(text) => text.parse().expect("SEED is a number"),
        Err(_) => getrandom::u64().expect("the system gives random numbers"),
    };
    println!("{test}: replay with SEED={seed}");
    Random(seed)
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): enough for test data.
pub struct Random(u64);

impl From<u64> for Random {
    fn from(seed: u64) -> Random {
        Random(seed)
    }
}

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

pub fn params(pairs: &[(&str, &str)]) -> Params {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<BTreeMap<_, _>>()
}

pub fn prepare(kernel: &str, pairs: &[(&str, &str)], partitions: u32) -> Result<Box<dyn Prepared>, KernelError> {
    let stage = StageContext { params: params(pairs), tasks: 1, partitions, ..StageContext::default() };
    crate::find(kernel)?.prepare(&stage)
}

/// The part that a reduce kernel makes of these blocks, given in task order.
pub fn reduce(kernel: &str, pairs: &[(&str, &str)], format: &str, partitions: u64, blocks: &[&[u8]]) -> Result<Part, KernelError> {
    let stage = StageContext { params: params(pairs), tasks: partitions, partitions: 1, format: format.into(), ..StageContext::default() };
    let blocks = blocks.iter().enumerate().map(|(task, bytes)| Block { task: task as u64, bytes }).collect();
    let output = crate::find(kernel)?.prepare(&stage)?.run_cpu(&Task { number: 0, input: Input::Blocks(blocks) })?;
    Ok(output.part.expect("a reduce task makes a part"))
}

/// Runs a lease of so many tasks and units, and holds what its plans have taken of the device against what the kernel declares: never more, and
/// no more than half as much again, small buffers aside.
pub fn check_memory(gpu: &Gpu, need: GpuNeed, tasks: u64, units: u64, run: impl FnOnce()) {
    const SMALL: u64 = 192 << 10;
    gpu.begin_peak();
    run();
    let (taken, declared) = (gpu.memory().peak_bytes, need.bytes(tasks, units));
    println!("{tasks} tasks, {units} units: {taken} bytes taken, {declared} declared");
    assert!(taken <= declared, "{taken} bytes taken, {declared} declared: {need:?}");
    assert!(declared <= taken + taken / 2 + SMALL, "{declared} bytes declared, {taken} taken: {need:?}");
}

/// Runs a test on the first GPU adapter, once with 64-bit integers in shaders and once without. Without an adapter the test says
/// that it was skipped; with `RAFTWERK_REQUIRE_GPU=1` that is a failure.
pub fn with_gpus(test: impl Fn(&Gpu)) {
    with_gpus_of_batch(OpenOptions::default().batch_bytes, test);
}

/// The same, with dispatches of at most so many bytes.
pub fn with_gpus_of_batch(batch_bytes: u64, test: impl Fn(&Gpu)) {
    if adapters().is_empty() {
        assert!(std::env::var("RAFTWERK_REQUIRE_GPU").as_deref() != Ok("1"), "RAFTWERK_REQUIRE_GPU=1, and there is no GPU adapter");
        println!("skipped: no GPU adapter");
        return;
    }
    for wide_integers in [true, false] {
        let gpu = Gpu::open_with(0, OpenOptions { wide_integers, batch_bytes }).expect("the adapter opens");
        println!("on {}, wide integers allowed: {wide_integers}", gpu.report().name);
        test(&gpu);
    }
}
