// Exact sums of each piece: one group, sixteen elements per member.
//
// A float is mantissa * 2^(place - 149), place being its exponent less one. The group takes the window of 25 places below its largest
// element: there, sums are integers of two words and sums of squares of four. The few elements below it are added, one by one, to limbs
// of a word with a count of carries. Integers all have place 0.
override group_size: u32;
override words_per_piece: u32;

const per_member = 16u;
const window = 24u; // 24 bits of mantissa + 24 places + 12 bits for 4096 elements: below 2^63
const outside_words = 72u;
const side = 9u; // limbs of 32 bits up to the largest f4: positive ones, negative ones, then twice as many for squares

struct Piece {
    first_word: u32,
    count: u32,
}

@group(0) @binding(1) var<storage, read> values: array<u32>;
@group(0) @binding(2) var<storage, read_write> results: array<u32>;

struct Value {
    invalid: u32,
    above: u32,
    below: u32,
    smallest: u32,
    largest: u32,
    sum: vec2<u32>, // two's complement
    squares: vec4<u32>,
}

var<workgroup> highest: atomic<u32>;
var<workgroup> outside: array<atomic<u32>, outside_words>; // limb, carries, limb, carries, ..

fn work(piece: Piece, number: u32, member: u32) {
    // Held in registers, so that the second look does not read them again.
    var held: array<u32, per_member>;
    var own_highest = 0u;
    for (var step = 0u; step < per_member; step += 1u) {
        let index = step * group_size + member;
        if index < piece.count {
            held[step] = load(piece.first_word, index);
            let exponent = (held[step] >> 23u) & 0xffu;
            if exponent < 0xffu {
                own_highest = max(own_highest, exponent);
            }
        }
    }
    atomicMax(&highest, own_highest);
    workgroupBarrier();
    var base = 0u;
    if element == 2u {
        // Exponents 0 and 1 have the same place.
        base = max(atomicLoad(&highest), window + 1u) - window - 1u;
    }

    var mine = Value(0u, 0u, 0u, 0xffffffffu, 0u, vec2<u32>(0u, 0u), vec4<u32>(0u, 0u, 0u, 0u));
    for (var step = 0u; step < per_member; step += 1u) {
        if step * group_size + member < piece.count {
            add(&mine, held[step], base);
        }
    }
    let all = group_reduce(member, mine);
    let first = number * words_per_piece;
    if member == 0u {
        results[first] = base;
        results[first + 1u] = all.invalid;
        results[first + 2u] = all.above;
        results[first + 3u] = all.below;
        results[first + 4u] = all.smallest;
        results[first + 5u] = all.largest;
        results[first + 6u] = all.sum.x;
        results[first + 7u] = all.sum.y;
        results[first + 8u] = all.squares.x;
        results[first + 9u] = all.squares.y;
        results[first + 10u] = all.squares.z;
        results[first + 11u] = all.squares.w;
    }
    if element == 2u {
        for (var word = member; word < outside_words; word += group_size) {
            results[first + 12u + word] = atomicLoad(&outside[word]);
        }
    }
}

fn add(mine: ptr<function, Value>, bits: u32, base: u32) {
    if element != 2u {
        (*mine).smallest = min((*mine).smallest, bits);
        (*mine).largest = max((*mine).largest, bits);
        (*mine).sum = sum_of((*mine).sum, vec2<u32>(bits, 0u));
        let square = mul_wide(bits, bits);
        (*mine).squares = wide_sum_of((*mine).squares, vec4<u32>(square.x, square.y, 0u, 0u));
        return;
    }
    let size = bits & 0x7fffffffu;
    if size > 0x7f800000u {
        (*mine).invalid += 1u;
        return;
    }
    let rank = rank_of(bits);
    (*mine).smallest = min((*mine).smallest, rank);
    (*mine).largest = max((*mine).largest, rank);
    let negative = bits >> 31u;
    if size == 0x7f800000u {
        (*mine).above += 1u - negative;
        (*mine).below += negative;
        return;
    }
    if size == 0u {
        return;
    }
    let exponent = size >> 23u;
    let place = max(exponent, 1u) - 1u;
    let mantissa = (size & 0x7fffffu) | select(0u, 0x800000u, exponent > 0u);
    let square = mul_wide(mantissa, mantissa);
    if place < base {
        let part = shifted(vec2<u32>(mantissa, 0u), place % 32u);
        add_outside(negative * side + place / 32u, part.x);
        add_outside(negative * side + place / 32u + 1u, part.y);
        let square_part = shifted(square, (2u * place) % 32u);
        add_outside(2u * side + place / 16u, square_part.x);
        add_outside(2u * side + place / 16u + 1u, square_part.y);
        add_outside(2u * side + place / 16u + 2u, square_part.z);
        return;
    }
    let up = place - base;
    let part = shifted(vec2<u32>(mantissa, 0u), up);
    if negative == 1u {
        // Minus x is not x plus one.
        (*mine).sum = sum_of((*mine).sum, sum_of(~part.xy, vec2<u32>(1u, 0u)));
    } else {
        (*mine).sum = sum_of((*mine).sum, part.xy);
    }
    let squared = shifted(square, (2u * up) % 32u);
    if up < 16u {
        (*mine).squares = wide_sum_of((*mine).squares, vec4<u32>(squared, 0u));
    } else {
        (*mine).squares = wide_sum_of((*mine).squares, vec4<u32>(0u, squared));
    }
}

// Adds to a limb, and to its carries when it passes 2^32. Nobody waits for a carry to travel.
fn add_outside(limb: u32, value: u32) {
    if value > 0u {
        let old = atomicAdd(&outside[2u * limb], value);
        if old + value < old {
            atomicAdd(&outside[2u * limb + 1u], 1u);
        }
    }
}

// Shifted to the left by 0 to 31. A shift by 32 is none in WGSL, hence the two steps.
fn shifted(value: vec2<u32>, by: u32) -> vec3<u32> {
    let back = 31u - by;
    return vec3<u32>(
        value.x << by,
        (value.y << by) | ((value.x >> 1u) >> back),
        (value.y >> 1u) >> back,
    );
}

fn sum_of(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn wide_sum_of(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    var sum = a + b;
    // Where a word has passed 2^32; adding one may let the next pass it.
    var carry = select(0u, 1u, sum.x < a.x);
    let y = sum.y + carry;
    carry = select(0u, 1u, sum.y < a.y || y < carry);
    let z = sum.z + carry;
    carry = select(0u, 1u, sum.z < a.z || z < carry);
    return vec4<u32>(sum.x, y, z, sum.w + carry);
}

fn combine(a: Value, b: Value) -> Value {
    return Value(
        a.invalid + b.invalid,
        a.above + b.above,
        a.below + b.below,
        min(a.smallest, b.smallest),
        max(a.largest, b.largest),
        sum_of(a.sum, b.sum),
        wide_sum_of(a.squares, b.squares),
    );
}
