// How often each digit occurs among a group's elements.
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;

var<workgroup> own: array<atomic<u32>, 256>;

fn work(part: Part, member: u32) {
    for (var index = part.first + member; index < part.end; index += group_size) {
        atomicAdd(&own[digit_of(element_at(index))], 1u);
    }
    workgroupBarrier();
    for (var digit = member; digit < 256u; digit += group_size) {
        counts[digit * part.groups + part.number] = atomicLoad(&own[digit]);
    }
}
