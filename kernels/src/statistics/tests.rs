use super::*;
use crate::gpu::{Piece, pieces};
use crate::testing::{Random, check_memory, prepare, random, reduce, with_gpus, with_gpus_of_batch};

fn elements<'a>(number: u64, dtype: &'a str, bytes: &'a [u8]) -> Task<'a> {
    Task { number, input: Input::Elements { dtype, bytes } }
}

fn f4(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// The specification, element by element.
fn one_by_one(element: ElementType, bytes: &[u8]) -> State {
    let mut state = State::default();
    for element_bytes in bytes.chunks_exact(element.size()) {
        state.add(element, element_bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte)));
    }
    state
}

/// Columns as they occur, and as they may be made to hurt: with all exponents, at both ends, around the bounds of blocks and windows.
fn column(random: &mut Random, kind: u64, count: usize) -> Vec<u8> {
    let mut float = |low: u64, span: u64| {
        let exponent = (low + random.below(span)).min(254) as u32;
        f32::from_bits(random.next() as u32 & 0x807f_ffff | exponent << 23)
    };
    match kind {
        0 => f4((0..count).map(|_| float(0, 255))),                        // any finite number
        1 => f4((0..count).map(|_| float(110, 19))),                       // a block's spread, just within
        2 => f4((0..count).map(|_| float(110, 21))),                       // and just beyond
        3 => f4((0..count).map(|_| float(230, 25))),                       // the largest
        4 => f4((0..count).map(|_| float(0, 3))),                          // the smallest
        5 => f4((0..count).map(|_| f32::from_bits(random.next() as u32))), // with NaN and infinities
        6 => f4((0..count).map(|_| if random.below(9) == 0 { f32::MAX } else { f32::MIN_POSITIVE })),
        7 => f4((0..count).map(|_| if random.below(2) == 0 { 0.0 } else { -0.0 })),
        8 => f4((0..count).map(|_| (random.next() >> 40) as f32 / (1 << 24) as f32)), // uniform in 0..1
        9 => f4((0..count).map(|_| 256.0 + (random.next() >> 40) as f32 / (1 << 16) as f32)), // whole numbers of one unit
        // The same of both signs, with now and then a zero, a NaN, or one that is no whole number of 29 bits.
        10 => f4((0..count).map(|_| match random.below(3000) {
            0 => -0.0,
            1 => f32::NAN,
            2 => 1e-30,
            3 => 1e30,
            number => (random.below(1 << 24) as f32 - 8_388_608.0) / if number % 2 == 0 { 1024.0 } else { 16_384.0 },
        })),
        _ => f4(std::iter::repeat_n(f32::from_bits(0x4b7f_ffff), count)), // all bits set, so that sums are as long as can be
    }
}

const KINDS: u64 = 12;
const LENGTHS: [usize; 13] = [0, 1, 15, 16, 17, 255, 256, 257, 1009, 1024, 4096, 4097, 40_009];

#[test]
fn blocks_give_what_the_specification_gives() {
    let mut random = random("blocks_give_what_the_specification_gives");
    for length in LENGTHS {
        for kind in 0..KINDS {
            let bytes = column(&mut random, kind, length);
            let (fast, exact) = (cpu::state(ElementType::F4, &bytes).moments(), one_by_one(ElementType::F4, &bytes).moments());
            assert_eq!(fast, exact, "{length} elements of kind {kind}");
        }
        for (element, most) in [(ElementType::U1, false), (ElementType::U4, false), (ElementType::U1, true), (ElementType::U4, true)] {
            let count = length * element.size();
            let bytes = if most { vec![0xff; count] } else { random.bytes(count) };
            assert_eq!(cpu::state(element, &bytes).moments(), one_by_one(element, &bytes).moments(), "{length} of {element:?}");
        }
    }
}

/// The quick way would be no use if ordinary columns went element by element.
#[test]
fn sums_are_those_of_128_bits_where_these_suffice() {
    let mut random = random("sums_are_those_of_128_bits");
    for _ in 0..20 {
        let values: Vec<i64> = (0..5000).map(|_| random.below(1 << 24) as i64 - (1 << 23)).collect();
        let moments = cpu::state(ElementType::F4, &f4(values.iter().map(|value| *value as f32))).moments();
        let (sum, squares) = (values.iter().sum::<i64>(), values.iter().map(|value| value * value).sum::<i64>());
        let unit = |value: u64, scale: u32| {
            let mut digits = vec![0u32; scale as usize / 32];
            let shifted = u128::from(value) << (scale % 32);
            digits.extend((0..4).map(|index| (shifted >> (32 * index)) as u32));
            Magnitude::new(digits)
        };
        let (same, other) = if sum < 0 { (&moments.negative, &moments.positive) } else { (&moments.positive, &moments.negative) };
        assert_eq!((same, other.is_zero()), (&unit(sum.unsigned_abs(), SCALE), true));
        assert_eq!(moments.squares, unit(squares as u64, 2 * SCALE));
    }
}

