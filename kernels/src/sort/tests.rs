use super::*;
use crate::testing::{params, random};
use crate::{Block, find};
use proptest::prelude::*;

/// The whole way: survey, one task per split, one merge per partition. The parts, in order.
fn parts(pairs: &[(&str, &str)], record_bytes: u32, splits: &[Vec<u8>], partitions: u32, samples: &[&[u8]]) -> Vec<Vec<u8>> {
    let stage = StageContext { params: params(pairs), partitions, record_bytes, ..StageContext::default() };
    let stage = StageContext { survey: Sort.survey(&stage, samples).unwrap(), ..stage };
    let prepared = Sort.prepare(&stage).unwrap();
    let outputs: Vec<TaskOutput> = (splits.iter().enumerate())
        .map(|(number, bytes)| {
            let input = if record_bytes > 0 { Input::Records { record_bytes: record_bytes as usize, bytes } } else { Input::Text(bytes) };
            prepared.run_cpu(&Task { number: number as u64, input }).unwrap()
        })
        .collect();
    let record = record_bytes.to_string();
    let reduce = StageContext {
        params: params(&[pairs, &[("record", record.as_str())]].concat()),
        tasks: partitions.into(),
        format: "plain".into(),
        ..StageContext::default()
    };
    let merge = find("merge_runs").unwrap().prepare(&reduce).unwrap();
    let merged = (0..partitions as usize).map(|partition| {
        let blocks = outputs.iter().enumerate().map(|(task, output)| Block { task: task as u64, bytes: &output.blocks[partition] });
        let task = Task { number: partition as u64, input: Input::Blocks(blocks.filter(|block| !block.bytes.is_empty()).collect()) };
        merge.run_cpu(&task).unwrap().part.unwrap().bytes
    });
    merged.collect()
}

fn key_of(item: &[u8], offset: usize, bytes: usize) -> &[u8] {
    let from = item.get(offset..).unwrap_or_default();
    if bytes == 0 { from } else { &from[..bytes.min(from.len())] }
}

fn body(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What the standard library makes of it.
fn expected<'a>(mut items: Vec<&'a [u8]>, key: impl Fn(&'a [u8]) -> &'a [u8], descending: bool) -> Vec<u8> {
    items.sort_by(|a, b| if descending { key(b).cmp(key(a)) } else { key(a).cmp(key(b)) });
    items.concat()
}

fn order_of(descending: bool) -> &'static str {
    if descending { "descending" } else { "ascending" }
}

proptest! {
    #[test]
    fn records_are_sorted_like_the_standard_library_does(
        record in 1usize..40, shape in (0usize..40, 0usize..40), counts in prop::collection::vec(0usize..40, 0..5),
        alphabet in 1u8..4, partitions in 1u32..9, descending in any::<bool>(), every in 1usize..5, seed in any::<u64>(),
    ) {
        let offset = shape.0 % record;
        let bytes = shape.1 % (record - offset + 1);
        let mut random = crate::testing::Random::from(seed);
        let splits: Vec<Vec<u8>> =
            counts.iter().map(|count| (0..count * record).map(|_| random.below(alphabet.into()) as u8 * 127).collect()).collect();
        let items: Vec<&[u8]> = splits.iter().flat_map(|split| split.chunks_exact(record)).collect();
        let samples: Vec<&[u8]> = items.iter().copied().step_by(every).collect();
        let given = [("key_offset", offset.to_string()), ("key_bytes", bytes.to_string()), ("order", order_of(descending).to_string())];
        let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let parts = parts(&given, record as u32, &splits, partitions, &samples);
        prop_assert_eq!(parts.len(), partitions as usize);
        prop_assert_eq!(parts.concat(), expected(items, |item| key_of(item, offset, bytes), descending));
    }

    #[test]
    fn lines_are_sorted_like_the_standard_library_does(
        texts in prop::collection::vec(prop::collection::vec("[ab]{0,30}\r?", 0..30), 0..5), last_newline in any::<bool>(), offset in 0usize..20,
        bytes in 0usize..20, partitions in 1u32..9, descending in any::<bool>(), every in 1usize..5,
    ) {
        let mut splits: Vec<Vec<u8>> = texts.iter().map(|lines| lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()).collect();
        let whole = splits.clone();
        if !last_newline && let Some(last) = splits.iter_mut().rfind(|split| !split.is_empty()) {
            // The bare `\r` at the end of a text belongs to its line, and is read as part of its end once it has one; an empty line without its
            // newline is no line.
            prop_assume!(last.len() > 1 && !matches!(last[last.len() - 2], b'\r' | b'\n'));
            last.pop();
        }
        let items: Vec<&[u8]> = whole.iter().flat_map(|split| split.split_inclusive(|byte| *byte == b'\n')).collect();
        let samples: Vec<&[u8]> = items.iter().copied().step_by(every).collect();
        let given = [("key_offset", offset.to_string()), ("key_bytes", bytes.to_string()), ("order", order_of(descending).to_string())];
        let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let parts = parts(&given, 0, &splits, partitions, &samples);
        prop_assert_eq!(parts.concat(), expected(items, |item| key_of(body(item), offset, bytes), descending));
    }
}

