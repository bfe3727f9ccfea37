//! A look at an input before it is cut into partitions: a bounded sample, from places that follow from the input alone.
//!
//! ```text
//! the files one behind the other, cut into equal stretches; from the start of each stretch one window is read
//! |=window=|...........|=window=|...........|=window=|...........
//! ```
//! Windows and not single records: a disk gives a window in the time of one record. What the sample says goes through the log with the job, so
//! it does not matter who takes it; that everybody takes the same one makes a job submitted twice the same job.
use super::store::{self, StoreError};
use raftwerk_formats::{Compression, FormatError};
use raftwerk_kernels::StageContext;
use raftwerk_proto::{
    MAX_SURVEY_BYTES,
    v1::{Files, InputFile, Survey, SurveyRequest},
};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// On a disk that seeks, so many take two seconds or three, of the five that a listing may take.
const WINDOWS: u64 = 256;
/// With 256 of them 8 MiB: twenty records of 100 bytes for each of 4096 partitions.
const WINDOW_BYTES: u64 = 32 << 10;
/// Longer records make fewer windows, so that no more is read; but not fewer than this.
const WINDOWS_MIN: u64 = 8;
/// Small files that one window may go through.
const FILES_PER_WINDOW: usize = 16;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SurveyError {
    #[error("this build has no kernel `{name}` version {version}")]
    Kernel { name: String, version: u32 },
    #[error("protocol error: a survey of an input that was not listed")]
    Input,
    #[error("input of format {0} cannot be surveyed")]
    Format(String),
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("{path}: {source}")]
    Packed { path: String, source: FormatError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("kernel `{kernel}` cannot survey the input: {reason}")]
    Refused { kernel: String, reason: String },
}

/// Answers all requests, or says why one cannot be.
pub(crate) fn answer(requests: &[SurveyRequest], inputs: &[Files]) -> Result<Vec<Survey>, SurveyError> {
    requests.iter().map(|request| one(request, inputs.get(request.input as usize).ok_or(SurveyError::Input)?)).collect()
}

fn one(request: &SurveyRequest, files: &Files) -> Result<Survey, SurveyError> {
    let wanted = request.kernel.clone().unwrap_or_default();
    let kernel = raftwerk_kernels::find(&wanted.name).ok().filter(|kernel| kernel.descriptor().version == wanted.version);
    let kernel = kernel.ok_or(SurveyError::Kernel { name: wanted.name.clone(), version: wanted.version })?;
    if !matches!(files.format.as_str(), "text" | "records" | "npy" | "npy-rows") {
        return Err(SurveyError::Format(files.format.clone()));
    }
    let pieces = pieces(&files.listing);
    let in_store = |piece: &Piece<'_>| store::is_url(&piece.file.path);
    let windows = pieces.iter().filter(|piece| in_store(piece) && piece.file.compression.is_empty()).map(|piece| {
        let (start, bytes) = piece.range();
        (piece.file.path.clone(), start, bytes)
    });
    let mut fetched = store::read_all(windows.collect())?.into_iter();
    let mut read: Vec<(Piece<'_>, Vec<u8>)> = Vec::new();
    for of_file in pieces.chunk_by(|a, b| std::ptr::eq(a.file, b.file)) {
        let Some(Piece { file, .. }) = of_file.first() else { continue };
        let unreadable = |source| SurveyError::Unreadable { path: file.path.clone(), source };
        if let Some(with) = Compression::named(&file.compression) {
            // Nobody can begin in its middle: what would be read from all over it is read from its start.
            let bytes: u64 = of_file.iter().map(|piece| piece.bytes).sum();
            let packed: Box<dyn io::Read> = match store::is_url(&file.path) {
                true => Box::new(io::Cursor::new(store::head(&file.path, bytes as usize + store::PACKED_SLACK)?)),
                false => Box::new(File::open(&file.path).map_err(unreadable)?),
            };
            let head = with.unpack_head(packed, bytes as usize);
            let head = head.map_err(|source| SurveyError::Packed { path: file.path.clone(), source })?;
            read.push((Piece { file, offset: 0, bytes: head.len() as u64 }, head));
            continue;
        }
        for &Piece { file, offset, bytes } in of_file {
            let piece = Piece { file, offset, bytes };
            let bytes = match in_store(&piece) {
                true => fetched.next().unwrap_or_default(),
                false => piece.read().map_err(unreadable)?,
            };
            read.push((piece, bytes));
        }
    }
    let samples: Vec<&[u8]> = read.iter().flat_map(|(piece, bytes)| piece.samples(bytes)).collect();
    let stage = StageContext {
        params: request.params.iter().map(|param| (param.name.clone(), param.value.clone())).collect(),
        partitions: request.partitions.max(1),
        record_bytes: files.record_bytes,
        ..StageContext::default()
    };
    let refused = |reason: String| SurveyError::Refused { kernel: wanted.name.clone(), reason };
    // A kernel that panics must not end the agent.
    let made = catch_unwind(AssertUnwindSafe(|| kernel.survey(&stage, &samples)));
    let survey = made.map_err(|_| refused("it panicked".into()))?.map_err(|error| refused(error.to_string()))?;
    if survey.len() > MAX_SURVEY_BYTES {
        return Err(refused(format!("it makes {} bytes of it, more than {MAX_SURVEY_BYTES}", survey.len())));
    }
    Ok(Survey { input: request.input, survey: survey.into() })
}

/// The part of a window that lies in one file, counted from its first record or line.
#[derive(Debug, PartialEq)]
struct Piece<'a> {
    file: &'a InputFile,
    offset: u64,
    bytes: u64,
}

