use crate::table::{CsvOptions, Format, Table};
use crate::{Batch, Column, FormatError, Kind, Number, Wanted};
use arrow_array::Array;
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;

fn table(text: &[u8], options: &CsvOptions) -> Table {
    Table::new(Arc::new(Format::Csv(options.clone())), Bytes::copy_from_slice(text), 0..text.len())
}

fn batches(text: &[u8], options: &CsvOptions, wanted: &[Wanted]) -> Result<Vec<Batch>, FormatError> {
    table(text, options).read(wanted)?.collect()
}

/// One number of a column, as a float and exactly.
fn number(column: &Column, row: usize) -> Option<Number> {
    match column {
        Column::Text(_) => panic!("a column of text"),
        Column::Decimal(array) if array.is_valid(row) => Some(Number::Decimal { mantissa: array.value(row), scale: array.scale() as u8 }),
        Column::Wide(array) if array.is_valid(row) => Some(Number::Float(array.value(row) as f64 / 1e18)),
        Column::Float(array) if array.is_valid(row) => Some(Number::Float(array.value(row))),
        _ => None,
    }
}

/// All cells of these columns, as text, row by row.
fn cells(text: &[u8], options: &CsvOptions, names: &[&str]) -> Result<Vec<Vec<Vec<u8>>>, FormatError> {
    let wanted: Vec<Wanted> = names.iter().map(|name| Wanted::text(name)).collect();
    let mut rows = Vec::new();
    for batch in batches(text, options, &wanted)? {
        for row in 0..batch.rows {
            let cell = |column: &Column| match column {
                Column::Text(array) => array.value(row).to_vec(),
                other => panic!("{other:?}"),
            };
            rows.push(batch.columns.iter().map(cell).collect());
        }
    }
    Ok(rows)
}

fn shown(text: &str, options: &CsvOptions, names: &[&str]) -> Result<Vec<String>, String> {
    let rows = cells(text.as_bytes(), options, names).map_err(|error| error.to_string())?;
    Ok(rows.iter().map(|row| row.iter().map(|cell| String::from_utf8_lossy(cell)).collect::<Vec<_>>().join("|")).collect())
}

fn plain() -> CsvOptions {
    CsvOptions::default()
}

#[test]
fn columns_are_found_by_name_in_any_order() {
    let text = "city,amount,user\nLyon,1,ann\nOslo,2,bob\n";
    assert_eq!(shown(text, &plain(), &["user", "city"]).unwrap(), ["ann|Lyon", "bob|Oslo"]);
    assert_eq!(shown(text, &plain(), &["city", "city"]).unwrap(), ["Lyon|Lyon", "Oslo|Oslo"]);
}

#[test]
fn quotes_marks_line_ends_and_empty_lines_are_as_the_standard_has_them() {
    let text = "\u{feff}\r\n\"a\",b\r\n\"x, \"\"y\"\"\nz\",2\r\n\r\n,\"\"\r\nit\"s,last";
    assert_eq!(shown(text, &plain(), &["a", "b"]).unwrap(), ["x, \"y\"\nz|2", "|", "it\"s|last"]);
}

#[test]
fn without_a_header_columns_have_numbers_or_the_names_given() {
    let options = CsvOptions { header: false, separator: b';', ..plain() };
    assert_eq!(shown("Lyon;1.5\nOslo;-2\n", &options, &["2", "1"]).unwrap(), ["1.5|Lyon", "-2|Oslo"]);
    let named = CsvOptions { names: vec!["station".into(), "t".into()], ..options };
    assert_eq!(shown("Lyon;1.5\n", &named, &["t"]).unwrap(), ["1.5"]);
    assert!(shown("Lyon;1.5;x\n", &named, &["t"]).unwrap_err().contains("has 3 cells, and `columns` names 2"));
}

