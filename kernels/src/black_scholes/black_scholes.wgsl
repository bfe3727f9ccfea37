// Prices the options of one piece per group; writes the group's sums, and the prices where they are wanted.
override group_size: u32;
override keep: u32;

struct Market {
    key: vec2<u32>,
    spot: vec2<f32>,
    strike: vec2<f32>,
    years: vec2<f32>,
    rate: f32,
    drift: f32,
    volatility: f32,
    unused: f32,
}

// The place of a piece is the word of the output for its first price.
@group(0) @binding(1) var<storage, read> market: Market;
// Four words per piece: calls, puts as sums of the lower and of the upper halves of each price in units; then call and put of each option.
@group(0) @binding(2) var<storage, read_write> results: array<u32>;

var<workgroup> sums: array<atomic<u32>, 4>;

fn work(piece: Piece, number: u32, member: u32) {
    var own = vec4<u32>();
    for (var index = member; index < piece.count; index += group_size) {
        let integer = integer_of(piece, index);
        let price = option(integer.x, integer.y);
        let parts = vec2<u32>(price * 65536.0 + 0.5);
        own += vec4<u32>(parts & vec2<u32>(0xffffu), parts >> vec2<u32>(16u));
        if keep != 0u {
            results[piece.place + 2u * index] = bitcast<u32>(price.x);
            results[piece.place + 2u * index + 1u] = bitcast<u32>(price.y);
        }
    }
    atomicAdd(&sums[0], own.x);
    atomicAdd(&sums[1], own.y);
    atomicAdd(&sums[2], own.z);
    atomicAdd(&sums[3], own.w);
    workgroupBarrier();
    if member < 4u {
        results[4u * number + member] = atomicLoad(&sums[member]);
    }
}

fn option(low: u32, high: u32) -> vec2<f32> {
    let random = philox(vec4<u32>(low, high, 0u, 0u), market.key);
    let share = vec3<f32>(random.xyz >> vec3<u32>(8u)) * (1.0 / 16777216.0);
    let spot = market.spot.x + share.x * market.spot.y;
    let strike = market.strike.x + share.y * market.strike.y;
    let years = market.years.x + share.z * market.years.y;

    let spread = market.volatility * sqrt(years);
    let d1 = (log(spot / strike) + market.drift * years) / spread;
    let d2 = d1 - spread;
    let owed = strike * exp(-(market.rate * years));
    let call = spot * normal(d1) - owed * normal(d2);
    let put = owed * normal(-d2) - spot * normal(-d1);
    return max(vec2<f32>(call, put), vec2<f32>());
}

// The standard normal distribution: Abramowitz and Stegun 26.2.17.
fn normal(d: f32) -> f32 {
    let size = abs(d);
    let k = 1.0 / (1.0 + 0.2316419 * size);
    let series = k * (0.31938153 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))));
    // Clamped: what lies below is far under every rounding, and an exponent of -inf need not be handled.
    let tail = 0.3989422804 * exp(max(-0.5 * size * size, -87.0)) * series;
    return select(tail, 1.0 - tail, d > 0.0);
}
