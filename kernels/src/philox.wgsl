// Philox4x32-10: four random words that are a function of their number and a key.
fn philox(start: vec4<u32>, start_key: vec2<u32>) -> vec4<u32> {
    var counter = start;
    var round_key = start_key;
    for (var round = 0u; round < 10u; round++) {
        let a = mul_wide(0xd2511f53u, counter.x);
        let b = mul_wide(0xcd9e8d57u, counter.z);
        counter = vec4<u32>(b.y ^ counter.y ^ round_key.x, b.x, a.y ^ counter.w ^ round_key.y, a.x);
        round_key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return counter;
}
