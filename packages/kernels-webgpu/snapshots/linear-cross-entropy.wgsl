// linearCrossEntropy.32x32: 2 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> tile_a: array<vec4f, 144>;
var<workgroup> tile_b: array<vec4f, 144>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let block = (group.y * groups.x + group.x);
if (block >= 2u) { return; }
let split = block / 2u;
let batch = (block % 2u) / 2u;
let tile = block % 2u;
let firstRow = (tile / 2u) * 32u;
let firstColumn = (tile % 2u) * 32u;
let begin = split * 16u;
let last = min(16u, begin + 16u);

let x_a0 = (lane + 0u) / 4u;
let y_a0 = (lane + 0u) % 4u * 4u;
let at_a0 = 0u + (min(firstRow + x_a0, 7u)) * 16u;
var next_a0 = vec4f();
let x_a1 = (lane + 64u) / 4u;
let y_a1 = (lane + 64u) % 4u * 4u;
let at_a1 = 0u + (min(firstRow + x_a1, 7u)) * 16u;
var next_a1 = vec4f();
let x_b0 = (lane + 0u) / 4u;
let y_b0 = (lane + 0u) % 4u * 4u;
let at_b0 = 0u + (min(firstColumn + x_b0, 39u)) * 16u;
var next_b0 = vec4f();
let x_b1 = (lane + 64u) / 4u;
let y_b1 = (lane + 64u) % 4u * 4u;
let at_b1 = 0u + (min(firstColumn + x_b1, 39u)) * 16u;
var next_b1 = vec4f();
let threadRow = lane / 8u;
let threadColumn = lane % 8u;
var c0_0 = vec4f();
var c1_0 = vec4f();
var c2_0 = vec4f();
var c3_0 = vec4f();
var depth = begin;
if (depth < last) {
next_a0 = vec4f(a[(at_a0 + depth + y_a0) / 4u]);
next_a1 = vec4f(a[(at_a1 + depth + y_a1) / 4u]);
next_b0 = vec4f(b[(at_b0 + depth + y_b0) / 4u]);
next_b1 = vec4f(b[(at_b1 + depth + y_b1) / 4u]);
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
tile_b[(y_b0 + 0u) * 9u + x_b0 / 4u][x_b0 % 4u] = next_b0[0];
tile_b[(y_b0 + 1u) * 9u + x_b0 / 4u][x_b0 % 4u] = next_b0[1];
tile_b[(y_b0 + 2u) * 9u + x_b0 / 4u][x_b0 % 4u] = next_b0[2];
tile_b[(y_b0 + 3u) * 9u + x_b0 / 4u][x_b0 % 4u] = next_b0[3];
tile_b[(y_b1 + 0u) * 9u + x_b1 / 4u][x_b1 % 4u] = next_b1[0];
tile_b[(y_b1 + 1u) * 9u + x_b1 / 4u][x_b1 % 4u] = next_b1[1];
tile_b[(y_b1 + 2u) * 9u + x_b1 / 4u][x_b1 % 4u] = next_b1[2];
tile_b[(y_b1 + 3u) * 9u + x_b1 / 4u][x_b1 % 4u] = next_b1[3];
workgroupBarrier();
if (depth + 16u < last) {
next_a0 = vec4f(a[(at_a0 + depth + 16u + y_a0) / 4u]);
next_a1 = vec4f(a[(at_a1 + depth + 16u + y_a1) / 4u]);
next_b0 = vec4f(b[(at_b0 + depth + 16u + y_b0) / 4u]);
next_b1 = vec4f(b[(at_b1 + depth + 16u + y_b1) / 4u]);
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
if (row < 8u) {
let place = ((split * 1u + batch) * 8u + row) * 40u;
if ((firstColumn + threadColumn * 4u + 0u) < 40u) { out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f32>(c0_0); }
}
}
{
let row = firstRow + threadRow * 4u + 1u;
if (row < 8u) {
let place = ((split * 1u + batch) * 8u + row) * 40u;
if ((firstColumn + threadColumn * 4u + 0u) < 40u) { out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f32>(c1_0); }
}
}
{
let row = firstRow + threadRow * 4u + 2u;
if (row < 8u) {
let place = ((split * 1u + batch) * 8u + row) * 40u;
if ((firstColumn + threadColumn * 4u + 0u) < 40u) { out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f32>(c2_0); }
}
}
{
let row = firstRow + threadRow * 4u + 3u;
if (row < 8u) {
let place = ((split * 1u + batch) * 8u + row) * 40u;
if ((firstColumn + threadColumn * 4u + 0u) < 40u) { out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f32>(c3_0); }
}
}
}

