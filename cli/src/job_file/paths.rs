//! Paths of a job file, made absolute: workers read them, and a worker does not know where the job file lay.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use raftwerk_proto::{OUTPUT_ON_WORKERS, STORE_SCHEMES, StoreUrl, UPLOAD_SCHEME, is_store_url, parse_store_url};

use crate::uploads::FROM_STDIN;

/// An absolute glob for `pattern` below `base`, or the URL of objects in a store. `base` itself is taken literally, also when its name holds `*` or `[`.
/// Behind `upload:` stands one of this machine, for the cluster to be brought.
pub fn absolute_pattern(base: &Path, pattern: &str) -> Result<String, String> {
    if let Some(own) = pattern.strip_prefix(UPLOAD_SCHEME) {
        return match own {
            FROM_STDIN => Ok(pattern.to_owned()),
            url if is_store_url(url) => Err(format!("`{url}` lies in a store, where workers read it themselves; leave out the upload")),
            path => absolute_pattern(base, path).map(|path| format!("{UPLOAD_SCHEME}{path}")),
        };
    }
    if is_store_url(pattern) {
        let (_, key) = store_url(pattern)?;
        return match glob::Pattern::new(key) {
            Ok(_) => Ok(pattern.to_owned()),
            Err(error) => Err(format!("`{pattern}` is not a valid pattern: {} at position {} behind the bucket", error.msg, error.pos)),
        };
    }
    let pattern = &*behind_url(pattern)?;
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

/// An absolute directory for `path` below `base`, or the URL of a prefix in a store; it need not exist.
pub fn absolute_dir(base: &Path, path: &str) -> Result<String, String> {
    if is_store_url(path) {
        let whole = path.trim_end_matches('/');
        return match store_url(path)? {
            (_, "") => Err(format!("`{path}` names no prefix in the bucket; write one, as in {whole}/results")),
            _ => Ok(whole.to_owned()),
        };
    }
    if let Some((scheme, _)) = path.split_once("://").filter(|(scheme, _)| *scheme != "file") {
        let stores = STORE_SCHEMES.join(", ");
        return Err(format!("{scheme}:// is not supported; write a directory that the workers share, or a prefix in a store ({stores})"));
    }
    let begins_like_workers = path.get(..OUTPUT_ON_WORKERS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OUTPUT_ON_WORKERS));
    if begins_like_workers {
        return Err(format!(
            "`{path}` is no directory; write `{OUTPUT_ON_WORKERS}` alone to leave the result on the workers, or ./{path} for a directory of that name"
        ));
    }
    let path = &*behind_url(path)?;
    if path.is_empty() {
        return Err("the output path is empty".to_owned());
    }
    if path.contains('\0') {
        return Err("the output path has a NUL character, which no file name can have".to_owned());
    }
    let joined: PathBuf = base.join(path);
    let text = joined.to_str().ok_or_else(|| format!("{} is not UTF-8", joined.display()))?;
    let normal = normalised(text)?;
    if normal == "/" {
        return Err("the output cannot be the root directory".to_owned());
    }
    Ok(normal)
}

/// The path that a `file://` URL names; other text is a path already.
fn behind_url(text: &str) -> Result<Cow<'_, str>, String> {
    let Some(path) = text.strip_prefix("file://") else { return Ok(text.into()) };
    if !path.starts_with('/') {
        return Err(format!("`{text}` names a machine, not a path; write three slashes and an absolute path, as in file:///data/out"));
    }
    let broken =
        || format!("`{text}` is no URL: behind `%` stand two hexadecimal digits of UTF-8 (%25 is `%`); or write the path without file://");
    let mut pieces = path.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or_else(broken)?;
        let digits = Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())).ok_or_else(broken)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| broken())?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| broken())
}

