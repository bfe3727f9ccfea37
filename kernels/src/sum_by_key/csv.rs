//! RFC 4180 with `\n` line ends. Keys are written as the bytes they are, also when those are not UTF-8: a table must not lose data.

use crate::cells::push_csv;

pub(super) struct Table {
    bytes: Vec<u8>,
}

impl Table {
    pub(super) fn new(columns: &[String; 2]) -> Table {
        let mut table = Table { bytes: Vec::new() };
        table.field(columns[0].as_bytes());
        table.bytes.push(b',');
        table.field(columns[1].as_bytes());
        table.bytes.push(b'\n');
        table
    }

    pub(super) fn text_row(&mut self, key: &[u8], value: u64) {
        self.field(key);
        self.end_row(value);
    }

    pub(super) fn number_row(&mut self, key: u64, value: u64) {
        push_decimal(&mut self.bytes, key);
        self.end_row(value);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn end_row(&mut self, value: u64) {
        self.bytes.push(b',');
        push_decimal(&mut self.bytes, value);
        self.bytes.push(b'\n');
    }

    fn field(&mut self, text: &[u8]) {
        push_csv(&mut self.bytes, text);
    }
}

/// `write!` takes several times as long, and this runs once or twice per row.
fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
