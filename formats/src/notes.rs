//! What is noted of a split while it is read: how many records there were, and which of them could not be read and were left out.

use crate::error::{COUNTED_BYTES, FormatError, newlines};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bad records of one split that are described; of further ones the number must do.
pub const BAD_DESCRIBED: usize = 100;
/// Bytes shown of a bad record.
pub const BAD_BYTES_SHOWN: usize = 256;

/// Of one reading of a split: a second one begins anew.
#[derive(Debug, Default)]
pub struct Notes {
    allowed: u64,
    /// Of the file just a part is there.
    part: bool,
    noted: Mutex<Noted>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Records that could be read, filtered ones among them.
    pub records: u64,
    pub bad: u64,
    /// The first [`BAD_DESCRIBED`] of these, and of the one that was too many.
    pub first: Vec<BadRecord>,
    /// Some are allowed, and there were more of them, so that the reading ended with an error.
    pub too_many: bool,
    /// How far lines have been counted: a byte, and its line.
    counted: Option<(usize, u64)>,
}

/// A record that was left out, or that ended the reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Of its first byte in the file; in a file of columns, where a row is in many places, how many rows are before it.
    pub offset: u64,
    /// In which it begins, from 1, where counting does not take long.
    pub line: Option<u64>,
    /// In a file of records of one length or of columns, which has no lines: which one it is, from 1.
    pub record: Option<u64>,
    pub bytes: u64,
    /// The first [`BAD_BYTES_SHOWN`] of them.
    pub shown: Vec<u8>,
    pub reason: String,
}

impl Notes {
    /// So many bad records may be left out.
    pub fn allowing(allowed: u64) -> Notes {
        Notes { allowed, part: false, noted: Mutex::default() }
    }

    /// The file is there from its split on, with a hole before it: the byte says where a record is, and its line is not known.
    pub fn of_part(self) -> Notes {
        Notes { part: true, ..self }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        // Nothing panics between two changes that belong together.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn so_far(&self) -> Noted {
        self.noted().clone()
    }

    pub(crate) fn begin(&self) {
        *self.noted() = Noted::default();
    }

    pub(crate) fn read(&self, records: u64) {
        self.noted().records += records;
    }

    /// Notes that `file[record]` is left out. Gives the error back, with its line, if that is one too many.
    pub fn leave_out(&self, file: &[u8], record: Range<usize>, error: FormatError) -> Result<(), FormatError> {
        let mut noted = self.noted();
        if noted.first.len() < BAD_DESCRIBED {
            noted.describe(file, record, self.part, &error);
        }
        if noted.bad >= self.allowed {
            noted.too_many = self.allowed > 0;
            return Err(if self.part { error } else { error.with_line(file) });
        }
        noted.bad += 1;
        Ok(())
    }

    /// The same of a row of a file of columns, with `before` rows before it; `text` shows its cells, and `beside` is said behind the reason.
    #[cfg_attr(not(feature = "arrow-ipc"), allow(dead_code))]
    pub(crate) fn leave_out_row(&self, before: u64, text: &str, beside: &str, error: FormatError) -> Result<(), FormatError> {
        let mut noted = self.noted();
        if noted.first.len() < BAD_DESCRIBED {
            let shown = text.as_bytes()[..text.len().min(BAD_BYTES_SHOWN)].to_vec();
            let reason = format!("{}{beside}", error.without_place());
            let record = Some(before + 1);
            noted.first.push(BadRecord { offset: before, line: None, record, bytes: text.len() as u64, shown, reason });
        }
        if noted.bad >= self.allowed {
            noted.too_many = self.allowed > 0;
            return Err(error);
        }
        noted.bad += 1;
        Ok(())
    }
}

impl Noted {
    fn describe(&mut self, file: &[u8], at: Range<usize>, part: bool, error: &FormatError) {
        let offset = at.start as u64;
        let (line, record, bytes) = match error {
            FormatError::CutRecord { record, .. } => (None, offset.checked_div(*record).map(|before| before + 1), &file[at]),
            _ => {
                let bytes = &file[at.clone()];
                let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                (if part { None } else { self.line(file, at.start) }, None, bytes.strip_suffix(b"\r").unwrap_or(bytes))
            }
        };
        let shown = bytes[..bytes.len().min(BAD_BYTES_SHOWN)].to_vec();
        self.first.push(BadRecord { offset, line, record, bytes: bytes.len() as u64, shown, reason: error.without_place() });
    }

