use super::*;
use crate::{Batch, Cell, Column, CsvOptions, Filter, Format, Noted, Notes, Table, TableWriter};
use arrow_array::*;
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use std::io::{Seek, Write};
use std::sync::Arc;

const BOTH: [Columnar; 2] = [Columnar::Parquet, Columnar::Arrow];

/// A file with a group for each batch.
fn file(kind: Columnar, batches: &[RecordBatch]) -> Vec<u8> {
    let schema = batches[0].schema();
    match kind {
        Columnar::Parquet => {
            let mut writer = ::parquet::arrow::ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
            for batch in batches {
                writer.write(batch).unwrap();
                writer.flush().unwrap();
            }
            writer.into_inner().unwrap()
        }
        Columnar::Arrow => {
            let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &schema).unwrap();
            batches.iter().for_each(|batch| writer.write(batch).unwrap());
            writer.finish().unwrap();
            writer.into_inner().unwrap()
        }
    }
}

fn footer(kind: Columnar, bytes: &[u8]) -> Result<Footer, FormatError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    kind.footer(&file)
}

fn read(
    kind: Columnar,
    bytes: &[u8],
    groups: Range<u64>,
    counted: u64,
    wanted: &[Wanted],
    filter: Option<&str>,
) -> Result<Vec<Batch>, FormatError> {
    let table = Table::of_groups(Arc::new(Format::Columnar(kind)), Bytes::copy_from_slice(bytes), groups, counted);
    let filter = filter.map(|text| Arc::new(Filter::parse(text).unwrap()));
    table.filtered(filter).read(wanted)?.collect()
}

/// Each row as words, whatever its columns are.
fn rows(batches: &[Batch]) -> Vec<Vec<String>> {
    let cell = |column: &Column, row: usize| match column {
        Column::Text(array) => String::from_utf8_lossy(array.value(row)).into_owned(),
        Column::Decimal(array) if array.is_null(row) => "-".into(),
        Column::Decimal(array) => format!("{}e-{}", array.value(row), array.scale()),
        Column::Wide(array) if array.is_null(row) => "-".into(),
        Column::Wide(array) => format!("{}e-{}", array.value(row), array.scale()),
        Column::Float(array) if array.is_null(row) => "-".into(),
        Column::Float(array) => format!("{:?}", array.value(row)),
    };
    let of_batch = |batch: &Batch| -> Vec<Vec<String>> {
        (0..batch.rows).map(|row| batch.columns.iter().map(|column| cell(column, row)).collect()).collect()
    };
    batches.iter().flat_map(of_batch).collect()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

#[test]
fn every_type_has_the_text_and_the_number_that_a_csv_file_would_have() {
    let dictionary: DictionaryArray<types::Int8Type> = vec![Some("a"), None, Some("b")].into_iter().collect();
    let decimal = |array: Decimal128Array, scale| array.with_precision_and_scale(38, scale).unwrap();
    let of_19 = 1_234_567_890_123_456_789;
    let all: Vec<(&str, ArrayRef, [&str; 3], [&str; 3])> = vec![
        ("i8", Arc::new(Int8Array::from(vec![Some(-5), None, Some(7)])), ["-5", "", "7"], ["-5e-0", "-", "7e-0"]),
        ("u32", Arc::new(UInt32Array::from(vec![Some(u32::MAX), None, Some(0)])), ["4294967295", "", "0"], ["4294967295e-0", "-", "0e-0"]),
        (
            "i64",
            Arc::new(Int64Array::from(vec![Some(of_19), None, Some(3)])),
            ["1234567890123456789", "", "3"],
            ["1.2345678901234568e18", "-", "3e-0"],
        ),
        ("f64", Arc::new(Float64Array::from(vec![Some(0.1), None, Some(1e300)])), ["0.1", "", "1e300"], ["0.1", "-", "1e300"]),
        ("f32", Arc::new(Float32Array::from(vec![Some(0.5), None, Some(2.0)])), ["0.5", "", "2"], ["0.5", "-", "2.0"]),
        (
            "decimal",
            Arc::new(decimal(Decimal128Array::from(vec![Some(-150), None, Some(5)]), 2)),
            ["-1.50", "", "0.05"],
            ["-150e-2", "-", "5e-2"],
        ),
        (
            "long",
            Arc::new(decimal(Decimal128Array::from(vec![Some(10i128.pow(30) + 1), None, Some(10i128.pow(30))]), 30)),
            ["1.000000000000000000000000000001", "", "1.000000000000000000000000000000"],
            ["1.0", "-", "1e-0"],
        ),
        (
            "text",
            Arc::new(StringArray::from(vec![Some("1.5"), None, Some("12345678901234567890")])),
            ["1.5", "", "12345678901234567890"],
            ["15e-1", "-", "1.2345678901234567e19"],
        ),
        ("dictionary", Arc::new(dictionary), ["a", "", "b"], ["", "", ""]),
        ("binary", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"x"), None, Some(b"")])), ["x", "", ""], ["", "", ""]),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), ["true", "", "false"], ["", "", ""]),
        ("date", Arc::new(Date32Array::from(vec![Some(19_782), None, Some(-1)])), ["2024-02-29", "", "1969-12-31"], ["", "", ""]),
        (
            "time",
            Arc::new(TimestampMillisecondArray::from(vec![Some(1_709_164_800_500), None, Some(-1)])),
            ["2024-02-29T00:00:00.5", "", "1969-12-31T23:59:59.999"],
            ["", "", ""],
        ),
    ];
    let one = batch(all.iter().map(|(name, array, ..)| (*name, array.clone())).collect());
    for kind in BOTH {
        let bytes = file(kind, std::slice::from_ref(&one));
        let found = footer(kind, &bytes).unwrap();
        assert_eq!(found.groups, 1);
        for (name, _, texts, numbers) in &all {
            found.check_columns([*name]).unwrap();
            let text = rows(&read(kind, &bytes, 0..1, 1, &[Wanted::text(name)], None).unwrap());
            assert_eq!(text.concat(), texts, "{kind:?} {name}");
            let number = read(kind, &bytes, 0..1, 1, &[Wanted::number(name)], None);
            if numbers[0].is_empty() {
                let said = number.unwrap_err().to_string();
                assert!(said.contains("numbers are wanted") || said.contains("which is no number"), "{name}: {said}");
            } else {
                assert_eq!(rows(&number.unwrap()).concat(), numbers, "{kind:?} {name}");
            }
        }
        let said = found.check_columns(["u31"]).unwrap_err().to_string();
        assert!(said.contains("there is no column 'u31'; did you mean 'u32'?"), "{said}");
    }
}

