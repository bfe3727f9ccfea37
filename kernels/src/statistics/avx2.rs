//! The blocks of cpu.rs for processors with AVX2 and FMA: the compiler leaves the sums of f4 in single numbers, at a third of the speed.

use std::arch::x86_64::*;

use super::bins::{Ends, ONE, TABLES, Tables};
use super::cpu::{Bytes, Integers, Scaled, Survey};

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

/// The sums of elements that are whole numbers below 2^29 when multiplied by `scale`, which is 1 or more and a power of two; `None` if one is not.
/// For at most 64 groups.
///
/// Products of 2^23 and more have no bits behind the point: where all are, or all are negative and that large, nothing else need be looked at.
#[target_feature(enable = "avx2")]
pub(super) fn scaled(groups: &[Group], scale: f32, looks: bool) -> Option<Scaled> {
    let whole = 1 << 23;
    if looks {
        return numbers::<true>(groups, scale);
    }
    numbers::<false>(groups, scale).filter(|all| all.smallest >= whole || all.largest <= -whole)
}

/// `LOOKS`: whether each product is compared with the whole number made of it.
#[target_feature(enable = "avx2")]
fn numbers<const LOOKS: bool>(groups: &[Group], scale: f32) -> Option<Scaled> {
    assert!(groups.len() <= 64 && groups.len().is_multiple_of(2));
    let (scale, one) = (_mm256_set1_ps(scale), _mm256_set1_epi64x(1));
    let zero = _mm256_setzero_si256();
    let (mut smallest, mut largest) = ([_mm256_set1_epi32(i32::MAX); 2], [_mm256_set1_epi32(i32::MIN); 2]);
    let (mut broken, mut sum) = ([_mm256_setzero_ps(); 2], [zero; 2]);
    // By place and by half: each lane of each adds 64 squares below 2^58.
    let mut squares = [[zero; 2]; 2];
    for pair in groups.as_chunks::<2>().0 {
        let mut four = zero;
        for group in pair {
            for half in 0..2 {
                let exact = _mm256_mul_ps(_mm256_castsi256_ps(load(group, half)), scale);
                let number = _mm256_cvtps_epi32(exact);
                // NaN and what is too large become i32::MIN, and are told by `smallest`.
                if LOOKS {
                    broken[half] = _mm256_or_ps(broken[half], _mm256_cmp_ps::<_CMP_NEQ_UQ>(_mm256_cvtepi32_ps(number), exact));
                }
                smallest[half] = _mm256_min_epi32(smallest[half], number);
                largest[half] = _mm256_max_epi32(largest[half], number);
                let odd = _mm256_srli_epi64::<32>(number);
                squares[0][half] = _mm256_add_epi64(squares[0][half], _mm256_mul_epi32(number, number));
                squares[1][half] = _mm256_add_epi64(squares[1][half], _mm256_mul_epi32(odd, odd));
                // Four numbers of 29 bits and a sign.
                four = _mm256_add_epi32(four, number);
            }
        }
        // Times one: the lower half with its sign, as 64 bits.
        sum[0] = _mm256_add_epi64(sum[0], _mm256_mul_epi32(four, one));
        sum[1] = _mm256_add_epi64(sum[1], _mm256_mul_epi32(_mm256_srli_epi64::<32>(four), one));
    }
    let each = |register: [__m256i; 2]| register.into_iter().flat_map(words).map(|word| word as i32);
    let (smallest, largest) = (each(smallest).fold(i32::MAX, i32::min), each(largest).fold(i32::MIN, i32::max));
    let whole = _mm256_movemask_ps(_mm256_or_ps(broken[0], broken[1])) == 0;
    (whole && smallest > -(1 << 29) && largest < 1 << 29).then(|| Scaled {
        smallest,
        largest,
        sum: sum.into_iter().flat_map(longs).map(|part| part as i64).sum(),
        squares: squares.into_iter().flatten().flat_map(longs).map(u128::from).sum(),
    })
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

/// Adds each element to its bin. Both words of a bin are one register; those of eight elements are made at once.
#[target_feature(enable = "avx2")]
pub(super) fn bins(tables: &mut Tables, groups: &[Group]) -> Ends {
    const { assert!(TABLES == 4) }
    let (fraction, low_half) = (_mm256_set1_epi32(0x7f_ffff), _mm256_set1_epi64x(0xffff_ffff));
    let (sign_off, one) = (_mm256_set1_epi32(0x7fff_ffff), _mm256_set1_epi64x(ONE as i64));
    let (mut smallest, mut largest) = ([_mm256_set1_ps(f32::INFINITY); 2], [_mm256_set1_ps(f32::NEG_INFINITY); 2]);
    let mut largest_size = [_mm256_setzero_si256(); 2];
    for group in groups {
        for half in 0..2 {
            let bits = load(group, half);
            let value = _mm256_castsi256_ps(bits);
            smallest[half] = _mm256_min_ps(value, smallest[half]);
            largest[half] = _mm256_max_ps(value, largest[half]);
            largest_size[half] = _mm256_max_epu32(largest_size[half], _mm256_and_si256(bits, sign_off));
            let f = _mm256_and_si256(bits, fraction);
            // Those at even places and those at odd ones, each with its square.
            let (even, odd) = (_mm256_and_si256(f, low_half), _mm256_srli_epi64::<32>(f));
            let (even_square, odd_square) = (_mm256_mul_epu32(even, even), _mm256_mul_epu32(odd, odd));
            let (even, odd) = (_mm256_or_si256(even, one), _mm256_or_si256(odd, one));
            let [zero_four, two_six] = [_mm256_unpacklo_epi64(even, even_square), _mm256_unpackhi_epi64(even, even_square)];
            let [one_five, three_seven] = [_mm256_unpacklo_epi64(odd, odd_square), _mm256_unpackhi_epi64(odd, odd_square)];
            let at = &group[8 * half..][..8];
            note::<0>(tables, at[0], _mm256_castsi256_si128(zero_four));
            note::<1>(tables, at[1], _mm256_castsi256_si128(one_five));
            note::<2>(tables, at[2], _mm256_castsi256_si128(two_six));
            note::<3>(tables, at[3], _mm256_castsi256_si128(three_seven));
            note::<0>(tables, at[4], _mm256_extracti128_si256::<1>(zero_four));
            note::<1>(tables, at[5], _mm256_extracti128_si256::<1>(one_five));
            note::<2>(tables, at[6], _mm256_extracti128_si256::<1>(two_six));
            note::<3>(tables, at[7], _mm256_extracti128_si256::<1>(three_seven));
        }
    }
    Ends {
        smallest: smallest_of(_mm256_min_ps(smallest[0], smallest[1])),
        largest: -smallest_of(_mm256_sub_ps(_mm256_set1_ps(-0.0), _mm256_max_ps(largest[0], largest[1]))),
        largest_size: words(_mm256_max_epu32(largest_size[0], largest_size[1])).into_iter().fold(0, u32::max),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn note<const TABLE: usize>(tables: &mut Tables, element: [u8; 4], more: __m128i) {
    let bin = std::ptr::from_mut(&mut tables[(u32::from_le_bytes(element) >> 23) as usize][TABLE]).cast::<__m128i>();
    // SAFETY: 16 bytes are read from and written to a bin of as many; any alignment will do.
    unsafe { _mm_storeu_si128(bin, _mm_add_epi64(_mm_loadu_si128(bin), more)) }
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