#[test]
fn what_is_wrong_is_said_with_line_and_byte() {
    let say = |text: &str, name: &str| shown(text, &plain(), &[name]).unwrap_err();
    assert_eq!(
        say("a,b\n1,2\n1\n", "a"),
        "the row at line 3 (byte 8 of the file) has 1 cells and the table has 2 columns; mend the row, or its quotes"
    );
    assert!(say("a,b\n1,2,3,\"4,4\"\n", "a").contains("line 2 (byte 4 of the file) has 4 cells"));
    assert!(
        say("a,b\n\"1,2\n3,4\n", "b").contains("quotes that open at line 2 (byte 4 of the file) are not closed before the end of the file")
    );
    assert!(say("a,b\n\"1\"x,2\n", "b").contains("goes on behind its closing quotes"));
    assert_eq!(say("city,amount\n1,2\n", "amuont"), "there is no column 'amuont'; did you mean 'amount'? its columns: 'city', 'amount'");
    assert!(say("a,a\n1,2\n", "a").contains("2 columns are called 'a'"));
    let lines = CsvOptions { quoted_newlines: false, ..plain() };
    let error = shown("a,b\n\"1\n2\",3\n", &lines, &["a"]).unwrap_err();
    assert!(error.contains("before the end of the line") && error.contains("quoted_newlines = true"), "{error}");
    let wanted = [Wanted::number("b")];
    let error = batches(b"a,b\n1,2\n1,many\n", &plain(), &wanted).unwrap_err().to_string();
    assert_eq!(
        error,
        "the cell at line 3 (byte 10 of the file), column 'b', is \"many\", which is no number; an empty cell counts as no value"
    );
}

#[test]
fn columns_are_looked_for_in_the_head_of_a_file() {
    let format = Format::Csv(plain());
    assert_eq!(format.check_columns(b"a,b\n1,2", ["b", "a"]), Ok(()));
    assert_eq!(format.check_columns(b"", ["b"]), Ok(()));
    assert!(matches!(format.check_columns(b"a,b\n", ["c"]), Err(FormatError::UnknownColumn { .. })));
    assert!(matches!(format.check_columns(&vec![b'x'; crate::HEAD_BYTES], ["c"]), Err(FormatError::Head(_))));
}

#[test]
fn a_file_without_rows_gives_none_whatever_is_wanted() {
    for text in ["", "\n\r\n", "\u{feff}"] {
        assert!(shown(text, &plain(), &["a"]).unwrap().is_empty(), "{text:?}");
    }
    assert!(shown("a\n", &plain(), &["a"]).unwrap().is_empty());
}

#[test]
fn a_column_that_mixes_decimals_and_floats_is_cut_into_batches_of_one_kind() {
    let text = "n,t\n1.5,a\n,b\n1e30,c\n,d\n2e30,e\n0.25,f\n3,g\n";
    let batches = batches(text.as_bytes(), &plain(), &[Wanted::number("n"), Wanted::text("t")]).unwrap();
    let kinds: Vec<(usize, bool)> = batches.iter().map(|batch| (batch.rows, matches!(batch.columns[0], Column::Float(_)))).collect();
    assert_eq!(kinds, [(2, false), (3, true), (2, false)]);
    let all: Vec<_> = batches.iter().flat_map(|batch| (0..batch.rows).map(|row| number(&batch.columns[0], row))).collect();
    let decimal = |mantissa| Some(Number::Decimal { mantissa, scale: 2 });
    let one = Some(Number::Decimal { mantissa: 15, scale: 1 });
    assert_eq!(all, [one, None, Some(Number::Float(1e30)), None, Some(Number::Float(2e30)), decimal(25), decimal(300)]);
    let Column::Text(array) = &batches[1].columns[1] else { panic!() };
    assert_eq!(array.iter().flatten().collect::<Vec<_>>(), [b"c", b"d", b"e"]);
}

#[test]
fn every_split_of_lines_gives_its_rows_and_all_together_the_file() {
    let mut text = String::from("key,value\n");
    (0..9000).for_each(|row| text += &format!("key {row} is rather long,{}\n", row * 7));
    let options = CsvOptions { quoted_newlines: false, ..plain() };
    let ends: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1).step_by(911)).chain([text.len()]).collect();
    let format = Arc::new(Format::Csv(options.clone()));
    let file = Bytes::copy_from_slice(text.as_bytes());
    let mut sum = 0;
    let mut rows = 0;
    for range in ends.windows(2) {
        let table = Table::new(format.clone(), file.clone(), range[0]..range[1]);
        for batch in table.read(&[Wanted::number("value")]).unwrap() {
            let batch = batch.unwrap();
            rows += batch.rows;
            let Column::Decimal(array) = &batch.columns[0] else { panic!() };
            sum += array.values().iter().sum::<i64>();
        }
    }
    assert_eq!((rows, sum), (9000, (0..9000).map(|row| row * 7).sum()));
    let whole = batches(text.as_bytes(), &options, &[Wanted::text("key")]).unwrap();
    assert_eq!(whole.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [4096, 4096, 808]);
    for batch in &whole {
        batch.columns[0].to_array().to_data().validate_full().unwrap();
    }
}