#[test]
fn lists_and_numbers_that_are_none_are_told_with_column_and_row() {
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<types::Int32Type, _, _>([Some(vec![Some(1)]), None]));
    let nan: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN]));
    let one = batch(vec![("list", list), ("nan", nan), ("at", Arc::new(Time64MicrosecondArray::from(vec![1, 2])))]);
    assert!(matches!(one.column(2).data_type(), DataType::Time64(TimeUnit::Microsecond)));
    for kind in BOTH {
        let bytes = file(kind, std::slice::from_ref(&one));
        let said = footer(kind, &bytes).unwrap().check_columns(["list"]).unwrap_err().to_string();
        assert!(said.starts_with("column 'list' is of type List("), "{said}");
        let said = read(kind, &bytes, 0..1, 1, &[Wanted::text("list")], None).unwrap_err().to_string();
        assert!(said.starts_with("column 'list' is of type List("), "{said}");
        let said = read(kind, &bytes, 0..1, 1, &[Wanted::number("nan")], None).unwrap_err().to_string();
        assert!(said.starts_with("the cell in row 2, column 'nan', is \"NaN\", which is no number"), "{said}");
        let at = rows(&read(kind, &bytes, 0..1, 1, &[Wanted::text("at")], None).unwrap());
        assert_eq!(at.concat(), ["00:00:00.000001", "00:00:00.000002"]);
    }
}

/// Cities and amounts, so many rows in each group; amounts rise from group to group.
fn sales(groups: i64, rows: i64) -> Vec<RecordBatch> {
    let group = |group: i64| {
        let amounts: ArrayRef = Arc::new(Int64Array::from_iter((0..rows).map(|row| (row % 5 != 4).then_some(group * rows + row))));
        let cities: ArrayRef =
            Arc::new(StringArray::from_iter((0..rows).map(|row| (row % 7 != 6).then(|| format!("city {} of {group}", row % 3)))));
        batch(vec![("city", cities), ("amount", amounts)])
    };
    (0..groups).map(group).collect()
}

