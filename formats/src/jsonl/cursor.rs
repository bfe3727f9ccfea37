//! A place in one line of JSON: what stands there, and where it ends.

use std::borrow::Cow;

/// Brackets within brackets; more is no data but an attack on the stack.
const DEEPEST: usize = 128;

pub(super) struct Cursor<'a> {
    pub(super) line: &'a [u8],
    pub(super) at: usize,
}

/// What is wrong, at the cursor.
pub(super) type Wrong = &'static str;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From the first letter to the last; whether it has backslashes.
    String {
        escaped: bool,
    },
    Null,
    /// Numbers, booleans, arrays, objects.
    Other,
}

/// A value and the range of the line in which it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a [u8]) -> Cursor<'a> {
        Cursor { line, at: 0 }
    }

    /// The next byte that is no blank.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.line.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    pub(super) fn expect(&mut self, byte: u8, wrong: Wrong) -> Result<(), Wrong> {
        if self.peek() != Some(byte) {
            return Err(wrong);
        }
        self.at += 1;
        Ok(())
    }

    /// Calls `pair` at the value of each pair of the object here; it must leave the cursor behind the value.
    pub(super) fn object(&mut self, mut pair: impl FnMut(&mut Self, &[u8]) -> Result<(), Wrong>) -> Result<(), Wrong> {
        self.expect(b'{', "an object was expected")?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err("a key in quotes was expected");
            }
            let key = self.value(0)?;
            self.expect(b':', "a colon was expected behind the key")?;
            let line = self.line;
            match key.kind {
                Kind::String { escaped: true } => pair(self, &unescape(&line[key.start..key.end])?)?,
                _ => pair(self, &line[key.start..key.end])?,
            }
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err("a comma or a closing brace was expected"),
            }
        }
    }

    /// The value here; the cursor goes behind it.
    pub(super) fn value(&mut self, depth: usize) -> Result<Value, Wrong> {
        let first = self.peek().ok_or("the line ends in the middle")?;
        let start = self.at;
        match first {
            b'"' => return self.string(),
            b'{' => {
                if depth == DEEPEST {
                    return Err("the brackets are too deep");
                }
                self.object(|cursor, _| cursor.value(depth + 1).map(drop))?;
            }
            b'[' => {
                if depth == DEEPEST {
                    return Err("the brackets are too deep");
                }
                self.at += 1;
                if self.peek() == Some(b']') {
                    self.at += 1;
                } else {
                    loop {
                        self.value(depth + 1)?;
                        match self.peek() {
                            Some(b',') => self.at += 1,
                            Some(b']') => break self.at += 1,
                            _ => return Err("a comma or a closing bracket was expected"),
                        }
                    }
                }
            }
            _ => {
                let length = self.line[start..]
                    .iter()
                    .take_while(|byte| matches!(byte, b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'))
                    .count();
                self.at += length;
                match &self.line[start..self.at] {
                    b"null" => return Ok(Value { kind: Kind::Null, start, end: self.at }),
                    b"true" | b"false" => {}
                    [b'-' | b'0'..=b'9', ..] => {}
                    _ => {
                        self.at = start;
                        return Err("a value was expected");
                    }
                }
            }
        }
        Ok(Value { kind: Kind::Other, start, end: self.at })
    }

    fn string(&mut self) -> Result<Value, Wrong> {
        let start = self.at + 1;
        let mut escaped = false;
        let mut at = start;
        loop {
            let found = self.line.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)).ok_or("a string is not closed")?;
            at += found;
            if self.line[at] == b'"' {
                self.at = at + 1;
                return Ok(Value { kind: Kind::String { escaped }, start, end: at });
            }
            escaped = true;
            at += 2;
        }
    }
}

/// The letters of a string that has backslashes.
pub(super) fn unescape(string: &[u8]) -> Result<Cow<'_, [u8]>, Wrong> {
    const BAD: Wrong = "a backslash is followed by what JSON does not know";
    let mut out = Vec::with_capacity(string.len());
    let mut rest = string;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let letter = *rest.get(at + 1).ok_or(BAD)?;
        rest = &rest[at + 2..];
        match letter {
            b'"' | b'\\' | b'/' => out.push(letter),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let first = unit(&mut rest).ok_or(BAD)?;
                let mut after = rest.strip_prefix(b"\\u").unwrap_or_default();
                let second = if (0xd800..0xdc00).contains(&first) { unit(&mut after) } else { None };
                let char = match second.filter(|second| (0xdc00..0xe000).contains(second)) {
                    Some(second) => {
                        rest = after;
                        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
                    }
                    None => char::from_u32(first),
                };
                // Half a pair is no letter.
                out.extend_from_slice(char.unwrap_or('\u{fffd}').encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(BAD),
        }
    }
    out.extend_from_slice(rest);
    Ok(Cow::Owned(out))
}

/// Four hexadecimal digits.
fn unit(rest: &mut &[u8]) -> Option<u32> {
    let (digits, behind) = rest.split_first_chunk::<4>()?;
    let value = digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))?;
    *rest = behind;
    Some(value)
}
