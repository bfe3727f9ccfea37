// Moves each element to its place: behind all with smaller digits, and behind those with the same digit that come before it.
//
// A group goes through its elements in rounds of one per member. In a round each member sets its bit in the mask of its digit; the bits
// below its own are the members before it. That needs neither subgroups nor waiting for other groups.
override group_size: u32; // at most 256: the masks have eight words
override per_group: u32;

@group(0) @binding(0) var<storage, read> values: array<u32>;
@group(0) @binding(1) var<storage, read> places: array<u32>; // counts, scanned
@group(0) @binding(2) var<storage, read_write> sorted: array<u32>;

const mask_words = 8u;

var<workgroup> next: array<u32, 256>; // where the next element of each digit goes
var<workgroup> masks: array<atomic<u32>, 2048>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let number = group.y * group_count.x + group.x;
    let groups = arrayLength(&places) / 256u;
    if number >= groups {
        return;
    }
    for (var digit = member; digit < 256u; digit += group_size) {
        next[digit] = places[digit * groups + number];
    }
    workgroupBarrier();
    let first = number * per_group;
    let end = min(first + per_group, element_count());
    let own_word = member / 32u;
    for (var round = first; round < end; round += group_size) {
        let index = round + member;
        let has = index < end;
        var element = vec2<u32>();
        var digit = 0u;
        if has {
            element = element_at(index);
            digit = digit_of(element);
            atomicOr(&masks[digit * mask_words + own_word], 1u << (member % 32u));
        }
        workgroupBarrier();
        var before = 0u;
        var all = 0u;
        var place = 0u;
        if has {
            for (var word = 0u; word < mask_words; word += 1u) {
                let mask = atomicLoad(&masks[digit * mask_words + word]);
                all += countOneBits(mask);
                if word < own_word {
                    before += countOneBits(mask);
                } else if word == own_word {
                    before += countOneBits(mask & ((1u << (member % 32u)) - 1u));
                }
            }
            place = next[digit] + before;
        }
        workgroupBarrier();
        if has {
            // The last one of the digit says where the next round goes on. The masks are empty again for it.
            if before + 1u == all {
                next[digit] += all;
            }
            atomicStore(&masks[digit * mask_words + own_word], 0u);
            sorted[place * words] = element.x;
            if words == 2u {
                sorted[place * words + 1u] = element.y;
            }
        }
        workgroupBarrier();
    }
}
