use std::sync::Arc;

use super::*;
use crate::testing::{Random, check_memory, random, reduce, with_gpus, with_gpus_of_batch};

fn numbers(random: &mut Random, count: usize) -> Vec<f32> {
    // Of either sign and of sizes a thousandfold apart.
    (0..count).map(|_| (random.below(2001) as f32 - 1000.0) / (1 << random.below(11)) as f32).collect()
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn side(shape: &[u64], numbers: &[f32]) -> SideInput {
    SideInput::new("b".into(), "f4".into(), shape.to_vec(), Arc::new(bytes(numbers)))
}

fn prepared(b: SideInput, tasks: u64, reproducible: bool) -> Box<dyn Prepared> {
    let stage = StageContext { tasks, partitions: 1, reproducible, sides: vec![b], ..StageContext::default() };
    Matmul.prepare(&stage).unwrap()
}

fn task(number: u64, columns: usize, bytes: &[u8]) -> Task<'_> {
    Task { number, input: Input::Rows { dtype: "f4", columns, bytes } }
}

/// The rows of C that a task wrote, read back through its reduce.
fn product(output: &TaskOutput) -> Vec<f32> {
    let part = reduce("stack_rows", &[], "npy", 1, &[&output.blocks[0]]).unwrap();
    f4(&part.bytes[128..]).into_owned()
}

/// Each element in f64, exact to far below the bound, and the bound: `share` * k * 2^-24 * (|A| |B|), and what underflow adds.
fn expected(a: &[f32], b: &[f32], k: usize, n: usize, share: f64) -> Vec<(f64, f64)> {
    let mut all = Vec::new();
    for row in a.chunks_exact(k) {
        for column in 0..n {
            let products = row.iter().zip(b[column..].iter().step_by(n)).map(|(a, b)| f64::from(*a) * f64::from(*b));
            let (sum, size) = products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
            let (k, u) = (k as f64, (-24f64).exp2());
            all.push((sum, share * k * u / (1.0 - k * u) * size + k * f64::from(f32::MIN_POSITIVE)));
        }
    }
    all
}

fn check(product: &[f32], expected: &[(f64, f64)], what: &str) {
    assert_eq!(product.len(), expected.len(), "{what}");
    for (at, (number, (exact, bound))) in product.iter().zip(expected).enumerate() {
        assert!((f64::from(*number) - exact).abs() <= *bound, "{what}: element {at} is {number}, exactly {exact}, bound {bound}");
    }
}

/// Rows, k and n: none, one, around a tile's edge, around a group's size, primes.
const SHAPES: [(usize, usize, usize); 10] = [
    (0, 3, 2),
    (1, 1, 1),
    (1, 257, 1),
    (63, 15, 65),
    (64, 16, 64),
    (65, 17, 63),
    (255, 1, 256),
    (257, 255, 3),
    (131, 127, 137),
    (4, 1009, 20),
];

