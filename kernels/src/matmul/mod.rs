//! Multiplies matrices: C = A x B. A is the input, cut by rows; B is the side input `b`, which every task reads whole.
//!
//! Shapes    A: f4 [m, k], any number of files one below the other; B: f4 [k, n] -> rows of C, f4 [m, n], in the order of A's; tallies
//!           rows, not_finite (elements of C that are NaN or infinite)
//! Limits    k and n at least 1 and at most 2^29; a task's rows of A and of C lie in memory. GPU: 64 columns of B must fit one buffer
//! Agreement bounded: with u = 2^-24 each element of C is within k u / (1 - k u) * (|A| |B|) of the exact one, whatever the order of the
//!           sums, fused or not, as long as nothing leaves the range of normal f32; so the twins are within about k * 2^-23 * (|A| |B|) of
//!           each other. Where an element is NaN or infinite on one twin it is so on the other when every product and every sum of the row
//!           stays in range. For a reproducible stage the CPU twin adds the products of each element one by one, in the order of k, each
//!           rounded: the same bytes on every processor
//! Errors    no B; a B that is not f4; A's rows as long as B has not rows
//! Source    bound: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.5; tiles: J. Dongarra and others,
//!           the GEMM of the level 3 BLAS (1990), blocked for caches as in K. Goto, R. van de Geijn, Anatomy of high-performance matrix
//!           multiplication (2008), by the crate `gemm`

mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::*;
use crate::counted;
use crate::gpu::{BATCH_BYTES, Gpu};
use crate::listed::wrong_type_of_task;
use crate::params::Resolved;
use crate::side::f4;
use crate::stack_rows::Slices;

pub struct Matmul;

/// Of k and n: the rows' lengths in bytes are u32 in a listing.
const LONGEST: u64 = 1 << 29;
const B: &str = "b";

static DESCRIPTOR: Descriptor = Descriptor {
    name: "matmul",
    version: 1,
    kind: Kind::Map,
    summary: "Multiplies the rows of a matrix with the side input b, a matrix too",
    accepts: Accepts::Rows(&["f4"]),
    params: &[],
    tallies: &["rows", "not_finite"],
    shuffles: true,
    formats: &[],
    reduces_with: &["stack_rows"],
    reduce_defaults: &[],
    gpu: true,
    agreement: Agreement::Bounded("the twins differ by at most k * 2^-23 * (|A| |B|) in each element, k being the length of A's rows"),
};

static SIDES: [SideSpec; 1] =
    [SideSpec { name: B, dtypes: &["f4"], dimensions: 2, required: true, doc: "the right matrix of the product" }];

impl Kernel for Matmul {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    /// 17 billion products.
    fn standard(&self) -> Option<Standard> {
        const SIZE: u64 = 512;
        let sides = &[(B, [SIZE, SIZE])];
        Some(Standard { params: &[], input: StandardInput::Rows { dtype: "f4", columns: SIZE, bytes: 128 << 20, split: 2 << 20, sides } })
    }

    fn sides(&self) -> &'static [SideSpec] {
        &SIDES
    }

    fn check_listed(&self, _params: &Params, input: &ListedInput) -> Result<(), InputProblem> {
        let Some(side) = input.side(B) else { return Ok(()) };
        let &[k, n] = side.shape.as_slice() else { return Ok(()) };
        if !fits(k, n) {
            let message = format!("{} has the shape ({k}, {n}); each must be 1 to {LONGEST}", side.path);
            return Err(InputProblem::new(message, "give a matrix with rows and columns"));
        }
        let columns = |file: &ListedArray| file.shape.get(1).copied().unwrap_or_default();
        let Some(file) = input.files.iter().find(|file| columns(file) != k) else { return Ok(()) };
        let (path, own) = (&file.path, columns(file));
        Err(InputProblem::new(
            format!(
                "{path} has rows of {}, and side input 'b' ({}) has the shape ({k}, {n}): a row must have {k}",
                counted(own, "element"),
                side.path
            ),
            "give matrices that can be multiplied: as many columns of the input as rows of b",
        ))
    }

    /// Known when B is.
    fn gpu_memory(&self, _params: &Params, input: Option<&ListedInput>) -> Option<GpuNeed> {
        let &[k, n] = input?.side(B)?.shape.as_slice() else { return None };
        fits(k, n).then(|| gpu::need(BATCH_BYTES, k, n))
    }

    /// Bytes of A's rows are what a task is counted in; each is multiplied with so many numbers.
    fn listed_footprint(&self, input: &ListedInput) -> String {
        input.side(B).and_then(|side| side.shape.get(1)).map_or_else(String::new, |n| format!("n={n}"))
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        Resolved::new(&DESCRIPTOR, &stage.params)?;
        let right = stage.sides.iter().find(|side| side.name == B).cloned().map(Right::new).transpose()?;
        Ok(Box::new(PreparedMatmul {
            right,
            reproducible: stage.reproducible,
            slices: Slices::new(stage),
            products: Mutex::default(),
            on_device: Mutex::default(),
        }))
    }
}

