//! Which files a job's patterns mean, as this worker sees them.
use super::pattern::{self, PatternWalkError};
use super::{destination, footers, npy, store, survey, takes};
use crate::table;
use raftwerk_formats::{Compression, Format, FormatError, HEAD_BYTES};
use raftwerk_kernels::png_file::{HEADER_BYTES, PngHeader, PngProblem};
use raftwerk_proto::v1::{Files, IfExists, InputFile, InputListing, ListInputs, StageReads};
use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Of more files than this only so many are opened, or looked into, when they are listed: what is wrong with one of the others shows when a task reads
/// it. A million files are listed in seconds; to open them all takes longer than anybody waits.
const LOOKED_INTO: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListingError {
    #[error("no file matches '{pattern}' on worker {worker}")]
    NothingMatches { pattern: String, worker: String },
    #[error("the directory '{directory}' on worker {worker} has no files (hidden ones, whose names begin with a dot, are passed over)")]
    NoFiles { directory: String, worker: String },
    #[error("'{pattern}' is not a pattern: {source}")]
    Pattern { pattern: String, source: glob::PatternError },
    #[error("cannot read {} on worker {worker}: {source}", path.display())]
    Unreadable { path: PathBuf, worker: String, source: io::Error },
    #[error("{} on worker {worker} is {kind}; jobs read ordinary files, which can be split and read again: write the data to a file first", path.display())]
    Special { path: PathBuf, worker: String, kind: &'static str },
    #[error(
        "{} on worker {worker} says that it holds {said} bytes, but {found}; files that the system makes up while they are read, as under /proc and /sys, cannot be split: copy it to an ordinary file first",
        path.display()
    )]
    MadeUp { path: PathBuf, worker: String, said: u64, found: &'static str },
    #[error("{}: its name is not valid UTF-8", path.display())]
    Name { path: PathBuf },
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error("{}: {source}", path.display())]
    Npy { path: PathBuf, source: npy::NpyError },
    #[error("{}: {source}", path.display())]
    Png { path: PathBuf, source: PngProblem },
    #[error("{}: {source}", path.display())]
    Table { path: PathBuf, source: FormatError },
    #[error("{}: {source}", path.display())]
    Packed { path: PathBuf, source: FormatError },
    #[error("{0}")]
    TableFormat(String),
    #[error("{} has {bytes} bytes; a file that is one task has less than 4 GiB", path.display())]
    Large { path: PathBuf, bytes: u64 },
    #[error("unknown input format `{0}`: expected `text`, `npy`, `npy-rows`, `png`, `records`, `csv`, `jsonl`, `parquet` or `arrow`")]
    Format(String),
    #[error("{} has {bytes} bytes, which is no whole number of records of {record} bytes; set [input] record to the right length, or mend the file", path.display())]
    Records { path: PathBuf, bytes: u64, record: u32 },
    #[error("an input of records needs their length, and none was given")]
    RecordLength,
}

/// Answers a planning request; never fails as a whole, the error travels in the answer.
pub(crate) fn answer(request: ListInputs, worker: &str) -> InputListing {
    let replace = request.if_exists() == IfExists::Replace;
    let output_problem = output_path(&request.output_url).and_then(|path| destination::problem(&path, replace)).unwrap_or_default();
    let mut listing = InputListing { request: request.request, output_problem, ..InputListing::default() };
    if let Some(error) = output_path(&request.output_url).and_then(|path| destination::unwritable(&path, worker)) {
        (listing.error, listing.output_error) = (error, true);
        return listing;
    }
    if store::is_url(&request.output_url) {
        match store::output_problem(&request.output_url) {
            Ok(()) => {}
            Err(problem @ store::StoreError::InTheWay { .. }) => listing.output_problem = problem.to_string(),
            Err(error) => {
                (listing.error, listing.output_error) = (error.to_string(), true);
                return listing;
            }
        }
    }
    let readers = request.readers;
    for (number, input) in request.inputs.into_iter().enumerate() {
        let (format, record) = (input.format.clone(), input.record_bytes);
        match list(input, worker) {
            Ok(files) => listing.inputs.push(files),
            Err(error) => {
                match refused(&readers, number, &called(&format, record), &error) {
                    Some(problem) => listing.input_problem = problem,
                    None => listing.error = error.to_string(),
                }
                return listing;
            }
        }
    }
    listing.input_problem = takes::problem(&readers, &listing.inputs).unwrap_or_default();
    listing.findings = takes::findings(&readers, &listing.inputs);
    if listing.input_problem.is_empty() {
        match survey::answer(&request.surveys, &listing.inputs) {
            Ok(surveys) => listing.surveys = surveys,
            Err(error @ survey::SurveyError::Packed { .. }) => listing.input_problem = format!("the input cannot be read: {error}"),
            Err(error @ survey::SurveyError::Refused { .. }) => listing.input_problem = error.to_string(),
            Err(error) => listing.error = format!("worker {worker}: {error}"),
        }
    }
    listing
}

