use super::*;
use crate::run::Reader;
use crate::testing::{Random, check_memory, prepare, random, reduce, with_gpus, with_gpus_of_batch};

fn elements<'a>(number: u64, dtype: &'a str, bytes: &'a [u8]) -> Task<'a> {
    Task { number, input: Input::Elements { dtype, bytes } }
}

/// Keys as they occur and as they hurt: all different, few, equal, sorted, reversed, nearly all small.
fn keys(random: &mut Random, kind: u64, count: usize) -> Vec<u64> {
    (0..count as u64)
        .map(|index| match kind {
            0 => random.next(),
            1 => random.below(5) << 40 | random.below(2),
            2 => 0x0123_4567_89ab_cdef,
            3 => index << 20,
            4 => u64::MAX - index,
            5 => random.next() >> random.below(64),
            _ => random.next() & 0xff00_ff00,
        })
        .collect()
}

const KINDS: u64 = 7;

/// Around insertion, around the cache, several stretches, buckets that are distributed again.
const LENGTHS: [usize; 15] = [0, 1, 2, 47, 48, 49, 255, 256, 257, 1009, 4095, 4096, 50_000, 100_003, 400_009];

#[test]
fn sorting_is_what_the_standard_library_does_stably() {
    let mut random = random("sorting_is_what_the_standard_library_does");
    let space = Space::default();
    for length in LENGTHS {
        for kind in 0..KINDS {
            let values = keys(&mut random, kind, length);
            for low in [0, 5, 32, 52, 53, 55, 56, 60, 63] {
                let (mut sorted, mut expected) = (values.clone(), values.clone());
                cpu::sort(&mut sorted, low, &space);
                expected.sort_by_key(|value| value >> low);
                assert!(sorted == expected, "{length} keys of kind {kind} from bit {low}");
            }
            let words: Vec<u32> = values.iter().map(|value| (value >> 16) as u32).collect();
            for low in [0, 9, 21, 24, 31] {
                let (mut sorted, mut expected) = (words.clone(), words.clone());
                cpu::sort(&mut sorted, low, &space);
                expected.sort_by_key(|value| value >> low);
                assert!(sorted == expected, "{length} words of kind {kind} from bit {low}");
            }
        }
    }
}

/// The bits that are not compared tell where an element was.
#[test]
fn equal_keys_keep_their_order_in_long_inputs() {
    let mut random = random("equal_keys_keep_their_order");
    let values: Vec<u64> = (0..700_000).map(|index| random.below(1 << 12) << 52 | index).collect();
    let mut sorted = values;
    cpu::sort(&mut sorted, 40, &Space::default());
    assert!(sorted.is_sorted(), "the position is below the key: stable and sorted are one");
}

#[test]
fn the_parts_joined_are_the_input_sorted_for_any_cut_and_any_partitions() {
    let mut random = random("the_parts_joined");
    for (dtype, payload_bits, kind) in [
        ("u4", 0, 0),
        ("u4", 8, 5),
        ("u8", 0, 0),
        ("u8", 32, 1),
        ("u8", 53, 0),
        ("u8", 56, 0),
        ("u8", 60, 5),
        ("u8", 63, 0),
        ("f4", 0, 0),
        ("u8", 0, 5),
    ] {
        let size = if dtype == "u8" { 8 } else { 4 };
        let input: Vec<u8> = keys(&mut random, kind, 3000).iter().flat_map(|key| key.to_le_bytes()).collect();
        let mut whole = None;
        for (partitions, pieces, low, high) in
            [(1, 1, "0", "0"), (4, 3, "0", "0"), (7, 10, "0", "0"), (3, 4, "-1e3", "1e18"), (5, 2, "7", "9")]
        {
            let bits = payload_bits.to_string();
            let params = [("payload_bits", bits.as_str()), ("low", low), ("high", high)];
            let kernel = prepare("radix_sort", &params, partitions).unwrap();
            let cut = (input.len() / size).div_ceil(pieces) * size;
            let outputs: Vec<_> = input
                .chunks(cut)
                .enumerate()
                .map(|(number, bytes)| kernel.run_cpu(&elements(number as u64, dtype, bytes)).unwrap())
                .collect();
            let mut joined = Vec::new();
            for partition in 0..partitions as usize {
                let runs: Vec<&[u8]> = outputs.iter().map(|output| output.blocks[partition].as_slice()).collect();
                joined.extend_from_slice(&reduce("merge_sorted", &[], "npy", partitions.into(), &runs).unwrap().bytes[128..]);
            }
            assert_eq!(joined.len(), input.len());
            assert!(*whole.get_or_insert_with(|| joined.clone()) == joined, "{dtype}, {partitions} partitions, {low}..{high}");
        }
        let Values::Longs(expected) = values(SortElement::U8, &whole.unwrap()) else { unreachable!("eight bytes each") };
        if size == 8 {
            assert!(expected.is_sorted_by_key(|value| value >> payload_bits));
        }
    }
}