fn csv(batches: &[RecordBatch]) -> Vec<u8> {
    let mut out = b"city,amount\n".to_vec();
    for batch in batches {
        let cities = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        let amounts = batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
        for (city, amount) in cities.iter().zip(amounts) {
            out.extend(format!("{},{}\n", city.unwrap_or_default(), amount.map_or(String::new(), |amount| amount.to_string())).bytes());
        }
    }
    out
}

#[test]
fn splits_of_groups_give_the_file_and_filters_the_rows_that_they_give_of_csv() {
    let batches = sales(4, 5000);
    let text = csv(&batches);
    let wanted = [Wanted::text("city"), Wanted::number("amount"), Wanted::text("amount")];
    let of_csv = |filter: Option<&str>| {
        let filter = filter.map(|text| Arc::new(Filter::parse(text).unwrap()));
        let table = Table::new(Arc::new(Format::Csv(CsvOptions::default())), Bytes::copy_from_slice(&text), 0..text.len()).filtered(filter);
        rows(&table.read(&wanted).unwrap().collect::<Result<Vec<_>, _>>().unwrap())
    };
    for kind in BOTH {
        let bytes = file(kind, &batches);
        let all = rows(&read(kind, &bytes, 0..4, 4, &wanted, None).unwrap());
        assert_eq!(all.len(), 20_000);
        assert_eq!(all, of_csv(None));
        let apart: Vec<_> =
            [0..1, 1..3, 3..4, 4..4].into_iter().flat_map(|groups| read(kind, &bytes, groups, 4, &wanted, None).unwrap()).collect();
        assert_eq!(rows(&apart), all);
        assert_eq!(
            read(kind, &bytes, 1..2, 4, &[], None).unwrap().iter().map(|batch| batch.rows).sum::<usize>(),
            5000,
            "rows without columns"
        );
        for filter in [
            "amount >= 14990",
            "amount < 3 and city != 'city 1 of 0'",
            "city = 'city 2 of 3'",
            "city = ''",
            "city < 'city 0 of 1'",
            "amount = 7",
            "amount > 100000",
            "city > 'd'",
        ] {
            assert_eq!(rows(&read(kind, &bytes, 0..4, 4, &wanted, Some(filter)).unwrap()), of_csv(Some(filter)), "{kind:?}: {filter}");
        }
        let said = read(kind, &bytes, 0..3, 3, &wanted, None).unwrap_err().to_string();
        assert!(said.contains("than when it was listed"), "{said}");
    }
}

/// What a group holds is not looked at where its statistics say that no row of it counts.
#[test]
fn groups_that_cannot_count_are_not_read() {
    let bytes = file(Columnar::Parquet, &sales(2, 500));
    let mut bad = bytes.clone();
    // The data of the first group stand at the start of the file, behind four bytes.
    bad[4..300].iter_mut().for_each(|byte| *byte = 0xff);
    let read = |bytes: &[u8], filter: &str| read(Columnar::Parquet, bytes, 0..2, 2, &[Wanted::text("city")], Some(filter));
    assert!(read(&bad, "amount < 3").is_err());
    assert_eq!(rows(&read(&bad, "amount >= 500").unwrap()), rows(&read(&bytes, "amount >= 500").unwrap()));
    let greater = rows(&read(&bad, "city > 'city 2 of 0'").unwrap());
    assert_eq!(greater, rows(&read(&bytes, "city > 'city 2 of 0'").unwrap()), "a text of which the first group has none greater");
    assert_eq!(greater.len(), 143);
}

