use super::*;
use crate::run::push_record;
use crate::testing::params;

fn block(records: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|(key, lines)| push_record(&mut bytes, key.as_bytes(), lines.as_bytes()));
    bytes
}

fn join(pairs: &[(&str, &str)], left: &[Vec<u8>], right: &[Vec<u8>]) -> Result<TaskOutput, String> {
    let stage = StageContext { params: params(pairs), tasks: 1, format: "csv".into(), ..StageContext::default() };
    let prepared = Join.prepare(&stage).map_err(|error| error.to_string())?;
    let blocks = |of: &'static [Vec<u8>]| of.iter().enumerate().map(|(task, bytes)| Block { task: task as u64, bytes }).collect();
    // Tests are short: what they leak goes with the process.
    let (left, right): (&'static [_], &'static [_]) = (left.to_vec().leak(), right.to_vec().leak());
    prepared
        .run_cpu(&Task { number: 0, input: Input::Joined { left: blocks(left), right: blocks(right) } })
        .map_err(|error| error.to_string())
}

fn rows(pairs: &[(&str, &str)], left: &[Vec<u8>], right: &[Vec<u8>]) -> String {
    String::from_utf8(join(pairs, left, right).unwrap().part.unwrap().bytes).unwrap()
}

#[test]
fn inner_left_and_full_differ_in_the_keys_of_one_side_only() {
    let left = [block(&[("a", "1"), ("b", "2")])];
    let right = [block(&[("b", "20"), ("c", "30")])];
    assert_eq!(rows(&[], &left, &right), "key,left,right\nb,2,20\n");
    assert_eq!(rows(&[("kind", "left"), ("missing_right", "0")], &left, &right), "key,left,right\na,1,0\nb,2,20\n");
    let full = [("kind", "full"), ("missing_left", "-"), ("missing_right", "0"), ("columns", "k,l,r")];
    assert_eq!(rows(&full, &left, &right), "k,l,r\na,1,0\nb,2,20\nc,-,30\n");
    assert_eq!(join(&full, &left, &right).unwrap().tallies, [3, 1, 1, 1]);
    assert_eq!(join(&[], &left, &right).unwrap().tallies, [1, 1, 1, 1], "keys are counted whether they give rows or not");
}

#[test]
fn equal_keys_give_every_pair_in_the_order_of_left_then_right() {
    // Two lines of task 0 and one of task 1 on the left; one of each task on the right.
    let left = [block(&[("k", "l0\nl1")]), block(&[("k", "l2")])];
    let right = [block(&[("k", "r0")]), block(&[("k", "r1")])];
    let expected = "key,left,right\nk,l0,r0\nk,l0,r1\nk,l1,r0\nk,l1,r1\nk,l2,r0\nk,l2,r1\n";
    assert_eq!(rows(&[], &left, &right), expected);
}

#[test]
fn keys_are_written_as_csv_and_an_empty_side_is_no_error() {
    let left = [block(&[("a,\"b", "1")]), Vec::new()];
    assert_eq!(rows(&[("kind", "left")], &left, &[]), "key,left,right\n\"a,\"\"b\",1,\n");
    assert_eq!(rows(&[("kind", "full")], &[], &[]), "key,left,right\n");
    // A key whose lines have no other column has one empty line.
    assert_eq!(rows(&[], &[block(&[("a", "")])], &[block(&[("a", "")])]), "key,left,right\na,,\n");
}

#[test]
fn a_part_that_would_be_too_large_names_the_key() {
    let prepared = PreparedJoin { kind: JoinKind::Inner, columns: "key".into(), missing: [Vec::new(), Vec::new()], limit: 1000 };
    let lines = vec!["x"; 100].join("\n");
    let side = block(&[("hot", &lines)]);
    let blocks = || vec![Block { task: 0, bytes: &side }];
    let error = prepared.run_cpu(&Task { number: 0, input: Input::Joined { left: blocks(), right: blocks() } }).unwrap_err().to_string();
    assert!(error.contains("larger than 1000 bytes: key 'hot' joins 100 lines with 100"), "{error}");
}

#[test]
fn damaged_runs_and_other_input_are_refused() {
    let damaged = [vec![200, 1, 2]];
    assert!(join(&[], &damaged, &[]).unwrap_err().contains("damaged"));
    let falling = [block(&[("b", "1"), ("a", "2")])];
    assert!(join(&[], &[], &falling).unwrap_err().contains("its keys do not rise"));
    let prepared = Join.prepare(&StageContext::default()).unwrap();
    let error = prepared.run_cpu(&Task { number: 0, input: Input::Blocks(Vec::new()) }).unwrap_err();
    assert!(error.to_string().contains("two stages"), "{error}");
    assert!(join(&[("columns", "a\nb")], &[], &[]).unwrap_err().contains("'columns' must be one line"));
}

#[test]
fn the_preview_has_the_first_keys() {
    let many: Vec<(String, String)> = (0..50).map(|n| (format!("{n:02}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let part = join(&[("columns", "word,a,b")], &[block(&many)], &[block(&many)]).unwrap().part.unwrap();
    assert_eq!((part.rows, part.preview.len()), (50, PREVIEW_ROWS));
    assert_eq!((part.columns.join("|"), part.preview[3].cells.join("|")), ("word|a|b".into(), "03|v|v".into()));
}
