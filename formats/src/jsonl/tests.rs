use crate::table::{Format, Table};
use crate::{Array, Column, FormatError, Kind, Wanted};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn cells(text: &[u8], names: &[&str]) -> Result<Vec<Vec<String>>, FormatError> {
    let wanted: Vec<Wanted> = names.iter().map(|name| Wanted::text(name)).collect();
    let table = Table::new(Arc::new(Format::Jsonl), Bytes::copy_from_slice(text), 0..text.len());
    let mut rows = Vec::new();
    for batch in table.read(&wanted)? {
        let batch = batch?;
        for row in 0..batch.rows {
            let cell = |column: &Column| match column {
                Column::Text(array) => String::from_utf8_lossy(array.value(row)).into_owned(),
                other => panic!("{other:?}"),
            };
            rows.push(batch.columns.iter().map(cell).collect());
        }
    }
    Ok(rows)
}

#[test]
fn columns_are_keys_and_paths_of_keys() {
    let text = "\u{feff}{\"a\": \"x\\u00e4\\ud83d\\ude00\\n\", \"b\": {\"c\": 1.50, \"d\": [1, {\"e\": \"]\"}]}, \"f.g\": true}\r\n\n \
                {\"b\": null, \"a\": \"\"}\n{\"a\": \"one\", \"a\": \"two\"}";
    assert_eq!(
        cells(text.as_bytes(), &["a", "b.c", "b.d", "f.g", "b"]).unwrap(),
        [
            vec!["x\u{e4}\u{1f600}\n", "1.50", "[1, {\"e\": \"]\"}]", "true", "{\"c\": 1.50, \"d\": [1, {\"e\": \"]\"}]}"],
            vec!["", "", "", "", ""],
            vec!["two", "", "", "", ""],
        ]
    );
}

#[test]
fn numbers_are_numbers_with_or_without_quotes() {
    let text = b"{\"n\": -12.5}\n{\"n\": \"7\"}\n{\"n\": null}\n{}\n{\"n\": 1e2}\n";
    let table = |text: &'static [u8]| Table::new(Arc::new(Format::Jsonl), Bytes::from_static(text), 0..text.len());
    let batches: Result<Vec<_>, _> = table(text).read(&[Wanted::number("n")]).unwrap().collect();
    let Column::Decimal(array) = &batches.unwrap()[0].columns[0] else { panic!() };
    assert_eq!((array.iter().collect::<Vec<_>>(), array.scale()), (vec![Some(-125), Some(70), None, None, Some(1000)], 1));
    let error = table(b"{}\n{\"n\": true}\n").read(&[Wanted::number("n")]).unwrap().find_map(Result::err).unwrap();
    assert_eq!(
        error.to_string(),
        "the cell at line 2 (byte 9 of the file), column 'n', is \"true\", which is no number; an empty cell counts as no value"
    );
}

#[test]
fn what_is_no_object_is_told_with_its_place() {
    for (line, expected) in [
        ("[1]", "line 2 (byte 3 of the file): an object was expected; every line is one JSON object"),
        ("{\"a\": 1", "a comma or a closing brace was expected"),
        ("{\"a\": }", "line 2 (byte 9 of the file): a value was expected"),
        ("{\"a\"}", "a colon was expected behind the key"),
        ("{a: 1}", "a key in quotes was expected"),
        ("{\"a\": \"x}", "a string is not closed"),
        ("{\"a\": \"\\x\"}", "a backslash is followed by what JSON does not know"),
        ("{\"a\": 1} 2", "something follows the object"),
        ("{\"a\": [1 2]}", "a comma or a closing bracket was expected"),
    ] {
        let error = cells(format!("{{}}\n{line}\n").as_bytes(), &["a"]).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
    assert!(cells(deep.as_bytes(), &["b"]).unwrap_err().to_string().contains("too deep"));
}

#[test]
fn columns_are_looked_for_in_the_first_rows() {
    let head = b"{\"a\": {\"b\": 1}}\n{\"c\": 2}\n{\"cut";
    assert_eq!(Format::Jsonl.check_columns(head, ["a.b", "c", "a"]), Ok(()));
    let error = Format::Jsonl.check_columns(head, ["a.bb"]).unwrap_err().to_string();
    assert_eq!(error, "there is no column 'a.bb'; did you mean 'a.b'? its columns: 'a', 'a.b', 'c'");
    assert_eq!(Format::Jsonl.check_columns(b"", ["x"]), Ok(()));
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}|[\\x00-\\x7f]{0,9}".prop_map(Value::from)
    ]
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

proptest! {
    #[test]
    fn what_serde_writes_is_read_back(rows in proptest::collection::vec((leaf(), leaf(), proptest::collection::vec(leaf(), 0..3)), 0..20)) {
        let rows: Vec<Value> = rows.into_iter().map(|(a, b, list)| json!({ "a": a, "deep": { "b": b, "list": list } })).collect();
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let expected: Vec<Vec<String>> = rows.iter()
            .map(|row| vec![shown(row.pointer("/deep/b")), shown(row.get("a")), shown(row.pointer("/deep/list")), shown(row.get("no"))])
            .collect();
        prop_assert_eq!(cells(text.as_bytes(), &["deep.b", "a", "deep.list", "no"]).unwrap(), expected);
    }

    #[test]
    fn no_bytes_make_it_panic(file in "(\\{|\\}|\\[|\\]|\"|a|\\\\|:|,|u|1|\n|\\.|null| ){0,80}", from in 0usize..80, bytes in 0usize..80) {
        let file = Bytes::from(file);
        let _ = Format::Jsonl.check_columns(&file, ["a", "a.a"]);
        let table = Table::new(Arc::new(Format::Jsonl), file, from..from + bytes);
        for kind in [Kind::Text, Kind::Number] {
            for batch in table.read(&[Wanted { name: "a".into(), kind }, Wanted { name: "a.a".into(), kind }]).unwrap().flatten() {
                prop_assert!(batch.columns[0].to_array().to_data().validate_full().is_ok());
            }
        }
    }
}
