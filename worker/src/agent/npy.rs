//! Headers of NumPy's `.npy` files, versions 1 to 3 (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
//!
//! ```text
//! | \x93NUMPY | major: u8 | minor: u8 | header length: u16 le (version 1) or u32 le | header text | elements ..
//! ```
//! The header text is a Python dictionary: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.

use raftwerk_kernels::counted;
use std::io::{self, Read};

/// A longer header is taken for garbage; real ones have about a hundred bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NpyHeader {
    pub(crate) data_offset: u64,
    pub(crate) record_bytes: u32,
    pub(crate) dtype: &'static str,
    /// Lengths of the dimensions.
    pub(crate) shape: Vec<u64>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NpyError {
    #[error("not an .npy file")]
    Magic,
    #[error("version {0} of the .npy format is not known; versions 1 to 3 are")]
    Version(u8),
    #[error("its .npy header is damaged: {0}")]
    Header(&'static str),
    #[error("its dtype is '{0}'; '|u1', '<u4', '<u8' and '<f4' can be read")]
    Dtype(String),
    #[error("its array is in Fortran order; save it with order='C'")]
    FortranOrder,
    #[error("its array has {}; one with two is wanted, whose rows can be told apart", counted(usize::clone(.0) as u64, "dimension"))]
    Dimensions(usize),
    #[error("its rows have {}; a row has at least one, and less than 4 GiB of them", counted(u64::clone(.0), "element"))]
    Row(u64),
    #[error("its header promises {expected} bytes of elements and it has {found}")]
    Length { expected: u64, found: u64 },
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
}

pub(crate) fn read_header(file: &mut impl Read, file_bytes: u64) -> Result<NpyHeader, NpyError> {
    let mut start = [0; 8];
    exact(file, &mut start, NpyError::Magic)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(NpyError::Magic);
    }
    let short = || NpyError::Header("it ends too early");
    let (prefix, length) = match start[6] {
        1 => {
            let mut length = [0; 2];
            exact(file, &mut length, short())?;
            (10, usize::from(u16::from_le_bytes(length)))
        }
        2 | 3 => {
            let mut length = [0; 4];
            exact(file, &mut length, short())?;
            (12, u32::from_le_bytes(length) as usize)
        }
        other => return Err(NpyError::Version(other)),
    };
    if length > HEADER_BYTES_MAX {
        return Err(NpyError::Header("it is longer than any"));
    }
    let mut text = vec![0; length];
    exact(file, &mut text, short())?;
    let text = String::from_utf8_lossy(&text);
    let descr = value(&text, "descr").ok_or(NpyError::Header("`descr` is missing"))?;
    let descr = descr.strip_prefix(['\'', '"']).and_then(|rest| rest.split(['\'', '"']).next()).unwrap_or(descr);
    let (dtype, record_bytes) = match descr {
        "|u1" | "<u1" => ("u1", 1),
        "<u4" => ("u4", 4),
        "<u8" => ("u8", 8),
        "<f4" => ("f4", 4),
        other => return Err(NpyError::Dtype(other.chars().take(40).collect())),
    };
    if !value(&text, "fortran_order").ok_or(NpyError::Header("`fortran_order` is missing"))?.starts_with("False") {
        return Err(NpyError::FortranOrder);
    }
    let shape =
        value(&text, "shape").and_then(|shape| shape.strip_prefix('(')?.split(')').next()).ok_or(NpyError::Header("`shape` is missing"))?;
    let too_large = NpyError::Header("its array is larger than 64 bits can say");
    let is_length = |n: &str| n.bytes().all(|byte| byte.is_ascii_digit());
    if shape.split(',').map(str::trim).any(|n| !n.is_empty() && is_length(n) && n.parse::<u64>().is_err()) {
        return Err(too_large);
    }
    let lengths = shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok());
    let shape = lengths.collect::<Option<Vec<u64>>>().ok_or(NpyError::Header("`shape` is not a list of lengths"))?;
    let elements = shape.iter().try_fold(1u64, |all, n| all.checked_mul(*n));
    let expected = elements.and_then(|n| n.checked_mul(u64::from(record_bytes))).ok_or(too_large)?;
    let data_offset = prefix + length as u64;
    let found = file_bytes.saturating_sub(data_offset);
    if found != expected {
        return Err(NpyError::Length { expected, found });
    }
    Ok(NpyHeader { data_offset, record_bytes, dtype, shape })
}

