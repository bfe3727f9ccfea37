//! Whether a peer that is silent is likely to be gone.
//!
//! The phi-accrual failure detector (Hayashibara, Défago, Yared and Katayama, "The φ accrual failure detector", SRDS 2004): silence is
//! measured against how regularly the peer was heard before. φ = 1 means that a peer as regular as this one would be that late once in ten times,
//! φ = 8 once in a hundred million. A peer whose heartbeats come like a clock is suspected soon; one on a busy machine is given time.
//!
//! Pure: the caller brings the clock, monotonic milliseconds from any origin. Suspicion decides where new work goes, never who may
//! hold a lease: only a log entry does that.

/// Intervals remembered; older ones are forgotten.
const WINDOW: usize = 64;
/// φ from which a peer counts as suspect.
pub const SUSPECT_PHI: f64 = 8.0;
/// Standard deviations of lateness at which φ reaches [`SUSPECT_PHI`] (the inverse of `phi` below).
const SUSPECT_DEVIATIONS: f64 = 5.226;
/// A peer is never taken to be more regular than this share of its mean interval: schedulers of operating systems are not.
const LEAST_DEVIATION: f64 = 0.25;
/// Longer intervals count as this many means.
const LONGEST_IN_MEANS: f64 = 4.0;

/// What was heard of one peer.
#[derive(Clone, Debug)]
pub struct Detector {
    /// Intervals between heartbeats in milliseconds, a ring.
    intervals: Vec<u32>,
    next: usize,
    last_beat: u64,
    last_heard: u64,
    /// Silence after which the peer is suspect; kept, because it is asked for far more often than a heartbeat comes.
    patience: u64,
}

impl Detector {
    /// A peer heard of just now that has promised a heartbeat every `expected_ms`.
    pub fn new(now: u64, expected_ms: u64) -> Detector {
        let expected = expected_ms.clamp(1, u64::from(u32::MAX)) as u32;
        let mut detector = Detector { intervals: vec![expected; 2], next: 0, last_beat: now, last_heard: now, patience: 0 };
        detector.learn();
        detector
    }

    /// A heartbeat came.
    pub fn beat(&mut self, now: u64) {
        // A pause (a stopped machine, a cut cable) is remembered as one long interval, but not as so long a one that the next goes unnoticed.
        let longest = (self.rhythm().0 * LONGEST_IN_MEANS).min(f64::from(u32::MAX)) as u64;
        let interval = now.saturating_sub(self.last_beat).min(longest) as u32;
        if self.intervals.len() < WINDOW {
            self.intervals.push(interval);
        } else {
            self.intervals[self.next] = interval;
            self.next = (self.next + 1) % WINDOW;
        }
        self.last_beat = self.last_beat.max(now);
        self.learn();
        self.heard(now);
    }

    /// Anything else came: a sign of life, but no measure of its rhythm.
    pub fn heard(&mut self, now: u64) {
        self.last_heard = self.last_heard.max(now);
    }

    /// Milliseconds since anything was heard.
    pub fn silence(&self, now: u64) -> u64 {
        now.saturating_sub(self.last_heard)
    }

    /// The level of suspicion.
    pub fn phi(&self, now: u64) -> f64 {
        let (mean, deviation) = self.rhythm();
        let y = (self.silence(now) as f64 - mean) / deviation;
        // The logistic approximation of the normal distribution's tail (Bowling, Khasawneh, Kaewkuekool and Cho, 2009).
        let e = (-y * (1.5976 + 0.070566 * y * y)).exp();
        if y > 0.0 { -(e / (1.0 + e)).log10() } else { -(1.0 - 1.0 / (1.0 + e)).log10() }
    }

    /// When the peer becomes suspect if nothing more is heard of it.
    pub fn suspect_at(&self) -> u64 {
        self.last_heard.saturating_add(self.patience)
    }

    pub fn is_suspect(&self, now: u64) -> bool {
        now >= self.suspect_at()
    }

    fn learn(&mut self) {
        let (mean, deviation) = self.rhythm();
        self.patience = (mean + SUSPECT_DEVIATIONS * deviation).ceil() as u64;
    }

    /// Mean and standard deviation of the intervals.
    fn rhythm(&self) -> (f64, f64) {
        let n = self.intervals.len() as f64;
        let mean = (self.intervals.iter().map(|&i| f64::from(i)).sum::<f64>() / n).max(1.0);
        let variance = self.intervals.iter().map(|&i| (f64::from(i) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt().max(mean * LEAST_DEVIATION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that beats at these intervals; the detector and the time of its last beat.
    fn beating(intervals: impl IntoIterator<Item = u64>) -> (Detector, u64) {
        let mut now = 1_000;
        let mut detector = Detector::new(now, 500);
        for interval in intervals {
            now += interval;
            assert!(!detector.is_suspect(now), "suspected before a beat at {now}");
            detector.beat(now);
        }
        (detector, now)
    }

    #[test]
    fn a_regular_peer_is_suspected_after_little_more_than_two_intervals() {
        let (detector, last) = beating([500; 100]);
        assert!((1_100..1_300).contains(&(detector.suspect_at() - last)), "{}", detector.suspect_at() - last);
    }

    #[test]
    fn an_irregular_peer_is_given_more_time() {
        let (regular, last) = beating([500; 100]);
        let regular = regular.suspect_at() - last;
        let (irregular, last) = beating((0..100).map(|n| if n % 4 == 0 { 1_000 } else { 350 }));
        let irregular = irregular.suspect_at() - last;
        assert!(irregular > regular + 500, "{irregular} against {regular}");
    }

    #[test]
    fn phi_grows_with_silence_and_reaches_its_threshold_when_the_peer_becomes_suspect() {
        let (detector, last) = beating((0..200).map(|n| 450 + n % 7 * 15));
        let levels: Vec<f64> = (0..4_000).step_by(50).map(|ms| detector.phi(last + ms)).collect();
        assert!(levels.windows(2).all(|w| w[0] <= w[1]), "{levels:?}");
        assert!(levels[0] < 0.1 && levels[10] < 1.0, "{levels:?}");
        assert!((detector.phi(detector.suspect_at()) - SUSPECT_PHI).abs() < 0.1, "{}", detector.phi(detector.suspect_at()));
    }

    #[test]
    fn a_message_that_is_no_heartbeat_is_a_sign_of_life_and_leaves_the_rhythm() {
        let (mut detector, last) = beating([500; 50]);
        let patience = detector.suspect_at() - last;
        (0..100).for_each(|n| detector.heard(last + n * 10));
        assert_eq!(detector.suspect_at(), last + 990 + patience);
    }

    #[test]
    fn one_long_pause_does_not_make_the_detector_blind() {
        let (mut detector, last) = beating([500; 100]);
        detector.beat(last + 20_000);
        (1..=63).for_each(|n| detector.beat(last + 20_000 + n * 500));
        let now = last + 20_000 + 63 * 500;
        assert!(detector.suspect_at() - now < 2_000, "{}", detector.suspect_at() - now);
        detector.beat(now + 500);
        assert!(detector.suspect_at() - now - 500 < 1_300, "the pause has left the window");
    }

    #[test]
    fn absurd_times_are_no_panic() {
        let mut detector = Detector::new(u64::MAX, 0);
        detector.beat(0);
        detector.beat(u64::MAX);
        assert!(detector.phi(u64::MAX).is_finite() || detector.phi(u64::MAX).is_nan());
        assert_eq!(detector.silence(0), 0);
    }
}
