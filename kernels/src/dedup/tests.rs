use std::collections::BTreeSet;

use crate::api::*;
use crate::testing::{prepare, random, reduce};

/// Lines, lines left out in map tasks, and the parts of all partitions.
fn job(splits: &[&str], options: &[(&str, &str)], partitions: u32) -> Result<(u64, u64, Vec<Part>), String> {
    let kernel = prepare("dedup", options, partitions).map_err(|error| error.to_string())?;
    let (mut lines, mut repeated, mut blocks) = (0, 0, vec![Vec::new(); partitions as usize]);
    for (number, text) in splits.iter().enumerate() {
        let task = Task { number: number as u64, input: Input::Text(text.as_bytes()) };
        let output = kernel.run_cpu(&task).map_err(|error| error.to_string())?;
        lines += output.tallies[0];
        repeated += output.tallies[1];
        blocks.iter_mut().zip(output.blocks).for_each(|(all, block)| all.push(block));
    }
    let part = |blocks: &Vec<Vec<u8>>| {
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        reduce("first_lines", &[], "txt", partitions.into(), &blocks).map_err(|error| error.to_string())
    };
    Ok((lines, repeated, blocks.iter().map(part).collect::<Result<_, _>>()?))
}

fn text(splits: &[&str], options: &[(&str, &str)]) -> Result<String, String> {
    let (_, _, parts) = job(splits, options, 1)?;
    Ok(String::from_utf8(parts[0].bytes.clone()).unwrap())
}

#[test]
fn of_whole_lines_one_stays_whatever_ends_it() {
    assert_eq!(text(&["b\na\r\nb\n\n", "a\nc\n\nb"], &[]).unwrap(), "\na\nb\nc\n");
    assert_eq!(text(&[], &[]).unwrap(), "");
    let (lines, repeated, parts) = job(&["b\na\nb\n", "b\n"], &[], 1).unwrap();
    assert_eq!((lines, repeated, parts[0].rows), (4, 1, 2));
}

#[test]
fn of_a_column_the_first_line_stays_also_if_its_key_is_quoted() {
    let column = [("column", "2")];
    assert_eq!(text(&["1,x\n2,y\n3,x\n\n", "4,y\n5,z\n"], &column).unwrap(), "1,x\n2,y\n5,z\n");
    // The same key, written in three ways.
    assert_eq!(text(&["1,\"a\"\"b\"\n2,\"a\"\"b\"\n", "0,\"a\"\"b\"\n"], &column).unwrap(), "1,\"a\"\"b\"\n");
    assert_eq!(text(&["1,\"x\"\n2,x\n"], &column).unwrap(), "1,\"x\"\n");
    assert_eq!(text(&["1\tx\n2\tx\n"], &[("column", "2"), ("separator", "tab")]).unwrap(), "1\tx\n");
    let error = text(&["1,x\nlonely\n"], &column).unwrap_err();
    assert!(error.contains("line 'lonely': it has 1 column, and the key is in column 2"), "{error}");
}

/// Keys with a quotation mark inside are made, others borrowed: the order between the two must be that of the text.
#[test]
fn an_earlier_line_wins_over_a_later_one_however_its_key_was_read() {
    let doubled = "1,\"q\"\"\"\n"; // its key is q"
    let plain = "2,q\"\n"; // and so is this one's
    assert_eq!(text(&[&format!("{doubled}{plain}")], &[("column", "2")]).unwrap(), doubled);
    assert_eq!(text(&[&format!("{plain}{doubled}")], &[("column", "2")]).unwrap(), plain);
}

#[test]
fn the_lines_are_those_of_a_set() {
    let mut random = random("the_lines_are_those_of_a_set");
    for _ in 0..30 {
        let lines: Vec<String> = (0..random.below(400)).map(|_| format!("{:x}", random.below(60))).collect();
        let cut = random.below(lines.len() as u64 + 1) as usize;
        let joined = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let (count, _, parts) = job(&[&joined(&lines[..cut]), &joined(&lines[cut..])], &[], 3).unwrap();
        assert_eq!(count, lines.len() as u64);
        let found: Vec<String> =
            parts.iter().flat_map(|part| String::from_utf8_lossy(&part.bytes).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let expected: BTreeSet<&String> = lines.iter().collect();
        assert_eq!(found.len(), expected.len());
        assert_eq!(found.iter().collect::<BTreeSet<_>>(), expected);
    }
}
