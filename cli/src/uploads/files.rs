//! Which files an upload has, and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use raftwerk_proto::UPLOAD_SCHEME;
use raftwerk_worker::upload::{HashedFile, MAX_UPLOAD_BYTES, MAX_UPLOAD_FILES, UPLOAD_PIECE_BYTES, UploadRefusal};
use sha2::{Digest, Sha256};

use super::bar::Bar;
use super::{FROM_STDIN, STDIN};
use crate::failure::{Exit, Failure};

/// A file of this machine.
pub struct Local {
    pub hashed: HashedFile,
    source: Place,
}

enum Place {
    Path(PathBuf),
    /// What came through a pipe, in a file without a name.
    Spooled(File),
}

impl Local {
    /// To be read again, from its beginning, by offset.
    pub fn open(&self) -> io::Result<File> {
        match &self.source {
            Place::Path(path) => File::open(path),
            Place::Spooled(file) => file.try_clone(),
        }
    }
}

pub struct Found {
    pub files: Vec<Local>,
    /// Which of them each pattern means, in order.
    pub by_pattern: BTreeMap<String, Vec<String>>,
}

/// Finds and reads all of them.
pub fn read(patterns: &[String], bar: &Bar) -> Result<Found, Failure> {
    let mut by_pattern: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut paths: BTreeSet<PathBuf> = BTreeSet::new();
    let mut stdin = false;
    for pattern in patterns {
        let own = pattern.strip_prefix(UPLOAD_SCHEME).unwrap_or(pattern);
        if own == FROM_STDIN {
            stdin = true;
            by_pattern.insert(pattern.clone(), vec![STDIN.to_owned()]);
            continue;
        }
        let found = expand(own)?;
        let name = |path: &PathBuf| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| Failure::say(Exit::BadUsage, format!("{}: its name is not valid UTF-8", path.display())).fix("rename it"))
        };
        by_pattern.insert(pattern.clone(), found.iter().map(name).collect::<Result<_, _>>()?);
        paths.extend(found);
        if paths.len() > MAX_UPLOAD_FILES {
            return Err(Failure::new(Exit::BadUsage, UploadRefusal::Files(paths.len())));
        }
    }
    let mut files = Vec::new();
    let mut room = MAX_UPLOAD_BYTES;
    // All of them are looked at before the first is read, which may take a while.
    let mut opened = Vec::new();
    for path in paths {
        let (file, metadata) = open(&path)?;
        if metadata.is_file() {
            room = room.checked_sub(metadata.len()).ok_or_else(|| {
                let others = MAX_UPLOAD_BYTES - room;
                Failure::new(Exit::BadUsage, UploadRefusal::Bytes(others.saturating_add(metadata.len())))
            })?;
            bar.expect(metadata.len());
        }
        // Opened again when its turn comes: there may be more of them than this process may have open.
        opened.push((path, (!metadata.is_file()).then_some(file)));
    }
    for (path, pipe) in opened {
        let name = path.to_str().unwrap_or_default().to_owned();
        files.push(match pipe {
            Some(pipe) => spool(name, pipe, &mut room, bar)?,
            None => {
                let hashed = hash(name, open(&path)?.0, None, u64::MAX, bar).map_err(|error| unreadable(&path, &error))?;
                Local { hashed, source: Place::Path(path) }
            }
        });
    }
    if stdin {
        if io::stdin().is_terminal() {
            let _ = writeln!(io::stderr(), "reading the input of the job from the terminal; Ctrl-D ends it");
        }
        files.push(spool(STDIN.to_owned(), io::stdin().lock(), &mut room, bar)?);
    }
    Ok(Found { files, by_pattern })
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::say(Exit::BadUsage, format!("cannot read {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::NotFound => {
            failure.fix("--upload and upload: name files of this machine; files that the workers see are named by --input")
        }
        _ => failure,
    }
}

/// The files that an absolute path or pattern means: of a directory all below it but hidden ones, as on workers.
fn expand(pattern: &str) -> Result<Vec<PathBuf>, Failure> {
    let matched = glob::glob(pattern).map_err(|error| Failure::new(Exit::BadUsage, error))?;
    let mut found = BTreeSet::new();
    let mut any = false;
    for path in matched {
        any = true;
        let path = path.map_err(|error| unreadable(error.path(), error.error()))?;
        below(&path, &mut found)?;
    }
    if !any {
        return Err(unreadable(Path::new(&unescaped(pattern)), &io::Error::from_raw_os_error(2)));
    }
    if found.is_empty() {
        let message =
            format!("the directory {} has no files (hidden ones, whose names begin with a dot, are passed over)", unescaped(pattern));
        return Err(Failure::say(Exit::BadUsage, message));
    }
    Ok(found.into_iter().collect())
}

/// As the user wrote it, where a character that means something in a pattern was meant literally.
fn unescaped(pattern: &str) -> String {
    ["[", "]", "*", "?"].iter().fold(pattern.to_owned(), |text, c| text.replace(&format!("[{c}]"), c))
}

