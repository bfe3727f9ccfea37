//! Noise. A number depends on the seed and on what it is for, never on how many were drawn before: two policies meet the same tasks.

/// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a number is for, so that no two uses share one.
#[derive(Clone, Copy)]
pub enum Use {
    Noise,
    Units,
    Jitter,
    Failure,
    Arrival,
}

#[derive(Clone, Copy)]
pub struct Dice {
    seed: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { seed: mix(seed) }
    }

    /// A source of its own for one use and one thing, to be asked with a running number.
    pub fn of(self, what: Use, which: u64) -> Dice {
        Dice { seed: mix(mix(self.seed ^ (what as u64 + 1)) ^ which) }
    }

    /// Uniform in (0, 1).
    pub fn uniform(self, number: u64) -> f64 {
        (((mix(self.seed ^ number) >> 11) as f64) + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller, 1958).
    pub fn normal(self, number: u64) -> f64 {
        let (a, b) = (self.uniform(2 * number), self.uniform(2 * number + 1));
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// Exponential with mean 1.
    pub fn exponential(self, number: u64) -> f64 {
        -self.uniform(number).ln()
    }
}

/// Log-normal factors of mean 1 and a given coefficient of variation.
#[derive(Clone, Copy)]
pub struct Noise {
    sigma: f64,
}

impl Noise {
    pub fn of_percent(percent: f64) -> Noise {
        let variation = percent / 100.0;
        Noise { sigma: (1.0 + variation * variation).ln().sqrt() }
    }

    pub fn factor(self, dice: Dice, number: u64) -> f64 {
        if self.sigma == 0.0 { 1.0 } else { (self.sigma * dice.normal(number) - self.sigma * self.sigma / 2.0).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_mean_one_and_the_variation_asked_for() {
        let (noise, dice) = (Noise::of_percent(15.0), Dice::new(1).of(Use::Noise, 3));
        let n = 200_000u64;
        let (sum, squares) = (0..n).map(|i| noise.factor(dice, i)).fold((0.0, 0.0), |(s, q), f| (s + f, q + f * f));
        let mean = sum / n as f64;
        let deviation = (squares / n as f64 - mean * mean).sqrt();
        assert!((mean - 1.0).abs() < 0.002 && (deviation - 0.15).abs() < 0.002, "{mean} {deviation}");
    }

    #[test]
    fn uses_and_seeds_are_apart() {
        let draws = |dice: Dice| (0..4).map(|n| dice.uniform(n)).collect::<Vec<_>>();
        assert_eq!(draws(Dice::new(1).of(Use::Noise, 1)), draws(Dice::new(1).of(Use::Noise, 1)));
        assert_ne!(draws(Dice::new(1).of(Use::Noise, 1)), draws(Dice::new(2).of(Use::Noise, 1)));
        assert_ne!(draws(Dice::new(1).of(Use::Noise, 1)), draws(Dice::new(1).of(Use::Units, 1)));
        assert_ne!(draws(Dice::new(1).of(Use::Noise, 1)), draws(Dice::new(1).of(Use::Noise, 2)));
    }
}
