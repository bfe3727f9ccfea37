
var<workgroup> group_reduce_lanes: array<Value, group_size>;

// What the values of all members of the group combine to, in a tree of one fixed shape. All members must call it.
fn group_reduce(member: u32, mine: Value) -> Value {
    group_reduce_lanes[member] = mine;
    workgroupBarrier();
    for (var width = group_size / 2u; width > 0u; width /= 2u) {
        if member < width {
            group_reduce_lanes[member] = combine(group_reduce_lanes[member], group_reduce_lanes[member + width]);
        }
        workgroupBarrier();
    }
    let all = group_reduce_lanes[0];
    // Else a member could begin the next one while another still reads this one's result.
    workgroupBarrier();
    return all;
}
