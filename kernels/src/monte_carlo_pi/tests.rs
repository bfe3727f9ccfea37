use super::*;
use crate::philox::philox;
use crate::testing::{check_memory, prepare, random, with_gpus};

/// From the authors' test file `kat_vectors` (Random123).
#[test]
fn philox_gives_the_published_numbers() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    assert_eq!(philox(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

fn task(number: u64, start: u64, count: u64) -> Task<'static> {
    Task { number, input: Input::Index { start, count } }
}

fn run(seed: u64, start: u64, count: u64) -> TaskOutput {
    prepare("monte_carlo_pi", &[("seed", &seed.to_string())], 1).unwrap().run_cpu(&task(0, start, count)).unwrap()
}

#[test]
fn the_counts_are_what_they_always_were() {
    assert_eq!(run(0, 0, 100_000).tallies, [GOLDEN_SEED_0, 100_000]);
    assert_eq!(run(u64::MAX, u64::MAX - 99_999, 100_000).tallies, [GOLDEN_SEED_MAX, 100_000]);
}

/// From a second implementation, in Python.
const GOLDEN_SEED_0: u64 = 78_377;
const GOLDEN_SEED_MAX: u64 = 78_639;

#[test]
fn splitting_the_range_changes_nothing() {
    let mut random = random("splitting_the_range_changes_nothing");
    let (seed, start, cut) = (random.next(), random.next() >> 1, random.below(10_000));
    let whole = run(seed, start, 10_000).tallies[0];
    assert_eq!(run(seed, start, cut).tallies[0] + run(seed, start + cut, 10_000 - cut).tallies[0], whole);
}

#[test]
fn the_estimate_is_pi_within_five_standard_errors() {
    let hits = run(1, 0, 1_000_000).tallies[0];
    let estimate = 4.0 * hits as f64 / 1e6;
    assert!((estimate - std::f64::consts::PI).abs() < 5.0 * 0.00164, "{estimate}");
}

#[test]
fn twins_agree() {
    let mut random = random("monte_carlo_pi twins_agree");
    let seed = random.next();
    let kernel = prepare("monte_carlo_pi", &[("seed", &seed.to_string())], 1).unwrap();
    let mut tasks: Vec<_> = [0, 1, 255, 256, 257, 1009, 65_535, 65_536, 65_537, 200_003]
        .iter()
        .enumerate()
        .map(|(number, count)| task(number as u64, random.next() >> 1, *count))
        .collect();
    // Across a carry of the low word, and up to the last number.
    tasks.push(task(20, (1 << 32) - 100, 300));
    tasks.push(task(21, u64::MAX - 300, 301));
    let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
    with_gpus(|gpu| {
        assert_eq!(kernel.run_gpu(gpu, &tasks).unwrap(), expected);
        assert_eq!(kernel.run_gpu(gpu, &[]).unwrap(), []);
    });
}

#[test]
fn a_lease_of_more_pieces_than_one_dispatch_takes_is_summed_rightly() {
    let kernel = prepare("monte_carlo_pi", &[], 1).unwrap();
    let tasks: Vec<_> = (0..9000).map(|number| task(number, number * 10, 10)).collect();
    let expected: u64 = tasks.iter().map(|task| kernel.run_cpu(task).unwrap().tallies[0]).sum();
    with_gpus(|gpu| {
        let outputs = kernel.run_gpu(gpu, &tasks).unwrap();
        assert_eq!(outputs.iter().map(|output| output.tallies[0]).sum::<u64>(), expected);
    });
}

#[test]
fn a_range_beyond_64_bits_is_an_error() {
    let kernel = prepare("monte_carlo_pi", &[], 1).unwrap();
    assert!(matches!(kernel.run_cpu(&task(0, u64::MAX, 2)), Err(KernelError::Input(_))));
    assert!(kernel.run_cpu(&task(0, u64::MAX, 1)).is_ok());
}

#[test]
fn the_estimate_is_presented_with_its_error() {
    let lines = MonteCarloPi.present_tallies(&Params::new(), &[785_398_163, 1_000_000_000]);
    assert_eq!(lines[0].1, "3.141593 ± 0.000052 (standard error)");
    assert_eq!(MonteCarloPi.present_tallies(&Params::new(), &[0, 0]), []);
}

#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    let kernel = prepare("monte_carlo_pi", &[], 1).unwrap();
    // Each task is a piece of its own: some dispatches in a row, with next to nothing to do.
    for count in [100, 30_000] {
        let tasks: Vec<_> = (0..count).map(|number| Task { number, input: Input::Index { start: number, count: 1 } }).collect();
        with_gpus(|gpu| check_memory(gpu, gpu::need(), count, count, || drop(kernel.run_gpu(gpu, &tasks).unwrap())));
    }
}
