use super::*;
use crate::testing::{Random, random};

/// Key and value.
type Pair = (Vec<u8>, Vec<u8>);

fn records(run: &[u8]) -> Vec<Pair> {
    Reader::new(run).map(|record| record.unwrap()).map(|record| (record.key.to_vec(), record.value.to_vec())).collect()
}

fn merged(runs: &[Vec<u8>]) -> Result<Vec<Pair>, KernelError> {
    let mut merge = Merge::new(runs.iter().map(Vec::as_slice))?;
    let mut all = Vec::new();
    while let Some(record) = merge.next_record()? {
        all.push((record.key.to_vec(), record.value.to_vec()));
    }
    Ok(all)
}

/// Short keys over few letters, so that runs share keys, prefixes and trailing zeros.
fn sorted_records(random: &mut Random) -> Vec<Pair> {
    let mut keys: Vec<Vec<u8>> = (0..random.below(60))
        .map(|_| {
            let mut key = vec![b'x'; if random.below(2) == 0 { 0 } else { 15 }];
            key.extend((0..random.below(5)).map(|_| [0, b'a', b'b', 0xff][random.below(4) as usize]));
            key
        })
        .collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| {
            let length = random.below(300) as usize;
            (key, random.bytes(length))
        })
        .collect()
}

fn run_of(records: &[Pair]) -> Vec<u8> {
    let mut run = Vec::new();
    records.iter().for_each(|(key, value)| push_record(&mut run, key, value));
    run
}

#[test]
fn the_bytes_of_a_run_are_these() {
    let mut run = Vec::new();
    push_record(&mut run, b"ab", b"xyz");
    push_count(&mut run, b"b", 300);
    assert_eq!(run, [2, b'a', b'b', 3, b'x', b'y', b'z', 1, b'b', 2, 0xac, 0x02]);
}

#[test]
fn what_was_written_is_read() {
    let mut random = random("what_was_written_is_read");
    for _ in 0..50 {
        let written = sorted_records(&mut random);
        assert_eq!(records(&run_of(&written)), written);
    }
    for count in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
        let mut run = Vec::new();
        push_count(&mut run, b"key", count);
        let record = Reader::new(&run).next().unwrap().unwrap();
        assert_eq!(count_value(record.value).unwrap(), count);
    }
}

#[test]
fn a_run_cut_short_is_an_error_at_every_length_but_a_records_end() {
    let mut run = Vec::new();
    let mut ends = vec![0];
    for key in [b"a".as_slice(), b"bb", &[b'c'; 200]] {
        push_record(&mut run, key, &[7; 150]);
        ends.push(run.len());
    }
    for length in 0..run.len() {
        let broken = Reader::new(&run[..length]).any(|record| record.is_err());
        assert_eq!(broken, !ends.contains(&length), "cut at {length}");
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut random = random("arbitrary_bytes_never_panic");
    for _ in 0..20_000 {
        let length = random.below(40) as usize;
        let mut bytes = random.bytes(length);
        // Small numbers are plausible lengths and lead deeper.
        bytes.iter_mut().for_each(|byte| *byte %= [3, 16, 255][random.below(3) as usize]);
        let _ = Reader::new(&bytes).count();
        if let Ok(mut merge) = Merge::new([bytes.as_slice(), &[1, b'a', 0]]) {
            while let Ok(Some(record)) = merge.next_record() {
                let _ = count_value(record.value);
            }
        }
    }
    // A length of 2^64 - 1, and one that does not fit in 64 bits.
    let mut huge = vec![0xff; 9];
    huge.push(1);
    assert!(Reader::new(&huge).next().unwrap().is_err());
    assert!(Reader::new(&[0xff; 11]).next().unwrap().is_err());
}

#[test]
fn merging_gives_keys_in_order_and_equal_keys_in_the_order_of_the_runs() {
    let mut random = random("merging_gives_keys_in_order");
    for runs in 0..20 {
        let runs: Vec<_> = (0..runs).map(|_| sorted_records(&mut random)).collect();
        let mut expected: Vec<_> = runs.concat();
        expected.sort_by(|a, b| a.0.cmp(&b.0)); // stable: equal keys keep the order of the runs
        let written: Vec<_> = runs.iter().map(|run| run_of(run)).collect();
        assert_eq!(merged(&written).unwrap(), expected);
    }
}

#[test]
fn keys_that_do_not_rise_are_an_error() {
    let pair = |a: &[u8], b: &[u8]| run_of(&[(a.to_vec(), vec![]), (b.to_vec(), vec![])]);
    let long = |last| [[b'k'; 20].as_slice(), &[last]].concat();
    for run in [pair(b"b", b"a"), pair(b"a", b"a"), pair(&long(2), &long(1)), pair(b"a\0", b"a")] {
        assert_eq!(merged(&[run]).unwrap_err().to_string(), "shuffle block is damaged: its keys do not rise");
    }
    assert!(merged(&[pair(b"a", b"a\0"), pair(&long(1), &long(2))]).is_ok());
}

#[test]
fn all_records_are_counted_also_those_that_nobody_has_taken() {
    let mut random = random("all_records_are_counted_also_those_that_nobody_has_taken");
    for _ in 0..50 {
        let all: Vec<Vec<Pair>> = (0..random.below(6)).map(|_| sorted_records(&mut random)).collect();
        let runs: Vec<Vec<u8>> = all.iter().map(|records| run_of(records)).collect();
        let records = all.iter().map(|records| records.len() as u64).sum::<u64>();
        let mut merge = Merge::new(runs.iter().map(Vec::as_slice)).unwrap();
        for _ in 0..random.below(records + 2) {
            merge.next_record().unwrap();
        }
        assert_eq!(merge.count().unwrap(), records);
    }
    let mut cut = run_of(&[(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
    cut.pop();
    assert!(Merge::new([cut.as_slice()]).unwrap().count().is_err(), "what is damaged behind the end of the output is damaged");
}
