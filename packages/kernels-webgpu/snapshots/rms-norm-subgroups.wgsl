// rmsNorm: 5 x 1 x 1 workgroups
enable subgroups;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> sum_held: array<f32, 64>;
fn sum_of_lanes(lane: u32, value: f32) -> f32 {
let own = subgroupAdd(value);
sum_held[lane] = select(f32(), own, subgroupElect());
workgroupBarrier();
let active_lanes = subgroupAdd(1u);
var rest = f32();
for (var n = subgroupExclusiveAdd(1u); n < 64u; n += active_lanes) { rest = rest + sum_held[n]; }
let result = subgroupAdd(rest);
workgroupBarrier();
return result;
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let row = min((group.y * groups.x + group.x), 4u);
var total = 0.0f;
for (var i = lane; i < 128u; i += 64u) {
let value = vec4f(x[row * 128u + i]);
total += dot(value * value, vec4f(1.0f));
}
let inverse = 1.0f / sqrt(sum_of_lanes(lane, total) / 512.0f + 9.999999974752427e-7f);
for (var i = lane; i < 128u; i += 64u) {
out[row * 128u + i] = vec4<f32>(vec4f(x[row * 128u + i]) * inverse * vec4f(weight[i]));
}
}
