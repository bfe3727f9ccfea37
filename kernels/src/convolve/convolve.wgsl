// Filters one band of rows. `pixels` begins `radius` rows above it and ends as many below.
override group_size: u32;

@group(0) @binding(0) var<storage, read> pixels: array<u32>;
@group(0) @binding(1) var<storage, read> weights: array<i32>;
// Width, rows of the band, radius, squares, whether sums below zero count by their size, divisor, bias.
@group(0) @binding(2) var<storage, read> shape: array<i32, 7>;
@group(0) @binding(3) var<storage, read_write> filtered: array<u32>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let index = (group.y * group_count.x + group.x) * group_size + member;
    let width = shape[0];
    if index >= u32(width) * u32(shape[1]) {
        return;
    }
    let radius = shape[2];
    let column = i32(index % u32(width));
    let row = i32(index / u32(width));
    var all = vec3<i32>();
    var place = 0u;
    for (var square = 0; square < shape[3]; square++) {
        var sum = vec3<i32>();
        for (var down = 0; down <= 2 * radius; down++) {
            let line = (row + down) * width;
            for (var across = -radius; across <= radius; across++) {
                let pixel = pixels[line + clamp(column + across, 0, width - 1)];
                let channels = vec3<i32>(vec3<u32>(pixel, pixel >> 8u, pixel >> 16u) & vec3<u32>(0xffu));
                sum += weights[place] * channels;
                place++;
            }
        }
        if shape[4] != 0 {
            sum = abs(sum);
        }
        all += sum;
    }
    let dividend = vec3<u32>(max(all + vec3<i32>(shape[6]), vec3<i32>()));
    let values = min(dividend / vec3<u32>(u32(shape[5])), vec3<u32>(255u));
    let alpha = pixels[(row + radius) * width + column] & 0xff000000u;
    filtered[index] = values.x | (values.y << 8u) | (values.z << 16u) | alpha;
}