/// What is said of a file that is there and not what the job says of it: no other worker can do better. `what` is what it was to be.
fn refused(readers: &[StageReads], input: usize, what: &str, error: &ListingError) -> Option<String> {
    let fix = if what == PNG { NO_PNG_FIX } else { "" };
    let unread = |what: &str| Some(format!("the input cannot be read as {what}: {error}{fix}"));
    match error {
        ListingError::Npy { path, source: npy::NpyError::Dtype(found) } => {
            takes::problem_of_type(readers, input, path.to_str()?, &format!("'{found}'"))
        }
        ListingError::Npy { source: npy::NpyError::Read(_), .. } => None,
        ListingError::Npy { .. } | ListingError::Png { .. } | ListingError::Records { .. } => unread(what),
        ListingError::Packed { source: FormatError::NotCompressed { with, .. }, .. } => unread(with),
        ListingError::Packed { .. } => unread(what),
        // The file is sound, and the job asks for what it has not.
        ListingError::Table { source, .. } if source.is_about_columns() => Some(error.to_string()),
        ListingError::Table { .. } => unread(what),
        ListingError::Store(store::StoreError::Content { url, reason, .. }) => {
            Some(format!("the input cannot be read as {what}: {url}: {reason}{fix}"))
        }
        ListingError::Special { .. } | ListingError::MadeUp { .. } | ListingError::Name { .. } | ListingError::Large { .. } => {
            Some(error.to_string())
        }
        _ => None,
    }
}

/// As [`called`] calls it.
const PNG: &str = "PNG";
const NO_PNG_FIX: &str =
    "\nfix: leave the file out of [input] files, or save the picture as PNG: grey or RGB, 8 bits per channel, not interlaced";

/// A format of input, for people.
fn called(format: &str, record_bytes: u32) -> String {
    match format {
        "npy" | "npy-rows" => "a NumPy array".into(),
        "png" => PNG.into(),
        "csv" => "CSV".into(),
        "jsonl" => "JSON lines".into(),
        "parquet" => "Parquet".into(),
        "arrow" => "an Arrow file".into(),
        "records" => format!("records of {record_bytes} bytes"),
        other => other.into(),
    }
}

/// The path behind a `file://` URL; the rest of the URL is the path as it is.
pub(crate) fn output_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://")?;
    path.starts_with('/').then(|| Path::new(path).components().collect())
}

/// Version of a file: its modification time in nanoseconds.
pub(crate) fn version(metadata: &Metadata) -> u64 {
    (metadata.mtime() as u64).wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec() as u64)
}

pub(super) fn list(mut files: Files, worker: &str) -> Result<Files, ListingError> {
    if !matches!(files.format.as_str(), "text" | "npy" | "npy-rows" | "png" | "records" | "csv" | "jsonl" | "parquet" | "arrow") {
        return Err(ListingError::Format(files.format));
    }
    if files.format == "records" && files.record_bytes == 0 {
        return Err(ListingError::RecordLength);
    }
    let table = match &files.table {
        Some(table) => Some((table::format(&files).map_err(ListingError::TableFormat)?, table.columns.clone())),
        None => None,
    };
    // By path, so that a file that two patterns match is read once.
    let mut found: BTreeMap<PathBuf, Found> = BTreeMap::new();
    let mut objects: BTreeMap<String, store::Listed> = BTreeMap::new();
    for pattern in &files.patterns {
        if store::is_url(pattern) {
            objects.extend(store::list(pattern)?.into_iter().map(|object| (object.url.clone(), object)));
            continue;
        }
        let mut matched: BTreeMap<PathBuf, Found> = BTreeMap::new();
        for path in expand(pattern, worker)? {
            collect(path, worker, &mut matched)?;
        }
        if matched.is_empty() {
            if fs::metadata(pattern).is_ok_and(|metadata| metadata.is_dir()) {
                return Err(ListingError::NoFiles { directory: pattern.clone(), worker: worker.into() });
            }
            return Err(ListingError::NothingMatches { pattern: pattern.clone(), worker: worker.into() });
        }
        found.append(&mut matched);
    }
    files.listing = found
        .into_iter()
        .enumerate()
        .map(|(number, (path, found))| match number < LOOKED_INTO || !is_plain(&files, &path, found) {
            true => describe(path, found, &files, worker),
            false => measured(&path, found, &files),
        })
        .collect::<Result<_, _>>()?;
    for object in objects.values() {
        files.listing.push(store::describe(object, &files)?);
    }
    if let Some((kind, columns)) = table.as_ref().and_then(|(format, columns)| Some((format.columnar()?, columns))) {
        footers::read(&mut files.listing, kind, columns, worker)?;
    } else if let Some((format, columns)) = table {
        check_table(&files.listing, &format, &columns, worker)?;
    }
    Ok(files)
}