/// Bucket and key of an object in a store. Keys are no paths: nothing in them leads up, and what would is more likely a slip than a name.
fn store_url(url: &str) -> Result<(&str, &str), String> {
    let StoreUrl { bucket, key, .. } = parse_store_url(url)?;
    if key.chars().any(char::is_control) {
        return Err(format!("`{}` has a control character in its key", url.escape_debug()));
    }
    let parts = key.strip_suffix('/').unwrap_or(key);
    if !parts.is_empty() && parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("`{url}` has an empty part, `.` or `..` in its key; write the key in full"));
    }
    Ok((bucket, key))
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
        assert!(absolute_dir(Path::new("/a"), "ftp://bucket/x").unwrap_err().starts_with("ftp:// is not supported"));
        assert!(absolute_dir(Path::new("/a"), "..").unwrap_err().contains("root"));
    }

    #[test]
    fn an_object_in_a_store_has_no_base() {
        let (input, output) = (|url| absolute_pattern(Path::new("/a"), url), |url| absolute_dir(Path::new("/a"), url));
        assert_eq!(input("s3://logs/2026/**/*.txt").unwrap(), "s3://logs/2026/**/*.txt");
        assert_eq!(input("gs://logs").unwrap(), "gs://logs");
        assert_eq!(input("az://c/d/").unwrap(), "az://c/d/");
        assert_eq!(input("abfss://c@acc.dfs.core.windows.net/d/*.csv").unwrap(), "abfss://c@acc.dfs.core.windows.net/d/*.csv");
        assert_eq!(output("s3://b/out/").unwrap(), "s3://b/out");
        assert_eq!(output("abfs://c@acc.dfs.core.windows.net/out/").unwrap(), "abfs://c@acc.dfs.core.windows.net/out");
        assert!(input("abfss://c@acc.example.com/d").unwrap_err().contains("names no account that is known"));
        for wrong in ["s3://", "s3:///key", "s3://a b/c", "s3://b/../c", "s3://b/a//c", "s3://b/./c", "s3://b/a\nc"] {
            assert!(input(wrong).is_err() && output(wrong).is_err(), "{wrong}");
        }
        assert!(output("s3://b/").unwrap_err().contains("names no prefix"));
        assert!(input("s3://b/a***").unwrap_err().contains("not a valid pattern"));
    }

    #[test]
    fn a_file_to_upload_is_one_of_this_machine() {
        let input = |text| absolute_pattern(Path::new("/a"), text);
        assert_eq!(input("upload:b/*.txt").unwrap(), "upload:/a/b/*.txt");
        assert_eq!(input("upload:-").unwrap(), "upload:-");
        assert_eq!(input("upload:./-").unwrap(), "upload:/a/-");
        assert!(input("upload:").unwrap_err().contains("empty"));
        assert!(input("upload:s3://b/c").unwrap_err().contains("leave out the upload"));
    }

    #[test]
    fn what_looks_like_a_url_is_one_or_is_refused_with_what_to_write() {
        let output = |path: &str| absolute_dir(Path::new("/a"), path);
        assert_eq!(output("file:///my%20results/50%25").unwrap(), "/my results/50%");
        assert_eq!(output("50%").unwrap(), "/a/50%", "a path is no URL");
        assert_eq!(absolute_pattern(Path::new("/a"), "file:///my%20data/*.txt").unwrap(), "/my data/*.txt");
        for wrong in ["file://host/out", "file://out"] {
            assert!(output(wrong).unwrap_err().contains("file:///data/out"), "{wrong}");
            assert!(absolute_pattern(Path::new("/a"), wrong).is_err(), "{wrong}");
        }
        for wrong in ["file:///a%2", "file:///a%zz", "file:///%ff", "file:///%+1", "file:///%é"] {
            assert!(output(wrong).unwrap_err().contains("%25"), "{wrong}");
        }
        assert!(output("file:///a%00b").unwrap_err().contains("NUL"));
        for wrong in ["worker:x", "WORKER:", "Worker:/x"] {
            assert!(output(wrong).unwrap_err().contains("write `worker:` alone"), "{wrong}");
        }
        assert_eq!(output("./worker:x").unwrap(), "/a/worker:x");
    }
}