impl NpyHeader {
    /// Makes its rows the records: of a two-dimensional array.
    pub(crate) fn by_rows(self) -> Result<NpyHeader, NpyError> {
        let &[_, columns] = self.shape.as_slice() else { return Err(NpyError::Dimensions(self.shape.len())) };
        let row = columns.checked_mul(u64::from(self.record_bytes)).and_then(|bytes| u32::try_from(bytes).ok());
        match row {
            Some(record_bytes @ 1..) => Ok(NpyHeader { record_bytes, ..self }),
            _ => Err(NpyError::Row(columns)),
        }
    }
}

fn exact(file: &mut impl Read, bytes: &mut [u8], short: NpyError) -> Result<(), NpyError> {
    file.read_exact(bytes).map_err(|error| if error.kind() == io::ErrorKind::UnexpectedEof { short } else { error.into() })
}

/// What stands behind `'key':`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let at = text.find(&format!("'{key}'")).or_else(|| text.find(&format!("\"{key}\"")))?;
    Some(text[at + key.len() + 2..].trim_start().strip_prefix(':')?.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(version: u8, header: &str, data: usize) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn read(version: u8, header: &str, data: usize) -> Result<NpyHeader, String> {
        let bytes = file(version, header, data);
        read_header(&mut &bytes[..], bytes.len() as u64).map_err(|error| error.to_string())
    }

    #[test]
    fn all_versions_and_shapes_are_read() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }\n";
        assert_eq!(
            read(1, header, 48).unwrap(),
            NpyHeader { data_offset: 10 + header.len() as u64, record_bytes: 4, dtype: "f4", shape: vec![3, 4] }
        );
        assert_eq!(read(3, header, 48).unwrap().data_offset, 12 + header.len() as u64);
        assert_eq!(read(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }", 5).unwrap().dtype, "u1");
        assert_eq!(read(2, "{'descr': '<u4', 'fortran_order': False, 'shape': (), }", 4).unwrap().record_bytes, 4);
        assert!(read(1, "{'descr': '<u4', 'fortran_order': False, 'shape': (0, 7), }", 0).is_ok());
        let wide = read(1, "{'descr': '<u8', 'fortran_order': False, 'shape': (3,), }", 24).unwrap();
        assert_eq!((wide.dtype, wide.record_bytes), ("u8", 8));
    }

    #[test]
    fn rows_are_records_of_two_dimensional_arrays_only() {
        let header = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let rows = |shape: &str, data| {
            let bytes = file(1, &header(shape), data);
            read_header(&mut &bytes[..], bytes.len() as u64).and_then(NpyHeader::by_rows).map(|header| header.record_bytes)
        };
        assert_eq!(rows("(3, 4)", 48).unwrap(), 16);
        assert_eq!(rows("(0, 4)", 0).unwrap(), 16);
        assert!(rows("(12,)", 48).unwrap_err().to_string().contains("has 1 dimension;"));
        assert!(rows("(3, 2, 2)", 48).unwrap_err().to_string().contains("has 3 dimensions"));
        assert!(rows("(3, 0)", 0).unwrap_err().to_string().contains("rows have 0 elements"));
        assert!(rows("(0, 1073741824)", 0).unwrap_err().to_string().contains("rows have 1073741824 elements"));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let cases = [
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", 8, "dtype is '<f8'"),
            ("{'descr': '>u4', 'fortran_order': False, 'shape': (1,), }", 4, "dtype is '>u4'"),
            ("{'descr': '<u4', 'fortran_order': True, 'shape': (1,), }", 4, "Fortran order"),
            ("{'descr': '<u4', 'fortran_order': False, 'shape': (2,), }", 4, "promises 8 bytes of elements and it has 4"),
            ("{'descr': '<u4', 'fortran_order': False, }", 4, "`shape` is missing"),
            ("{'descr': '<u4', 'fortran_order': False, 'shape': (9223372036854775807, 3), }", 4, "larger than 64 bits can say"),
            ("{'descr': '<u4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 4, "larger than 64 bits can say"),
            ("{'descr': '<u4', 'fortran_order': False, 'shape': (-1,), }", 4, "`shape` is not a list of lengths"),
        ];
        for (header, data, expected) in cases {
            let error = read(1, header, data).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(read(9, "", 0).unwrap_err().contains("version 9"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(version in 0u8..5, header in "\\PC{0,80}", data in 0usize..20, cut in 0usize..60) {
            let bytes = file(version, &header, data);
            let cut = cut.min(bytes.len());
            let _ = read_header(&mut &bytes[..cut], cut as u64);
        }
    }
}
