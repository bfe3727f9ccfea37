//! Estimates pi: the share of random points of the unit square that lie in the quarter circle, times four.
//!
//! Shapes    sample numbers [start, start + count) -> tallies hits, samples. Sample i is the point (x, y) of the first two words that
//!           Philox4x32-10 makes of the counter i and the key `seed`; it hits when x * x + y * y < 2^64. Each sample depends on its
//!           number only, so any split of the range gives the same sum
//! Limits    start + count <= 2^64
//! Agreement exact: integers only, in both twins
//! Errors    a range that leaves the 64-bit numbers
//! Source    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011)

mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gpu::Gpu;
use crate::params::Resolved;

pub struct MonteCarloPi;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "monte_carlo_pi",
    version: 1,
    kind: Kind::Map,
    summary: "Estimates pi from random points; counter-based, so every device draws the same ones",
    accepts: Accepts::Index,
    params: &[ParamSpec {
        name: "seed",
        kind: ParamType::U64 { min: 0, max: u64::MAX },
        default: Some("0"),
        doc: "key of the random numbers; another seed, other points",
    }],
    tallies: &["hits", "samples"],
    shuffles: false,
    formats: &[],
    reduces_with: &[],
    reduce_defaults: &[],
    gpu: true,
    agreement: Agreement::Exact,
};

impl Kernel for MonteCarloPi {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn standard(&self) -> Option<Standard> {
        Some(Standard { params: &[], input: StandardInput::Range { count: 1 << 26, tasks: 64 } })
    }

    fn gpu_memory(&self, _params: &Params, _input: Option<&ListedInput>) -> Option<GpuNeed> {
        Some(gpu::need())
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        Ok(Box::new(PreparedPi { seed: params.u64("seed") }))
    }

    fn costless_params(&self) -> &'static [&'static str] {
        &["seed"]
    }

    fn present_tallies(&self, _params: &Params, tallies: &[u128]) -> Vec<(String, String)> {
        let &[hits, samples] = tallies else { return Vec::new() };
        if samples == 0 {
            return Vec::new();
        }
        let share = hits as f64 / samples as f64;
        let error = 4.0 * (share * (1.0 - share) / samples as f64).sqrt();
        // Two digits of the error, and pi to the same place.
        let digits = if error > 0.0 { (1.0 - error.log10().floor()).clamp(1.0, 15.0) as usize } else { 1 };
        vec![
            ("pi".into(), format!("{:.digits$} ± {error:.digits$} (standard error)", 4.0 * share)),
            ("samples".into(), samples.to_string()),
        ]
    }
}

struct PreparedPi {
    seed: u64,
}

impl Prepared for PreparedPi {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let (start, count) = range(task)?;
        Ok(output(cpu::hits(self.seed, start, count), count))
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        let ranges = tasks.iter().map(range).collect::<Result<Vec<_>, _>>()?;
        let hits = gpu::hits(gpu, self.seed, &ranges)?;
        Ok(hits.iter().zip(&ranges).map(|(hits, (_, count))| output(*hits, *count)).collect())
    }
}

fn range(task: &Task<'_>) -> Result<(u64, u64), KernelError> {
    let Input::Index { start, count } = task.input else {
        return Err(KernelError::Input("monte_carlo_pi reads an index range".into()));
    };
    if count > 0 && start.checked_add(count - 1).is_none() {
        return Err(KernelError::Input(format!("{count} samples from number {start} on leave the 64-bit numbers")));
    }
    Ok((start, count))
}

fn output(hits: u64, samples: u64) -> TaskOutput {
    TaskOutput { tallies: vec![hits, samples], ..TaskOutput::default() }
}
