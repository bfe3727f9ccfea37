//! Where a job file names its input files: for whoever has to mend what a cluster found wrong with one of them.

use std::path::Path;

use super::paths;
use super::problem::{Origin, Problem};
use super::tree::{Node, Table, Value};

/// All patterns and side inputs of a job file.
#[derive(Clone, Debug, Default)]
pub struct Named {
    all: Vec<Name>,
}

#[derive(Clone, Debug)]
struct Name {
    /// As workers see it.
    pattern: String,
    /// `job.toml:3: [input] files names `data/*.csv``
    place: String,
}

impl Named {
    /// `file` is the job file's name for messages. What cannot be used is left out; reading the job file says so.
    pub fn of(root: &Table, dir: &Path, file: &str) -> Named {
        let mut named = Named::default();
        let mut add = |label: String, node: &Node| {
            let Value::Text(text) = &node.value else { return };
            let Ok(pattern) = paths::absolute_pattern(dir, text) else { return };
            let said = match node.origin {
                // The flag says itself what it names.
                Origin::Flag(_) => format!("for {label}"),
                _ => format!("{label} names `{text}`"),
            };
            named.all.push(Name { pattern, place: Problem::new(node.origin.clone(), said).in_file(file).to_string() });
        };
        if let Some(input) = table(root, "input") {
            files(input, "[input] files", &mut add);
            tables(input).for_each(|(name, input)| files(input, &format!("[input.{name}] files"), &mut add));
        }
        for (name, section) in ["map", "reduce"].into_iter().filter_map(|name| Some((name, table(root, name)?))) {
            sides(section, &format!("{name}.side"), &mut add);
        }
        for (name, stage) in table(root, "stage").into_iter().flat_map(tables) {
            sides(stage, &format!("stage '{name}': side"), &mut add);
        }
        named
    }

    /// The place that names the file which a message is about: of several the one whose path has most in common with it.
    pub fn place_of(&self, message: &str) -> Option<&str> {
        let common = |name: &Name| {
            let plain = name.pattern.split(['*', '?', '[']).next().unwrap_or_default();
            Some(plain.len()).filter(|length| *length > 1 && message.contains(plain))
        };
        let (_, best) = self
            .all
            .iter()
            .filter_map(|name| Some((common(name)?, name)))
            .reduce(|best, next| if next.0 > best.0 { next } else { best })?;
        Some(&best.place)
    }
}

fn table<'a>(root: &'a Table, key: &str) -> Option<&'a Table> {
    match &root.get(key)?.node.value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

fn tables(root: &Table) -> impl Iterator<Item = (&str, &Table)> {
    root.iter().filter_map(|(key, entry)| match &entry.node.value {
        Value::Table(table) => Some((key, table)),
        _ => None,
    })
}

fn files(input: &Table, label: &str, add: &mut impl FnMut(String, &Node)) {
    match input.get("files").map(|entry| &entry.node) {
        Some(Node { value: Value::Array(items), .. }) => items.iter().for_each(|item| add(label.to_owned(), item)),
        Some(node) => add(label.to_owned(), node),
        None => {}
    }
}

fn sides(section: &Table, label: &str, add: &mut impl FnMut(String, &Node)) {
    for (name, side) in table(section, "side").into_iter().flat_map(tables) {
        if let Some(file) = side.get("file") {
            add(format!("[{label}.{name}] file"), &file.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_file::{Patches, tree};

    fn named(text: &str, patches: &Patches) -> Named {
        let mut root = tree::parse(text).unwrap();
        patches.apply(&mut root, Path::new("/here")).unwrap();
        Named::of(&root, Path::new("/jobs"), "job.toml")
    }

    #[test]
    fn the_line_that_names_a_file_is_found_by_what_is_said_of_it() {
        let text = "[input]\nfiles = [\n  \"data/*.npy\",\n  \"data/more/b.npy\",\n]\n[map]\nkernel = \"x\"\n[map.side.b]\nfile = \"/side/b.npy\"\n";
        let all = named(text, &Patches::default());
        assert_eq!(all.place_of("the input cannot be read: /jobs/data/a.npy: cut"), Some("job.toml:3: [input] files names `data/*.npy`"));
        assert_eq!(all.place_of("/jobs/data/more/b.npy: cut"), Some("job.toml:4: [input] files names `data/more/b.npy`"));
        assert_eq!(all.place_of("no file matches '/side/b.npy'"), Some("job.toml:9: [map.side.b] file names `/side/b.npy`"));
        assert_eq!(all.place_of("there is no column 'x'"), None);
        let flags = Patches { input: vec!["c/*.npy".into()], ..Patches::default() };
        assert_eq!(named(text, &flags).place_of("/here/c/d.npy: cut"), Some("--input c/*.npy: for [input] files"));
        let several = named("[input.left]\nfiles = \"l.csv\"\n[input.right]\nfiles = \"r.csv\"\n", &Patches::default());
        assert_eq!(several.place_of("/jobs/r.csv is gone"), Some("job.toml:4: [input.right] files names `r.csv`"));
        assert_eq!(named("[input]\nrange = { count = 3 }\n", &Patches::default()).place_of("/jobs/r.csv"), None);
    }
}
