use std::collections::BTreeMap;
use std::sync::Arc;

use raftwerk_formats::{CsvOptions, Format, Table};

use crate::api::*;
use crate::testing::{Random, prepare, random, reduce};

/// Groups a table in splits of whole lines, and merges.
fn groups(text: &str, splits: usize, by: &str, aggregate: &str, format: &str, partitions: u32) -> Result<Vec<Part>, KernelError> {
    let params = [("by", by), ("aggregate", aggregate)];
    let kernel = prepare("group_by", &params, partitions)?;
    let options = Arc::new(Format::Csv(CsvOptions { quoted_newlines: false, ..CsvOptions::default() }));
    let file: Arc<[u8]> = text.as_bytes().into();
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    let mut cuts: Vec<usize> = (1..splits).filter_map(|split| ends.get(split * ends.len() / splits).copied()).collect();
    cuts.insert(0, 0);
    cuts.push(text.len());
    let mut outputs = Vec::new();
    for (number, range) in cuts.windows(2).enumerate() {
        let table = Table::new(options.clone(), bytes::Bytes::from_owner(file.clone()), range[0]..range[1]);
        outputs.push(kernel.run_cpu(&Task { number: number as u64, input: Input::Table(table) })?);
    }
    let part = |partition: usize| {
        let blocks: Vec<&[u8]> = outputs.iter().map(|output| output.blocks[partition].as_slice()).collect();
        reduce("merge_groups", &params, format, partitions.into(), &blocks)
    };
    (0..partitions as usize).map(part).collect()
}

fn csv(text: &str, splits: usize, by: &str, aggregate: &str) -> Result<String, String> {
    let parts = groups(text, splits, by, aggregate, "csv", 1).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(parts[0].bytes.clone()).unwrap())
}

const SALES: &str = "city,amount,user\nOslo,1.50,ann\nLyon,2,bob\nOslo,,ann\nLyon,-0.25,\n,7,cid\nOslo,10,dee\n";

#[test]
fn a_small_table_by_hand() {
    for splits in [1, 2, 3, 6] {
        assert_eq!(
            csv(SALES, splits, "city", "count, count(amount), sum(amount), min(amount), max(amount), mean(amount), distinct(user)")
                .unwrap(),
            "city,count,count(amount),sum(amount),min(amount),max(amount),mean(amount),distinct(user)\n\
             ,1,1,7,7,7,7,1\n\
             Lyon,2,2,1.75,-0.25,2,0.875,1\n\
             Oslo,3,2,11.5,1.5,10,5.75,2\n"
        );
    }
    assert_eq!(csv(SALES, 2, "", "count, sum(amount)").unwrap(), "count,sum(amount)\n6,20.25\n");
    assert_eq!(csv("a,b\nx,\n", 1, "a", "sum(b), mean(b), min(b), count(b)").unwrap(), "a,sum(b),mean(b),min(b),count(b)\nx,,,,0\n");
    assert_eq!(csv("a,b\nx,\n", 1, "b", "sum(b)").unwrap(), "b,sum(b)\n,\n");
    assert_eq!(csv("a\n", 1, "", "count").unwrap(), "count\n", "no row, no group");
}

#[test]
fn the_same_as_json_lines() {
    let parts = groups(SALES, 2, "city", "count, mean(amount), sum(user_id)", "jsonl", 1);
    assert!(parts.is_err_and(|error| error.to_string().contains("no column 'user_id'")));
    let parts = groups("k,v\n\"a \"\"q\"\"\",1e30\nb,\n", 1, "k", "sum(v), count", "jsonl", 1).unwrap();
    let text = String::from_utf8(parts[0].bytes.clone()).unwrap();
    assert_eq!(text, "{\"k\":\"a \\\"q\\\"\",\"sum(v)\":1e30,\"count\":1}\n{\"k\":\"b\",\"sum(v)\":null,\"count\":1}\n");
    assert_eq!(parts[0].extension, "jsonl");
}

#[test]
fn sums_of_decimals_are_exact_whatever_the_order() {
    // In f64 the large numbers would swallow the small ones.
    let text = "k,v\na,100000000000000000\na,0.000000000000000001\na,-100000000000000000\na,0.1\na,0.2\n";
    for splits in [1, 2, 5] {
        assert_eq!(csv(text, splits, "k", "sum(v)").unwrap(), "k,sum(v)\na,0.300000000000000001\n");
    }
}

#[test]
fn numbers_of_more_digits_are_floats() {
    let text = "k,v\na,1e40\na,1\na,-1e40\na,12345678901234567890\nb,2\n";
    assert_eq!(csv(text, 1, "k", "min(v), max(v), count(v)").unwrap(), "k,min(v),max(v),count(v)\na,-1e40,1e40,4\nb,2,2,1\n");
    assert_eq!(csv("k,v\na,1e40\na,1\na,-1e40\n", 2, "k", "sum(v)").unwrap(), "k,sum(v)\na,1\n");
}

