//! Digits to an exact number.

/// Digits behind the point that an exact number may have. 18 digits in front of the point and 18 behind it fit 128 bits.
pub const MAX_SCALE: u8 = 18;
const MAX_DIGITS: usize = 18;

/// A cell of a column of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// `mantissa * 10^-scale`, exactly; below 10^18 in size, scale at most [`MAX_SCALE`].
    Decimal { mantissa: i64, scale: u8 },
    /// The nearest f64 to a number that has more digits, or larger or smaller ones. Finite.
    Float(f64),
}

pub(crate) const POWERS: [i64; 19] = {
    let mut powers = [1i64; 19];
    let mut at = 1;
    while at < 19 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// A cell of at most eight characters, without its sign, in one word: `word` has them from the lowest byte on, what is above is ignored.
/// No branch depends on the digits.
#[inline(always)]
pub(crate) fn short(word: u64, length: usize) -> Option<(u64, u8)> {
    debug_assert!((1..=8).contains(&length));
    // Digits become their values, at the upper end of the word; zeros come in from below, in front of the first digit.
    let mut digits = (word ^ 0x3030_3030_3030_3030) << (64 - 8 * length);
    // A point is 0x2e, now 0x1e. Carries of this test go upwards only, so the lowest byte found is right.
    let point = digits ^ 0x1e1e_1e1e_1e1e_1e1e;
    let point = point.wrapping_sub(0x0101_0101_0101_0101) & !point & 0x8080_8080_8080_8080;
    let mut scale = 0;
    if point != 0 {
        let at = point.trailing_zeros() & !7;
        scale = (7 - at / 8) as u8;
        // What is in front of the point moves over it.
        let below = (1u64 << at) - 1;
        digits = (digits & below) << 8 | (digits & !(below << 8 | 0xff));
        if length == 1 {
            return None;
        }
    }
    if (digits | digits.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = (digits.wrapping_mul(2561) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(6_553_601) >> 16) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(42_949_672_960_001) >> 32, scale))
}

/// The number that a cell holds; `None` if it holds none. Blanks around it are passed over.
pub(crate) fn parse(cell: &[u8]) -> Option<Number> {
    let cell = cell.trim_ascii();
    let (negative, digits) = match cell {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, cell),
    };
    // "nan", "inf" and what Rust may come to read are no numbers here; a second sign is none either.
    if !digits.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.') {
        return None;
    }
    match decimal(digits) {
        Some((mantissa, scale)) => Some(Number::Decimal { mantissa: if negative { -mantissa } else { mantissa }, scale }),
        None => {
            let value: f64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
            value.is_finite().then_some(Number::Float(if negative { -value } else { value }))
        }
    }
}

/// Digits with a point and an exponent, both if they are there; `None` if that is no number or does not fit.
fn decimal(text: &[u8]) -> Option<(i64, u8)> {
    let (digits, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    // Zeros at the ends say nothing.
    let fraction = &fraction[..fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1)];
    let mut mantissa = 0i64;
    let mut count = 0;
    for digit in whole.iter().chain(fraction) {
        count += usize::from(count > 0 || *digit != b'0');
        if count > MAX_DIGITS {
            return None;
        }
        mantissa = mantissa * 10 + i64::from(digit - b'0');
    }
    if mantissa == 0 {
        return Some((0, 0));
    }
    let mut scale = i64::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    while scale > 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        scale -= 1;
    }
    if scale < 0 {
        let power = POWERS.get(usize::try_from(-scale).ok()?)?;
        mantissa = mantissa.checked_mul(*power).filter(|mantissa| *mantissa < POWERS[18])?;
        scale = 0;
    }
    Some((mantissa, u8::try_from(scale).ok().filter(|scale| *scale <= MAX_SCALE)?))
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 4 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is(mantissa: i64, scale: u8) -> Option<Number> {
        Some(Number::Decimal { mantissa, scale })
    }

    #[test]
    fn numbers_of_up_to_18_digits_are_exact_and_others_the_nearest_float() {
        assert_eq!(parse(b"-12.3"), is(-123, 1));
        assert_eq!(parse(b" +0012 "), is(12, 0));
        assert_eq!(parse(b".5"), is(5, 1));
        assert_eq!(parse(b"5."), is(5, 0));
        assert_eq!(parse(b"1.5e3"), is(1500, 0));
        assert_eq!(parse(b"1e-18"), is(1, 18));
        assert_eq!(parse(b"-0"), is(0, 0));
        assert_eq!(parse(b"1.50000000000000000000000"), is(15, 1));
        assert_eq!(parse(b"999999999999999999"), is(999_999_999_999_999_999, 0));
        assert_eq!(parse(b"1000000000000000000"), Some(Number::Float(1e18)));
        assert_eq!(parse(b"1e-19"), Some(Number::Float(1e-19)));
        assert_eq!(parse(b"-1e300"), Some(Number::Float(-1e300)));
        for none in [
            "", " ", ".", "-", "--1", "+-1", "1e", "1e+", "1.2.3", "0x10", "nan", "inf", "-inf", "infinity", "1e999", "1_000", "1,5", "e5",
            "1 2",
        ] {
            assert_eq!(parse(none.as_bytes()), None, "{none}");
        }
    }

    fn word(text: &str) -> u64 {
        let mut bytes = [0xab; 8];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        u64::from_le_bytes(bytes)
    }

    #[test]
    fn the_short_way_refuses_what_is_no_number() {
        for none in [".", "a", "1a", "1.2.3", "..", "1..", "12:", "/1", "-1", "1e5", " 1", "1 "] {
            assert_eq!(short(word(none), none.len()), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_agree_where_the_short_one_knows(text in "[0-9.]{1,8}|[ -~]{1,8}") {
            if let Some((mantissa, scale)) = short(word(&text), text.len()) {
                let value: f64 = text.parse().unwrap();
                prop_assert_eq!(mantissa as f64 / POWERS[scale as usize] as f64, value);
                prop_assert!(parse(text.as_bytes()).is_some());
            } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
                prop_assert!(false, "digits are a number: {}", text);
            }
        }

        #[test]
        fn a_decimal_is_what_the_standard_library_reads(text in "-?[0-9]{0,12}(\\.[0-9]{0,8})?(e-?[0-9]{1,2})?") {
            let expected = text.parse::<f64>().ok();
            match (parse(text.as_bytes()), expected) {
                (Some(Number::Decimal { mantissa, scale }), Some(expected)) => {
                    let exact = format!("{mantissa}e-{scale}").parse::<f64>().unwrap();
                    prop_assert_eq!(exact, expected);
                }
                (Some(Number::Float(value)), Some(expected)) => prop_assert_eq!(value, expected),
                (None, expected) => prop_assert!(expected.is_none(), "{}", text),
                (found, None) => prop_assert!(false, "{}: {:?}", text, found),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(cell in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&cell);
        }
    }
}