// linearCrossEntropy.loss: 8 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read_write> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<i32>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;
@group(0) @binding(3) var<storage, read_write> status: array<u32>;
fn isNaN(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn maximum(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, isNaN(b)), a, isNaN(a)); }
fn log_near_one(f: f32) -> f32 {
let s = f / (2.0 + f);
let z = s * s;
let p = z * fma(fma(fma(0.22222222, z, 0.28571429), z, 0.4), z, 0.66666667);
let h = 0.5 * f * f;
return f - (h - s * (h + p));
}
var<private> infinityBits: u32 = 0x7f800000u;
fn infinity() -> f32 { return bitcast<f32>(infinityBits); }
var<private> notANumberBits: u32 = 0x7fc00000u;
fn notANumber() -> f32 { return bitcast<f32>(notANumberBits); }
fn exact_log(x: f32) -> f32 {
let tiny = x < 1.17549435e-38;
let bits = bitcast<u32>(select(x, x * 8388608.0, tiny));
let shift = (bits - 0x3f3504f3u) & 0xff800000u;
let e = f32(bitcast<i32>(shift) / 8388608) - select(0.0, 23.0, tiny);
let m = bitcast<f32>(bits - shift);
let value = fma(e, 0.693145751953125, log_near_one(m - 1.0) + e * 1.42860682030941723e-6);
let special = select(select(value, x, x > 3.4028234e38), -infinity(), x == 0.0);
return select(special, notANumber(), x < 0.0 || isNaN(x));
}
fn exact_exp(x: f32) -> f32 {
let bounded = clamp(x, -104.0, 89.0);
let n = round(bounded * 1.4426950408889634);
let r = fma(n, -1.42860682030941723e-6, fma(n, -0.693145751953125, bounded));
let p = fma(fma(fma(fma(fma(fma(1.3981999e-3, r, 8.3333333e-3), r, 4.1666667e-2), r, 0.16666667), r, 0.5), r, 1.0), r, 1.0);
let half = i32(n) / 2;
let scaled = p * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(i32(n) - half + 127) << 23u);
return select(select(scaled, infinity(), x > 88.72284), x, isNaN(x));
}
var<workgroup> max_held: array<f32, 256>;
fn max_of_lanes(lane: u32, value: f32) -> f32 {
max_held[lane] = value;
workgroupBarrier();
for (var half = 128u; half > 0u; half = half >> 1u) {
if (lane < half) { max_held[lane] = maximum(max_held[lane], max_held[lane + half]); }
workgroupBarrier();
}
let result = max_held[0];
workgroupBarrier();
return result;
}
var<workgroup> sum_held: array<f32, 256>;
fn sum_of_lanes(lane: u32, value: f32) -> f32 {
sum_held[lane] = value;
workgroupBarrier();
for (var half = 128u; half > 0u; half = half >> 1u) {
if (lane < half) { sum_held[lane] = sum_held[lane] + sum_held[lane + half]; }
workgroupBarrier();
}
let result = sum_held[0];
workgroupBarrier();
return result;
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let row = (group.y * groups.x + group.x);
if (row >= 8u) { return; }
let begin = row * 40u;
let target_ = targets[0u + row];
if (target_ < 0 || target_ >= 40) { status[0] = 1u; status[1] = bitcast<u32>(target_); }
var peak = -3e38f;
var total = 0.0f;
for (var i = lane; i < 40u; i += 256u) {
let value = logits[begin + i];
let next = max(peak, value);
total = fma(total, exp(peak - next), exp(value - next));
peak = next;
}
let largest = max_of_lanes(lane, peak);
let logSumExp = largest + exact_log(sum_of_lanes(lane, total * exp(peak - largest)));
let chosen = u32(clamp(target_, 0, 39));
if (lane == 0u) { losses[0u + row] = logSumExp - logits[begin + chosen]; }
storageBarrier();
workgroupBarrier();
for (var i = lane; i < 40u; i += 256u) {
logits[begin + i] = (exact_exp(logits[begin + i] - logSumExp) - select(0.0f, 1.0f, i == chosen)) * 0.125f;
}
}

// linearCrossEntropy.small: 1 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;


@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let i = (group.y * groups.x + group.x) * 256u + lane;
if (i >= 128u) { return; }
let column = i % 16u;
let row = (i / 16u) % 8u;
let batch = i / 128u;

var total = 0.0f;
for (var d = 0u; d < 40u; d++) {
let x = f32(a[0u + row * 40u + d]);
let y = f32(b[0u + d * 16u + column]);
total = fma(x, y, total);
}
out[i] = f32(total);
}

// linearCrossEntropy.32x32: 2 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> tile_a: array<vec4f, 128>;
var<workgroup> tile_b: array<vec4f, 128>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let block = (group.y * groups.x + group.x);
if (block >= 2u) { return; }
let split = block / 2u;
let batch = (block % 2u) / 2u;
let tile = block % 2u;
let firstRow = (tile / 1u) * 32u;
let firstColumn = (tile % 1u) * 32u;
let begin = split * 16u;
let last = min(8u, begin + 16u);

