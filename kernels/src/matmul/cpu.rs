//! The specification: each element of C is the sum of k products.

/// Rows of A, `k` numbers each, times B; in row order. Lengths have been checked. Whatever `product` holds makes room.
pub(super) fn multiply(left: &[f32], right: &[f32], k: usize, n: usize, in_order: bool, product: &mut Vec<f32>) {
    let numbers = left.len() / k * n;
    if product.len() != numbers {
        // Not so when it has the length already: all of it is written, and zeros would be written for nothing.
        product.clear();
        product.resize(numbers, 0.0);
    }
    if in_order { multiply_in_order(left, right, k, n, product) } else { multiply_fast(left, right, k, n, product) }
}

/// By the crates `gemm-f32` and `gemm-common`, which chooses its instructions and its blocks, and with them the order of the sums, by the processor.
fn multiply_fast(left: &[f32], right: &[f32], k: usize, n: usize, product: &mut [f32]) {
    let rows = left.len() / k;
    assert!(left.len() == rows * k && right.len() == k * n && product.len() == rows * n);
    if product.is_empty() {
        return;
    }
    let multiply = gemm_f32::gemm::f32::get_gemm_fn();
    // One core: the executor runs as many tasks as it has cores.
    let one_core = gemm_common::Parallelism::None;
    let (left_row, right_row) = (k as isize, n as isize);
    // SAFETY: the pointers are to rows * n, rows * k and k * n numbers in row order, as the strides say, none of them 0; C overlaps neither.
    // The crate stores columns, and a matrix in row order is its transpose in column order: it makes C^T = B^T x A^T.
    unsafe {
        multiply(
            n,
            rows,
            k,
            product.as_mut_ptr(),
            right_row,
            1,
            false,
            right.as_ptr(),
            right_row,
            1,
            left.as_ptr(),
            left_row,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            one_core,
        );
    }
}

/// Columns of a panel of B: what the registers of any processor hold for some rows of C.
const WIDTH: usize = 16;
/// Rows of C made at once.
const ROWS: usize = 4;

/// The same bytes everywhere: each sum is taken in the order of k, each product and each sum rounded, as wide as the processor computes.
fn multiply_in_order(left: &[f32], right: &[f32], k: usize, n: usize, product: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { in_order_avx2(left, right, k, n, product) };
    }
    in_order(left, right, k, n, product)
}

/// Without `fma`, which would round a product and a sum at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn in_order_avx2(left: &[f32], right: &[f32], k: usize, n: usize, product: &mut [f32]) {
    in_order(left, right, k, n, product)
}

#[inline(always)]
fn in_order(left: &[f32], right: &[f32], k: usize, n: usize, product: &mut [f32]) {
    // One panel of B, copied together: its rows lie n numbers apart.
    let mut panel = vec![[0.0f32; WIDTH]; k];
    for first in (0..n).step_by(WIDTH) {
        let width = WIDTH.min(n - first);
        for (packed, row) in panel.iter_mut().zip(right.chunks_exact(n)) {
            packed[..width].copy_from_slice(&row[first..first + width]);
        }
        for (left, product) in left.chunks(ROWS * k).zip(product.chunks_mut(ROWS * n)) {
            let mut rows = product.chunks_exact_mut(n).map(|row| &mut row[first..first + width]);
            let mut write = |sums: &[f32; WIDTH]| rows.next().into_iter().for_each(|row| row.copy_from_slice(&sums[..width]));
            match left.len() / k {
                ROWS => sums::<ROWS>(left, &panel, k).iter().for_each(&mut write),
                _ => left.chunks_exact(k).for_each(|row| sums::<1>(row, &panel, k).iter().for_each(&mut write)),
            }
        }
    }
}

/// `R` rows of A times the panel.
#[inline(always)]
fn sums<const R: usize>(left: &[f32], panel: &[[f32; WIDTH]], k: usize) -> [[f32; WIDTH]; R] {
    let mut sums = [[0.0f32; WIDTH]; R];
    let rows: [&[f32]; R] = std::array::from_fn(|row| &left[row * k..][..panel.len()]);
    for (at, right) in panel.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(rows) {
            let number = row[at];
            sums.iter_mut().zip(right).for_each(|(sum, right)| *sum += number * right);
        }
    }
    sums
}
