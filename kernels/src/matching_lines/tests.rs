use crate::api::*;
use crate::testing::{prepare, random, reduce};

fn block(path: &str, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let task = Task { number: 0, input: Input::PlacedText { path, offset, bytes } };
    prepare("grep", &[("pattern", "x")], 1).unwrap().run_cpu(&task).unwrap().blocks.remove(0)
}

#[test]
fn behind_a_split_that_is_missing_nobody_knows_the_number() {
    let [first, third, other] = [block("f", 0, b"x1\n"), block("f", 10, b"y\nx2\n"), block("g", 0, b"\nx3")];
    let part = reduce("matching_lines", &[], "txt", 1, &[&first, &third, &other]).unwrap();
    assert_eq!(String::from_utf8(part.bytes).unwrap(), "f:1:x1\nf:?:x2\ng:2:x3\n");
    assert_eq!(part.rows, 3);
    let part = reduce("matching_lines", &[], "txt", 1, &[&third]).unwrap();
    assert_eq!(String::from_utf8(part.bytes).unwrap(), "f:?:x2\n", "the first split is missing");
}

#[test]
fn the_preview_is_sorted_by_file_and_number() {
    let compare = |a: [&str; 3], b: [&str; 3]| {
        crate::find("matching_lines").unwrap().compare_preview(&Params::new(), &a.map(str::to_owned), &b.map(str::to_owned))
    };
    assert!(compare(["f", "9", ""], ["f", "10", ""]).is_lt());
    assert!(compare(["f", "9", ""], ["g", "1", ""]).is_lt());
}

#[test]
fn damaged_blocks_are_errors() {
    let good = block("some/path", 0, b"x\n\nx and more\nx");
    for length in 1..good.len() {
        assert!(reduce("matching_lines", &[], "txt", 1, &[&good[..length]]).is_err(), "cut to {length} bytes");
    }
    let mut random = random("matching_lines");
    for _ in 0..5_000 {
        let mut bytes = good.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        // Whatever comes out, it is an answer.
        let _ = reduce("matching_lines", &[], "txt", 1, &[&bytes]);
    }
}

/// Many pieces, of lines short and long, and of two files in one partition.
#[test]
fn what_threads_write_side_by_side_stands_in_order() {
    let mut random = random("what_threads_write_side_by_side_stands_in_order");
    let mut line = |at: u64| match random.below(2000) {
        0 => format!("x{at}{}\n", "long".repeat(random.below(100_000) as usize)),
        below if below < 900 => "no\n".repeat(1 + below as usize % 3),
        _ => format!("x{at}\n"),
    };
    let texts: [String; 2] = std::array::from_fn(|_| (0..200_000).map(&mut line).collect());
    let mut blocks = Vec::new();
    for (path, text) in ["f", "a longer name"].into_iter().zip(&texts) {
        let half = text[..text.len() / 2].rfind('\n').unwrap() + 1;
        blocks.extend([block(path, 0, &text.as_bytes()[..half]), block(path, half as u64, &text.as_bytes()[half..])]);
    }
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    let part = reduce("matching_lines", &[], "txt", 1, &blocks).unwrap();
    let numbered = |(path, text): (&str, &String)| {
        let lines = text.lines().enumerate().filter(|(_, line)| line.contains('x'));
        lines.map(|(at, line)| format!("{path}:{}:{line}\n", at + 1)).collect::<String>()
    };
    let expected: String = ["f", "a longer name"].into_iter().zip(&texts).map(numbered).collect();
    assert!(part.bytes == expected.as_bytes(), "the lines are not in order");
    assert_eq!(part.rows, expected.lines().count() as u64);
}

#[test]
fn numbers_are_written_as_everywhere() {
    for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX - 1, u64::MAX] {
        assert_eq!(super::decimal(number, &mut [0; 20]), number.to_string().as_bytes());
    }
}