/// Whether a matrix can be B.
fn fits(k: u64, n: u64) -> bool {
    (1..=LONGEST).contains(&k) && (1..=LONGEST).contains(&n)
}

/// B, in row order.
struct Right {
    side: SideInput,
    k: usize,
    n: usize,
}

impl Right {
    fn new(side: SideInput) -> Result<Right, KernelError> {
        let refuse = |text: String| Err(KernelError::Param(format!("kernel 'matmul': {} {text}", side.named())));
        if side.dtype != "f4" {
            return refuse(format!(
                "has elements of type '{}'; f4 is wanted; fix: convert it, in NumPy by array.astype(\"f4\")",
                side.dtype
            ));
        }
        let &[k, n] = side.shape.as_slice() else {
            return refuse(format!("has {}; 2 are wanted", counted(side.shape.len() as u64, "dimension")));
        };
        if !fits(k, n) {
            return refuse(format!("has the shape ({k}, {n}); each must be 1 to {LONGEST}"));
        }
        if side.bytes().len() as u64 != 4 * k * n {
            return refuse(format!("has {}, which are not ({k}, {n}) elements", counted(side.bytes().len() as u64, "byte")));
        }
        Ok(Right { k: k as usize, n: n as usize, side })
    }
}

struct PreparedMatmul {
    /// None at submit, where only the parameters are looked at.
    right: Option<Right>,
    reproducible: bool,
    slices: Slices,
    /// Where tasks before have put their rows of C, one for each that ran at a time: memory that is new to the process costs a fault for every page.
    products: Mutex<Vec<Vec<f32>>>,
    /// B on the GPU, uploaded with the stage's first lease. An executor has one device.
    on_device: Mutex<Option<gpu::OnDevice>>,
}

impl Prepared for PreparedMatmul {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let right = self.right()?;
        let left = left(right, task)?;
        let right_numbers = f4(right.side.bytes());
        let mut product = self.products().pop().unwrap_or_default();
        cpu::multiply(&left, &right_numbers, right.k, right.n, self.reproducible, &mut product);
        let output = self.output(task.number, right.n, &product);
        self.products().push(product);
        Ok(output)
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        let right = self.right()?;
        let lefts = tasks.iter().map(|task| rows(right, task)).collect::<Result<Vec<_>, _>>()?;
        let products = gpu::multiply(gpu, gpu::Limits::of(gpu), &self.on_device, right, &lefts)?;
        Ok(tasks.iter().zip(&products).map(|(task, product)| self.output(task.number, right.n, product)).collect())
    }
}

impl PreparedMatmul {
    fn right(&self) -> Result<&Right, KernelError> {
        self.right.as_ref().ok_or_else(|| KernelError::Param("kernel 'matmul': the stage has no side input 'b'".into()))
    }

    fn products(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.products.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self, task: u64, n: usize, product: &[f32]) -> TaskOutput {
        let not_finite = product.iter().filter(|number| !number.is_finite()).count();
        let tallies = vec![(product.len() / n) as u64, not_finite as u64];
        let records = Records { read: 0, made: (product.len() / n) as u64 };
        TaskOutput { tallies, blocks: self.slices.blocks(task, n as u64, product), part: None, records }
    }
}

/// The bytes of a task's rows of A.
fn rows<'a>(right: &Right, task: &Task<'a>) -> Result<&'a [u8], KernelError> {
    let Input::Rows { dtype, columns, bytes } = task.input else {
        return Err(KernelError::Input("matmul reads the rows of two-dimensional .npy files".into()));
    };
    if dtype != "f4" {
        return Err(wrong_type_of_task(&Matmul, dtype));
    }
    if columns != right.k {
        let (k, n) = (right.k, right.n);
        return Err(KernelError::Input(format!(
            "a row has {}, and side input 'b' is ({k}, {n}): they must be {k}",
            counted(columns as u64, "element")
        )));
    }
    if !bytes.len().is_multiple_of(4 * columns) {
        return Err(KernelError::Input(format!("{} bytes are no whole number of rows of {columns} f4 elements", bytes.len())));
    }
    Ok(bytes)
}

fn left<'a>(right: &Right, task: &Task<'a>) -> Result<std::borrow::Cow<'a, [f32]>, KernelError> {
    Ok(f4(rows(right, task)?))
}
