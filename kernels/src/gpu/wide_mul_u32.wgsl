// The product of two words as (low, high), by halves of 16 bits: schoolbook multiplication.
fn mul_wide(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    let cross = a_high * b_low + (low >> 16u); // at most (2^16-1)^2 + 2^16-1: fits
    let other = a_low * b_high + (cross & 0xffffu); // likewise
    return vec2<u32>(a * b, a_high * b_high + (cross >> 16u) + (other >> 16u));
}