#[test]
fn what_is_wrong_with_the_input_is_named() {
    let say = |text: &str, aggregate: &str| csv(text, 1, "k", aggregate).unwrap_err();
    assert!(say("k,v\na,1\nb,x1\n", "sum(v)").contains("line 3 (byte 10 of the file), column 'v', is \"x1\", which is no number"));
    assert!(say("k,v\na,1\nb\n", "count").contains("line 3 (byte 8 of the file) has 1 cells and the table has 2 columns"));
    assert!(say("k,v\na,1\n", "sum(w)").contains("no column 'w'"));
    let large = format!("k,v\n{}a,0.000000000000000001\n", "a,999999999999999999\n".repeat(400));
    assert_eq!(say(&large, "sum(v)"), "the sum of column 'v' has more than 38 digits");
}

#[test]
fn a_damaged_block_is_refused() {
    let params = [("by", "k"), ("aggregate", "count, sum(v)")];
    let whole = {
        let kernel = prepare("group_by", &params, 1).unwrap();
        let text = b"k,v\na,1.5\nb,2\n";
        let table = Table::new(Arc::new(Format::Csv(CsvOptions::default())), bytes::Bytes::from_static(text), 0..text.len());
        kernel.run_cpu(&Task { number: 0, input: Input::Table(table) }).unwrap().blocks.remove(0)
    };
    assert!(reduce("merge_groups", &params, "csv", 1, &[&whole]).is_ok());
    for cut in 1..whole.len() {
        let _ = reduce("merge_groups", &params, "csv", 1, &[&whole[..cut]]);
        let mut other = whole.clone();
        other[cut] ^= 0x55;
        let _ = reduce("merge_groups", &params, "csv", 1, &[&other]);
    }
    assert!(reduce("merge_groups", &params, "csv", 1, &[b"\x01a\x01\x05"]).unwrap_err().to_string().contains("damaged"));
}

fn word(random: &mut Random, distinct: u64) -> String {
    let number = random.below(distinct);
    match number % 4 {
        0 => format!("w{number}"),
        1 => format!("a rather long key, number {number}"),
        2 => format!("twelve {number:05}"),
        _ => format!("k\u{e4}se\0{number}"),
    }
}

/// In hundredths: what the naive map adds up.
#[derive(Default)]
struct Naive {
    rows: u64,
    values: Vec<i64>,
}

#[test]
fn groups_are_those_of_a_naive_map() {
    let mut random = random("groups_are_those_of_a_naive_map");
    for (rows, distinct) in [(0, 1), (1, 1), (300, 5), (9000, 400), (30_000, 20_000)] {
        let mut naive: BTreeMap<(Vec<u8>, Vec<u8>), Naive> = BTreeMap::new();
        let mut text = "street,amount,city\n".to_owned();
        for _ in 0..rows {
            let (city, street) = (word(&mut random, distinct), word(&mut random, 3));
            let group = naive.entry((city.clone().into_bytes(), street.clone().into_bytes())).or_default();
            group.rows += 1;
            let amount = (random.below(5) > 0).then(|| random.below(200_000) as i64 - 100_000);
            group.values.extend(amount);
            let sign = if amount.is_some_and(|amount| amount < 0) { "-" } else { "" };
            let amount = amount.map_or(String::new(), |amount| {
                let size = amount.abs();
                if size % 100 == 0 { format!("{sign}{}", size / 100) } else { format!("{sign}{}.{:02}", size / 100, size % 100) }
            });
            text += &format!("\"{street}\",{amount},\"{city}\"\n");
        }
        let cell = |hundredths: Option<i64>| {
            hundredths.map_or(String::new(), |value| {
                let text = format!("{:.2}", value as f64 / 100.0);
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            })
        };
        let expected: Vec<Vec<String>> = naive
            .iter()
            .map(|((city, street), Naive { rows, values })| {
                let sum = (!values.is_empty()).then(|| values.iter().sum::<i64>());
                let key = [city, street].map(|cell| String::from_utf8(cell.clone()).unwrap());
                let rest = [rows.to_string(), cell(sum), cell(values.iter().min().copied()), cell(values.iter().max().copied())];
                key.into_iter().chain(rest).collect()
            })
            .collect();
        for (splits, partitions) in [(1, 1), (7, 1), (3, 4)] {
            let parts = groups(&text, splits, "city, street", "count, sum(amount), min(amount), max(amount)", "csv", partitions).unwrap();
            let mut found: Vec<Vec<String>> = Vec::new();
            for part in &parts {
                let mut reader = ::csv::Reader::from_reader(&part.bytes[..]);
                let rows: Vec<Vec<String>> = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
                assert!(rows.is_sorted_by_key(|row| (row[0].clone().into_bytes(), row[1].clone().into_bytes())));
                assert_eq!(rows.len() as u64, part.rows);
                found.extend(rows);
            }
            found.sort_by_key(|row| (row[0].clone().into_bytes(), row[1].clone().into_bytes()));
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn the_first_rows_shown_are_the_largest_groups() {
    let mut text = "k\n".to_owned();
    (0..40).for_each(|group| (0..=group % 7).for_each(|_| text += &format!("g{group:02}\n")));
    let part = &groups(&text, 3, "k", "count", "csv", 1).unwrap()[0];
    let shown: Vec<(&str, u64)> = part.preview.iter().map(|row| (row.cells[0].as_str(), row.weight)).collect();
    assert_eq!(shown.len(), PREVIEW_ROWS);
    assert_eq!(shown[..7], [("g06", 7), ("g13", 7), ("g20", 7), ("g27", 7), ("g34", 7), ("g05", 6), ("g12", 6)]);
}