fn data_bytes(file: &InputFile) -> u64 {
    file.bytes.saturating_sub(file.data_offset)
}

fn pieces(files: &[InputFile]) -> Vec<Piece<'_>> {
    let total = files.iter().map(data_bytes).fold(0, u64::saturating_add);
    if total == 0 {
        return Vec::new();
    }
    let longest = files.iter().map(|file| u64::from(file.record_bytes)).max().unwrap_or(0).max(WINDOW_BYTES);
    let windows = (WINDOWS * WINDOW_BYTES / longest).max(WINDOWS_MIN).min(total.div_ceil(longest));
    let start_of = |window: u64| (u128::from(total) * u128::from(window) / u128::from(windows)) as u64;
    let mut pieces = Vec::new();
    let (mut at, mut before) = (0, 0); // a file, and the bytes of all files before it
    for window in 0..windows {
        let (start, end) = (start_of(window), start_of(window + 1));
        let mut left = (end - start).min(longest);
        while at < files.len() && before + data_bytes(&files[at]) <= start {
            before += data_bytes(&files[at]);
            at += 1;
        }
        let mut offset = start - before;
        for file in files[at.min(files.len())..].iter().take(FILES_PER_WINDOW) {
            let bytes = left.min(data_bytes(file) - offset);
            if bytes > 0 {
                pieces.push(Piece { file, offset, bytes });
            }
            left -= bytes;
            offset = 0;
            if left == 0 {
                break;
            }
        }
    }
    pieces
}

