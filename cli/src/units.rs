//! Sizes and durations as people write them.

use std::time::Duration;

const BYTE_UNITS: [(&str, u64); 11] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("", 1),
];

/// `"16MiB"`, `"4 GB"`, `"512"`. Decimal and binary units mean what they say.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = (text[..digits].replace('_', ""), text[digits..].trim());
    let wrong = || format!("`{text}`; write a whole number and a unit, as in 16MiB (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, factor) = BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*factor).ok_or_else(|| format!("`{text}` is more than 64 bits hold"))
}

/// `"10.0.0.1:7300"`, `"host:7300"`, `"[::1]:7300"`.
pub fn parse_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let host_is_one =
        !host.is_empty() && !host.contains([' ', '/']) && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    if !host_is_one || port.parse::<u16>().map_or(true, |port| port == 0) {
        return Err("an address is a host and a port, as in 10.0.0.1:7300 or [::1]:7300".to_owned());
    }
    Ok(text.to_owned())
}

/// As an address, but port 0 is any free one.
pub fn parse_listen(text: &str) -> Result<String, String> {
    match text.trim().strip_suffix(":0") {
        Some(host) => parse_address(&format!("{host}:1")).map(|_| text.trim().to_owned()),
        None => parse_address(text),
    }
    .map_err(|error| format!("{error}; port 0 is any free one"))
}

/// `1536` is `1.5 KiB`.
pub fn format_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 { format!("{value:.0} {}", units[unit]) } else { format!("{value:.1} {}", units[unit]) }
}

/// `"10s"`, `"500ms"`, `"2m"`, `"1h"`; a number without a unit is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let wrong = || format!("`{text}` is not a duration; write a number and a unit, as in 10s (ms, s, m, h; seconds when there is none)");
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let seconds = match text[digits..].trim() {
        "ms" => number / 1_000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Two units at most: `850 ms`, `12.3 s`, `4 m 05 s`, `2 h 10 m`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if duration.as_millis() < 1_000 => format!("{} ms", duration.as_millis()),
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// `1234567` is `1,234,567`.
pub fn group_digits(number: impl std::fmt::Display) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 part`, `1,234 parts`.
pub fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", group_digits(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2, 1234].map(|n| counted(n, "csv part")), ["0 csv parts", "1 csv part", "2 csv parts", "1,234 csv parts"]);
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_bytes("16MiB"), Ok(16 << 20));
        assert_eq!(parse_bytes("4 GB"), Ok(4_000_000_000));
        assert_eq!(parse_bytes("1_024"), Ok(1024));
        assert!(parse_bytes("MiB").unwrap_err().contains("whole number"));
        assert!(parse_bytes("1.5GiB").unwrap_err().contains("whole number"));
        assert!(parse_bytes("99999999TiB").unwrap_err().contains("64 bits"));
    }

    #[test]
    fn sizes_are_written_in_binary_units() {
        assert_eq!(format_bytes(0), "0 B");
        assert_eq!(format_bytes(16 << 20), "16 MiB");
        assert_eq!(format_bytes(1536), "1.5 KiB");
    }

    #[test]
    fn addresses_have_a_host_and_a_port_and_only_listeners_may_leave_the_port_open() {
        for good in ["10.0.0.1:7300", "host:7300", "[::1]:7300"] {
            assert_eq!((parse_address(good).as_deref(), parse_listen(good).as_deref()), (Ok(good), Ok(good)));
        }
        assert_eq!(parse_listen("[::1]:0").as_deref(), Ok("[::1]:0"));
        assert!(parse_address("host:0").is_err());
        for bad in ["foo", ":7300", "::1:7300", "::1:0", ":0", "host:70000", "http://host:1", ""] {
            assert!(parse_address(bad).is_err() && parse_listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_and_written() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert!(parse_duration("soon").is_err());
        assert_eq!(format_duration(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(format_duration(Duration::from_secs(245)), "4 m 05 s");
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(group_digits(1_234_567_u64), "1,234,567");
        assert_eq!(group_digits(123_u64), "123");
    }
}
