use super::*;
use crate::run::Reader;
use crate::testing::{params, random};

type Runs = Vec<Vec<(String, String)>>;

fn run(pairs: &[(&str, &str)], partitions: u32, text: &str) -> Result<(Vec<u64>, Runs), String> {
    let stage = StageContext { params: params(pairs), tasks: 1, partitions, ..StageContext::default() };
    let prepared = KeyLines.prepare(&stage).map_err(|error| error.to_string())?;
    let output = prepared.run_cpu(&Task { number: 0, input: Input::Text(text.as_bytes()) }).map_err(|error| error.to_string())?;
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let records = |block: &Vec<u8>| Reader::new(block).map(|r| r.unwrap()).map(|r| (string(r.key), string(r.value))).collect();
    Ok((output.tallies, output.blocks.iter().map(records).collect()))
}

fn one(pairs: &[(&str, &str)], text: &str) -> Vec<(String, String)> {
    run(pairs, 1, text).unwrap().1.remove(0)
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn lines_of_one_key_follow_each_other_in_the_order_of_the_input() {
    let text = "b,1\na,2\r\n\nb,0\na,1";
    assert_eq!(one(&[], text), pairs(&[("a", "a,2\na,1"), ("b", "b,1\nb,0")]));
    assert_eq!(run(&[], 1, text).unwrap().0, [4, 0]);
    assert_eq!(one(&[], ""), pairs(&[]));
}

#[test]
fn the_key_may_be_any_column_and_the_rest_is_what_stands_beside_it() {
    let rest = |column: &str, text: &str| one(&[("column", column), ("value", "rest")], text);
    assert_eq!(rest("1", "a,1,x\n"), pairs(&[("a", "1,x")]));
    assert_eq!(rest("2", "a,1,x\n"), pairs(&[("1", "a,x")]));
    assert_eq!(rest("3", "a,1,x\n"), pairs(&[("x", "a,1")]));
    assert_eq!(rest("1", "alone\n"), pairs(&[("alone", "")]));
    assert_eq!(rest("2", ",\n"), pairs(&[("", "")]));
}

#[test]
fn quotation_marks_are_of_csv_alone() {
    let text = "\"a,\"\"b\"\"\",1\n\"\",2\n";
    assert_eq!(one(&[("value", "rest")], text), pairs(&[("", "2"), ("a,\"b\"", "1")]));
    assert_eq!(one(&[], text)[1].1, "\"a,\"\"b\"\"\",1", "the line stays as it is");
    let tabs = [("separator", "tab")];
    assert_eq!(one(&tabs, "\"a\t1,5\n"), pairs(&[("\"a", "\"\"\"a\",\"1,5\"")]), "written as CSV, whatever it was");
    assert_eq!(one(&[("separator", "bar"), ("value", "rest"), ("column", "2")], "x|k|y\n"), pairs(&[("k", "x,y")]));
}

#[test]
fn headings_are_left_out_wherever_they_stand() {
    let (tallies, runs) = run(&[("heading", "word,count")], 1, "word,count\na,1\nword,count\nword,counts\n").unwrap();
    assert_eq!((tallies, runs[0].clone()), (vec![2, 2], pairs(&[("a", "a,1"), ("word", "word,counts")])));
}

#[test]
fn bad_lines_are_named() {
    let refusal = |given: &[(&str, &str)], text: &str| run(given, 1, text).unwrap_err();
    assert_eq!(refusal(&[("column", "3")], "a,b\n"), "line 'a,b': it has 2 columns, and the key is in column 3");
    assert_eq!(refusal(&[("column", "2")], "a\n"), "line 'a': it has 1 column, and the key is in column 2");
    assert!(refusal(&[], "\"a\n").contains("a quotation mark is not closed on its line"));
    assert!(refusal(&[], "\"a\"b,c\n").contains("behind the quoted column 1 stands something else"));
    assert!(refusal(&[("column", "9")], &"x".repeat(1000)).len() < 200);
    assert!(refusal(&[("column", "0")], "a\n").contains("outside 1..="));
}

#[test]
fn every_line_is_in_the_partition_of_its_key_and_nothing_panics() {
    let mut random = random("every_line_is_in_the_partition_of_its_key_and_nothing_panics");
    for _ in 0..300 {
        let length = random.below(60);
        let text: String = (0..length).map(|_| ['a', 'b', ',', '"', '\n', '\r', ';', 'é'][random.below(8) as usize]).collect();
        let separator = ["comma", "semicolon", "space"][random.below(3) as usize];
        let value = ["line", "rest"][random.below(2) as usize];
        let Ok((tallies, runs)) = run(&[("separator", separator), ("value", value)], 5, &text) else { continue };
        let mut lines = 0;
        for (partition, run) in runs.iter().enumerate() {
            for (key, value) in run {
                assert_eq!(key::partition(key.as_bytes(), 5) as usize, partition);
                lines += value.split('\n').count() as u64;
            }
        }
        assert_eq!(lines, tallies[0], "{text:?}");
    }
}
