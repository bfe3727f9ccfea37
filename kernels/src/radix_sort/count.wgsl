// How often each digit occurs among a group's elements.
override group_size: u32;
override per_group: u32;

@group(0) @binding(0) var<storage, read> values: array<u32>;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;

var<workgroup> own: array<atomic<u32>, 256>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let number = group.y * group_count.x + group.x;
    let groups = arrayLength(&counts) / 256u;
    if number >= groups {
        return;
    }
    let end = min((number + 1u) * per_group, element_count());
    for (var index = number * per_group + member; index < end; index += group_size) {
        atomicAdd(&own[digit_of(element_at(index))], 1u);
    }
    workgroupBarrier();
    for (var digit = member; digit < 256u; digit += group_size) {
        counts[digit * groups + number] = atomicLoad(&own[digit]);
    }
}