fn cell() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{0,6}".prop_map(String::into_bytes),
        "[a-c,;\"\r\n ]{0,9}".prop_map(String::into_bytes),
        "[a-z]{11,30}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

/// Texts over letters that matter.
fn text() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b','), Just(b'"'), Just(b'\n'), Just(b'a'), Just(b'b')], 0..60)
}

proptest! {
    #[test]
    fn what_the_csv_crate_writes_is_read_back(
        columns in 1usize..5,
        flat in proptest::collection::vec(cell(), 0..120),
        separator in prop_oneof![Just(b','), Just(b';'), Just(b'\t')],
        windows in any::<bool>(),
        always in any::<bool>(),
    ) {
        let terminator = if windows { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let style = if always { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
        let mut writer = csv::WriterBuilder::new().delimiter(separator).terminator(terminator).quote_style(style).from_writer(Vec::new());
        let rows: Vec<&[Vec<u8>]> = flat.chunks_exact(columns).collect();
        let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
        writer.write_record(&names).unwrap();
        rows.iter().for_each(|row| writer.write_record(*row).unwrap());
        let text = writer.into_inner().unwrap();
        let options = CsvOptions { separator, ..plain() };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        prop_assert_eq!(cells(&text, &options, &names).unwrap(), rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>());
        // Projection gives what the whole row gives.
        let last = cells(&text, &options, &names[columns - 1..]).unwrap();
        prop_assert_eq!(last, rows.iter().map(|row| row[columns - 1..].to_vec()).collect::<Vec<_>>());
    }

    #[test]
    fn where_both_read_a_text_both_read_the_same(text in text()) {
        let options = CsvOptions { header: false, ..plain() };
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(false).terminator(csv::Terminator::Any(b'\n')).from_reader(&text[..]);
        let theirs: Result<Vec<csv::ByteRecord>, _> = reader.byte_records().collect();
        let columns = theirs.as_ref().ok().and_then(|rows| rows.first()).map_or(1, csv::ByteRecord::len);
        let names: Vec<String> = (1..=columns).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match (cells(&text, &options, &names), theirs) {
            (Ok(ours), Ok(theirs)) => {
                let theirs: Vec<Vec<Vec<u8>>> = theirs.iter().map(|row| row.iter().map(<[u8]>::to_vec).collect()).collect();
                prop_assert_eq!(ours, theirs);
            }
            // It reads quotes that are never closed, and what follows closing quotes.
            (Err(FormatError::Unclosed { .. } | FormatError::AfterQuotes { .. }), _) => {}
            (Err(FormatError::Ragged { .. }), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "{:?} {:?}", ours, theirs),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        file in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b','), Just(b'"'), Just(b'\r')], 0..300),
        from in 0usize..300,
        bytes in 0usize..300,
        header in any::<bool>(),
        quoted_newlines in any::<bool>(),
    ) {
        let options = CsvOptions { header, quoted_newlines, ..plain() };
        let format = Arc::new(Format::Csv(options.clone()));
        let name = super::Layout::read(&file, &options).ok().flatten().and_then(|layout| layout.names.first().cloned()).unwrap_or_default();
        let table = Table::new(format, Bytes::from(file), from..from + bytes);
        for kind in [Kind::Text, Kind::Number] {
            if let Ok(batches) = table.read(&[Wanted { name: name.clone(), kind }]) {
                for batch in batches.flatten() {
                    prop_assert!(batch.columns[0].to_array().to_data().validate_full().is_ok());
                }
            }
        }
    }
}
