//! Secrets on disk: readable by their owner alone from the first byte on, and never half written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::identity_error::IdentityError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound if action == "read" => IdentityError::Missing { path },
        _ => IdentityError::Io { action, path, source },
    }
}

/// Makes `dir` and its missing parents with mode 0700. The mode of a directory that exists is its owner's choice and stays: the files carry 0600.
pub(crate) fn create_directory(dir: &Path) -> Result<(), IdentityError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create the directory", dir))
}

/// When this returns, `path` holds all of `bytes` with mode 0600, also after a power cut; until then it holds what it held before.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else {
        return Err(failed("write", path)(io::ErrorKind::IsADirectory.into()));
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.tmp", std::process::id()));
    let temporary = dir.join(temporary_name);
    // One from a crashed process with our id (in a container the id is often 1) may have been opened by somebody with another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &temporary)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed("create", &temporary))?;
    let renamed = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(dir)?.sync_all());
    renamed.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed("write", path)(error)
    })
}

/// The bytes of a file that is not secret.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(failed("read", path))
}

/// The bytes of a secret file; refuses one that others can read, as ssh does, because such a key may have a copy already.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let mut file = File::open(path).map_err(failed("read", path))?;
    let mode = file.metadata().map_err(failed("read", path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes).map_err(failed("read", path))?;
    Ok(bytes)
}

/// A one-line text file.
pub(crate) fn read_line(path: &Path) -> Result<String, IdentityError> {
    let bytes = read(path)?;
    let text = str::from_utf8(&bytes).map_err(|_| IdentityError::damaged(path.display().to_string(), "it is not text"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        write(&path, b"first").unwrap();
        write(&path, b"2nd").unwrap();
        assert_eq!(read_secret(&path).unwrap(), b"2nd");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_left_over_temporary_file_is_no_way_in() {
        let dir = tempfile::tempdir().unwrap();
        let left_over = dir.path().join(format!(".identity.key.{}.tmp", std::process::id()));
        fs::write(&left_over, b"left by a crash").unwrap();
        fs::set_permissions(&left_over, fs::Permissions::from_mode(0o666)).unwrap();
        let path = dir.path().join("identity.key");
        write(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let error = write(Path::new("/proc/raftwerk/identity.key"), b"").unwrap_err().to_string();
        assert!(error.contains("/proc/raftwerk/"), "{error}");
    }
}