/// Whatever a byte of a file is changed to, and wherever the file ends, it is read or refused.
#[test]
fn no_change_of_a_file_makes_a_reader_panic() {
    let batches = sales(2, 30);
    let wanted = [Wanted::text("city"), Wanted::number("amount")];
    for kind in BOTH {
        let bytes = file(kind, &batches);
        let all = |bytes: &[u8]| -> Result<Vec<Vec<String>>, FormatError> {
            let groups = u64::from(footer(kind, bytes)?.groups);
            Ok(rows(&read(kind, bytes, 0..groups, groups, &wanted, Some("amount >= 0"))?))
        };
        let right = all(&bytes).unwrap();
        assert_eq!(right.len(), 48);
        for length in 0..bytes.len() {
            let error = all(&bytes[..length]).expect_err("a file that was cut off");
            assert!(matches!(error, FormatError::Broken { .. }), "{kind:?} cut at {length}: {error}");
        }
        let (mut same, mut other, mut refused) = (0, 0, 0);
        let mut bad = bytes.clone();
        for at in 0..bytes.len() {
            bad[at] ^= [0x01, 0x80, 0xff][at % 3];
            match all(&bad) {
                Ok(found) if found == right => same += 1,
                // Values have no checksum in these files: another value is as good as the right one.
                Ok(_) => other += 1,
                Err(_) => refused += 1,
            }
            bad[at] = bytes[at];
        }
        println!("{kind:?}: of {} changes {same} do not matter, {refused} were refused, {other} give other rows", bytes.len());
        assert!(refused > bytes.len() / 8, "{kind:?}: {refused} of {}", bytes.len());
    }
}

#[test]
fn a_result_is_written_and_read_back() {
    for kind in BOTH {
        let columns = [("city".to_owned(), Cell::Text), ("count".to_owned(), Cell::Count), ("mean".to_owned(), Cell::Number)];
        let mut writer = TableWriter::new(kind, columns.clone()).unwrap();
        writer.push([&b"Oslo"[..], b"3", b"1.5"]).unwrap();
        writer.push([&b""[..], b"0", b""]).unwrap();
        let bytes = writer.finish().unwrap();
        let wanted = [Wanted::text("city"), Wanted::number("count"), Wanted::number("mean")];
        assert_eq!(footer(kind, &bytes).unwrap().groups, 1);
        assert_eq!(rows(&read(kind, &bytes, 0..1, 1, &wanted, None).unwrap()), [["Oslo", "3e-0", "1.5"], ["", "0e-0", "-"]]);
        let empty = TableWriter::new(kind, columns.clone()).unwrap().finish().unwrap();
        let groups = u64::from(footer(kind, &empty).unwrap().groups);
        assert_eq!(rows(&read(kind, &empty, 0..groups, groups, &wanted, None).unwrap()).len(), 0);
        let mut writer = TableWriter::new(kind, columns).unwrap();
        let said = writer.push([&b"\xff"[..], b"3", b"1"]).unwrap_err().to_string();
        assert!(said.starts_with("the cell in row 1, column 'city', cannot stand in a file of format"), "{said}");
    }
}

/// The file with nothing in it but what a reader of these groups is said to read.
fn with_holes(kind: Columnar, bytes: &[u8], groups: Range<u64>, columns: &[String]) -> Result<Vec<u8>, FormatError> {
    let length = bytes.len() as u64;
    let tail = &bytes[bytes.len().saturating_sub(Columnar::TAIL_BYTES as usize)..];
    let end = kind.end_bytes(tail).min(length);
    let mut there = vec![0; bytes.len()];
    let mut bring = |place: Range<u64>| {
        there[place.start as usize..place.end as usize].copy_from_slice(&bytes[place.start as usize..place.end as usize])
    };
    bring(length - end..length);
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(length).unwrap();
    file.seek(std::io::SeekFrom::Start(length - end)).unwrap();
    file.write_all(&bytes[(length - end) as usize..]).unwrap();
    kind.places(&file, groups, columns)?.into_iter().for_each(bring);
    Ok(there)
}

