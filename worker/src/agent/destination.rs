//! What may happen to a directory that is to become an output. Only an output of ours may be replaced, and only its own files are
//! removed: a path typed wrong must not cost anybody a home directory.
use super::publish::MANIFEST;
use rustix::fs::{Access, access};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// What stands in the way of publishing here, whichever worker looks.
pub(crate) fn problem(output: &Path, replace: bool) -> Option<String> {
    output.symlink_metadata().ok()?;
    let shown = output.display();
    if !replace {
        let instead = if replaceable(output).is_ok() { "remove it, or set [output] if_exists = \"replace\"" } else { "or remove it" };
        return Some(format!("the output {shown} exists already; choose another, {instead}"));
    }
    let stranger = replaceable(output).err()?;
    Some(format!(
        "the output {shown} exists and is not an output of this program ({stranger}), so it is not replaced; choose another path or remove it"
    ))
}

/// Why this worker could not write there.
pub(crate) fn unwritable(output: &Path, worker: &str) -> Option<String> {
    let ancestor = output.ancestors().skip(1).find(|path| path.symlink_metadata().is_ok())?;
    let refused =
        |what: &str| Some(format!("cannot write the output {} on worker {worker}: {} {what}", output.display(), ancestor.display()));
    if !ancestor.is_dir() {
        return refused("is not a directory");
    }
    access(ancestor, Access::WRITE_OK | Access::EXEC_OK).err().and_then(|error| refused(&format!("is not writable ({error})")))
}

/// Fine when the directory is empty or holds nothing but what its own manifest names; otherwise what does not belong there.
pub(crate) fn replaceable(output: &Path) -> Result<(), String> {
    own_files(output).map(|_| ())
}

/// Removes a replaced output: its own files, then the directory if nothing else has come into it. Nothing there is fine.
pub(crate) fn remove_replaced(old: &Path) -> io::Result<()> {
    if old.symlink_metadata().is_err() {
        return Ok(());
    }
    match own_files(old) {
        Ok(files) => {
            for file in files {
                fs::remove_file(file)?;
            }
            fs::remove_dir(old)
        }
        Err(stranger) => {
            tracing::warn!(path = %old.display(), "the replaced output is kept: {stranger}");
            Ok(())
        }
    }
}

fn own_files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    if !dir.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err("it is not a directory".into());
    }
    let entries: Vec<fs::DirEntry> = fs::read_dir(dir).and_then(Iterator::collect).map_err(|error| error.to_string())?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let manifest = fs::read(dir.join(MANIFEST)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let Some(manifest) = manifest.filter(|m| m["cluster"].is_string() && m["job"].is_u64()) else {
        return Err(format!("it has no {MANIFEST} of ours"));
    };
    let parts = manifest["parts"].as_array().cloned().unwrap_or_default();
    let mut named: BTreeSet<&str> = parts.iter().filter_map(|part| part["name"].as_str()).collect();
    named.insert(MANIFEST);
    for entry in &entries {
        let name = entry.file_name();
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !plain || !name.to_str().is_some_and(|name| named.contains(name)) {
            return Err(format!("{} is not of it", name.display()));
        }
    }
    Ok(entries.iter().map(fs::DirEntry::path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    const OURS: &str = r#"{"cluster": "c", "job": 1, "parts": [{"name": "part-00000.csv"}]}"#;

    #[test]
    fn only_an_empty_directory_or_an_output_of_ours_is_replaceable() {
        assert_eq!(replaceable(output(&[]).path()), Ok(()));
        assert_eq!(replaceable(output(&[("manifest.json", OURS), ("part-00000.csv", "x")]).path()), Ok(()));
        assert!(replaceable(output(&[("precious", "x")]).path()).is_err());
        assert!(replaceable(output(&[("manifest.json", OURS), ("part-00000.csv", "x"), ("precious", "x")]).path()).is_err());
        assert!(replaceable(output(&[("manifest.json", "{\"name\": \"a web app\"}")]).path()).is_err());
        let nested = output(&[("manifest.json", OURS)]);
        fs::create_dir(nested.path().join("part-00000.csv")).unwrap();
        assert!(replaceable(nested.path()).is_err(), "a directory is no part");
    }

    #[test]
    fn removing_a_replaced_output_takes_its_own_files_only() {
        let ours = output(&[("manifest.json", OURS), ("part-00000.csv", "x")]);
        let path = ours.path().to_owned();
        remove_replaced(&path).unwrap();
        assert!(!path.exists());
        let mixed = output(&[("manifest.json", OURS), ("precious", "x")]);
        remove_replaced(mixed.path()).unwrap();
        assert!(mixed.path().join("precious").exists());
        remove_replaced(&path).unwrap();
    }

    #[test]
    fn what_stands_in_the_way_is_said_with_the_way_out() {
        let ours = output(&[("manifest.json", OURS), ("part-00000.csv", "x")]);
        assert!(problem(ours.path(), false).unwrap().contains("if_exists"));
        let home = output(&[("precious", "x")]);
        let said = problem(home.path(), false).unwrap();
        assert!(said.contains("choose another") && !said.contains("if_exists"), "replacing it would be refused: {said}");
        assert!(problem(home.path(), true).unwrap().contains("not replaced"));
        assert_eq!(problem(&home.path().join("new"), false), None);
        assert!(unwritable(&home.path().join("precious/out"), "anna").unwrap().contains("is not a directory"));
        assert_eq!(unwritable(&home.path().join("a/b/c"), "anna"), None);
    }
}
