// matmul.rows: 24 x 1 x 1 workgroups
enable subgroups;
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> sum_held: array<vec4f, 128>;
fn sum_of_lanes(lane: u32, value: vec4f) -> vec4f {
let own = subgroupAdd(value);
sum_held[lane] = select(vec4f(), own, subgroupElect());
workgroupBarrier();
let active_lanes = subgroupAdd(1u);
var rest = vec4f();
for (var n = subgroupExclusiveAdd(1u); n < 128u; n += active_lanes) { rest = rest + sum_held[n]; }
let result = subgroupAdd(rest);
workgroupBarrier();
return result;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let index = (group.y * groups.x + group.x);
let batch = index / 24u;
let block = index % 24u;
var c0 = vec4f();
if (batch < 1u) {
let first = (block - 0u) * 4u;

for (var d = lane; d < 128u; d += 128u) {
let y0 = vec4f(b[0u + min(first + 0u, 95u) * 128u + d]);
let y1 = vec4f(b[0u + min(first + 1u, 95u) * 128u + d]);
let y2 = vec4f(b[0u + min(first + 2u, 95u) * 128u + d]);
let y3 = vec4f(b[0u + min(first + 3u, 95u) * 128u + d]);
{
let x = vec4f(a[0u + 0u + d]);
c0 += vec4f(dot(x, y0), dot(x, y1), dot(x, y2), dot(x, y3));
}
}
}
c0 = sum_of_lanes(lane, c0);
if (lane < 4u && batch < 1u) {
let first = (block - 0u) * 4u;
let column = first + lane;
if (column < 96u) {
out[(batch * 1u + 0u) * 96u + column] = f32(c0[lane]);
}
}
}
