use crate::testing::{params, reduce};
use crate::*;

fn sorted(pairs: &[(&str, &str)], record_bytes: u32, input: Input<'_>) -> Vec<u8> {
    let stage = StageContext { params: params(pairs), partitions: 1, record_bytes, ..StageContext::default() };
    let output = find("sort").unwrap().prepare(&stage).unwrap().run_cpu(&Task { number: 0, input }).unwrap();
    output.blocks.into_iter().next().unwrap()
}

#[test]
fn parts_show_their_first_rows_in_the_order_of_the_output() {
    let runs = [sorted(&[], 0, Input::Text(b"b\n\xff\na\r\n")), sorted(&[], 0, Input::Text(b"aa\n"))];
    let part = reduce("merge_runs", &[], "plain", 1, &[&runs[0], &runs[1]]).unwrap();
    assert_eq!((part.bytes.as_slice(), part.rows, part.extension), (b"a\r\naa\nb\n\xff\n".as_slice(), 4, "txt"));
    let shown: Vec<_> = part.preview.iter().map(|row| row.cells[0].as_str()).collect();
    assert_eq!(shown, ["a", "aa", "b", "\u{fffd}"]);
    assert!(part.preview.is_sorted_by(|a, b| a.weight > b.weight));

    let text = sorted(&[("key_bytes", "2")], 3, Input::Records { record_bytes: 3, bytes: b"ab1\x01\x022" });
    let part = reduce("merge_runs", &[("record", "3"), ("key_bytes", "2")], "plain", 1, &[&text]).unwrap();
    assert_eq!((part.bytes.as_slice(), part.extension, part.columns[0].as_str()), (b"\x01\x022ab1".as_slice(), "bin", "key"));
    assert_eq!(part.preview.iter().map(|row| row.cells[0].as_str()).collect::<Vec<_>>(), ["0x0102", "ab"]);
}

#[test]
fn a_partition_without_runs_is_an_empty_file_of_the_right_kind() {
    for (record, extension) in [("0", "txt"), ("8", "bin")] {
        let part = reduce("merge_runs", &[("record", record)], "plain", 2, &[]).unwrap();
        assert_eq!((part.bytes.len(), part.rows, part.extension), (0, 0, extension));
    }
}

#[test]
fn runs_of_another_order_are_refused() {
    let run = sorted(&[("order", "descending")], 0, Input::Text(b"b\na\n"));
    let error = reduce("merge_runs", &[], "plain", 1, &[&run]).unwrap_err();
    assert!(error.to_string().contains("give key and order to the map stage alone"), "{error}");
    assert!(reduce("merge_runs", &[], "csv", 1, &[]).unwrap_err().to_string().contains("writes plain"));
}