#[test]
fn what_is_said_to_be_read_is_all_that_is_read() {
    // One dictionary for all groups, as an Arrow file has it.
    let cities: DictionaryArray<types::Int8Type> = (0..200).map(|row| (row % 7 != 6).then(|| ["Oslo", "Lima"][row % 2])).collect();
    let amounts = |group: i64| Int64Array::from_iter_values((0..200).map(|row| group * 1000 + row));
    let others = |group: i64| StringArray::from_iter_values((0..200).map(|row| format!("{group} {row}")));
    let group = |g: i64| {
        batch(vec![("city", Arc::new(cities.clone()) as _), ("amount", Arc::new(amounts(g)) as _), ("other", Arc::new(others(g)) as _)])
    };
    let batches: Vec<RecordBatch> = (0..4).map(group).collect();
    let names = ["amount".to_owned(), "city".to_owned()];
    let wanted = [Wanted::text("city"), Wanted::number("amount")];
    for kind in BOTH {
        let bytes = file(kind, &batches);
        // For the footer, what belongs to no group is enough.
        let listed = with_holes(kind, &bytes, 0..0, &[]).unwrap();
        assert_eq!(footer(kind, &listed).unwrap(), footer(kind, &bytes).unwrap(), "{kind:?}");
        for groups in [0..1, 1..3, 3..4, 0..4, 2..2] {
            let there = with_holes(kind, &bytes, groups.clone(), &names).unwrap();
            let of = |bytes: &[u8]| rows(&read(kind, bytes, groups.clone(), 4, &wanted, Some("amount >= 1050 and city = 'Oslo'")).unwrap());
            assert_eq!(of(&there), of(&bytes), "{kind:?} {groups:?}");
        }
        let brought = |groups: Range<u64>, columns: &[String]| {
            with_holes(kind, &bytes, groups, columns).unwrap().iter().filter(|byte| **byte != 0).count()
        };
        assert!(brought(1..2, &[]) < brought(0..4, &[]) / 2, "{kind:?}: one group of four");
        if kind == Columnar::Parquet {
            assert!(brought(0..4, &names) < brought(0..4, &[]), "two columns of three");
        }
    }
}

#[test]
fn a_damaged_end_leads_nowhere_beyond_the_file() {
    for kind in BOTH {
        let bytes = file(kind, &sales(2, 30));
        let mut bad = bytes.clone();
        for at in 0..bytes.len() {
            bad[at] ^= [0x01, 0x80, 0xff][at % 3];
            let end = kind.end_bytes(&bad[bytes.len() - Columnar::TAIL_BYTES as usize..]);
            if end <= bytes.len() as u64
                && let Ok(there) = with_holes(kind, &bad, 0..2, &[])
            {
                assert_eq!(there.len(), bytes.len());
            }
            bad[at] = bytes[at];
        }
        assert_eq!(kind.end_bytes(b""), 0);
        assert_eq!(kind.end_bytes(b"not such a file"), 15);
    }
}

fn noted(
    kind: Columnar,
    bytes: &[u8],
    groups: Range<u64>,
    wanted: &[Wanted],
    filter: Option<&str>,
    allowed: u64,
) -> (Vec<Vec<String>>, Noted) {
    let notes = Arc::new(Notes::allowing(allowed));
    let table = Table::of_groups(Arc::new(Format::Columnar(kind)), Bytes::copy_from_slice(bytes), groups, 3).noted(notes.clone());
    let filter = filter.map(|text| Arc::new(Filter::parse(text).unwrap()));
    let batches: Vec<Batch> = table.filtered(filter).read(wanted).unwrap().map_while(Result::ok).collect();
    (rows(&batches), notes.so_far())
}

/// Three groups of three rows: a key, a text that is mostly a number, and a float.
fn with_bad_cells() -> Vec<RecordBatch> {
    let group = |keys: [i64; 3], texts: [Option<&str>; 3], floats: [f64; 3]| {
        batch(vec![
            ("key", Arc::new(Int64Array::from(keys.to_vec())) as ArrayRef),
            ("text", Arc::new(StringArray::from(texts.to_vec()))),
            ("float", Arc::new(Float64Array::from(floats.to_vec()))),
        ])
    };
    vec![
        group([1, 2, 3], [Some("1"), Some("many"), None], [0.5, f64::NAN, 1.5]),
        group([4, 5, 6], [Some("4"), Some("5"), Some(" ")], [2.5, 3.5, 4.5]),
        group([7, 8, 9], [Some("7"), Some("8"), Some("x")], [f64::INFINITY, 6.5, 7.5]),
    ]
}

