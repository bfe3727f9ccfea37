//! The house keeps its walls: what may not know what.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|x| x == "rs" || x == "toml" || x == "proto") {
            found.push(path);
        }
    }
}

fn holds_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        // A path segment (`IOFlushed::noop`) is a library's word.
        let before = text[..at].chars().next_back().is_some_and(|c| part_of_word(c) || c == ':');
        let after = text[at + word.len()..].chars().next().is_some_and(part_of_word);
        !before && !after
    })
}

/// Kernels whose names are words of everyday code: these are known by name where the name stands in quotation marks.
const EVERYDAY: [&str; 4] = ["dedup", "join", "sample", "sort"];

fn knows_kernel(text: &str, name: &str) -> bool {
    let quoted = || [format!("\"{name}\""), format!("\"{name}@")].iter().any(|quoted| text.contains(quoted.as_str()));
    if EVERYDAY.contains(&name) { quoted() } else { holds_word(text, name) }
}

#[test]
fn no_kernel_is_known_by_name_in_scheduler_or_worker() {
    let names: Vec<&str> = raftwerk_kernels::registry().iter().map(|k| k.descriptor().name).collect();
    assert!(names.len() >= 7, "the registry is nearly empty: {names:?}");
    let mut files = Vec::new();
    sources(&root().join("scheduler"), &mut files);
    sources(&root().join("worker"), &mut files);
    assert!(files.len() > 50, "the folders moved");
    let mut offences = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable source");
        offences.extend(names.iter().filter(|n| knows_kernel(&text, n)).map(|n| format!("{} knows kernel {n}", file.display())));
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn the_core_depends_on_no_runtime_clock_or_random_source() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "raftwerk-core", "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(text.contains("prost"), "the tree is not what it was: {text}");
    for banned in ["tokio", "tonic", "rand", "getrandom", "openraft", "chrono", "time", "rayon", "mio"] {
        let found = text.lines().any(|line| line.split(' ').next() == Some(banned));
        assert!(!found, "raftwerk-core depends on {banned}:\n{text}");
    }
}

#[test]
fn the_core_denies_clocks_random_sources_and_hash_maps() {
    let config = std::fs::read_to_string(root().join("scheduler/core/clippy.toml")).expect("the core's clippy.toml");
    for banned in ["HashMap", "Instant", "SystemTime"] {
        let line = config.lines().find(|l| l.contains(banned)).unwrap_or_else(|| panic!("{banned} is not banned"));
        assert!(line.contains("reason"), "the ban of {banned} gives no reason");
    }
    let lib = std::fs::read_to_string(root().join("scheduler/core/src/lib.rs")).expect("the core's lib.rs");
    assert!(lib.contains("#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::float_arithmetic)]"));
}

#[test]
fn the_tree_names_no_machine_of_ours() {
    let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    // A release tarball has no git; there is nothing to check there.
    let Ok(listed) = listed else { return };
    let home = std::env::var("HOME").unwrap_or_default();
    for file in String::from_utf8_lossy(&listed.stdout).lines() {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        assert!(!text.contains(&format!("{}/", root().display())), "{file} names the folder it was written in");
        assert!(home.len() < 6 || !text.contains(&home), "{file} names a home directory");
    }
}

/// Every call of a generated client stands where something bounds its waiting, and every call of the protocol stands in the table that
/// operators read.
#[test]
fn every_call_has_a_deadline_and_a_line_in_the_operations_page() {
    let mut files = Vec::new();
    sources(&root().join("proto/raftwerk"), &mut files);
    let protocol: String = files.iter().map(|file| std::fs::read_to_string(file).expect("a readable protocol")).collect();
    let calls: Vec<&str> =
        protocol.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split_once('(').map(|(name, _)| name)).collect();
    assert!(calls.len() >= 17, "the protocol is not where it was: {calls:?}");
    let page = std::fs::read_to_string(root().join("docs/operations.md")).expect("the operations page");
    let table = page.split("\n## ").find(|section| section.starts_with("Deadlines")).expect("a section on deadlines");
    let untold: Vec<_> = calls.iter().filter(|call| !table.contains(&format!("`{call}`"))).collect();
    assert!(untold.is_empty(), "docs/operations.md does not tell the deadlines of {untold:?}");

    let mut offences = Vec::new();
    let mut found = 0;
    for folder in ["cli/src", "worker/src", "scheduler/src", "bench/src", "transport/src"] {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        for file in files.iter().filter(|file| !file.components().any(|part| part.as_os_str() == "tests")) {
            let text = std::fs::read_to_string(file).expect("a readable source");
            // Others call through a type of their own, whose file is looked at.
            if !text.contains("_client::") {
                continue;
            }
            for call in &calls {
                for at in calls_of(&text, &snake_case(call)) {
                    found += 1;
                    if !is_bounded(&text, at) {
                        let line = text[..at].lines().count();
                        offences.push(format!("{}:{line} awaits `{call}` without a deadline", file.display()));
                    }
                }
            }
        }
    }
    assert!(found >= 16, "only {found} calls found; how they are made has changed, and this test with it must");
    assert!(offences.is_empty(), "{offences:#?}");
}