let x_a0 = (lane + 0u) % 8u * 4u;
let y_a0 = (lane + 0u) / 8u;
let at_a0 = 0u + min(firstRow + x_a0, 36u);
var next_a0 = vec4f();
let x_a1 = (lane + 64u) % 8u * 4u;
let y_a1 = (lane + 64u) / 8u;
let at_a1 = 0u + min(firstRow + x_a1, 36u);
var next_a1 = vec4f();
let x_b0 = (lane + 0u) % 8u * 4u;
let y_b0 = (lane + 0u) / 8u;
let at_b0 = 0u + min(firstColumn + x_b0, 12u);
var next_b0 = vec4f();
let x_b1 = (lane + 64u) % 8u * 4u;
let y_b1 = (lane + 64u) / 8u;
let at_b1 = 0u + min(firstColumn + x_b1, 12u);
var next_b1 = vec4f();
let threadRow = lane / 8u;
let threadColumn = lane % 8u;
var c0_0 = vec4f();
var c1_0 = vec4f();
var c2_0 = vec4f();
var c3_0 = vec4f();
var depth = begin;
if (depth < last) {
next_a0 = select(vec4f(), vec4f(a[(at_a0 + (min(depth + y_a0, 7u)) * 40u) / 4u]), depth + y_a0 < last);
next_a1 = select(vec4f(), vec4f(a[(at_a1 + (min(depth + y_a1, 7u)) * 40u) / 4u]), depth + y_a1 < last);
next_b0 = select(vec4f(), vec4f(b[(at_b0 + (min(depth + y_b0, 7u)) * 16u) / 4u]), depth + y_b0 < last);
next_b1 = select(vec4f(), vec4f(b[(at_b1 + (min(depth + y_b1, 7u)) * 16u) / 4u]), depth + y_b1 < last);
}
for (; depth < last; depth += 16u) {
tile_a[(y_a0 + 0u) * 8u + x_a0 / 4u] = next_a0;
tile_a[(y_a1 + 0u) * 8u + x_a1 / 4u] = next_a1;
tile_b[(y_b0 + 0u) * 8u + x_b0 / 4u] = next_b0;
tile_b[(y_b1 + 0u) * 8u + x_b1 / 4u] = next_b1;
workgroupBarrier();
if (depth + 16u < last) {
next_a0 = select(vec4f(), vec4f(a[(at_a0 + (min(depth + 16u + y_a0, 7u)) * 40u) / 4u]), depth + 16u + y_a0 < last);
next_a1 = select(vec4f(), vec4f(a[(at_a1 + (min(depth + 16u + y_a1, 7u)) * 40u) / 4u]), depth + 16u + y_a1 < last);
next_b0 = select(vec4f(), vec4f(b[(at_b0 + (min(depth + 16u + y_b0, 7u)) * 16u) / 4u]), depth + 16u + y_b0 < last);
next_b1 = select(vec4f(), vec4f(b[(at_b1 + (min(depth + 16u + y_b1, 7u)) * 16u) / 4u]), depth + 16u + y_b1 < last);
}
for (var step = 0u; step < 16u; step++) {
let b0 = tile_b[step * 8u + threadColumn + 0u];
let a0 = tile_a[step * 8u + threadRow + 0u];
c0_0 = fma(vec4f(a0[0]), b0, c0_0);
c1_0 = fma(vec4f(a0[1]), b0, c1_0);
c2_0 = fma(vec4f(a0[2]), b0, c2_0);
c3_0 = fma(vec4f(a0[3]), b0, c3_0);
}
workgroupBarrier();
}
{
let row = firstRow + threadRow * 4u + 0u;
if (row < 40u) {
let place = ((split * 1u + batch) * 40u + row) * 16u;
if ((firstColumn + threadColumn * 4u + 0u) < 16u) { out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f32>(c0_0); }
}
}
{
let row = firstRow + threadRow * 4u + 1u;
if (row < 40u) {
let place = ((split * 1u + batch) * 40u + row) * 16u;
if ((firstColumn + threadColumn * 4u + 0u) < 16u) { out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f32>(c1_0); }
}
}
{
let row = firstRow + threadRow * 4u + 2u;
if (row < 40u) {
let place = ((split * 1u + batch) * 40u + row) * 16u;
if ((firstColumn + threadColumn * 4u + 0u) < 16u) { out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f32>(c2_0); }
}
}
{
let row = firstRow + threadRow * 4u + 3u;
if (row < 40u) {
let place = ((split * 1u + batch) * 40u + row) * 16u;
if ((firstColumn + threadColumn * 4u + 0u) < 16u) { out[(place + (firstColumn + threadColumn * 4u + 0u)) / 4u] = vec4<f32>(c3_0); }
}
}
}

// linearCrossEntropy.mean: 1 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> losses: array<f32>;
@group(0) @binding(1) var<storage, read_write> value: array<f32>;

var<workgroup> sum_held: array<f32, 256>;
fn sum_of_lanes(lane: u32, value: f32) -> f32 {
sum_held[lane] = value;
workgroupBarrier();
for (var half = 128u; half > 0u; half = half >> 1u) {
if (lane < half) { sum_held[lane] = sum_held[lane] + sum_held[lane + half]; }
workgroupBarrier();
}
let result = sum_held[0];
workgroupBarrier();
return result;
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
var total = 0.0f;
for (var i = lane; i < 8u; i += 256u) { total += losses[i]; }
let sum = sum_of_lanes(lane, total);
if (lane == 0u) { value[0] = f32(sum / 8.0f); }
}