    /// Records come in the order of the file, so that it is gone through once.
    fn line(&mut self, file: &[u8], at: usize) -> Option<u64> {
        let (from, line) = match self.counted {
            Some(counted) => counted,
            None if at <= COUNTED_BYTES => (0, 1),
            None => return None,
        };
        let line = line + newlines(file.get(from..at)?);
        self.counted = Some((at, line));
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Column, CsvOptions, Filter, Format, Table, Wanted};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn csv() -> Format {
        Format::Csv(CsvOptions { quoted_newlines: false, ..CsvOptions::default() })
    }

    fn noted(format: Format, text: &[u8], allowed: u64) -> (Table, Arc<Notes>) {
        let notes = Arc::new(Notes::allowing(allowed));
        (Table::new(Arc::new(format), Bytes::copy_from_slice(text), 0..text.len()).noted(notes.clone()), notes)
    }

    /// The numbers of column "n", and what was noted.
    fn numbers(format: Format, text: &[u8], allowed: u64) -> Result<(Vec<f64>, Noted), (String, Noted)> {
        let (table, notes) = noted(format, text, allowed);
        let batches: Result<Vec<Batch>, FormatError> = table.read(&[Wanted::number("n")]).unwrap().collect();
        let batches = batches.map_err(|error| (error.to_string(), notes.so_far()))?;
        let of = |batch: &Batch| match &batch.columns[0] {
            Column::Decimal(array) => {
                let power = 10f64.powi(array.scale().into());
                array.iter().map(|value| value.map_or(-1.0, |value| value as f64 / power)).collect::<Vec<f64>>()
            }
            Column::Float(array) => array.iter().map(|value| value.unwrap_or(-1.0)).collect(),
            other => panic!("{other:?}"),
        };
        Ok((batches.iter().flat_map(of).collect(), notes.so_far()))
    }

    #[test]
    fn rows_that_cannot_be_read_are_left_out_with_their_place_and_reason() {
        let text = b"s,n\na,1\nragged\nb,2.5\nc,many\n\"d\"x,4\nlast,5\r\nq,\"7\r\ne,9";
        let (read, noted) = numbers(csv(), text, 10).unwrap();
        assert_eq!(read, [1.0, 2.5, 5.0, 9.0]);
        assert_eq!((noted.records, noted.bad, noted.too_many), (4, 4, false));
        let shown: Vec<_> = noted
            .first
            .iter()
            .map(|bad| format!("{} {:?} {} {}: {}", bad.offset, bad.line, bad.bytes, String::from_utf8_lossy(&bad.shown), bad.reason))
            .collect();
        assert_eq!(
            shown,
            [
                "8 Some(3) 6 ragged: it has 1 cells and the table has 2 columns",
                "21 Some(5) 6 c,many: its cell in column 'n' is \"many\", which is no number",
                "28 Some(6) 6 \"d\"x,4: a cell of it goes on behind its closing quotes",
                "43 Some(8) 4 q,\"7: its quotes are not closed before the end of the line",
            ]
        );
    }

    #[test]
    fn one_more_than_is_allowed_is_an_error_and_so_is_the_first_where_none_is() {
        let text = b"s,n\nx\na,1\ny\n";
        assert_eq!(numbers(csv(), text, 2).unwrap().0, [1.0]);
        let (error, noted) = numbers(csv(), text, 1).unwrap_err();
        assert!(error.contains("the row at line 4 (byte 10 of the file) has 1 cells"), "{error}");
        assert!(noted.too_many && noted.bad == 1, "{noted:?}");
        assert_eq!(noted.first.iter().map(|bad| bad.line).collect::<Vec<_>>(), [Some(2), Some(4)], "the one too many is described too");
        let (error, noted) = numbers(csv(), text, 0).unwrap_err();
        assert!(error.contains("line 2 (byte 4 of the file)") && !noted.too_many, "{error}");
    }

    #[test]
    fn of_a_part_of_a_file_no_line_is_told() {
        let mut text = b"s,n\n".to_vec();
        text.extend([0; 100]);
        let split = text.len()..text.len() + 13;
        text.extend(b"a,1\nx\ny\nb,2\n");
        let read = |allowed| {
            let notes = Arc::new(Notes::allowing(allowed).of_part());
            let table = Table::new(Arc::new(csv()), Bytes::copy_from_slice(&text), split.clone()).noted(notes.clone());
            let rows: Result<Vec<Batch>, FormatError> = table.read(&[Wanted::number("n")]).unwrap().collect();
            (rows.map_err(|error| error.to_string()).err().unwrap_or_default(), notes.so_far())
        };
        let (error, noted) = read(1);
        assert!(error.contains("the row at byte 110 of the file has 1 cells"), "{error}");
        assert_eq!((noted.first[0].offset, noted.first[0].line), (108, None));
    }

