// matmul.units64x64: 2 x 1 x 1 workgroups
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
@group(0) @binding(0) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f16>>;

var<workgroup> tile_a: array<vec4u, 320>;
var<workgroup> tile_b: array<vec4u, 320>;
var<workgroup> sums: array<f32, 1024>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u, @builtin(subgroup_id) subgroup_id: u32) {
let block = group.x;
let split = block / 2u;
let batch = (block % 2u) / 2u;
let tile = block % 2u;
let firstRow = (tile / 1u) * 64u;
let firstColumn = (tile % 1u) * 64u;
let begin = split * 96u;
let last = min(80u, begin + 96u);

let x_a0 = (lane + 0u) / 4u;
let y_a0 = (lane + 0u) % 4u * 8u;
let at_a0 = 0u + (min(firstRow + x_a0, 95u)) * 80u;
var next_a0 = vec4u();
let x_a1 = (lane + 128u) / 4u;
let y_a1 = (lane + 128u) % 4u * 8u;
let at_a1 = 0u + (min(firstRow + x_a1, 95u)) * 80u;
var next_a1 = vec4u();
let x_b0 = (lane + 0u) / 4u;
let y_b0 = (lane + 0u) % 4u * 8u;
let at_b0 = 0u + (min(firstColumn + x_b0, 59u)) * 80u;
var next_b0 = vec4u();
let x_b1 = (lane + 128u) / 4u;
let y_b1 = (lane + 128u) % 4u * 8u;
let at_b1 = 0u + (min(firstColumn + x_b1, 59u)) * 80u;
var next_b1 = vec4u();
let blockRow = subgroup_id / 2u * 32u;
let blockColumn = subgroup_id % 2u * 32u;
var c0_0 = subgroup_matrix_result<f32, 16, 16>();
var c0_1 = subgroup_matrix_result<f32, 16, 16>();
var c1_0 = subgroup_matrix_result<f32, 16, 16>();
var c1_1 = subgroup_matrix_result<f32, 16, 16>();
next_a0 = select(vec4u(), vec4u(a[(at_a0 + min(begin + y_a0, 72u)) / 8u]), begin + y_a0 < last);
next_a1 = select(vec4u(), vec4u(a[(at_a1 + min(begin + y_a1, 72u)) / 8u]), begin + y_a1 < last);
next_b0 = select(vec4u(), vec4u(b[(at_b0 + min(begin + y_b0, 72u)) / 8u]), begin + y_b0 < last);
next_b1 = select(vec4u(), vec4u(b[(at_b1 + min(begin + y_b1, 72u)) / 8u]), begin + y_b1 < last);
for (var done = 0u; done < 96u; done += 32u) {
let depth = begin + done;
tile_a[(x_a0 * 40u + y_a0) / 8u] = next_a0;
tile_a[(x_a1 * 40u + y_a1) / 8u] = next_a1;
tile_b[(x_b0 * 40u + y_b0) / 8u] = next_b0;
tile_b[(x_b1 * 40u + y_b1) / 8u] = next_b1;
workgroupBarrier();
if (done + 32u < 96u) {
next_a0 = select(vec4u(), vec4u(a[(at_a0 + min(depth + 32u + y_a0, 72u)) / 8u]), depth + 32u + y_a0 < last);
next_a1 = select(vec4u(), vec4u(a[(at_a1 + min(depth + 32u + y_a1, 72u)) / 8u]), depth + 32u + y_a1 < last);
next_b0 = select(vec4u(), vec4u(b[(at_b0 + min(depth + 32u + y_b0, 72u)) / 8u]), depth + 32u + y_b0 < last);
next_b1 = select(vec4u(), vec4u(b[(at_b1 + min(depth + 32u + y_b1, 72u)) / 8u]), depth + 32u + y_b1 < last);
}
for (var step = 0u; step < 32u; step += 16u) {
let a0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tile_a, ((blockRow + 0u) * 40u + step) / 8u, 5u);
let a1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tile_a, ((blockRow + 16u) * 40u + step) / 8u, 5u);
let b0 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tile_b, ((blockColumn + 0u) * 40u + step) / 8u, 5u);
let b1 = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tile_b, ((blockColumn + 16u) * 40u + step) / 8u, 5u);
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
