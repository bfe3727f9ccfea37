use super::*;
use crate::testing::reduce;

fn slices(tasks: u64, partitions: u32) -> Slices {
    Slices::new(&StageContext { tasks, partitions, ..StageContext::default() })
}

/// Header text and numbers of a part.
fn read(part: &Part) -> (String, Vec<f32>) {
    let length = u16::from_le_bytes([part.bytes[8], part.bytes[9]]) as usize;
    assert_eq!((10 + length) % 64, 0);
    let header = String::from_utf8(part.bytes[10..10 + length].to_vec()).unwrap();
    (header.trim().to_owned(), crate::side::f4(&part.bytes[10 + length..]).into_owned())
}

fn rows_of(task: u64) -> Vec<f32> {
    (0..2 * (task % 3)).map(|n| (10 * task + n) as f32).collect()
}

#[test]
fn parts_one_after_the_other_are_the_whole_array() {
    let expected: Vec<f32> = (0..7).flat_map(rows_of).collect();
    for partitions in [1, 2, 3, 7, 9] {
        let made: Vec<Vec<Vec<u8>>> = (0..7).map(|task| slices(7, partitions).blocks(task, 2, &rows_of(task))).collect();
        let mut all = Vec::new();
        for partition in 0..partitions as usize {
            let blocks: Vec<&[u8]> = made.iter().map(|blocks| &blocks[partition][..]).collect();
            let part = reduce("stack_rows", &[], "npy", partitions.into(), &blocks).unwrap();
            let (header, numbers) = read(&part);
            assert_eq!(header, format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 2), }}", numbers.len() / 2));
            assert_eq!(part.rows, numbers.len() as u64 / 2);
            all.extend(numbers);
        }
        assert_eq!(all, expected, "{partitions} partitions");
    }
}

#[test]
fn plain_numbers_make_an_array_of_one_dimension() {
    let blocks = slices(1, 1).blocks(0, 0, &[1.5, -0.0]);
    let part = reduce("stack_rows", &[], "npy", 1, &[&blocks[0]]).unwrap();
    assert_eq!(read(&part), ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".into(), vec![1.5, -0.0]));
}

#[test]
fn damaged_rows_are_errors_and_no_panic() {
    let message = |blocks: &[&[u8]]| reduce("stack_rows", &[], "npy", 1, blocks).unwrap_err().to_string();
    let block = |task: u64, columns: u64, numbers: usize| slices(9, 1).blocks(task, columns, &vec![1.0; numbers]).swap_remove(0);
    assert!(message(&[&block(1, 2, 2), &block(1, 2, 2)]).contains("come after those of task 1"));
    assert!(message(&[&block(1, 2, 2), &block(2, 3, 3)]).contains("have 3 elements and those before them 2"));
    assert!(message(&[&block(1, 2, 3)]).contains("no whole number of rows"));
    assert!(message(&[&block(1, u64::MAX, 3)]).contains("no whole number of rows"));
    let mut short_key = Vec::new();
    push_record(&mut short_key, b"abc", b"");
    assert!(message(&[&short_key]).contains("8 bytes, not 3"));
    let mut no_columns = Vec::new();
    push_record(&mut no_columns, &key::of_u64(0), b"");
    assert!(message(&[&no_columns]).contains("how long they are"));
    assert!(matches!(reduce("stack_rows", &[], "csv", 1, &[]), Err(KernelError::Param(_))));
}
