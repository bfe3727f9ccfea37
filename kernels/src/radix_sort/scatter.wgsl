// Moves each element to its place: behind all with smaller digits, and behind those with the same digit that come before it.
//
// A group goes through its elements in rounds of one per member. In a round each member sets its bit in the mask of its digit; the bits
// below its own are the members before it. That needs neither subgroups nor waiting for other groups.
@group(0) @binding(1) var<storage, read> places: array<u32>; // counts, scanned
@group(0) @binding(2) var<storage, read_write> sorted: array<u32>;

const mask_words = 8u; // for groups of at most 256

var<workgroup> next: array<u32, 256>; // where the next element of each digit goes
var<workgroup> masks: array<atomic<u32>, 2048>;

fn work(part: Part, member: u32) {
    for (var digit = member; digit < 256u; digit += group_size) {
        next[digit] = places[digit * part.groups + part.number];
    }
    workgroupBarrier();
    let own_word = member / 32u;
    for (var round = part.first; round < part.end; round += group_size) {
        let index = round + member;
        let has = index < part.end;
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
