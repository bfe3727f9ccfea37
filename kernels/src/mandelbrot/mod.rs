//! Draws the Mandelbrot set, smoothly coloured, at any zoom up to 10^11.
//!
//! Shapes    rows [start, start + count) of the image -> runs of (row, 3 * width bytes RGB); tallies samples, inside, iterations. The
//!           longer side of the image spans 4 / zoom in the complex plane, y upward; with antialias = a each pixel is the mean of
//!           a * a samples
//! Limits    width and height <= 16384; zoom <= 1e11, where neighbouring samples of the largest image are still 45 steps of the
//!           numbers apart; max_iterations <= 100000, so that one dispatch stays short
//! Agreement exact: both twins iterate in fixed point with 8 integer and 56 fraction bits (floats of one width end at zoom 10^5, and
//!           shader compilers may fuse or reorder them). Colours are made on the CPU in both, from the exact result, with the basic
//!           operations and square roots that IEEE 754 fixes to the bit
//! Errors    a job whose range is not 0 .. height; a task with rows beyond `height`
//! Source    escape time: Peitgen and Richter, The Beauty of Fractals (1986); smooth count: Linas Vepstas, Renormalizing the
//!           Mandelbrot escape (1997); cycles: R. P. Brent, An improved Monte Carlo factorization algorithm, BIT 20 (1980)

mod colour;
mod cpu;
mod gpu;
mod palette;
#[cfg(test)]
mod tests;
mod view;

use rayon::prelude::*;

use crate::api::*;
use crate::gpu::{BATCH_BYTES, Gpu};
use crate::key;
use crate::params::Resolved;
use crate::run::push_record;
use colour::Colours;
use cpu::Escape;
use view::View;

pub struct Mandelbrot;

/// Of a side of the image.
const MOST_PIXELS: u64 = 16_384;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "mandelbrot",
    version: 1,
    kind: Kind::Map,
    summary: "Draws the Mandelbrot set; one element of the index is one row of the image",
    accepts: Accepts::Index,
    params: &[
        ParamSpec { name: "width", kind: ParamType::U64 { min: 1, max: MOST_PIXELS }, default: Some("1920"), doc: "pixels of a row" },
        ParamSpec {
            name: "height",
            kind: ParamType::U64 { min: 1, max: MOST_PIXELS },
            default: Some("1080"),
            doc: "rows; the job's range must count as many",
        },
        ParamSpec {
            name: "center_x",
            kind: ParamType::F64 { min: -4.0, max: 4.0 },
            default: Some("-0.65"),
            doc: "real part of the middle",
        },
        ParamSpec {
            name: "center_y",
            kind: ParamType::F64 { min: -4.0, max: 4.0 },
            default: Some("0"),
            doc: "imaginary part of the middle",
        },
        ParamSpec {
            name: "zoom",
            kind: ParamType::F64 { min: 0.25, max: 1e11 },
            default: Some("1"),
            doc: "the longer side spans 4 / zoom",
        },
        ParamSpec {
            name: "max_iterations",
            kind: ParamType::U64 { min: 1, max: 100_000 },
            default: Some("1000"),
            doc: "a point that has not escaped by then is drawn as inside; deep zooms need more",
        },
        ParamSpec { name: "palette", kind: ParamType::Choice(palette::NAMES), default: Some("ocean"), doc: "colours of the outside" },
        ParamSpec {
            name: "antialias",
            kind: ParamType::U64 { min: 1, max: 4 },
            default: Some("1"),
            doc: "samples per pixel in each direction",
        },
    ],
    tallies: &["samples", "inside", "iterations"],
    shuffles: true,
    formats: &[],
    reduces_with: &["image"],
    reduce_defaults: &[],
    gpu: true,
    agreement: Agreement::Exact,
};

impl Kernel for Mandelbrot {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn standard(&self) -> Option<Standard> {
        Some(Standard { params: &[], input: StandardInput::Range { count: 1080, tasks: 60 } })
    }

