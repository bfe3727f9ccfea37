
// Edges and bins together exceed the group's memory.
fn bring_edges(member: u32) {
}

fn edge(index: u32) -> u32 {
    return edges[index];
}
