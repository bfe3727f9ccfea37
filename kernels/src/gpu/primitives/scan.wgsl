// Replaces each of a group's values by the combination of the group's offset and the values before it.
override group_size: u32;
override per_group: u32;
override single: u32; // 1: there is one group, and it begins with the identity

@group(0) @binding(0) var<storage, read> offsets: array<Value>;
@group(0) @binding(1) var<storage, read_write> values: array<Value>;

var<workgroup> lanes: array<Value, group_size>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let number = group.y * group_count.x + group.x;
    let count = arrayLength(&values);
    let first = number * per_group;
    if first >= count {
        return;
    }
    let end = min(first + per_group, count);
    var before = identity();
    if single == 0u {
        before = offsets[number];
    }
    // Tile by tile, so that neighbours read neighbouring values.
    for (var tile = first; tile < end; tile += group_size) {
        let index = tile + member;
        var mine = identity();
        if index < end {
            mine = values[index];
        }
        // Inclusive: after the step of distance d a lane holds what its last 2d values combine to.
        lanes[member] = mine;
        workgroupBarrier();
        for (var distance = 1u; distance < group_size; distance *= 2u) {
            var sum = lanes[member];
            if member >= distance {
                sum = combine(lanes[member - distance], sum);
            }
            workgroupBarrier();
            lanes[member] = sum;
            workgroupBarrier();
        }
        if index < end {
            if member == 0u {
                values[index] = before;
            } else {
                values[index] = combine(before, lanes[member - 1u]);
            }
        }
        before = combine(before, lanes[group_size - 1u]);
        workgroupBarrier();
    }
}
