// One work group for each piece of a list. The program declares `group_size`, `Piece`, and `work`, which all members of the group call.

@group(0) @binding(0) var<storage, read> pieces: array<Piece>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    // Many groups are folded into two dimensions, whose last row may be longer than the list.
    let number = group.y * group_count.x + group.x;
    if number < arrayLength(&pieces) {
        work(pieces[number], number, member);
    }
}

