// matmul.small: 1 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;


@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let i = (group.y * groups.x + group.x) * 256u + lane;
if (i >= 15u) { return; }
let column = i % 3u;
let row = (i / 3u) % 5u;
let batch = i / 15u;

var total = 0.0f;
for (var d = 0u; d < 7u; d++) {
let x = f32(a[0u + row * 7u + d]);
let y = f32(b[0u + d * 3u + column]);
total = fma(x, y, total);
}
out[i] = f32(total);
}
