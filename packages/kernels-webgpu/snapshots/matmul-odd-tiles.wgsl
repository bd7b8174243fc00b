// matmul.32x32: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> tile_a: array<vec4f, 144>;
var<workgroup> tile_b: array<vec4f, 144>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let block = (group.y * groups.x + group.x);
if (block >= 4u) { return; }
let split = block / 4u;
let batch = (block % 4u) / 4u;
let tile = block % 4u;
let firstRow = (tile / 2u) * 32u;
let firstColumn = (tile % 2u) * 32u;
let begin = split * 80u;
let last = min(67u, begin + 80u);

let x_a0 = (lane + 0u) / 16u;
let y_a0 = (lane + 0u) % 16u * 1u;
let at_a0 = 0u + (min(firstRow + x_a0, 34u)) * 67u;
var next_a0 = f32();
let x_a1 = (lane + 64u) / 16u;
let y_a1 = (lane + 64u) % 16u * 1u;
let at_a1 = 0u + (min(firstRow + x_a1, 34u)) * 67u;
var next_a1 = f32();
let x_a2 = (lane + 128u) / 16u;
let y_a2 = (lane + 128u) % 16u * 1u;
let at_a2 = 0u + (min(firstRow + x_a2, 34u)) * 67u;
var next_a2 = f32();
let x_a3 = (lane + 192u) / 16u;
let y_a3 = (lane + 192u) % 16u * 1u;
let at_a3 = 0u + (min(firstRow + x_a3, 34u)) * 67u;
var next_a3 = f32();
let x_a4 = (lane + 256u) / 16u;
let y_a4 = (lane + 256u) % 16u * 1u;
let at_a4 = 0u + (min(firstRow + x_a4, 34u)) * 67u;
var next_a4 = f32();
let x_a5 = (lane + 320u) / 16u;
let y_a5 = (lane + 320u) % 16u * 1u;
let at_a5 = 0u + (min(firstRow + x_a5, 34u)) * 67u;
var next_a5 = f32();
let x_a6 = (lane + 384u) / 16u;
let y_a6 = (lane + 384u) % 16u * 1u;
let at_a6 = 0u + (min(firstRow + x_a6, 34u)) * 67u;
var next_a6 = f32();
let x_a7 = (lane + 448u) / 16u;
let y_a7 = (lane + 448u) % 16u * 1u;
let at_a7 = 0u + (min(firstRow + x_a7, 34u)) * 67u;
var next_a7 = f32();
let x_b0 = (lane + 0u) / 16u;
let y_b0 = (lane + 0u) % 16u * 1u;
let at_b0 = 0u + (min(firstColumn + x_b0, 36u)) * 67u;
var next_b0 = f32();
let x_b1 = (lane + 64u) / 16u;
let y_b1 = (lane + 64u) % 16u * 1u;
let at_b1 = 0u + (min(firstColumn + x_b1, 36u)) * 67u;
var next_b1 = f32();
let x_b2 = (lane + 128u) / 16u;
let y_b2 = (lane + 128u) % 16u * 1u;
let at_b2 = 0u + (min(firstColumn + x_b2, 36u)) * 67u;
var next_b2 = f32();
let x_b3 = (lane + 192u) / 16u;
let y_b3 = (lane + 192u) % 16u * 1u;
let at_b3 = 0u + (min(firstColumn + x_b3, 36u)) * 67u;
var next_b3 = f32();
let x_b4 = (lane + 256u) / 16u;
let y_b4 = (lane + 256u) % 16u * 1u;
let at_b4 = 0u + (min(firstColumn + x_b4, 36u)) * 67u;
var next_b4 = f32();
let x_b5 = (lane + 320u) / 16u;
let y_b5 = (lane + 320u) % 16u * 1u;
let at_b5 = 0u + (min(firstColumn + x_b5, 36u)) * 67u;
var next_b5 = f32();
let x_b6 = (lane + 384u) / 16u;
let y_b6 = (lane + 384u) % 16u * 1u;
let at_b6 = 0u + (min(firstColumn + x_b6, 36u)) * 67u;
var next_b6 = f32();
let x_b7 = (lane + 448u) / 16u;
let y_b7 = (lane + 448u) % 16u * 1u;
let at_b7 = 0u + (min(firstColumn + x_b7, 36u)) * 67u;
var next_b7 = f32();
let threadRow = lane / 8u;
let threadColumn = lane % 8u;
var c0_0 = vec4f();
var c1_0 = vec4f();
var c2_0 = vec4f();
var c3_0 = vec4f();
var depth = begin;
if (depth < last) {
next_a0 = select(f32(), f32(a[at_a0 + min(depth + y_a0, 66u)]), depth + y_a0 < last);
next_a1 = select(f32(), f32(a[at_a1 + min(depth + y_a1, 66u)]), depth + y_a1 < last);
next_a2 = select(f32(), f32(a[at_a2 + min(depth + y_a2, 66u)]), depth + y_a2 < last);
next_a3 = select(f32(), f32(a[at_a3 + min(depth + y_a3, 66u)]), depth + y_a3 < last);
next_a4 = select(f32(), f32(a[at_a4 + min(depth + y_a4, 66u)]), depth + y_a4 < last);
next_a5 = select(f32(), f32(a[at_a5 + min(depth + y_a5, 66u)]), depth + y_a5 < last);
next_a6 = select(f32(), f32(a[at_a6 + min(depth + y_a6, 66u)]), depth + y_a6 < last);
next_a7 = select(f32(), f32(a[at_a7 + min(depth + y_a7, 66u)]), depth + y_a7 < last);
next_b0 = select(f32(), f32(b[at_b0 + min(depth + y_b0, 66u)]), depth + y_b0 < last);
next_b1 = select(f32(), f32(b[at_b1 + min(depth + y_b1, 66u)]), depth + y_b1 < last);
next_b2 = select(f32(), f32(b[at_b2 + min(depth + y_b2, 66u)]), depth + y_b2 < last);
next_b3 = select(f32(), f32(b[at_b3 + min(depth + y_b3, 66u)]), depth + y_b3 < last);
next_b4 = select(f32(), f32(b[at_b4 + min(depth + y_b4, 66u)]), depth + y_b4 < last);
next_b5 = select(f32(), f32(b[at_b5 + min(depth + y_b5, 66u)]), depth + y_b5 < last);
next_b6 = select(f32(), f32(b[at_b6 + min(depth + y_b6, 66u)]), depth + y_b6 < last);
next_b7 = select(f32(), f32(b[at_b7 + min(depth + y_b7, 66u)]), depth + y_b7 < last);
}
for (; depth < last; depth += 16u) {
tile_a[(y_a0 + 0u) * 9u + x_a0 / 4u][x_a0 % 4u] = next_a0;
tile_a[(y_a1 + 0u) * 9u + x_a1 / 4u][x_a1 % 4u] = next_a1;
tile_a[(y_a2 + 0u) * 9u + x_a2 / 4u][x_a2 % 4u] = next_a2;
tile_a[(y_a3 + 0u) * 9u + x_a3 / 4u][x_a3 % 4u] = next_a3;
tile_a[(y_a4 + 0u) * 9u + x_a4 / 4u][x_a4 % 4u] = next_a4;
tile_a[(y_a5 + 0u) * 9u + x_a5 / 4u][x_a5 % 4u] = next_a5;
tile_a[(y_a6 + 0u) * 9u + x_a6 / 4u][x_a6 % 4u] = next_a6;
tile_a[(y_a7 + 0u) * 9u + x_a7 / 4u][x_a7 % 4u] = next_a7;
tile_b[(y_b0 + 0u) * 9u + x_b0 / 4u][x_b0 % 4u] = next_b0;
tile_b[(y_b1 + 0u) * 9u + x_b1 / 4u][x_b1 % 4u] = next_b1;
tile_b[(y_b2 + 0u) * 9u + x_b2 / 4u][x_b2 % 4u] = next_b2;
tile_b[(y_b3 + 0u) * 9u + x_b3 / 4u][x_b3 % 4u] = next_b3;
tile_b[(y_b4 + 0u) * 9u + x_b4 / 4u][x_b4 % 4u] = next_b4;
tile_b[(y_b5 + 0u) * 9u + x_b5 / 4u][x_b5 % 4u] = next_b5;
tile_b[(y_b6 + 0u) * 9u + x_b6 / 4u][x_b6 % 4u] = next_b6;
tile_b[(y_b7 + 0u) * 9u + x_b7 / 4u][x_b7 % 4u] = next_b7;
workgroupBarrier();
if (depth + 16u < last) {
next_a0 = select(f32(), f32(a[at_a0 + min(depth + 16u + y_a0, 66u)]), depth + 16u + y_a0 < last);
next_a1 = select(f32(), f32(a[at_a1 + min(depth + 16u + y_a1, 66u)]), depth + 16u + y_a1 < last);
next_a2 = select(f32(), f32(a[at_a2 + min(depth + 16u + y_a2, 66u)]), depth + 16u + y_a2 < last);
next_a3 = select(f32(), f32(a[at_a3 + min(depth + 16u + y_a3, 66u)]), depth + 16u + y_a3 < last);
next_a4 = select(f32(), f32(a[at_a4 + min(depth + 16u + y_a4, 66u)]), depth + 16u + y_a4 < last);
next_a5 = select(f32(), f32(a[at_a5 + min(depth + 16u + y_a5, 66u)]), depth + 16u + y_a5 < last);
next_a6 = select(f32(), f32(a[at_a6 + min(depth + 16u + y_a6, 66u)]), depth + 16u + y_a6 < last);
next_a7 = select(f32(), f32(a[at_a7 + min(depth + 16u + y_a7, 66u)]), depth + 16u + y_a7 < last);
next_b0 = select(f32(), f32(b[at_b0 + min(depth + 16u + y_b0, 66u)]), depth + 16u + y_b0 < last);
next_b1 = select(f32(), f32(b[at_b1 + min(depth + 16u + y_b1, 66u)]), depth + 16u + y_b1 < last);
next_b2 = select(f32(), f32(b[at_b2 + min(depth + 16u + y_b2, 66u)]), depth + 16u + y_b2 < last);
next_b3 = select(f32(), f32(b[at_b3 + min(depth + 16u + y_b3, 66u)]), depth + 16u + y_b3 < last);
next_b4 = select(f32(), f32(b[at_b4 + min(depth + 16u + y_b4, 66u)]), depth + 16u + y_b4 < last);
next_b5 = select(f32(), f32(b[at_b5 + min(depth + 16u + y_b5, 66u)]), depth + 16u + y_b5 < last);
next_b6 = select(f32(), f32(b[at_b6 + min(depth + 16u + y_b6, 66u)]), depth + 16u + y_b6 < last);
next_b7 = select(f32(), f32(b[at_b7 + min(depth + 16u + y_b7, 66u)]), depth + 16u + y_b7 < last);
}
for (var step = 0u; step < 16u; step++) {
let b0 = tile_b[step * 9u + threadColumn + 0u];
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
if (row < 35u) {
let place = ((split * 1u + batch) * 35u + row) * 37u;
if ((firstColumn + threadColumn * 4u + 0u) + 0u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 0u] = f32(c0_0[0]); }
if ((firstColumn + threadColumn * 4u + 0u) + 1u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 1u] = f32(c0_0[1]); }
if ((firstColumn + threadColumn * 4u + 0u) + 2u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 2u] = f32(c0_0[2]); }
if ((firstColumn + threadColumn * 4u + 0u) + 3u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 3u] = f32(c0_0[3]); }
}
}
{
let row = firstRow + threadRow * 4u + 1u;
if (row < 35u) {
let place = ((split * 1u + batch) * 35u + row) * 37u;
if ((firstColumn + threadColumn * 4u + 0u) + 0u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 0u] = f32(c1_0[0]); }
if ((firstColumn + threadColumn * 4u + 0u) + 1u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 1u] = f32(c1_0[1]); }
if ((firstColumn + threadColumn * 4u + 0u) + 2u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 2u] = f32(c1_0[2]); }
if ((firstColumn + threadColumn * 4u + 0u) + 3u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 3u] = f32(c1_0[3]); }
}
}
{
let row = firstRow + threadRow * 4u + 2u;
if (row < 35u) {
let place = ((split * 1u + batch) * 35u + row) * 37u;
if ((firstColumn + threadColumn * 4u + 0u) + 0u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 0u] = f32(c2_0[0]); }
if ((firstColumn + threadColumn * 4u + 0u) + 1u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 1u] = f32(c2_0[1]); }
if ((firstColumn + threadColumn * 4u + 0u) + 2u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 2u] = f32(c2_0[2]); }
if ((firstColumn + threadColumn * 4u + 0u) + 3u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 3u] = f32(c2_0[3]); }
}
}
{
let row = firstRow + threadRow * 4u + 3u;
if (row < 35u) {
let place = ((split * 1u + batch) * 35u + row) * 37u;
if ((firstColumn + threadColumn * 4u + 0u) + 0u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 0u] = f32(c3_0[0]); }
if ((firstColumn + threadColumn * 4u + 0u) + 1u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 1u] = f32(c3_0[1]); }
if ((firstColumn + threadColumn * 4u + 0u) + 2u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 2u] = f32(c3_0[2]); }
if ((firstColumn + threadColumn * 4u + 0u) + 3u < 37u) { out[place + (firstColumn + threadColumn * 4u + 0u) + 3u] = f32(c3_0[3]); }
}
}
}
