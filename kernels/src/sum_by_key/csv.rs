//! RFC 4180 with `\n` line ends. Keys are written as the bytes they are, also when those are not UTF-8: a table must not lose data.

use crate::api::{KernelError, PartWriter};
use crate::cells::push_csv;
use crate::pieces::Pieces;

pub(super) struct Table<'a> {
    out: Pieces<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn new(columns: &[String; 2], part: &'a mut dyn PartWriter) -> Table<'a> {
        let mut out = Pieces::new(part);
        push_csv(&mut out.bytes, columns[0].as_bytes());
        out.bytes.push(b',');
        push_csv(&mut out.bytes, columns[1].as_bytes());
        out.bytes.push(b'\n');
        Table { out }
    }

    pub(super) fn text_row(&mut self, key: &[u8], value: u64) -> Result<(), KernelError> {
        push_csv(&mut self.out.bytes, key);
        self.end_row(value)
    }

    pub(super) fn number_row(&mut self, key: u64, value: u64) -> Result<(), KernelError> {
        push_decimal(&mut self.out.bytes, key);
        self.end_row(value)
    }

    pub(super) fn finish(self) -> Result<(), KernelError> {
        self.out.finish()
    }

    fn end_row(&mut self, value: u64) -> Result<(), KernelError> {
        self.out.bytes.push(b',');
        push_decimal(&mut self.out.bytes, value);
        self.out.bytes.push(b'\n');
        self.out.row_ends()
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
