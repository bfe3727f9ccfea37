// Iterates z -> z * z + c per sample. A number is vec2<u32>(low, high): 64 bits, two's complement, 56 of them fraction.
override group_size: u32;

@group(0) @binding(0) var<storage, read> columns: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> lines: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> max_iterations: array<u32, 1>;
@group(0) @binding(3) var<storage, read_write> escapes: array<u32>;

// In the high word, which has 24 fraction bits.
const RADIUS: u32 = 8u << 24u;
const RADIUS_SQUARED: u32 = 64u << 24u;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let sample = (group.y * group_count.x + group.x) * group_size + member;
    let across = arrayLength(&columns);
    let line = sample / across;
    if line >= arrayLength(&lines) {
        return;
    }
    let escaped = escape(columns[sample % across], lines[line]);
    escapes[3u * sample] = escaped.x;
    escapes[3u * sample + 1u] = escaped.y;
    escapes[3u * sample + 2u] = escaped.z;
}

// Iterations and the high words of z.
fn escape(cx: vec2<u32>, cy: vec2<u32>) -> vec3<u32> {
    let limit = max_iterations[0];
    var x = vec2<u32>();
    var y = vec2<u32>();
    var seen_x = vec2<u32>();
    var seen_y = vec2<u32>();
    var next_seen = 1u;
    for (var iterations = 0u; iterations < limit; iterations++) {
        let x_size = magnitude(x);
        let y_size = magnitude(y);
        if max(x_size.y, y_size.y) >= RADIUS {
            return vec3<u32>(iterations, x.y, y.y);
        }
        let xx = square(x_size);
        let yy = square(y_size);
        let sum = add(xx, yy);
        if sum.y >= RADIUS_SQUARED {
            return vec3<u32>(iterations, x.y, y.y);
        }
        let xy_twice = subtract(square(magnitude(add(x, y))), sum);
        x = add(subtract(xx, yy), cx);
        y = add(xy_twice, cy);
        if all(x == seen_x) && all(y == seen_y) {
            break;
        }
        if iterations + 1u == next_seen {
            seen_x = x;
            seen_y = y;
            next_seen *= 2u;
        }
    }
    return vec3<u32>(limit, 0u, 0u);
}

fn add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn subtract(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn magnitude(a: vec2<u32>) -> vec2<u32> {
    return select(a, subtract(vec2<u32>(), a), a.y >> 31u == 1u);
}

// Of a number from 0 to below 16. The product has four words; the result is the middle, from its bit 56 on.
fn square(a: vec2<u32>) -> vec2<u32> {
    let low = mul_wide(a.x, a.x);
    let cross = mul_wide(a.x, a.y);
    let high = mul_wide(a.y, a.y);
    // Twice the cross product fits two words, since a.y is below 2^28.
    let upper = add(high, vec2<u32>(cross.y << 1u | cross.x >> 31u, 0u));
    let middle = add(vec2<u32>(low.y, upper.x), vec2<u32>(cross.x << 1u, 0u));
    let top = upper.y + select(0u, 1u, middle.y < upper.x);
    return vec2<u32>(middle.x >> 24u | middle.y << 8u, middle.y >> 24u | top << 8u);
}