#[test]
fn long_common_beginnings_and_many_equal_keys_are_sorted_too() {
    let mut random = random("long_common_beginnings_and_many_equal_keys_are_sorted_too");
    for common in [0, 10, 11, 12, 60, 66, 67, 200] {
        for descending in [false, true] {
            let mut text = Vec::new();
            for number in 0..2000 {
                text.extend_from_slice(&vec![b'x'; common]);
                text.extend_from_slice(format!("{}{}", random.below(9), ["", "\0", "\0\0", " and a longer end"][number % 4]).as_bytes());
                text.push(b'\n');
            }
            let items: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            let parts = parts(&[("order", order_of(descending))], 0, std::slice::from_ref(&text), 3, &items);
            assert!(parts.concat() == expected(items, body, descending), "common {common}, descending {descending}");
        }
    }
}

#[test]
fn equal_keys_are_in_one_partition_and_in_the_order_of_the_input() {
    let splits = [b"k1k2k3".to_vec(), b"k4k5".to_vec()];
    let samples: Vec<&[u8]> = splits.iter().flat_map(|split| split.chunks_exact(2)).collect();
    let parts = parts(&[("key_bytes", "1")], 2, &splits, 4, &samples);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>().iter().filter(|length| **length > 0).count(), 1);
    assert_eq!(parts.concat(), b"k1k2k3k4k5");
}

#[test]
fn nothing_sampled_and_nothing_read_are_right_too() {
    assert_eq!(parts(&[], 0, &[b"b\na\n".to_vec()], 3, &[]), [b"a\nb\n".to_vec(), vec![], vec![]]);
    assert_eq!(parts(&[], 4, &[], 2, &[]), [Vec::new(), vec![]]);
    assert_eq!(parts(&[], 0, &[vec![]], 1, &[]), [Vec::new()]);
}

#[test]
fn partitions_of_an_even_input_are_even() {
    let mut random = random("partitions_of_an_even_input_are_even");
    let records = random.bytes(100 * 20_000);
    let samples: Vec<&[u8]> = records.chunks_exact(100).take(5000).collect();
    let parts = parts(&[("key_bytes", "10")], 100, std::slice::from_ref(&records), 16, &samples);
    assert!(
        parts.iter().all(|part| (100 * 1000..100 * 1500).contains(&part.len())),
        "{:?}",
        parts.iter().map(Vec::len).collect::<Vec<_>>()
    );
}

#[test]
fn the_survey_is_bounded_and_damage_is_found() {
    let lines: Vec<Vec<u8>> = (0..10_000).map(|number| format!("{number:0>200}\n").into_bytes()).collect();
    let samples: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    let stage = StageContext { partitions: 4096, ..StageContext::default() };
    let survey = Sort.survey(&stage, &samples).unwrap();
    assert_eq!(survey.len(), 4095 * 65);
    assert!(Sort.prepare(&StageContext { survey: survey.clone(), ..stage.clone() }).is_ok());
    let refused = |survey: &[u8], partitions| {
        let stage = StageContext { survey: survey.to_vec(), partitions, ..StageContext::default() };
        Sort.prepare(&stage).err().expect("it is damaged").to_string()
    };
    assert!(refused(&survey, 4095).contains("the survey of the input is damaged"));
    assert!(refused(&survey[..100], 4096).contains("damaged"));
    assert!(refused(b"\x01b\x01a", 3).contains("damaged"), "cuts that fall");
    assert!(refused(&[], 4097).contains("at most 4096 partitions, not 4097"));
}

#[test]
fn a_key_outside_of_its_record_is_refused() {
    let refused = |pairs: &[(&str, &str)]| {
        let stage = StageContext { params: params(pairs), record_bytes: 10, ..StageContext::default() };
        Sort.prepare(&stage).err().expect("it reaches out").to_string()
    };
    assert_eq!(refused(&[("key_bytes", "11")]), "the key ('key_offset' 0, 'key_bytes' 11) reaches byte 11, but a record has 10");
    assert_eq!(refused(&[("key_offset", "10")]), "the key ('key_offset' 10, 'key_bytes' 0) reaches byte 11, but a record has 10");
    let stage = StageContext { record_bytes: 10, ..StageContext::default() };
    let other = Input::Records { record_bytes: 5, bytes: b"abcde" };
    let error = Sort.prepare(&stage).unwrap().run_cpu(&Task { number: 0, input: other }).unwrap_err();
    assert!(error.to_string().contains("records of 5 bytes where the job says 10"), "{error}");
}