#[test]
fn a_small_product_by_hand() {
    for reproducible in [false, true] {
        let kernel = prepared(side(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 1, reproducible);
        let output = kernel.run_cpu(&task(0, 2, &bytes(&[1.0, 10.0, -1.0, 0.5]))).unwrap();
        assert_eq!((product(&output), output.tallies), (vec![41.0, 52.0, 63.0, 1.0, 0.5, 0.0], vec![2, 0]));
    }
}

#[test]
fn both_ways_of_the_cpu_twin_keep_the_bound() {
    let mut random = random("both_ways_of_the_cpu_twin_keep_the_bound");
    for (rows, k, n) in SHAPES {
        let (a, b) = (numbers(&mut random, rows * k), numbers(&mut random, k * n));
        let expected = expected(&a, &b, k, n, 1.0);
        for reproducible in [false, true] {
            let kernel = prepared(side(&[k as u64, n as u64], &b), 1, reproducible);
            let output = kernel.run_cpu(&task(0, k, &bytes(&a))).unwrap();
            check(&product(&output), &expected, &format!("{rows} x {k} x {n}, reproducible: {reproducible}"));
        }
    }
}

/// The plainest program there is, whose order of operations the reproducible way promises to keep.
#[test]
fn the_reproducible_way_adds_product_by_product() {
    let mut random = random("the_reproducible_way_adds_product_by_product");
    for (rows, k, n) in SHAPES {
        let (a, b) = (numbers(&mut random, rows * k), numbers(&mut random, k * n));
        let kernel = prepared(side(&[k as u64, n as u64], &b), 1, true);
        let made = product(&kernel.run_cpu(&task(0, k, &bytes(&a))).unwrap());
        for (at, made) in made.iter().enumerate() {
            let (row, column) = (at / n, at % n);
            let sum = (0..k).fold(0.0f32, |sum, k_at| sum + a[row * k + k_at] * b[k_at * n + column]);
            assert_eq!(made.to_bits(), sum.to_bits(), "{rows} x {k} x {n}: element {at}");
        }
    }
}

#[test]
fn how_rows_are_cut_into_tasks_changes_no_byte_of_a_reproducible_product() {
    let mut random = random("how_rows_are_cut_into_tasks");
    let (rows, k, n) = (37, 29, 31);
    let (a, b) = (numbers(&mut random, rows * k), numbers(&mut random, k * n));
    let kernel = prepared(side(&[k as u64, n as u64], &b), 9, true);
    let whole = product(&kernel.run_cpu(&task(0, k, &bytes(&a))).unwrap());
    let cut: Vec<f32> = a.chunks(5 * k).flat_map(|rows| product(&kernel.run_cpu(&task(1, k, &bytes(rows))).unwrap())).collect();
    assert!(whole.iter().map(|number| number.to_bits()).eq(cut.iter().map(|number| number.to_bits())));
}

#[test]
fn twins_agree_within_the_bound() {
    let mut random = random("matmul twins_agree_within_the_bound");
    for (_, k, n) in SHAPES {
        let b = numbers(&mut random, k * n);
        let lefts: Vec<Vec<f32>> = [0, 1, 63, 64, 65, 101].iter().map(|rows| numbers(&mut random, rows * k)).collect();
        let inputs: Vec<Vec<u8>> = lefts.iter().map(|left| bytes(left)).collect();
        let tasks: Vec<_> = inputs.iter().enumerate().map(|(number, bytes)| task(number as u64, k, bytes)).collect();
        let kernel = prepared(side(&[k as u64, n as u64], &b), 6, false);
        let ours: Vec<Vec<f32>> = tasks.iter().map(|task| product(&kernel.run_cpu(task).unwrap())).collect();
        with_gpus(|gpu| {
            // A stage is prepared for one device; B must be sent to this one.
            let kernel = prepared(side(&[k as u64, n as u64], &b), 6, false);
            for round in 0..2 {
                let outputs = kernel.run_gpu(gpu, &tasks).unwrap();
                assert_eq!(outputs.len(), tasks.len());
                for ((output, left), ours) in outputs.iter().zip(&lefts).zip(&ours) {
                    let what = format!("{} x {k} x {n}, round {round}", left.len() / k);
                    let made = product(output);
                    check(&made, &expected(left, &b, k, n, 1.0), &what);
                    let between: Vec<_> =
                        expected(left, &b, k, n, 2.0).iter().zip(ours).map(|((_, bound), a)| (f64::from(*a), *bound)).collect();
                    check(&made, &between, &what);
                    assert_eq!(output.tallies, [(left.len() / k) as u64, 0]);
                }
            }
            assert_eq!(kernel.run_gpu(gpu, &[]).unwrap(), []);
        });
    }
}

/// B in several panels, A in several batches, and tasks whose rows are in two of them: on a device that holds little at once.
#[test]
fn panels_and_batches_are_put_together_rightly() {
    let (k, n) = (50, 150);
    let mut random = random("panels_and_batches_are_put_together_rightly");
    let b = numbers(&mut random, k * n);
    let lefts: Vec<Vec<f32>> = [5, 0, 131, 70].iter().map(|rows| numbers(&mut random, rows * k)).collect();
    let inputs: Vec<Vec<u8>> = lefts.iter().map(|left| bytes(left)).collect();
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let right = Right::new(side(&[k as u64, n as u64], &b)).unwrap();
    with_gpus(|gpu| {
        // 64 columns of B; 66 rows of A.
        let limits = gpu::Limits { panel_bytes: 4 * k as u64 * 70, batch_bytes: 4 * 64 * 66 };
        let on_device = Mutex::default();
        for _ in 0..2 {
            let products = gpu::multiply(gpu, limits, &on_device, &right, &inputs).unwrap();
            for (product, left) in products.iter().zip(&lefts) {
                check(product, &expected(left, &b, k, n, 1.0), &format!("{} rows", left.len() / k));
            }
        }
        let tiny = |panel_bytes, batch_bytes| {
            let limits = gpu::Limits { panel_bytes, batch_bytes };
            gpu::multiply(gpu, limits, &Mutex::default(), &right, &inputs).map(drop).unwrap_err()
        };
        assert!(matches!(tiny(4 * k as u64 * 63, 1 << 20), KernelError::Device(text) if text.contains("64 columns of B")));
        assert!(matches!(tiny(1 << 20, 4 * n as u64 - 4), KernelError::Device(text) if text.contains("a row of 150 elements")));
    });
}

#[test]
fn what_is_no_number_is_counted() {
    let kernel = prepared(side(&[1, 2], &[f32::MAX, 1.0]), 1, false);
    let output = kernel.run_cpu(&task(0, 1, &bytes(&[f32::NAN, f32::MAX, 1.0]))).unwrap();
    assert_eq!(output.tallies, [3, 3]);
}

#[test]
fn parts_are_blocks_of_rows() {
    let stage = StageContext { tasks: 4, partitions: 2, sides: vec![side(&[1, 1], &[2.0])], ..StageContext::default() };
    let kernel = Matmul.prepare(&stage).unwrap();
    let outputs: Vec<_> = (0..4u64).map(|number| kernel.run_cpu(&task(number, 1, &bytes(&[number as f32]))).unwrap()).collect();
    let part = |partition: usize| {
        let blocks: Vec<&[u8]> = outputs.iter().map(|output| &output.blocks[partition][..]).collect();
        f4(&reduce("stack_rows", &[], "npy", 2, &blocks).unwrap().bytes[128..]).into_owned()
    };
    assert_eq!((part(0), part(1)), (vec![0.0, 2.0], vec![4.0, 6.0]));
}

#[test]
fn matrices_that_do_not_fit_are_errors_that_say_so() {
    let refused = |side: SideInput| {
        let stage = StageContext { sides: vec![side], ..StageContext::default() };
        Matmul.prepare(&stage).map(drop).unwrap_err().to_string()
    };
    assert!(refused(SideInput::new("b".into(), "u4".into(), vec![1, 1], Arc::new(vec![0; 4]))).contains("type 'u4'; f4 is wanted"));
    assert!(refused(side(&[3], &[0.0; 3])).contains("has 1 dimension"));
    assert!(refused(side(&[0, 3], &[])).contains("shape (0, 3)"));
    assert!(refused(side(&[2, 2], &[0.0; 3])).contains("12 bytes"));
    let kernel = prepared(side(&[2, 1], &[1.0, 1.0]), 1, false);
    let message = |task: Task<'_>| kernel.run_cpu(&task).unwrap_err().to_string();
    assert_eq!(message(task(0, 3, &[0; 12])), "a row has 3 elements, and side input 'b' is (2, 1): they must be 2");
    assert!(message(task(0, 2, &[0; 12])).contains("no whole number of rows"));
    assert!(message(Task { number: 0, input: Input::Index { start: 0, count: 1 } }).contains("two-dimensional"));
    let without = Matmul.prepare(&StageContext::default()).unwrap();
    assert!(without.run_cpu(&task(0, 1, &[0; 4])).unwrap_err().to_string().contains("no side input 'b'"));
}

#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    const BATCH: u64 = 1 << 18;
    for (k, n, rows) in [(64usize, 512usize, 700usize), (512, 64, 700), (300, 300, 40)] {
        let right = Right::new(side(&[k as u64, n as u64], &vec![1.0; k * n])).unwrap();
        let left = vec![0u8; 4 * k * rows];
        let lefts: Vec<&[u8]> = left.chunks(4 * k * 35).collect();
        with_gpus_of_batch(BATCH, |gpu| {
            let (need, on_device) = (gpu::need(BATCH, k as u64, n as u64), Mutex::default());
            check_memory(gpu, need, lefts.len() as u64, left.len() as u64, || {
                drop(gpu::multiply(gpu, gpu::Limits::of(gpu), &on_device, &right, &lefts).unwrap());
            });
        });
    }
}