fn below(path: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), Failure> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_dir() {
        found.insert(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
        // Links to directories are not followed: they may lead back up.
        let is_file = kind.is_file() || (kind.is_symlink() && fs::metadata(entry.path()).is_ok_and(|target| target.is_file()));
        if !hidden && (kind.is_dir() || is_file) {
            below(&entry.path(), found)?;
        }
        if found.len() > MAX_UPLOAD_FILES {
            return Err(Failure::new(Exit::BadUsage, UploadRefusal::Files(found.len())).context(format!("in {}", path.display())));
        }
    }
    Ok(())
}

/// An ordinary file, or a pipe.
fn open(path: &Path) -> Result<(File, Metadata), Failure> {
    let before = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !before.is_file() && !before.file_type().is_fifo() {
        let message = format!("{} is neither a file nor a pipe", path.display());
        return Err(Failure::say(Exit::BadUsage, message).fix("name files; `-` is standard input"));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    Ok((file, metadata))
}

/// What comes through a pipe goes into a temporary file without a name: what it is called is known only when all of it is there.
fn spool(name: String, pipe: impl Read, room: &mut u64, bar: &Bar) -> Result<Local, Failure> {
    let fix = "set TMPDIR to a directory with room";
    let mut file =
        tempfile::tempfile().map_err(|error| Failure::new(Exit::Internal, error).context("cannot make a temporary file").fix(fix))?;
    let hashed = hash(name.clone(), pipe, Some(&mut file), *room, bar).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => {
            Failure::say(Exit::Internal, format!("cannot hold {name} in a temporary file of this machine: {error}")).fix(fix)
        }
        _ => unreadable(Path::new(&name), &error),
    })?;
    *room = room
        .checked_sub(hashed.bytes)
        .ok_or_else(|| Failure::new(Exit::BadUsage, UploadRefusal::Bytes(MAX_UPLOAD_BYTES + 1)).context(format!("{name} is too long")))?;
    Ok(Local { hashed, source: Place::Spooled(file) })
}

/// Reads to the end, or a little beyond `limit`.
fn hash(name: String, mut from: impl Read, mut into: Option<&mut File>, limit: u64, bar: &Bar) -> io::Result<HashedFile> {
    let mut buffer = vec![0; UPLOAD_PIECE_BYTES];
    let (mut sha256, mut bytes) = (Sha256::new(), 0);
    while bytes <= limit {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        sha256.update(&buffer[..read]);
        if let Some(file) = &mut into {
            file.write_all(&buffer[..read])?;
        }
        bytes += read as u64;
        bar.add(read as u64);
    }
    Ok(HashedFile { name, bytes, sha256: sha256.finalize().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::{Console, Format};

    fn bar() -> Bar {
        Bar::new(&Console::new(Format::Table, true), "reading")
    }

    fn found(pattern: &str) -> Result<Vec<(String, u64)>, String> {
        let found = read(&[format!("upload:{pattern}")], &bar()).map_err(|failure| failure.lines().join("\n"))?;
        Ok(found.files.into_iter().map(|file| (file.hashed.name, file.hashed.bytes)).collect())
    }

    #[test]
    fn files_patterns_and_directories_mean_what_they_mean_on_workers() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(at("logs/deep")).unwrap();
        for (name, text) in
            [("logs/b.txt", "bb"), ("logs/a.txt", ""), ("logs/.hidden", "x"), ("logs/deep/c.txt", "ccc"), ("odd[1].txt", "o")]
        {
            fs::write(at(name), text).unwrap();
        }
        let all = vec![(at("logs/a.txt"), 0), (at("logs/b.txt"), 2), (at("logs/deep/c.txt"), 3)];
        assert_eq!(found(&at("logs")).unwrap(), all);
        assert_eq!(found(&at("logs/*.txt")).unwrap(), all[..2]);
        assert_eq!(found(&glob::Pattern::escape(&at("odd[1].txt"))).unwrap(), [(at("odd[1].txt"), 1)]);
    }

    #[test]
    fn what_cannot_be_uploaded_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let said = found(&at("no[.]txt")).unwrap_err();
        assert!(said.contains("cannot read") && said.contains("No such file") && said.contains("--input"), "{said}");
        fs::create_dir(at("empty")).unwrap();
        assert!(found(&at("empty")).unwrap_err().contains("has no files"));
        assert!(found("/dev/null").unwrap_err().contains("neither a file nor a pipe"));
        let large = File::create(at("large")).unwrap();
        large.set_len(MAX_UPLOAD_BYTES + 1).unwrap();
        assert!(found(&at("large")).unwrap_err().contains("64 GiB"), "before any of it is read");
    }

    #[test]
    fn a_pipe_is_held_until_all_of_it_has_come() {
        let mut room = 10;
        let local = spool("stdin".into(), &b"a few words"[..8], &mut room, &bar()).unwrap();
        assert_eq!((local.hashed.bytes, room), (8, 2));
        let mut text = String::new();
        let mut again = local.open().unwrap();
        io::Seek::rewind(&mut again).unwrap();
        again.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a few wo");
        assert!(spool("stdin".into(), &b"more"[..], &mut room, &bar()).err().unwrap().lines()[0].contains("too long"));
    }
}
