//! Compressed files: which they are, and their bytes as they were before.
//!
//! Nobody can begin to read in the middle of such a file, so it is one split. A gzip file of several members and a zstd file of several frames (as
//! `cat` makes them of several files) are read whole.

use crate::error::FormatError;
use std::io::{self, BufRead, BufReader, Read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

/// Begins every gzip member.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Begins every zstd frame, as a little-endian number.
const ZSTD: u32 = 0xfd2f_b528;
/// The same of sixteen kinds of frames that hold no data; some tools begin a file with one.
const ZSTD_SKIPPED: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;

impl Compression {
    pub const ALL: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

    /// As a job file calls it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    pub fn named(name: &str) -> Option<Compression> {
        Compression::ALL.into_iter().find(|one| one.name() == name)
    }

    /// What the end of a file's name says.
    pub fn of_path(path: &str) -> Option<Compression> {
        let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
        match () {
            () if extension.eq_ignore_ascii_case("gz") => Some(Compression::Gzip),
            () if extension.eq_ignore_ascii_case("zst") => Some(Compression::Zstd),
            () => None,
        }
    }

    /// Looks at the first bytes of a file: four of them, or all.
    pub fn check_start(self, start: &[u8]) -> Result<(), FormatError> {
        let is = match self {
            Compression::Gzip => start.starts_with(&GZIP),
            Compression::Zstd => {
                let number = start.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
                number.is_some_and(|number| number == ZSTD || ZSTD_SKIPPED.contains(&number))
            }
        };
        if is { Ok(()) } else { Err(FormatError::NotCompressed { with: self.name(), empty: start.is_empty() }) }
    }

    /// The bytes of a compressed file. `packed` begins with the file.
    pub fn unpack<'a>(self, packed: impl BufRead + 'a) -> Result<Unpacked<'a>, FormatError> {
        let at = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = Counted { inner: packed, at: at.clone() };
        let reader: Box<dyn Read + 'a> = match self {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
            // It asks for the memory of one window, 128 MiB at most; files with a larger one are refused.
            Compression::Zstd => match zstd::stream::read::Decoder::with_buffer(counted) {
                Ok(decoder) => Box::new(decoder),
                Err(error) => return Err(FormatError::Damaged { with: self.name(), at: 0, message: error.to_string() }),
            },
        };
        Ok(Unpacked { with: self, reader, at })
    }

    /// The first `most` bytes of what the file holds, or all.
    pub fn unpack_head<'a>(self, packed: impl Read + 'a, most: usize) -> Result<Vec<u8>, FormatError> {
        let mut unpacked = self.unpack(BufReader::new(packed))?;
        let mut head = Vec::new();
        let mut piece = vec![0; most.min(64 << 10)];
        while head.len() < most {
            let wanted = piece.len().min(most - head.len());
            match unpacked.read(&mut piece[..wanted])? {
                0 => break,
                read => head.extend_from_slice(&piece[..read]),
            }
        }
        Ok(head)
    }
}

/// What a compressed file holds, from its first byte on.
pub struct Unpacked<'a> {
    with: Compression,
    reader: Box<dyn Read + 'a>,
    at: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Unpacked<'_> {
    /// Fills some of `out`; 0 at the end. An error says where in the compressed file it was found.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, FormatError> {
        loop {
            match self.reader.read(out) {
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let (with, at) = (self.with.name(), self.at.get());
                    return Err(match error.kind() {
                        io::ErrorKind::UnexpectedEof => FormatError::CutOff { with, at },
                        _ => FormatError::Damaged { with, at, message: error.to_string() },
                    });
                }
            }
        }
    }
}

/// Counts what has been read.
struct Counted<R> {
    inner: R,
    at: std::rc::Rc<std::cell::Cell<u64>>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.at.set(self.at.get() + read as u64);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.at.set(self.at.get() + bytes as u64);
        self.inner.consume(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn packed(with: Compression, text: &[u8]) -> Vec<u8> {
        match with {
            Compression::Gzip => gzip(text),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
                encoder.include_checksum(true).unwrap();
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn unpacked(with: Compression, packed: &[u8]) -> Result<Vec<u8>, FormatError> {
        with.unpack_head(packed, usize::MAX)
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| b"a few words, and more of them\n"[at * at / 7 % 30]).collect()
    }

    #[test]
    fn members_and_frames_are_read_one_behind_the_other() {
        for with in Compression::ALL {
            let parts = [text(100_000), Vec::new(), text(17)];
            let mut file: Vec<u8> = parts.iter().flat_map(|part| packed(with, part)).collect();
            assert_eq!(unpacked(with, &file).unwrap(), parts.concat(), "{with:?}");
            assert_eq!(with.unpack_head(&file[..], 10).unwrap(), &parts[0][..10]);
            assert_eq!(with.check_start(&file[..4]), Ok(()));
            file.extend(b"and this is neither");
            let error = unpacked(with, &file).unwrap_err();
            assert!(matches!(error, FormatError::Damaged { .. } | FormatError::CutOff { .. }), "{with:?}: {error}");
        }
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &packed(Compression::Zstd, b"text")].concat();
        assert_eq!(Compression::Zstd.check_start(&skipped), Ok(()));
        assert_eq!(unpacked(Compression::Zstd, &skipped).unwrap(), b"text");
    }

    #[test]
    fn a_file_that_ends_too_early_is_an_error_wherever_it_ends() {
        for with in Compression::ALL {
            let whole = packed(with, &text(3000));
            for length in 0..whole.len() {
                let error = match unpacked(with, &whole[..length]) {
                    // Nothing at all is no frame, and no error of the decoder; the first look finds it.
                    Ok(found) => {
                        assert!(length == 0 && found.is_empty(), "{with:?} cut at {length} gives {} bytes", found.len());
                        assert!(with.check_start(b"").is_err());
                        continue;
                    }
                    Err(error) => error,
                };
                let FormatError::CutOff { at, .. } = error else { panic!("{with:?} cut at {length}: {error}") };
                assert!(at as usize <= length, "{error}");
            }
        }
    }

    #[test]
    fn a_byte_that_was_changed_is_found_or_does_not_matter() {
        for with in Compression::ALL {
            let right = text(2000);
            let whole = packed(with, &right);
            let mut found = 0;
            for at in 0..whole.len() {
                for flip in [1, 0x80] {
                    let mut bad = whole.clone();
                    bad[at] ^= flip;
                    match unpacked(with, &bad) {
                        // Of the header of a member some bytes say nothing about the data, such as its time.
                        Ok(text) => assert!(text == right, "{with:?}: byte {at}"),
                        Err(FormatError::Damaged { .. } | FormatError::CutOff { .. }) => found += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            assert!(found > whole.len(), "{with:?}: {found}");
        }
    }

    #[test]
    fn names_end_in_what_compressed_them_and_starts_are_looked_at() {
        let of = |path| Compression::of_path(path).map(Compression::name);
        assert_eq!(
            [of("/a/b.csv.gz"), of("x.GZ"), of("b.zst"), of("a.gz/b"), of("gz"), of(".gz"), of("b.zstd")],
            [Some("gzip"), Some("gzip"), Some("zstd"), None, None, Some("gzip"), None]
        );
        for with in Compression::ALL {
            assert_eq!(Compression::named(with.name()), Some(with));
            for start in [&b""[..], b"a", b"text", &[0x1f], &[0x28, 0xb5, 0x2f]] {
                assert!(with.check_start(start).is_err(), "{with:?} {start:?}");
            }
        }
    }
}