/// Places where a client makes this call: `client.vote(..`, or `RaftClient::new(..).vote(..`.
fn calls_of<'a>(text: &'a str, call: &str) -> impl Iterator<Item = usize> + use<'a> {
    let call = format!(".{call}(");
    let found: Vec<usize> = text.match_indices(&call).map(|(at, _)| at).collect();
    found.into_iter().filter(|at| {
        let before = text[..*at].trim_end();
        before.ends_with("client") || (before.ends_with(')') && before.lines().last().is_some_and(|line| line.contains("Client::new(")))
    })
}

/// Whether the call's own statement, or the lines just before it, set a deadline or hand it to a function that does.
fn is_bounded(text: &str, at: usize) -> bool {
    let from = text[..at].rmatch_indices('\n').nth(7).map_or(0, |(line, _)| line);
    let place = &text[from..at];
    let marks = ["timeout(", "set_timeout(", ".call(", "call_within(", "// No deadline here: "];
    marks.iter().any(|mark| place.contains(mark))
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[test]
fn a_call_without_a_deadline_is_noticed() {
    let bare = "let mut client = RaftClient::new(channel);\nlet reply = client.vote(request).await?;\n";
    assert!(calls_of(bare, "vote").all(|at| !is_bounded(bare, at)) && calls_of(bare, "vote").count() == 1);
    let bound = "request.set_timeout(LIMIT);\nmatch RaftClient::new(channel).vote(request).await {\n";
    assert!(calls_of(bound, "vote").all(|at| is_bounded(bound, at)) && calls_of(bound, "vote").count() == 1);
    assert_eq!(calls_of("ballot.vote(me)", "vote").count(), 0);
}

/// A promise whose command names no test would pass by running nothing.
#[test]
fn every_promise_names_a_test_that_exists() {
    let page = std::fs::read_to_string(root().join("docs/guarantees.md")).expect("the page");
    let commands: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let mut seen = 0;
    for command in &commands {
        let words: Vec<&str> = command.split_whitespace().filter(|w| !w.contains('=')).collect();
        let (files, name) = match words[..] {
            ["T", file, ref name @ ..] => (test_files("tests", file), name.first()),
            ["cargo", "test", "-p", "raftwerk-core", "--test", file, ref name @ ..] => (test_files("scheduler/core", file), name.first()),
            ["cargo", "test", "-p", "raftwerk-scheduler", "--test", file, ref name @ ..] => (test_files("scheduler", file), name.first()),
            _ => continue,
        };
        seen += 1;
        assert!(!files.is_empty(), "`{command}`: there is no such test program");
        let texts: Vec<String> = files.iter().map(|f| std::fs::read_to_string(f).expect("a source")).collect();
        let is_there = |name: &str| texts.iter().any(|text| text.lines().any(|l| l.trim_start().starts_with("fn ") && l.contains(name)));
        assert!(name.is_none_or(|name| is_there(name)), "`{command}`: no test has that in its name");
    }
    assert!(seen > 20, "the page has lost its commands: {seen}");
}

fn test_files(package: &str, program: &str) -> Vec<PathBuf> {
    let tests = root().join(package).join("tests");
    let mut files = Vec::new();
    if tests.join(program).is_dir() {
        sources(&tests.join(program), &mut files);
    }
    if tests.join(program).with_extension("rs").is_file() {
        files.push(tests.join(program).with_extension("rs"));
    }
    files
}
