override element: u32; // 0: u1, 1: u4, 2: f4

// The element at this place behind a word of `values`, as its bits.
fn load(first_word: u32, index: u32) -> u32 {
    if element == 0u {
        return (values[first_word + index / 4u] >> (8u * (index % 4u))) & 0xffu;
    }
    return values[first_word + index];
}

// Numbers that order like the elements; of both zeros the same. Not for NaN.
fn rank_of(bits: u32) -> u32 {
    if element != 2u || bits == 0x80000000u {
        return bits;
    }
    return select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
}

