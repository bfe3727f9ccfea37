//! The blocks of cpu.rs for processors with AVX2 and FMA: the compiler leaves the sums of f4 in single numbers, at a third of the speed.

use std::arch::x86_64::*;

use super::cpu::{Bytes, Integers, Survey};

/// Elements of one step.
pub(super) const STEP: usize = 16;

type Group = [[u8; 4]; STEP];

#[inline]
#[target_feature(enable = "avx2")]
fn load(group: &Group, half: usize) -> __m256i {
    let at = &group[8 * half..][..8];
    // SAFETY: 32 bytes are read from a slice of eight times four; any alignment will do.
    unsafe { _mm256_loadu_si256(at.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
pub(super) fn survey(groups: &[Group]) -> Survey {
    let (sign_off, one) = (_mm256_set1_epi32(0x7fff_ffff), _mm256_set1_epi32(1));
    let mut smallest = [_mm256_set1_ps(f32::INFINITY); 2];
    let mut largest = [_mm256_set1_ps(f32::NEG_INFINITY); 2];
    let mut largest_size = [_mm256_setzero_si256(); 2];
    let mut least_size = [_mm256_set1_epi32(-1); 2];
    for group in groups {
        for half in 0..2 {
            let bits = load(group, half);
            let (value, size) = (_mm256_castsi256_ps(bits), _mm256_and_si256(bits, sign_off));
            smallest[half] = _mm256_min_ps(value, smallest[half]);
            largest[half] = _mm256_max_ps(value, largest[half]);
            largest_size[half] = _mm256_max_epu32(largest_size[half], size);
            least_size[half] = _mm256_min_epu32(least_size[half], _mm256_sub_epi32(size, one));
        }
    }
    let largest_size = words(_mm256_max_epu32(largest_size[0], largest_size[1]));
    let least_size = words(_mm256_min_epu32(least_size[0], least_size[1]));
    Survey {
        smallest: smallest_of(_mm256_min_ps(smallest[0], smallest[1])),
        largest: -smallest_of(_mm256_sub_ps(_mm256_set1_ps(-0.0), _mm256_max_ps(largest[0], largest[1]))),
        largest_size: largest_size.into_iter().fold(0, u32::max),
        least_size: least_size.into_iter().fold(u32::MAX, u32::min).saturating_add(1),
    }
}

/// The sums of the elements, of the multiples of the cut in their squares and of what is left of these.
#[target_feature(enable = "avx2,fma")]
pub(super) fn sums(groups: &[Group], cut: f64) -> [f64; 3] {
    let cut = _mm256_set1_pd(cut);
    let mut sum = [_mm256_setzero_pd(); 4];
    // Begins at the cut, so that each addition cuts by itself: it stays below twice the cut, where the last bit is the same.
    let (mut upper, mut lower) = ([cut; 4], sum);
    for group in groups {
        for half in 0..2 {
            let values = _mm256_castsi256_ps(load(group, half));
            let quarters = [_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values)];
            for (index, quarter) in quarters.into_iter().enumerate() {
                let lane = 2 * half + index;
                let value = _mm256_cvtps_pd(quarter);
                // The square is exact, so rounding it together with the addition is rounding once, as it is without FMA.
                let next = _mm256_fmadd_pd(value, value, upper[lane]);
                let rounded = _mm256_sub_pd(next, upper[lane]);
                upper[lane] = next;
                sum[lane] = _mm256_add_pd(sum[lane], value);
                lower[lane] = _mm256_add_pd(lower[lane], _mm256_fmsub_pd(value, value, rounded));
            }
        }
    }
    let upper = upper.map(|lanes| _mm256_sub_pd(lanes, cut));
    // Exact, so the order does not matter.
    [sum, upper, lower].map(|parts| parts.into_iter().flat_map(doubles).sum())
}

#[target_feature(enable = "avx2")]
pub(super) fn integers(groups: &[Group]) -> Integers {
    let (low_half, zero) = (_mm256_set1_epi64x(0xffff_ffff), _mm256_setzero_si256());
    let (mut smallest, mut largest) = (_mm256_set1_epi32(-1), zero);
    let (mut sum, mut low, mut high) = ([zero; 2], [zero; 2], [zero; 2]);
    for group in groups {
        for half in 0..2 {
            let values = load(group, half);
            smallest = _mm256_min_epu32(smallest, values);
            largest = _mm256_max_epu32(largest, values);
            // The values at even places and those at odd ones, as numbers of 64 bits.
            for (place, value) in [_mm256_and_si256(values, low_half), _mm256_srli_epi64::<32>(values)].into_iter().enumerate() {
                let square = _mm256_mul_epu32(value, value);
                sum[place] = _mm256_add_epi64(sum[place], value);
                low[place] = _mm256_add_epi64(low[place], _mm256_and_si256(square, low_half));
                high[place] = _mm256_add_epi64(high[place], _mm256_srli_epi64::<32>(square));
            }
        }
    }
    let total = |parts: [__m256i; 2]| longs(parts[0]).iter().chain(&longs(parts[1])).sum();
    Integers {
        smallest: words(smallest).into_iter().fold(u32::MAX, u32::min),
        largest: words(largest).into_iter().fold(0, u32::max),
        sum: total(sum),
        low: total(low),
        high: total(high),
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn bytes(groups: &[[u8; 32]]) -> Bytes {
    let zero = _mm256_setzero_si256();
    let (mut smallest, mut largest, mut sum, mut squares) = (_mm256_set1_epi8(-1), zero, zero, [zero; 2]);
    for group in groups {
        // SAFETY: 32 bytes are read from as many; any alignment will do.
        let values = unsafe { _mm256_loadu_si256(group.as_ptr().cast()) };
        smallest = _mm256_min_epu8(smallest, values);
        largest = _mm256_max_epu8(largest, values);
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(values, zero));
        let halves = [_mm256_unpacklo_epi8(values, zero), _mm256_unpackhi_epi8(values, zero)];
        for (squares, half) in squares.iter_mut().zip(halves) {
            *squares = _mm256_add_epi32(*squares, _mm256_madd_epi16(half, half));
        }
    }
    let each = |register: __m256i| words(register).into_iter().flat_map(u32::to_le_bytes);
    Bytes {
        smallest: each(smallest).fold(u8::MAX, u8::min),
        largest: each(largest).fold(0, u8::max),
        sum: longs(sum).into_iter().sum(),
        squares: words(squares[0]).into_iter().chain(words(squares[1])).map(u64::from).sum(),
    }
}

fn words(register: __m256i) -> [u32; 8] {
    // SAFETY: both are 32 bytes that may hold anything.
    unsafe { std::mem::transmute(register) }
}

fn longs(register: __m256i) -> [u64; 4] {
    // SAFETY: both are 32 bytes that may hold anything.
    unsafe { std::mem::transmute(register) }
}

/// Of numbers that are not NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn smallest_of(register: __m256) -> f32 {
    let four = _mm_min_ps(_mm256_castps256_ps128(register), _mm256_extractf128_ps::<1>(register));
    let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_min_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

fn doubles(register: __m256d) -> [f64; 4] {
    // SAFETY: both are 32 bytes that may hold anything.
    unsafe { std::mem::transmute(register) }
}
