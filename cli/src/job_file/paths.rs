//! Paths of a job file, made absolute: workers read them, and a worker does not know where the job file lay.

use std::path::{Path, PathBuf};

/// An absolute glob for `pattern` below `base`. `base` itself is taken literally, also when its name holds `*` or `[`.
pub fn absolute_pattern(base: &Path, pattern: &str) -> Result<String, String> {
    let pattern = pattern.strip_prefix("file://").unwrap_or(pattern);
    if pattern.is_empty() {
        return Err("an input path is empty".to_owned());
    }
    let base_text = base.to_str().ok_or_else(|| format!("the directory {} has a name that is not UTF-8", base.display()))?;
    // A file that is called `a[1].txt` is meant literally when it is there.
    let literal = has_wildcard(pattern) && base.join(pattern).exists();
    let pattern = if literal { glob::Pattern::escape(pattern) } else { pattern.to_owned() };
    let joined = if pattern.starts_with('/') { pattern } else { format!("{}/{pattern}", glob::Pattern::escape(base_text)) };
    let normal = normalised(&joined)?;
    match glob::Pattern::new(&normal) {
        Ok(_) => Ok(normal),
        Err(error) => Err(format!("`{normal}` is not a valid pattern: {} at position {}", error.msg, error.pos)),
    }
}

/// An absolute directory for `path` below `base`; it need not exist.
pub fn absolute_dir(base: &Path, path: &str) -> Result<String, String> {
    if let Some((scheme, _)) = path.split_once("://").filter(|(scheme, _)| *scheme != "file") {
        return Err(format!("{scheme}:// is not supported yet; the output must be a directory that the workers share"));
    }
    let path = path.strip_prefix("file://").unwrap_or(path);
    if path.is_empty() {
        return Err("the output path is empty".to_owned());
    }
    let joined: PathBuf = base.join(path);
    let text = joined.to_str().ok_or_else(|| format!("{} is not UTF-8", joined.display()))?;
    let normal = normalised(text)?;
    if normal == "/" {
        return Err("the output cannot be the root directory".to_owned());
    }
    Ok(normal)
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Takes out `.`, `..` and doubled slashes by text. The caller's base has no symbolic link left in it, so `..` is what it looks like.
fn normalised(path: &str) -> Result<String, String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last() == Some(&"**") => {
                return Err(format!("`{path}` goes up with `..` from `**`, which names no one directory"));
            }
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_pattern_is_taken_from_the_base() {
        let base = Path::new("/home/ann/job");
        assert_eq!(absolute_pattern(base, "../*.md").unwrap(), "/home/ann/*.md");
        assert_eq!(absolute_pattern(base, "data/**/*.txt").unwrap(), "/home/ann/job/data/**/*.txt");
        assert_eq!(absolute_pattern(base, "/var//log/./x").unwrap(), "/var/log/x");
    }

    #[test]
    fn a_wildcard_in_the_base_is_literal() {
        assert_eq!(absolute_pattern(Path::new("/a[1]"), "*.txt").unwrap(), "/a[[]1[]]/*.txt");
    }

    #[test]
    fn a_broken_pattern_is_refused_with_its_position() {
        let message = absolute_pattern(Path::new("/a"), "b/***").unwrap_err();
        assert!(message.starts_with("`/a/b/***` is not a valid pattern: "), "{message}");
        assert!(absolute_pattern(Path::new("/a"), "**/../b").unwrap_err().contains("goes up"));
    }

    #[test]
    fn an_output_is_an_absolute_directory() {
        assert_eq!(absolute_dir(Path::new("/a/b"), "../out").unwrap(), "/a/out");
        assert_eq!(absolute_dir(Path::new("/a/b"), "file:///out").unwrap(), "/out");
        assert!(absolute_dir(Path::new("/a"), "s3://bucket/x").unwrap_err().starts_with("s3:// is not supported"));
        assert!(absolute_dir(Path::new("/a"), "..").unwrap_err().contains("root"));
    }
}
