// matmul.units64x64: 2 x 1 x 1 workgroups
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
@group(0) @binding(0) var<storage, read> a: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f16>>;

var<workgroup> tile_a: array<f16, 2560>;
var<workgroup> tile_b: array<f16, 2560>;
var<workgroup> sums: array<f32, 1024>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u, @builtin(subgroup_id) subgroup_id: u32) {
let block = (group.y * groups.x + group.x);
if (block >= 2u) { return; }
let split = block / 2u;
let batch = (block % 2u) / 2u;
let tile = block % 2u;
let firstRow = (tile / 1u) * 64u;
let firstColumn = (tile % 1u) * 64u;
let last = min(80u, (split + 1u) * 96u);

let x_a0 = (lane + 0u) / 8u;
let y_a0 = (lane + 0u) % 8u * 4u;
let at_a0 = 0u + (min(firstRow + x_a0, 95u)) * 80u;
var next_a0 = vec4h();
let x_a1 = (lane + 128u) / 8u;
let y_a1 = (lane + 128u) % 8u * 4u;
let at_a1 = 0u + (min(firstRow + x_a1, 95u)) * 80u;
var next_a1 = vec4h();
let x_a2 = (lane + 256u) / 8u;
let y_a2 = (lane + 256u) % 8u * 4u;
let at_a2 = 0u + (min(firstRow + x_a2, 95u)) * 80u;
var next_a2 = vec4h();
let x_a3 = (lane + 384u) / 8u;
let y_a3 = (lane + 384u) % 8u * 4u;
let at_a3 = 0u + (min(firstRow + x_a3, 95u)) * 80u;
var next_a3 = vec4h();
let x_b0 = (lane + 0u) / 8u;
let y_b0 = (lane + 0u) % 8u * 4u;
let at_b0 = 0u + (min(firstColumn + x_b0, 59u)) * 80u;
var next_b0 = vec4h();
let x_b1 = (lane + 128u) / 8u;
let y_b1 = (lane + 128u) % 8u * 4u;
let at_b1 = 0u + (min(firstColumn + x_b1, 59u)) * 80u;
var next_b1 = vec4h();
let x_b2 = (lane + 256u) / 8u;
let y_b2 = (lane + 256u) % 8u * 4u;
let at_b2 = 0u + (min(firstColumn + x_b2, 59u)) * 80u;
var next_b2 = vec4h();
let x_b3 = (lane + 384u) / 8u;
let y_b3 = (lane + 384u) % 8u * 4u;
let at_b3 = 0u + (min(firstColumn + x_b3, 59u)) * 80u;
var next_b3 = vec4h();
let blockRow = subgroup_id / 2u * 32u;
let blockColumn = subgroup_id % 2u * 32u;
var c0_0 = subgroup_matrix_result<f32, 16, 16>();
var c0_1 = subgroup_matrix_result<f32, 16, 16>();
var c1_0 = subgroup_matrix_result<f32, 16, 16>();
var c1_1 = subgroup_matrix_result<f32, 16, 16>();
var depth = split * 96u;
if (depth < last) {
next_a0 = select(vec4h(), vec4h(a[(at_a0 + min(depth + y_a0, 76u)) / 4u]), depth + y_a0 < last);
next_a1 = select(vec4h(), vec4h(a[(at_a1 + min(depth + y_a1, 76u)) / 4u]), depth + y_a1 < last);
next_a2 = select(vec4h(), vec4h(a[(at_a2 + min(depth + y_a2, 76u)) / 4u]), depth + y_a2 < last);
next_a3 = select(vec4h(), vec4h(a[(at_a3 + min(depth + y_a3, 76u)) / 4u]), depth + y_a3 < last);
next_b0 = select(vec4h(), vec4h(b[(at_b0 + min(depth + y_b0, 76u)) / 4u]), depth + y_b0 < last);
next_b1 = select(vec4h(), vec4h(b[(at_b1 + min(depth + y_b1, 76u)) / 4u]), depth + y_b1 < last);
next_b2 = select(vec4h(), vec4h(b[(at_b2 + min(depth + y_b2, 76u)) / 4u]), depth + y_b2 < last);
next_b3 = select(vec4h(), vec4h(b[(at_b3 + min(depth + y_b3, 76u)) / 4u]), depth + y_b3 < last);
}
for (; depth < last; depth += 32u) {
tile_a[x_a0 * 40u + y_a0 + 0u] = next_a0[0];
tile_a[x_a0 * 40u + y_a0 + 1u] = next_a0[1];
tile_a[x_a0 * 40u + y_a0 + 2u] = next_a0[2];
tile_a[x_a0 * 40u + y_a0 + 3u] = next_a0[3];
tile_a[x_a1 * 40u + y_a1 + 0u] = next_a1[0];
tile_a[x_a1 * 40u + y_a1 + 1u] = next_a1[1];
tile_a[x_a1 * 40u + y_a1 + 2u] = next_a1[2];
tile_a[x_a1 * 40u + y_a1 + 3u] = next_a1[3];
tile_a[x_a2 * 40u + y_a2 + 0u] = next_a2[0];
tile_a[x_a2 * 40u + y_a2 + 1u] = next_a2[1];
tile_a[x_a2 * 40u + y_a2 + 2u] = next_a2[2];
tile_a[x_a2 * 40u + y_a2 + 3u] = next_a2[3];
tile_a[x_a3 * 40u + y_a3 + 0u] = next_a3[0];
tile_a[x_a3 * 40u + y_a3 + 1u] = next_a3[1];
tile_a[x_a3 * 40u + y_a3 + 2u] = next_a3[2];
tile_a[x_a3 * 40u + y_a3 + 3u] = next_a3[3];
tile_b[x_b0 * 40u + y_b0 + 0u] = next_b0[0];
tile_b[x_b0 * 40u + y_b0 + 1u] = next_b0[1];
tile_b[x_b0 * 40u + y_b0 + 2u] = next_b0[2];
tile_b[x_b0 * 40u + y_b0 + 3u] = next_b0[3];
tile_b[x_b1 * 40u + y_b1 + 0u] = next_b1[0];
tile_b[x_b1 * 40u + y_b1 + 1u] = next_b1[1];
tile_b[x_b1 * 40u + y_b1 + 2u] = next_b1[2];
tile_b[x_b1 * 40u + y_b1 + 3u] = next_b1[3];
tile_b[x_b2 * 40u + y_b2 + 0u] = next_b2[0];
tile_b[x_b2 * 40u + y_b2 + 1u] = next_b2[1];
tile_b[x_b2 * 40u + y_b2 + 2u] = next_b2[2];
tile_b[x_b2 * 40u + y_b2 + 3u] = next_b2[3];
tile_b[x_b3 * 40u + y_b3 + 0u] = next_b3[0];
tile_b[x_b3 * 40u + y_b3 + 1u] = next_b3[1];
tile_b[x_b3 * 40u + y_b3 + 2u] = next_b3[2];
tile_b[x_b3 * 40u + y_b3 + 3u] = next_b3[3];
workgroupBarrier();
if (depth + 32u < last) {
next_a0 = select(vec4h(), vec4h(a[(at_a0 + min(depth + 32u + y_a0, 76u)) / 4u]), depth + 32u + y_a0 < last);
next_a1 = select(vec4h(), vec4h(a[(at_a1 + min(depth + 32u + y_a1, 76u)) / 4u]), depth + 32u + y_a1 < last);
next_a2 = select(vec4h(), vec4h(a[(at_a2 + min(depth + 32u + y_a2, 76u)) / 4u]), depth + 32u + y_a2 < last);
next_a3 = select(vec4h(), vec4h(a[(at_a3 + min(depth + 32u + y_a3, 76u)) / 4u]), depth + 32u + y_a3 < last);
next_b0 = select(vec4h(), vec4h(b[(at_b0 + min(depth + 32u + y_b0, 76u)) / 4u]), depth + 32u + y_b0 < last);
next_b1 = select(vec4h(), vec4h(b[(at_b1 + min(depth + 32u + y_b1, 76u)) / 4u]), depth + 32u + y_b1 < last);
next_b2 = select(vec4h(), vec4h(b[(at_b2 + min(depth + 32u + y_b2, 76u)) / 4u]), depth + 32u + y_b2 < last);
next_b3 = select(vec4h(), vec4h(b[(at_b3 + min(depth + 32u + y_b3, 76u)) / 4u]), depth + 32u + y_b3 < last);
}
for (var step = 0u; step < 32u; step += 16u) {
let a0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tile_a, (blockRow + 0u) * 40u + step, 40u);
let a1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tile_a, (blockRow + 16u) * 40u + step, 40u);
let b0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tile_b, (blockColumn + 0u) * 40u + step, 40u);
let b1 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tile_b, (blockColumn + 16u) * 40u + step, 40u);
c0_0 = subgroupMatrixMultiplyAccumulate(a0, b0, c0_0);
c0_1 = subgroupMatrixMultiplyAccumulate(a0, b1, c0_1);
c1_0 = subgroupMatrixMultiplyAccumulate(a1, b0, c1_0);
c1_1 = subgroupMatrixMultiplyAccumulate(a1, b1, c1_1);
}
workgroupBarrier();
}
subgroupMatrixStore<row_major>(&sums, subgroup_id * 256u, c0_0, 16u);
workgroupBarrier();
for (var quad = lane; quad < 256u; quad += 128u) {
let own = vec4f(sums[quad * 4u], sums[quad * 4u + 1u], sums[quad * 4u + 2u], sums[quad * 4u + 3u]);
{
let row = firstRow + quad / 64u / 2u * 32u + quad % 64u / 4u + 0u;
if (row < 96u) {
let place = ((split * 1u + batch) * 96u + row) * 60u;
if ((firstColumn + quad / 64u % 2u * 32u + quad % 4u * 4u + 0u) < 60u) { out[(place + (firstColumn + quad / 64u % 2u * 32u + quad % 4u * 4u + 0u)) / 4u] = vec4<f16>(own); }
}
}
}
workgroupBarrier();
subgroupMatrixStore<row_major>(&sums, subgroup_id * 256u, c0_1, 16u);
workgroupBarrier();
for (var quad = lane; quad < 256u; quad += 128u) {
let own = vec4f(sums[quad * 4u], sums[quad * 4u + 1u], sums[quad * 4u + 2u], sums[quad * 4u + 3u]);
{
let row = firstRow + quad / 64u / 2u * 32u + quad % 64u / 4u + 0u;
if (row < 96u) {
let place = ((split * 1u + batch) * 96u + row) * 60u;
if ((firstColumn + quad / 64u % 2u * 32u + quad % 4u * 4u + 16u) < 60u) { out[(place + (firstColumn + quad / 64u % 2u * 32u + quad % 4u * 4u + 16u)) / 4u] = vec4<f16>(own); }
}
}
}
workgroupBarrier();
subgroupMatrixStore<row_major>(&sums, subgroup_id * 256u, c1_0, 16u);
workgroupBarrier();
for (var quad = lane; quad < 256u; quad += 128u) {
let own = vec4f(sums[quad * 4u], sums[quad * 4u + 1u], sums[quad * 4u + 2u], sums[quad * 4u + 3u]);
{
let row = firstRow + quad / 64u / 2u * 32u + quad % 64u / 4u + 16u;
if (row < 96u) {
let place = ((split * 1u + batch) * 96u + row) * 60u;
if ((firstColumn + quad / 64u % 2u * 32u + quad % 4u * 4u + 0u) < 60u) { out[(place + (firstColumn + quad / 64u % 2u * 32u + quad % 4u * 4u + 0u)) / 4u] = vec4<f16>(own); }
}
}
}
workgroupBarrier();
subgroupMatrixStore<row_major>(&sums, subgroup_id * 256u, c1_1, 16u);
workgroupBarrier();
for (var quad = lane; quad < 256u; quad += 128u) {
let own = vec4f(sums[quad * 4u], sums[quad * 4u + 1u], sums[quad * 4u + 2u], sums[quad * 4u + 3u]);
{
let row = firstRow + quad / 64u / 2u * 32u + quad % 64u / 4u + 16u;
if (row < 96u) {
let place = ((split * 1u + batch) * 96u + row) * 60u;
if ((firstColumn + quad / 64u % 2u * 32u + quad % 4u * 4u + 16u) < 60u) { out[(place + (firstColumn + quad / 64u % 2u * 32u + quad % 4u * 4u + 16u)) / 4u] = vec4<f16>(own); }
}
}
}
workgroupBarrier();
}
