//! The specification: one formula for each option, in f32, without branches, so that the compiler prices several at once. No operation
//! here depends on the machine: additions, products, quotients and roots are rounded as IEEE 754 says, and none is fused.

use super::{Between, Market, Priced, UNIT};
use crate::philox::philox;

/// Options priced before their sums are taken: few enough for the first-level cache.
const CHUNK: usize = 256;

pub(super) fn price(market: &Market, start: u64, count: u64, keep: bool) -> Priced {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { price_avx2(market, start, count, keep) };
    }
    price_chunks(market, start, count, keep)
}

/// The same operations on eight numbers at a time. Without `fma`: a fused product would round once where the others round twice.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn price_avx2(market: &Market, start: u64, count: u64, keep: bool) -> Priced {
    price_chunks(market, start, count, keep)
}

#[inline(always)]
pub(super) fn price_chunks(market: &Market, start: u64, count: u64, keep: bool) -> Priced {
    let mut priced = Priced { rows: Vec::with_capacity(if keep { 2 * count as usize } else { 0 }), ..Priced::default() };
    let (mut calls, mut puts) = ([0.0f32; CHUNK], [0.0f32; CHUNK]);
    let mut first = 0;
    while first < count {
        let options = (count - first).min(CHUNK as u64) as usize;
        for (index, (call, put)) in calls.iter_mut().zip(&mut puts).enumerate() {
            // Numbers beyond the range are priced too, and not looked at.
            (*call, *put) = option(market, start.wrapping_add(first + index as u64));
        }
        for (call, put) in calls[..options].iter().zip(&puts[..options]) {
            priced.calls += parts(*call);
            priced.puts += parts(*put);
            if keep {
                priced.rows.extend([*call, *put]);
            }
        }
        first += options as u64;
    }
    priced
}

/// A price in units of 1 / [`UNIT`]; the product is exact, and below 2^30.
#[inline(always)]
fn parts(price: f32) -> u64 {
    u64::from((price * UNIT + 0.5) as u32)
}

#[inline(always)]
pub(super) fn option(market: &Market, number: u64) -> (f32, f32) {
    let key = [market.seed as u32, (market.seed >> 32) as u32];
    let [spot, strike, years, _] = philox([number as u32, (number >> 32) as u32, 0, 0], key);
    formula(market, pick(market.spot, spot), pick(market.strike, strike), pick(market.years, years))
}

/// The upper 24 bits of the word as a share of the range: all the digits that an f32 has.
#[inline(always)]
pub(super) fn pick(between: Between, word: u32) -> f32 {
    between.low + (word >> 8) as f32 * (1.0 / 16_777_216.0) * between.span
}

#[inline(always)]
pub(super) fn formula(market: &Market, spot: f32, strike: f32, years: f32) -> (f32, f32) {
    let spread = market.volatility * years.sqrt();
    let d1 = (log(spot / strike) + market.drift * years) / spread;
    let d2 = d1 - spread;
    let owed = strike * exp(-(market.rate * years));
    let call = spot * normal(d1) - owed * normal(d2);
    let put = owed * normal(-d2) - spot * normal(-d1);
    // A price of nothing may come out a rounding below it.
    (call.max(0.0), put.max(0.0))
}

/// The standard normal distribution, off by 7.5e-8 at most: Abramowitz and Stegun 26.2.17.
#[inline(always)]
fn normal(d: f32) -> f32 {
    let size = d.abs();
    let k = 1.0 / (1.0 + 0.231_641_9 * size);
    let series = k * (0.319_381_53 + k * (-0.356_563_78 + k * (1.781_477_9 + k * (-1.821_255_9 + k * 1.330_274_4))));
    let tail = 0.398_942_3 * exp(-0.5 * size * size) * series;
    if d > 0.0 { 1.0 - tail } else { tail }
}

/// e^x for x <= 0; below -87 it is e^-87, far under every rounding here.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it makes the fraction bits of the sum the nearest whole number.
    const WHOLE: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + WHOLE;
    let n = shifted - WHOLE;
    let rest = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let series =
        ((((1.987_569_1e-4 * rest + 1.398_2e-3) * rest + 8.333_452e-3) * rest + 4.166_579_6e-2) * rest + 0.166_666_66) * rest + 0.5;
    let fraction = series * rest * rest + rest + 1.0;
    // 2^n by its exponent: n >= -126.
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// The natural logarithm of a positive, normal number.
#[inline(always)]
fn log(x: f32) -> f32 {
    // The fraction lies between the square roots of 1/2 and 2.
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(ROOT_HALF);
    let exponent = (bits as i32 >> 23) as f32;
    let f = f32::from_bits((bits & 0x007f_ffff).wrapping_add(ROOT_HALF)) - 1.0;
    let z = f * f;
    let series = (((((((7.037_683_6e-2 * f - 0.115_146_1) * f + 0.116_769_98) * f - 0.124_201_41) * f + 0.142_493_23) * f - 0.166_680_57)
        * f
        + 0.200_007_15)
        * f
        - 0.249_999_94)
        * f
        + 0.333_333_3;
    let low = f * z * series - exponent * 2.121_944_4e-4 - 0.5 * z;
    f + low + exponent * 0.693_359_4
}
