//! A text whose counts are known, and the job that counts them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Text whose lines differ in length, some longer than a split, with its counts by a plain loop.
pub fn write_text(dir: &Path) -> BTreeMap<Vec<u8>, u64> {
    std::fs::create_dir_all(dir).expect("an input directory");
    let mut counts = BTreeMap::new();
    for file in 0..3u64 {
        let mut out = std::io::BufWriter::new(std::fs::File::create(dir.join(format!("text-{file}.txt"))).expect("an input file"));
        for line in 0..4000u64 {
            let words = if line % 500 == 7 { 2000 } else { line % 17 };
            for word in 0..words {
                let token = format!("w{}", (line * 31 + word * word + file) % 997).into_bytes();
                out.write_all(&token).expect("written");
                out.write_all(if word % 5 == 0 { b"\t" } else { b"  " }).expect("written");
                *counts.entry(token).or_insert(0) += 1;
            }
            // Not UTF-8, and a carriage return.
            out.write_all(b"\xff\xfe\r\n").expect("written");
            *counts.entry(b"\xff\xfe".to_vec()).or_insert(0) += 1;
        }
    }
    counts
}

pub fn word_count(input: &Path, output: &Path, partitions: u32) -> String {
    format!(
        "[job]\nname = \"words\"\n[input]\nfiles = [\"{}/*.txt\"]\nsplit = \"4KiB\"\n[map]\nkernel = \"word_count\"\n[reduce]\nkernel = \"sum_by_key\"\npartitions = {partitions}\n[output]\npath = \"{}\"\nformat = \"csv\"\n",
        input.display(),
        output.display()
    )
}

pub fn expected_rows(counts: &BTreeMap<Vec<u8>, u64>) -> Vec<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = counts.iter().map(|(word, n)| [word.as_slice(), b",", n.to_string().as_bytes()].concat()).collect();
    rows.sort();
    rows
}