#[test]
fn partitions_share_an_even_input_evenly() {
    let values: Vec<u8> = (0..4000u32).flat_map(|value| (value << 20).to_le_bytes()).collect();
    let kernel = prepare("radix_sort", &[], 4).unwrap();
    let blocks = kernel.run_cpu(&elements(1, "u4", &values)).unwrap().blocks;
    let counts: Vec<usize> = blocks.iter().map(|block| Reader::new(block).map(|record| record.unwrap().value.len() / 4).sum()).collect();
    assert_eq!(counts, [1024, 1024, 1024, 928]);
}

#[test]
fn wrong_elements_and_parameters_are_errors() {
    let message = |params: &[(&str, &str)], dtype: &str| {
        let kernel = prepare("radix_sort", params, 1)?;
        kernel.run_cpu(&elements(0, dtype, &[0; 12])).map(drop)
    };
    let text = |params: &[(&str, &str)], dtype: &str| message(params, dtype).unwrap_err().to_string();
    assert_eq!(
        text(&[], "u1"),
        "elements of type u1, and kernel `radix_sort` takes u4, u8 or f4; fix: convert the array, in NumPy by array.astype(\"u8\")"
    );
    assert_eq!(text(&[], "u8"), "12 bytes are no whole number of u8 elements");
    assert!(text(&[("payload_bits", "32")], "u4").starts_with("payload_bits = 32 leaves no key in the 32 bits of u4; fix: "));
    assert!(text(&[("payload_bits", "3")], "f4").contains("no bits to spare"));
    assert!(text(&[("low", "3"), ("high", "2")], "u4").contains("is above"));
    assert!(message(&[("payload_bits", "31")], "u4").is_ok());
}

#[test]
fn twins_agree() {
    let mut random = random("radix_sort twins_agree");
    for (dtype, payload_bits) in [("u4", 0u32), ("u4", 13), ("f4", 0), ("u8", 0), ("u8", 29)] {
        let size = if dtype == "u8" { 8 } else { 4 };
        let mut inputs: Vec<Vec<u8>> = Vec::new();
        for length in [0, 1, 2, 255, 256, 257, 1009, 4095, 4096, 4097, 30_011] {
            let kind = random.below(KINDS);
            let keys = keys(&mut random, kind, length);
            inputs.push(keys.iter().flat_map(|key| key.to_le_bytes()[8 - size..].to_vec()).collect());
        }
        let kernel = prepare("radix_sort", &[("payload_bits", &payload_bits.to_string())], 3).unwrap();
        let tasks: Vec<_> = inputs.iter().enumerate().map(|(number, bytes)| elements(number as u64, dtype, bytes)).collect();
        let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
        let check = |gpu: &Gpu| {
            let found = kernel.run_gpu(gpu, &tasks).unwrap();
            for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(found == expected, "task {number}, {} bytes of {dtype}", inputs[number].len());
            }
        };
        with_gpus(check);
        // Tasks longer than a dispatch.
        with_gpus_of_batch(20_000, check);
    }
}

/// Needs no device. Each pass at least reads and writes every element once.
#[test]
fn a_pass_moves_three_elements_where_two_are_the_least() {
    for element in SortElement::ALL {
        let bytes = vec![0; 32 << 20];
        let passes = element.size() as u64;
        let ratio = gpu::plan(element, 0, &bytes).traffic().total() as f64 / (2 * passes * bytes.len() as u64) as f64;
        println!("radix_sort {}: {ratio:.4} x reading and writing in each of {passes} passes", element.name());
        assert!((1.5..1.8).contains(&ratio));
    }
}

/// Of one task that is cut, and of two that are not: of many short ones less is there together than the formula can say.
#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    const BATCH: u64 = 1 << 20;
    for (dtype, payload_bits, lengths) in [("u4", 0, vec![2 << 20]), ("u8", 24, vec![2 << 20]), ("f4", 0, vec![400 << 10; 2])] {
        let bytes: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
        let tasks: Vec<_> = bytes.iter().enumerate().map(|(number, bytes)| elements(number as u64, dtype, bytes)).collect();
        let kernel = prepare("radix_sort", &[("payload_bits", &payload_bits.to_string())], 1).unwrap();
        let need = gpu::need(BATCH, SortElement::named(dtype).unwrap(), payload_bits);
        with_gpus_of_batch(BATCH, |gpu| {
            let units = lengths.iter().sum::<usize>() as u64;
            check_memory(gpu, need, tasks.len() as u64, units, || drop(kernel.run_gpu(gpu, &tasks).unwrap()));
        });
    }
}
