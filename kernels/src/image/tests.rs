use crate::api::*;
use crate::key::of_u64;
use crate::run::push_record;
use crate::testing::reduce;

fn rows(rows: &[(u64, &[u8])]) -> Vec<u8> {
    let mut run = Vec::new();
    rows.iter().for_each(|(row, rgb)| push_record(&mut run, &of_u64(*row), rgb));
    run
}

fn message(runs: &[&[u8]]) -> String {
    reduce("image", &[], "png", 1, runs).unwrap_err().to_string()
}

#[test]
fn rows_of_all_tasks_become_one_image() {
    let (even, odd) = (rows(&[(0, &[1, 2, 3, 4, 5, 6]), (2, &[13; 6])]), rows(&[(1, &[7, 8, 9, 10, 11, 12])]));
    let part = reduce("image", &[], "png", 1, &[&even, &odd]).unwrap();
    assert_eq!((part.extension, part.rows), ("png", 3));
    assert_eq!(part.preview[0].cells[0], "2 x 3");
    let mut reader = png::Decoder::new(std::io::Cursor::new(&part.bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height, info.color_type), (2, 3, png::ColorType::Rgb));
    assert_eq!(pixels, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 13, 13, 13, 13, 13]);
}

#[test]
fn an_image_needs_one_partition() {
    let error = reduce("image", &[], "png", 4, &[]).unwrap_err();
    assert!(matches!(&error, KernelError::Param(text) if text.ends_with("set partitions = 1")), "{error}");
    assert!(matches!(reduce("image", &[], "csv", 1, &[]), Err(KernelError::Param(_))));
}

#[test]
fn rows_that_make_no_image_are_errors() {
    assert_eq!(message(&[]), "an image without rows");
    assert_eq!(message(&[&rows(&[(1, &[0; 3])])]), "row 0 is missing");
    assert_eq!(message(&[&rows(&[(0, &[0; 3]), (2, &[0; 3])])]), "row 1 is missing");
    assert_eq!(message(&[&rows(&[(0, &[0; 3])]), &rows(&[(0, &[0; 3])])]), "row 0 is there twice");
    assert_eq!(message(&[&rows(&[(0, &[0; 3]), (1, &[0; 6])])]), "row 1 has 6 bytes and the rows before it 3");
    assert_eq!(message(&[&rows(&[(0, &[0; 4])])]), "a row of 4 bytes is no row of RGB pixels");
}
