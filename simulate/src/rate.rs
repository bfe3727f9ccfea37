//! How fast a device is over time, against its own full speed: 1, less after a slow-down, 0 while it is dead.

/// Nanoseconds of virtual time.
pub type Ns = u64;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rate {
    /// From this time on this rate, in ascending order; 1 before the first.
    changes: Vec<(Ns, f64)>,
}

impl Rate {
    /// Of spans of time with a factor each; where several overlap their factors multiply.
    pub fn of_spans(spans: &[(Ns, Ns, f64)]) -> Rate {
        let mut times: Vec<Ns> = spans.iter().flat_map(|(from, until, _)| [*from, *until]).filter(|t| *t < Ns::MAX).collect();
        times.sort_unstable();
        times.dedup();
        let mut changes: Vec<(Ns, f64)> = Vec::new();
        for time in times {
            let rate = spans.iter().filter(|(from, until, _)| *from <= time && time < *until).map(|(.., factor)| factor).product();
            if changes.last().map_or(1.0, |(_, last)| *last) != rate {
                changes.push((time, rate));
            }
        }
        Rate { changes }
    }

    pub fn is_constant(&self) -> bool {
        self.changes.is_empty()
    }

    /// When `work` nanoseconds at full speed that begin at `from` are done; [`Ns::MAX`] for never.
    pub fn finish(&self, from: Ns, work: Ns) -> Ns {
        if self.changes.is_empty() {
            return from.saturating_add(work);
        }
        let (mut at, mut left) = (from, work as f64);
        let mut next = self.changes.partition_point(|(time, _)| *time <= from);
        loop {
            let rate = next.checked_sub(1).map_or(1.0, |before| self.changes[before].1);
            let until = self.changes.get(next).map_or(Ns::MAX, |(time, _)| *time);
            if rate > 0.0 {
                let takes = left / rate;
                if until == Ns::MAX || takes <= (until - at) as f64 {
                    return if takes >= (Ns::MAX - at) as f64 { Ns::MAX } else { at + takes.round() as Ns };
                }
                left -= (until - at) as f64 * rate;
            } else if until == Ns::MAX {
                return Ns::MAX;
            }
            (at, next) = (until, next + 1);
        }
    }

    /// The first time from `from` on at which it dies, and when it lives again.
    pub fn outage(&self, from: Ns) -> Option<(Ns, Ns)> {
        let dead = self.changes.iter().position(|(time, rate)| *time >= from && *rate == 0.0)?;
        let back = self.changes.get(dead + 1).map_or(Ns::MAX, |(time, _)| *time);
        Some((self.changes[dead].0, back))
    }

    /// Full-speed nanoseconds between two times.
    pub fn capacity(&self, from: Ns, until: Ns) -> f64 {
        let mut at = from;
        let mut done = 0.0;
        let mut next = self.changes.partition_point(|(time, _)| *time <= from);
        while at < until {
            let rate = next.checked_sub(1).map_or(1.0, |before| self.changes[before].1);
            let end = self.changes.get(next).map_or(until, |(time, _)| (*time).min(until));
            done += (end - at) as f64 * rate;
            (at, next) = (end, next + 1);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_longer_while_a_device_is_slow_and_waits_while_it_is_dead() {
        let rate = Rate::of_spans(&[(100, Ns::MAX, 0.5), (200, 300, 0.0)]);
        assert_eq!(rate.finish(0, 50), 50);
        assert_eq!(rate.finish(50, 100), 200, "50 at full speed, 50 at half of it");
        assert_eq!(rate.finish(50, 110), 320, "and then it was dead for 100");
        assert_eq!(rate.capacity(0, 400), 100.0 + 50.0 + 0.0 + 50.0);
        assert_eq!(Rate::of_spans(&[(10, Ns::MAX, 0.0)]).finish(0, 11), Ns::MAX);
        assert_eq!(Rate::default().finish(5, 7), 12);
    }

    #[test]
    fn capacity_and_finish_agree() {
        let rate = Rate::of_spans(&[(1_000, 5_000, 1.0 / 3.0), (4_000, 9_000, 0.5)]);
        for (from, work) in [(0u64, 500u64), (0, 2_500), (900, 3_000), (4_500, 8_000)] {
            let end = rate.finish(from, work);
            assert!((rate.capacity(from, end) - work as f64).abs() <= 1.0, "{from} {work} {end}");
        }
    }
}
