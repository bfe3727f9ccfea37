// Finds the nearest centroid of each point of a chunk and adds up counts, sums and the objective; see gpu.rs.
override group_size: u32;
override cells_in_group: u32;
override points_each: u32;

struct Shape {
    points: u32,
    words: u32, // of a point: two coordinates each
    clusters: u32,
    columns: u32,
}

// Word w of point i is at w * points + i, so that neighbours read neighbours.
@group(0) @binding(0) var<storage, read> points: array<u32>;
// Word w of centroids 4 g .. 4 g + 3 is at g * words + w; their number is filled up to a multiple of eight.
@group(0) @binding(1) var<storage, read> centroids: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> shape: Shape;
// Sums, cluster by cluster; counts; the low and the high word of the objective.
@group(0) @binding(3) var<storage, read_write> cells: array<atomic<u32>>;

var<workgroup> group_cells: array<atomic<u32>, cells_in_group>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let first = (group.y * group_count.x + group.x) * group_size * points_each;
    let counts = shape.clusters * shape.columns;
    let objective = counts + shape.clusters;
    let all = objective + 2u;
    // One group's few cells are added up in its own memory first, or all points of the device would wait for each other there.
    let grouped = all <= cells_in_group;
    for (var turn = 0u; turn < points_each; turn += 1u) {
        let index = first + turn * group_size + member;
        if index >= shape.points {
            break;
        }
        let found = nearest(index);
        if grouped {
            atomicAdd(&group_cells[counts + found.x], 1u);
            let before = atomicAdd(&group_cells[objective], found.y);
            atomicAdd(&group_cells[objective + 1u], found.z + u32(before + found.y < before));
        } else {
            atomicAdd(&cells[counts + found.x], 1u);
            let before = atomicAdd(&cells[objective], found.y);
            atomicAdd(&cells[objective + 1u], found.z + u32(before + found.y < before));
        }
        let row = found.x * shape.columns;
        for (var column = 0u; column < shape.columns; column += 1u) {
            let place = (points[(column / 2u) * shape.points + index] >> (16u * (column % 2u))) & 0xffffu;
            if grouped {
                atomicAdd(&group_cells[row + column], place);
            } else {
                atomicAdd(&cells[row + column], place);
            }
        }
    }
    workgroupBarrier();
    if !grouped {
        return;
    }
    for (var cell = member; cell < objective; cell += group_size) {
        let sum = atomicLoad(&group_cells[cell]);
        if sum > 0u {
            atomicAdd(&cells[cell], sum);
        }
    }
    if member == 0u {
        let low = atomicLoad(&group_cells[objective]);
        let before = atomicAdd(&cells[objective], low);
        atomicAdd(&cells[objective + 1u], atomicLoad(&group_cells[objective + 1u]) + u32(before + low < before));
    }
}

// The first of the nearest centroids, and the low and the high word of its squared distance.
fn nearest(index: u32) -> vec3<u32> {
    var best = vec3<u32>(0u, 0xffffffffu, 0xffffffffu);
    for (var first = 0u; first < shape.clusters; first += 8u) {
        // Squares have 32 bits; their halves are added up apart.
        var low_a = vec4<u32>();
        var high_a = vec4<u32>();
        var low_b = vec4<u32>();
        var high_b = vec4<u32>();
        let a = (first / 4u) * shape.words;
        let b = a + shape.words;
        for (var word = 0u; word < shape.words; word += 1u) {
            let point = points[word * shape.points + index];
            let even = vec4<u32>(point & 0xffffu);
            let odd = vec4<u32>(point >> 16u);
            let centroids_a = centroids[a + word];
            let centroids_b = centroids[b + word];
            let even_a = even - (centroids_a & vec4<u32>(0xffffu));
            let odd_a = odd - (centroids_a >> vec4<u32>(16u));
            let even_b = even - (centroids_b & vec4<u32>(0xffffu));
            let odd_b = odd - (centroids_b >> vec4<u32>(16u));
            // Differences below zero wrap, and their squares wrap back.
            let squares_a = even_a * even_a;
            let more_a = odd_a * odd_a;
            let squares_b = even_b * even_b;
            let more_b = odd_b * odd_b;
            low_a += (squares_a & vec4<u32>(0xffffu)) + (more_a & vec4<u32>(0xffffu));
            high_a += (squares_a >> vec4<u32>(16u)) + (more_a >> vec4<u32>(16u));
            low_b += (squares_b & vec4<u32>(0xffffu)) + (more_b & vec4<u32>(0xffffu));
            high_b += (squares_b >> vec4<u32>(16u)) + (more_b >> vec4<u32>(16u));
        }
        for (var lane = 0u; lane < 4u; lane += 1u) {
            best = better(best, first + lane, low_a[lane], high_a[lane]);
        }
        for (var lane = 0u; lane < 4u; lane += 1u) {
            best = better(best, first + 4u + lane, low_b[lane], high_b[lane]);
        }
    }
    return best;
}

fn better(best: vec3<u32>, cluster: u32, low_half: u32, high_half: u32) -> vec3<u32> {
    let low = (high_half << 16u) + low_half;
    let high = (high_half >> 16u) + u32(low < low_half);
    let nearer = cluster < shape.clusters && (high < best.z || (high == best.z && low < best.y));
    return select(best, vec3<u32>(cluster, low, high), nearer);
}
