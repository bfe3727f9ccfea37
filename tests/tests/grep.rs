//! Lines that a job finds have the numbers that they have in their files, however the files were cut and whoever searched.

use raftwerk_tests::cluster::{Cluster, text};
use std::fmt::Write as _;

/// Two files, of which the first has many splits of the smallest length, one line longer than several of them, and no newline at its end.
fn write_files(cluster: &Cluster) -> Vec<(String, String)> {
    let mut long = String::new();
    for line in 0..2_000 {
        match line {
            700 => long.push_str(&"y".repeat(5_000)),
            _ if line % 37 == 0 => write!(long, "line {line} holds the Needle").expect("memory"),
            _ => write!(long, "line {line}").expect("memory"),
        }
        long.push('\n');
    }
    long.push_str("the last needle");
    let files = [("a.txt", long), ("b.txt", "one\nneedle two\n\nneedle three\n".to_owned()), ("c.txt", String::new())];
    let dir = cluster.path("texts");
    std::fs::create_dir(&dir).expect("a directory");
    let write = |(name, content): (&str, String)| {
        let path = dir.join(name);
        std::fs::write(&path, &content).expect("the file is written");
        (path.display().to_string(), content)
    };
    files.map(write).into()
}

#[test]
fn found_lines_have_their_numbers_however_files_are_cut_into_tasks() {
    let cluster = Cluster::start(1, 2);
    let files = write_files(&cluster);
    let output = cluster.path("found");
    let job = |partitions: u32| {
        let text = format!(
            "[input]\nfiles = [{:?}]\nsplit = \"1KiB\"\n[map]\nkernel = \"grep\"\nparams = {{ pattern = \"needle\", ignore_case = \"yes\" }}\n\
             [reduce]\npartitions = {partitions}\n[output]\npath = {output:?}\nif_exists = \"replace\"\n",
            cluster.path("texts")
        );
        cluster.job_file("grep.toml", &text)
    };
    let wanted = |content: &str| -> Vec<(usize, String)> {
        let lines = content.lines().enumerate().filter(|(_, line)| line.to_lowercase().contains("needle"));
        lines.map(|(index, line)| (index + 1, line.to_owned())).collect()
    };
    let expected: String = files
        .iter()
        .flat_map(|(path, content)| wanted(content).into_iter().map(move |(number, line)| format!("{path}:{number}:{line}\n")))
        .collect();
    assert!(expected.contains(":2001:the last needle\n"), "{expected}");

    let view = cluster.wait_done(cluster.submit(&job(1), &[]));
    assert_eq!(std::fs::read_to_string(output.join("part-00000.txt")).expect("the part"), expected);
    let total = |name: &str| {
        let tallies = view["tallies"].as_array().expect("tallies");
        tallies.iter().find(|tally| tally["name"] == name).expect("a tally")["total"].as_str().expect("a number").to_owned()
    };
    assert_eq!((total("lines"), total("matches")), ("2005".into(), expected.lines().count().to_string()));
    assert!(view["stages"][0]["tasks"].as_u64().expect("a number") > 20, "{:#}", view["stages"]);

    cluster.wait_done(cluster.submit(&job(3), &[]));
    let parts: Vec<String> =
        (0..3).map(|part| std::fs::read_to_string(output.join(format!("part-{part:05}.txt"))).expect("a part")).collect();
    let mut found: Vec<&str> = parts.iter().flat_map(|part| part.lines()).collect();
    let mut all: Vec<&str> = expected.lines().collect();
    found.sort_unstable();
    all.sort_unstable();
    assert_eq!(found, all);
    for (path, _) in &files {
        let holding = parts.iter().filter(|part| part.contains(path.as_str())).count();
        assert!(holding <= 1, "{path} is in {holding} parts");
    }
}

#[test]
fn a_pattern_that_is_no_expression_is_refused_at_submit() {
    let cluster = Cluster::start(1, 1);
    write_files(&cluster);
    let file = cluster.job_file(
        "grep.toml",
        &format!("[input]\nfiles = [{:?}]\n[map]\nkernel = \"grep\"\nparams = {{ pattern = \"(\" }}\n", cluster.path("texts")),
    );
    let refused = cluster.run(&["submit", &file]);
    let said = text(&refused.stderr);
    assert!(
        refused.status.code() == Some(2) && said.contains("parameter 'pattern' cannot be used") && said.contains("unclosed group"),
        "{said}"
    );
}
