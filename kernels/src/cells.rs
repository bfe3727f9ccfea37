//! Cells of tables that kernels write: RFC 4180, and JSON.

/// The cell, in quotes if it needs them. Bytes are written as they are, also when they are no UTF-8: a table must not lose data.
pub(crate) fn push_csv(out: &mut Vec<u8>, cell: &[u8]) {
    if !cell.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        out.extend_from_slice(cell);
        return;
    }
    out.push(b'"');
    for &byte in cell {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// The text as a JSON string. What is no UTF-8 becomes U+FFFD, for JSON has no way to say it.
pub(crate) fn push_json(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for char in String::from_utf8_lossy(text).chars() {
        match char {
            '"' | '\\' => out.extend([b'\\', char as u8]),
            '\n' => out.extend(b"\\n"),
            '\r' => out.extend(b"\\r"),
            '\t' => out.extend(b"\\t"),
            control if control < ' ' => out.extend(format!("\\u{:04x}", control as u32).bytes()),
            other => out.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
#[test]
fn cells_are_quoted_where_they_must_be() {
    let csv = |cell: &str| {
        let mut out = Vec::new();
        push_csv(&mut out, cell.as_bytes());
        String::from_utf8(out).unwrap()
    };
    assert_eq!([csv("a b"), csv("a,b"), csv("a\"b"), csv("")], ["a b", "\"a,b\"", "\"a\"\"b\"", ""]);
    let mut json = Vec::new();
    push_json(&mut json, b"a\"\\\n\x01\xff\xc3\xa4");
    assert_eq!(String::from_utf8(json).unwrap(), "\"a\\\"\\\\\\n\\u0001\u{fffd}\u{e4}\"");
}
