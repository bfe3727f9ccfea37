//! What may happen to a directory that is to become an output. Only an output of ours may be replaced, and only its own files are
//! removed: a path typed wrong must not cost anybody a home directory.
use super::publish::MANIFEST;
use rustix::fs::{Access, FsWord, PROC_SUPER_MAGIC, access, statfs};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    path::{Component, Path, PathBuf},
};

const SYSFS_MAGIC: FsWord = 0x6265_6572;

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

/// What a file system takes as one name.
const NAME_BYTES: usize = 255;
/// What staging adds to the output's own name at most: the cluster, the job and the claim of a publisher.
const STAGING_BYTES: usize = 74;

/// Why this worker could not write there.
pub(crate) fn unwritable(output: &Path, worker: &str) -> Option<String> {
    let ancestor = output.ancestors().skip(1).find(|path| path.symlink_metadata().is_ok())?;
    let refused =
        |what: &str| Some(format!("cannot write the output {} on worker {worker}: {} {what}", output.display(), ancestor.display()));
    if !ancestor.is_dir() {
        return refused("is not a directory");
    }
    let is_long = |name: &OsStr, most: usize| name.len() > most;
    if let Some(name) = output.components().map(Component::as_os_str).find(|name| is_long(name, NAME_BYTES)) {
        return Some(format!("cannot write the output on worker {worker}: {} is longer than {NAME_BYTES} bytes", name.display()));
    }
    if let Some(name) = output.file_name().filter(|name| is_long(name, NAME_BYTES - STAGING_BYTES)) {
        let most = NAME_BYTES - STAGING_BYTES;
        return Some(format!("cannot write the output on worker {worker}: the name {} is longer than {most} bytes", name.display()));
    }
    if statfs(ancestor).is_ok_and(|fs| [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&fs.f_type)) {
        return refused("is made up by the system and keeps no files");
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

    #[test]
    fn a_place_where_no_directory_can_be_made_is_found_before_the_work() {
        let home = output(&[]);
        let said = |path: &Path| unwritable(path, "anna").unwrap_or_default();
        assert!(said(Path::new("/proc/foo")).contains("/proc is made up by the system"), "{}", said(Path::new("/proc/foo")));
        assert!(said(&home.path().join("x".repeat(300)).join("out")).contains("is longer than 255 bytes"));
        assert!(said(&home.path().join("x".repeat(200))).contains("is longer than 181 bytes"), "staging needs a longer name");
        assert_eq!(unwritable(&home.path().join("x".repeat(181)), "anna"), None);
    }
}
