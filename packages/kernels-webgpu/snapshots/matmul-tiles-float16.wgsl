// matmul.32x32: 16 x 1 x 1 workgroups
enable f16;
@group(0) @binding(0) var<storage, read> a: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> b: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f16>>;
fn four_halves(x: vec2u) -> vec4f { return vec4f(unpack2x16float(x.x), unpack2x16float(x.y)); }
var<workgroup> tile_a: array<vec4f, 144>;
var<workgroup> tile_b: array<vec4f, 128>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let block = (group.y * groups.x + group.x);
if (block >= 16u) { return; }
let split = block / 16u;
let batch = (block % 16u) / 16u;
let tile = block % 16u;
let firstRow = (tile / 4u) * 32u;
let firstColumn = (tile % 4u) * 32u;
let begin = split * 64u;
let last = min(64u, begin + 64u);

let x_a0 = (lane + 0u) / 4u;
let y_a0 = (lane + 0u) % 4u * 4u;
let at_a0 = 0u + (firstRow + x_a0) * 64u;
var next_a0 = vec4f();
let x_a1 = (lane + 64u) / 4u;
let y_a1 = (lane + 64u) % 4u * 4u;
let at_a1 = 0u + (firstRow + x_a1) * 64u;
var next_a1 = vec4f();
let x_b0 = (lane + 0u) % 8u * 4u;
let y_b0 = (lane + 0u) / 8u;
let at_b0 = 0u + firstColumn + x_b0;
var next_b0 = vec4f();
let x_b1 = (lane + 64u) % 8u * 4u;
let y_b1 = (lane + 64u) / 8u;
let at_b1 = 0u + firstColumn + x_b1;
var next_b1 = vec4f();
let threadRow = lane / 8u;
let threadColumn = lane % 8u;
var c0_0 = vec4f();
var c1_0 = vec4f();
var c2_0 = vec4f();
var c3_0 = vec4f();
var depth = begin;
if (depth < last) {
next_a0 = four_halves(a[(at_a0 + depth + y_a0) / 4u]);
next_a1 = four_halves(a[(at_a1 + depth + y_a1) / 4u]);
next_b0 = four_halves(b[(at_b0 + (depth + y_b0) * 128u) / 4u]);
next_b1 = four_halves(b[(at_b1 + (depth + y_b1) * 128u) / 4u]);
}
for (; depth < last; depth += 16u) {
tile_a[(y_a0 + 0u) * 9u + x_a0 / 4u][x_a0 % 4u] = next_a0[0];
tile_a[(y_a0 + 1u) * 9u + x_a0 / 4u][x_a0 % 4u] = next_a0[1];
tile_a[(y_a0 + 2u) * 9u + x_a0 / 4u][x_a0 % 4u] = next_a0[2];
tile_a[(y_a0 + 3u) * 9u + x_a0 / 4u][x_a0 % 4u] = next_a0[3];
tile_a[(y_a1 + 0u) * 9u + x_a1 / 4u][x_a1 % 4u] = next_a1[0];
tile_a[(y_a1 + 1u) * 9u + x_a1 / 4u][x_a1 % 4u] = next_a1[1];
tile_a[(y_a1 + 2u) * 9u + x_a1 / 4u][x_a1 % 4u] = next_a1[2];
tile_a[(y_a1 + 3u) * 9u + x_a1 / 4u][x_a1 % 4u] = next_a1[3];
tile_b[(y_b0 + 0u) * 8u + x_b0 / 4u] = next_b0;
tile_b[(y_b1 + 0u) * 8u + x_b1 / 4u] = next_b1;
workgroupBarrier();
if (depth + 16u < last) {
next_a0 = four_halves(a[(at_a0 + depth + 16u + y_a0) / 4u]);
next_a1 = four_halves(a[(at_a1 + depth + 16u + y_a1) / 4u]);
next_b0 = four_halves(b[(at_b0 + (depth + 16u + y_b0) * 128u) / 4u]);
next_b1 = four_halves(b[(at_b1 + (depth + 16u + y_b1) * 128u) / 4u]);
}
for (var step = 0u; step < 16u; step++) {
let b0 = tile_b[step * 8u + threadColumn + 0u];
let a0 = tile_a[step * 9u + threadRow + 0u];
c0_0 = fma(vec4f(a0[0]), b0, c0_0);
c1_0 = fma(vec4f(a0[1]), b0, c1_0);
c2_0 = fma(vec4f(a0[2]), b0, c2_0);
c3_0 = fma(vec4f(a0[3]), b0, c3_0);
}
workgroupBarrier();
}
{
let row = firstRow + threadRow * 4u + 0u;
let place = ((split * 1u + batch) * 128u + row) * 128u;
out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f16>(c0_0);
}
{
let row = firstRow + threadRow * 4u + 1u;
let place = ((split * 1u + batch) * 128u + row) * 128u;
out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f16>(c1_0);
}
{
let row = firstRow + threadRow * 4u + 2u;
let place = ((split * 1u + batch) * 128u + row) * 128u;
out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f16>(c2_0);
}
{
let row = firstRow + threadRow * 4u + 3u;
let place = ((split * 1u + batch) * 128u + row) * 128u;
out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f16>(c3_0);
}
}
