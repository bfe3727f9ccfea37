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
        offences.extend(names.iter().filter(|n| holds_word(&text, n)).map(|n| format!("{} knows kernel {n}", file.display())));
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