#[test]
fn rows_whose_cells_are_no_numbers_are_left_out_with_their_row_and_reason() {
    let wanted = [Wanted::text("key"), Wanted::number("text"), Wanted::number("float")];
    for kind in BOTH {
        let bytes = file(kind, &with_bad_cells());
        let (read, noted) = noted(kind, &bytes, 0..3, &wanted, None, 10);
        let keys: Vec<&str> = read.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(keys, ["1", "3", "4", "5", "6", "8"], "{kind:?}");
        assert_eq!(read[1], ["3", "-", "1.5"], "a null is an empty cell, and no bad one");
        assert_eq!((noted.records, noted.bad, noted.too_many), (6, 3, false));
        let told: Vec<_> = noted
            .first
            .iter()
            .map(|bad| (bad.offset, bad.record.unwrap(), bad.line, String::from_utf8_lossy(&bad.shown).into_owned(), bad.reason.as_str()))
            .collect();
        let many = "its cell in column 'text' is \"many\", which is no number";
        let infinite = "its cell in column 'float' is \"inf\", which is no number";
        let x = "its cell in column 'text' is \"x\", which is no number";
        let expected = [
            (1, 2, None, "key=2, text=many, float=NaN".to_owned(), many),
            (6, 7, None, "key=7, text=7, float=inf".to_owned(), infinite),
            (8, 9, None, "key=9, text=x, float=7.5".to_owned(), x),
        ];
        assert_eq!(told, expected, "{kind:?}");
    }
}

#[test]
fn rows_count_from_the_files_first_whatever_was_passed_over() {
    let wanted = [Wanted::text("key"), Wanted::number("text")];
    for kind in BOTH {
        let bytes = file(kind, &with_bad_cells());
        let row_of = |groups, filter| noted(kind, &bytes, groups, &wanted, filter, 10).1.first.last().and_then(|bad| bad.record);
        assert_eq!(row_of(2..3, None), Some(9), "{kind:?}");
        assert_eq!(row_of(1..2, None), None);
        // The statistics rule out a group in the middle, and then the first one.
        assert_eq!(row_of(0..3, Some("key != 5 and key >= 7")), Some(9), "{kind:?}");
        // The error of a job that allows none names the row too.
        let error = read(kind, &bytes, 2..3, 3, &wanted, None).unwrap_err();
        assert!(matches!(&error, FormatError::NoNumberInRow { row: 9, text, .. } if text == "x"), "{kind:?}: {error}");
    }
}

/// Of an object a task has its own batches alone.
#[test]
fn of_an_arrow_file_with_holes_rows_count_from_the_splits_first_and_that_is_said() {
    let bytes = file(Columnar::Arrow, &with_bad_cells());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let there = Columnar::Arrow.places(&file, 2..3, &[]).unwrap();
    let mut holes = vec![0; bytes.len()];
    let length = bytes.len() as u64;
    let end = length - Columnar::Arrow.end_bytes(&bytes[bytes.len() - Columnar::TAIL_BYTES as usize..]);
    for range in there.into_iter().chain(std::iter::once(end..length)) {
        holes[range.start as usize..range.end as usize].copy_from_slice(&bytes[range.start as usize..range.end as usize]);
    }
    let (_, noted) = noted(Columnar::Arrow, &holes, 2..3, &[Wanted::number("text")], None, 10);
    let [bad] = noted.first.as_slice() else { panic!("{noted:?}") };
    assert_eq!((bad.record, bad.offset), (Some(3), 2));
    assert!(bad.reason.ends_with("; rows are counted from record batch 2, the first one is 0"), "{}", bad.reason);
}

#[test]
fn one_bad_row_more_than_is_allowed_ends_the_reading() {
    let wanted = [Wanted::number("text"), Wanted::number("float")];
    for kind in BOTH {
        let bytes = file(kind, &with_bad_cells());
        let (read, noted) = noted(kind, &bytes, 0..3, &wanted, None, 2);
        assert_eq!((noted.bad, noted.too_many, noted.first.len()), (2, true, 3), "{kind:?}");
        assert_eq!(noted.first[2].record, Some(9));
        // Of Parquet one reading spans row groups, so that none of them is through yet.
        assert_eq!(read.len(), if kind == Columnar::Arrow { 5 } else { 0 }, "{kind:?}: what was read before");
    }
}
