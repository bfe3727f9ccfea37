use crate::api::*;
use crate::key::of_u64;
use crate::run::push_count;
use crate::testing::reduce;

fn text_run(rows: &[(&[u8], u64)]) -> Vec<u8> {
    let mut run = Vec::new();
    rows.iter().for_each(|(key, count)| push_count(&mut run, key, *count));
    run
}

fn number_run(rows: &[(u64, u64)]) -> Vec<u8> {
    let mut run = Vec::new();
    rows.iter().for_each(|(key, count)| push_count(&mut run, &of_u64(*key), *count));
    run
}

const NUMBERS: &[(&str, &str)] = &[("key_name", "bin"), ("value_name", "count"), ("key_type", "u64")];

#[test]
fn equal_keys_of_all_tasks_are_added() {
    let runs = [text_run(&[(b"a", 1), (b"c", 5)]), text_run(&[]), text_run(&[(b"a", 2), (b"b", 3)]), text_run(&[(b"c", 300)])];
    let runs: Vec<&[u8]> = runs.iter().map(Vec::as_slice).collect();
    let part = reduce("sum_by_key", &[("key_name", "word"), ("value_name", "count")], "csv", 1, &runs).unwrap();
    assert_eq!(String::from_utf8(part.bytes).unwrap(), "word,count\na,3\nb,3\nc,305\n");
    assert_eq!((part.extension, part.rows, part.columns), ("csv", 3, vec!["word".to_owned(), "count".to_owned()]));
    let preview: Vec<_> = part.preview.iter().map(|row| (row.cells.join(" "), row.weight)).collect();
    assert_eq!(preview, [("c 305".into(), 305), ("a 3".into(), 3), ("b 3".into(), 3)]);
}

#[test]
fn no_data_is_a_heading() {
    let part = reduce("sum_by_key", &[], "csv", 1, &[]).unwrap();
    assert_eq!((part.bytes.as_slice(), part.rows), (b"key,value\n".as_slice(), 0));
}

#[test]
fn keys_are_quoted_only_when_csv_demands_it_and_keep_their_bytes() {
    let run = text_run(&[(b"\"hi\"", 1), (b"a,b", 2), (b"caf\xe9", 3), (b"it's", 4)]);
    let part = reduce("sum_by_key", &[], "csv", 1, &[&run]).unwrap();
    assert_eq!(part.bytes, b"key,value\n\"\"\"hi\"\"\",1\n\"a,b\",2\ncaf\xe9,3\nit's,4\n");
    assert_eq!(part.preview[1].cells[0], "caf\u{fffd}");
}

#[test]
fn numbers_sort_as_numbers() {
    let run = number_run(&[(2, 7), (10, 8), (300, u64::MAX)]);
    let part = reduce("sum_by_key", NUMBERS, "csv", 1, &[&run]).unwrap();
    assert_eq!(String::from_utf8(part.bytes).unwrap(), "bin,count\n2,7\n10,8\n300,18446744073709551615\n");
}

#[test]
fn the_preview_is_the_twenty_largest_with_ties_by_key() {
    let rows: Vec<_> = (0..50).map(|key| (key, if key == 49 { 9 } else { key % 2 })).collect();
    let part = reduce("sum_by_key", NUMBERS, "csv", 1, &[&number_run(&rows)]).unwrap();
    let keys: Vec<u64> = part.preview.iter().map(|row| row.cells[0].parse().unwrap()).collect();
    let expected: Vec<u64> = std::iter::once(49).chain((0..19).map(|n| 2 * n + 1)).collect();
    assert_eq!(keys, expected);
}

/// Else the rows that remain when parts are merged would depend on the number of parts.
#[test]
fn rows_of_equal_weight_are_merged_in_the_order_in_which_a_part_chose_them() {
    let numbers = number_run(&[(9, 1), (10, 1), (100, 1), (1 << 40, 1)]);
    let words = text_run(&[(b"10", 1), (b"100", 1), (b"9", 1), (b"a b", 1)]);
    for (params, run) in [(NUMBERS, numbers), (&[], words)] {
        let part = reduce("sum_by_key", params, "csv", 1, &[&run]).unwrap();
        let params: Params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let rising = part.preview.is_sorted_by(|a, b| super::SumByKey.compare_preview(&params, &a.cells, &b.cells).is_lt());
        assert!(rising, "{:?}", part.preview);
    }
}

#[test]
fn one_partition_gives_a_dense_array() {
    let part = reduce("sum_by_key", NUMBERS, "npy", 1, &[&number_run(&[(1, 5), (3, 6)])]).unwrap();
    let header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<u8', 'fortran_order': False, 'shape': (4,), }";
    assert!(part.bytes.starts_with(header));
    assert_eq!(part.bytes.len(), 128 + 4 * 8);
    assert_eq!(part.bytes[127], b'\n');
    let values: Vec<u64> = part.bytes[128..].as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    assert_eq!(values, [0, 5, 0, 6]);
    let error = reduce("sum_by_key", NUMBERS, "npy", 1, &[&number_run(&[(1 << 24, 5)])]).unwrap_err();
    assert!(error.to_string().contains("too large for a dense array"), "{error}");
}

#[test]
fn many_partitions_give_pairs() {
    let part = reduce("sum_by_key", NUMBERS, "npy", 2, &[&number_run(&[(1, 5), (1 << 40, 6)])]).unwrap();
    assert!(String::from_utf8_lossy(&part.bytes).contains("'shape': (2, 2), }"));
    let values: Vec<u64> = part.bytes[128..].as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    assert_eq!(values, [1, 5, 1 << 40, 6]);
}

#[test]
fn errors_say_what_is_wrong() {
    let message =
        |pairs: &[(&str, &str)], format: &str, runs: &[&[u8]]| reduce("sum_by_key", pairs, format, 1, runs).unwrap_err().to_string();
    let most = text_run(&[(b"k", u64::MAX)]);
    assert_eq!(message(&[], "csv", &[&most, &most]), "the sum of key 'k' exceeds 64 bits");
    assert!(message(&[], "npy", &[]).contains("these keys are text; use 'csv'"));
    assert!(message(NUMBERS, "csv", &[&most]).contains("set key_type"));
    assert!(message(&[], "csv", &[&most[..2]]).contains("damaged"));
    assert!(message(&[], "csv", &[&[1, b'a', 0]]).contains("not a count"));
    assert!(matches!(reduce("sum_by_key", &[], "png", 1, &[]), Err(KernelError::Param(_))));
}
