//! Files that a pattern means. Patterns are those of the `glob` crate; the walk is ours, because that crate's own passes over names that
//! are not UTF-8 in silence, and panics on them when hidden files are to be left out (0.3.4). An input must not go missing.

use glob::{MatchOptions, Pattern, PatternError};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PatternWalkError {
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: its name is not valid UTF-8", path.display())]
    Name { path: PathBuf },
}

/// As in a shell.
const OPTIONS: MatchOptions = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

enum Part {
    /// Without a special character: the name itself.
    Name(String),
    Wild {
        pattern: Pattern,
        /// Hidden names are matched only by what begins with a dot itself.
        hidden: bool,
    },
    /// `**`: this directory and all below it.
    Below,
}

/// Everything but directories that `pattern` matches; a trailing `**` means the files in the directories. Unsorted.
pub(crate) fn files(pattern: &str) -> Result<Vec<PathBuf>, PatternWalkError> {
    Pattern::new(pattern)?;
    let mut parts = Vec::new();
    for text in pattern.split('/').filter(|text| !text.is_empty()) {
        parts.push(match text {
            "**" => Part::Below,
            name if !name.contains(['*', '?', '[']) => Part::Name(name.to_owned()),
            wild => Part::Wild { pattern: Pattern::new(wild)?, hidden: wild.starts_with('.') },
        });
    }
    if let Some(Part::Below) = parts.last() {
        parts.push(Part::Wild { pattern: Pattern::new("*")?, hidden: false });
    }
    let mut found = Vec::new();
    let start = if pattern.starts_with('/') { "/" } else { "" };
    walk(Path::new(start), &parts, &mut found)?;
    // `a/**/**` comes to a file in more than one way.
    found.sort();
    found.dedup();
    Ok(found)
}

fn walk(at: &Path, parts: &[Part], found: &mut Vec<PathBuf>) -> Result<(), PatternWalkError> {
    let Some((first, rest)) = parts.split_first() else {
        found.push(at.to_owned());
        return Ok(());
    };
    match first {
        Part::Name(name) => {
            let path = at.join(name);
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if is_absent(&error) => return Ok(()),
                Err(source) => return Err(PatternWalkError::Unreadable { path, source }),
            };
            // A directory ends no pattern, and a file is no way to another.
            if metadata.is_dir() == rest.is_empty() { Ok(()) } else { walk(&path, rest, found) }
        }
        Part::Wild { pattern, hidden } => {
            // `*` stays within its directory; a directory is read whole only when it is named itself.
            let wanted = |name: &str, is_dir: bool| is_dir != rest.is_empty() && pattern.matches_with(name, OPTIONS);
            children(at, *hidden, wanted)?.iter().try_for_each(|path| walk(path, rest, found))
        }
        Part::Below => {
            walk(at, rest, found)?;
            // Links to directories are not followed: they may lead back up.
            let below = children(at, false, |_, is_dir| is_dir)?;
            below.iter().filter(|path| !path.is_symlink()).try_for_each(|path| walk(path, parts, found))
        }
    }
}

/// What lies in a directory and is wanted, by its name and whether it is a directory itself. Nothing where there is no directory.
fn children(at: &Path, hidden: bool, wanted: impl Fn(&str, bool) -> bool) -> Result<Vec<PathBuf>, PatternWalkError> {
    let unreadable = |source| PatternWalkError::Unreadable { path: at.to_owned(), source };
    let directory = if at.as_os_str().is_empty() { Path::new(".") } else { at };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        let path = at.join(&name);
        let text = name.to_string_lossy();
        // A link to nothing is nothing.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if (text.starts_with('.') && !hidden) || !wanted(&text, metadata.is_dir()) {
            continue;
        }
        if name.to_str().is_none() {
            return Err(PatternWalkError::Name { path });
        }
        found.push(path);
    }
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn tree(names: &[&[u8]]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        dir
    }

    fn found(dir: &tempfile::TempDir, pattern: &str) -> Vec<String> {
        let root = dir.path().to_str().unwrap();
        let paths = files(&format!("{root}/{pattern}")).unwrap();
        paths.iter().map(|p| p.to_str().unwrap().strip_prefix(root).unwrap()[1..].to_owned()).collect()
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let dir =
            tree(&[b"a.txt", b"b.log", b".h.txt", b"sub/c.txt", b"sub/deep/d.txt", b"sub/.git/e.txt", b".dot/f.txt", b"x1/y", b"x2/y"]);
        assert_eq!(found(&dir, "*.txt"), ["a.txt"]);
        assert_eq!(found(&dir, ".*.txt"), [".h.txt"]);
        assert_eq!(found(&dir, "*"), ["a.txt", "b.log"]);
        assert_eq!(found(&dir, "?.[lt]*"), ["a.txt", "b.log"]);
        assert_eq!(found(&dir, "**/*.txt"), ["a.txt", "sub/c.txt", "sub/deep/d.txt"]);
        assert_eq!(found(&dir, "sub/**"), ["sub/c.txt", "sub/deep/d.txt"]);
        assert_eq!(found(&dir, "sub/**/**/d.txt"), ["sub/deep/d.txt"]);
        assert_eq!(found(&dir, ".dot/*"), [".dot/f.txt"]);
        assert_eq!(found(&dir, "x[12]/y"), ["x1/y", "x2/y"]);
        assert_eq!(found(&dir, "a.txt/*"), [""; 0]);
        assert_eq!(found(&dir, "nowhere/*"), [""; 0]);
    }

    #[test]
    fn a_name_that_is_no_text_is_refused_where_it_matches_and_harmless_elsewhere() {
        let dir = tree(&[b"x\xff.txt", b"a.csv", b"sub/b.csv"]);
        let root = dir.path().to_str().unwrap();
        assert_eq!(found(&dir, "*.csv"), ["a.csv"]);
        assert_eq!(found(&dir, "**/*.csv"), ["a.csv", "sub/b.csv"]);
        let error = files(&format!("{root}/*.txt")).unwrap_err();
        assert!(matches!(&error, PatternWalkError::Name { path } if path.starts_with(root)), "{error}");
    }

    #[test]
    fn links_that_lead_back_up_or_nowhere_end_no_walk() {
        let dir = tree(&[b"sub/a.txt"]);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("sub/up")).unwrap();
        std::os::unix::fs::symlink("nothing", dir.path().join("sub/gone.txt")).unwrap();
        assert_eq!(found(&dir, "**/*.txt"), ["sub/a.txt"]);
        assert_eq!(found(&dir, "sub/*.txt"), ["sub/a.txt"]);
    }

    #[test]
    fn what_is_no_pattern_is_said_with_its_place() {
        assert!(matches!(files("/a/[b"), Err(PatternWalkError::Pattern(_))));
        assert!(matches!(files("/a/b**"), Err(PatternWalkError::Pattern(_))));
    }
}
