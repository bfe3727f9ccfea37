//! Columns of a line.

use std::borrow::Cow;

use crate::api::{ParamSpec, ParamType};

/// Of the line where they stand in it as they are.
pub(crate) type Bytes<'a> = Cow<'a, [u8]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Separator {
    /// CSV with its quotation marks.
    Comma,
    Plain(u8),
}

pub(crate) const SEPARATOR: ParamSpec = ParamSpec {
    name: "separator",
    kind: ParamType::Choice(&["comma", "semicolon", "tab", "space", "bar"]),
    default: Some("comma"),
    doc: "what stands between two columns",
};

impl Separator {
    /// A choice of [`SEPARATOR`].
    pub(crate) fn named(name: &str) -> Separator {
        match name {
            "semicolon" => Separator::Plain(b';'),
            "tab" => Separator::Plain(b'\t'),
            "space" => Separator::Plain(b' '),
            "bar" => Separator::Plain(b'|'),
            _ => Separator::Comma,
        }
    }
}

/// Where a field stands in its line, quotation marks included.
struct Field {
    start: usize,
    end: usize,
    quoted: bool,
}

/// The field of the column.
pub(crate) fn key_of(line: &[u8], separator: Separator, column: usize) -> Result<Bytes<'_>, String> {
    Ok(key(line, &fields(line, separator)?, column)?.0)
}

/// The key, and the field that it is.
fn key<'a, 'f>(line: &'a [u8], fields: &'f [Field], column: usize) -> Result<(Bytes<'a>, &'f Field), String> {
    let Some(field) = fields.get(column) else {
        let (there, wanted) = (fields.len(), column + 1);
        return Err(format!("it has {there} column{}, and the key is in column {wanted}", if there == 1 { "" } else { "s" }));
    };
    let raw = &line[field.start..field.end];
    Ok((if field.quoted { unquoted(raw) } else { Cow::Borrowed(raw) }, field))
}

/// The field of the column, and what is kept of the line as CSV: all of it, or the other columns.
pub(super) fn split_off(line: &[u8], separator: Separator, column: usize, whole_line: bool) -> Result<(Bytes<'_>, Bytes<'_>), String> {
    let fields = fields(line, separator)?;
    let (key, field) = key(line, &fields, column)?;
    let kept = |place: &usize| whole_line || *place != column;
    let value = match separator {
        Separator::Comma if whole_line => Cow::Borrowed(line),
        // The columns before and behind the key are one piece each; only a key between two makes a copy.
        Separator::Comma if column == 0 => Cow::Borrowed(line.get(field.end + 1..).unwrap_or_default()),
        Separator::Comma if column + 1 == fields.len() => Cow::Borrowed(&line[..field.start - 1]),
        Separator::Comma => Cow::Owned([&line[..field.start], &line[field.end + 1..]].concat()),
        Separator::Plain(_) => {
            let mut csv = Vec::with_capacity(line.len() + 8);
            for (n, place) in (0..fields.len()).filter(kept).enumerate() {
                if n > 0 {
                    csv.push(b',');
                }
                push_field(&mut csv, &line[fields[place].start..fields[place].end]);
            }
            Cow::Owned(csv)
        }
    };
    Ok((key, value))
}

fn fields(line: &[u8], separator: Separator) -> Result<Vec<Field>, String> {
    let byte = match separator {
        Separator::Comma => b',',
        Separator::Plain(byte) => byte,
    };
    let mut fields = Vec::new();
    let mut start = 0;
    loop {
        let quoted = separator == Separator::Comma && line.get(start) == Some(&b'"');
        let end = if quoted { end_of_quoted(line, start)? } else { end_of_plain(line, start, byte) };
        fields.push(Field { start, end, quoted });
        match line.get(end) {
            None => return Ok(fields),
            Some(found) if *found == byte => start = end + 1,
            Some(_) => return Err(format!("behind the quoted column {} stands something else than a comma", fields.len())),
        }
    }
}

fn end_of_plain(line: &[u8], start: usize, separator: u8) -> usize {
    line[start..].iter().position(|byte| *byte == separator).map_or(line.len(), |at| start + at)
}

/// Behind the closing quotation mark; two of them inside stand for one.
fn end_of_quoted(line: &[u8], start: usize) -> Result<usize, String> {
    let mut at = start + 1;
    loop {
        let Some(mark) = line[at..].iter().position(|byte| *byte == b'"').map(|found| at + found) else {
            return Err("a quotation mark is not closed on its line; columns with line breaks cannot be read".into());
        };
        match line.get(mark + 1) {
            Some(b'"') => at = mark + 2,
            _ => return Ok(mark + 1),
        }
    }
}

fn unquoted(raw: &[u8]) -> Cow<'_, [u8]> {
    let inner = &raw[1..raw.len() - 1];
    if !inner.contains(&b'"') {
        return Cow::Borrowed(inner);
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((first, more)) = rest.split_first() {
        text.push(*first);
        rest = if *first == b'"' { more.get(1..).unwrap_or_default() } else { more };
    }
    Cow::Owned(text)
}

/// Writes a field as CSV has it.
pub(crate) fn push_field(out: &mut Vec<u8>, text: &[u8]) {
    if !text.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
