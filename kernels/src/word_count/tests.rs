use std::collections::HashMap;

use crate::api::*;
use crate::run::{Reader, count_value};
use crate::testing::{Random, prepare, random, reduce};

fn count(text: &[u8], partitions: u32) -> TaskOutput {
    prepare("word_count", &[], partitions).unwrap().run_cpu(&Task { number: 0, input: Input::Text(text) }).unwrap()
}

fn counts(output: &TaskOutput) -> HashMap<Vec<u8>, u64> {
    let mut all = HashMap::new();
    for record in output.blocks.iter().flat_map(|block| Reader::new(block)) {
        let record = record.unwrap();
        assert!(all.insert(record.key.to_vec(), count_value(record.value).unwrap()).is_none());
    }
    all
}

/// The definition: split at ASCII white space and count.
fn naive(text: &[u8]) -> HashMap<Vec<u8>, u64> {
    let mut all = HashMap::new();
    for word in text.split(|byte| matches!(byte, b' ' | 9..=13)).filter(|word| !word.is_empty()) {
        *all.entry(word.to_vec()).or_insert(0) += 1;
    }
    all
}

/// Words of 1 to 40 bytes, any byte, some of them often.
fn some_text(random: &mut Random, words: u64, distinct: u64) -> Vec<u8> {
    let salt = random.next();
    let mut text = Vec::new();
    for _ in 0..words {
        let word = random.below(distinct) * random.below(distinct) / distinct;
        let mut letters = Random::from(salt ^ word);
        let length = [1, 3, 7, 8, 9, 15, 16, 17, 18, 40][letters.below(10) as usize];
        // A common beginning makes words differ only behind their sort prefix.
        let shared = length.min(if letters.below(2) == 0 { 16 } else { 0 });
        text.extend(std::iter::repeat_n(b'z', shared));
        text.extend((shared..length).map(|_| letters.next() as u8));
        text.extend((0..1 + random.below(2)).map(|_| b" \t\n\x0b\x0c\r"[random.below(6) as usize]));
    }
    text
}

#[test]
fn counts_are_those_of_a_plain_map() {
    let mut random = random("counts_are_those_of_a_plain_map");
    for (words, distinct) in [(0, 1), (1, 1), (2, 2), (500, 40), (20_000, 5_000), (60_000, 1_000_000)] {
        let mut text = some_text(&mut random, words, distinct);
        if random.below(2) == 0 {
            text.pop();
        }
        for partitions in [1, 7] {
            let output = count(&text, partitions);
            let expected = naive(&text);
            assert_eq!(counts(&output), expected);
            assert_eq!(output.tallies[1], expected.values().sum::<u64>());
            assert_eq!(output.tallies[2], text.len() as u64);
            assert_eq!(output.blocks.len(), partitions as usize);
        }
    }
}

#[test]
fn memory_left_by_one_task_does_not_change_the_next() {
    let mut random = random("memory_left_by_one_task_does_not_change_the_next");
    let kernel = prepare("word_count", &[], 5).unwrap();
    for words in [3_000, 40_000, 10, 200_000, 0, 40_000] {
        let text = some_text(&mut random, words, 1_000_000);
        let output = kernel.run_cpu(&Task { number: 0, input: Input::Text(&text) }).unwrap();
        assert_eq!(output, count(&text, 5));
        assert_eq!(counts(&output), naive(&text));
    }
}

#[test]
fn words_may_end_anywhere_relative_to_the_blocks_of_64_bytes() {
    for length in [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1009] {
        let word = vec![b'w'; length];
        assert_eq!(counts(&count(&word, 1)), naive(&word));
        for padding in [0, 1, 62, 63, 64] {
            let text = [vec![b' '; padding], word.clone(), vec![b'\n'; padding]].concat();
            assert_eq!(counts(&count(&text, 1)), naive(&text), "{length} letters between {padding} spaces");
        }
    }
}

#[test]
fn lines_are_counted_also_without_a_last_newline() {
    let lines = |text: &str| count(text.as_bytes(), 1).tallies[0];
    assert_eq!([lines(""), lines("a"), lines("a\n"), lines("a\nb"), lines("\n\n"), lines(" ")], [0, 1, 1, 2, 2, 1]);
}

#[test]
fn the_bytes_of_a_block_are_these() {
    let output = count(b"to be or not to be\n", 1);
    assert_eq!(output.blocks, [b"\x02be\x01\x02\x03not\x01\x01\x02or\x01\x01\x02to\x01\x02".to_vec()]);
    assert_eq!(output.tallies, [1, 6, 19]);
    let by_partition: Vec<usize> = count(b"to be or not to be\n", 4).blocks.iter().map(Vec::len).collect();
    assert_eq!(by_partition.iter().sum::<usize>(), output.blocks[0].len());
}

#[test]
fn sixteen_partitions_merge_to_the_bytes_of_one() {
    let mut random = random("sixteen_partitions_merge_to_the_bytes_of_one");
    let texts: Vec<_> = (0..5).map(|_| some_text(&mut random, 3000, 900)).collect();
    let table = |partitions: u32| {
        let outputs: Vec<_> = texts.iter().map(|text| count(text, partitions)).collect();
        let mut rows = Vec::new();
        for partition in 0..partitions as usize {
            let blocks: Vec<&[u8]> = outputs.iter().map(|output| output.blocks[partition].as_slice()).collect();
            let part = reduce("sum_by_key", &[], "csv", u64::from(partitions), &blocks).unwrap();
            rows.extend(csv_rows(&part.bytes));
        }
        rows.sort();
        rows
    };
    let one = table(1);
    assert!(!one.is_empty());
    assert_eq!(table(16), one);
    assert_eq!(table(3), one);
}

/// Rows without the heading; the words contain no line ends.
fn csv_rows(table: &[u8]) -> Vec<Vec<u8>> {
    table.split(|byte| *byte == b'\n').skip(1).filter(|row| !row.is_empty()).map(<[u8]>::to_vec).collect()
}
