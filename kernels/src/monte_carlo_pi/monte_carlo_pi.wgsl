// Counts, per piece, the samples that hit the quarter circle.
override group_size: u32;

@group(0) @binding(1) var<storage, read> key: array<u32, 2>;
@group(0) @binding(2) var<storage, read_write> hits: array<u32>;

var<workgroup> group_hits: atomic<u32>;

fn work(piece: Piece, number: u32, member: u32) {
    var own_hits = 0u;
    for (var index = member; index < piece.count; index += group_size) {
        let sample = integer_of(piece, index);
        own_hits += hit(sample.x, sample.y);
    }
    atomicAdd(&group_hits, own_hits);
    workgroupBarrier();
    if member == 0u {
        hits[number] = atomicLoad(&group_hits);
    }
}

// 1 when x * x + y * y < 2^64.
fn hit(sample_low: u32, sample_high: u32) -> u32 {
    let point = philox(vec4<u32>(sample_low, sample_high, 0u, 0u), vec2<u32>(key[0], key[1]));
    let xx = mul_wide(point.x, point.x);
    let yy = mul_wide(point.y, point.y);
    let carry = select(0u, 1u, xx.x + yy.x < xx.x);
    let high = xx.y + yy.y;
    let overflows = high < xx.y || high + carry < high;
    return select(1u, 0u, overflows);
}