/// A name that exists is itself, whatever characters it has; otherwise it is a pattern.
fn expand(name: &str, worker: &str) -> Result<Vec<PathBuf>, ListingError> {
    let unreadable = |path: PathBuf, source: io::Error| ListingError::Unreadable { path, worker: worker.into(), source };
    match fs::metadata(name) {
        Ok(_) => return Ok(vec![PathBuf::from(name)]),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(unreadable(name.into(), error)),
    }
    pattern::files(name).map_err(|error| match error {
        PatternWalkError::Pattern(source) => ListingError::Pattern { pattern: name.into(), source },
        PatternWalkError::Unreadable { path, source } => unreadable(path, source),
        PatternWalkError::Name { path } => ListingError::Name { path },
    })
}

/// What a listing remembers of a file.
#[derive(Clone, Copy, Debug)]
struct Found {
    bytes: u64,
    version: u64,
}

/// Whether there is nothing to be looked at in such a file before a task reads it.
fn is_plain(files: &Files, path: &Path, found: Found) -> bool {
    let packed = path.to_str().is_none_or(|path| compression(files, path).is_some());
    matches!(files.format.as_str(), "text" | "csv" | "jsonl" | "records") && !packed && !matches!(found.bytes, 0 | PAGE_BYTES)
}

/// What name and size of a file tell.
fn measured(path: &Path, found: Found, files: &Files) -> Result<InputFile, ListingError> {
    let text = path.to_str().ok_or_else(|| ListingError::Name { path: path.to_owned() })?.to_owned();
    let mut input = InputFile { path: text, bytes: found.bytes, version: found.version, ..InputFile::default() };
    if files.format == "records" {
        input.record_bytes = files.record_bytes;
        // What is left behind the last whole record is one that cannot be read.
        if files.bad_records == 0 && !found.bytes.is_multiple_of(files.record_bytes.into()) {
            return Err(ListingError::Records { path: path.to_owned(), bytes: found.bytes, record: files.record_bytes });
        }
    }
    Ok(input)
}

fn collect(path: PathBuf, worker: &str, found: &mut BTreeMap<PathBuf, Found>) -> Result<(), ListingError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ListingError::Unreadable { path, worker: worker.into(), source }
    };
    let metadata = fs::metadata(&path).map_err(unreadable(&path))?;
    if metadata.is_file() {
        found.insert(path, Found { bytes: metadata.len(), version: version(&metadata) });
        return Ok(());
    }
    if !metadata.is_dir() {
        return Err(ListingError::Special { path, worker: worker.into(), kind: kind_of(&metadata) });
    }
    for entry in fs::read_dir(&path).map_err(unreadable(&path))? {
        let entry = entry.map_err(unreadable(&path))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Links to directories are not followed: they may lead back up.
        let kind = entry.file_type().map_err(unreadable(&entry.path()))?;
        let target_is_file = kind.is_file() || (kind.is_symlink() && fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file()));
        if !hidden && (kind.is_dir() || target_is_file) {
            collect(entry.path(), worker, found)?;
        }
    }
    Ok(())
}

