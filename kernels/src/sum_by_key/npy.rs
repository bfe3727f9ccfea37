//! NumPy's array file, version 1.0 (numpy.org/neps/nep-0001-npy-format.html): magic, header text padded to 64 bytes, elements.

use super::{number, sums};
use crate::api::{Block, KernelError};

/// Keys of a dense array end here: 128 MiB of values. A larger key in a dense array is nearly always an id, not a position.
const DENSE_KEYS: u64 = 1 << 24;

/// `values[key]`, zero where no record has the key; as long as the largest key demands.
pub(super) fn dense(blocks: &[Block<'_>], row: &mut impl FnMut(&[u8], u64)) -> Result<Vec<u8>, KernelError> {
    let mut values: Vec<u64> = Vec::new();
    sums(blocks, |key, sum| {
        let index = number(key)?;
        if index >= DENSE_KEYS {
            return Err(KernelError::Input(format!(
                "key {index} is too large for a dense array (largest {}); use format csv or more than one partition",
                DENSE_KEYS - 1
            )));
        }
        // Keys rise, so this fills the gap since the key before.
        values.resize(index as usize, 0);
        values.push(sum);
        row(key, sum);
        Ok(())
    })?;
    Ok(file(&format!("({},)", values.len()), &values))
}

/// Rows of (key, sum).
pub(super) fn pairs(blocks: &[Block<'_>], row: &mut impl FnMut(&[u8], u64)) -> Result<Vec<u8>, KernelError> {
    let mut values: Vec<u64> = Vec::new();
    sums(blocks, |key, sum| {
        values.extend([number(key)?, sum]);
        row(key, sum);
        Ok(())
    })?;
    Ok(file(&format!("({}, 2)", values.len() / 2), &values))
}

fn file(shape: &str, values: &[u64]) -> Vec<u8> {
    let mut bytes = header("<u8", shape);
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// What stands before the elements of an array of this type and shape.
pub(crate) fn header(descr: &str, shape: &str) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take 10 bytes; the header ends in a newline at a multiple of 64.
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.extend(std::iter::repeat_n(' ', padding % 64));
    header.push('\n');
    let mut bytes = Vec::with_capacity(10 + header.len());
    bytes.extend_from_slice(b"\x93NUMPY\x01\x00");
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes
}
