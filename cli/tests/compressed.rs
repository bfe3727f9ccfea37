//! Jobs over compressed files, as a script sees them. The files are made by the encoders of other people's crates.

mod home;

use home::{Home, assert_exit, stderr};
use std::io::Write;
use std::process::Output;

const WORDS: &str = "[input]\nfiles = [\"in/*\"]\nsplit = \"1KiB\"\n\n[map]\nkernel = \"word_count\"\n\n[output]\npath = \"out\"\nif_exists = \"replace\"\n";
const TABLE: &str = "[input]\nfiles = [\"in/*\"]\nquoted_newlines = false\nsplit = \"1KiB\"\n\n[map]\nkernel = \"group_by\"\n\n[map.params]\nby = \"city\"\n\
                     aggregate = \"count, sum(amount)\"\n\n[output]\npath = \"out\"\nif_exists = \"replace\"\n";

fn run(home: &Home, more: &[&str]) -> Output {
    home.run(&[&["run", "job.toml", "--no-gpu", "--cpus", "2"], more].concat())
}

fn part(home: &Home) -> String {
    std::fs::read_to_string(home.path().join("out/part-00000.csv")).expect("a part")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    // As the command line tool does it.
    encoder.include_checksum(true).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A fresh directory of input files.
fn files(home: &Home, files: &[(&str, &[u8])]) {
    let dir = home.path().join("in");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir(&dir).unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).unwrap());
}

fn text(lines: usize) -> Vec<u8> {
    let word = |at: usize| ["river", "stone", "cloud", "fox", "lantern"][at * at % 5];
    (0..lines).flat_map(|at| format!("{} {} {}\n", word(at), word(at + 1), word(at * 7)).into_bytes()).collect()
}

#[test]
fn compressed_text_is_read_like_the_text_that_it_holds() {
    let home = Home::new();
    home.write("job.toml", WORDS);
    let whole = text(9000);
    let (one, rest) = whole.split_at(whole.len() / 3);
    let (two, three) = rest.split_at(rest.len() / 2);
    files(&home, &[("a.txt", &whole)]);
    assert_exit(&run(&home, &[]), 0);
    let plain = part(&home);
    // Cut in the middle of words, which come together again: members and frames are one file.
    files(&home, &[("a.gz", &[gzip(one), gzip(b""), gzip(two), gzip(three)].concat())]);
    assert_exit(&run(&home, &[]), 0);
    assert_eq!(part(&home), plain);
    files(&home, &[("a.txt.zst", &[zstd(one), zstd(two), zstd(three)].concat())]);
    assert_exit(&run(&home, &[]), 0);
    assert_eq!(part(&home), plain);
    // Without a telling name, if the job says so; and beside plain files.
    files(&home, &[("a", &gzip(&whole))]);
    assert_exit(&run(&home, &["--set", "input.compression=gzip"]), 0);
    assert_eq!(part(&home), plain);
    files(&home, &[("a.gz", &gzip(&whole)), ("b.txt", b"fox\n"), ("c.zst", &zstd(&whole))]);
    assert_exit(&run(&home, &[]), 0);
    let count = |table: &str, word: &str| -> u64 {
        let line = table.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(',')).expect("the word");
        line.parse().unwrap()
    };
    assert_eq!((count(&part(&home), "fox"), count(&part(&home), "stone")), (1, 2 * count(&plain, "stone")));
    // More than is kept in memory: it goes through a file, of which nothing is left.
    let large = text(700_000);
    assert!(large.len() > 9 << 20, "{}", large.len());
    files(&home, &[("a.gz", &gzip(&large))]);
    assert_exit(&run(&home, &[]), 0);
    let counted: u64 = part(&home).lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, 3 * 700_000);
}

#[test]
fn compressed_tables_sorted_lines_and_found_lines_are_those_of_the_plain_file() {
    let home = Home::new();
    let mut csv = b"city,amount\n".to_vec();
    (0..5000).for_each(|row| csv.extend(format!("{},{}.{:02}\n", ["Oslo", "Lyon", "Roma"][row % 3], row % 50, row % 100).bytes()));
    let jobs = [
        TABLE.to_owned(),
        WORDS.replace("word_count", "sort"),
        WORDS.replace("kernel = \"word_count\"\n", "kernel = \"grep\"\n\n[map.params]\npattern = \"Lyon,.*7$\"\n"),
    ];
    for job in jobs {
        home.write("job.toml", &job);
        let result = |name: &str, bytes: &[u8]| {
            files(&home, &[(name, bytes)]);
            let output = run(&home, &[]);
            assert_exit(&output, 0);
            let manifest = std::fs::read_to_string(home.path().join("out/manifest.json")).unwrap();
            let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
            let name = manifest["parts"][0]["name"].as_str().unwrap().to_owned();
            std::fs::read_to_string(home.path().join("out").join(name)).unwrap()
        };
        // The name is in what `grep` writes.
        let renamed = |text: String, name: &str| text.replace(name, "x");
        let plain = renamed(result("x.csv", &csv), "x.csv");
        assert!(plain.lines().count() > 2, "{plain}");
        assert_eq!(renamed(result("x.csv.gz", &gzip(&csv)), "x.csv.gz"), plain, "{job}");
        assert_eq!(renamed(result("x.csv.zst", &zstd(&csv)), "x.csv.zst"), plain, "{job}");
    }
}

#[test]
fn a_damaged_file_fails_the_job_once_and_is_named_with_the_place() {
    let home = Home::new();
    home.write("job.toml", WORDS);
    let whole = text(3000);
    let said = |name: &str, bytes: &[u8], code: i32, more: &[&str]| {
        files(&home, &[("good.txt", b"fox\n"), (name, bytes)]);
        let output = run(&home, more);
        assert_exit(&output, code);
        assert!(!home.path().join("out").exists());
        stderr(&output)
    };
    for (name, packed) in [("bad.gz", gzip(&whole)), ("bad.zst", zstd(&whole))] {
        let cut = said(name, &packed[..packed.len() / 2], 3, &[]);
        assert!(cut.contains(name) && cut.contains("was cut off at byte") && !cut.contains("attempts"), "{cut}");
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle..middle + 4].iter_mut().for_each(|byte| *byte ^= 0x5a);
        flipped.truncate(packed.len());
        let bad = said(name, &flipped, 3, &[]);
        assert!(bad.contains(name) && bad.contains("at byte"), "{bad}");
    }
    // A name that promises what the file does not keep, before anything runs.
    for (name, bytes) in [("plain.gz", &b"text\n"[..]), ("empty.zst", b"")] {
        let refused = said(name, bytes, 2, &[]);
        assert!(refused.contains(name) && refused.contains("write compression = \"none\""), "{refused}");
    }
    files(&home, &[("plain.gz", b"text\n")]);
    assert_exit(&run(&home, &["--set", "input.compression=none"]), 0);
    assert_eq!(part(&home), "word,count\ntext,1\n");
    let refused = stderr(&run(&home, &["--set", "input.compression=lz4"]));
    assert!(refused.contains("compression must be one of \"gzip\", \"zstd\", \"none\", not \"lz4\""), "{refused}");
}
