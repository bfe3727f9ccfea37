
// An element is one word or two, the low one first.
override words: u32;
override digit_bit: u32; // the lowest of the eight bits of this pass
override is_float: u32; // 1: elements are floats, and their order is that of mapped bits

fn element_count() -> u32 {
    return arrayLength(&values) / words;
}

// A shift by 32 is none in WGSL, hence the two steps.
fn digit_of(low: u32, high: u32) -> u32 {
    let shift = digit_bit % 32u;
    if digit_bit >= 32u {
        return (high >> shift) & 0xffu;
    }
    var mapped = low;
    if is_float == 1u {
        // All bits of negative numbers turned over, of others the sign alone.
        mapped = select(low | 0x80000000u, ~low, low >> 31u == 1u);
    }
    return ((mapped >> shift) | ((high << 1u) << (31u - shift))) & 0xffu;
}
