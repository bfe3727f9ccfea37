// What a device does at most: copies, and multiplies and adds in registers.
override group_size: u32;
override rounds: u32; // of FMA chains

@group(0) @binding(0) var<storage, read> from_here: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> to_there: array<vec4<u32>>;

@compute @workgroup_size(group_size)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) group_count: vec3<u32>,
    @builtin(local_invocation_index) member: u32,
) {
    let index = (group.y * group_count.x + group.x) * group_size + member;
    if index >= arrayLength(&to_there) {
        return;
    }
    var value = from_here[select(index, 0u, rounds > 0u)];
    if rounds > 0u {
        // Eight chains of four numbers that do not wait for each other. The factor is below one, so that nothing overflows.
        let factor = vec4<f32>(0.5);
        // At least one, so that no chain sinks to where numbers are slow.
        let start = vec4<f32>(value & vec4<u32>(0xffu)) + vec4<f32>(1.0);
        var a = start;
        var b = start + vec4<f32>(1.0);
        var c = start + vec4<f32>(2.0);
        var d = start + vec4<f32>(3.0);
        var e = start + vec4<f32>(4.0);
        var f = start + vec4<f32>(5.0);
        var g = start + vec4<f32>(6.0);
        var h = start + vec4<f32>(7.0);
        for (var round = 0u; round < rounds; round += 1u) {
            a = fma(a, factor, start);
            b = fma(b, factor, start);
            c = fma(c, factor, start);
            d = fma(d, factor, start);
            e = fma(e, factor, start);
            f = fma(f, factor, start);
            g = fma(g, factor, start);
            h = fma(h, factor, start);
        }
        value = bitcast<vec4<u32>>(a + b + c + d + e + f + g + h);
    }
    to_there[index] = value;
}
