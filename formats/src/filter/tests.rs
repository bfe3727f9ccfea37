use super::*;
use crate::{CsvOptions, Format, Table};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;

const CSV: &str = "city,amount,note\nOslo,1.5,\nLyon,10,x\n,,y\nOslo,-3,it's\nRoma,99999999999999999999,z\nOslo,0.1,w\n";

fn jsonl() -> String {
    let mut lines = String::new();
    for line in CSV.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let amount = if cells[1].is_empty() { "null" } else { cells[1] };
        lines += &format!("{{\"city\":\"{}\",\"amount\":{amount},\"note\":\"{}\"}}\n", cells[0], cells[2]);
    }
    lines
}

fn notes(format: Format, text: &str, filter: &str) -> Result<Vec<String>, String> {
    let filter = Arc::new(Filter::parse(filter)?);
    let table = Table::new(Arc::new(format), Bytes::copy_from_slice(text.as_bytes()), 0..text.len()).filtered(Some(filter));
    let mut found = Vec::new();
    for batch in table.read(&[Wanted::text("note"), Wanted::text("city")]).map_err(|error| error.to_string())? {
        let batch = batch.map_err(|error| error.to_string())?;
        assert_eq!(batch.columns.len(), 2, "what only the filter wants is not given");
        let Column::Text(notes) = &batch.columns[0] else { panic!("text") };
        assert_eq!(notes.len(), batch.rows);
        found.extend(notes.iter().map(|note| String::from_utf8_lossy(note.unwrap()).into_owned()));
    }
    Ok(found)
}

#[test]
fn rows_count_alike_in_every_format() {
    for (filter, expected) in [
        ("amount > 0", vec!["", "x", "z", "w"]),
        ("amount = 0.1", vec!["w"]),
        ("amount = 0.10", vec!["w"]),
        ("amount <> 10 AND amount<99999999999999999999", vec!["", "it's", "w"]),
        ("amount >= 99999999999999999999", vec!["z"]),
        ("city = 'Oslo' and amount <= 1.5", vec!["", "it's", "w"]),
        ("city = ''", vec!["y"]),
        ("city != 'Oslo'", vec!["x", "y", "z"]),
        ("city > 'Lyon'", vec!["", "it's", "z", "w"]),
        ("\"note\" = 'it''s'", vec!["it's"]),
        ("amount < -3", vec![]),
    ] {
        assert_eq!(notes(Format::Csv(CsvOptions::default()), CSV, filter).unwrap(), expected, "{filter}");
        assert_eq!(notes(Format::Jsonl, &jsonl(), filter).unwrap(), expected, "{filter}");
    }
    let said = notes(Format::Csv(CsvOptions::default()), CSV, "city > 3").unwrap_err();
    assert!(said.contains("line 2") && said.contains("\"Oslo\", which is no number"), "{said}");
    let said = notes(Format::Csv(CsvOptions::default()), CSV, "citi = 'x'").unwrap_err();
    assert!(said.contains("there is no column 'citi'; did you mean 'city'?"), "{said}");
}

#[test]
fn what_is_no_filter_is_told_with_what_was_expected() {
    for (text, expected) in [
        ("", "a column was expected at the end"),
        ("a", "behind column 'a' a comparison was expected"),
        ("a =", "column 'a' is compared with nothing"),
        ("a = b", "b is neither a number nor a text; write 'b' for the text"),
        ("a =< 3", "=< is unknown; there are =, !=, <, <=, > and >="),
        ("a = 3 or b = 4", "\"and\" was expected, and or stands there"),
        ("a = 3 and", "a column was expected at the end"),
        ("a = \"b\"", "column 'a' is compared with \"b\""),
        ("'a' = 3", "a column was expected, and 'a' stands there"),
        ("a = 'b", "the quotes of 'b are not closed"),
        ("a = nan", "nan is neither a number nor a text"),
    ] {
        let said = Filter::parse(text).unwrap_err();
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn bounds_leave_out_only_what_cannot_hold() {
    let decimal = |mantissa| Number::Decimal { mantissa, scale: 1 };
    let holds = |text: &str, bounds: Bounds| Filter::parse(text).unwrap().may_hold(|_| Some(bounds.clone()));
    let numbers = || Bounds::Number { least: decimal(10), most: Number::Float(2.5) };
    for (text, expected) in [
        ("a = 1", true),
        ("a = 2.5", true),
        ("a = 0.9", false),
        ("a = 2.6", false),
        ("a < 1", false),
        ("a <= 1", true),
        ("a > 2.5", false),
        ("a >= 2.5", true),
        ("a != 1", true),
        ("a = 'x'", true),
        ("a > 0 and a > 3", false),
    ] {
        assert_eq!(holds(text, numbers()), expected, "{text}");
    }
    let texts = || Bounds::Text { least: b"b".to_vec(), most: b"d".to_vec() };
    for (text, expected) in
        [("a = 'c'", true), ("a = 'a'", false), ("a < 'b'", false), ("a > 'cz'", true), ("a >= 'e'", false), ("a = 3", true)]
    {
        assert_eq!(holds(text, texts()), expected, "{text}");
    }
    assert!(Filter::parse("a = 3").unwrap().may_hold(|_| None));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ a-b=<>!'\"0-9.\\PC]{0,30}") {
        let _ = Filter::parse(&text);
    }

    #[test]
    fn decimals_are_compared_exactly(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000, scale in 0u8..18) {
        let constant = Constancy::new(Number::Decimal { mantissa: b, scale }, 0.0);
        prop_assert_eq!(constant.beside_decimal(i128::from(a), scale), a.cmp(&b));
        prop_assert_eq!(constant.beside_decimal(i128::from(a) * 10, scale + 1), a.cmp(&b));
    }
}
