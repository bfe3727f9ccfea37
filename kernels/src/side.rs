//! Side inputs: arrays that every task of a stage reads whole, such as the second matrix of a product.

use std::borrow::Cow;
use std::sync::Arc;

/// What a kernel wants beside its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideSpec {
    /// As the job file calls it: `[map.side.NAME]`.
    pub name: &'static str,
    pub dtypes: &'static [&'static str],
    /// 1 or 2.
    pub dimensions: usize,
    /// Whether a job must give it.
    pub required: bool,
    pub doc: &'static str,
}

/// One array, in row order, shared by all tasks of a stage.
#[derive(Clone)]
pub struct SideInput {
    pub name: String,
    /// "u1", "u4", "f4".
    pub dtype: String,
    /// Lengths of its dimensions.
    pub shape: Vec<u64>,
    /// The file that it comes from, for messages; empty where there is none.
    pub path: String,
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl SideInput {
    /// `bytes` are little-endian elements, as many as the shape says; whoever opened the file has made sure.
    pub fn new(name: String, dtype: String, shape: Vec<u64>, bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> SideInput {
        SideInput { name, dtype, shape, path: String::new(), bytes }
    }

    /// The same, and of which file it is.
    pub fn of_file(self, path: String) -> SideInput {
        SideInput { path, ..self }
    }

    /// "side input 'b' (/data/b.npy)", for messages.
    pub(crate) fn named(&self) -> String {
        let path = if self.path.is_empty() { String::new() } else { format!(" ({})", self.path) };
        format!("side input '{}'{path}", self.name)
    }

    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}

impl std::fmt::Debug for SideInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SideInput")
            .field("name", &self.name)
            .field("dtype", &self.dtype)
            .field("shape", &self.shape)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The numbers in the bytes of f4 elements; copied only where the bytes do not lie as the machine wants them. A broken last element is
/// left out.
pub(crate) fn f4(bytes: &[u8]) -> Cow<'_, [f32]> {
    let whole = bytes.len() / 4 * 4;
    // SAFETY: any four bytes are an f32, and the slices that `align_to` makes lie within `bytes`.
    let (before, numbers, after) = unsafe { bytes[..whole].align_to::<f32>() };
    if cfg!(target_endian = "little") && before.is_empty() && after.is_empty() {
        return Cow::Borrowed(numbers);
    }
    Cow::Owned(bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

/// Appends numbers as the bytes of f4 elements.
pub(crate) fn push_f4(bytes: &mut Vec<u8>, numbers: &[f32]) {
    if cfg!(target_endian = "little") {
        // SAFETY: any f32 is four bytes, and these are the bytes of the slice.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) });
    } else {
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
}

#[cfg(test)]
#[test]
fn numbers_are_read_wherever_they_lie() {
    let bytes: Vec<u8> = [0.0f32, 1.5, -2.0, f32::MAX].iter().flat_map(|number| number.to_le_bytes()).collect();
    for shift in 0..4 {
        let mut moved = vec![0; shift];
        moved.extend_from_slice(&bytes);
        moved.push(7);
        assert_eq!(*f4(&moved[shift..]), [0.0, 1.5, -2.0, f32::MAX]);
        let mut again = vec![3; shift];
        push_f4(&mut again, &f4(&moved[shift..]));
        assert_eq!(again[shift..], bytes);
    }
}
