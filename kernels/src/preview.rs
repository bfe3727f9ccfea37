//! Lines and records in preview rows: their beginnings, as a person can read them.

/// Of a line; a longer cell would be cut once more on its way to the person.
const LINE_BYTES: usize = 240;
/// Of a record that is no text, and has two digits for each byte then.
const RECORD_BYTES: usize = 60;

/// The beginning of a line, without its end.
pub(crate) fn line(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= LINE_BYTES {
        return String::from_utf8_lossy(line).into_owned();
    }
    // No character is cut in two; bytes that go on one are at most three.
    let goes_on = |at: &usize| line[*at] & 0xc0 == 0x80;
    let end = (LINE_BYTES - 3..=LINE_BYTES).rev().find(|at| !goes_on(at)).unwrap_or(LINE_BYTES);
    format!("{}…", String::from_utf8_lossy(&line[..end]))
}

/// The beginning of a record or of its key: as it is if that is plain ASCII, else in hexadecimal digits.
pub(crate) fn record(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(RECORD_BYTES)];
    let text = match std::str::from_utf8(shown) {
        Ok(text) if shown.iter().all(|byte| (b' '..=b'~').contains(byte)) => text.to_owned(),
        _ => shown.iter().fold(String::from("0x"), |text, byte| text + &format!("{byte:02x}")),
    };
    if shown.len() < bytes.len() { text + "…" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_without_its_end_and_cut_between_two_characters() {
        assert_eq!(line(b"one\r\n"), "one");
        assert_eq!(line(b"one\r"), "one");
        let long = "\u{e9}".repeat(LINE_BYTES);
        for before in ["", "a"] {
            let text = format!("{before}{long}\n");
            let shown = line(text.as_bytes());
            assert!(shown.ends_with("\u{e9}…") && text.starts_with(shown.trim_end_matches('…')), "{shown}");
            assert!(shown.len() <= LINE_BYTES + '…'.len_utf8());
        }
        assert_eq!(line(&[0x80; 1000]).chars().count(), LINE_BYTES + 1, "what is no UTF-8 is cut all the same");
    }

    #[test]
    fn a_record_is_text_or_digits() {
        assert_eq!(record(b"key 1"), "key 1");
        assert_eq!(record(&[0, 0xff]), "0x00ff");
        assert_eq!(record(&[b'a'; 100]), format!("{}…", "a".repeat(RECORD_BYTES)));
    }
}
