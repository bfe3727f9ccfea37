use crate::api::*;
use crate::testing::{prepare, reduce};

fn blocks(dtype: &str, tasks: &[&[u8]]) -> Vec<Vec<u8>> {
    let kernel = prepare("statistics", &[], 1).unwrap();
    let run = |(number, bytes): (usize, &&[u8])| {
        kernel.run_cpu(&Task { number: number as u64, input: Input::Elements { dtype, bytes } }).unwrap().blocks.remove(0)
    };
    tasks.iter().enumerate().map(run).collect()
}

fn table(blocks: &[Vec<u8>]) -> String {
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    let part = reduce("merge_statistics", &[], "csv", 1, &blocks).unwrap();
    String::from_utf8(part.bytes).unwrap().lines().skip(1).collect::<Vec<_>>().join(" ")
}

fn f4(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn u4(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn the_table_of_whole_numbers_is_exact() {
    let table = table(&blocks("u4", &[&u4(&[2, 4, 4, 4]), &[], &u4(&[5, 5, 7, 9])]));
    assert_eq!(table, "type,u4 values,8 invalid,0 min,2 max,9 sum,40 mean,5 variance,4 std,2");
    let most = blocks("u4", &[&u4(&[u32::MAX; 1000])]);
    assert_eq!(
        super::tests::table(&most),
        "type,u4 values,1000 invalid,0 min,4294967295 max,4294967295 sum,4294967295000 mean,4294967295 variance,0 std,0"
    );
    assert!(super::tests::table(&blocks("u1", &[&[0, 255]])).contains("mean,127.5 variance,16256.25 std,127.5"));
}

/// In f64, 2^60 swallows the small ones, and the variance of far-off numbers is what cancellation left of it.
#[test]
fn what_f64_would_lose_is_there() {
    let big = (1u64 << 60) as f32;
    let sums = table(&blocks("f4", &[&f4(&[big, 1.0, -big]), &f4(&[0.5, 0.25])]));
    assert!(sums.contains("sum,1.75 mean,0.35 "), "{sums}");
    let shifted = table(&blocks("f4", &[&f4(&[16_777_214.0, 16_777_215.0, 16_777_216.0])]));
    assert!(shifted.contains("mean,16777215 variance,0.6666666666666666 "), "{shifted}");
}

#[test]
fn the_extremes_of_f4_fit() {
    let text = table(&blocks("f4", &[&f4(&[f32::MAX, f32::MAX, f32::MIN, f32::MIN, f32::from_bits(1)])]));
    assert!(text.contains(&format!("sum,{:e} ", f64::from(f32::from_bits(1)))), "{text}");
    assert!(text.contains("min,-3.4028235e38 max,3.4028235e38"), "{text}");
    let one = table(&blocks("f4", &[&f4(&[0.1])]));
    assert_eq!(one, "type,f4 values,1 invalid,0 min,0.1 max,0.1 sum,0.10000000149011612 mean,0.10000000149011612 variance,0 std,0");
}

#[test]
fn nan_is_counted_apart_and_infinities_make_of_sums_what_ieee_754_says() {
    let mixed = table(&blocks("f4", &[&f4(&[f32::NAN, 3.0, -0.0, f32::NAN]), &f4(&[1.0])]));
    assert_eq!(
        mixed,
        "type,f4 values,3 invalid,2 min,0 max,3 sum,4 mean,1.3333333333333333 variance,1.5555555555555556 std,1.247219128924647"
    );
    let up = table(&blocks("f4", &[&f4(&[f32::INFINITY, 3.0])]));
    assert_eq!(up, "type,f4 values,2 invalid,0 min,3 max,inf sum,inf mean,inf variance,NaN std,NaN");
    let both = table(&blocks("f4", &[&f4(&[f32::INFINITY]), &f4(&[f32::NEG_INFINITY])]));
    assert!(both.contains("min,-inf max,inf sum,NaN mean,NaN variance,NaN"), "{both}");
}

#[test]
fn no_data_is_a_table_too() {
    assert_eq!(table(&blocks("f4", &[&[]])), "type,f4 values,0 invalid,0 min,NaN max,NaN sum,0 mean,NaN variance,NaN std,NaN");
    assert_eq!(table(&[]), "values,0 invalid,0");
}

#[test]
fn errors_say_what_is_wrong() {
    let message = |blocks: &[Vec<u8>]| {
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        reduce("merge_statistics", &[], "csv", 1, &blocks).unwrap_err().to_string()
    };
    let mixed = [blocks("f4", &[&[0; 4]]), blocks("u1", &[&[0; 4]])].concat();
    assert_eq!(message(&mixed), "the input has files of f4 and of u1; statistics are of one type: use a job for each");
    let whole = blocks("f4", &[&[1; 400]]).remove(0);
    for length in 1..whole.len() {
        // The record's own lengths no longer fit.
        assert!(message(&[whole[..length].to_vec()]).contains("damaged"), "cut at {length}");
    }
    let mut short = Vec::new();
    crate::run::push_record(&mut short, b"f4", &[1, 0, 0]);
    assert!(message(&[short]).contains("damaged"));
    assert!(matches!(reduce("merge_statistics", &[], "csv", 2, &[]), Err(KernelError::Param(text)) if text.contains("partitions = 1")));
    assert!(matches!(reduce("merge_statistics", &[], "npy", 1, &[]), Err(KernelError::Param(_))));
}

#[test]
fn arbitrary_records_never_panic() {
    let mut random = crate::testing::random("arbitrary_records_never_panic");
    for _ in 0..5000 {
        let length = random.below(40) as usize;
        let mut value = random.bytes(length);
        value.iter_mut().for_each(|byte| *byte %= [3, 16, 255][random.below(3) as usize]);
        let mut run = Vec::new();
        crate::run::push_record(&mut run, [b"f4", b"u4", b"u1"][random.below(3) as usize], &value);
        let _ = reduce("merge_statistics", &[], "csv", 1, &[&run]);
    }
}