#[test]
fn any_cut_into_tasks_gives_the_same_table() {
    let mut random = random("any_cut_into_tasks");
    let kernel = prepare("statistics", &[], 1).unwrap();
    for kind in 0..KINDS {
        let bytes = column(&mut random, kind, 10_007);
        let table = |cuts: &[usize]| {
            let runs: Vec<Vec<u8>> = (cuts.windows(2).enumerate())
                .map(|(number, cut)| {
                    kernel.run_cpu(&elements(number as u64, "f4", &bytes[4 * cut[0]..4 * cut[1]])).unwrap().blocks.remove(0)
                })
                .collect();
            let runs: Vec<&[u8]> = runs.iter().map(Vec::as_slice).collect();
            String::from_utf8(reduce("merge_statistics", &[], "csv", 1, &runs).unwrap().bytes).unwrap()
        };
        let whole = table(&[0, 10_007]);
        let middle = random.below(10_007) as usize;
        assert_eq!(table(&[0, middle, 10_007]), whole);
        assert_eq!(table(&(0..=10_007).step_by(1).filter(|cut| cut % 100 == 7 || *cut == 0).collect::<Vec<_>>()), whole);
    }
}

#[test]
fn wrong_elements_are_errors() {
    let kernel = prepare("statistics", &[], 1).unwrap();
    let message = |task| kernel.run_cpu(&task).unwrap_err().to_string();
    assert_eq!(
        message(elements(0, "f8", &[0; 8])),
        "elements of type f8, and kernel `statistics` takes u1, u4 or f4; fix: convert the array, in NumPy by array.astype(\"f4\")"
    );
    assert_eq!(message(elements(0, "f4", &[0; 7])), "7 bytes are no whole number of f4 elements");
    assert!(message(Task { number: 0, input: Input::Index { start: 0, count: 1 } }).contains("reads the elements"));
}

#[test]
fn tallies_count_every_element_once() {
    let kernel = prepare("statistics", &[], 3).unwrap();
    let output = kernel.run_cpu(&elements(0, "f4", &f4([1.0, f32::NAN, f32::INFINITY]))).unwrap();
    assert_eq!((output.tallies, output.blocks.len()), (vec![2, 1], 3));
}

#[test]
fn twins_agree() {
    let mut random = random("statistics twins_agree");
    let mut inputs: Vec<(&str, Vec<u8>)> = Vec::new();
    for length in LENGTHS {
        (0..KINDS).for_each(|kind| inputs.push(("f4", column(&mut random, kind, length))));
        inputs.push(("u1", random.bytes(length)));
        inputs.push(("u4", random.bytes(4 * length)));
        inputs.push(("u4", vec![0xff; 4 * length]));
    }
    let kernel = prepare("statistics", &[], 2).unwrap();
    let tasks: Vec<_> = inputs.iter().enumerate().map(|(number, (dtype, bytes))| elements(number as u64, dtype, bytes)).collect();
    let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
    let check = |gpu: &Gpu| {
        let found = kernel.run_gpu(gpu, &tasks).unwrap();
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "task {number}, {} bytes of {}", inputs[number].1.len(), inputs[number].0);
        }
    };
    with_gpus(check);
    // Many dispatches, and buffers that were used before.
    with_gpus_of_batch(40_000, check);
}

#[test]
fn a_group_reads_each_element_once() {
    with_gpus(|gpu| {
        for (element, limit) in [(ElementType::F4, 1.1), (ElementType::U4, 1.1), (ElementType::U1, 1.1)] {
            let bytes = vec![1; 8 << 20];
            let batch: Vec<Piece> = pieces([(bytes.len() / element.size()) as u64], 4096).collect();
            let moved = gpu::plan(gpu, element, &[&bytes], &batch).traffic();
            let ratio = moved.total() as f64 / bytes.len() as f64;
            println!("statistics {}: {ratio:.4} x one pass", element.name());
            assert!((1.0..limit).contains(&ratio));
        }
    });
}

#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    const BATCH: u64 = 1 << 20;
    for (element, lengths) in
        [(ElementType::F4, vec![900 << 10; 6]), (ElementType::U1, vec![700 << 10; 6]), (ElementType::F4, vec![100 << 10; 4])]
    {
        let bytes: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
        let tasks: Vec<_> = bytes.iter().enumerate().map(|(number, bytes)| elements(number as u64, element.name(), bytes)).collect();
        let kernel = prepare("statistics", &[], 1).unwrap();
        with_gpus_of_batch(BATCH, |gpu| {
            let units = lengths.iter().sum::<usize>() as u64;
            check_memory(gpu, gpu::need(BATCH, element), tasks.len() as u64, units, || drop(kernel.run_gpu(gpu, &tasks).unwrap()));
        });
    }
}
