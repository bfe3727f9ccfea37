//! The time by which a leadership judges silence: that in which it was awake itself.
//!
//! A leader that was stopped, or got no turn on a crowded machine, finds what its workers said meanwhile only after it has looked at the clock. Were
//! that time counted, it would hold its own silence against them, and lease a second time what they have long done.

/// The loop looks at the clock at every tick, so a longer gap is none in which it could have heard anybody.
const STANDSTILL_MS: u64 = 500;

/// Milliseconds awake, from readings of a monotonic clock.
pub(crate) struct Awake {
    read_ms: u64,
    awake_ms: u64,
}

impl Awake {
    pub(crate) fn since(read_ms: u64) -> Awake {
        Awake { read_ms, awake_ms: 0 }
    }

    pub(crate) fn at(&mut self, read_ms: u64) -> u64 {
        self.awake_ms += read_ms.saturating_sub(self.read_ms).min(STANDSTILL_MS);
        self.read_ms = read_ms;
        self.awake_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_counts_as_a_moment() {
        let mut awake = Awake::since(1_000);
        assert_eq!(awake.at(1_050), 50);
        assert_eq!(awake.at(1_500), 500);
        assert_eq!(awake.at(21_500), 500 + STANDSTILL_MS, "20 s without a look");
        assert_eq!(awake.at(21_550), 550 + STANDSTILL_MS);
        assert_eq!(awake.at(21_550), 550 + STANDSTILL_MS);
    }
}
