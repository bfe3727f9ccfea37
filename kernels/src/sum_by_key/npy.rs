//! The sums as a NumPy array.

use super::{number, sums};
use crate::api::KernelError;
use crate::npy;
use crate::run::Merge;

/// Keys of a dense array end here: 128 MiB of values. A larger key in a dense array is nearly always an id, not a position.
const DENSE_KEYS: u64 = 1 << 24;

/// `values[key]`, zero where no record has the key; as long as the largest key demands.
pub(super) fn dense(merge: &mut Merge<'_>, row: &mut impl FnMut(&[u8], u64)) -> Result<Vec<u8>, KernelError> {
    let mut values: Vec<u64> = Vec::new();
    sums(merge, |key, sum| {
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
pub(super) fn pairs(merge: &mut Merge<'_>, row: &mut impl FnMut(&[u8], u64)) -> Result<Vec<u8>, KernelError> {
    let mut values: Vec<u64> = Vec::new();
    sums(merge, |key, sum| {
        values.extend([number(key)?, sum]);
        row(key, sum);
        Ok(())
    })?;
    Ok(file(&format!("({}, 2)", values.len() / 2), &values))
}

fn file(shape: &str, values: &[u64]) -> Vec<u8> {
    let mut bytes = npy::header("<u8", shape);
    bytes.reserve(8 * values.len());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}
