
// An element is one word or two, the low one first.
override words: u32;
override digit_bit: u32; // the lowest of the eight bits of this pass
override is_float: u32; // 1: elements are floats, and their order is that of mapped bits

fn element_count() -> u32 {
    return arrayLength(&values) / words;
}

// Low and high word.
fn element_at(index: u32) -> vec2<u32> {
    if words == 2u {
        return vec2<u32>(values[2u * index], values[2u * index + 1u]);
    }
    return vec2<u32>(values[index], 0u);
}

// A shift by 32 is none in WGSL, hence the two steps.
fn digit_of(element: vec2<u32>) -> u32 {
    let shift = digit_bit % 32u;
    if digit_bit >= 32u {
        return (element.y >> shift) & 0xffu;
    }
    var mapped = element.x;
    if is_float == 1u {
        // All bits of negative numbers turned over, of others the sign alone.
        mapped = select(mapped | 0x80000000u, ~mapped, mapped >> 31u == 1u);
    }
    return ((mapped >> shift) | ((element.y << 1u) << (31u - shift))) & 0xffu;
}
