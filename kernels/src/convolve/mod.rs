//! Filters images: each pixel becomes a weighted sum of those around it.
//!
//! Shapes    one PNG file per task -> one PNG file of the same size and colour type, for `file_per_task`; tallies images, pixels. Grey or
//!           RGB, 8 bits per channel, values as they stand in the file (no gamma); alpha is kept as it is. Beyond the border the nearest
//!           pixel is repeated
//! Limits    2^26 pixels per image; squares of 31 x 31 pixels at most. Memory: 12 bytes per pixel and 32 per column, for each task that runs
//!           at the same time
//! Agreement exact: weights and divisor are whole numbers made once in Rust, sums are integers that fit 32 bits, and the quotient is
//!           rounded to the nearest whole number, halves up, then held within 0 ..= 255. The file's bytes depend on the compressor's
//!           version, its pixels never
//! Errors    a file that is no PNG, is damaged, cut off or too large, has a palette, 16 bits per channel, interlacing, a transparent colour
//!           or several images; taps that are no square
//! Source    R. C. Gonzalez, R. E. Woods, Digital Image Processing, chapters 3 and 10: mean, Gaussian, unsharp masking, Sobel, Laplacian

mod cpu;
mod filter;
mod gpu;
mod picture;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::api::*;
use crate::gpu::{BATCH_BYTES, Gpu};
use crate::key;
use crate::params::Resolved;
use crate::png_file::{MOST_PIXELS, PngHeader};
use crate::run::push_record;
use filter::{Filter, MOST_RADIUS, MOST_WEIGHT};
use picture::Picture;

pub struct Convolve;

static DESCRIPTOR: Descriptor = Descriptor {
    name: "convolve",
    version: 1,
    kind: Kind::Map,
    summary: "Blurs, sharpens or finds the edges of PNG images, one file per task",
    accepts: Accepts::Png,
    params: &[
        ParamSpec {
            name: "filter",
            kind: ParamType::Choice(&["gaussian", "box", "sharpen", "sobel", "laplacian", "taps"]),
            default: Some("gaussian"),
            doc: "gaussian, box: blur; sharpen: twice the image less its Gaussian blur; sobel, laplacian: edges; taps: your own weights",
        },
        ParamSpec {
            name: "sigma",
            kind: ParamType::F64 { min: 0.3, max: 5.0 },
            default: Some("2"),
            doc: "gaussian, sharpen: standard deviation of the blur, in pixels",
        },
        ParamSpec {
            name: "radius",
            kind: ParamType::U64 { min: 1, max: MOST_RADIUS as u64 },
            default: Some("1"),
            doc: "box: pixels to each side of the middle one",
        },
        ParamSpec {
            name: "taps",
            kind: ParamType::Text,
            default: Some(""),
            doc: "taps: a square of whole numbers, rows by semicolons: \"0 -1 0; -1 5 -1; 0 -1 0\"",
        },
        ParamSpec {
            name: "divisor",
            kind: ParamType::U64 { min: 0, max: MOST_WEIGHT as u64 },
            default: Some("0"),
            doc: "taps: what sums are divided by; 0: by the sum of the taps, or by 1 if that is not above 0",
        },
        ParamSpec {
            name: "offset",
            kind: ParamType::U64 { min: 0, max: 255 },
            default: Some("0"),
            doc: "added to every value at the end; 128 shows sums below zero too",
        },
    ],
    tallies: &["images", "pixels"],
    shuffles: true,
    formats: &[],
    reduces_with: &["file_per_task"],
    reduce_defaults: &[],
    gpu: true,
    agreement: Agreement::Exact,
};

impl Kernel for Convolve {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let filter = filter_of(&Resolved::new(&DESCRIPTOR, &stage.params)?)?;
        Ok(Box::new(PreparedConvolve { filter, partitions: stage.partitions.max(1) }))
    }

    fn gpu_memory(&self, params: &Params, _input: Option<&ListedInput>) -> Option<GpuNeed> {
        let filter = filter_of(&Resolved::new(&DESCRIPTOR, params).ok()?).ok()?;
        Some(gpu::need(BATCH_BYTES, &filter))
    }
}

fn filter_of(params: &Resolved) -> Result<Filter, KernelError> {
    let filter = match params.text("filter") {
        "box" => Filter::mean(params.u64("radius") as usize),
        "sharpen" => Filter::sharpen(params.f64("sigma")),
        "sobel" => Filter::sobel(),
        "laplacian" => Filter::laplacian(),
        "taps" => Filter::taps(params.text("taps"), params.u64("divisor"))
            .map_err(|problem| KernelError::Param(format!("kernel 'convolve': parameter 'taps' {problem}")))?,
        _ => Filter::gaussian(params.f64("sigma")),
    };
    Ok(filter.with_offset(params.u64("offset")))
}

struct PreparedConvolve {
    filter: Filter,
    partitions: u32,
}

/// Pixels whose images are in memory together, beside those of one large image.
const PIXELS_AT_ONCE: u64 = MOST_PIXELS / 4;

impl Prepared for PreparedConvolve {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let mut picture = Picture::decode(file(task)?)?;
        picture.pixels = cpu::filter(&self.filter, &picture);
        self.output(task.number, &picture)
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        let mut outputs = Vec::with_capacity(tasks.len());
        let mut rest = tasks;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(together(rest)?);
            // Reading and writing PNG takes longer than filtering: it is the processor's part, on all its cores.
            let mut pictures = now.par_iter().map(|task| Picture::decode(file(task)?)).collect::<Result<Vec<_>, _>>()?;
            gpu::filter(gpu, &self.filter, &mut pictures)?;
            let made = now.par_iter().zip(&pictures).map(|(task, picture)| self.output(task.number, picture));
            outputs.extend(made.collect::<Result<Vec<_>, _>>()?);
            rest = later;
        }
        Ok(outputs)
    }
}

fn file<'a>(task: &Task<'a>) -> Result<&'a [u8], KernelError> {
    match task.input {
        Input::File(bytes) => Ok(bytes),
        _ => Err(KernelError::Input("convolve reads whole PNG files".into())),
    }
}

/// How many of the tasks have images that are small enough together: one at least.
fn together(tasks: &[Task<'_>]) -> Result<usize, KernelError> {
    let mut pixels = 0;
    for (index, task) in tasks.iter().enumerate() {
        // What cannot be read says so when it is decoded.
        pixels += PngHeader::read(file(task)?).map_or(0, |header| header.pixels());
        if index > 0 && pixels > PIXELS_AT_ONCE {
            return Ok(index);
        }
    }
    Ok(tasks.len())
}

impl PreparedConvolve {
    fn output(&self, task: u64, picture: &Picture) -> Result<TaskOutput, KernelError> {
        let mut blocks = vec![Vec::new(); self.partitions as usize];
        let count = blocks.len();
        let block = usize::try_from(task).ok().and_then(|task| blocks.get_mut(task)).ok_or_else(|| {
            KernelError::Param(format!("task {task} has no partition of its own among {count}: set partitions to the number of files"))
        })?;
        push_record(block, &key::of_u64(task), &picture.encode()?);
        Ok(TaskOutput { tallies: vec![1, picture.pixels.len() as u64], blocks, part: None, records: Records { read: 1, made: 1 } })
    }
}
