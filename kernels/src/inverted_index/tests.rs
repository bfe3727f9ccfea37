use std::collections::BTreeMap;

use crate::api::*;
use crate::testing::{prepare, random, reduce};

/// What a job writes: splits of files, in the order of the input.
fn index(splits: &[(&str, &[u8])], options: &[(&str, &str)], format: &str, partitions: u32) -> Vec<Part> {
    let kernel = prepare("inverted_index", options, partitions).unwrap();
    let mut blocks = vec![Vec::new(); partitions as usize];
    for (number, (path, bytes)) in splits.iter().enumerate() {
        let output = kernel.run_cpu(&Task { number: number as u64, input: Input::PlacedText { path, offset: 0, bytes } }).unwrap();
        blocks.iter_mut().zip(output.blocks).for_each(|(all, block)| all.push(block));
    }
    let part = |blocks: &Vec<Vec<u8>>| {
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        reduce("merge_postings", &[], format, partitions.into(), &blocks).unwrap()
    };
    blocks.iter().map(part).collect()
}

fn text(splits: &[(&str, &[u8])], options: &[(&str, &str)], format: &str) -> String {
    String::from_utf8(index(splits, options, format, 1)[0].bytes.clone()).unwrap()
}

#[test]
fn words_have_their_files_in_the_order_of_the_input() {
    let splits: [(&str, &[u8]); 4] = [("z.txt", b"one two\n"), ("z.txt", b"two\n"), ("a,b.txt", b"two TWO-three"), ("empty", b"")];
    let rows = "word,file,count\nTWO-three,\"a,b.txt\",1\none,z.txt,1\ntwo,z.txt,2\ntwo,\"a,b.txt\",1\n";
    assert_eq!(text(&splits, &[], "csv"), rows);
    let folded = [("words", "letters"), ("ignore_case", "yes")];
    let lines = "{\"word\":\"one\",\"files\":[{\"file\":\"z.txt\",\"count\":1}]}\n{\"word\":\"three\",\"files\":[{\"file\":\"a,b.txt\",\"count\":1}]}\n\
        {\"word\":\"two\",\"files\":[{\"file\":\"z.txt\",\"count\":2},{\"file\":\"a,b.txt\",\"count\":2}]}\n";
    assert_eq!(text(&splits, &folded, "jsonl"), lines);
    assert_eq!(text(&[], &[], "csv"), "word,file,count\n");
}

#[test]
fn words_of_other_scripts_stay_whole() {
    assert_eq!(
        text(&[("t", "Größe,größe; x_1".as_bytes())], &[("words", "letters")], "csv"),
        "word,file,count\n1,t,1\nGröße,t,1\ngröße,t,1\nx,t,1\n"
    );
}

#[test]
fn the_preview_has_the_largest_counts_of_all_parts() {
    let many: String = (0..60).flat_map(|n| std::iter::repeat_n(format!("w{n:02} "), n + 1)).collect();
    let part = &index(&[("f", many.as_bytes())], &[], "csv", 1)[0];
    assert_eq!((part.rows, part.preview.len()), (60, PREVIEW_ROWS));
    assert_eq!(part.preview[0].cells, ["w59", "f", "60"]);
    assert_eq!((part.preview[19].cells[0].as_str(), part.preview[19].weight), ("w40", 41));
}

#[test]
fn a_block_that_is_none_of_its_map_kernel_is_refused() {
    let error = |blocks: &[&[u8]]| reduce("merge_postings", &[], "csv", 1, blocks).unwrap_err().to_string();
    assert!(error(&[b"\x01a\x01\x05"]).contains("does not begin with the name of its file"));
    assert!(error(&[b"\x00\x01f\x01a\x01\x80"]).contains("not a count"));
    assert!(error(&[b"\x07"]).contains("no whole record"));
}

#[test]
fn counts_are_those_of_a_plain_loop_however_files_are_cut() {
    let mut random = random("counts_are_those_of_a_plain_loop_however_files_are_cut");
    for _ in 0..20 {
        let files: Vec<(String, Vec<String>)> =
            (0..4).map(|n| (format!("f{n}"), (0..random.below(200)).map(|_| format!("w{}", random.below(30))).collect())).collect();
        let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut splits = Vec::new();
        for (path, words) in &files {
            words.iter().for_each(|word| *expected.entry((word.clone(), path.clone())).or_default() += 1);
            let cut = random.below(words.len() as u64 + 1) as usize;
            splits.push((path.as_str(), words[..cut].join("\n")));
            splits.push((path.as_str(), words[cut..].join(" ")));
        }
        let splits: Vec<(&str, &[u8])> = splits.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        let mut found = BTreeMap::new();
        for part in index(&splits, &[], "csv", 5) {
            for row in String::from_utf8(part.bytes).unwrap().lines().skip(1) {
                let [word, file, count] = <[&str; 3]>::try_from(row.split(',').collect::<Vec<_>>()).unwrap();
                assert!(found.insert((word.to_owned(), file.to_owned()), count.parse::<u64>().unwrap()).is_none(), "{row} came twice");
            }
        }
        assert_eq!(found, expected);
    }
}
