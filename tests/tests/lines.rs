//! Kernels that work line by line give on a cluster what a plain loop gives here, however the input is cut and shared out.

use raftwerk_tests::cluster::Cluster;
use std::{collections::BTreeMap, fs, path::Path};

/// Three files of short lines, many of them equal.
fn write_files(dir: &Path) -> Vec<(String, String)> {
    fs::create_dir(dir).expect("a directory");
    let content =
        |file: usize| (0..1_500 + file * 700).map(|line| format!("{} word{} of {}\n", line * 7 % 501, line % 40, file)).collect::<String>();
    let write = |file: usize| {
        let path = dir.join(format!("{file}.txt"));
        fs::write(&path, content(file)).expect("the file is written");
        (path.display().to_string(), content(file))
    };
    (0..3).map(write).collect()
}

fn parts(output: &Path) -> String {
    let mut names: Vec<_> = fs::read_dir(output).expect("an output").map(|entry| entry.expect("an entry").path()).collect();
    names.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part-")));
    names.sort();
    names.iter().map(|path| fs::read_to_string(path).expect("a part")).collect()
}

#[test]
fn distinct_lines_samples_and_indexes_are_those_of_a_plain_loop() {
    let cluster = Cluster::start(1, 2);
    let files = write_files(&cluster.path("texts"));
    let lines: Vec<&str> = files.iter().flat_map(|(_, content)| content.lines()).collect();
    let run = |name: &str, map: &str, reduce: &str| {
        let output = cluster.path(&format!("out-{name}"));
        let text = format!(
            "[input]\nfiles = [{:?}]\nsplit = \"2KiB\"\n[map]\nkernel = {name:?}\nparams = {{ {map} }}\n[reduce]\n{reduce}\n[output]\npath = {output:?}\n",
            cluster.path("texts")
        );
        let view = cluster.wait_done(cluster.submit(&cluster.job_file(&format!("{name}.toml"), &text), &[]));
        assert!(view["stages"][0]["tasks"].as_u64().expect("a number") > 20, "{:#}", view["stages"]);
        parts(&output)
    };

    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    lines.iter().for_each(|line| {
        first.entry(line.split(' ').next().expect("a column")).or_insert(line);
    });
    let mut found: Vec<String> = run("dedup", "column = 1, separator = \"space\"", "partitions = 3").lines().map(str::to_owned).collect();
    found.sort_by_key(|line| line.split(' ').next().map(str::to_owned));
    assert_eq!(found, first.into_values().collect::<Vec<_>>(), "the first line of each key, whichever worker read it");

    // The order of the input stays, so a sample is a subsequence of it.
    let sample = run("sample", "count = 100, seed = 5", "partitions = 1");
    let mut rest = lines.iter();
    assert_eq!(sample.lines().count(), 100);
    assert!(sample.lines().all(|line| rest.any(|there| *there == line)), "{sample}");

    let mut index: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (path, content) in &files {
        content.split_ascii_whitespace().for_each(|word| *index.entry((word.to_owned(), path.clone())).or_default() += 1);
    }
    let expected: String = index.iter().map(|((word, path), count)| format!("{word},{path},{count}\n")).collect();
    assert_eq!(run("inverted_index", "words = \"blanks\"", "partitions = 1"), format!("word,file,count\n{expected}"));
}
