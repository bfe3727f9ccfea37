// Counts the values of each piece between the edges; see edges.rs for what ranks and edges are.
override group_size: u32;
override bins: u32;
override edge_count: u32;

struct Piece {
    first_word: u32,
    count: u32,
    task: u32,
    unused: u32,
}

@group(0) @binding(1) var<storage, read> values: array<u32>;
@group(0) @binding(2) var<storage, read> edges: array<u32>;
@group(0) @binding(3) var<storage, read_write> counters: array<atomic<u32>>;

var<workgroup> group_bins: array<atomic<u32>, bins>;

fn work(piece: Piece, number: u32, member: u32) {
    bring_edges(member);
    // Group memory for these would exceed 16 KiB, and most values are none of them.
    var below = 0u;
    var above = 0u;
    var invalid = 0u;
    for (var index = member; index < piece.count; index += group_size) {
        let bits = load(piece.first_word, index);
        if element == 2u && (bits << 1u) > 0xff000000u {
            invalid += 1u;
            continue;
        }
        let reached = edges_reached(rank_of(bits));
        if reached == 0u {
            below += 1u;
        } else if reached > bins {
            above += 1u;
        } else {
            atomicAdd(&group_bins[reached - 1u], 1u);
        }
    }
    let first_counter = piece.task * (bins + 3u);
    add(first_counter + bins, below);
    add(first_counter + bins + 1u, above);
    add(first_counter + bins + 2u, invalid);
    workgroupBarrier();
    for (var bin = member; bin < bins; bin += group_size) {
        add(first_counter + bin, atomicLoad(&group_bins[bin]));
    }
}

fn add(counter: u32, count: u32) {
    if count > 0u {
        atomicAdd(&counters[counter], count);
    }
}

// How many edges are not above the value, by halving: the edges rise.
fn edges_reached(value: u32) -> u32 {
    var low = 0u;
    var high = edge_count;
    while low < high {
        let middle = (low + high) / 2u;
        if edge(middle) <= value {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}
