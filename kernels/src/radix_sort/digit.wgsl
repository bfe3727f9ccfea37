
// What counting and scattering share: a group for each so many elements, and the digits of elements.
override group_size: u32;
override per_group: u32;
// An element is one word or two, the low one first.
override words: u32;
override digit_bit: u32; // the lowest of the eight bits of this pass
override is_float: u32; // 1: elements are floats, and their order is that of mapped bits

@group(0) @binding(0) var<storage, read> values: array<u32>;

// The elements of a group: first .. end.
struct Part {
    number: u32,
    groups: u32,
    first: u32,
    end: u32,
}

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let number = group.y * group_count.x + group.x;
    let count = element_count();
    let groups = (count + per_group - 1u) / per_group;
    if number < groups {
        let first = number * per_group;
        work(Part(number, groups, first, min(first + per_group, count)), member);
    }
}

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