fn describe(path: PathBuf, found: Found, files: &Files, worker: &str) -> Result<InputFile, ListingError> {
    let format = files.format.as_str();
    // Opened here already: a file that may not be read is an error before the job starts, not an hour into it.
    let unreadable = |source| ListingError::Unreadable { path: path.clone(), worker: worker.into(), source };
    let mut file = File::open(&path).map_err(unreadable)?;
    if let Some(what) = belied(&file, found.bytes).map_err(unreadable)? {
        return Err(ListingError::MadeUp { path, worker: worker.into(), said: found.bytes, found: what });
    }
    let mut input = measured(&path, found, files)?;
    if matches!(format, "npy" | "npy-rows") {
        let header = npy::read_header(&mut file, found.bytes);
        let header = if format == "npy-rows" { header.and_then(npy::NpyHeader::by_rows) } else { header };
        let header = header.map_err(|source| ListingError::Npy { path: path.clone(), source })?;
        input.data_offset = header.data_offset;
        input.record_bytes = header.record_bytes;
        input.dtype = header.dtype.into();
    }
    if let Some(with) = compression(files, &input.path) {
        let mut start = Vec::new();
        (&file).take(4).read_to_end(&mut start).map_err(unreadable)?;
        with.check_start(&start).map_err(|source| ListingError::Packed { path: path.clone(), source })?;
        input.compression = with.name().into();
    }
    if format == "png" {
        let mut start = Vec::new();
        file.take(HEADER_BYTES as u64).read_to_end(&mut start).map_err(unreadable)?;
        PngHeader::read(&start).map_err(|source| ListingError::Png { path: path.clone(), source })?;
        // One record, so that the file is one split.
        input.record_bytes = u32::try_from(found.bytes).map_err(|_| ListingError::Large { path: path.clone(), bytes: found.bytes })?;
    }
    Ok(input)
}

/// How a file is compressed, by what the job or else its name says.
pub(super) fn compression(files: &Files, path: &str) -> Option<Compression> {
    if !matches!(files.format.as_str(), "text" | "csv" | "jsonl") {
        return None;
    }
    if files.compression.is_empty() { Compression::of_path(path) } else { Compression::named(&files.compression) }
}

