use super::*;
use crate::gpu::words;
use crate::testing::{random, with_gpus, with_gpus_of_batch};

const ALL: [Operation; 4] = [Operation::SumU32, Operation::SumU64, Operation::MinU32, Operation::MaxU32];

fn expected(operation: Operation, bytes: &[u8]) -> (u64, Vec<u64>) {
    let mut all = operation.identity();
    let scanned = bytes.chunks_exact(operation.size()).map(|bytes| {
        let before = all;
        all = operation.combine(all, bytes_of(bytes));
        before
    });
    let scanned = scanned.collect();
    (all, scanned)
}

fn check(gpu: &Gpu, operation: Operation, bytes: &[u8]) {
    let (all, scanned) = expected(operation, bytes);
    let count = bytes.len() / operation.size();
    assert_eq!(gpu.reduce(operation, bytes).unwrap(), all, "{operation:?} of {count} values");
    assert!(gpu.scan(operation, bytes).unwrap() == scanned, "scan by {operation:?} of {count} values");
}

#[test]
fn reduce_and_scan_give_what_a_loop_gives() {
    let mut random = random("reduce_and_scan");
    // Around a tile, around a group, three levels of groups, and a prime.
    let lengths = [0, 1, 2, 255, 256, 257, 1009, 4095, 4096, 4097, 70_001, 4096 * 4096 + 5];
    for length in lengths {
        let bytes = random.bytes(8 * length.min(1 << 17));
        // Long ones repeat: making random bytes takes longer than the test.
        let bytes: Vec<u8> = bytes.iter().copied().cycle().take(8 * length).collect();
        with_gpus(|gpu| {
            // Three levels of groups take a second on a software adapter; sums of one size show them.
            let operations = if length > 1 << 20 { &ALL[..1] } else { &ALL };
            operations.iter().for_each(|&operation| check(gpu, operation, &bytes[..operation.size() * length]));
        });
    }
}

#[test]
fn values_beyond_one_dispatch_are_cut_and_put_together() {
    let mut random = random("values_beyond_one_dispatch");
    let bytes = random.bytes(8 * 1009);
    for batch_bytes in [8, 1000, 4096] {
        with_gpus_of_batch(batch_bytes, |gpu| {
            let bytes = if batch_bytes == 8 { &bytes[..800] } else { &bytes[..] };
            ALL.iter().for_each(|&operation| check(gpu, operation, bytes));
        });
    }
}

#[test]
fn sums_of_64_bits_carry_and_wrap() {
    let bytes = words([u32::MAX, u32::MAX, 1, 0, u32::MAX, 0, 1, 0]);
    with_gpus(|gpu| check(gpu, Operation::SumU64, &bytes));
}

#[test]
fn values_cut_in_the_middle_are_an_error() {
    with_gpus(|gpu| assert!(matches!(gpu.reduce(Operation::SumU64, &[0; 12]), Err(KernelError::Input(_)))));
}

/// Needs no device: what moves follows from the recorded buffers and dispatches.
#[test]
fn reduce_moves_little_more_than_every_value_once_and_scan_three_words_where_two_are_the_least() {
    for (operation, count) in [(Operation::SumU32, 10_000_000u64), (Operation::SumU64, 10_000_000), (Operation::MaxU32, 1 << 17)] {
        let bytes = count * operation.size() as u64;
        let mut plan = Plan::default();
        let values = plan.scratch(bytes);
        reduce(&mut plan, operation, values);
        let ratio = plan.traffic().total() as f64 / bytes as f64;
        println!("reduce {operation:?}, {count} values: {ratio:.4} x one pass");
        assert!((1.0..=1.1).contains(&ratio), "reduce moves {ratio} x its values");

        let mut plan = Plan::default();
        let values = plan.scratch(bytes);
        scan(&mut plan, operation, values);
        let ratio = plan.traffic().total() as f64 / (2 * bytes) as f64;
        println!("scan {operation:?}, {count} values: {ratio:.4} x one pass");
        assert!((1.0..=1.6).contains(&ratio), "scan moves {ratio} x reading and writing its values");
    }
}

/// The plan's account against what the programs do: every value once, and each group's result.
#[test]
fn the_device_counts_what_its_plans_move() {
    with_gpus(|gpu| {
        let before = gpu.traffic();
        gpu.reduce(Operation::SumU32, &vec![1; 4 * 8192]).unwrap();
        let moved = gpu.traffic().since(before);
        assert_eq!((moved.read, moved.written), (4 * 8192 + 4 * 2, 4 * 2 + 4));
    });
}
