//! NumPy's array file, version 1.0 (numpy.org/neps/nep-0001-npy-format.html): magic, header text padded to 64 bytes, elements.

/// What stands before the elements; `descr` such as "<f4", `shape` as Python writes a tuple: "(3, 4)".
pub(crate) fn header(descr: &str, shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take 10 bytes; the header ends in a newline at a multiple of 64.
    let padding = 64 - (10 + text.len() + 1) % 64;
    text.extend(std::iter::repeat_n(' ', padding % 64));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