/// Where rows differ, it is enough that one file has a column; else all of them must.
fn check_table(listing: &[InputFile], format: &Format, columns: &[String], worker: &str) -> Result<(), ListingError> {
    let check = |file: &InputFile, columns: &[String]| check_columns(file, format, columns, worker);
    if !format.rows_differ() {
        return listing.iter().take(LOOKED_INTO).try_for_each(|file| check(file, columns));
    }
    for column in columns.chunks(1) {
        let mut lacking = None;
        for file in listing {
            match check(file, column) {
                Ok(()) => {
                    lacking = None;
                    break;
                }
                Err(error @ ListingError::Table { .. }) => lacking = lacking.or(Some(error)),
                Err(other) => return Err(other),
            }
        }
        lacking.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// A column that a file lacks is an error before the job starts, not when its first task runs.
fn check_columns(file: &InputFile, format: &Format, columns: &[String], worker: &str) -> Result<(), ListingError> {
    let path = Path::new(&file.path);
    let wrong = |source| ListingError::Table { path: path.to_owned(), source };
    let head = |bytes: usize| -> Result<Vec<u8>, ListingError> {
        if store::is_url(&file.path) {
            let Some(with) = Compression::named(&file.compression) else { return Ok(store::head(&file.path, bytes)?) };
            let packed = store::head(&file.path, bytes + store::PACKED_SLACK)?;
            return with.unpack_head(packed.as_slice(), bytes).map_err(wrong);
        }
        let unreadable = |source| ListingError::Unreadable { path: path.to_owned(), worker: worker.into(), source };
        let opened = File::open(path).map_err(unreadable)?;
        if let Some(with) = Compression::named(&file.compression) {
            return with.unpack_head(opened, bytes).map_err(wrong);
        }
        let mut head = Vec::new();
        opened.take(bytes as u64).read_to_end(&mut head).map_err(unreadable)?;
        Ok(head)
    };
    let check = |head: &[u8]| format.check_columns(head, columns.iter().map(String::as_str));
    // A first row is nearly always short; when it looks wrong, it may only be cut off.
    if check(&head(FIRST_LOOK)?).is_ok() {
        return Ok(());
    }
    check(&head(HEAD_BYTES)?).map_err(wrong)
}

const FIRST_LOOK: usize = 16 << 10;

fn kind_of(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// What sysfs says of each of its files, whatever they hold.
const PAGE_BYTES: u64 = 4096;

/// How the content shows that the size is made up. Files of proc have size 0 and those of sysfs a page; a job would count nothing, or take
/// a file for cut off in the middle. Ordinary files pay one read of a byte when their size is one of these two.
fn belied(file: &File, bytes: u64) -> io::Result<Option<&'static str>> {
    let there = |at: u64| file.read_at(&mut [0], at).map(|read| read > 0);
    Ok(match bytes {
        0 if there(0)? => Some("has content"),
        PAGE_BYTES if !there(PAGE_BYTES - 1)? => Some("ends before"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::TableFormat;
    use std::os::unix::fs::PermissionsExt;

    fn listing(patterns: &[String], format: &str) -> Result<Vec<(String, u64)>, String> {
        let files = Files { patterns: patterns.to_vec(), format: format.into(), ..Files::default() };
        let answer = answer(ListInputs { request: 1, inputs: vec![files], ..ListInputs::default() }, "anna");
        let problem = answer.error + &answer.input_problem;
        if !problem.is_empty() {
            return Err(problem);
        }
        Ok(answer.inputs[0].listing.iter().map(|file| (file.path.clone(), file.bytes)).collect())
    }

    #[test]
    fn directories_globs_and_names_are_listed_sorted_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(at("sub/.hidden")).unwrap();
        for (name, text) in
            [("b.txt", "bb"), ("a.txt", ""), (".secret", "x"), ("sub/c.txt", "ccc"), ("sub/.hidden/d", "d"), ("w[1].txt", "odd")]
        {
            fs::write(at(name), text).unwrap();
        }
        let all = [(at("a.txt"), 0), (at("b.txt"), 2), (at("sub/c.txt"), 3), (at("w[1].txt"), 3)];
        assert_eq!(listing(&[at("")], "text").unwrap(), all);
        assert_eq!(listing(&[at("*.txt"), at("a.txt")], "text").unwrap().len(), 3);
        assert_eq!(listing(&[at("**")], "text").unwrap(), all, "a trailing `**` means the files below");
        assert_eq!(listing(&[at("*")], "text").unwrap().len(), 3, "`*` stays within its directory");
        assert_eq!(listing(&[at("w[1].txt")], "text").unwrap(), [(at("w[1].txt"), 3)]);
    }

    #[test]
    fn what_matches_nothing_is_named_with_the_worker() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = dir.path().join("*.csv").to_str().unwrap().to_owned();
        assert_eq!(listing(std::slice::from_ref(&pattern), "text").unwrap_err(), format!("no file matches '{pattern}' on worker anna"));
        let empty = dir.path().to_str().unwrap().to_owned();
        fs::write(dir.path().join(".hidden"), "x").unwrap();
        let error = listing(std::slice::from_ref(&empty), "text").unwrap_err();
        assert!(error.starts_with(&format!("the directory '{empty}' on worker anna has no files (hidden ones")), "{error}");
    }

    #[test]
    fn an_unreadable_file_is_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locked.txt");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        if File::open(&path).is_ok() {
            return eprintln!("skipped: root reads everything");
        }
        let error = listing(&[path.to_str().unwrap().to_owned()], "text").unwrap_err();
        assert!(error.contains("locked.txt") && error.contains("ermission denied"), "{error}");
    }

    /// Counting the words of /proc/cpuinfo gave an empty result, since its size is 0.
    #[test]
    fn files_whose_size_is_made_up_are_refused_and_empty_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.txt").to_str().unwrap().to_owned();
        fs::write(&empty, "").unwrap();
        assert_eq!(listing(std::slice::from_ref(&empty), "text").unwrap(), [(empty, 0)]);
        let page = dir.path().join("page.txt").to_str().unwrap().to_owned();
        fs::write(&page, [b'x'; PAGE_BYTES as usize]).unwrap();
        assert_eq!(listing(std::slice::from_ref(&page), "text").unwrap(), [(page, PAGE_BYTES)]);
        let error = listing(&["/proc/self/status".into()], "text").unwrap_err();
        assert!(error.contains("/proc/self/status on worker anna says that it holds 0 bytes, but has content"), "{error}");
        let attribute = "/sys/kernel/mm/transparent_hugepage/enabled";
        if fs::metadata(attribute).is_ok_and(|metadata| metadata.len() == PAGE_BYTES) {
            let error = listing(&[attribute.into()], "text").unwrap_err();
            assert!(error.contains("says that it holds 4096 bytes, but ends before"), "{error}");
        } else {
            eprintln!("skipped: no sysfs here");
        }
    }

    #[test]
    fn special_files_are_refused_with_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        for (path, kind) in [(at("socket"), "a socket"), (at("pipe"), "a pipe"), ("/dev/null".into(), "a device")] {
            let error = listing(std::slice::from_ref(&path), "text").unwrap_err();
            assert!(error.starts_with(&format!("{path} on worker anna is {kind}; ")), "{error}");
        }
        fs::write(at("a.txt"), "a").unwrap();
        assert_eq!(listing(&[at("")], "text").unwrap(), [(at("a.txt"), 1)], "in a directory they are passed over");
        assert!(listing(&[at("*")], "text").unwrap_err().contains("is a "), "a pattern that matches them names them");
    }

    #[test]
    fn a_file_that_is_no_array_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        fs::write(&path, "hello").unwrap();
        let error = listing(&[path.to_str().unwrap().to_owned()], "npy").unwrap_err();
        assert!(error.contains("x.npy") && error.contains("not an .npy file"), "{error}");
    }

    #[test]
    fn an_image_is_one_record_and_what_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        // Grey, 2 x 1 pixels, 8 bits; its checksum; what follows is not looked at here.
        let picture =
            [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x02\0\0\0\x01\x08\0\0\0\0".as_slice(), &[0xd1, 0x49, 0x20, 0x56], &[0; 40]].concat();
        fs::write(at("good.png"), &picture).unwrap();
        let files = Files { patterns: vec![at("good.png")], format: "png".into(), ..Files::default() };
        let files = list(files, "anna").unwrap();
        assert_eq!(u64::from(files.listing[0].record_bytes), files.listing[0].bytes);
        fs::write(at("short.png"), &picture[..20]).unwrap();
        fs::write(at("text.png"), "hello").unwrap();
        fs::write(at("empty.png"), "").unwrap();
        for (name, expected) in [("short", "its PNG header is damaged"), ("text", "not a PNG file"), ("empty", "not a PNG file")] {
            let path = at(&format!("{name}.png"));
            assert_eq!(
                listing(std::slice::from_ref(&path), "png").unwrap_err(),
                format!("the input cannot be read as PNG: {path}: {expected}{NO_PNG_FIX}")
            );
        }
    }

    #[test]
    fn records_fill_their_file_and_one_that_they_do_not_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("a.bin"), [7; 30]).unwrap();
        fs::write(at("b.bin"), []).unwrap();
        let listed = |record_bytes| {
            let files = Files { patterns: vec![at("*.bin")], format: "records".into(), record_bytes, ..Files::default() };
            list(files, "anna").map_err(|error| error.to_string())
        };
        let files = listed(10).unwrap();
        let shown: Vec<_> = files.listing.iter().map(|file| (file.bytes, file.record_bytes, file.data_offset)).collect();
        assert_eq!(shown, [(30, 10, 0), (0, 10, 0)]);
        let error = listed(7).unwrap_err();
        assert!(error.contains("a.bin has 30 bytes, which is no whole number of records of 7 bytes; set [input] record"), "{error}");
        assert_eq!(listed(0).unwrap_err(), "an input of records needs their length, and none was given");
    }

    #[test]
    fn a_column_that_a_table_lacks_is_named_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("a.csv"), format!("city,amount{}\nOslo,1\n", ",more".repeat(10_000))).unwrap();
        fs::write(at("b.csv"), "city,amonut\nOslo,1\n").unwrap();
        fs::write(at("empty.csv"), "").unwrap();
        let problem = |pattern: &str, format: &str, columns: &[&str]| {
            let columns = columns.iter().map(|name| (*name).to_owned()).collect();
            let table = TableFormat { separator: 44, header: true, columns, ..TableFormat::default() };
            let files = Files { patterns: vec![at(pattern)], format: format.into(), table: Some(table), ..Files::default() };
            list(files, "anna").err().map(|error| error.to_string())
        };
        assert_eq!(problem("*.csv", "csv", &["city"]), None);
        let said = problem("*.csv", "csv", &["city", "amount"]).unwrap();
        assert!(said.starts_with(&at("b.csv")) && said.contains("no column 'amount'; did you mean 'amonut'?"), "{said}");
        fs::write(at("a.jsonl"), "{\"city\": 1}\n").unwrap();
        fs::write(at("b.jsonl"), "{\"user\": {\"name\": 1}}\n").unwrap();
        assert_eq!(problem("*.jsonl", "jsonl", &["city", "user.name"]), None, "rows may lack keys");
        assert!(problem("*.jsonl", "jsonl", &["city", "user.nme"]).unwrap().contains("no column 'user.nme'"));
        let said = problem("b.csv", "orc", &["city"]).unwrap();
        assert!(said.contains("unknown input format `orc`"), "{said}");
    }

    #[test]
    fn output_urls_are_absolute_file_urls() {
        assert_eq!(output_path("file:///a/b/"), Some(PathBuf::from("/a/b")));
        assert_eq!(output_path("file://a/b"), None);
        assert_eq!(output_path("s3://a/b"), None);
    }
}
