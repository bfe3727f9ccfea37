//! What a device does at most, measured, so that kernels can be judged by it: how fast it copies its own memory, how fast it multiplies and
//! adds, how fast data comes to it and goes back. And the two primitives beside the copy, on data that lies on the device already.
//!
//! A round takes what a plan with twice as many rounds takes longer: start, upload and read-back fall out of the difference.

use std::time::{Duration, Instant};

use super::primitives::{Operation, reduce, scan};
use super::{DeviceClass, Gpu, Plan, Program, Slot, Use};
use crate::api::KernelError;

const GROUP_SIZE: u32 = 256;
/// Larger than the caches of most cards; halved until the device has room for it.
const COPY_BYTES: u64 = 256 << 20;
/// Threads, and rounds of 8 x 4 FMA each.
const FMA_GROUPS: u32 = 4096;
const FMA_ROUNDS: u32 = 512;
/// A software adapter gets so much less: it would work on it for minutes.
const SOFTWARE: u32 = 64;

/// Per second.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Read and written by a kernel that copies one buffer into another: both count.
    pub copy_bytes: f64,
    /// Single precision; an FMA counts as two.
    pub flops: f64,
    /// From the host's memory to the device.
    pub upload_bytes: f64,
    /// And back.
    pub fetch_bytes: f64,
    /// Moved by reduce and by scan (sum of u32), as their plans count.
    pub reduce_bytes: f64,
    pub scan_bytes: f64,
}

impl Gpu {
    /// Takes some seconds. `budget` is for each figure, roughly.
    pub fn ceilings(&self, budget: Duration) -> Result<Ceilings, KernelError> {
        let less = if self.report().class == DeviceClass::Software { SOFTWARE } else { 1 };
        let (groups, fma_rounds) = (FMA_GROUPS / less, FMA_ROUNDS / less);
        let bytes = self.room(COPY_BYTES / u64::from(less));
        let copy = self.per_round(budget, |plan, rounds| {
            let (a, b) = (plan.scratch(bytes), plan.scratch(bytes));
            for round in 0..rounds {
                let (from, to) = if round % 2 == 0 { (a, b) } else { (b, a) };
                step(plan, "copy", from, to, groups_for(bytes), 0);
            }
            b
        })?;
        let threads = u64::from(groups * GROUP_SIZE);
        let fma = self.per_round(budget, |plan, rounds| {
            let (from, to) = (plan.zeros(16), plan.scratch(self.room(16 * threads)));
            (0..rounds).for_each(|_| step(plan, "fma", from, to, groups, fma_rounds));
            to
        })?;
        let lanes = self.room(16 * threads) / 16;
        let primitive = |add: &dyn Fn(&mut Plan<'_>, Slot)| {
            let moved = moved_by(bytes, add);
            let time = self.per_round(budget, |plan, rounds| {
                let values = plan.zeros(bytes);
                (0..rounds).for_each(|_| add(plan, values));
                values
            })?;
            Ok::<f64, KernelError>(moved as f64 / time)
        };
        let reduce_bytes = primitive(&|plan, values| {
            reduce(plan, Operation::SumU32, values);
        })?;
        let scan_bytes = primitive(&|plan, values| scan(plan, Operation::SumU32, values))?;
        let (upload_bytes, fetch_bytes) = self.transfers(budget)?;
        Ok(Ceilings {
            copy_bytes: 2.0 * bytes as f64 / copy,
            flops: (lanes * u64::from(fma_rounds) * 8 * 4 * 2) as f64 / fma,
            upload_bytes,
            fetch_bytes,
            reduce_bytes,
            scan_bytes,
        })
    }

    /// As much as wanted, or what a binding and an eighth of the memory hold.
    fn room(&self, wanted: u64) -> u64 {
        let eighth = self.report().memory_bytes.unwrap_or(u64::MAX) / 8;
        let mut bytes = wanted;
        while bytes > 4096 && bytes > self.most_bytes().min(eighth) {
            bytes /= 2;
        }
        bytes
    }

    /// Seconds of one round of what `add` puts into a plan; it returns a buffer of which the first words are brought back.
    fn per_round(&self, budget: Duration, add: impl Fn(&mut Plan<'_>, u32) -> Slot) -> Result<f64, KernelError> {
        let run = |rounds: u32| -> Result<f64, KernelError> {
            let mut plan = Plan::default();
            let end = add(&mut plan, rounds);
            let result = plan.zeros(16);
            step(&mut plan, "copy", end, result, 1, 0);
            plan.result(result);
            let begin = Instant::now();
            self.submit(&plan)?.finish()?;
            Ok(begin.elapsed().as_secs_f64())
        };
        // The first compiles; then as many as fill a fifth of the budget.
        run(1)?;
        let mut rounds = 1;
        while run(rounds)? < budget.as_secs_f64() / 5.0 && rounds < 1 << 12 {
            rounds *= 2;
        }
        let (mut once, mut twice) = (f64::MAX, f64::MAX);
        for _ in 0..3 {
            once = once.min(run(rounds)?);
            twice = twice.min(run(2 * rounds)?);
        }
        // On a busy machine the difference may be nothing; the whole is an upper limit of the time.
        let difference = if twice > once { twice - once } else { twice / 2.0 };
        Ok(difference / f64::from(rounds))
    }

    /// Bytes per second up and down: a batch that goes to the device and of which a word comes back, and one of which all comes back.
    fn transfers(&self, budget: Duration) -> Result<(f64, f64), KernelError> {
        let batch = vec![1u8; (self.batch_bytes() as usize).min(64 << 20) / 16 * 16];
        let time = |back: bool| -> Result<f64, KernelError> {
            let (mut best, begin) = (f64::MAX, Instant::now());
            while begin.elapsed() < budget {
                let mut plan = Plan::default();
                let up = plan.upload(&[&batch]);
                let result = plan.zeros(16);
                step(&mut plan, "copy", up, result, 1, 0);
                plan.result(if back { up } else { result });
                let start = Instant::now();
                self.submit(&plan)?.finish()?;
                best = best.min(start.elapsed().as_secs_f64());
            }
            Ok(best)
        };
        let (up, both) = (time(false)?, time(true)?);
        let bytes = batch.len() as f64;
        Ok((bytes / up, bytes / if both > up { both - up } else { both / 2.0 }))
    }
}

fn step(plan: &mut Plan<'_>, name: &'static str, from: Slot, to: Slot, groups: u32, rounds: u32) {
    let program = Program { name, wgsl: &[include_str!("ceilings.wgsl")], constants: &[("group_size", GROUP_SIZE), ("rounds", rounds)] };
    plan.run(&program, &[Use::read(from), Use::write(to)], groups);
}

fn groups_for(bytes: u64) -> u32 {
    (bytes / 16).div_ceil(GROUP_SIZE.into()) as u32
}

fn moved_by(bytes: u64, add: &dyn Fn(&mut Plan<'_>, Slot)) -> u64 {
    let mut plan = Plan::default();
    let values = plan.scratch(bytes);
    add(&mut plan, values);
    plan.traffic().total()
}

#[cfg(test)]
#[test]
fn every_figure_is_a_speed() {
    crate::testing::with_gpus(|gpu| {
        let found = gpu.ceilings(Duration::from_millis(20)).unwrap();
        let all = [found.copy_bytes, found.flops, found.upload_bytes, found.fetch_bytes, found.reduce_bytes, found.scan_bytes];
        assert!(all.iter().all(|figure| figure.is_finite() && *figure > 1e6), "{found:?}");
    });
}
