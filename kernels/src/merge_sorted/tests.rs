use crate::api::*;
use crate::testing::{prepare, reduce};

fn blocks(params: &[(&str, &str)], dtype: &str, tasks: &[&[u8]]) -> Vec<Vec<u8>> {
    let kernel = prepare("radix_sort", params, 1).unwrap();
    let run = |(number, bytes): (usize, &&[u8])| {
        kernel.run_cpu(&Task { number: number as u64, input: Input::Elements { dtype, bytes } }).unwrap().blocks.remove(0)
    };
    tasks.iter().enumerate().map(run).collect()
}

fn merged(blocks: &[Vec<u8>]) -> Result<Part, KernelError> {
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    reduce("merge_sorted", &[], "npy", 1, &blocks)
}

fn le(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn f4(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn pieces_become_one_sorted_array_with_ties_in_task_order() {
    let tasks = [le(&[5 << 32 | 1, 2 << 32 | 9]), le(&[5 << 32, 2 << 32 | 3]), le(&[])];
    let tasks: Vec<&[u8]> = tasks.iter().map(Vec::as_slice).collect();
    let part = merged(&blocks(&[("payload_bits", "32")], "u8", &tasks)).unwrap();
    let header = "{'descr': '<u8', 'fortran_order': False, 'shape': (4,), }";
    assert!(String::from_utf8_lossy(&part.bytes).contains(header));
    assert_eq!(part.bytes[128..], le(&[2 << 32 | 9, 2 << 32 | 3, 5 << 32 | 1, 5 << 32]));
    assert_eq!((part.rows, part.columns.join(" ").as_str()), (4, "key payload"));
    assert_eq!(part.preview[1].cells, ["2", "3"]);
}

#[test]
fn floats_keep_their_bits() {
    let values = [0.0, -0.0, f32::NAN, -1.5, f32::INFINITY, -f32::NAN, 1e-45];
    let part = merged(&blocks(&[], "f4", &[&f4(&values[..3]), &f4(&values[3..])])).unwrap();
    let expected = [-f32::NAN, -1.5, -0.0, 0.0, 1e-45, f32::INFINITY, f32::NAN];
    assert_eq!(part.bytes[128..], f4(&expected));
}

#[test]
fn no_data_is_an_empty_array_of_its_type() {
    let part = merged(&blocks(&[], "f4", &[&[]])).unwrap();
    assert!(String::from_utf8_lossy(&part.bytes).contains("'<f4'") && part.rows == 0 && part.bytes.len() == 128);
    assert_eq!(merged(&[]).unwrap().rows, 0);
}

/// Else the rows shown would depend on the number of partitions.
#[test]
fn previews_of_parts_are_merged_in_the_order_of_the_array() {
    let part = merged(&blocks(&[], "f4", &[&f4(&[10.0, 9.0, -3.0, 2.5e-7, f32::NEG_INFINITY, f32::NAN, f32::INFINITY])])).unwrap();
    let compare = |pair: &[PreviewRow]| super::MergeSorted.compare_preview(&Params::new(), &pair[0].cells, &pair[1].cells);
    assert!(part.preview.windows(2).all(|pair| compare(pair).is_lt()), "{:?}", part.preview);
    let part = merged(&blocks(&[], "u8", &[&le(&[10, 9, u64::MAX, u64::MAX - 1])])).unwrap();
    assert!(part.preview.windows(2).all(|pair| compare(pair).is_lt()), "{:?}", part.preview);
}

#[test]
fn errors_say_what_is_wrong() {
    let mixed = [blocks(&[], "f4", &[&[0; 8]]), blocks(&[], "u8", &[&[0; 8]])].concat();
    assert!(merged(&mixed).unwrap_err().to_string().contains("different element types"));
    let mut odd = Vec::new();
    crate::run::push_record(&mut odd, b"u4 0", &[0; 5]);
    assert!(merged(&[odd]).unwrap_err().to_string().contains("damaged"));
    let mut foreign = Vec::new();
    crate::run::push_record(&mut foreign, b"word", &[1]);
    assert!(merged(&[foreign]).unwrap_err().to_string().contains("damaged"));
    assert!(matches!(reduce("merge_sorted", &[], "csv", 1, &[]), Err(KernelError::Param(_))));
}
