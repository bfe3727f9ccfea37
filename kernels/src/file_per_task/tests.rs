use super::*;
use crate::run::push_record;

fn png_of(width: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, width, 1).write_header().unwrap();
    writer.write_image_data(&vec![7; width as usize]).unwrap();
    writer.finish().unwrap();
    file
}

fn part(number: u64, records: &[(u64, &[u8])]) -> Result<Part, KernelError> {
    let mut block = Vec::new();
    records.iter().for_each(|(task, file)| push_record(&mut block, &key::of_u64(*task), file));
    let blocks = vec![Block { task: number, bytes: &block }];
    let kernel = FilePerTask.prepare(&StageContext { format: "png".into(), ..StageContext::default() })?;
    Ok(kernel.run_cpu(&Task { number, input: Input::Blocks(blocks) })?.part.unwrap())
}

#[test]
fn the_file_is_the_part() {
    let file = png_of(9);
    let part = part(4, &[(4, &file)]).unwrap();
    assert_eq!((part.bytes, part.extension, part.rows), (file, "png", 1));
    assert_eq!(part.preview[0].cells[..2], ["4", "9 x 1"]);
}

#[test]
fn anything_but_one_file_of_its_own_task_is_an_error() {
    let file = png_of(1);
    for (records, expected) in [
        (&[][..], "left no file"),
        (&[(3, &file[..])][..], "of another map task"),
        (&[(2, &file[..]), (3, &file[..])][..], "more than one file"),
        (&[(2, &b"text"[..])][..], "not a PNG file"),
    ] {
        let message = part(2, records).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert!(FilePerTask.prepare(&StageContext { format: "csv".into(), ..StageContext::default() }).is_err());
}