    fn costless_params(&self) -> &'static [&'static str] {
        &["palette"]
    }

    fn gpu_memory(&self, params: &Params, _input: Option<&ListedInput>) -> Option<GpuNeed> {
        let params = Resolved::new(&DESCRIPTOR, params).ok()?;
        Some(gpu::need(BATCH_BYTES, params.u64("width"), params.u64("antialias"), params.u64("max_iterations") as u32))
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let view = View::new(&params);
        let colours = Colours::new(params.text("palette"));
        let max_iterations = params.u64("max_iterations") as u32;
        Ok(Box::new(PreparedMandelbrot { view, colours, max_iterations, partitions: stage.partitions.max(1) }))
    }

    /// The job's range is the whole image, so that neither an empty file nor an image of another size comes of a slip.
    fn check_range(&self, params: &Params, range: &IndexRange) -> Result<(), RangeProblem> {
        let height = match Resolved::new(&DESCRIPTOR, params) {
            Ok(params) => params.u64("height"),
            // Said better where the parameters themselves are checked.
            Err(_) => return Ok(()),
        };
        if range.start != 0 {
            let message = format!("is {}, but the image begins with row 0", range.start);
            return Err(RangeProblem { field: RangeField::Start, message, fix: "leave `start` out".into() });
        }
        if range.count != height {
            let message = format!("is {}, but the image has {height} rows (parameter 'height'), and each integer is one row", range.count);
            let fix = if (1..=MOST_PIXELS).contains(&range.count) {
                format!("set count = {height}, or height = {}", range.count)
            } else {
                format!("set count = {height}")
            };
            return Err(RangeProblem { field: RangeField::Count, message, fix });
        }
        Ok(())
    }

    fn present_tallies(&self, _params: &Params, tallies: &[u128]) -> Vec<(String, String)> {
        match tallies {
            &[samples, inside, _] if samples > 0 => {
                vec![("inside".into(), format!("{:.2} % of the samples", 100.0 * inside as f64 / samples as f64))]
            }
            _ => Vec::new(),
        }
    }
}

struct PreparedMandelbrot {
    view: View,
    colours: Colours,
    max_iterations: u32,
    partitions: u32,
}

/// One finished row of the image.
struct Row {
    number: u64,
    rgb: Vec<u8>,
    inside: u64,
    iterations: u64,
}

impl Prepared for PreparedMandelbrot {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let rows = self.rows(task)?;
        let rows: Vec<Row> = rows.into_par_iter().map(|row| self.finish(row, &cpu::row(&self.view, row, self.max_iterations))).collect();
        Ok(self.output(&rows))
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        let ranges = tasks.iter().map(|task| self.rows(task)).collect::<Result<Vec<_>, _>>()?;
        let numbers: Vec<u64> = ranges.iter().cloned().flatten().collect();
        let mut finished = gpu::rows(gpu, self, &numbers)?.into_iter();
        Ok(ranges.iter().map(|range| self.output(&finished.by_ref().take(range.clone().count()).collect::<Vec<_>>())).collect())
    }
}

impl PreparedMandelbrot {
    fn rows(&self, task: &Task<'_>) -> Result<std::ops::Range<u64>, KernelError> {
        let Input::Index { start, count } = task.input else {
            return Err(KernelError::Input("mandelbrot reads an index range of rows".into()));
        };
        match start.checked_add(count) {
            Some(end) if end <= self.view.height => Ok(start..end),
            _ => Err(KernelError::Input(format!(
                "rows from {start} on, {count} of them, leave an image of height {}: give the job an index range of as many elements",
                self.view.height
            ))),
        }
    }

    /// Colours one row, given its samples: `antialias` rows of `width * antialias`.
    fn finish(&self, number: u64, samples: &[Escape]) -> Row {
        let inside = samples.iter().filter(|sample| sample.iterations == self.max_iterations).count() as u64;
        let iterations = samples.iter().map(|sample| u64::from(sample.iterations)).sum();
        Row { number, rgb: self.colours.row(&self.view, number, samples, self.max_iterations), inside, iterations }
    }

    fn output(&self, rows: &[Row]) -> TaskOutput {
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        for row in rows {
            let key = key::of_u64(row.number);
            push_record(&mut blocks[key::partition(&key, self.partitions) as usize], &key, &row.rgb);
        }
        let samples = rows.len() as u64 * self.view.samples_per_row() as u64;
        let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum();
        let records = Records { read: 0, made: rows.len() as u64 };
        TaskOutput { tallies: vec![samples, sum(|row| row.inside), sum(|row| row.iterations)], blocks, part: None, records }
    }
}
