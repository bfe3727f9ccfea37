use super::*;
use crate::testing::random;

const LINES: Order = Order { record: 0, key_offset: 0, key_bytes: 0, descending: false };

fn run(order: &Order, items: &[&[u8]]) -> Vec<u8> {
    if items.is_empty() { Vec::new() } else { [order.header().as_slice(), &items.concat()].concat() }
}

fn merged(order: Order, runs: &[Vec<u8>]) -> Result<Vec<u8>, KernelError> {
    let mut merge = Merge::new(order, runs.iter().map(Vec::as_slice))?;
    let mut bytes = Vec::new();
    while let Some(item) = merge.next_item()? {
        bytes.extend_from_slice(item);
    }
    Ok(bytes)
}

#[test]
fn a_prefix_orders_like_the_key_and_says_whether_more_follows() {
    let mut random = random("a_prefix_orders_like_the_key_and_says_whether_more_follows");
    for descending in [false, true] {
        let order = Order { descending, ..LINES };
        for _ in 0..5000 {
            let mut key = || {
                let length = random.below(20) as usize;
                (0..length).map(|_| [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize]).collect::<Vec<u8>>()
            };
            let (a, b) = (key(), key());
            let (x, y) = (order.prefix(&a), order.prefix(&b));
            assert_eq!(order.goes_on(x), a.len() > PREFIX_BYTES);
            match x.cmp(&y) {
                Ordering::Equal if !order.goes_on(x) => assert_eq!(a, b),
                Ordering::Equal => assert_eq!(order.compare_rest(&a, &b), order.compare(&a, &b)),
                decided => assert_eq!(decided, order.compare(&a, &b), "{a:?} {b:?}"),
            }
        }
    }
}

#[test]
fn the_key_is_a_range_of_the_item_without_its_end() {
    let order = Order { key_offset: 2, key_bytes: 3, ..LINES };
    for (line, key) in
        [("abcdefg\n", "cde"), ("abcd\r\n", "cd"), ("ab\n", ""), ("a\n", ""), ("\n", ""), ("\r\n", ""), ("abcd", "cd"), ("a\rbc\r\n", "bc")]
    {
        assert_eq!(order.key(line.as_bytes()), key.as_bytes(), "{line:?}");
    }
    let records = Order { record: 8, ..order };
    assert_eq!(records.key(b"ab\n\r\ncde"), b"\n\r\n", "records have no ends");
    assert_eq!(Order { key_bytes: 0, ..records }.key(b"ab\n\r\nc\r\n"), b"\n\r\nc\r\n");
}

#[test]
fn equal_keys_come_in_the_order_of_the_runs() {
    let order = Order { key_bytes: 1, ..LINES };
    let runs = [run(&order, &[b"a1\n", b"b1\n"]), run(&order, &[]), run(&order, &[b"a2\n", b"a3\n", b"c2\n"]), run(&order, &[b"a4\n"])];
    assert_eq!(merged(order, &runs).unwrap(), b"a1\na2\na3\na4\nb1\nc2\n");
    assert_eq!(merged(order, &[]).unwrap(), b"");
}

#[test]
fn an_ended_run_comes_behind_the_last_key_that_there_can_be() {
    let order = Order { descending: true, ..LINES };
    let runs = [run(&order, &[b"\n", b"\n"]), run(&order, &[b"\xff\n", b"\n"]), run(&order, &[b"\n"])];
    assert_eq!(merged(order, &runs).unwrap(), b"\xff\n\n\n\n\n");
}

#[test]
fn another_order_and_damage_are_refused() {
    let records = Order { record: 4, ..LINES };
    let falling = Order { descending: true, ..LINES };
    let one = run(&LINES, &[b"a\n", b"b\n"]);
    for other in [records, falling, Order { key_offset: 1, ..LINES }, Order { key_bytes: 1, ..LINES }] {
        let error = merged(other, std::slice::from_ref(&one)).unwrap_err();
        assert!(matches!(&error, KernelError::Param(text) if text.contains("sorted in another way")), "{error}");
    }
    let long = [b"the same sixteen bytes b\n".as_slice(), b"the same sixteen bytes a\n"];
    let cases = [
        one[..15].to_vec(),
        one[..16].to_vec(),
        one[..19].to_vec(),
        run(&LINES, &[b"b\n", b"a\n"]),
        run(&LINES, &long),
        [one.as_slice(), b"c"].concat(),
    ];
    for case in cases {
        let error = merged(LINES, std::slice::from_ref(&case)).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{case:?}: {error}");
    }
    assert!(merged(records, &[run(&records, &[b"abcde"])]).unwrap_err().to_string().contains("damaged"));
}

/// Whatever a run holds, the merge ends with a result or an error.
#[test]
fn no_bytes_make_it_panic() {
    let mut random = random("no_bytes_make_it_panic");
    for _ in 0..2000 {
        let order =
            Order { record: random.below(4) as u32, key_offset: random.below(6) as u32, key_bytes: random.below(3) as u32, ..LINES };
        let mut run = order.header().to_vec();
        let length = random.below(40) as usize;
        run.extend((0..length).map(|_| b"a\nb\r\0\xff"[random.below(6) as usize]));
        let _ = merged(order, &[run]);
    }
}
