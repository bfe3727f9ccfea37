use super::edges::{ElementType, Scale, rank_of_f4};
use super::*;
use crate::testing::{check_memory, prepare, random, reduce, with_gpus, with_gpus_of_batch};

fn elements<'a>(number: u64, dtype: &'a str, bytes: &'a [u8]) -> Task<'a> {
    Task { number, input: Input::Elements { dtype, bytes } }
}

fn run(pairs: &[(&str, &str)], dtype: &str, bytes: &[u8]) -> TaskOutput {
    prepare("histogram", pairs, 1).unwrap().run_cpu(&elements(0, dtype, bytes)).unwrap()
}

fn table(output: &TaskOutput) -> String {
    let pairs = [("key_name", "bin"), ("value_name", "count"), ("key_type", "u64")];
    let part = reduce("sum_by_key", &pairs, "csv", 1, &[&output.blocks[0]]).unwrap();
    String::from_utf8(part.bytes).unwrap().lines().skip(1).collect::<Vec<_>>().join(" ")
}

fn f4(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn u4(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn values_are_counted_in_half_open_bins() {
    let output = run(&[("bins", "2"), ("low", "0"), ("high", "2")], "f4", &f4(&[-0.5, 0.0, 0.5, 0.99999994, 1.0, 1.5, 2.0, 7.0]));
    assert_eq!(table(&output), "0,3 1,2");
    assert_eq!(output.tallies, [5, 1, 2, 0]);
}

#[test]
fn both_zeros_are_one_number_and_nan_and_infinity_are_counted_apart() {
    let special = f4(&[0.0, -0.0, f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(1), -f32::from_bits(1)]);
    let output = run(&[("bins", "1"), ("low", "0"), ("high", "1")], "f4", &special);
    assert_eq!(output.tallies, [3, 2, 1, 2]);
    let output = run(&[("bins", "1"), ("low", "-4e38"), ("high", "4e38")], "f4", &special);
    assert_eq!(output.tallies, [4, 1, 1, 2]);
}

#[test]
fn bytes_have_256_bins_unless_the_job_says_otherwise() {
    let bytes: Vec<u8> = (0..=255).chain(0..=9).collect();
    let output = run(&[], "u1", &bytes);
    assert_eq!(output.tallies, [266, 0, 0, 0]);
    assert!(table(&output).starts_with("0,2 1,2 2,2"));
    assert!(table(&output).ends_with("254,1 255,1"));
}

#[test]
fn the_whole_range_of_u4_fits() {
    let values = u4(&[0, 1, u32::MAX, u32::MAX - 1, 1 << 31]);
    let output = run(&[("bins", "2"), ("high", "4294967296")], "u4", &values);
    assert_eq!((table(&output).as_str(), output.tallies), ("0,2 1,3", vec![5, 0, 0, 0]));
    // Bins narrower than the numbers are apart, and edges that no number reaches.
    let output = run(&[("bins", "8"), ("low", "4294967294.5"), ("high", "4294967298.5")], "u4", &values);
    assert_eq!((table(&output).as_str(), output.tallies), ("0,0 1,1 2,0 3,0 4,0 5,0 6,0 7,0", vec![1, 4, 0, 0]));
    let output = run(&[("bins", "4"), ("low", "-9"), ("high", "-1")], "u4", &values);
    assert_eq!(output.tallies, [0, 0, 5, 0]);
}

#[test]
fn only_the_first_task_writes_empty_bins() {
    let kernel = prepare("histogram", &[("bins", "10"), ("high", "10")], 1).unwrap();
    let first = kernel.run_cpu(&elements(0, "u1", &[])).unwrap();
    assert_eq!(table(&first), "0,0 1,0 2,0 3,0 4,0 5,0 6,0 7,0 8,0 9,0");
    assert_eq!(table(&kernel.run_cpu(&elements(1, "u1", &[3, 3])).unwrap()), "3,2");
}

#[test]
fn a_range_without_width_and_wrong_elements_are_errors() {
    assert!(matches!(prepare("histogram", &[("low", "5"), ("high", "5")], 1).map(drop), Err(KernelError::Param(_))));
    let kernel = prepare("histogram", &[], 1).unwrap();
    let message = |task| kernel.run_cpu(&task).unwrap_err().to_string();
    assert_eq!(
        message(elements(0, "f8", &[0; 8])),
        "elements of type f8, and kernel `histogram` takes u1, u4 or f4; fix: convert the array, in NumPy by array.astype(\"f4\")"
    );
    assert_eq!(message(elements(0, "u4", &[0; 7])), "7 bytes are no whole number of u4 elements");
}

#[test]
fn ranks_order_like_the_floats() {
    let rising =
        [f32::NEG_INFINITY, f32::MIN, -1.0, -f32::MIN_POSITIVE, -f32::from_bits(1), 0.0, f32::from_bits(1), 1.0, f32::MAX, f32::INFINITY];
    assert!(rising.windows(2).all(|pair| rank_of_f4(pair[0].to_bits()) < rank_of_f4(pair[1].to_bits())));
    assert_eq!(rank_of_f4((-0.0f32).to_bits()), rank_of_f4(0.0f32.to_bits()));
}

#[test]
fn the_guess_never_changes_the_answer() {
    let mut random = random("the_guess_never_changes_the_answer");
    for _ in 0..200 {
        let (a, b) = (f32::from_bits(random.next() as u32), f32::from_bits(random.next() as u32));
        if !(a.is_finite() && b.is_finite() && a != b) {
            continue;
        }
        let scale = Scale::new(ElementType::F4, 1 + random.below(50) as usize, f64::from(a.min(b)), f64::from(a.max(b)));
        let values: Vec<f32> = (0..100).map(|_| a + (b - a) * (random.below(1200) as f32 - 100.0) / 1000.0).collect();
        let counts = cpu::count(&scale, &f4(&values));
        let reached = |value: &f32| scale.edges.partition_point(|edge| *edge <= rank_of_f4(value.to_bits()));
        for (bin, count) in counts.bins.iter().enumerate() {
            assert_eq!(*count, values.iter().filter(|value| !value.is_nan() && reached(value) == bin + 1).count() as u64);
        }
    }
}

#[test]
fn bins_of_a_power_of_two_are_counted_like_any_others() {
    let mut random = random("bins_of_a_power_of_two");
    let everything = (256, 0.0, 4_294_967_296.0);
    for (bins, low, high) in
        [everything, (1, 0.0, 1.0), (16, 1000.0, 1256.0), (4096, 4_294_963_200.0, 4_294_967_296.0), (3, 5.0, 4_294_967_301.0)]
    {
        let scale = Scale::new(ElementType::U4, bins, low, high);
        let mut values: Vec<u32> = (0..1000).map(|_| random.next() as u32).collect();
        values.extend(scale.edges.iter().flat_map(|edge| [edge.wrapping_sub(1), *edge, edge.wrapping_add(1)]));
        values.extend([0, u32::MAX]);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let counts = cpu::count(&scale, &bytes);
        // By the number of edges that are not above it.
        let mut expected = vec![0u64; bins + 2];
        values.iter().for_each(|value| expected[scale.edges.partition_point(|edge| edge <= value)] += 1);
        assert_eq!(
            ([counts.below], &counts.bins[..], [counts.above]),
            ([expected[0]], &expected[1..=bins], [expected[bins + 1]]),
            "{bins} bins {low}..{high}"
        );
    }
}

#[test]
fn twins_agree() {
    let mut random = random("histogram twins_agree");
    let lengths = [0, 1, 2, 3, 255, 256, 257, 1009, 65_535, 65_536, 65_537, 150_001];
    for (dtype, size) in [("u1", 1), ("u4", 4), ("f4", 4)] {
        for (bins, low, high) in
            [("1", "0", "1"), ("256", "0", "256"), ("4096", "-1e9", "4e9"), ("1000", "3.7", "4294967300"), ("7", "-5", "-4")]
        {
            let kernel = prepare("histogram", &[("bins", bins), ("low", low), ("high", high)], 3).unwrap();
            let inputs: Vec<Vec<u8>> = lengths.iter().map(|length| random.bytes(length * size)).collect();
            let tasks: Vec<_> = inputs.iter().enumerate().map(|(number, bytes)| elements(number as u64, dtype, bytes)).collect();
            let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
            with_gpus(|gpu| assert_eq!(kernel.run_gpu(gpu, &tasks).unwrap(), expected, "{dtype}, {bins} bins {low}..{high}"));
        }
    }
}

#[test]
fn twins_agree_on_special_floats_and_on_mixed_types() {
    let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, 1e-45, -1e-45, 1.0, f32::MAX, f32::MIN];
    let kernel = prepare("histogram", &[("bins", "3"), ("low", "0"), ("high", "1")], 1).unwrap();
    let floats = f4(&special);
    let tasks = [elements(0, "f4", &floats), elements(1, "u1", &[0, 1, 2]), elements(2, "f4", &floats[..8])];
    let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
    with_gpus(|gpu| assert_eq!(kernel.run_gpu(gpu, &tasks).unwrap(), expected));
}

#[test]
fn a_lease_that_needs_several_dispatches_is_counted_rightly() {
    let mut random = random("a_lease_that_needs_several_dispatches");
    let bytes = random.bytes(3_000_000);
    let kernel = prepare("histogram", &[("bins", "4096"), ("high", "4294967296")], 1).unwrap();
    // More tasks than one dispatch has counters for, and one task longer than a piece.
    let mut tasks: Vec<_> = (0..1100).map(|number| elements(number, "u4", &bytes[number as usize * 40..][..40])).collect();
    tasks.push(elements(1100, "u4", &bytes));
    let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
    with_gpus(|gpu| assert_eq!(kernel.run_gpu(gpu, &tasks).unwrap(), expected));
}

#[test]
fn a_group_moves_little_more_than_its_values() {
    with_gpus(|gpu| {
        let bytes = vec![1; 16 << 20];
        for (element, bins) in [(ElementType::U1, 256), (ElementType::F4, 256), (ElementType::U4, 1000), (ElementType::F4, 2000)] {
            let scale = Scale::new(element, bins, 0.0, 250.0);
            let batches = gpu::batches(gpu, &scale, &[&bytes]);
            let moved: u64 = batches.iter().map(|batch| gpu::plan(gpu, &scale, &[&bytes], batch).traffic().total()).sum();
            let ratio = moved as f64 / bytes.len() as f64;
            println!("histogram {}, {bins} bins: {ratio:.4} x one pass", element.name());
            assert!((1.0..=1.1).contains(&ratio));
        }
    });
}

#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    const BATCH: u64 = 1 << 20;
    for (bins, lengths) in [(256, vec![300 << 10; 20]), (4096, vec![900 << 10; 5]), (256, vec![100 << 10; 4])] {
        let bytes: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
        let tasks: Vec<_> = bytes.iter().enumerate().map(|(number, bytes)| elements(number as u64, "u1", bytes)).collect();
        let kernel = prepare("histogram", &[("bins", &bins.to_string())], 1).unwrap();
        with_gpus_of_batch(BATCH, |gpu| {
            let units = lengths.iter().sum::<usize>() as u64;
            check_memory(gpu, gpu::need(BATCH, bins), tasks.len() as u64, units, || drop(kernel.run_gpu(gpu, &tasks).unwrap()));
        });
    }
}
