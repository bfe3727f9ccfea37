// Largest high product of each group, and the sum of all.
override group_size: u32;

@group(0) @binding(0) var<storage, read> values: array<u32>;
@group(0) @binding(1) var<storage, read_write> results: array<atomic<u32>>;

var<workgroup> largest: atomic<u32>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let group_number = group.y * group_count.x + group.x;
    let index = group_number * group_size + member;
    if index < arrayLength(&values) {
        let value = values[index];
        let high = mul_wide(value, value ^ 0xffff0000u).y;
        atomicMax(&largest, high);
        atomicAdd(&results[0], high);
    }
    workgroupBarrier();
    if member == 0u && group_number + 1u < arrayLength(&results) {
        atomicStore(&results[group_number + 1u], atomicLoad(&largest));
    }
}
