// C = A x B by tiles: each group makes 64 x 64 elements of C, each of its threads 4 x 4 of them.
// B first: it stays on the device while A and the shape change.
@group(0) @binding(0) var<storage, read> right: array<f32>;
@group(0) @binding(1) var<storage, read> left: array<f32>;
// Rows of A, columns of A, columns of B.
@group(0) @binding(2) var<storage, read> shape: array<u32, 3>;
@group(0) @binding(3) var<storage, read_write> product: array<f32>;

const TILE = 64u;
// Columns of A that a group has in its memory at once.
const DEPTH = 16u;

// A's tile lies by columns, so that the four rows of a thread are neighbours.
var<workgroup> left_tile: array<vec4<f32>, 256>;
var<workgroup> right_tile: array<vec4<f32>, 256>;

fn left_at(row: u32, column: u32) -> f32 {
    if row < shape[0] && column < shape[1] {
        return left[row * shape[1] + column];
    }
    return 0.0;
}

fn right_at(row: u32, column: u32) -> f32 {
    if row < shape[1] && column < shape[2] {
        return right[row * shape[2] + column];
    }
    return 0.0;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let number = group.y * group_count.x + group.x;
    let across = (shape[2] + TILE - 1u) / TILE;
    let down = (shape[0] + TILE - 1u) / TILE;
    if number >= across * down {
        return;
    }
    let first_row = number / across * TILE;
    let first_column = number % across * TILE;
    // Which 4 x 4 elements of the tile are this thread's.
    let own_row = member / 16u;
    let own_column = member % 16u;

    // Sums by row; a vector holds four columns.
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var start = 0u; start < shape[1]; start += DEPTH) {
        // Each thread brings four elements of each tile. Neighbours read neighbours: of A along k, of B along n.
        let column = start + member % DEPTH;
        let row = first_row + 4u * (member / DEPTH);
        left_tile[(member % DEPTH) * 16u + member / DEPTH] =
            vec4<f32>(left_at(row, column), left_at(row + 1u, column), left_at(row + 2u, column), left_at(row + 3u, column));
        let right_row = start + member / 16u;
        let right_column = first_column + 4u * (member % 16u);
        right_tile[member] = vec4<f32>(
            right_at(right_row, right_column),
            right_at(right_row, right_column + 1u),
            right_at(right_row, right_column + 2u),
            right_at(right_row, right_column + 3u),
        );
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let a = left_tile[k * 16u + own_row];
            let b = right_tile[k * 16u + own_column];
            sum0 += a.x * b;
            sum1 += a.y * b;
            sum2 += a.z * b;
            sum3 += a.w * b;
        }
        workgroupBarrier();
    }
    let row = first_row + 4u * own_row;
    let column = first_column + 4u * own_column;
    put(row, column, sum0);
    put(row + 1u, column, sum1);
    put(row + 2u, column, sum2);
    put(row + 3u, column, sum3);
}

fn put(row: u32, column: u32, sum: vec4<f32>) {
    if row >= shape[0] {
        return;
    }
    let place = row * shape[2] + column;
    for (var index = 0u; index < 4u; index++) {
        if column + index < shape[2] {
            product[place + index] = sum[index];
        }
    }
}
