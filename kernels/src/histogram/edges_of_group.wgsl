
// One more than there are, since an array is never empty.
var<workgroup> group_edges: array<u32, edge_count + 1u>;

fn bring_edges(member: u32) {
    for (var index = member; index < edge_count; index += group_size) {
        group_edges[index] = edges[index];
    }
    workgroupBarrier();
}

fn edge(index: u32) -> u32 {
    return group_edges[index];
}
