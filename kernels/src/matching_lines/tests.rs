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