impl Piece<'_> {
    /// What has to be read of the file: whole records that start in the piece; for lines, from the byte before it, which tells whether a line starts
    /// at its beginning.
    fn range(&self) -> (u64, u64) {
        let (start, end) = match u64::from(self.file.record_bytes) {
            0 => (self.offset.saturating_sub(1), self.offset + self.bytes),
            record => {
                let up = |at: u64| (at.div_ceil(record).saturating_mul(record)).min(data_bytes(self.file));
                (up(self.offset), up(self.offset + self.bytes))
            }
        };
        (self.file.data_offset + start, end.saturating_sub(start))
    }

    /// A file that has become shorter since it was listed gives less; the job will find that out.
    fn read(&self) -> io::Result<Vec<u8>> {
        let (start, bytes) = self.range();
        let file = File::open(&self.file.path)?;
        let mut buffer = vec![0; bytes as usize];
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], start + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    fn samples<'b>(&self, read: &'b [u8]) -> Vec<&'b [u8]> {
        if self.file.record_bytes > 0 {
            return read.chunks_exact(self.file.record_bytes as usize).collect();
        }
        let text = match self.offset {
            0 => read,
            // Whatever ends here began before the piece.
            _ => match memchr::memchr(b'\n', read) {
                Some(newline) => &read[newline + 1..],
                None => return Vec::new(),
            },
        };
        let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let goes_on = !self.file.compression.is_empty() || self.offset + self.bytes < data_bytes(self.file);
        let cut = lines.last().is_some_and(|last| !last.ends_with(b"\n")) && goes_on;
        // Its key may be cut as well; alone it is better than nothing.
        if cut && lines.len() > 1 {
            lines.pop();
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, bytes: u64, data_offset: u64, record_bytes: u32) -> InputFile {
        InputFile { path: path.into(), bytes, data_offset, record_bytes, ..InputFile::default() }
    }

    fn lines_of(text: &[u8]) -> Vec<Vec<u8>> {
        text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }

    /// Every sample that would be handed to a kernel.
    fn sampled(files: &[InputFile]) -> Vec<Vec<u8>> {
        let all = pieces(files).into_iter();
        all.flat_map(|piece| piece.samples(&piece.read().unwrap()).into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn of_a_large_input_a_bounded_part_is_read_from_all_over_it() {
        let files = [file("a", 3 << 40, 0, 0), file("empty", 0, 0, 0), file("b", 1 << 40, 0, 100)];
        let pieces = pieces(&files);
        assert_eq!(pieces.len() as u64, WINDOWS);
        assert_eq!(pieces[0], Piece { file: &files[0], offset: 0, bytes: WINDOW_BYTES });
        assert_eq!(pieces.iter().filter(|piece| piece.file.path == "b").count() as u64, WINDOWS / 4);
        assert!(pieces.iter().map(|piece| piece.range().1).sum::<u64>() <= WINDOWS * (WINDOW_BYTES + 100));
        let longest = [file("c", 1 << 40, 0, 1 << 20)];
        let read: u64 = super::pieces(&longest).iter().map(|piece| piece.range().1).sum();
        assert_eq!(read, WINDOWS_MIN << 20, "long records make fewer windows");
    }

    #[test]
    fn an_input_without_a_byte_has_no_sample() {
        assert_eq!(pieces(&[]), []);
        assert_eq!(pieces(&[file("a", 0, 0, 0), file("b.npy", 128, 128, 4)]), []);
    }

    #[test]
    fn a_line_longer_than_a_window_is_a_sample_where_it_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        std::fs::write(&path, vec![b'x'; 20 << 20]).unwrap();
        let samples = sampled(&[file(path.to_str().unwrap(), 20 << 20, 0, 0)]);
        assert_eq!(samples.iter().map(Vec::len).collect::<Vec<_>>(), [WINDOW_BYTES as usize]);
    }

    proptest! {
        /// A small input is its own sample.
        #[test]
        fn every_line_of_a_small_input_is_seen_whole_and_once(texts in prop::collection::vec("[ab\n]{0,40}", 1..12)) {
            let dir = tempfile::tempdir().unwrap();
            let (mut files, mut expected) = (Vec::new(), Vec::new());
            for (number, text) in texts.iter().enumerate() {
                let path = dir.path().join(number.to_string());
                std::fs::write(&path, text).unwrap();
                files.push(file(path.to_str().unwrap(), text.len() as u64, 0, 0));
                expected.extend(lines_of(text.as_bytes()));
            }
            prop_assert_eq!(sampled(&files), expected);
        }

        #[test]
        fn samples_of_records_are_records(record in 1u32..50, counts in prop::collection::vec(0u64..5000, 1..5)) {
            let dir = tempfile::tempdir().unwrap();
            let mut files = Vec::new();
            for (number, count) in counts.iter().enumerate() {
                let path = dir.path().join(number.to_string());
                let bytes: Vec<u8> = (0..*count).flat_map(|at| vec![at as u8; record as usize]).collect();
                std::fs::write(&path, &bytes).unwrap();
                files.push(file(path.to_str().unwrap(), bytes.len() as u64, 0, record));
            }
            let samples = sampled(&files);
            prop_assert!(samples.iter().all(|sample| sample.len() == record as usize && sample.iter().all(|byte| *byte == sample[0])));
            prop_assert_eq!(samples.is_empty(), counts.iter().sum::<u64>() == 0);
        }
    }
}
