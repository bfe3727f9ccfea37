use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use crate::api::*;
use crate::testing::{Random, params, random, reduce};

/// What a job writes: the blocks of all splits, reduced in one partition.
fn job(files: &[(&str, Vec<&[u8]>)], options: &[(&str, &str)]) -> Result<(String, Vec<u64>), KernelError> {
    let stage = StageContext { params: params(options), tasks: 1, partitions: 1, ..StageContext::default() };
    let grep = crate::find("grep")?.prepare(&stage)?;
    let (mut blocks, mut tallies) = (Vec::new(), vec![0; 3]);
    for (path, splits) in files {
        let mut offset = 0;
        for bytes in splits {
            let output = grep.run_cpu(&Task { number: blocks.len() as u64, input: Input::PlacedText { path, offset, bytes } })?;
            tallies.iter_mut().zip(output.tallies).for_each(|(sum, tally)| *sum += tally);
            blocks.extend(output.blocks);
            offset += bytes.len() as u64;
        }
    }
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    let part = reduce("matching_lines", &[], "txt", 1, &blocks)?;
    assert_eq!(part.rows, tallies[1]);
    Ok((String::from_utf8_lossy(&part.bytes).into_owned(), tallies))
}

/// Each line by itself, with the expression as it was written.
fn naive(path: &str, text: &[u8], pattern: &str, ignore_case: bool, invert: bool) -> String {
    let config = syntax::Config::new().utf8(false).case_insensitive(ignore_case);
    let regex = Regex::builder().configure(Regex::config().utf8_empty(false)).syntax(config).build(pattern).unwrap();
    let lines = text.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    let wanted = lines.enumerate().filter(|(_, line)| regex.is_match(line) != invert);
    wanted.map(|(number, line)| format!("{path}:{}:{}\n", number + 1, String::from_utf8_lossy(line))).collect()
}

/// Cut behind newlines, as the executor cuts.
fn cut<'a>(random: &mut Random, mut text: &'a [u8]) -> Vec<&'a [u8]> {
    let mut splits = Vec::new();
    while !text.is_empty() {
        let at = random.below(text.len() as u64) as usize;
        let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |newline| at + newline + 1);
        splits.push(&text[..end]);
        // A line longer than a split leaves an empty one.
        if random.below(4) == 0 {
            splits.push(&[]);
        }
        text = &text[end..];
    }
    splits
}

const PATTERNS: [&str; 22] = [
    "a",
    "ab",
    "^a",
    "b$",
    "^$",
    "",
    "a*",
    "[^a]*b",
    "[^a]",
    "a.b",
    r"a\sb",
    r"a[\s\S]*b",
    r"\Aa",
    r"b\z",
    r"\bab\b",
    "a|b|",
    "(a|b)+c",
    r"\x0a",
    "a\nb",
    r"(?-u)\xff",
    "é",
    r"^\S+\s*$",
];

#[test]
fn the_same_lines_as_one_by_one_however_the_text_is_cut() {
    let mut random = random("grep");
    for _ in 0..400 {
        let pattern = PATTERNS[random.below(PATTERNS.len() as u64) as usize];
        let letters: [&[u8]; 9] = [b"a", b"b", b"c", b"\n", b"\n", b" ", b"\r", b"\xff", "é".as_bytes()];
        let text: Vec<u8> = (0..random.below(60)).flat_map(|_| letters[random.below(9) as usize].to_vec()).collect();
        let (ignore_case, invert) = (random.below(2) == 0, random.below(2) == 0);
        let yes = |yes| if yes { "yes" } else { "no" };
        let options = [("pattern", pattern), ("ignore_case", yes(ignore_case)), ("invert", yes(invert))];
        let splits = cut(&mut random, &text);
        let (found, tallies) = job(&[("f", splits.clone()), ("g", splits)], &options).unwrap();
        let expected = ["f", "g"].map(|path| naive(path, &text, pattern, ignore_case, invert)).concat();
        assert_eq!(found, expected, "pattern {pattern:?}, invert {invert}, in {:?}", String::from_utf8_lossy(&text));
        let lines = text.split_inclusive(|byte| *byte == b'\n').count() as u64;
        assert_eq!(tallies, [2 * lines, expected_lines(&found), 2 * text.len() as u64]);
    }
}

fn expected_lines(found: &str) -> u64 {
    found.matches('\n').count() as u64
}

/// Lines are searched in pieces of 128 KiB.
#[test]
fn long_texts_are_numbered_across_pieces() {
    let text: String = (0..60_000).map(|line| if line % 7_001 == 0 { "a needle here\n" } else { "some hay\n" }).collect();
    let (found, _) = job(&[("f", vec![text.as_bytes()])], &[("pattern", "needle")]).unwrap();
    assert_eq!(found, naive("f", text.as_bytes(), "needle", false, false));
    assert!(found.starts_with("f:1:a needle here\nf:7002:"), "{found}");
    let long = [vec![b'x'; 300 << 10], b"needle".to_vec()].concat();
    assert_eq!(job(&[("f", vec![&long])], &[("pattern", "needle$")]).unwrap().1, [1, 1, long.len() as u64]);
}

#[test]
fn a_literal_pattern_has_no_special_letters() {
    let text = b"a.b\nacb\n(\n";
    let found = |pattern| job(&[("f", vec![text])], &[("pattern", pattern), ("literal", "yes")]).unwrap().0;
    assert_eq!(found("a.b"), "f:1:a.b\n");
    assert_eq!(found("("), "f:3:(\n");
    assert_eq!(found("b\na"), "", "no line holds a newline");
}

#[test]
fn what_is_no_expression_or_too_large_is_refused_by_name() {
    for (pattern, reason) in [("(", "unclosed group"), ("[a", "unclosed character class"), (r"(\w{1000}){1000}", "")] {
        let error = job(&[], &[("pattern", pattern)]).unwrap_err().to_string();
        assert!(error.starts_with("kernel 'grep': parameter 'pattern' cannot be used: ") && error.contains(reason), "{error}");
    }
    assert!(job(&[], &[]).unwrap_err().to_string().contains("parameter 'pattern' is required"));
}
