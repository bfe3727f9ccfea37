use crate::api::*;
use crate::testing::{params, random, reduce};

fn blocks(splits: &[&str], options: &[(&str, &str)], partitions: u32) -> Vec<Vec<Vec<u8>>> {
    let stage = StageContext { params: params(options), tasks: splits.len() as u64, partitions, ..StageContext::default() };
    let kernel = crate::find("sample").unwrap().prepare(&stage).unwrap();
    let mut blocks = vec![Vec::new(); partitions as usize];
    for (number, text) in splits.iter().enumerate() {
        let output = kernel.run_cpu(&Task { number: number as u64, input: Input::Text(text.as_bytes()) }).unwrap();
        blocks.iter_mut().zip(output.blocks).for_each(|(all, block)| all.push(block));
    }
    blocks
}

fn sample(splits: &[&str], options: &[(&str, &str)], partitions: u32) -> Result<String, String> {
    let count: Vec<(&str, &str)> = options.iter().copied().filter(|(name, _)| *name == "count").collect();
    let part = |blocks: &Vec<Vec<u8>>| {
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        let part = reduce("merge_sample", &count, "plain", partitions.into(), &blocks).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(part.bytes).unwrap())
    };
    blocks(splits, options, partitions).iter().map(part).collect()
}

fn splits(lines: usize) -> Vec<String> {
    let lines: Vec<String> = (0..lines).map(|line| format!("{line}\n")).collect();
    lines.chunks(97).map(|lines| lines.concat()).collect()
}

#[test]
fn so_many_are_drawn_in_the_order_of_the_input_and_the_same_every_time() {
    let all = splits(1000);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let drawn = sample(&all, &[("count", "50"), ("seed", "7")], 1).unwrap();
    let numbers: Vec<u64> = drawn.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() == 50 && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(drawn, sample(&all, &[("count", "50"), ("seed", "7")], 1).unwrap());
    assert_ne!(drawn, sample(&all, &[("count", "50"), ("seed", "8")], 1).unwrap());
    assert_eq!(sample(&all, &[("count", "2000")], 1).unwrap(), all.concat(), "no more than there are");
    assert_eq!(sample(&["", "a"], &[], 1).unwrap(), "a\n");
}

#[test]
fn a_share_takes_about_that_many_over_any_number_of_parts() {
    let all = splits(20_000);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let drawn = |share, partitions| sample(&all, &[("count", "0"), ("share", share)], partitions).unwrap();
    let some = drawn("0.25", 1);
    // Twenty standard deviations of a binomial distribution.
    assert!(some.lines().count().abs_diff(5000) < 1225, "{}", some.lines().count());
    assert_eq!(some, drawn("0.25", 7), "parts joined are in the order of the input");
    assert_eq!(drawn("1", 3), all.concat());
    assert_eq!(drawn("0", 3), "");
}

#[test]
fn every_line_is_as_likely_as_the_next() {
    let all = splits(200);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut random = random("every_line_is_as_likely_as_the_next");
    let mut drawn = [0u32; 200];
    for _ in 0..400 {
        let seed = random.next().to_string();
        for line in sample(&all, &[("count", "20"), ("seed", &seed)], 1).unwrap().lines() {
            drawn[line.parse::<usize>().unwrap()] += 1;
        }
    }
    // Expected 40 each, with a standard deviation of 6.
    assert!(drawn.iter().all(|times| (2..=90).contains(times)), "{drawn:?}");
}

#[test]
fn records_come_whole_and_a_count_needs_one_partition() {
    let stage = StageContext { params: params(&[("count", "2")]), tasks: 1, partitions: 1, ..StageContext::default() };
    let kernel = crate::find("sample").unwrap().prepare(&stage).unwrap();
    let output = kernel.run_cpu(&Task { number: 0, input: Input::Records { record_bytes: 3, bytes: b"aaabbbccc" } }).unwrap();
    assert_eq!(output.tallies, [3, 2]);
    let part = reduce("merge_sample", &[("count", "2"), ("record", "3")], "plain", 1, &[&output.blocks[0]]).unwrap();
    assert_eq!((part.bytes.len(), part.extension, part.rows), (6, "bin", 2));
    let error = reduce("merge_sample", &[("count", "2")], "plain", 4, &[]).unwrap_err().to_string();
    assert!(error.contains("set partitions = 1"), "{error}");
    let error = reduce("merge_sample", &[("count", "2")], "plain", 1, &[b"\x01a\x01b"]).unwrap_err().to_string();
    assert!(error.contains("it is no sample"), "{error}");
}

#[test]
fn the_reduce_task_counts_all_items_that_it_was_given() {
    let all = splits(300);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let blocks = blocks(&all, &[("count", "50")], 1);
    let stage =
        StageContext { params: params(&[("count", "50")]), tasks: 1, partitions: 1, format: "plain".into(), ..StageContext::default() };
    let given = blocks[0].iter().enumerate().map(|(task, bytes)| Block { task: task as u64, bytes }).collect();
    let merged =
        crate::find("merge_sample").unwrap().prepare(&stage).unwrap().run_cpu(&Task { number: 0, input: Input::Blocks(given) }).unwrap();
    assert_eq!((merged.part.unwrap().rows, merged.records.read), (50, 50 * 3 + 9), "of 97 lines each split has drawn 50, of 9 all");
}