    #[test]
    fn in_a_file_without_lines_a_record_is_counted_by_its_length() {
        let file = b"0123\n567890\r\n";
        let notes = Notes::allowing(1);
        let error = FormatError::CutRecord { at: 8, bytes: 5, record: 8 };
        notes.leave_out(file, 8..file.len(), error).unwrap();
        let noted = notes.so_far();
        let [bad] = noted.first.as_slice() else { panic!("{noted:?}") };
        assert_eq!((bad.line, bad.record, bad.offset, bad.bytes, bad.shown.as_slice()), (None, Some(2), 8, 5, &file[8..]));
    }

    #[test]
    fn quotes_over_lines_end_with_the_line_in_which_they_are_wrong_or_with_their_first_one() {
        let format = || Format::Csv(CsvOptions::default());
        let (read, noted) = numbers(format(), b"s,n\n\"two\nlines\",1\n\"a\nb\"x,2\nc,3\n", 10).unwrap();
        assert_eq!((read, noted.bad, noted.first[0].bytes), (vec![1.0, 3.0], 1, 8));
        let (read, noted) = numbers(format(), b"s,n\na,1\n\"stray,2\nb,3\nc,4\n", 10).unwrap();
        assert_eq!((read, noted.bad), (vec![1.0, 3.0, 4.0], 1));
        // A whole row whose cells have line ends is left out as a whole.
        let (read, noted) = numbers(format(), b"s,n\n\"a\nb,1\nc\",2,3\nd,4\n", 10).unwrap();
        assert_eq!((read, noted.bad, noted.first[0].bytes), (vec![4.0], 1, 13));
    }

    #[test]
    fn lines_that_are_no_object_are_left_out() {
        let text = b"{\"n\":1}\n{\"n\":\n[2]\n\n{\"n\":\"x\"}\n{\"n\":3.5}\n{\"n\":4}x";
        let (read, noted) = numbers(Format::Jsonl, text, 10).unwrap();
        assert_eq!((read, noted.records, noted.bad), (vec![1.0, 3.5], 2, 4));
        assert_eq!(noted.first.iter().map(|bad| bad.line.unwrap()).collect::<Vec<_>>(), [2, 3, 5, 7]);
        assert!(noted.first[0].reason.starts_with("it is no JSON object"), "{noted:?}");
    }

    #[test]
    fn a_second_reading_counts_anew_and_a_filter_does_not_count_less() {
        let (table, notes) = noted(csv(), b"s,n\na,1\nb\nc,3\n", 5);
        let table = table.filtered(Some(Arc::new(Filter::parse("n > 2").unwrap())));
        for _ in 0..2 {
            let rows: usize = table.read(&[Wanted::text("s")]).unwrap().map(|batch| batch.unwrap().rows).sum();
            let noted = notes.so_far();
            assert_eq!((rows, noted.records, noted.bad), (1, 2, 1));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_stand_still(text in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\n'), Just(b','), Just(b'{'), any::<u8>()], 0..300)) {
            let text = [b"s,n\n", text.as_slice()].concat();
            for format in [csv(), Format::Csv(CsvOptions::default()), Format::Jsonl] {
                let (_, noted) = numbers(format, &text, u64::MAX).unwrap();
                prop_assert!(noted.bad + noted.records <= text.len() as u64 + 1);
            }
        }

        /// Of any lines, those that can be read alone are what is read together.
        #[test]
        fn bad_lines_take_nothing_from_their_neighbours(lines in prop::collection::vec("[a\"]{0,2}(,[0-9.x]{0,3}){0,2}", 0..40)) {
            let alone = |line: &String| numbers(csv(), format!("s,n\n{line}\n").as_bytes(), 0);
            let mut expected = Vec::new();
            let mut bad = 0;
            for line in &lines {
                match alone(line) {
                    Ok((read, _)) => expected.extend(read),
                    Err(_) => bad += 1,
                }
            }
            let text = format!("s,n\n{}\n", lines.join("\n"));
            let (read, noted) = numbers(csv(), text.as_bytes(), 100).unwrap();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(noted.bad, bad);
            prop_assert_eq!(noted.first.len() as u64, bad);
        }
    }
}
