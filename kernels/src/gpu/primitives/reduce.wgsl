// One value for each per_group values.
override group_size: u32;
override per_group: u32;

@group(0) @binding(0) var<storage, read> values: array<Value>;
@group(0) @binding(1) var<storage, read_write> partials: array<Value>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let number = group.y * group_count.x + group.x;
    if number >= arrayLength(&partials) {
        return;
    }
    let end = min((number + 1u) * per_group, arrayLength(&values));
    var mine = identity();
    for (var index = number * per_group + member; index < end; index += group_size) {
        mine = combine(mine, values[index]);
    }
    let all = group_reduce(member, mine);
    if member == 0u {
        partials[number] = all;
    }
}
