use std::sync::Arc;

use raftwerk_formats::{CsvOptions, Format, Table};

use crate::api::*;
use crate::testing::{prepare, random, reduce};

fn top(splits: &[&str], params: &[(&str, &str)]) -> Result<String, String> {
    let kernel = prepare("top_k", params, 1).map_err(|error| error.to_string())?;
    let format = Arc::new(Format::Csv(CsvOptions { header: false, names: vec!["n".into(), "t".into()], ..CsvOptions::default() }));
    let mut blocks = Vec::new();
    for (number, text) in splits.iter().enumerate() {
        let table = Table::new(format.clone(), bytes::Bytes::copy_from_slice(text.as_bytes()), 0..text.len());
        let output = kernel.run_cpu(&Task { number: number as u64, input: Input::Table(table) }).map_err(|error| error.to_string())?;
        blocks.push(output.blocks.into_iter().next().unwrap());
    }
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    reduce("merge_top", params, "csv", 1, &blocks).map(|part| String::from_utf8(part.bytes).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn the_largest_numbers_come_first_and_equal_ones_in_the_order_of_the_input() {
    let splits = ["5,a\n,none\n9.0,b\n-1,c\n", "9,d\n1e40,e\n5,f\n9.00000000000000001,g\n", "", "-1e40,h\n5,i\n"];
    let result = |k, order| top(&splits, &[("of", "n"), ("k", k), ("columns", "t, n"), ("order", order)]).unwrap();
    assert_eq!(result("5", "largest"), "t,n\ne,1e40\ng,9.00000000000000001\nb,9.0\nd,9\na,5\n");
    assert_eq!(result("4", "smallest"), "t,n\nh,-1e40\nc,-1\na,5\nf,5\n");
    assert_eq!(top(&splits, &[("of", "n"), ("k", "1")]).unwrap(), "n\n1e40\n");
}

#[test]
fn what_is_wrong_names_the_parameter_or_the_cell() {
    assert!(top(&[""], &[]).unwrap_err().contains("parameter 'of' must name one column"));
    assert!(top(&[""], &[("of", "n"), ("columns", "\"")]).unwrap_err().contains("parameter 'columns': the quotes of \" are not closed"));
    assert!(top(&["x,a\n"], &[("of", "n")]).unwrap_err().contains("is \"x\", which is no number"));
    assert!(top(&["1,a\n"], &[("of", "m")]).unwrap_err().contains("no column 'm'"));
    let blocks = [&b"\x01a\x01\x05"[..]];
    assert!(reduce("merge_top", &[("of", "n")], "csv", 1, &blocks).unwrap_err().to_string().contains("damaged"));
    assert!(reduce("merge_top", &[("of", "n")], "csv", 2, &[]).unwrap_err().to_string().contains("partitions = 1"));
}

#[test]
fn the_rows_are_those_of_a_full_sort() {
    let mut random = random("the_rows_are_those_of_a_full_sort");
    for _ in 0..20 {
        let rows: Vec<i64> = (0..random.below(3000)).map(|_| random.below(500) as i64 - 250).collect();
        let k = 1 + random.below(50) as usize;
        let mut sorted: Vec<(usize, i64)> = rows.iter().copied().enumerate().collect();
        sorted.sort_by_key(|(place, number)| (-number, *place));
        let expected: String = sorted.iter().take(k).map(|(place, number)| format!("{number},row {place}\n")).collect();
        let cut = random.below(rows.len() as u64 + 1) as usize;
        let text = |range: std::ops::Range<usize>| -> String { range.map(|place| format!("{},row {place}\n", rows[place])).collect() };
        let splits = [text(0..cut), text(cut..rows.len())];
        let found = top(&[&splits[0], &splits[1]], &[("of", "n"), ("k", &k.to_string()), ("columns", "n, t")]).unwrap();
        assert_eq!(found, format!("n,t\n{expected}"));
    }
}

#[test]
fn the_reduce_task_counts_all_rows_that_it_was_given() {
    let table = |text: &str| {
        let format = Format::Csv(CsvOptions { header: false, names: vec!["n".into()], ..CsvOptions::default() });
        Table::new(Arc::new(format), bytes::Bytes::copy_from_slice(text.as_bytes()), 0..text.len())
    };
    let pairs = [("of", "n"), ("k", "2")];
    let kernel = prepare("top_k", &pairs, 1).unwrap();
    let run = |number, text| kernel.run_cpu(&Task { number, input: Input::Table(table(text)) }).unwrap();
    let made = [run(0, "1\n5\n4\n"), run(1, "3\n"), run(2, "9\n8\n")];
    let stage =
        StageContext { params: crate::testing::params(&pairs), tasks: 1, partitions: 1, format: "csv".into(), ..StageContext::default() };
    let blocks = made.iter().enumerate().map(|(task, output)| Block { task: task as u64, bytes: &output.blocks[0] }).collect();
    let merged =
        crate::find("merge_top").unwrap().prepare(&stage).unwrap().run_cpu(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap();
    assert_eq!((merged.part.unwrap().rows, merged.records.read), (2, made.iter().map(|output| output.records.made).sum()));
    assert_eq!(merged.records.read, 5);
}
